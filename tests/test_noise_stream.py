"""Keys, digests and seeds: what makes two streams differ, and what must not."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intsmooth.errors import InputError
from intsmooth.noise.stream import format_seed, image_digest, new_seed, parse_seed, stream_key

SEED = bytes(range(32))


def test_key_is_keyed_blake2b():
    """The definition, written out again: a change here changes every stream ever recorded."""
    digest = bytes(range(100, 132))
    message = digest + (1).to_bytes(8, "little")
    expected = hashlib.blake2b(message, key=SEED, digest_size=32, person=b"intsmooth key").digest()
    key = stream_key(SEED, digest, 1)
    assert key.dtype == np.uint32 and key.shape == (8,)
    assert key.astype("<u4").tobytes() == expected


def test_keys_differ_by_seed_image_and_stage():
    digests = [image_digest(np.full((2, 2, 1), level)) for level in range(3)]
    stages = (0, 1, 2, 2**64 - 1)
    keys = {stream_key(seed, d, stage).tobytes() for seed in (SEED, bytes(32)) for d in digests for stage in stages}
    assert len(keys) == 2 * 3 * 4


def test_digest_does_not_depend_on_how_the_array_is_held():
    image = np.arange(48).reshape(4, 4, 3)
    digest = image_digest(image)
    for dtype in ("u1", "i1", "<i2", ">i2", "<u4", ">u4", "i8", ">u8"):
        assert image_digest(image.astype(dtype)) == digest
    assert image_digest(np.asfortranarray(image)) == digest
    assert image_digest(np.repeat(image, 2, axis=1)[:, ::2]) == digest
    frozen = image.copy()
    frozen.setflags(write=False)
    assert image_digest(frozen) == digest
    assert image_digest(image.tolist()) == digest


def test_digest_depends_on_shape_and_every_level():
    image = np.arange(48).reshape(4, 4, 3)
    shapes = ((4, 4, 3), (48,), (3, 16), (4, 12), (1, 48), (48, 1), (4, 4, 3, 1))
    digests = {image_digest(image.reshape(shape)) for shape in shapes}
    assert len(digests) == 7
    for index in np.ndindex(image.shape):
        changed = image.copy()
        changed[index] += 1
        digests.add(image_digest(changed))
    assert len(digests) == 7 + 48
    negative = image_digest(-image)
    assert negative not in digests


def test_digest_definition():
    image = np.array([[1, -2]], dtype=np.int8)
    message = b"".join(x.to_bytes(8, "little") for x in (2, 1, 2)) + b"\x01\0\0\0\xfe\xff\xff\xff"
    assert image_digest(image) == hashlib.blake2b(message, digest_size=32, person=b"intsmooth image").digest()


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2)), np.array([np.nan]), np.array([True]), np.array([2**31]), np.array([-(2**31) - 1]), "x", None],
)
def test_bad_images(image):
    with pytest.raises(InputError):
        image_digest(image)


@pytest.mark.parametrize(
    "arguments",
    [(b"short", bytes(32), 0), (SEED, b"", 0), (SEED, bytes(32), -1), (SEED, bytes(32), 2**64), (SEED, bytes(32), 1.0),
     (SEED, bytes(32), True), ("0" * 32, bytes(32), 0), (SEED, None, 0)],
)  # fmt: skip
def test_bad_key_arguments(arguments):
    with pytest.raises(InputError):
        stream_key(*arguments)


def test_new_seeds_are_fresh():
    seeds = {new_seed() for _ in range(100)}
    assert len(seeds) == 100 and all(len(seed) == 32 for seed in seeds)


@given(st.integers(0, 2**256 - 1))
def test_seeds_in_every_notation(value):
    seed = parse_seed(value)
    assert len(seed) == 32 and int.from_bytes(seed, "big") == value
    assert parse_seed(seed) == seed
    assert parse_seed(format_seed(seed)) == seed and len(format_seed(seed)) == 64
    assert parse_seed(hex(value)) == seed
    if len(str(value)) != 64:
        assert parse_seed(str(value)) == seed


@pytest.mark.parametrize(
    "seed", ["", "abc", "-1", -1, 2**256, 1.5, True, None, b"x", b"x" * 33, "0x" + "f" * 65, "g" * 64]
)
def test_bad_seeds(seed):
    with pytest.raises(InputError, match="seed"):
        parse_seed(seed)
