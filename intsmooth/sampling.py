"""How many votes an image gets, and what they prove: one plan per mode, chosen by the arguments of `Smooth.certify`.

    nothing, n, bound                    FixedPlan   a fixed number of votes, the classical way
    target_radius                        TargetPlan  stop when one radius is certified, or hopeless
    precision, max_n, largest_radius     CurvePlan   the largest radius, stop when more votes would add little
    table                                TablePlan   a fixed number of votes, certified by table look-up, integers only

All plans are driven alike, and all keep the same promise at alpha:

    run = plan.start()
    while run.due:
        counts = <run.due further votes>
        run.update(counts[top], run.due)
    certificate = plan.certificate(run, top=top, selection=..., counts=...)

When a run looks at its votes depends on their number alone, so that nothing depends on how they are counted.
"""

from fractions import Fraction

from intsmooth.certificate_table import CertificateTable
from intsmooth.certify import Number
from intsmooth.confidence_sequence import CurvePlan, plan_curve
from intsmooth.errors import InputError
from intsmooth.fixed_plan import CLOPPER_PEARSON, FixedPlan, plan_fixed
from intsmooth.table_plan import TablePlan, plan_table
from intsmooth.target import TargetPlan, plan_target

Plan = FixedPlan | TargetPlan | CurvePlan | TablePlan
N = 100_000
BETA = Fraction(1, 100)


def choose_plan(
    *,
    sigma: Fraction,
    dimension: int,
    law: str,
    unit: int,
    tv: Fraction,
    alpha: Number = 0.001,
    n: int | None = None,
    bound: str | None = None,
    target_radius: Number | None = None,
    precision: Number | None = None,
    max_n: int | None = None,
    largest_radius: Number | None = None,
    beta: Number | None = None,
    table: CertificateTable | None = None,
) -> Plan:
    """The plan that these arguments ask for; sigma and radii in [0,1] units.

    n               samples of the fixed plan, 100,000 by default; those of `table`
    bound           of the fixed plan: "clopper-pearson" (default), "randomized" or "two-class"
    target_radius   certify this radius or nothing, with as few samples as possible
    precision       find the largest radius, but stop when more samples are expected to add less than this
    largest_radius  find the largest radius, but stop when this one is certified
    max_n           samples at most where a run may stop early, 100,000 by default; alone, it asks for the largest radius
    beta            where a run may stop early: the probability of giving up too soon, 0.01 by default; claims nothing
    table           a CertificateTable, which says n and alpha

    Raises InputError for arguments out of their domain, or that do not go together.
    """
    given = {
        "target_radius": target_radius, "precision": precision, "largest_radius": largest_radius, "table": table,
        "max_n": max_n, "beta": beta, "n": n, "bound": bound,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    about = {"sigma": sigma, "dimension": dimension, "law": law, "unit": unit, "tv": tv, "alpha": alpha}
    if table is not None:
        _only(given, "table", "n")
        return plan_table(table, n=n, **about)
    early = {"max_n": N if max_n is None else max_n, "beta": BETA if beta is None else beta}
    if target_radius is not None:
        _only(given, "target_radius", "max_n", "beta")
        return plan_target(target_radius, **about, **early)
    if given.keys() & {"precision", "largest_radius", "max_n"}:
        _only(given, "precision", "largest_radius", "max_n", "beta")
        return plan_curve(precision=precision, largest_radius=largest_radius, **about, **early)
    _only(given, "n", "bound")
    return plan_fixed(N if n is None else n, bound=bound or CLOPPER_PEARSON, **about)


def _only(given: dict, *allowed: str) -> None:
    """InputError if an argument is given that means nothing in this mode."""
    excess = [name for name in given if name not in allowed]
    if excess:
        mode = next((name for name in given if name in allowed), "the fixed plan")
        raise InputError(
            f"{' and '.join(excess)} cannot be combined with {mode}; with it go: {', '.join(allowed)} "
            "(n and bound: the fixed plan; max_n and beta: plans that stop early)"
        )
