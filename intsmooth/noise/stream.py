"""Which random bits belong to which sample: keys, image digests and seeds.

The noise of sample i of an image is a ChaCha20 stream (RFC 8439) whose

    key    = keyed BLAKE2b (RFC 7693), 32 bytes out: key = seed, message = image digest | stage
    nonce  = ("ints", low half of i, high half of i), three 32-bit words

so a vote is a pure function of (seed, image digest, stage, i): no batch size, thread, worker, order or resumption can
change it, and no two stages or images share a stream. `docs/noise.md` draws the layout down to the bit.
"""

import hashlib
import os

import numpy as np

from intsmooth.errors import InputError

NONCE_TAG = int.from_bytes(b"ints", "little")  # first word of every nonce
SEED_BYTES = 32
DIGEST_BYTES = 32
RANDOMIZATION = 4  # the stage that draws no samples
_IMAGE_DOMAIN = b"intsmooth image"  # BLAKE2b's `person` field keeps the two uses of the hash apart
_KEY_DOMAIN = b"intsmooth key"


def image_digest(image) -> bytes:
    """32 bytes that name an image: its shape and its integer levels, whatever integer dtype or memory order holds them.

    image: array of integers (any shape), levels within int32. Raises InputError for anything else.
    """
    image = np.asarray(image)
    if image.dtype.kind not in "iu":
        raise InputError(f"the image has dtype {image.dtype}; integer levels are required: convert it, e.g. to uint8")
    if image.size and (int(image.min()) < -(2**31) or int(image.max()) >= 2**31):
        raise InputError(f"the image holds levels {image.min()} to {image.max()}; they must fit 32 bits: rescale it")
    state = hashlib.blake2b(digest_size=DIGEST_BYTES, person=_IMAGE_DOMAIN)
    state.update(b"".join(length.to_bytes(8, "little") for length in (image.ndim, *image.shape)))
    state.update(np.ascontiguousarray(image, dtype="<i4").data)
    return state.digest()


def stream_key(seed: bytes, digest: bytes, stage: int) -> np.ndarray:
    """The ChaCha20 key of one image and stage, uint32[8]: BLAKE2b keyed with the seed, over digest and stage.

    seed: 32 bytes; digest: 32 bytes (image_digest); stage: 0 selection, 1 estimation, 2 prediction, 3 rehearsal, 4
    randomization, at most 2^64 - 1.
    Raises InputError.
    """
    for name, value, size in (("seed", seed, SEED_BYTES), ("digest", digest, DIGEST_BYTES)):
        if not isinstance(value, bytes | bytearray) or len(value) != size:
            what = f"{len(value)} bytes" if isinstance(value, bytes | bytearray) else repr(value)
            raise InputError(f"{name} is {what}; {size} bytes are required: see parse_seed and image_digest")
    stage = _natural("stage", stage, 64)
    message = bytes(digest) + stage.to_bytes(8, "little")
    key = hashlib.blake2b(message, key=bytes(seed), digest_size=32, person=_KEY_DOMAIN).digest()
    return np.frombuffer(key, dtype="<u4").astype(np.uint32)


def uniform_integer(seed: bytes, digest: bytes) -> int:
    """An image's uniform integer in [0, 2^64), for the randomized bound: the first 8 bytes of its key of stage 4.

    That key is used for nothing else, so the integer is independent of every sample as far as one stage's samples are
    of another's. seed, digest: 32 bytes each. Raises InputError.
    """
    low, high = stream_key(seed, digest, RANDOMIZATION)[:2].tolist()
    return low | high << 32


def new_seed() -> bytes:
    """32 fresh bytes from the operating system's generator."""
    return os.urandom(SEED_BYTES)


def parse_seed(seed) -> bytes:
    """32 bytes from what a person may give: 32 bytes, an integer in [0, 2^256), or text.

    Text of 64 hexadecimal digits is the seed itself, as format_seed writes it; other text is an integer, decimal or
    hexadecimal after 0x. The integer k is the seed whose bytes are k in big-endian order. Raises InputError.
    """
    if isinstance(seed, bytes | bytearray) and len(seed) == SEED_BYTES:
        return bytes(seed)
    if isinstance(seed, str):
        text = seed.strip().lower()
        try:
            seed = int(text, 16 if len(text) == 2 * SEED_BYTES or text.startswith("0x") else 10)
        except ValueError:
            raise InputError(
                f"seed is {seed!r}; 64 hexadecimal digits or an integer (decimal, or hexadecimal after 0x) is required"
            ) from None
    if isinstance(seed, bytes | bytearray):
        raise InputError(f"seed is {len(seed)} bytes long; {SEED_BYTES} bytes are required")
    return _natural("seed", seed, 8 * SEED_BYTES).to_bytes(SEED_BYTES, "big")


def format_seed(seed: bytes) -> str:
    """64 hexadecimal digits, which parse_seed turns back into the same 32 bytes."""
    return parse_seed(seed).hex()


def _natural(name: str, value, bits: int) -> int:
    """value as an int in [0, 2^bits), or InputError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 1 << bits:
        raise InputError(f"{name} is {value!r}; an integer from 0 to 2^{bits} - 1 is required")
    return int(value)
