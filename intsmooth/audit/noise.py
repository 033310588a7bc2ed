"""The noise proof: the table is as close to its law as the certificate assumes, and the sampler draws from the table.

The table is recomputed with other arithmetic than the one that made it: 60-digit decimals (normal.py) instead of
integer enclosures (noise/enclosure.py). A biased table fails here. A biased or tampered generator fails the
goodness of fit of the final integers (noise/selftest.py).
"""

from decimal import Decimal, localcontext
from fractions import Fraction

from intsmooth.audit.finding import Finding
from intsmooth.errors import IntsmoothError
from intsmooth.noise import selftest
from intsmooth.noise.law import NoiseTable, pmf
from intsmooth.normal import normal_cdf

_DIGITS = 60
_ERROR = Fraction(1, 10**40)  # of each probability below: normal_cdf is within 1e-50, a sum of exponentials as well


def law_probabilities(table: NoiseTable) -> list[Fraction]:
    """P[Z = k] of the table's law for its outcomes, lowest first, each within 1e-40."""
    with localcontext() as context:
        context.prec = _DIGITS
        sigma = Decimal(table.sigma.numerator) / table.sigma.denominator
        reach = max(-table.first, table.last)
        if table.law == "rounded":
            tails = [normal_cdf(-(k + Decimal("0.5")) / sigma) for k in range(reach + 1)]  # P[Z > k]
            weights = [1 - 2 * tails[0], *(near - far for near, far in zip(tails, tails[1:], strict=False))]
        else:
            beyond = int(20 * sigma) + 2  # exp(-200) is left out
            weights = [(-Decimal(k * k) / (2 * sigma * sigma)).exp() for k in range(max(beyond, reach + 1))]
            total = weights[0] + 2 * sum(weights[1:])
            weights = [weight / total for weight in weights]
        return [Fraction(weights[abs(k)]) for k in range(table.first, table.last + 1)]


def distance(table: NoiseTable) -> Fraction:
    """An upper bound on the total variation distance between the table, as it is sampled, and its law."""
    law, sampled = law_probabilities(table), pmf(table)
    inside = sum(abs(a - b) for a, b in zip(law, sampled, strict=True))
    outside = max(Fraction(0), 1 - sum(law))
    return (inside + outside) / 2 + len(law) * _ERROR


def check_noise(table: NoiseTable) -> Finding:
    """Compare table and law, then test the running sampler (about a second)."""
    problems, statistics = [], []
    found = distance(table)
    if found > table.tv + 2 * len(table.thresholds) * _ERROR:
        problems.append(
            f"the table is {float(found):.3g} from its law in total variation per coordinate; certificates assume "
            f"at most {float(table.tv):.3g}"
        )
    limit = Fraction(2 * len(table.thresholds) + 4, 1 << 65)
    if table.tv > limit:
        problems.append(
            f"the table's distance {float(table.tv):.3g} is above what 64-bit thresholds need, {float(limit):.3g}"
        )
    try:
        statistics = selftest.check("numba")
    except IntsmoothError as error:
        problems.append(str(error))
    return Finding(
        "noise",
        "the noise follows its law",
        not problems,
        f"{table.law}, sigma {float(table.sigma):g} levels, {len(table.thresholds) + 1} outcomes: total variation "
        f"distance at most {float(found):.3g} per coordinate; {len(statistics)} statistics of the final integers "
        "within their limits"
        if not problems
        else f"{len(problems)} problems",
        problems,
        [],
        {
            "law": table.law,
            "sigma_levels": str(table.sigma),
            "outcomes": len(table.thresholds) + 1,
            "tv": float(table.tv),
            "tv_recomputed": float(found),
            "statistics": [
                {"name": s.name, "statistic": float(s.statistic), "limit": float(s.limit)} for s in statistics
            ],
        },
    )
