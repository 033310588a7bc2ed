"""Post-training quantization: a float ONNX model and some images become an integer graph, with the loss of every layer.

Weights are quantized symmetrically per output channel. The range of every activation comes from what it holds on the
calibration images: its extremes, percentiles, or the range of least squared error. Batch normalizations become part of
the weights before them, a convolution that is added to a skip connection shares one accumulator with it, and the biases
take back what rounding shifts on average (bias_correction.py).
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from intsmooth.certify import checked_integer
from intsmooth.convert.bias_correction import correct_biases
from intsmooth.convert.onnx import check_float, convert, input_mapping
from intsmooth.convert.onnx_file import OnnxModel, read_bytes, read_model
from intsmooth.convert.onnx_float import FloatModel
from intsmooth.convert.onnx_translation import InputMapping
from intsmooth.convert.onnx_values import Target
from intsmooth.convert.report import Conversion, Note, describe
from intsmooth.enclosure import exact_fraction
from intsmooth.engine import Engine
from intsmooth.errors import InputError, MissingExtraError, UnsupportedError
from intsmooth.overflow import prove_no_overflow
from intsmooth.records import Graph

METHODS = ("mse", "percentile", "minmax")
NOISE_MARGIN = 2.5  # standard deviations of the noise that the input's range keeps beyond both ends
_PERCENTILE = 99.99
_KEPT = 2**17  # values of a tensor that its range is derived from, picked at random
_COMPARED = 64  # images that biases are corrected and losses are measured on


@dataclass(frozen=True)
class Loss:
    """How far a layer's integers are from the float model's reals on calibration images.

    signal_to_noise: 10 log10(sum of squared reals / sum of squared differences), in dB; infinite where nothing differs.
    clipped: share of the reals that lie outside the range the integers can hold.
    """

    node: str
    tensor: str
    scale: float
    signal_to_noise: float
    clipped: float


@dataclass(frozen=True)
class Quantization:
    """A quantized model. agreement: share of the compared images whose class is the float model's."""

    conversion: Conversion
    losses: tuple[Loss, ...]
    agreement: float
    images: int

    @property
    def graph(self) -> Graph:
        return self.conversion.graph

    def text(self) -> str:
        """The conversion's report and a table of losses, for reading."""
        lines = [self.conversion.report.text(), f"loss against the float model on {self.images} images", ""]
        width = max((len(loss.node) for loss in self.losses), default=4)
        lines.append(f"{'node':<{width}}  signal/noise  clipped")
        for loss in self.losses:
            lines.append(f"{loss.node:<{width}}  {loss.signal_to_noise:>9.1f} dB  {100 * loss.clipped:>6.3f} %")
        lines.append(f"\nsame class as the float model: {100 * self.agreement:.2f} %")
        return "\n".join(lines) + "\n"


def quantize(
    source,
    images: np.ndarray,
    *,
    levels: tuple[int, int] = (0, 255),
    unit: int | None = None,
    input_scale: Fraction | float | str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    sigma: str | float | Fraction = 0,
    method: str = "mse",
    correct: bool = True,
    classes: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Quantization:
    """Quantize a float .onnx model.

    source:      path or bytes. images: integers in levels, (N, H, W, C), (N, H, W) or (N, features).
    levels:      lowest and highest level. unit: levels per 1.0, highest - lowest where not given.
    input_scale: real value of one level, 1 / unit where not given. mean, std: the network takes
                 (level * input_scale - mean) / std, one number per channel.
    sigma:       standard deviation, in [0, 1] units, of the noise that the model will meet: it is added to the images
                 here, and the input keeps NOISE_MARGIN times as much beyond both ends of the levels.
    method:      how ranges are chosen: "mse", "percentile" (99.99 on both sides) or "minmax".
    correct:     whether biases are corrected for what rounding shifts on average.
    seed:        of that noise and of the values that ranges are derived from.

    Raises what `intsmooth.convert.onnx.load` raises; InputError where images do not fit the model.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; required: one of {', '.join(METHODS)}")
    sigma = exact_fraction(sigma, "sigma")
    if sigma < 0:
        raise InputError(f"sigma is {sigma}; required: 0 or more, in [0, 1] units")
    mapping, unit = input_mapping(levels, unit, input_scale, mean, std)
    margin = math.ceil(NOISE_MARGIN * sigma * unit)
    scale = Fraction(1, unit) if mapping.scale is None else mapping.scale
    mapping = replace(mapping, scale=scale, margin=margin)
    content = read_bytes(source)
    model = read_model(content)
    batch = check_float(model, mapping)

    rng = np.random.default_rng(checked_integer(seed, "seed", 0))
    noisy = _noisy(_checked(images, model, mapping), float(sigma * unit), rng)
    name = next(iter(model.inputs))
    names = tuple(output for node in model.nodes for output in node.outputs if output)
    floats = FloatModel(content, name, names, batch)
    shape = next(iter(model.inputs.values()))[1]
    tensors = _kept_values(floats, noisy, mapping, len(shape), rng)
    targets = {tensor: _target(values, method) for tensor, values in tensors.items()}
    targets[name] = _input_target(mapping)
    notes = [Note("input", "calibration", f"{len(noisy)} images, method {method}, sigma {float(sigma):g}, seed {seed}")]
    origin = f"float ONNX model, SHA-256 {hashlib.sha256(content).hexdigest()}"
    biases = "corrected" if correct else "as in float"
    how = f"after training, on {len(noisy)} images, ranges by {method}, biases {biases}"
    facts = {"quantized": how, **(facts or {})}

    def choose(tensor: str) -> Target:
        if tensor not in targets:
            raise UnsupportedError(f"onnx.reference gives no activations for tensor {tensor[:80]!r}")
        return targets[tensor]

    conversion = convert(model, mapping, unit, origin, classes, facts, choose, notes)
    compared = noisy[:_COMPARED]
    reals = floats.tensors(_reals(compared, mapping, len(shape)))
    if correct:
        conversion = _corrected(conversion, compared, reals)
    losses, agreement = _losses(conversion, compared, reals, model.outputs[0])
    return Quantization(conversion, losses, agreement, len(compared))


def _corrected(conversion: Conversion, levels, reals: Mapping[str, np.ndarray]) -> Conversion:
    """The conversion with corrected biases, and a report that says so."""
    graph, report = conversion.graph, conversion.report
    wanted = {name: real for name, _, real in _comparable(conversion, reals)}
    graph = correct_biases(graph, wanted, lambda changed: _engine(changed).trace(levels))
    prove_no_overflow(graph)
    note = Note("folded", "biases", f"hold what rounding shifts on average, measured on {len(levels)} images")
    return replace(
        conversion, graph=graph, report=describe(graph, report.source, conversion.origins, (*report.notes, note))
    )


def _comparable(conversion: Conversion, reals: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(node, float tensor, its reals in the order of the node's output), for nodes that stand for a float tensor."""
    graph = conversion.graph
    for node in graph.nodes:
        name = conversion.origins[node.name].tensor
        if name in reals:
            real = reals[name]
            real = np.moveaxis(real, 1, -1) if real.ndim == 4 else real
            yield node.name, name, real.reshape(len(real), *graph.tensors[node.output].shape)


def image_shape(source) -> tuple[int, ...]:
    """(H, W, C), or another shape, of the images that an .onnx model's first input takes; () where it has none."""
    return _image_shape(read_model(read_bytes(source)))


def _image_shape(model: OnnxModel) -> tuple[int, ...]:
    shape = next((shape for _, shape in model.inputs.values()), ())[1:]
    return (*shape[1:], shape[0]) if len(shape) == 3 else tuple(shape)


def _checked(images, model: OnnxModel, mapping: InputMapping) -> np.ndarray:
    """Images as (N, H, W, C) or (N, features) of int16 levels."""
    images = np.asarray(images)
    wanted = _image_shape(model)
    if images.dtype.kind not in "iu" or images.ndim < 2 or len(images) < 1:
        raise InputError(f"calibration images are {images.dtype} of shape {images.shape}; required: integers in levels")
    if images.shape[1:] != wanted and (*images.shape[1:], 1) != wanted:
        raise InputError(f"calibration images have shape {images.shape[1:]}; the model takes {wanted}")
    if images.min() < mapping.levels[0] or images.max() > mapping.levels[1]:
        found = f"{images.min()} to {images.max()}"
        raise InputError(f"calibration images hold levels {found}; the model is to take {mapping.levels}")
    return images.reshape(len(images), *wanted).astype(np.int16)


def _noisy(images, sigma: float, rng) -> np.ndarray:
    if sigma == 0:
        return images
    noisy = np.rint(images + rng.normal(0, sigma, images.shape))
    return np.clip(noisy, -(2**15), 2**15 - 1).astype(np.int16)


def _reals(levels, mapping: InputMapping, rank: int) -> np.ndarray:
    """float32 inputs of the float model, in ONNX's order; noise is clipped where the first operator clips it."""
    low, high = mapping.levels[0] - mapping.margin, mapping.levels[1] + mapping.margin
    reals = np.clip(levels, low, high) * float(mapping.scale)
    if mapping.mean is not None:
        reals = (reals - mapping.mean) / mapping.std
    return (np.moveaxis(reals, -1, 1) if rank == 4 else reals).astype(np.float32)


def _input_target(mapping: InputMapping) -> Target:
    """The range that levels with noise can have, in reals."""
    ends = np.array([mapping.levels[0] - mapping.margin, mapping.levels[1] + mapping.margin]) * float(mapping.scale)
    if mapping.mean is not None:
        ends = (ends[:, np.newaxis] - mapping.mean) / mapping.std
    return _range_target(float(ends.min()), float(ends.max()))


def _range_target(low: float, high: float) -> Target:
    """Scale and zero point of int8 for reals in [low, high]; 0 is always in the range and held exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    if not high - low > 1e-30:
        return Target(1.0, 0)
    scale = (high - low) / 255
    return Target(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def _kept_values(floats: FloatModel, images, mapping: InputMapping, rank: int, rng) -> dict[str, np.ndarray]:
    """Per float tensor: values picked at random from all images, and its extremes."""
    step, kept = 32, {}
    share = max(1, _KEPT * step // max(len(images), step))
    for start in range(0, len(images), step):
        for name, array in floats.tensors(_reals(images[start : start + step], mapping, rank)).items():
            flat = array.ravel()
            picked = flat if flat.size <= share else flat[rng.integers(0, flat.size, share)]
            kept.setdefault(name, []).append(np.concatenate([picked, [flat.min(), flat.max()]]))
    return {name: np.concatenate(arrays) for name, arrays in kept.items()}


def _target(values: np.ndarray, method: str) -> Target:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise InputError("the float model gives numbers that are not finite on the calibration images")
    if method == "percentile":
        low, high = (float(edge) for edge in np.percentile(values, [100 - _PERCENTILE, _PERCENTILE]))
    if method != "mse":
        return _range_target(low, high)
    candidates = [_range_target(low * share, high * share) for share in np.linspace(0.4, 1, 31)]
    return min(candidates, key=lambda target: _squared_error(values, target))


def _squared_error(values: np.ndarray, target: Target) -> float:
    steps = np.clip(np.rint(values / target.scale) + target.zero_point, -128, 127)
    return float(np.square(target.scale * (steps - target.zero_point) - values).sum())


def _engine(graph: Graph) -> Engine:
    """The fast backend where it is installed; both give the same bits."""
    try:
        return Engine(graph)
    except MissingExtraError:
        return Engine(graph, backend="numpy")


def _losses(conversion: Conversion, levels, reals: Mapping[str, np.ndarray], output: str):
    """(losses of the layers that stand for a float tensor, share of equal classes)."""
    graph = conversion.graph
    trace = _engine(graph).trace(levels)
    outputs = {node.name: node.output for node in graph.nodes}
    losses = []
    for node, name, real in _comparable(conversion, reals):
        tensor = graph.tensors[outputs[node]]
        found = tensor.scale * (trace[tensor.name].astype(np.float64) - tensor.zero_point)
        noise, signal = np.square(found - real).sum(), np.square(real).sum()
        ratio = 10 * math.log10(signal / noise) if noise and signal else math.inf if not noise else -math.inf
        ends = tensor.scale * (np.array([-128.5, 127.5]) - tensor.zero_point)
        clipped = float(np.mean((real < ends[0]) | (real > ends[1])))
        losses.append(Loss(node, name, tensor.scale, ratio, clipped))
    scores = reals[output].reshape(len(levels), -1)
    found = trace[graph.output].reshape(len(levels), -1)
    return tuple(losses), float(np.mean(np.argmax(found, axis=1) == np.argmax(scores, axis=1)))
