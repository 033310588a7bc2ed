"""Certify the largest radius that the votes support, and stop as soon as more votes would not change much.

The votes are looked at a few times, at numbers that double. Look j has its own share of alpha and its own
Clopper-Pearson bound; as the shares add up to alpha, *all* bounds hold at once with probability 1 - alpha, so the
best of them holds, and any rule whatever may decide when to stop. Half of alpha goes to the last look, which a run
that never stops early ends with. At the looks this is tighter than a betting confidence sequence, which pays for
being valid in between (docs/theory.md, section 6).

    plan = plan_curve(sigma=0.5, dimension=3072, precision=0.02, largest_radius=2)
    run = plan.start()
    while run.due:
        run.update(hits, run.due)
    certificate = plan.certificate(run, top=top)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction

from intsmooth.binomial import LARGEST_N, clopper_pearson_lower, clopper_pearson_upper
from intsmooth.certify import (
    Number,
    certificate_record,
    checked_alpha,
    checked_ancestor,
    checked_integer,
)
from intsmooth.enclosure import exact_fraction, exact_text
from intsmooth.errors import InputError
from intsmooth.records import Certificate
from intsmooth.theorem import Ancestor

FIRST_LOOK = 100
_OPTIMISM = Fraction(4, 25)  # the forecast takes an upper bound on p at this level, one standard deviation


class Stop(Enum):
    """Why a run ended."""

    REACHED = "largest useful radius reached"
    ABSTAINS = "no radius above 0 to be expected"  # the upper bound on p, at level beta, certifies nothing
    PRECISE = "more votes would add less than the precision"
    EXHAUSTED = "max_n votes"


@dataclass(frozen=True)
class Look:
    """The bound is computed once, after `n` votes in all, with error `alpha`; the upper one with error `beta`."""

    n: int
    alpha: Fraction
    beta: Fraction


def geometric_looks(max_n: int, alpha: Fraction, beta: Fraction, first: int = FIRST_LOOK) -> tuple[Look, ...]:
    """Looks at max_n, max_n / 2, max_n / 4 ... down to at least `first`: half of alpha for the last, the rest in
    equal parts.

    The shares add up to alpha exactly, and those of beta to beta.
    """
    times = [max_n]
    while (half := -(-times[0] // 2)) >= first and half < times[0]:
        times.insert(0, half)
    early = len(times) - 1
    shares = [Fraction(1, 2 * early) for _ in range(early)] + [Fraction(1, 2 if early else 1)]
    return tuple(Look(n, alpha * share, beta * share) for n, share in zip(times, shares, strict=True))


@dataclass(frozen=True)
class CurvePlan:
    """Everything that is fixed before the first vote. Radii in levels; None where a rule is not used."""

    looks: tuple[Look, ...]
    unit: int
    model: Ancestor
    alpha: Fraction
    simultaneous: int
    largest_radius: Fraction | None
    precision: Fraction | None
    randomized = False

    @property
    def most(self) -> int:
        """The largest number of votes."""
        return self.looks[-1].n

    @property
    def settings(self) -> dict[str, str | int]:
        """What a results file says about the plan."""
        limits = {"precision": self.precision, "largest_radius": self.largest_radius}
        given = {name: exact_text(value / self.unit) for name, value in limits.items() if value is not None}
        return given | {"max_n": self.most, "beta": exact_text(sum(look.beta for look in self.looks))}

    def __str__(self) -> str:
        settings = self.settings
        until = ""
        if self.precision is not None:
            until += f", until more would add less than {settings['precision']}"
        if self.largest_radius is not None:
            until += f", or until radius {settings['largest_radius']} is reached"
        return f"at most {self.most} to certify the largest radius{until}, alpha {float(self.alpha):g} per image"

    def start(self) -> "CurveRun":
        """The run of one image."""
        return CurveRun(self)

    def certificate(
        self,
        run: "CurveRun",
        *,
        top: int = 0,
        selection: Sequence[int] = (),
        counts: Sequence[int] = (),
        n0: int | None = None,
    ) -> Certificate:
        """The certificate of a run that has stopped, from the best of its looks, which `extra` describes.

        Raises InputError for a run of another plan or one that still goes on.
        """
        if run.plan is not self:
            raise InputError("this run belongs to another plan; pass one that `start` of this plan returned")
        if run.stopped is None:
            raise InputError(f"the run has not stopped after {run.n} votes; draw {run.due} more first")
        extra = {
            "bound": "confidence sequence",
            "stop": run.stopped.value,
            "looks": run.looked,
            "best_look": [run.best_look.n, run.best_hits, str(run.best_look.alpha)],
            "max_n": self.most,
        }
        if self.simultaneous > 1:
            extra["simultaneous"] = self.simultaneous
        return certificate_record(
            run.radius_levels, run.p, self.model, unit=self.unit, alpha=self.alpha, hits=run.hits, n=run.n, top=top,
            selection=selection, counts=counts, n0=n0, extra=extra,
        )  # fmt: skip


class CurveRun:
    """The state of one image's run: `p` and `radius_levels` are the best bounds so far, `stopped` says why it ended."""

    def __init__(self, plan: CurvePlan):
        self.plan = plan
        self.hits = 0
        self.n = 0
        self.looked = 0
        self.p = 0.0
        self.radius_levels = Decimal(0)
        self.best_look = plan.looks[0]
        self.best_hits = 0
        self.stopped: Stop | None = None

    @property
    def due(self) -> int:
        """How many votes to draw before the next decision; 0 once the run has stopped."""
        return 0 if self.stopped is not None else self.plan.looks[self.looked].n - self.n

    def update(self, hits: int, n: int) -> Stop | None:
        """Take `hits` hits among `n` further votes and decide, if a look is due; None means: go on.

        Votes may come in several chunks, but never across a look. Raises InputError for that and for impossible counts.
        """
        n = checked_integer(n, "n", 1)
        hits = checked_integer(hits, "hits", 0, n)
        if n > self.due:
            raise InputError(
                f"{n} votes come where {self.due} are due until the next look"
                + (f" (the run has stopped: {self.stopped.value})" if self.stopped else "; draw them in two parts")
            )
        self.hits += hits
        self.n += n
        if self.due == 0:
            self._look()
        return self.stopped

    def _look(self) -> None:
        plan, look = self.plan, self.plan.looks[self.looked]
        self.looked += 1
        p = clopper_pearson_lower(self.hits, self.n, look.alpha)
        if self.looked == 1 or p > self.p:
            self.p, self.best_look, self.best_hits = p, look, self.hits
            self.radius_levels = plan.model.radius(p)
        if plan.largest_radius is not None and self.radius_levels >= plan.largest_radius:
            self.stopped = Stop.REACHED
        elif self.looked == len(plan.looks):
            self.stopped = Stop.EXHAUSTED
        elif not self.radius_levels and not plan.model.radius(self._at_most(look.beta)):
            self.stopped = Stop.ABSTAINS
        elif plan.precision is not None and self._forecast() - self.radius_levels < plan.precision:
            self.stopped = Stop.PRECISE

    def _at_most(self, level: Fraction) -> float:
        """An upper bound on p at this look, as a probability that the theorem accepts."""
        return min(clopper_pearson_upper(self.hits, self.n, level), 1 - 2.0**-53)

    def _forecast(self) -> Decimal:
        """The radius that the last look would find if p were as large as it may well be; it decides when to stop."""
        last = self.plan.looks[-1]
        hits = int(Fraction(self._at_most(_OPTIMISM)) * last.n)
        return self.plan.model.radius(clopper_pearson_lower(hits, last.n, last.alpha))


def plan_curve(
    *,
    sigma: Number,
    dimension: int,
    alpha: Number = 0.001,
    beta: Number = 0.001,
    max_n: int = 100_000,
    precision: Number | None = None,
    largest_radius: Number | None = None,
    law: str = "rounded",
    unit: int = 255,
    tv: Number = 0,
    tau: Number | None = None,
    simultaneous: int = 1,
) -> CurvePlan:
    """Plan to find the largest certified radius at error alpha with at most max_n votes.

    precision       stop when more votes are expected to add less than this to the radius ([0,1] units)
    largest_radius  stop when this radius is certified; larger ones are of no interest ([0,1] units)
    beta            stop when the class is below every certificate, at this error; saves votes, claims nothing

    The other arguments are those of `certificate_from_counts`, whose guarantee holds whichever rule ends a run.
    Raises InputError for arguments out of their domain.
    """
    model = checked_ancestor(sigma, law, dimension, unit, tv, tau)
    level, other = checked_alpha(alpha), checked_alpha(beta, "beta")
    max_n = checked_integer(max_n, "max_n", 1, LARGEST_N)
    simultaneous = checked_integer(simultaneous, "simultaneous", 1)
    limits = {}
    for name, value in (("precision", precision), ("largest_radius", largest_radius)):
        limits[name] = None if value is None else exact_fraction(value, name) * unit
        if value is not None and limits[name] <= 0:
            raise InputError(f"{name} is {value}; a radius above 0 in [0,1] units is required")
    looks = geometric_looks(max_n, level / simultaneous, other)
    return CurvePlan(looks, unit, model, level, simultaneous, limits["largest_radius"], limits["precision"])
