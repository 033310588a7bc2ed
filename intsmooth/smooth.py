"""Smooth: a smoothed classifier, in the few lines that users and students read first."""

import math

import numpy as np

from intsmooth.binomial import LARGEST_N
from intsmooth.certify import checked_alpha, checked_integer, prediction_from_counts, unestimated_certificate
from intsmooth.enclosure import exact_fraction
from intsmooth.engine import Engine
from intsmooth.errors import InputError, within_memory
from intsmooth.h5file import load
from intsmooth.noise.law import noise_table
from intsmooth.noise.stream import image_digest, new_seed, parse_seed, uniform_integer
from intsmooth.records import Certificate, Graph
from intsmooth.sampling import choose_plan
from intsmooth.shipped import find_model
from intsmooth.table_plan import plan_table
from intsmooth.vote import ESTIMATION, PREDICTION, SELECTION, count_votes

BATCH_SIZE = 4096
_INT16 = np.iinfo(np.int16)


class Smooth:
    """The smoothed classifier g(x) = argmax_c P[f(x + Z) = c] of an integer network f and integer noise Z.

    model:   a Graph, a path to a model file, or the name of a shipped model
    sigma:   standard deviation of the noise in [0, 1] units, exactly as written: 0.12 means 12/100
    law:     "rounded" (a Gaussian rounded to integers) or "discrete" (the discrete Gaussian)
    seed:    an integer, hexadecimal text or 32 bytes; by default fresh from the operating system; kept as `.seed`
    backend: "numba" or "numpy", with the same results; threads: of the numba backend, one per processor by default

    Guarantee. Let c and B be the prediction and the budget that `certify` returns at x, and c not ABSTAIN. With
    probability at least 1 - alpha over the noise it drew, g(x + delta) = c for every integer delta with
    sum(delta_i^2) <= B, in squared levels. This is about one image (for m images at once use alpha / m), and about g:
    it does not say that c is right. `docs/theory.md` has the proof.

    x is an array of integers in levels, (H, W, C), or (H, W) where C = 1. Results are a pure function of model, sigma,
    law, seed and x. Whatever is wrong with an argument is an InputError, too little memory a ResourceError.
    """

    @within_memory
    def __init__(self, model, sigma, *, law="rounded", seed=None, backend="numba", threads=None):
        self.graph = model if isinstance(model, Graph) else load(find_model(model))
        self.sigma, self.law = exact_fraction(sigma, "sigma"), law
        if self.sigma <= 0:
            raise InputError(f"sigma is {sigma}; it must be above 0, in [0, 1] units, such as 0.25")
        self.table = noise_table(self.sigma * self.graph.unit, law)
        lowest, highest = self.graph.levels[0] + self.table.first, self.graph.levels[1] + self.table.last
        if lowest < _INT16.min or highest > _INT16.max:
            raise InputError(f"levels plus noise reach {lowest} to {highest}, beyond 16 bits: use a smaller sigma")
        self.seed = new_seed() if seed is None else parse_seed(seed)
        self.engine = Engine(self.graph, backend, threads)
        self.classes_ = np.array(self.graph.classes)

    @within_memory
    def predict(self, x, n=100_000, alpha=0.001, batch_size=BATCH_SIZE) -> int:
        """The class that g predicts at x, as an index into `classes_`, or ABSTAIN (-1).

        With probability at least 1 - alpha the answer is g(x) or ABSTAIN (Cohen, Rosenfeld and Kolter, 2019, Predict).
        """
        image = self.check_image(x)
        check_samples(1, n, alpha, batch_size)
        return prediction_from_counts(self._counts(image, PREDICTION, 0, n, batch_size), alpha)

    @within_memory
    def certify(self, x, n0=100, n=None, alpha=0.001, batch_size=BATCH_SIZE, label=None, **mode) -> Certificate:
        """The prediction at x with its budget and radius, or ABSTAIN (-1) with radius 0: see the guarantee above.

        n0 samples select the class, n fresh ones (100,000) bound its probability (Cohen, Rosenfeld and Kolter, 2019,
        Certify). batch_size samples are counted at a time; it changes no result.

        label: the right class (an index into `classes_`), where only certified accuracy is asked for. Where the selection
        names another class, the image counts at no radius whatever the estimation says: it abstains without one.

        `mode`, all at the same alpha:

        target_radius=r               stop as soon as this radius is certified, or hopeless
        precision=d, max_n=N          the largest radius, but stop when more samples would add less than d
        bound="randomized"            or "two-class": another bound from the same n samples
        table=t                       a CertificateTable for n and alpha: `decide` with a radius

        `sampling.choose_plan` has the rest, `docs/sampling.md` says which to choose.
        """
        image = self.check_image(x)
        check_samples(n0, 1, alpha, batch_size)
        plan = self.plan(n=n, alpha=alpha, **mode)
        selection = self._counts(image, SELECTION, 0, n0, batch_size)
        top = int(np.argmax(selection))
        if label is not None and top != checked_integer(label, "label", 0):
            return unestimated_certificate(top, selection, alpha=alpha, **self._setting)
        uniform = {"uniform": self.uniform(image)} if plan.randomized else {}
        run, counts = self._estimate(image, plan, top, batch_size)
        return plan.certificate(run, top=top, selection=selection, counts=counts, **uniform)

    @within_memory
    def decide(self, x, table, n0=100, batch_size=BATCH_SIZE) -> tuple[int, int]:
        """(prediction, budget) at x by a CertificateTable: see the guarantee above. There is no number here but integers,
        from the image to the budget.
        """
        image = self.check_image(x)
        plan = plan_table(table, alpha=getattr(table, "alpha", None), **self._setting)
        check_samples(n0, 1, table.alpha, batch_size)
        top = int(np.argmax(self._counts(image, SELECTION, 0, n0, batch_size)))
        run, _ = self._estimate(image, plan, top, batch_size)
        return plan.decide(run, top)

    def plan(self, **how):
        """How `certify` samples when it gets these arguments: `sampling.choose_plan` for this model and noise."""
        return choose_plan(**self._setting, **how)

    @property
    def _setting(self) -> dict:
        """The theorem's setting."""
        dimension = math.prod(self.graph.input_shape)
        return {
            "sigma": self.sigma, "dimension": dimension, "law": self.law, "unit": self.graph.unit, "tv": self.table.tv,
        }  # fmt: skip

    def uniform(self, image: np.ndarray) -> int:
        """The integer in [0, 2^64) that randomizes the bound of an image, as `check_image` gives it: docs/noise.md."""
        return uniform_integer(self.seed, image_digest(image))

    def check_image(self, x) -> np.ndarray:
        """x as int16 levels of the model's input shape: the function `check_image` for this model."""
        return check_image(self.graph, x)

    def _estimate(self, image: np.ndarray, plan, top: int, batch_size: int) -> tuple:
        """A finished run of the plan for class `top`, and the votes of all classes."""
        run, counts = plan.start(), [0] * len(self.classes_)
        while run.due:
            votes = self._counts(image, ESTIMATION, run.n, run.due, batch_size)
            counts = [count + vote for count, vote in zip(counts, votes, strict=True)]
            run.update(votes[top], run.due)
        return run, counts

    def _counts(self, image: np.ndarray, stage: int, first: int, n: int, batch_size: int) -> list[int]:
        """All votes of a stage are asked for here; `tasks.Replay` answers with votes that others have counted."""
        return count_votes(self.engine, image, self.table, self.seed, stage, first, n, batch_size).counts.tolist()

    def with_threads(self, threads: int) -> "Smooth":
        """The same on another number of threads."""
        return _revive(self.graph, self.sigma, self.law, self.seed, self.engine.backend, threads)

    def __reduce__(self):
        return _revive, (self.graph, self.sigma, self.law, self.seed, self.engine.backend, self.engine.threads)


def check_image(graph: Graph, x) -> np.ndarray:
    """x as int16 levels of a model's input shape; InputError where it is not that already, but for the type."""
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise InputError(f"the image is not an array: {error}") from error
    if x.dtype.kind not in "iu":
        raise InputError(
            f"the image holds {x.dtype} values; integers in levels {graph.levels[0]} to "
            f"{graph.levels[1]} "
            "are required. The certificate is about the integers that are stored: rounding is for you to decide"
        )
    shape = graph.input_shape
    if x.shape != shape and (*x.shape, 1) != shape:
        raise InputError(f"the image has shape {x.shape}; the model needs {shape} (height, width, channels)")
    if x.min() < graph.levels[0] or x.max() > graph.levels[1]:
        raise InputError(
            f"the image holds levels {x.min()} to {x.max()}; the model needs "
            f"{graph.levels[0]} to {graph.levels[1]}: rescale the image"
        )
    return np.ascontiguousarray(x.reshape(shape), dtype=np.int16)


def check_samples(n0: int, n: int, alpha, batch_size: int) -> None:
    """InputError unless n0, n and batch_size are integers from 1 to 2^40 and 0 < alpha < 1/2."""
    for name, value in (("n0", n0), ("n", n), ("batch_size", batch_size)):
        checked_integer(value, name, 1, LARGEST_N)  # what the bounds can use; said before the votes, not after
    checked_alpha(alpha)


_REVIVED: dict[tuple, Smooth] = {}


def _revive(graph, sigma, law, seed, backend, threads) -> Smooth:
    """The Smooth that a worker process has planned already, or a new one: its tasks come with the model each time."""
    key = graph.digest, graph.levels, graph.unit, sigma, law, seed, backend, threads
    if key not in _REVIVED:
        if len(_REVIVED) >= 8:
            _REVIVED.clear()
        _REVIVED[key] = Smooth(graph, sigma, law=law, seed=seed, backend=backend, threads=threads)
    return _REVIVED[key]
