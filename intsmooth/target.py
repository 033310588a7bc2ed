"""Certify one radius with as few votes as possible: `sequential`'s test, put to the question that a radius asks.

    plan = plan_target(0.5, sigma=0.5, dimension=3072)
    run = plan.start()
    while run.due:
        run.update(hits, run.due)      # or votes in chunks of any other size, at most run.remaining
    certificate = plan.certificate(run, top=top)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import inf, nextafter

from intsmooth.certify import (
    Number,
    certificate_record,
    checked_alpha,
    checked_ancestor,
    checked_integer,
)
from intsmooth.enclosure import decimal_below, exact_fraction, exact_text, float_below
from intsmooth.errors import InputError
from intsmooth.records import Certificate
from intsmooth.sequential import Decision, SequentialTest, StoppingTable, walk
from intsmooth.stopping_cache import cached_stopping_table
from intsmooth.theorem import Ancestor


@dataclass(frozen=True, eq=False)
class TargetPlan:
    """All that is fixed before the first vote: the radius as asked for, in [0,1] units, and in levels; the theorem's
    setting; the stopping table.
    """

    radius: Fraction
    radius_levels: float
    unit: int
    model: Ancestor
    alpha: Fraction
    simultaneous: int
    table: StoppingTable
    randomized = False

    @property
    def most(self) -> int:
        """The largest number of votes."""
        return self.table.max_n

    @property
    def settings(self) -> dict[str, str | int]:
        """What a results file says about the plan."""
        beta = exact_text(self.table.beta)
        return {"target_radius": exact_text(self.radius), "max_n": self.most, "beta": beta}

    def __str__(self) -> str:
        return (
            f"at most {self.most} to certify radius {exact_text(self.radius)}, which needs a probability above "
            f"{self.table.p:.6f}, alpha {float(self.alpha):g} per image, beta {float(self.table.beta):g}"
        )

    def start(self) -> SequentialTest:
        """The run of one image."""
        return SequentialTest(self.table)

    def mean_votes(self, probability: float) -> float:
        """How many votes a class of this probability takes on average, if looked at after each."""
        last = int(self.table.certify[-1])
        give_up = [max(int(g), last - 1 - (self.table.max_n - n)) for n, g in enumerate(self.table.give_up)]
        return walk(self.table.certify, give_up, probability)[2]

    def certificate(
        self,
        run: SequentialTest,
        *,
        top: int = 0,
        selection: Sequence[int] = (),
        counts: Sequence[int] = (),
        n0: int | None = None,
    ) -> Certificate:
        """The certificate of a run: the target radius if it was certified, else an abstention.

        `extra` holds the decision, the target and the largest number of votes allowed. An abstention says that *this*
        radius was not certified, nothing about smaller ones. Raises InputError for a run of another plan or one that
        still goes on.
        """
        if run.table is not self.table:
            raise InputError("this run belongs to another plan; pass one that `start` of this plan returned")
        if run.decision is Decision.CONTINUE:
            raise InputError(f"the run is undecided after {run.n} of at most {self.table.max_n} votes; draw more first")
        certified = run.decision is Decision.CERTIFY
        extra = {
            "bound": "sequential test",
            "decision": run.decision.value,
            "target_levels": self.radius_levels,
            "beta": float(self.table.beta),
            "max_n": self.table.max_n,
        }
        if self.simultaneous > 1:
            extra["simultaneous"] = self.simultaneous
        radius = decimal_below(Fraction(self.radius_levels if certified else 0))
        p = self.table.p if certified else 0.0
        return certificate_record(
            radius, p, self.model, unit=self.unit, alpha=self.alpha, hits=run.hits, n=run.n, top=top,
            selection=selection, counts=counts, n0=n0, extra=extra,
        )  # fmt: skip


def plan_target(
    radius: Number,
    *,
    sigma: Number,
    dimension: int,
    alpha: Number = 0.001,
    beta: Number = 0.001,
    max_n: int = 100_000,
    law: str = "rounded",
    unit: int = 255,
    tv: Number = 0,
    tau: Number | None = None,
    simultaneous: int = 1,
) -> TargetPlan:
    """Plan to certify `radius` (in [0,1] units) at error alpha, giving up at error beta or after max_n votes.

    A certificate that results is wrong with probability at most alpha (alpha / simultaneous for each image, if m
    images are to be right at once). beta is the probability of giving up too soon on a class that max_n votes would
    more likely than not certify; it claims nothing. The other arguments are those of `certificate_from_counts`. The
    radius is taken as the float at or next above it, so that the record's `radius` compares as `>= radius`. Builds
    the stopping table, seconds at max_n = 100,000, and keeps it, on disk too. Raises InputError.
    """
    asked = exact_fraction(radius, "radius")
    if asked < 0:
        raise InputError(f"radius is {radius}; 0 or more is required")
    model = checked_ancestor(sigma, law, dimension, unit, tv, tau)
    level, other = checked_alpha(alpha), checked_alpha(beta, "beta")
    simultaneous = checked_integer(simultaneous, "simultaneous", 1)
    smallest = Fraction(1, 10**6) / unit  # a radius of 0 asks for any radius above 0
    radius_levels = _float_above(Fraction(_float_above(max(asked, smallest))) * unit)
    p = _needed(model, Fraction(radius_levels))
    return TargetPlan(
        asked, radius_levels, unit, model, level, simultaneous, cached_stopping_table(p, level / simultaneous, other, max_n)
    )


@lru_cache(maxsize=64)
def _needed(model: Ancestor, radius: Fraction) -> float:
    return model.probability(radius)


def _float_above(value: Fraction) -> float:
    below = float_below(value)
    return below if Fraction(below) == value else nextafter(below, inf)
