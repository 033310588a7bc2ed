"""Numbers of 32 bits on which arithmetic goes wrong first, as a strategy for hypothesis."""

from hypothesis import strategies as st

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
# gemmlowp's test values: +-2^i with offsets -2 .. 2, and the ends of the range
BOUNDARIES = sorted(
    {value for i in range(32) for sign in (1, -1) for offset in range(-2, 3)
     if INT32_MIN <= (value := sign * 2**i + offset) <= INT32_MAX} | {INT32_MIN, INT32_MAX}
)  # fmt: skip
int32s = st.integers(INT32_MIN, INT32_MAX) | st.sampled_from(BOUNDARIES)
