"""Votes to certificate: integer counts in, an integer budget out, and no model at hand.

    certificate_from_counts        one-sided bound on the top class, plain or randomized: the default
    certificate_from_two_classes   bounds on the top class and on all the others
    unestimated_certificate        no votes, no bound: abstains
    prediction_from_counts         which class to predict, or to abstain, with no radius
    format_radius_down             a radius as text that does not overstate it

The chain is: counts -> p (`binomial`) -> R (`theorem`) -> radius -> budget, each step rounded down. `radius_levels`
is the largest float below R, and the budget is the largest integer that is at most its square, computed exactly: so
anybody can check the last step of a stored certificate with integers. docs/theory.md says why all this is sound, and
under which assumptions.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from operator import index
from typing import Any

from intsmooth.binomial import (
    LARGEST_N,
    UNIFORM,
    binomial_test,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from intsmooth.enclosure import exact_fraction, exact_text, float_below
from intsmooth.errors import InputError
from intsmooth.records import ABSTAIN, Certificate
from intsmooth.theorem import Ancestor, ancestor

Number = float | int | str | Fraction

# Of alpha, for the bound on the top class where the others are bounded too. Every radius needs that bound, and the width
# of the others grows only with the logarithm of their share.
TOP_SHARE = Fraction(19, 20)


def certificate_from_counts(
    top_hits: int,
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
    uniform: int | None = None,
    top: int = 0,
    selection: Sequence[int] = (),
    counts: Sequence[int] = (),
    n0: int | None = None,
) -> Certificate:
    """Certify that class `top` wins, from `top_hits` votes for it among `n` fresh ones.

    With probability at least 1 - alpha over the noise, the smoothed classifier has the same value at x + delta for
    every integer delta with |delta|^2 <= budget (Cohen, Rosenfeld and Kolter, 2019; for integer noise
    docs/theory.md).

    top_hits, n    votes for the class, of all; the class must have been chosen from other samples
    sigma          noise level in [0,1] units; 0.12 means 12/100; in levels it is sigma * unit
    dimension      number of coordinates of an image, 3072 for CIFAR-10
    alpha          probability of a wrong certificate, in (0, 1/2)
    law, tau       "rounded" or "discrete"; tau in levels, None for the smallest with eta <= 1e-9
    unit           levels in 1.0, 255 for 8-bit images
    tv             total variation distance per coordinate between the sampler and the law, at most
    simultaneous   m: the statement holds for m images at once, each at alpha / m
    uniform        an integer drawn uniformly from [0, 2^64) apart from the votes: randomized Clopper-Pearson bound
    top, selection, counts, n0
                   kept in the record: the class, the counts of the selection and the estimation stage, samples of the
                   former

    A radius of 0 or below abstains: prediction -1, radius 0, budget 0. Raises InputError for arguments out of their
    domain.
    """
    n = checked_integer(n, "n", 1, LARGEST_N)
    top_hits = checked_integer(top_hits, "top_hits", 0, n)
    level = checked_alpha(alpha)
    simultaneous = checked_integer(simultaneous, "simultaneous", 1)
    if uniform is not None:
        uniform = checked_integer(uniform, "uniform", 0, UNIFORM - 1)
    model = checked_ancestor(sigma, law, dimension, unit, tv, tau)
    p = clopper_pearson_lower(top_hits, n, level / simultaneous, uniform)
    extra: dict[str, Any] = {"bound": "clopper-pearson"}
    if uniform is not None:
        extra |= {"bound": "randomized clopper-pearson", "uniform": uniform}
    if simultaneous > 1:
        extra["simultaneous"] = simultaneous
    return certificate_record(
        model.radius(p), p, model, unit=unit, alpha=level, hits=top_hits, n=n, top=top, selection=selection,
        counts=counts, n0=n0, extra=extra,
    )  # fmt: skip


def certificate_from_two_classes(
    counts: Sequence[int],
    *,
    top: int,
    sigma: Number,
    dimension: int,
    alpha: Number = 0.001,
    law: str = "rounded",
    unit: int = 255,
    tv: Number = 0,
    tau: Number | None = None,
    simultaneous: int = 1,
    selection: Sequence[int] = (),
    n0: int | None = None,
) -> Certificate:
    """Certify class `top` from the counts of all classes: a lower bound for it and an upper bound for each of the
    others.

    alpha is split: TOP_SHARE of it to the top class, the rest in equal parts to the K - 1 others. Helps where the votes
    that miss the top class are spread over many classes; where they are not, it is the one-sided bound at TOP_SHARE of
    alpha: the bound on the others is never above one minus the bound on the top class. Arguments, guarantee and errors as in `certificate_from_counts`.
    """
    votes = [checked_integer(count, "a count", 0, LARGEST_N) for count in counts]
    if len(votes) < 2:
        raise InputError(f"counts holds {len(votes)} classes; at least 2 are required")
    top = checked_integer(top, "top", 0, len(votes) - 1)
    n = checked_integer(sum(votes), "the sum of counts", 1, LARGEST_N)
    level = checked_alpha(alpha)
    simultaneous = checked_integer(simultaneous, "simultaneous", 1)
    model = checked_ancestor(sigma, law, dimension, unit, tv, tau)
    level_each = level / simultaneous
    p = clopper_pearson_lower(votes[top], n, TOP_SHARE * level_each)
    # The bound grows with the count, so the largest of the others' bounds is that of the runner-up.
    runner_up = max(votes[:top] + votes[top + 1 :])
    p_other = min(clopper_pearson_upper(runner_up, n, (1 - TOP_SHARE) * level_each / (len(votes) - 1)), 1.0 - p)
    extra: dict[str, Any] = {"bound": "two classes", "p_other": p_other, "top_share": str(TOP_SHARE)}
    if simultaneous > 1:
        extra["simultaneous"] = simultaneous
    return certificate_record(
        model.two_class_radius(p, p_other), p, model, unit=unit, alpha=level, hits=votes[top], n=n, top=top,
        selection=selection, counts=votes, n0=n0, extra=extra,
    )  # fmt: skip


def unestimated_certificate(
    top: int, selection: Sequence[int], *, sigma: Number, dimension: int, alpha: Number, law: str, unit: int, tv: Number
) -> Certificate:
    """The abstention of a run that ended after its selection stage: no votes, so no bound. Arguments as in
    `certificate_from_counts`."""
    model = checked_ancestor(sigma, law, dimension, unit, tv)
    return certificate_record(
        Decimal(0), 0.0, model, unit=unit, alpha=checked_alpha(alpha), hits=0, n=0, top=top, selection=selection,
        extra={"bound": "none"},
    )  # fmt: skip


def prediction_from_counts(counts: Sequence[int], alpha: Number = 0.001) -> int:
    """The most frequent class if it beats the runner-up significantly, else ABSTAIN: Predict of Cohen et al. (2019).

    The exact two-sided binomial test of the two largest counts against p = 1/2, in integers only. With probability at
    least 1 - alpha the answer is ABSTAIN or the smoothed classifier's class. Ties go to the lowest index (and abstain).
    """
    votes = [checked_integer(count, "a count", 0, LARGEST_N) for count in counts]
    if not votes:
        raise InputError("counts is empty; the votes of at least one class are required")
    level = checked_alpha(alpha)
    top = max(range(len(votes)), key=votes.__getitem__)
    runner_up = max(votes[:top] + votes[top + 1 :], default=0)
    return top if binomial_test(votes[top], runner_up, level) else ABSTAIN


def certificate_record(
    radius: Decimal,
    p: float,
    model: Ancestor,
    *,
    unit: int,
    alpha: Fraction,
    hits: int,
    n: int,
    top: int,
    selection: Sequence[int] = (),
    counts: Sequence[int] = (),
    n0: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Certificate:
    """Round a radius in levels down to a float, its square to the integer budget, and write both down with their
    origin.

    `model` and `alpha` have been checked before; counts and indices are checked here. Abstains where radius <= 0.
    """
    top = checked_integer(top, "top", 0)
    selected = tuple(checked_integer(count, "a count of selection", 0) for count in selection)
    voted = tuple(checked_integer(count, "a count", 0) for count in counts)
    if voted and (sum(voted) != n or top >= len(voted) or voted[top] != hits):
        raise InputError(
            f"counts sum to {sum(voted)} and give class {top} {voted[top] if top < len(voted) else 'nothing'}; they "
            "must agree "
            f"with n = {n} and {hits} hits for class {top}: pass the estimation stage's counts, or leave them out"
        )
    radius_levels = float_below(radius) if radius > 0 else 0.0
    return Certificate(
        prediction=top if radius_levels > 0 else ABSTAIN,
        radius=float_below(Fraction(radius_levels) / unit),
        radius_levels=radius_levels,
        budget=budget_of_radius(radius_levels),
        p_lower=p,
        top=top,
        hits=hits,
        n=n,
        n0=sum(selected) if n0 is None else checked_integer(n0, "n0", 0),
        alpha=float(alpha),
        sigma=exact_text(model.sigma / unit),
        law=model.law,
        selection=selected,
        counts=voted,
        extra=dict(extra or {})
        | {"dimension": model.dimension, "unit": unit, "tv": str(model.tv)}
        | ({"tau": exact_text(model.tau), "eta": float(model.eta)} if model.tau else {}),
    )


def budget_of_radius(radius_levels: float | Fraction) -> int:
    """The largest integer B with sqrt(B) <= radius_levels, exactly: what a radius means for integer perturbations."""
    square = Fraction(radius_levels) ** 2
    return square.numerator // square.denominator


def format_radius_down(radius: float, digits: int = 3) -> str:
    """A radius with `digits` decimals, rounded down, so that what is printed is still certified.

    Reading the text back as a float gives at most `radius`. Raises InputError for a radius below 0 or not finite.
    """
    digits = checked_integer(digits, "digits", 0, 60)
    if not 0 <= radius < float("inf"):
        raise InputError(f"radius is {radius!r}; a finite number of 0 or more is required")
    scaled = Fraction(radius) * 10**digits
    units = str(scaled.numerator // scaled.denominator).rjust(digits + 1, "0")
    return f"{units[:-digits]}.{units[-digits:]}" if digits else units


def checked_integer(value: Any, name: str, lowest: int, highest: int | None = None) -> int:
    """`value` as an int, NumPy's integers included, or InputError: not an integer, or outside lowest..highest."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}; an integer is required") from None
    if number < lowest or (highest is not None and number > highest):
        allowed = f"{lowest} or more" if highest is None else f"between {lowest} and {highest}"
        raise InputError(f"{name} is {number}; it must be {allowed}")
    return number


def checked_alpha(alpha: Number, name: str = "alpha") -> Fraction:
    """An error probability as an exact fraction, or InputError if it is not in (0, 1/2)."""
    level = exact_fraction(alpha, name)
    if not 0 < level < Fraction(1, 2):
        raise InputError(f"{name} is {alpha}; an error probability above 0 and below 0.5 is required, such as 0.001")
    return level


def checked_ancestor(
    sigma: Number, law: str, dimension: int, unit: int, tv: Number = 0, tau: Number | None = None
) -> Ancestor:
    """The theorem's setting for a sigma in [0,1] units, or InputError; arguments as in `certificate_from_counts`."""
    exact_sigma = exact_fraction(sigma, "sigma")
    if exact_sigma <= 0:
        raise InputError(f"sigma is {sigma}; a noise level above 0 in [0,1] units is required, such as 0.25")
    unit = checked_integer(unit, "unit", 1)
    dimension = checked_integer(dimension, "dimension", 1)
    distance = exact_fraction(tv, "tv")
    if not 0 <= distance <= 1:
        raise InputError(f"tv is {tv}; a total variation distance between 0 and 1 is required")
    exact_tau = None if tau is None else exact_fraction(tau, "tau")
    if not isinstance(law, str):
        raise InputError(f"law is {law!r}; a name is required: 'rounded' or 'discrete'")
    return ancestor(law, exact_sigma * unit, dimension, distance, exact_tau)
