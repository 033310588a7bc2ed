"""Certificates by table look-up: the map from hits to budget as integers, for devices without floating point.

For a fixed plan (n votes, alpha, sigma, law, dimension) a certificate depends on one integer, the number of hits.
`build_table` computes all n + 1 answers once, each by the chain of `certify` and so rounded down; at run time,
`CertificateTable.decide` is one look-up. The file is a small .h5 with a checksum; `rederive` computes single entries
anew for those who check rather than trust.
"""

import hashlib
import io
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from intsmooth.atomic import write_whole
from intsmooth.binomial import clopper_pearson_lower
from intsmooth.certify import (
    Number,
    budget_of_radius,
    checked_alpha,
    checked_ancestor,
    checked_integer,
)
from intsmooth.enclosure import exact_fraction, exact_text, float_below
from intsmooth.errors import FormatError, InputError, ResourceError
from intsmooth.hdf5 import Group, read_tree
from intsmooth.records import ABSTAIN
from intsmooth.theorem import Ancestor

FORMAT = "intsmooth certificate table"
VERSION = 1
LARGEST_N = 10**7
LARGEST_BUDGET = 2**31 - 1
_LARGEST_FILE = 4 * LARGEST_N + 2**20
_TEXTS = ("format", "alpha", "sigma", "law", "tv", "tau", "digest")
_INTEGERS = ("version", "n", "dimension", "unit")


@dataclass(frozen=True, eq=False)
class CertificateTable:
    """budgets[hits] is the certified budget in squared levels for `hits` of n votes, ABSTAIN (-1) where nothing is
    certified.

    budgets: int32[n + 1], read-only, non-decreasing. The other fields say what it was computed from, exactly: sigma in
    [0,1] units, tau in levels (0 for the law "rounded"), tv per coordinate.
    """

    budgets: np.ndarray
    n: int
    alpha: Fraction
    sigma: Fraction
    law: str
    dimension: int
    unit: int
    tv: Fraction
    tau: Fraction

    @property
    def digest(self) -> str:
        """SHA-256 over all fields and all entries, hex."""
        text = "\n".join([FORMAT, str(VERSION), *(f"{name}={value}" for name, value in sorted(self.facts().items()))])
        return hashlib.sha256(text.encode() + b"\n" + self.budgets.astype("<i4").tobytes()).hexdigest()

    def facts(self) -> dict[str, str | int]:
        """What the table was computed from, as text and integers that read back exactly."""
        return {
            "n": self.n,
            "alpha": str(self.alpha),
            "sigma": exact_text(self.sigma),
            "law": self.law,
            "dimension": self.dimension,
            "unit": self.unit,
            "tv": str(self.tv),
            "tau": exact_text(self.tau),
        }

    def decide(self, hits: int, top: int) -> tuple[int, int]:
        """(prediction, budget) for `hits` of n votes for class `top`, by integers alone; (ABSTAIN, 0) if not certified.

        g(x + delta) = prediction for every integer delta with |delta|^2 <= budget, with probability 1 - alpha.
        """
        budget = int(self.budgets[checked_integer(hits, "hits", 0, self.n)])
        return (ABSTAIN, 0) if budget == ABSTAIN else (top, budget)


def build_table(
    n: int,
    *,
    sigma: Number,
    dimension: int,
    alpha: Number = 0.001,
    law: str = "rounded",
    unit: int = 255,
    tv: Number = 0,
    tau: Number | None = None,
) -> CertificateTable:
    """Compute the table for n votes; arguments as in `certify.certificate_from_counts`, of which each entry is the
    budget.

    Entries do not decrease, so stretches whose ends agree are filled without computing what lies between: seconds for
    n = 10,000, minutes for n = 100,000 and a large sigma. Raises InputError for arguments out of their domain.
    """
    n = checked_integer(n, "n", 1, LARGEST_N)
    level = checked_alpha(alpha)
    model = checked_ancestor(sigma, law, dimension, unit, tv, tau)
    largest = _entry(n, n, level, model)
    if largest > LARGEST_BUDGET:
        raise InputError(f"budgets reach {largest}, beyond the 32 bits of a table; use a smaller sigma")
    budgets = np.empty(n + 1, np.int32)
    budgets[0], budgets[n] = _entry(0, n, level, model), largest
    stretches = [(0, n)]
    while stretches:
        low, high = stretches.pop()
        if budgets[low] == budgets[high]:
            budgets[low:high] = budgets[low]
        elif high - low > 1:
            middle = (low + high) // 2
            budgets[middle] = _entry(middle, n, level, model)
            stretches += [(low, middle), (middle, high)]
    budgets.flags.writeable = False
    return CertificateTable(
        budgets, n, level, exact_fraction(sigma, "sigma"), law, model.dimension, int(unit), model.tv, model.tau
    )


def rederive(table: CertificateTable, hits: int) -> int:
    """One entry computed anew from the fields of the table: what budgets[hits] has to be."""
    tau = table.tau if table.tau else None
    model = checked_ancestor(table.sigma, table.law, table.dimension, table.unit, table.tv, tau)
    return _entry(checked_integer(hits, "hits", 0, table.n), table.n, table.alpha, model)


def _entry(hits: int, n: int, alpha: Fraction, model: Ancestor) -> int:
    radius = float_below(model.radius(clopper_pearson_lower(hits, n, alpha)))
    return budget_of_radius(radius) if radius > 0 else ABSTAIN


def save_table(table: CertificateTable, path: str | os.PathLike[str]) -> None:
    """Write a table as .h5, the same bytes for the same table, complete under its name or not at all. Needs h5py.

    Raises ResourceError where the file cannot be written; an older file of that name is then untouched.
    """
    import h5py

    memory = io.BytesIO()
    # The oldest encoding of HDF5, which every version of the library reads, and hdf5.py too.
    with h5py.File(memory, "w", libver=("earliest", "v108")) as file:
        head = {"format": FORMAT, "version": VERSION, **table.facts(), "digest": table.digest}
        for name, value in head.items():
            file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else np.int64(value)
        file.create_dataset("budgets", data=table.budgets.astype("<i4"), track_times=False)
    target = Path(path)
    try:
        write_whole(target, memory.getvalue())
    except OSError as error:
        raise ResourceError(
            f"{target}: the table cannot be written ({error.strerror or error}); check the folder and its free space"
        ) from None


def load_table(path: str | os.PathLike[str]) -> CertificateTable:
    """Read a table and check everything but the mathematics, for which there is `rederive`. h5py is not needed.

    Raises InputError if there is no such file, FormatError if it cannot be read or is not a well-formed table whose
    content has the digest that it states. Time and memory are bounded by the file's size, at most 41 MB.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}; write one with save_table or `intsmooth table`")
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise FormatError(f"larger than {_LARGEST_FILE} bytes")
        return _decode(read_tree(data))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}); give a certificate table") from None
    except (FormatError, InputError) as error:
        raise FormatError(f"{path}: no certificate table of version {VERSION}: {error}. Build it again") from None


def _decode(root: Group) -> CertificateTable:
    facts = root.attributes
    found = {name: type(value).__name__ for name, value in facts.items()}
    required = {**dict.fromkeys(_TEXTS, "str"), **dict.fromkeys(_INTEGERS, "int")}
    if found != required or root.groups or set(root.arrays) != {"budgets"}:
        raise FormatError(
            f"it has attributes {found} and members {sorted([*root.groups, *root.arrays])}; "
            f"required are {required} and 'budgets'"
        )
    if (facts["format"], facts["version"]) != (FORMAT, VERSION):
        raise FormatError(f"its format is {facts['format']!r}, version {facts['version']}; required: {FORMAT!r}")
    n = checked_integer(facts["n"], "n", 1, LARGEST_N)
    numbers = {name: exact_fraction(facts[name], name) for name in ("sigma", "tv", "tau")}
    alpha = checked_alpha(facts["alpha"])
    tau = numbers["tau"] or None
    checked_ancestor(numbers["sigma"], facts["law"], facts["dimension"], facts["unit"], numbers["tv"], tau)
    budgets = root.arrays["budgets"]
    if budgets.dtype != np.dtype("<i4") or budgets.shape != (n + 1,):
        raise FormatError(f"the budgets are {budgets.dtype} of shape {budgets.shape}; required: int32, n + 1 = {n + 1}")
    if budgets[0] < ABSTAIN or np.any(budgets[1:] < budgets[:-1]):
        raise FormatError("the budgets decrease somewhere, or fall below -1")
    table = CertificateTable(
        budgets, n, alpha, law=facts["law"], dimension=facts["dimension"], unit=facts["unit"], **numbers
    )
    if table.digest != facts["digest"]:
        raise FormatError(f"the content's digest is {table.digest}, the file states another: it was damaged or changed")
    return table
