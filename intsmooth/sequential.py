"""Stop sampling when one radius is certified or hopeless: an any-time-valid test of one probability.

Whether `R >= r` is a question about one number: is the class's probability above p0, the probability that r needs? The
votes are bet against `p <= p0`; the wealth after H hits among T votes is

    W(H, T) = integral over (p0, 1) of p^H (1-p)^(T-H) dG(p)  /  (p0^H (1-p0)^(T-H)),

a martingale at p = p0, so that it ever reaches 1/alpha with probability at most alpha (Ville, 1939). G lives above p0
only, which is what makes W increase with H and the rule one of a single integer per T: certify when H >= H*(T).
Whether H_T ever reaches H*(T) is an increasing event of the votes, hence p0 is the worst case of all p <= p0.

The table H* is *checked* rather than trusted: `crossing_probability` runs the random walk through it exactly, up to
roundings that are counted, and the table is used only if the result is at most alpha. That also lets the table spend
what Ville's inequality leaves over.

Giving up is the same test of the misses, at level beta, against `p >= hopeful`: the share of hits that certifies at
the last vote. A class of less probability than that would more likely than not end without a certificate, so that
there is no use in testing its p against p0, which takes twice as long. Giving up saves samples and is no claim.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from math import inf, log

import numpy as np

from intsmooth.certify import checked_integer
from intsmooth.enclosure import GRID
from intsmooth.errors import InputError

LARGEST_MAX_N = 10**7
SMALLEST_LEVEL = 1e-300  # of alpha and beta: floats end below it

# G mixes Beta laws cut off at p0: (weight, concentration), where concentration None is Jeffreys' Beta(1/2, 1/2).
# The wide one decides images whose votes are all but unanimous, those centred at p0 the hard ones, which cost the
# most samples; bench/stopping.py compares them with others.
MIXTURE = ((0.1, None), (0.3, 200.0), (0.6, 2000.0))

_EXACT_TIMES = 512  # the boundary is computed at every T up to here, and interpolated between times 1 % apart beyond
_NEGLIGIBLE = 1e-25  # states of the walk this improbable are counted as crossings instead of being followed
_CALIBRATIONS = 8


class Decision(Enum):
    """What the votes so far say about one target radius."""

    CONTINUE = "continue"
    CERTIFY = "certify"
    GIVE_UP = "give up"  # the probability is below what max_n votes could certify, at level beta
    UNDECIDED = "undecided"  # max_n votes are not enough, or cannot be any more even if all to come are hits


@dataclass(frozen=True, eq=False)
class StoppingTable:
    """The stopping rule for one probability p, as integers: see `decide`.

    certify, give_up: int32, one entry for each n in 0..max_n, non-decreasing by steps of 0 or 1; n + 1 and -1 where
    no decision is possible. If the probability is <= p, P[CERTIFY] <= alpha_bound <= alpha; if it is >= hopeful,
    P[GIVE_UP] <= beta_bound <= beta: whether one looks after every vote or now and then, and whatever one makes of
    the other decisions. hopeful: certify[max_n] / max_n, rounded down to a multiple of 2^-53.
    """

    p: float
    hopeful: float
    alpha: Fraction
    beta: Fraction
    max_n: int
    certify: np.ndarray
    give_up: np.ndarray
    alpha_bound: float
    beta_bound: float

    def decide(self, hits: int, n: int) -> Decision:
        """The decision after `hits` hits among `n` votes, 0 <= hits <= n <= max_n: three comparisons of integers."""
        if hits >= self.certify[n]:
            return Decision.CERTIFY
        if hits <= self.give_up[n]:
            return Decision.GIVE_UP
        # `certify` grows by at most 1 per vote: if all hits to come do not reach its end, they reach nothing before it.
        hopeless = hits + (self.max_n - n) < self.certify[self.max_n]
        return Decision.UNDECIDED if hopeless else Decision.CONTINUE


class SequentialTest:
    """The state of one image's run against a StoppingTable; `decision` is final once it is not CONTINUE."""

    def __init__(self, table: StoppingTable):
        self.table = table
        self.hits = 0
        self.n = 0
        self.decision = Decision.CONTINUE

    @property
    def remaining(self) -> int:
        """How many votes may still be drawn."""
        return self.table.max_n - self.n

    @property
    def due(self) -> int:
        """How many votes to draw before the next look, 0 once there is a decision: a function of the number so far.

        A look costs next to nothing, but votes are counted faster many at a time: at least 8, from 1024 on up to 1.6 % more.
        """
        if self.decision is not Decision.CONTINUE:
            return 0
        return min(self.remaining, max(8, self.n // 64 // 8 * 8))

    def update(self, hits: int, n: int) -> Decision:
        """Take `hits` hits among `n` further votes, in chunks of any size, and decide. A decision once made stands.

        Raises InputError for impossible counts, more than `max_n` votes in all, or votes after a decision.
        """
        n = checked_integer(n, "n", 1)
        hits = checked_integer(hits, "hits", 0, n)
        if self.decision is not Decision.CONTINUE:
            raise InputError(f"the test has ended with '{self.decision.value}' after {self.n} votes; start a new one")
        if n > self.remaining:
            raise InputError(f"{n} votes come on top of {self.n}; max_n = {self.table.max_n} are allowed in all")
        self.hits += hits
        self.n += n
        self.decision = self.table.decide(self.hits, self.n)
        return self.decision


@lru_cache(maxsize=64)
def stopping_table(p: float, alpha: Fraction, beta: Fraction, max_n: int) -> StoppingTable:
    """Build and check the stopping rule for `probability > p`: error alpha for certifying, beta for giving up.

    p: a float in (0, 1), a multiple of 2^-53; alpha, beta in (0, 1/2); max_n <= 10^7. Takes seconds at max_n = 100,000.
    Raises InputError for arguments out of their domain.
    """
    max_n = checked_integer(max_n, "max_n", 1, LARGEST_MAX_N)
    if not (0 < p < 1 and (p * GRID).is_integer()):
        raise InputError(f"p is {p!r}; a multiple of 2^-53 between 0 and 1 is required, so that 1 - p is exact")
    if min(alpha, beta) < SMALLEST_LEVEL:
        raise InputError(f"no stopping rule for an error below {SMALLEST_LEVEL:g}, which floats cannot follow; use a larger one")
    certify, alpha_bound = _checked_boundary(p, alpha, max_n)
    hopeful = int(certify[max_n]) * int(GRID) // max_n / GRID
    give_up, beta_bound = np.full(max_n + 1, -1, np.int32), 0.0
    if hopeful < 1:  # else one miss ends the run: what is left cannot reach the end of `certify`
        misses, beta_bound = _checked_boundary(1.0 - hopeful, beta, max_n)
        give_up = np.minimum(np.arange(max_n + 1) - misses, certify - 1).astype(np.int32)
    for array in (certify, give_up):
        array.flags.writeable = False
    return StoppingTable(p, hopeful, alpha, beta, max_n, certify, give_up, alpha_bound, beta_bound)


def _checked_boundary(p: float, level: Fraction, max_n: int) -> tuple[np.ndarray, float]:
    """The lowest boundary found whose crossing probability at p is at most `level`, and that probability."""
    if p**max_n > level:  # not even max_n hits in a row are evidence enough
        return np.arange(1, max_n + 2, dtype=np.int32), 0.0
    threshold = -log(level)
    valid, invalid = inf, -inf  # the thresholds closest to each other on either side
    best = None
    for _ in range(_CALIBRATIONS):
        boundary = _mixture_boundary(p, threshold, max_n)
        crossing = crossing_probability(boundary, p)
        if crossing <= level:
            valid = threshold
            best = (boundary, crossing) if best is None or crossing > best[1] else best
            if crossing >= 0.99 * level:
                break
        else:
            invalid = threshold
        # The probability of crossing falls about like exp(-threshold); where that guess is off, halve the bracket.
        threshold += max(log(max(crossing, 1e-9 * level) / level), -2.0) + 0.002
        if not invalid < threshold < valid:
            threshold = (invalid + valid) / 2
    if best is None:
        raise InputError(f"no stopping rule with error {float(level):g} was found for p = {p}; use a larger level")
    return best


def _mixture_boundary(p: float, threshold: float, max_n: int) -> np.ndarray:
    """The smallest H with ln W(H, T) >= threshold, for T = 0..max_n, in floating point; T + 1 where there is none."""
    from scipy.special import betaincc, betaln

    components = []
    for weight, concentration in MIXTURE:
        # Near p = 0 and p = 1 neither parameter falls below Jeffreys', or the law would shrink to a point.
        a, b = max(0.5, (concentration or 0) * p), max(0.5, (concentration or 0) * (1 - p))
        components.append((a, b, log(weight) - betaln(a, b) - np.log(betaincc(a, b, p))))

    def log_wealth(hits: np.ndarray, n: np.ndarray) -> np.ndarray:
        misses = n - hits
        parts = [
            constant + betaln(hits + a, misses + b) + np.log(np.maximum(betaincc(hits + a, misses + b, p), 1e-300))
            for a, b, constant in components
        ]
        return np.logaddexp.reduce(parts, axis=0) - hits * log(p) - misses * np.log1p(-p)

    sparse = np.exp(np.arange(log(_EXACT_TIMES), log(max_n + 1), 0.01)).astype(np.int64)
    times = np.unique(np.r_[np.arange(min(_EXACT_TIMES, max_n) + 1), sparse[sparse < max_n], max_n])
    low, high = np.floor(times * p).astype(np.int64), times + 1  # W < 1 at H <= p T
    while np.any(high - low > 1):
        middle = (low + high) // 2
        enough = (middle > low) & (log_wealth(middle, times) >= threshold)
        high, low = np.where(enough, middle, high), np.where(enough, low, middle)
    return np.ceil(np.interp(np.arange(max_n + 1), times, high)).astype(np.int32)


def crossing_probability(boundary: np.ndarray, p: float) -> float:
    """An upper bound on P[H_T >= boundary[T] for some T = 1..max_n], H_T a sum of T independent votes of probability p.

    boundary: integers, index T. p: a float with 1 - p exact, such as a multiple of 2^-53. Tight to about max_n 2^-50,
    relative. As the event increases with every vote, the bound holds for all smaller probabilities too.
    """
    return walk(boundary, None, p)[0]


def walk(upper: np.ndarray, lower: np.ndarray | None, p: float) -> tuple[float, float, float]:
    """Run the random walk of votes with probability p between two boundaries: its fate by exact recursion.

    Returns (P[reaches upper], P[reaches lower], mean number of votes until either or the end). Masses are only ever
    added and multiplied by positive numbers, so each of the at most 3 max_n roundings behind a result costs a factor
    1 - 2^-53; the first result is inflated by more than all of them together and includes what was dropped, so it is
    an upper bound.
    """
    max_n = len(upper) - 1
    miss = 1.0 - p
    mass = np.zeros(max_n + 2)
    mass[0] = 1.0
    low = high = 0  # the states still walking are low..high
    reached_upper = reached_lower = mean = 0.0
    for n in range(1, max_n + 1):
        mean += 1.0 - reached_upper - reached_lower
        hit = mass[low : high + 1] * p
        mass[low : high + 1] *= miss
        mass[low + 1 : high + 2] += hit
        high += 1
        while high >= low and high >= upper[n]:
            reached_upper += float(mass[high])
            mass[high] = 0.0
            high -= 1
        while low <= high and mass[low] < _NEGLIGIBLE:
            reached_upper += float(mass[low])
            low += 1
        while lower is not None and low <= high and low <= lower[n]:
            reached_lower += float(mass[low])
            low += 1
        if low > high:
            break
    return reached_upper * (1 + 8 * max_n * 2.0**-53), reached_lower, mean
