"""Integer-only certificates: the table equals the certifier, entry by entry, and its file is read as hostile."""

import os
import sys
from fractions import Fraction

import h5py
import numpy as np
import pytest

from intsmooth.binomial import tail_bounds
from intsmooth.certificate_table import (
    LARGEST_BUDGET,
    CertificateTable,
    build_table,
    load_table,
    rederive,
    save_table,
)
from intsmooth.certify import certificate_from_counts
from intsmooth.enclosure import GRID, decimal_below
from intsmooth.errors import FormatError, InputError, ResourceError
from intsmooth.records import ABSTAIN
from intsmooth.theorem import ancestor

SETTINGS = [
    {"n": 300, "sigma": "0.25", "dimension": 64, "unit": 16},
    {"n": 300, "sigma": "0.25", "dimension": 64, "unit": 16, "law": "discrete", "tau": "1.25"},
    {"n": 150, "sigma": "0.25", "dimension": 3072, "tv": Fraction(1, 10**15), "alpha": "0.01", "law": "discrete"},
    {"n": 9, "sigma": "0.25", "dimension": 64, "unit": 16},
]


def build(setting: dict) -> CertificateTable:
    return build_table(setting["n"], **{name: value for name, value in setting.items() if name != "n"})


@pytest.fixture(scope="module")
def table() -> CertificateTable:
    return build(SETTINGS[0])


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_entry_is_the_certifiers_and_can_be_rederived(setting):
    table = build(setting)
    options = {name: value for name, value in setting.items() if name != "n"}
    assert len(table.budgets) == table.n + 1 and np.all(np.diff(table.budgets) >= 0)
    assert table.budgets.dtype == np.int32 and not table.budgets.flags.writeable
    for hits in range(table.n + 1):
        certificate = certificate_from_counts(hits, table.n, top=5, **options)
        assert table.decide(np.int64(hits), 5) == (certificate.prediction, certificate.budget)
        assert rederive(table, hits) == (ABSTAIN if certificate.prediction == ABSTAIN else certificate.budget)
    assert table.decide(0, 5) == (ABSTAIN, 0)
    assert type(table.decide(table.n, 5)[1]) is int


def test_entries_are_where_the_probability_that_a_budget_needs_says():
    """The other way round: budget B is certified from the first k at which P[Bin(n, p_B) >= k] <= alpha."""
    n = 2000
    table = build_table(n, sigma="0.25", dimension=64, unit=16)
    theorem = ancestor("rounded", Fraction(4), 64)
    alpha = decimal_below(Fraction(1, 1000))
    for budget in (1, 2, 5, 10, 30, 60):
        first = int(np.searchsorted(table.budgets, budget))
        # No float has a square root's exact value here: the smallest radius with this budget is bracketed by 1e-13.
        for radius, k in ((budget**0.5 * (1 + 1e-13), first), (budget**0.5 * (1 - 1e-13), first - 1)):
            numerator = int(theorem.probability(Fraction(radius)) * GRID)
            assert (tail_bounds(k, n, numerator)[1] <= alpha) == (k == first)


def test_look_ups_use_integers_only(table):
    for hits in (-1, 301, 3.0, True, "3", None):
        with pytest.raises(InputError, match="hits is"):
            table.decide(hits, 0)


def test_digests_depend_on_everything(table):
    changes = [{"alpha": "0.01"}, {"sigma": "0.3"}, {"tv": "1e-12"}, {"dimension": 63}, {"law": "discrete"}]
    digests = {table.digest, build(SETTINGS[0]).digest, *(build(SETTINGS[0] | change).digest for change in changes)}
    assert len(digests) == 1 + len(changes)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_saved_table_comes_back_the_same(setting, tmp_path):
    table, path = build(setting), tmp_path / "table.h5"
    save_table(table, path)
    first = path.read_bytes()
    loaded = load_table(path)
    assert loaded.facts() == table.facts() and loaded.digest == table.digest
    assert np.array_equal(loaded.budgets, table.budgets) and not loaded.budgets.flags.writeable
    assert [rederive(loaded, k) for k in (0, table.n // 2, table.n)] == table.budgets[[0, table.n // 2, -1]].tolist()
    save_table(loaded, path)
    assert path.read_bytes() == first and os.listdir(tmp_path) == ["table.h5"]
    with h5py.File(path) as file:  # an ordinary file for everybody else
        assert file["budgets"][-1] == table.budgets[-1] and file.attrs["digest"].decode() == table.digest


def test_loading_needs_no_h5py(table, tmp_path, monkeypatch):
    save_table(table, tmp_path / "t.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert load_table(tmp_path / "t.h5").digest == table.digest


def test_every_flipped_bit_and_every_truncation_is_noticed(table, tmp_path):
    path = tmp_path / "t.h5"
    save_table(table, path)
    good = path.read_bytes()
    rng = np.random.default_rng(2)
    for position in rng.integers(0, len(good), 400):
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert load_table(path).digest == table.digest  # a byte that nothing is read from
        except FormatError as error:
            assert "t.h5" in str(error)
    for length in [0, 8, *range(20, len(good), 97)]:
        path.write_bytes(good[:length])
        with pytest.raises(FormatError):
            load_table(path)


def rewrite(table: CertificateTable, path, **changes) -> None:
    """A well-formed file whose digest is right, with some fields replaced."""
    arguments = {name: changes.pop(name, getattr(table, name)) for name in table.__dataclass_fields__}
    forged = CertificateTable(**arguments)
    save_table(forged, path)
    if changes:
        with h5py.File(path, "r+", libver=("earliest", "v108")) as file:
            for name, value in changes.items():
                del file.attrs[name]
                if value is not None:
                    file.attrs[name] = value


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"budgets": np.arange(301, dtype=np.int32)[::-1]}, "decrease somewhere"),
        ({"budgets": np.full(301, -2, np.int32)}, "below -1"),
        ({"budgets": np.zeros(300, np.int32)}, "n \\+ 1 = 301"),
        ({"budgets": np.zeros((301, 1), np.int32)}, "n \\+ 1 = 301"),
        ({"n": 0}, "n is 0"),
        ({"n": 10**12}, "n is 1000000000000"),
        ({"alpha": Fraction(2, 3)}, "alpha is 2/3"),
        ({"sigma": Fraction(-1)}, "sigma is -1"),
        ({"law": "uniform"}, "law is 'uniform'"),
        ({"dimension": -3}, "dimension is -3"),
        ({"unit": 0}, "unit is 0"),
        ({"tv": Fraction(3)}, "tv is 3"),
        ({"tau": Fraction(1)}, "leave it out"),
        ({"digest": np.bytes_(b"0" * 64)}, "damaged or changed"),
        ({"digest": None}, "required are"),
        ({"version": np.int64(2)}, "version 2"),
        ({"version": np.float64(1)}, "required are"),
        ({"format": np.bytes_(b"something else")}, "something else"),
    ],
)
def test_well_formed_files_with_wrong_content_are_refused(changes, message, table, tmp_path):
    rewrite(table, tmp_path / "t.h5", **changes)
    with pytest.raises(FormatError, match=message):
        load_table(tmp_path / "t.h5")


def test_files_that_are_something_else(table, tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load_table(tmp_path / "none.h5")
    with pytest.raises(InputError, match="there is no file"):
        load_table(tmp_path)
    (tmp_path / "text.h5").write_text("k budget\n")
    with h5py.File(tmp_path / "new.h5", "w", libver="latest") as file:
        file["budgets"] = np.zeros(301, np.int32)
    for name in ("text.h5", "new.h5"):
        with pytest.raises(FormatError, match=name):
            load_table(tmp_path / name)


def test_tables_that_cannot_be_built_or_written(table, tmp_path):
    with pytest.raises(ResourceError, match="check the folder"):
        save_table(table, tmp_path / "no" / "such" / "folder.h5")
    with pytest.raises(InputError, match="32 bits"):
        build_table(10_000, sigma=100, dimension=3)
    assert build_table(20, sigma=100, dimension=3).budgets[-1] < LARGEST_BUDGET
    for wrong in ({"n": 0}, {"n": 10**8}, {"sigma": 0}, {"alpha": 0.5}, {"law": "none"}, {"dimension": 0}):
        with pytest.raises(InputError):
            build(SETTINGS[0] | wrong)
