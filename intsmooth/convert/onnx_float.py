"""Runs a float ONNX model on images and keeps what its tensors hold, for calibration and for measuring losses.

The operators are those of `onnx.reference`, the NumPy definitions that come with the package; only the convolution is
replaced by one that takes seconds instead of minutes.
"""

import numpy as np

from intsmooth.convert.onnx_file import import_onnx
from intsmooth.convert.tflite_layers import same_padding
from intsmooth.errors import ResourceError, UnsupportedError


class FloatModel:
    """`tensors(reals)` are all float tensors of a model that the importer has accepted.

    content: the file. batch: images per run where the model fixes it, None where it does not.
    """

    def __init__(self, content: bytes, name: str, names: tuple[str, ...], batch: int | None):
        onnx = import_onnx("post-training quantization")
        from onnx.reference import ReferenceEvaluator

        self.input, self.names, self.batch = name, names, batch
        try:
            self.evaluator = ReferenceEvaluator(onnx.ModelProto.FromString(content), new_ops=[_convolution()])
        except Exception as error:  # the definitions' own complaints come in many types
            raise UnsupportedError(f"onnx.reference cannot run the model: {_brief(error)}") from None

    def tensors(self, reals: np.ndarray) -> dict[str, np.ndarray]:
        """Float tensors by name, for float32 inputs (N, ...) in ONNX's order."""
        step = self.batch or 16
        parts: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(reals), step):
            batch = reals[start : start + step]
            count = len(batch)
            if self.batch and count < step:
                batch = np.concatenate([batch, np.repeat(batch[-1:], step - count, axis=0)])
            try:
                results = self.evaluator.run(list(self.names), {self.input: batch})
            except MemoryError:
                raise ResourceError("out of memory while the float model ran: give fewer images") from None
            except Exception as error:
                raise UnsupportedError(f"onnx.reference cannot run the model: {_brief(error)}") from None
            for name, result in zip(self.names, results, strict=True):
                if isinstance(result, np.ndarray) and result.dtype.kind == "f" and result.shape[:1] == (len(batch),):
                    parts.setdefault(name, []).append(result[:count])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _convolution():
    """An operator for onnx.reference: Conv of two dimensions as one matrix product per group."""
    from onnx.reference.op_run import OpRun

    class Conv(OpRun):
        def _run(self, x, w, bias=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None,
                 strides=None):  # fmt: skip
            dilations, pads, strides = dilations or (1, 1), pads or (0, 0, 0, 0), strides or (1, 1)
            return (convolve(x, w, bias, auto_pad, dilations, group or 1, pads, strides),)

    return Conv


def convolve(x, w, bias, auto_pad, dilations, groups, pads, strides):
    """float (N, I, H, W) * (O, I / groups, KH, KW) -> (N, O, OH, OW), as ONNX's Conv."""
    kernel = w.shape[2:]
    span = [(kernel[i] - 1) * dilations[i] + 1 for i in range(2)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        both = [same_padding(x.shape[2 + i], kernel[i], strides[i], dilations[i]) for i in range(2)]
        small, large = zip(*both, strict=True)
        pads = (*small, *large) if auto_pad == "SAME_UPPER" else (*large, *small)
    elif auto_pad == "VALID":
        pads = (0, 0, 0, 0)
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    n, channels, height, width = windows.shape[:4]
    result = np.empty((n, w.shape[0], height, width), x.dtype)
    share, depth = w.shape[0] // groups, channels // groups
    for g in range(groups):
        part = windows[:, g * depth : (g + 1) * depth].transpose(0, 2, 3, 1, 4, 5).reshape(n * height * width, -1)
        product = part @ w[g * share : (g + 1) * share].reshape(share, -1).T
        result[:, g * share : (g + 1) * share] = product.reshape(n, height, width, share).transpose(0, 3, 1, 2)
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)
