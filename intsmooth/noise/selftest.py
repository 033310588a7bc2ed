"""Is the noise what it claims to be? Checks of the running sampler on its final integers, in a second or two.

Published attacks on randomized smoothing bias the generator and leave everything else alone (Dahiya, Shumailov and
Anderson, 2024), so what is tested is not the generator but the numbers that reach the network: known answers for the
cipher (RFC 8439), equality with the naive twin, then goodness of fit of several million integers. Statistics use floats
and NumPy alone; they judge the noise and never touch it.

Limits. A sum of squares is compared with k + 2 sqrt(k x) + 2 x, which a chi-square variable of k degrees exceeds with
probability at most exp(-x) (Laurent and Massart, 2000, lemma 1), with x = 24; a standardised mean with 7. Either is a
false alarm less than once in 10^10, so about a hundred of them less than once in 10^8 runs. Cells are pooled until each
expects 50 counts.
"""

from collections.abc import Callable
from fractions import Fraction
from math import exp, sqrt
from typing import NamedTuple

import numpy as np

from intsmooth.errors import InputError, IntsmoothError
from intsmooth.noise.law import NoiseTable, noise_table, pmf
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import NONCE_TAG, new_seed, stream_key
from intsmooth.reference import chacha as reference_chacha
from intsmooth.reference import sampler as reference_sampler

X = 24.0
NORMAL_LIMIT = 7.0
MIN_EXPECTED = 50
LAGS = (1, 2, 16, 256, 512)
SHAPE = (1366, 3072)  # samples and coordinates of a draw, 4.2 million integers

# RFC 8439 section 2.3.2 and appendix A.1 numbers 1 to 5: key, counter, nonce, first two words of the block
_KEY_0_TO_31 = bytes(range(32))
KNOWN_BLOCKS = (
    (_KEY_0_TO_31, 1, "000000090000004a00000000", (0xE4E7F110, 0x15593BD1)),
    (bytes(32), 0, "00" * 12, (0xADE0B876, 0x903DF1A0)),
    (bytes(32), 1, "00" * 12, (0xBEE7079F, 0x7A385155)),
    (bytes(31) + b"\x01", 1, "00" * 12, (0x2452EB3A, 0x9249F8EC)),
    (b"\x00\xff" + bytes(30), 2, "00" * 12, (0xFB4DD572, 0x4BC42EF1)),
    (bytes(32), 0, "00" * 11 + "02", (0x374DC6C2, 0x3736D58C)),
)


class Finding(NamedTuple):
    """One check: it passed if statistic <= limit (0 <= 0 for a comparison that must be exact)."""

    name: str
    statistic: float
    limit: float

    @property
    def passed(self) -> bool:
        return bool(self.statistic <= self.limit)  # False for NaN


def check(backend: str = "numba", draw: Callable = sample_noise, seed: bytes | None = None) -> list[Finding]:
    """Check cipher, twin and final integers of the sampler that runs here; returns the findings.

    draw(table, key, first, count, n, backend) is the sampler under test; seed: 32 bytes, by default fresh from the
    operating system. Raises IntsmoothError if a check fails.
    """
    seed = new_seed() if seed is None else seed
    findings = [known_answers(backend)]
    for stage, table in enumerate((noise_table(Fraction("63.75"), "rounded"), noise_table(1000, "discrete"))):
        key = stream_key(seed, bytes(32), stage)
        noise = draw(table, key, 2**32 - SHAPE[0] // 2, *SHAPE, backend)
        findings.append(_twin_agrees(noise, table, key, 2**32 - SHAPE[0] // 2))
        findings += goodness_of_fit(noise, table)
    failed = [f for f in findings if not f.passed]
    if failed:
        listing = "; ".join(f"{f.name}: {f.statistic:.6g} above {f.limit:.6g}" for f in failed[:8])
        raise IntsmoothError(
            f"the noise on this machine is not what certificates need: {len(failed)} of {len(findings)} checks failed "
            f"({listing}); seed {seed.hex()}. Certify nothing with it: compare with backend='numpy', clear the "
            "compilation cache, reinstall, and report the seed"
        )
    return findings


def known_answers(backend: str = "numba") -> Finding:
    """Number of wrong words among the published ChaCha20 blocks, computed by the backend's own cipher."""
    wrong = 0
    for key_bytes, counter, nonce_hex, expected in KNOWN_BLOCKS:
        key = np.frombuffer(key_bytes, dtype="<u4").astype(np.uint32)
        nonce = np.frombuffer(bytes.fromhex(nonce_hex), dtype="<u4").astype(np.uint32)
        if backend == "numba":
            from intsmooth.kernels.chacha import key_stream

            words = np.zeros(512, dtype=np.uint32)
            key_stream(words, key, 1, np.uint32(counter), *nonce)
            got = words[:32:16]
        else:
            got = reference_chacha.blocks(key, counter, tuple(nonce))[0, :2]
        wrong += int(np.count_nonzero(got != np.array(expected, dtype=np.uint32)))
    return Finding("RFC 8439 known answers", wrong, 0)


def goodness_of_fit(noise: np.ndarray, table: NoiseTable) -> list[Finding]:
    """Compare final integers, int16[count, n] in levels with count, n >= 64, with the table's law.

    Counts per outcome, moments up to the fourth, each bit of the two's complement, samples that occur twice; then for
    value, square, parity and sign the sum per coordinate and correlations between coordinates and between samples.
    Raises InputError for another shape or dtype; a failed check is a finding, not an error.
    """
    if noise.ndim != 2 or min(noise.shape) < 64 or noise.dtype != np.int16:
        raise InputError(f"noise is {noise.dtype} of shape {noise.shape}; int16 of at least 64 x 64 is required")
    name = f"{table.law} {table.sigma}"
    outcomes = np.arange(table.first, table.last + 1)
    probability = np.array([float(p) for p in pmf(table)])
    outside = int(np.count_nonzero((noise < table.first) | (noise > table.last)))
    findings = [Finding(f"{name}: outcomes outside the table", outside, 0)]
    if outside:
        return findings
    counts = np.bincount((noise.astype(np.int32) - table.first).ravel(), minlength=len(outcomes))
    findings.append(_chi_square(f"{name}: counts per outcome", counts, probability * noise.size))
    for power in (1, 2, 3, 4):
        values = outcomes.astype(float) ** power
        findings.append(_standardised(f"{name}: moment {power}", counts, values, probability))
    for bit in range(16):
        findings.append(_standardised(f"{name}: bit {bit}", counts, (outcomes >> bit) & 1, probability))
    repeated = len(noise) - len({row.tobytes() for row in noise})
    findings.append(Finding(f"{name}: samples that occur twice", repeated, _repetitions(probability, *noise.shape)))
    for what, values in (
        ("value", outcomes),
        ("square", outcomes**2),
        ("parity", outcomes & 1),
        ("sign", np.sign(outcomes)),
    ):
        mean = values @ probability
        deviation = sqrt(max(values**2 @ probability - mean**2, 0.0))
        if deviation == 0:
            continue
        score = ((values - mean) / deviation).astype(np.float32)[noise.astype(np.int32) - table.first]
        findings += _independence(f"{name}: {what}", score)
    return findings


def _twin_agrees(noise, table, key, first) -> Finding:
    """Number of integers that differ from the naive twin's, over a few samples from both ends of the draw."""
    wrong = 0
    for begin in (0, len(noise) - 8):
        twin = reference_sampler.sample_noise(
            table.first, table.thresholds, key, NONCE_TAG, first + begin, 8, noise.shape[1]
        )
        wrong += int(np.count_nonzero(noise[begin : begin + 8] != twin))
    return Finding(f"{table.law} {table.sigma}: integers unlike the twin's", wrong, 0)


def _repetitions(probability: np.ndarray, count: int, n: int) -> float:
    """How many of `count` samples of n integers may equal another: none, unless a small sigma makes that likely."""
    expected = count * (count - 1) / 2 * float(np.sum(probability**2)) ** n
    return 0.0 if expected < exp(-X) else expected + sqrt(2 * expected * X) + X


def _limit(degrees: int) -> float:
    return degrees + 2 * sqrt(degrees * X) + 2 * X


def _chi_square(name, counts, expected) -> Finding:
    """Pearson's statistic after pooling neighbours, from the left, until each cell expects MIN_EXPECTED counts."""
    cell = np.minimum(np.cumsum(expected) // MIN_EXPECTED, np.sum(expected) // MIN_EXPECTED - 1).astype(np.int64)
    cell = np.unique(cell, return_inverse=True)[1]
    observed, expected = np.bincount(cell, counts), np.bincount(cell, expected)
    statistic = float(np.sum((observed - expected) ** 2 / expected))
    return Finding(f"{name} ({len(expected)} cells)", statistic, _limit(max(len(expected) - 1, 1)))


def _standardised(name, counts, values, probability) -> Finding:
    """|mean - its expectation| of a function of the outcome, in standard deviations."""
    mean = values @ probability
    variance = (values.astype(float) - mean) ** 2 @ probability
    total = int(counts.sum())
    error = abs(values @ counts / total - mean)
    return Finding(name, float(error / sqrt(variance / total)) if variance > 0 else float(error), NORMAL_LIMIT)


def _independence(name, score) -> list[Finding]:
    """Standardised scores, float32[count, n]: per-coordinate sums, and correlations along both axes."""
    count, n = score.shape
    columns = float(np.sum(score.sum(axis=0, dtype=np.float64) ** 2) / count)
    findings = [Finding(f"{name}, sums per coordinate", columns, _limit(n))]
    pairs = [(f"coordinates {lag} apart", score[:, :-lag], score[:, lag:]) for lag in LAGS if lag < n]
    pairs.append(("neighbouring samples", score[:-1], score[1:]))
    for what, left, right in pairs:
        correlation = np.einsum("ij,ij->i", left, right).sum(dtype=np.float64)
        findings.append(Finding(f"{name}, {what}", abs(float(correlation)) / sqrt(left.size), NORMAL_LIMIT))
    return findings
