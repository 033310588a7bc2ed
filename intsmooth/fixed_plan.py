"""Certify with a number of votes that is fixed beforehand, by one of three bounds, all at error alpha.

    clopper-pearson   the classical one-sided bound on the top class: the default, and what the literature reports
    randomized        Stevens' randomized bound: never below the first, larger on average by less than one vote
    two-class         the top class from below and every other from above: larger where the votes that miss the top
                      class are spread over many others, a little smaller where they are not

The bound has to be chosen before the votes: the best of several is not covered by alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from intsmooth.binomial import LARGEST_N
from intsmooth.certify import (
    Number,
    certificate_from_counts,
    certificate_from_two_classes,
    checked_alpha,
    checked_ancestor,
    checked_integer,
)
from intsmooth.errors import InputError
from intsmooth.records import Certificate

CLOPPER_PEARSON, RANDOMIZED, TWO_CLASS = BOUNDS = ("clopper-pearson", "randomized", "two-class")


class FixedRun:
    """The state of one image's run: `n` votes so far, `hits` of them for the class, `due` votes to come."""

    def __init__(self, n: int):
        self.hits = self.n = 0
        self.due = n

    def update(self, hits: int, n: int) -> None:
        """Take `hits` hits among `n` further votes, in chunks of any size. Raises InputError for impossible counts."""
        n = checked_integer(n, "n", 1, self.due)
        self.hits += checked_integer(hits, "hits", 0, n)
        self.n += n
        self.due -= n


@dataclass(frozen=True)
class FixedPlan:
    """All that is fixed before the first vote. `most` votes are drawn; the other fields as in `plan_fixed`."""

    most: int
    bound: str
    alpha: Fraction
    sigma: Number
    dimension: int
    law: str
    unit: int
    tv: Number
    tau: Number | None
    simultaneous: int

    @property
    def randomized(self) -> bool:
        """Whether `certificate` needs a `uniform`."""
        return self.bound == RANDOMIZED

    @property
    def settings(self) -> dict[str, str | int]:
        """What a results file says about the plan."""
        return {"n": self.most} | ({} if self.bound == CLOPPER_PEARSON else {"bound": self.bound})

    def __str__(self) -> str:
        bound = "" if self.bound == CLOPPER_PEARSON else f" by the {self.bound} bound"
        return f"{self.most} to certify it{bound}, alpha {float(self.alpha):g} per image"

    def start(self) -> FixedRun:
        """The run of one image."""
        return FixedRun(self.most)

    def certificate(
        self,
        run: FixedRun,
        *,
        top: int = 0,
        selection: Sequence[int] = (),
        counts: Sequence[int] = (),
        uniform: int | None = None,
    ) -> Certificate:
        """The certificate of a run that has all its votes; counts: of every class, which "two-class" cannot do without.

        uniform: for "randomized", an integer drawn uniformly from [0, 2^64) apart from the votes. Raises InputError.
        """
        if run.due:
            raise InputError(f"the run has {run.n} of {self.most} votes; draw {run.due} more first")
        about = {
            "sigma": self.sigma, "dimension": self.dimension, "alpha": self.alpha, "law": self.law, "unit": self.unit,
            "tv": self.tv, "tau": self.tau, "simultaneous": self.simultaneous, "top": top, "selection": selection,
        }  # fmt: skip
        if self.bound == TWO_CLASS:
            return certificate_from_two_classes(counts, **about)
        if self.randomized and uniform is None:
            raise InputError("the randomized bound needs `uniform`, an integer drawn uniformly from [0, 2^64)")
        uniform = uniform if self.randomized else None
        return certificate_from_counts(run.hits, self.most, uniform=uniform, counts=counts, **about)


def plan_fixed(
    n: int,
    *,
    sigma: Number,
    dimension: int,
    alpha: Number = 0.001,
    law: str = "rounded",
    unit: int = 255,
    tv: Number = 0,
    tau: Number | None = None,
    simultaneous: int = 1,
    bound: str = CLOPPER_PEARSON,
) -> FixedPlan:
    """Plan to certify with exactly n votes and one of BOUNDS; the other arguments as in `certificate_from_counts`.

    Raises InputError for arguments out of their domain.
    """
    if bound not in BOUNDS:
        raise InputError(f"bound is {bound!r}; required: one of {', '.join(BOUNDS)}")
    n = checked_integer(n, "n", 1, LARGEST_N)
    level, simultaneous = checked_alpha(alpha), checked_integer(simultaneous, "simultaneous", 1)
    checked_ancestor(sigma, law, dimension, unit, tv, tau)
    return FixedPlan(n, bound, level, sigma, dimension, law, unit, tv, tau, simultaneous)
