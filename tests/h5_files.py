"""Two small models as graphs and as files, and how a file is refused, for tests."""

import struct

import fuzz_targets
import models
import numpy as np
import pytest

from intsmooth import h5file
from intsmooth.errors import FormatError

SMALLEST = fuzz_targets.smallest(np.random.default_rng(1))
SMALL_FILE = h5file.encode(SMALLEST)
TINY = models.tiny_conv(np.random.default_rng(2))
TINY_FILE = h5file.encode(TINY)
CLASSIC = {"libver": ("earliest", "v108")}


def refused(data: bytes, *words: str, error=FormatError) -> str:
    """The message with which a file's bytes are refused; it must hold all the words."""
    with pytest.raises(error) as caught:
        h5file.decode(data)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)
