"""Where the elements of an image lie: ONNX's order is channels, height, width, ours height, width, channels."""

from intsmooth.convert.onnx_translation import Translation
from intsmooth.convert.onnx_values import Integer
from intsmooth.errors import UnsupportedError


def same_order(image) -> bool:
    """(channels, height, width) of one channel or one pixel: both orders of elements are the same."""
    return image[0] == 1 or image[1] * image[2] == 1


def as_image(t: Translation, x: Integer) -> str:
    """Our tensor of x as (height, width, channels); nodes that turn its elements are emitted where they are needed."""
    if len(x.shape) != 3:
        raise UnsupportedError(f"an input of shape {x.shape} without the batch, supported: channels, height, width")
    channels, height, width = x.shape
    wanted = (height, width, channels)
    if x.image is not None or same_order(x.shape):
        return _shaped(t, x.name, wanted)
    name = t.move("transpose", _shaped(t, x.name, x.shape), wanted, {"permutation": (1, 2, 0)})
    t.note("re-expressed", "its input is turned from ONNX's order of elements to ours")
    return name


def as_plain(t: Translation, x: Integer) -> str:
    """Our tensor of x in ONNX's order and shape; (1,) for a scalar."""
    name = x.name
    if x.image is not None and not same_order(x.image):
        channels, height, width = x.image
        name = _shaped(t, name, (height, width, channels))
        name = t.move("transpose", name, x.image, {"permutation": (2, 0, 1)})
        t.note("re-expressed", "its input is turned from our order of elements to ONNX's")
    return _shaped(t, name, x.shape or (1,))


def _shaped(t: Translation, name: str, shape) -> str:
    shape = tuple(shape)
    return name if t.tensors[name].shape == shape else t.move("reshape", name, shape, {"shape": shape})
