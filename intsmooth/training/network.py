"""Networks described as data, and the float network that torch trains from such a description.

The same description is read three times: by the float network here, by its fake-quantized twin (fakequant.py) and by
the exporter (export.py), so that the three cannot drift apart. Everything is built from one unit that the integer
engine runs as one operator: convolution, batch norm (folded later), an optional residual, ReLU.

ResNet-20 is He et al., "Deep residual learning for image recognition" (2016), section 4.2, with option-A shortcuts:
a shortcut that changes shape takes every second pixel and leaves the new channels zero, half of them on either side.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from intsmooth.errors import InputError


@dataclass(frozen=True)
class Convolution:
    """relu(batch_norm(conv(source)) + residual): square kernel, padded by kernel // 2; `source` names what it reads.

    skip names the tensor that is added (None: no residual): its pixel (y, x) * skip_stride, its channel c going to
    output channel c + skip_offset.
    """

    name: str
    source: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    skip: str | None = None
    skip_stride: int = 1
    skip_offset: int = 0


@dataclass(frozen=True)
class Architecture:
    """Convolutions in execution order, then one linear layer on the last output.

    pooled: the linear layer sees the mean over height and width; otherwise the whole map, flattened as (H, W, C).
    """

    name: str
    image: tuple[int, int, int]
    convolutions: tuple[Convolution, ...]
    pooled: bool
    classes: int

    @property
    def last(self) -> str:
        return self.convolutions[-1].name

    def shape_of(self, tensor: str) -> tuple[int, int, int]:
        """Shape (H, W, C) of a convolution's output, or of "input"."""
        shapes = {"input": self.image}
        for layer in self.convolutions:
            height, width, _ = shapes[layer.source]
            shapes[layer.name] = ((height - 1) // layer.stride + 1, (width - 1) // layer.stride + 1, layer.outputs)
        return shapes[tensor]

    @property
    def features(self) -> int:
        """Inputs of the linear layer."""
        height, width, channels = self.shape_of(self.last)
        return channels if self.pooled else height * width * channels


def residual_stages(source: str, inputs: int, widths: tuple[int, ...], blocks: int) -> list[Convolution]:
    """Stages of `blocks` two-convolution residual blocks; each stage after the first halves the image."""
    layers: list[Convolution] = []
    for stage, outputs in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage + 1}.block{block + 1}"
            layers.append(Convolution(f"{name}.conv1", source, inputs, outputs, stride=stride))
            layers.append(
                Convolution(
                    f"{name}.conv2",
                    f"{name}.conv1",
                    outputs,
                    outputs,
                    skip=source,
                    skip_stride=stride,
                    skip_offset=(outputs - inputs) // 2,
                )
            )
            source, inputs = layers[-1].name, outputs
    return layers


def resnet(image: tuple[int, int, int], classes: int, blocks: int) -> Architecture:
    """The CIFAR ResNet of 6 * blocks + 2 layers."""
    layers = [Convolution("stem", "input", image[2], 16), *residual_stages("stem", 16, (16, 32, 64), blocks)]
    return Architecture(f"resnet{6 * blocks + 2}", image, tuple(layers), True, classes)


def resnet10(image: tuple[int, int, int], classes: int) -> Architecture:
    """Ten layers for photographs of about 112 x 112, 25 million multiply-adds: a 7 x 7 stem takes every fourth pixel,
    which averages noise away early, then four stages of one block."""
    widths = (16, 48, 96, 192)
    stem = Convolution("stem", "input", image[2], widths[0], kernel=7, stride=4)
    layers = (stem, *residual_stages("stem", widths[0], widths, 1))
    return Architecture("resnet10", image, layers, True, classes)


def digits_cnn(image: tuple[int, int, int], classes: int) -> Architecture:
    """A small residual network for 8x8 digits, half a million multiply-adds; the linear layer sees where things are."""
    layers = (
        Convolution("conv1", "input", image[2], 32),
        Convolution("conv2", "conv1", 32, 32, stride=2),
        Convolution("conv3", "conv2", 32, 32),
        Convolution("conv4", "conv3", 32, 32, skip="conv2"),
    )
    return Architecture("digits_cnn", image, layers, False, classes)


def architecture(name: str, image: tuple[int, int, int], classes: int) -> Architecture:
    """The architecture called `name` for images of shape (H, W, C); InputError for an unknown name."""
    builders = {
        "digits_cnn": digits_cnn,
        "resnet10": resnet10,
        "resnet8": lambda image, classes: resnet(image, classes, 1),
        "resnet20": lambda image, classes: resnet(image, classes, 3),
    }
    if name not in builders:
        raise InputError(f"network {name!r} is not known; use one of {', '.join(sorted(builders))}")
    return builders[name](image, classes)


def place_skip(skip: torch.Tensor, layer: Convolution) -> torch.Tensor:
    """The residual as it is added: every skip_stride-th pixel, channels moved to skip_offset, zeros elsewhere."""
    if layer.skip_stride > 1:
        skip = skip[:, :, :: layer.skip_stride, :: layer.skip_stride]
    after = layer.outputs - skip.shape[1] - layer.skip_offset
    if layer.skip_offset or after:
        skip = functional.pad(skip, (0, 0, 0, 0, layer.skip_offset, after))
    return skip


class FloatNetwork(nn.Module):
    """The float network. forward takes float images in levels (noise added), NCHW, and returns logits (N, classes).

    Dividing by `unit` is the only normalisation: the batch norm after the first convolution takes the mean away, so
    that padding means level 0 for the float network and for the integer one alike.

    Activations may have a largest value (buffer `ceilings`, one per convolution) and the input a least and a largest level
    (`reach`), where they saturate as integers do; infinite until calibrate.set_bounds sets them.
    """

    UNSET = ("ceilings", "reach")  # buffers that a checkpoint may lack: its network had no bounds

    def __init__(self, architecture: Architecture, unit: int):
        super().__init__()
        self.architecture = architecture
        self.unit = unit
        layers = architecture.convolutions
        self.convolutions = nn.ModuleList(
            nn.Conv2d(c.inputs, c.outputs, c.kernel, c.stride, c.kernel // 2, bias=False) for c in layers
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c.outputs) for c in layers)
        self.linear = nn.Linear(architecture.features, architecture.classes)
        self.register_buffer("ceilings", torch.full((len(layers),), torch.inf))
        self.register_buffer("reach", torch.tensor([-torch.inf, torch.inf]))
        self.register_buffer("zero", torch.zeros(()), persistent=False)
        self.bounded = False  # what the buffers say, without waiting for a GPU: a plain ReLU is faster
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        nn.init.kaiming_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        return self.trace(levels)["logits"]

    def trace(self, levels: torch.Tensor) -> dict[str, torch.Tensor]:
        """All activations by name: "input", one per convolution, "features" (what the linear layer reads), "logits"."""
        values = {"input": self.input_value(levels)}
        for i, layer in enumerate(self.architecture.convolutions):
            values[layer.name] = self.after_relu(i, self.before_relu(i, values))
        values["features"] = self.features(values[self.architecture.last])
        values["logits"] = self.linear(values["features"])
        return values

    def input_value(self, levels: torch.Tensor) -> torch.Tensor:
        """What the first convolution reads: levels within reach, in units."""
        return (levels.clamp(self.reach[0], self.reach[1]) if self.bounded else levels) / self.unit

    def after_relu(self, i: int, sums: torch.Tensor) -> torch.Tensor:
        """The activation of convolution i from its sums: ReLU, and no larger than its ceiling."""
        return sums.clamp(self.zero, self.ceilings[i]) if self.bounded else functional.relu(sums)

    def load_state_dict(self, *arguments, **options):
        """As of every module; bounds among the state are kept from then on."""
        found = super().load_state_dict(*arguments, **options)
        self.bounded = bool(torch.isfinite(self.ceilings).any() or torch.isfinite(self.reach).any())
        return found

    @torch.no_grad()
    def cut_weights(self, largest: float) -> None:
        """Bring the weights of every convolution's filter to at most `largest` times their root mean square."""
        for convolution in self.convolutions:
            weight = convolution.weight
            limit = largest * weight.square().mean((1, 2, 3), keepdim=True).sqrt()
            torch.clamp(weight, -limit, limit, out=weight)

    def features(self, value: torch.Tensor) -> torch.Tensor:
        """What the linear layer reads of the last activation."""
        return value.mean((2, 3)) if self.architecture.pooled else flatten_hwc(value)

    def before_relu(self, i: int, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """What convolution i adds up from the activations before it, batch norm and residual included."""
        layer = self.architecture.convolutions[i]
        value = self.norms[i](self.convolutions[i](values[layer.source]))
        return value if layer.skip is None else value + place_skip(values[layer.skip], layer)


def flatten_hwc(value: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, H * W * C): the order in which the integer fully connected operator reads an image."""
    return value.permute(0, 2, 3, 1).flatten(1)
