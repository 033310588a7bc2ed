"""Certify by table look-up: a fixed number of votes, and no number but integers between them and the budget.

`TablePlan.decide` is that path. `certificate` adds what people like to read, a radius, derived from the integer budget
afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from intsmooth.certificate_table import CertificateTable
from intsmooth.certify import Number, checked_alpha
from intsmooth.enclosure import exact_text, float_below
from intsmooth.errors import InputError
from intsmooth.fixed_plan import FixedRun
from intsmooth.records import Certificate

_ROOT_BITS = 60  # fractional bits of the root of a budget, before it is rounded down to a float


@dataclass(frozen=True)
class TablePlan:
    """A table that fits the model and the noise it is used with."""

    table: CertificateTable
    randomized = False

    @property
    def most(self) -> int:
        """The number of votes."""
        return self.table.n

    @property
    def settings(self) -> dict[str, str | int]:
        """What a results file says about the plan."""
        return {"n": self.table.n, "table": "0x" + self.table.digest}

    def __str__(self) -> str:
        alpha, digest = float(self.table.alpha), self.table.digest[:16]
        return f"{self.most} to certify it by table {digest}, alpha {alpha:g} per image"

    def start(self) -> FixedRun:
        """The run of one image."""
        return FixedRun(self.table.n)

    def decide(self, run: FixedRun, top: int) -> tuple[int, int]:
        """(prediction, budget) of a run that has all its votes, on integers alone; (ABSTAIN, 0) if not certified."""
        if run.due:
            raise InputError(f"the run has {run.n} of {self.table.n} votes; draw {run.due} more first")
        return self.table.decide(run.hits, top)

    def certificate(
        self, run: FixedRun, *, top: int = 0, selection: Sequence[int] = (), counts: Sequence[int] = ()
    ) -> Certificate:
        """`decide` with its origin. radius_levels is the root of the budget, rounded down; p_lower is left at 0."""
        prediction, budget = self.decide(run, top)
        table = self.table
        root = Fraction(isqrt(budget << 2 * _ROOT_BITS), 1 << _ROOT_BITS)
        facts = {"dimension": table.dimension, "unit": table.unit, "tv": str(table.tv)}
        return Certificate(
            prediction=prediction,
            radius=float_below(root / table.unit),
            radius_levels=float_below(root),
            budget=budget,
            p_lower=0.0,
            top=top,
            hits=run.hits,
            n=run.n,
            n0=sum(selection),
            alpha=float(table.alpha),
            sigma=exact_text(table.sigma),
            law=table.law,
            selection=tuple(selection),
            counts=tuple(counts),
            extra={"bound": "table", "table": "0x" + table.digest, **facts}
            | ({"tau": exact_text(table.tau)} if table.tau else {}),
        )


def plan_table(
    table: CertificateTable,
    *,
    sigma: Fraction,
    dimension: int,
    law: str,
    unit: int,
    tv: Fraction,
    alpha: Number,
    n: int | None = None,
) -> TablePlan:
    """Plan to certify by `table`, if it was made for this setting: arguments as in `certificate_from_counts`.

    Its tv may be larger than the sampler's, which claims less. Raises InputError where anything else differs.
    """
    if not isinstance(table, CertificateTable):
        raise InputError(f"table is {type(table).__name__}; a CertificateTable is required: see load_table, build_table")
    level = checked_alpha(alpha)
    required = {"sigma": sigma, "dimension": dimension, "law": law, "unit": unit, "alpha": level}
    required |= {} if n is None else {"n": n}
    differing = [
        f"{name} is {_text(getattr(table, name))} in the table, {_text(value)} here"
        for name, value in required.items()
        if getattr(table, name) != value
    ]
    if table.tv < tv:
        differing.append(_less(table.tv, tv))
    if differing:
        raise InputError(f"the certificate table is for another setting: {'; '.join(differing)}. Make one that fits")
    return TablePlan(table)


def _less(stated: Fraction, sampled: Fraction) -> str:
    return f"its tv {float(stated):.3g} is less than the sampler's, {float(sampled):.3g}"


def _text(value) -> str:
    return exact_text(value) if isinstance(value, Fraction) else str(value)
