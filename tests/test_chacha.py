"""ChaCha20: the published vectors of RFC 8439, the compiled cipher against the naive twin, counters that wrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth.kernels.chacha import key_stream
from intsmooth.reference import chacha

KEY_0_TO_31 = bytes(range(32))

# (key, counter, nonce, block as 16 words): section 2.3.2, then appendix A.1 numbers 1 to 5
BLOCKS = {
    "2.3.2": (KEY_0_TO_31, 1, "000000090000004a00000000",
              "e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3"
              " 466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2"),
    "A.1 #1": (bytes(32), 0, "00" * 12,
               "ade0b876 903df1a0 e56a5d40 28bd8653 b819d2bd 1aed8da0 ccef36a8 c70d778b"
               " 7c5941da 8d485751 3fe02477 374ad8b8 f4b8436a 1ca11815 69b687c3 8665eeb2"),
    "A.1 #2": (bytes(32), 1, "00" * 12,
               "bee7079f 7a385155 7c97ba98 0d082d73 a0290fcb 6965e348 3e53c612 ed7aee32"
               " 7621b729 434ee69c b03371d5 d539d874 281fed31 45fb0a51 1f0ae1ac 6f4d794b"),
    "A.1 #3": (bytes(31) + b"\x01", 1, "00" * 12,
               "2452eb3a 9249f8ec 8d829d9b ddd4ceb1 e8252083 60818b01 f38422b8 5aaa49c9"
               " bb00ca8e da3ba7b4 c4b592d1 fdf2732f 4436274e 2561b3c8 ebdd4aa6 a0136c00"),
    "A.1 #4": (b"\x00\xff" + bytes(30), 2, "00" * 12,
               "fb4dd572 4bc42ef1 df922636 327f1394 a78dea8f 5e269039 a1bebbc1 caf09aae"
               " a25ab213 48a6b46c 1b9d9bcb 092c5be6 546ca624 1bec45d5 87f47473 96f0992e"),
    "A.1 #5": (bytes(32), 0, "00" * 11 + "02",
               "374dc6c2 3736d58c b904e24a cd3f93ef 88228b1a 96a4dfb3 5b76ab72 c727ee54"
               " 0e0e978a f3145c95 1b748ea8 f786c297 99c28f5f 628314e8 398a19fa 6ded1b53"),
}  # fmt: skip

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip "
    b"for the future, sunscreen would be it."
)
SUNSCREEN_ENCRYPTED = bytes.fromhex(
    "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357"
    "1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
    "5af90bbf74a35be6b40b8eedf2785e42874d"
)


def words_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype="<u4").astype(np.uint32)


def compiled(key, counter, nonce, blocks):
    """Blocks counter, counter + 1, ... of the compiled cipher as uint32[blocks, 16]."""
    words = np.zeros(512 * -(-blocks // 32), dtype=np.uint32)
    key_stream(words, key, blocks, np.uint32(counter), *(np.uint32(word) for word in nonce))
    return words.reshape(-1, 16, 16).swapaxes(1, 2).reshape(-1, 16)[:blocks]


def naive(key, counter, nonce, blocks):
    return chacha.blocks(key, (counter + np.arange(blocks, dtype=np.int64)) % 2**32, nonce)


@pytest.mark.parametrize("cipher", [naive, compiled])
@pytest.mark.parametrize("name", BLOCKS)
def test_block_function(cipher, name):
    key, counter, nonce, block = BLOCKS[name]
    expected = np.array([int(word, 16) for word in block.split()], dtype=np.uint32)
    got = cipher(words_of(key), counter, words_of(bytes.fromhex(nonce)), 1)
    assert (got[0] == expected).all()


def test_quarter_round():
    """RFC 8439 section 2.1.1."""
    state = [np.array([value], dtype=np.uint32) for value in (0x11111111, 0x01020304, 0x9B8D6F43, 0x01234567)]
    chacha.quarter_round(state, 0, 1, 2, 3)
    assert [int(x[0]) for x in state] == [0xEA2A92F4, 0xCB1CF8CE, 0x4581472E, 0x5881C4BB]


@pytest.mark.parametrize("cipher", [naive, compiled])
def test_encryption_of_section_2_4_2(cipher):
    nonce = words_of(bytes.fromhex("000000000000004a00000000"))
    stream = cipher(words_of(KEY_0_TO_31), 1, nonce, 2).astype("<u4").tobytes()
    assert bytes(a ^ b for a, b in zip(SUNSCREEN, stream, strict=False)) == SUNSCREEN_ENCRYPTED


word = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))


@settings(max_examples=100, deadline=None)
@given(st.lists(word, min_size=8, max_size=8), word, st.tuples(word, word, word), st.integers(1, 70))
def test_compiled_equals_twin(key, counter, nonce, blocks):
    key = np.array(key, dtype=np.uint32)
    assert (compiled(key, counter, nonce, blocks) == naive(key, counter, nonce, blocks)).all()


@pytest.mark.parametrize("blocks", [1, 2, 15, 16, 17, 31, 32, 33, 64, 65])
@pytest.mark.parametrize("counter", [0, 2**31 - 1, 2**32 - 17, 2**32 - 16, 2**32 - 1])
def test_counter_wraps(counter, blocks):
    key = np.arange(8, dtype=np.uint32)
    assert (compiled(key, counter, (1, 2, 3), blocks) == naive(key, counter, (1, 2, 3), blocks)).all()


def test_twin_takes_arrays_of_counters_and_nonces():
    """Each block of a batch is what it is alone."""
    key = np.arange(8, dtype=np.uint32)
    counters = np.array([[0, 1, 2], [3, 4, 5]])
    samples = np.array([[7], [9]], dtype=np.uint32)
    together = chacha.blocks(key, counters, (1, samples, 3))
    assert together.shape == (2, 3, 16)
    for i, j in np.ndindex(2, 3):
        assert (together[i, j] == chacha.blocks(key, counters[i, j], (1, samples[i, 0], 3))[0]).all()
