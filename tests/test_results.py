"""The results file: what is in a row, and who may read it."""

import csv
import datetime
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED
from result_rows import RUN, certificate, row, write

from intsmooth.errors import ResultsError
from intsmooth.results import COLUMNS, LOCUSLAB, SETTINGS, read_results, result_row
from intsmooth.results_writer import ResultsWriter


def test_locuslabs_columns_come_first_and_the_rest_rederives_the_radius(tmp_path):
    write(tmp_path / "a.tsv", [row(0), row(20, label=4), row(40, prediction=-1, radius=0.0)])
    with open(tmp_path / "a.tsv", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert tuple(table[0])[:6] == LOCUSLAB == ("idx", "label", "predict", "radius", "correct", "time")
    assert [(r["idx"], r["predict"], r["correct"]) for r in table] == [
        ("0", "3", "1"),
        ("20", "3", "0"),
        ("40", "-1", "0"),
    ]
    assert table[0]["time"] == "0:00:01.500000" and table[0]["image"] == "0x" + "00" * 32
    assert json.loads(table[0]["selection"]) == [2, 98] and json.loads(table[0]["counts"]) == [100, 900]
    assert {name: table[2][name] for name in SETTINGS} == RUN and table[2]["version"] == "0.1.0"


def test_an_abstention_is_wrong_even_where_the_label_is_minus_one():
    assert row(0, label=-1, prediction=-1, radius=0.0)["correct"] == "0"


@given(st.floats(0, 500), st.floats(0, 1))
def test_no_printed_radius_or_probability_is_above_the_certified_one(radius, p):
    text = result_row(0, 3, b"\0" * 32, certificate(radius=radius), 0.0, RUN, "v")
    assert float(text["radius"]) <= radius < float(text["radius"]) + 1.1e-6
    assert float(text["radius_levels"]) <= 16 * radius


def locuslabs_accuracy(path, radius):
    """What locuslab's analyze.py computes from a file, with the csv module in the place of pandas."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return sum(int(r["correct"]) & (float(r["radius"]) >= radius) for r in rows) / len(rows)


def test_locuslabs_script_and_pandas_read_the_file(tmp_path):
    write(tmp_path / "a.tsv", [row(0), row(20, label=4), row(40, radius=0.5), row(60, prediction=-1, radius=0.0)])
    assert locuslabs_accuracy(tmp_path / "a.tsv", 0.0) == 0.5 and locuslabs_accuracy(tmp_path / "a.tsv", 0.3) == 0.25
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(tmp_path / "a.tsv", sep="\t")
    assert list(frame["predict"]) == [3, 3, 3, -1] and frame["radius"].dtype == float
    assert frame["seed"][0] == RUN["seed"] and frame["image"][0] == "0x" + "00" * 32  # text, not a number


def test_reading_gives_numbers(tmp_path):
    write(tmp_path / "a.tsv", [row(0), row(20, label=4, radius=0.7512345678), row(40, prediction=-1, radius=0.0)])
    results = read_results(tmp_path / "a.tsv")
    assert results.radius.tolist() == [0.27862, 0.751234, 0.0] and results.correct.tolist() == [True, False, False]
    assert results.predict.tolist() == [3, 3, -1] and results.unit == 16 and len(results.first(2)) == 2


@pytest.mark.skipif(
    not (SHARED / "reference_certificates").is_dir(), reason="needs INTSMOOTH_SHARED/reference_certificates"
)
def test_locuslabs_files_are_read():
    results = read_results(SHARED / "reference_certificates" / "cohen_resnet110_sigma_0.50.tsv")
    assert len(results) == 500 and results.unit is None
    assert locuslabs_accuracy(SHARED / "reference_certificates" / "cohen_resnet110_sigma_0.50.tsv", 0.5) == np.mean(
        results.correct & (results.radius >= 0.5)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the columns idx"),
        (b"a\tb\n1\t2\n", "lacks the columns idx"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\t2\t3\n4\t5\t6\t0.1\t0\n", "line 2: 3 columns, 5 are required"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\t2\t2\tnan\t1\n", "radius is nan, not 0 to"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\t2\t2\t-0.5\t1\n", "radius is -0.5, not 0 to"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\t2\t2\t0.5\tyes\n", "not the numbers of a result"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\tcat\t5\t0.5\t0\n", "not the numbers of a result"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\t3\t5\t0.5\t7\n", "correct is 7, but label is 3 and predict 5"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\t-1\t-1\t0.0\t1\n", "correct is 1, but"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\n1\t3\t-1\t0.5\t0\n", "line 2: radius is 0.5, but predict -1"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_are_no_results(tmp_path, content, message):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(ResultsError, match=message):
        read_results(tmp_path / "a.tsv")


def test_a_missing_file_is_a_results_error(tmp_path):
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(tmp_path / "none.tsv")


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    lines = write(tmp_path / "a.tsv", [row(0), row(1)]).splitlines(keepends=True)
    (tmp_path / "a.tsv").write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(ResultsError, match="line 2: 1 columns"):
        ResultsWriter(tmp_path / "a.tsv", RUN)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("predict", "-1", "correct is 1, but label is 3 and predict -1"),
        ("radius", "0.15x", "not the numbers of a result"),
        ("extra", '{"bou', "not the numbers of a result"),
        ("extra", "[]", "a JSON object"),
        ("n", "-1", "a count"),
    ],
)
def test_a_row_that_cannot_be_a_result_is_named_before_any_work(tmp_path, column, value, message):
    lines = write(tmp_path / "a.tsv", [row(0), row(1)]).splitlines(keepends=True)
    values = lines[2].decode().split("\t")
    values[COLUMNS.index(column)] = value
    damaged = lines[0] + lines[1] + "\t".join(values).encode()
    (tmp_path / "a.tsv").write_bytes(damaged)
    for read in (lambda path: ResultsWriter(path, RUN), read_results):
        with pytest.raises(ResultsError, match=f"line 3: .*{message}"):
            read(tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == damaged


def test_times_are_readable_as_locuslabs(tmp_path):
    text = row(0, seconds=75.25)["time"]
    assert text == str(datetime.timedelta(seconds=75.25)) == "0:01:15.250000"
