"""The audit of certificates by table: what it finds, and that it finds floats and wrong entries where they are planted."""

import dataclasses
import math
import types
from decimal import Decimal

import models
import numpy as np
import pytest

from intsmooth.audit.certificate import check_certificate, float_operations, is_float, watched
from intsmooth.certificate_table import CertificateTable, build_table
from intsmooth.smooth import Smooth
from intsmooth.table_plan import TablePlan


@pytest.fixture(scope="module")
def smooth():
    return Smooth(models.tiny_conv(np.random.default_rng(1)), "0.25", seed=5, threads=1)


@pytest.fixture(scope="module")
def image(smooth):
    return smooth.check_image(np.random.default_rng(2).integers(0, 17, (8, 8)))


@pytest.fixture(scope="module")
def table(smooth):
    return build_table(60, sigma="0.25", dimension=64, unit=16, tv=smooth.table.tv)


def planted(function):
    """The function as if a module of the package had it; byte code of other packages is none of the audit's business."""
    names = {**function.__globals__, "__name__": "intsmooth.planted"}
    return types.FunctionType(function.__code__, names, function.__name__, None, function.__closure__)


def test_it_passes_and_says_what_ran(smooth, image, table):
    finding = check_certificate(smooth, image, table)
    assert finding.passed and finding.problems == []
    for name in ("smooth.Smooth.decide", "table_plan.TablePlan.decide", "vote.count_votes"):
        assert any(function.endswith(name.rpartition(".")[2]) for function in finding.details["functions"])
    assert finding.details["digest"] == table.digest
    assert check_certificate(smooth, image).passed  # with a table of its own


def test_a_table_for_something_else_fails(smooth, image):
    other = build_table(60, sigma="0.5", dimension=64, unit=16, tv=smooth.table.tv)
    finding = check_certificate(smooth, image, other)
    assert finding.passed is False and "sigma is 0.5 in the table, 0.25 here" in finding.problems[0]


def test_a_wrong_entry_is_found(smooth, image, table):
    budgets = table.budgets.copy()
    budgets[60] += 1
    finding = check_certificate(smooth, image, dataclasses.replace(table, budgets=budgets))
    assert any("entry 60" in problem for problem in finding.problems)
    budgets = table.budgets.copy()
    budgets[: smooth.certify(image, table=table).hits + 1] += 1
    finding = check_certificate(smooth, image, dataclasses.replace(table, budgets=budgets))
    assert any("the chain of bounds" in problem for problem in finding.problems)


def test_a_float_on_the_way_is_found(smooth, image, table, monkeypatch):
    right = CertificateTable.decide

    def detour(self, hits, top):
        share = hits / self.n
        return right(self, int(share * self.n + 0.5), top)

    monkeypatch.setattr(CertificateTable, "decide", planted(detour))
    finding = check_certificate(smooth, image, table)
    problems = "\n".join(finding.problems)
    assert not finding.passed and "share" in problems and "true division" in problems and "constant 0.5" in problems


def test_a_float_that_was_not_reached_is_found_in_the_byte_code(smooth, image, table, monkeypatch):
    right = TablePlan.decide

    def decide(self, run, top):
        return (top, int(1.5 * run.hits)) if run.due else right(self, run, top)

    monkeypatch.setattr(TablePlan, "decide", planted(decide))
    finding = check_certificate(smooth, image, table)
    assert any("constant 1.5" in problem for problem in finding.problems)


def test_what_counts_as_a_float():
    for value in (1.0, 1j, np.float32(1), np.zeros(2), Decimal(1), [1, (2.0,)], {"a": 0.5}, np.zeros(1, np.complex64)):
        assert is_float(value)
    for value in (1, True, "1.0", b"1", None, np.int64(1), np.zeros(2, np.uint8), [1, (2,)], {"a": 5}):
        assert not is_float(value)
    assert float_operations((lambda x: x / 2).__code__) and not float_operations((lambda x: x // 2).__code__)


def test_the_watch_gives_back_what_it_watches():
    assert watched(lambda: 7)[0] == 7
    with pytest.raises(KeyError):
        watched(lambda: {}["nothing"])
    assert any("its result" in place for place in watched(lambda: 0.5)[1])


@pytest.mark.parametrize(
    ("detour", "found"),
    [(lambda hits: int(math.sqrt(hits**2)), "the name sqrt"), (lambda hits: int(float(hits)), "the name float"),
     (lambda hits: int(hits * (hits + 1) ** -(hits + 1)) + hits, "a power"), (lambda hits: int(np.mean([hits])), "the name mean")],
)  # fmt: skip
def test_a_float_that_is_never_kept_is_found(smooth, image, table, monkeypatch, detour, found):
    right, hidden = CertificateTable.decide, planted(detour)
    monkeypatch.setattr(CertificateTable, "decide", lambda self, hits, top: right(self, hidden(hits), top))
    finding = check_certificate(smooth, image, table)
    assert not finding.passed and found in "\n".join(finding.problems)
