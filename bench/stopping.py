"""Which rule decides one radius with the fewest votes? The same images for all of them, exactly, with no sampling.

    python bench/stopping.py [--every 20] [--out bench/STOPPING.md]

Published certificates say how probable each image's class is (the bound behind a radius, inverted). Each rule is a pair
of boundaries; the mean number of votes until one is crossed, and the chance of a certificate, follow by running the walk
of the votes exactly, for every image's probability. Contenders:

- this package's rule, looked at after every vote, and in the steps in which it draws votes (`SequentialTest.due`);
- betting (Voracek, 2024): Krichevsky and Trofimov's predictions, wealth 1/(2 alpha), at most 131,100 votes, certified
  and refuted at alpha = 0.001 each, as in the code published with the paper;
- stages (Horvath, Mueller, Fischer and Vechev, 2022, as that code has them): Clopper-Pearson after 100, 1,000, 10,000 and
  120,000 votes, a quarter of alpha for each;
- the fixed plan of 100,000 votes.

Needs the folder reference_certificates below the one that the environment variable INTSMOOTH_SHARED names (default:
`shared` beside the repository).
"""

import argparse
import os
import pathlib
from dataclasses import dataclass
from fractions import Fraction
from math import log, log1p

import numba
import numpy as np
from harness import FOLDER, Report, say

from intsmooth.certify import certificate_from_counts
from intsmooth.confidence_sequence import plan_curve
from intsmooth.enclosure import GRID
from intsmooth.results import read_results
from intsmooth.sequential import Decision, SequentialTest, StoppingTable
from intsmooth.stopping_cache import cached_stopping_table

ALPHA = Fraction(1, 1000)
SHARED = pathlib.Path(os.environ.get("INTSMOOTH_SHARED", FOLDER.parents[1] / "shared"))
FIXED_N, BETTING_N, STAGES = 100_000, 131_100, (100, 1_000, 10_000, 120_000)
UNKNOWN = 0.45  # taken for the probability of a class whose certifier abstained, which all rules see at once
COHEN, RESNET20 = "cohen_resnet110_sigma_{:.2f}", "{}_resnet20_sigma_0.50"
QUESTIONS = (  # file, its sigma, radius
    (COHEN.format(0.25), 0.25, 0.5),
    (COHEN.format(0.5), 0.5, 0.5),
    (COHEN.format(1), 1.0, 0.5),
    (COHEN.format(1), 1.0, 1.25),
    (RESNET20.format("gaussian"), 0.5, 0.5),
    (RESNET20.format("consistency_lbd10"), 0.5, 0.5),
    (RESNET20.format("smoothadv_pgd255"), 0.5, 0.5),
    (RESNET20.format("gaussian"), 0.5, 1.25),
)


@dataclass(frozen=True)
class Outcome:
    """Of one rule for one probability: chance to certify, mean votes."""

    certified: float
    votes: float


@numba.njit(nogil=True)
def walk(upper, lower, looks, p):
    """As sequential.walk, looked at where `looks` says: (P[reaches upper first], mean votes until a decision or the end).

    Masses below 1e-18 are dropped; nothing rests on these figures.
    """
    max_n = len(upper) - 1
    mass = np.zeros(max_n + 2)
    mass[0] = alive = 1.0
    low = high = 0
    certified = mean = 0.0
    for n in range(1, max_n + 1):
        mean += alive
        high += 1
        for k in range(high, low, -1):
            mass[k] = mass[k] * (1.0 - p) + mass[k - 1] * p
        mass[low] *= 1.0 - p
        while looks[n] and high >= low and high >= upper[n]:
            certified += mass[high]
            alive -= mass[high]
            high -= 1
        while low <= high and ((looks[n] and low <= lower[n]) or mass[low] < 1e-18):
            alive -= mass[low]
            low += 1
        while high >= low and mass[high] < 1e-18:
            alive -= mass[high]
            high -= 1
        for k in (low - 1, high + 1):  # emptied, so that nothing flows back from beyond the boundaries
            if 0 <= k <= max_n:
                mass[k] = 0.0
        if low > high or alive < 1e-12:
            break
    return certified, mean


def probabilities(path: pathlib.Path, sigma: float, every: int) -> np.ndarray:
    """The share of votes of the predicted class behind each published certificate (N = 100,000, alpha = 0.001)."""
    from scipy.stats import beta, norm

    results = read_results(path)
    chosen = np.array([int(index) % every == 0 for index in results.columns["idx"]])
    hits = np.arange(FIXED_N // 2, FIXED_N + 1)
    bound = beta.ppf(float(ALPHA), hits, FIXED_N - hits + 1)
    found = np.searchsorted(bound, norm.cdf(results.radius[chosen] / sigma)).clip(0, len(hits) - 1)
    p = np.minimum(hits[found], FIXED_N - 1) / FIXED_N
    return np.where(results.predict[chosen] < 0, UNKNOWN, p)


def grouped(p: np.ndarray, needed: float) -> tuple[np.ndarray, np.ndarray]:
    """Values and shares, with values merged that are close to each other and far from the one that matters."""
    away = np.abs(p - needed)
    step = np.select([away > 0.1, away > 0.02, away > 0.006], [0.02, 0.004, 0.001], 0.0003)
    values, counts = np.unique(np.round((p - needed) / step) * step + needed, return_counts=True)
    return values.clip(0.01, 0.9999), counts / counts.sum()


def steps(max_n: int) -> np.ndarray:
    """Where the package looks, as `SequentialTest.due` has it."""
    looks = np.zeros(max_n + 1, bool)
    never = np.full(max_n + 1, max_n + 2, np.int32)
    run = SequentialTest(StoppingTable(0.5, 0.5, ALPHA, ALPHA, max_n, never, np.full_like(never, -1), 0.0, 0.0))
    run.table.certify[max_n] = 0  # else every run is hopeless from the start
    while run.decision is Decision.CONTINUE:
        run.update(0, run.due)
        looks[run.n] = True
    return looks


def ours(table: StoppingTable) -> tuple[np.ndarray, np.ndarray]:
    """Both boundaries, the hopeless runs among those that end below."""
    left = table.max_n - np.arange(table.max_n + 1)
    return table.certify, np.maximum(table.give_up, table.certify[-1] - 1 - left)


def betting(p: float, max_n: int = BETTING_N) -> tuple[np.ndarray, np.ndarray]:
    """The boundaries of the published rule, by the closed form of Krichevsky and Trofimov's product of predictions."""
    from scipy.special import betaln

    def upper(p: float) -> np.ndarray:
        times = np.arange(max_n + 1)
        low, high = np.ceil(times * p).astype(np.int64) - 1, times + 1
        while np.any(high - low > 1):
            middle = (low + high) // 2
            wealth = betaln(middle + 0.5, times - middle + 0.5) - betaln(0.5, 0.5)
            wealth -= middle * log(p) + (times - middle) * log1p(-p)
            enough = (middle > low) & (wealth > -log(2 * ALPHA))
            high, low = np.where(enough, middle, high), np.where(enough, low, middle)
        return np.minimum.accumulate(high[::-1])[::-1]

    return upper(p), np.maximum.accumulate(np.arange(max_n + 1) - upper(1 - p))


def first(holds, low: int, high: int) -> int:
    """The first number in low .. high - 1 for which `holds`, high if there is none; from it on it holds for all."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def stages(needed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boundaries after each stage, and where they are: upper, lower, looks."""
    from scipy.stats import beta

    last, level = STAGES[-1], float(ALPHA) / len(STAGES)
    upper, lower, looks = np.full(last + 1, last + 2), np.full(last + 1, -1), np.zeros(last + 1, bool)
    for n in STAGES:
        upper[n] = first(lambda k, n=n: beta.ppf(level, k, n - k + 1) > needed, 1, n + 1)
        lower[n] = first(lambda k, n=n: beta.isf(level, k + 1, n - k) >= needed, 0, n) - 1
        looks[n] = True
    return upper, lower, looks


def fixed(p: np.ndarray, needed: float) -> list[Outcome]:
    """The classical plan: one look at the end."""
    from scipy.stats import beta, binom

    hits = first(lambda k: beta.ppf(float(ALPHA), k, FIXED_N - k + 1) >= needed, 1, FIXED_N + 1)
    return [Outcome(float(binom.sf(hits - 1, FIXED_N, q)), FIXED_N) for q in p]


def evaluate(boundaries, looks, p: np.ndarray) -> list[Outcome]:
    upper, lower = (np.ascontiguousarray(boundary, np.int64) for boundary in boundaries)
    looks = np.ones(len(upper), bool) if looks is None else looks
    return [Outcome(*walk(upper, lower, looks, float(q))) for q in p]


def rules(needed: float, p: np.ndarray) -> dict[str, list[Outcome]]:
    """All contenders."""
    tables = {(beta, n): cached_stopping_table(needed, ALPHA, beta, n) for beta, n in
              ((Fraction(1, 100), FIXED_N), (ALPHA, FIXED_N), (ALPHA, BETTING_N))}  # fmt: skip
    default, strict, longer = tables.values()
    return {
        "as it runs": evaluate(ours(default), steps(FIXED_N), p),
        "beta 0.001": evaluate(ours(strict), steps(FIXED_N), p),
        "a look at every vote": evaluate(ours(strict), None, p),
        "N = 131,100": evaluate(ours(longer), None, p),
        "betting": evaluate(betting(needed), None, p),
        "stages": evaluate(stages(needed)[:2], stages(needed)[2], p),
        "fixed plan": fixed(p, needed),
    }


def question(folder: pathlib.Path, every: int, questions=QUESTIONS) -> Report:
    from scipy.stats import norm

    report = Report("Stopping rules on the same images")
    rows, names = [], []
    for name, sigma, radius in questions:
        say(f"{name}, radius {radius}")
        needed = float(np.floor(norm.cdf(radius / sigma) * GRID) / GRID)
        p, shares = grouped(probabilities(folder / f"{name}.tsv", sigma, every), needed)
        cells, names = [f"{name}, r = {radius:g}"], []
        for rule, outcomes in rules(needed, p).items():
            names.append(rule)
            votes = sum(share * outcome.votes for share, outcome in zip(shares, outcomes, strict=True))
            certified = sum(share * outcome.certified for share, outcome in zip(shares, outcomes, strict=True))
            cells.append(f"{votes:,.0f} ({100 * certified:.2f} %)")
        rows.append(cells)
    report.table(["published certificates", *names], rows)
    report.text(
        f"Mean votes, and in brackets the share of images that are certified (right or wrong), exact, for every {every}th "
        "test image of published certificates and their predicted class. The first four columns are this package's rule: "
        "as it runs by default (beta 0.01, N = 100,000 at most, looked at in steps); the same with beta 0.001; that with a "
        "look at every vote; that with at most as many votes as the betting. Betting: Voracek (2024); stages: Horvath et "
        "al. (2022), both with error 0.001 in either direction. The class of an image on which the published certifier abstained is taken to have "
        f"probability {UNKNOWN}. Selection of the class takes further votes in every rule (100 here by default)."
    )
    return report


def largest(folder: pathlib.Path, every: int, questions=QUESTIONS, precisions=("0.01", "0.02", "0.05")) -> Report:
    """The whole curve: the adaptive run against the fixed plan on the same simulated votes, image by image."""
    report, rng = Report("The largest radius, at N = 100,000"), np.random.default_rng(1)
    rows, done = [], set()
    for name, sigma, _ in questions:
        if (name, sigma) in done:
            continue
        done.add((name, sigma))
        say(f"{name}, largest radius")
        plans = {d: plan_curve(sigma=str(sigma), dimension=3072, max_n=FIXED_N, precision=d, beta="0.01") for d in precisions}
        ends = [look.n for look in plans[precisions[0]].looks]
        outcomes: dict[str, list[tuple[int, float, float]]] = {d: [] for d in precisions}
        for p in probabilities(folder / f"{name}.tsv", sigma, every):
            parts = [int(rng.binomial(n, p)) for n in np.diff([0, *ends])]
            fixed = certificate_from_counts(sum(parts), FIXED_N, sigma=str(sigma), dimension=3072).radius
            for precision, plan in plans.items():
                run, coming = plan.start(), iter(parts)
                while run.due:
                    run.update(next(coming), run.due)
                outcomes[precision].append((run.n, fixed, fixed - plan.certificate(run).radius))
        for precision, found in outcomes.items():
            votes, radius, lost = np.array(found).T
            rows.append([f"{name}", precision, f"{votes.mean():,.0f}", f"{FIXED_N / votes.mean():.1f} x", f"{radius.mean():.3f}",
                         f"{lost.mean():.4f}", f"{lost.max():.4f}"])  # fmt: skip
    header = ["published certificates", "precision", "mean votes", "fewer", "mean radius, fixed plan", "lost on average", "most"]
    report.table(header, rows)
    report.text(
        f"Every {every}th test image; votes simulated with its published probability, the same for both plans. The precision "
        "is what the run expects more votes to add when it stops, not a bound on what they would have added."
    )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=20, help="every which image of the published files (default: 20)")
    parser.add_argument("--folder", type=pathlib.Path, default=SHARED / "reference_certificates")
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "STOPPING.md")
    options = parser.parse_args()
    parts = [question(options.folder, options.every), largest(options.folder, 5 * options.every)]
    page = "\n".join(["# Votes to decide, by rule\n\n`python bench/stopping.py` writes this page.\n", *(p.markdown() for p in parts)])
    options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
