"""The start-up check passes on the sampler that ships, and planted faults are found on the final integers."""

from fractions import Fraction

import numpy as np
import pytest

from intsmooth.errors import InputError, IntsmoothError
from intsmooth.noise import selftest
from intsmooth.noise.law import NoiseTable, noise_table
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import stream_key

SEED = bytes(range(32))
KEY = stream_key(SEED, bytes(32), 0)
TABLE = noise_table(Fraction("63.75"))
SHAPE = (512, 1024)


def failures(noise, table=TABLE):
    return [finding.name for finding in selftest.goodness_of_fit(noise, table) if not finding.passed]


def honest(table=TABLE):
    return sample_noise(table, KEY, 0, *SHAPE)


def from_words(words, table=TABLE):
    high = (table.thresholds >> np.uint64(32)).astype(np.uint32)
    return (table.first + np.searchsorted(high, words)).astype(np.int16)


def words_with_biased_bit(bit, probability, shape=SHAPE):
    generator = np.random.default_rng(bit)
    words = generator.integers(0, 2**32, shape, dtype=np.uint32)
    ones = (generator.random(shape, dtype=np.float32) < probability).astype(np.uint32)
    return (words & ~np.uint32(1 << bit)) | (ones << np.uint32(bit))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_the_shipped_sampler_passes(backend):
    findings = selftest.check(backend, seed=SEED)
    assert len(findings) > 100 and all(finding.passed for finding in findings)


def test_a_fresh_seed_by_default(monkeypatch):
    seeds = []
    monkeypatch.setattr(selftest, "new_seed", lambda: seeds.append(1) or SEED)
    selftest.check()
    assert seeds == [1]


@pytest.mark.parametrize("bit", [31, 30, 27, 24, 21, 19])
def test_a_biased_bit_of_the_generator_is_found(bit):
    """A bit that is 1 three times in four, as in the attack of Dahiya, Shumailov and Anderson (2024)."""
    assert failures(from_words(words_with_biased_bit(bit, 0.75)))


def test_an_honest_generator_of_another_make_passes():
    assert failures(from_words(words_with_biased_bit(31, 0.5))) == []


def test_check_raises_and_says_what_is_wrong():
    def tampered(table, key, first, count, n, backend):
        return from_words(words_with_biased_bit(26, 0.75, (count, n)), table)

    with pytest.raises(IntsmoothError, match=r"checks failed .*counts per outcome.*seed 0001.*numpy"):
        selftest.check(draw=tampered, seed=SEED)


def test_one_integer_unlike_the_twin_is_found():
    def tampered(*arguments):
        noise = sample_noise(*arguments)
        noise[3, 1000] += 1
        return noise

    with pytest.raises(IntsmoothError, match="unlike the twin's: 1 above 0"):
        selftest.check(draw=tampered, seed=SEED)


def test_a_wrong_cipher_is_found(monkeypatch):
    monkeypatch.setattr(selftest.reference_chacha, "CONSTANTS", (0, 0, 0, 0))
    assert selftest.known_answers("numpy").statistic == 2 * len(selftest.KNOWN_BLOCKS)


def test_a_stuck_coordinate_is_found():
    noise = honest()
    noise[:, 77] = noise[0, 77]
    assert any("sums per coordinate" in name or "counts" in name for name in failures(noise))


def test_copied_neighbours_are_found():
    noise = honest()
    noise[:, 1::64] = noise[:, 0::64]
    assert any("coordinates 1 apart" in name for name in failures(noise))


def test_repeated_groups_are_found():
    noise = honest()
    noise[:, 256:512] = noise[:, :256]
    assert any("coordinates 256 apart" in name for name in failures(noise))


def test_repeated_samples_are_found():
    noise = honest()
    noise[400] = noise[17]
    assert any("occur twice" in name for name in failures(noise))


def test_correlated_samples_are_found():
    noise = honest()
    noise[1::2, ::25] = noise[0::2, ::25]
    assert any("neighbouring samples" in name for name in failures(noise))


def test_dependence_without_correlation_is_found():
    """Neighbours of equal magnitude and independent sign: values uncorrelated, squares not."""
    noise = honest()
    noise[:, 1::32] = np.abs(noise[:, 0::32]) * np.sign(noise[:, 1::32])
    assert any("square, coordinates 1 apart" in name for name in failures(noise))


def test_the_other_law_and_another_sigma_are_found():
    one, half = noise_table(1, "rounded"), noise_table(1, "discrete")
    assert failures(honest(one), one) == []
    assert failures(honest(one), half)
    nearly = noise_table(Fraction("64.5"))
    assert any("moment 2" in name for name in failures(honest(), nearly))


def test_clipped_noise_is_found():
    assert failures(np.clip(honest(), -150, 150))


def test_outcomes_outside_the_table_are_found():
    noise = honest()
    noise[0, 0] = TABLE.last + 1
    assert failures(noise) == ["rounded 255/4: outcomes outside the table"]


def test_a_tampered_table_is_found():
    """One threshold moved by a hundredth of its outcome's probability would be invisible; by a tenth it is not."""
    thresholds = TABLE.thresholds.copy()
    middle = len(thresholds) // 2
    thresholds[middle] += (thresholds[middle + 1] - thresholds[middle]) // np.uint64(10)
    tampered = NoiseTable("rounded", TABLE.sigma, TABLE.first, thresholds, TABLE.tv)
    noise = sample_noise(tampered, KEY, 0, *selftest.SHAPE)
    assert any("counts per outcome" in name for name in failures(noise))


def test_degenerate_table_passes():
    table = noise_table(Fraction(1, 100))
    assert failures(np.zeros((64, 64), dtype=np.int16), table) == []


@pytest.mark.parametrize("sigma", [Fraction(8, 100), Fraction(16, 100), Fraction(24, 100), Fraction(1, 2)])
def test_samples_that_a_small_sigma_makes_alike_are_no_failure(sigma):
    table = noise_table(sigma)
    for key in (KEY, stream_key(SEED, bytes(32), 1)):
        assert failures(sample_noise(table, key, 0, 512, 64), table) == []


@pytest.mark.parametrize("noise", [np.zeros((64, 64)), np.zeros((2, 64), np.int16), np.zeros(4096, np.int16)])
def test_bad_input(noise):
    with pytest.raises(InputError):
        selftest.goodness_of_fit(noise, TABLE)


def test_limits_are_what_they_claim_to_be():
    """Against SciPy's exact tails: each limit is passed with probability below 1e-10."""
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 10, 483, 3072, 6000):
        assert stats.chi2.sf(selftest._limit(degrees), degrees) < 1e-10
    assert 2 * stats.norm.sf(selftest.NORMAL_LIMIT) < 1e-10


@pytest.mark.slow
def test_false_alarms_are_rare():
    """Thirty fresh runs; one alarm would be a chance of 3e-7."""
    for i in range(30):
        selftest.check(seed=bytes([i]) * 32)
