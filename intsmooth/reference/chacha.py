"""ChaCha20 in plain NumPy, word for word as RFC 8439 section 2.3 writes it, over many blocks at once.

A state is a list of 16 uint32 arrays of one shape; element e of all 16 is one block. uint32 arithmetic of NumPy arrays
wraps modulo 2^32, as the RFC wants.
"""

import numpy as np

CONSTANTS = tuple(int.from_bytes(b"expand 32-byte k"[i : i + 4], "little") for i in range(0, 16, 4))
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def rotate_left(x, bits):
    """Rotate each uint32 of x to the left by 0 < bits < 32."""
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))


def quarter_round(x, a, b, c, d):
    """The quarter round of RFC 8439 section 2.1 on the words a, b, c, d of the state x, in place."""
    x[a] = x[a] + x[b]
    x[d] = rotate_left(x[d] ^ x[a], 16)
    x[c] = x[c] + x[d]
    x[b] = rotate_left(x[b] ^ x[c], 12)
    x[a] = x[a] + x[b]
    x[d] = rotate_left(x[d] ^ x[a], 8)
    x[c] = x[c] + x[d]
    x[b] = rotate_left(x[b] ^ x[c], 7)


def blocks(key, counters, nonces):
    """Key stream words, uint32[..., 16], of the blocks with the given counters and nonces.

    key: uint32[8]; counters: integers [...] in [0, 2^32); nonces: three integers or arrays that broadcast to counters.
    """
    counters = np.atleast_1d(np.asarray(counters, dtype=np.uint32))
    words = [*CONSTANTS, *key, counters, *nonces]
    start = [np.broadcast_to(np.asarray(word, dtype=np.uint32), counters.shape) for word in words]
    x = list(start)
    for _ in range(10):
        for indices in COLUMNS + DIAGONALS:
            quarter_round(x, *indices)
    return np.stack([mixed + word for mixed, word in zip(x, start, strict=True)], axis=-1)
