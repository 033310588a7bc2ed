"""The nouns of the package: small frozen records that flow one way, from a model file to a certificate.

Nothing here computes. Arrays inside a record are read-only by convention and made so by their producers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ABSTAIN = -1  # the prediction of a smoothed classifier that cannot decide at the error level asked for


@dataclass(frozen=True)
class Tensor:
    """A named activation. `shape` leaves out the batch: (height, width, channels) or (features,).

    dtype is "int16" for the network's input (levels plus noise), "int8" for activations, "int32" for a class index.
    The real value of q is scale * (q - zero_point); `scale` is metadata for people, None where unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    zero_point: int = 0
    scale: float | None = None


@dataclass(frozen=True)
class Node:
    """One operator: attributes are integers or tuples of them, constants are int8/int32 arrays."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A whole integer network, nodes in execution order, exactly one input and one output.

    levels: lowest and highest integer a stored image may hold, (0, 255) for 8-bit images.
    unit:   how many levels make 1.0 in the literature's [0, 1] units, 255 for 8-bit images.
    facts:  free text about data, training, source and licence, for people.
    digest: SHA-256 of the content that decides the network's outputs (h5file.digest), hex.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    input: str
    output: str
    levels: tuple[int, int]
    unit: int
    classes: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.tensors[self.input].shape


@dataclass(frozen=True)
class Votes:
    """Integer counts per class of `n` noisy samples, `first` being the index of the first of them in the stream."""

    counts: np.ndarray
    n: int
    first: int
    stage: int


@dataclass(frozen=True)
class Certificate:
    """The outcome for one image. `g(x + delta) == prediction` for every integer delta with |delta|^2 <= budget.

    budget is an integer in squared levels, radius_levels and radius (in [0, 1] units) are rounded down; all three are
    0 when prediction is ABSTAIN. counts are the class counts of the estimation stage, selection those of the first.
    """

    prediction: int
    radius: float
    radius_levels: float
    budget: int
    p_lower: float
    top: int
    hits: int
    n: int
    n0: int
    alpha: float
    sigma: str
    law: str
    selection: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
