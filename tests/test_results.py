"""The results file: what is in a row, who may read it, and that nothing on disk is ever lost."""

import csv
import datetime
import json
import multiprocessing
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ENVIRONMENT, SHARED

from intsmooth.errors import ResourceError, ResultsError
from intsmooth.records import Certificate
from intsmooth.results import COLUMNS, LOCUSLAB, SETTINGS, read_results, result_row
from intsmooth.results_writer import ResultsWriter

RUN = {
    "n0": "100",
    "alpha": "0.001",
    "sigma": "0.25",
    "law": "rounded",
    "seed": "0x" + "00" * 31 + "07",
    "plan": '{"n": 1000}',
    "model": "0x" + "ab" * 32,
    "unit": "16",
}


def certificate(prediction=3, radius=0.2786207, hits=900):
    levels = 16 * radius
    return Certificate(
        prediction=prediction,
        radius=radius,
        radius_levels=levels,
        budget=int(levels**2),
        p_lower=0.867464018025748,
        top=3,
        hits=hits,
        n=1000,
        n0=100,
        alpha=0.001,
        sigma="0.25",
        law="rounded",
        selection=(2, 98),
        counts=(1000 - hits, hits),
    )


def row(index, label=3, seconds=1.5, **changes):
    return result_row(index, label, bytes([index]) * 32, certificate(**changes), seconds, RUN, "0.1.0")


def write(path, rows, settings=RUN):
    with ResultsWriter(path, settings) as writer:
        for one in rows:
            writer.append(one)
    return path.read_bytes()


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


def test_every_torn_end_is_cut_and_the_run_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # thousands of times; another test is about it
    path, rows = tmp_path / "a.tsv", [row(0), row(1), row(2)]
    whole = write(path, rows)
    ends = {i + d for i, byte in enumerate(whole) if byte == 10 for d in (-1, 0, 1, 2)}
    for length in sorted(ends & {*range(len(whole) + 1)} | {*range(0, len(whole), 11)}):
        path.write_bytes(whole[:length])
        kept = max(whole[:length].count(b"\n") - 1, 0)
        with ResultsWriter(path, RUN) as writer:
            assert [r["idx"] for r in writer.rows] == ["0", "1", "2"][:kept]
            for missing in rows[kept:]:
                writer.append(missing)
        assert path.read_bytes() == whole


def test_a_torn_last_row_does_not_hinder_readers(tmp_path):
    whole = write(tmp_path / "a.tsv", [row(0), row(1)])
    (tmp_path / "a.tsv").write_bytes(whole[:-40])
    assert len(read_results(tmp_path / "a.tsv")) in (1, 2)
    (tmp_path / "a.tsv").write_bytes(whole[:-200])
    assert len(read_results(tmp_path / "a.tsv")) == 1


@pytest.mark.parametrize("name", SETTINGS)
def test_a_file_of_another_run_is_refused_and_left_alone(tmp_path, name):
    whole = write(tmp_path / "a.tsv", [row(0)]) + b"torn"
    (tmp_path / "a.tsv").write_bytes(whole)
    with pytest.raises(ResultsError, match=f"belongs to another run: {name} is .* there, other here"):
        ResultsWriter(tmp_path / "a.tsv", RUN | {name: "other"})
    assert (tmp_path / "a.tsv").read_bytes() == whole


@pytest.mark.parametrize("content", [b"my thesis\n", b"idx\tlabel\tpredict\tradius\tcorrect\ttime\n", b"x"])
def test_a_foreign_file_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(ResultsError, match="no results file of this version"):
        ResultsWriter(tmp_path / "a.tsv", RUN)
    assert (tmp_path / "a.tsv").read_bytes() == content


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


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="needs /dev/stdout")
def test_a_place_that_is_no_file_is_refused():
    script = "from test_results import *; ResultsWriter('/dev/stdout', RUN)"
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert "ResourceError: cannot write /dev/stdout: not a regular file" in done.stderr and not done.stdout


def test_values_cannot_break_the_table(tmp_path):
    with ResultsWriter(tmp_path / "a.tsv", RUN) as writer:
        for value in ("a\tb", "a\nb"):
            with pytest.raises(ResultsError, match="a tab or a line feed"):
                writer.append(row(0) | {"extra": value})
        assert writer.rows == []


def test_two_writers_cannot_have_the_same_file(tmp_path):
    with ResultsWriter(tmp_path / "a.tsv", RUN) as first:
        with pytest.raises(ResultsError, match="is being written by another run"):
            ResultsWriter(tmp_path / "a.tsv", RUN)
        script = "import sys; from test_results import *; ResultsWriter(sys.argv[1], RUN)"
        other = subprocess.run(
            [sys.executable, "-c", script, str(first.path)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "is being written by another run" in other.stderr
    ResultsWriter(tmp_path / "a.tsv", RUN).close()  # the lock went with the first writer


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_run(tmp_path):
    script = textwrap.dedent("""
        import os, sys, time
        from test_results import ResultsWriter, RUN, row
        writer = ResultsWriter(sys.argv[1], RUN)
        writer.append(row(0))
        child = os.fork()
        if child == 0:
            time.sleep(60)
        time.sleep(0.3)  # the child closes the file before it does anything else
        print(child, flush=True)
        os.kill(os.getpid(), 9)
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "a.tsv")]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as run:
        child = int(run.stdout.readline())
        assert run.wait() == -9
        try:
            with ResultsWriter(tmp_path / "a.tsv", RUN) as writer:
                assert len(writer.rows) == 1
        finally:
            os.kill(child, 9)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
def test_a_full_disk_loses_nothing(tmp_path):
    script = textwrap.dedent("""
        import resource, signal, sys
        from test_results import ResultsWriter, RUN, row
        from intsmooth.errors import ResourceError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with ResultsWriter(sys.argv[1], RUN) as writer:
            try:
                for i in range(100):
                    writer.append(row(i))
            except ResourceError as error:
                print(len(writer.rows), error)
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "a.tsv")]
    out = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    count = int(out.split()[0])
    assert 1 <= count < 10 and "all earlier rows are safe" in out
    assert (tmp_path / "a.tsv").read_bytes() == write(tmp_path / "b.tsv", [row(i) for i in range(count)])


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(ResourceError, match="give another file with --out"):
        ResultsWriter(tmp_path / "missing" / "a.tsv", RUN)
    with pytest.raises(ResourceError, match="give another file with --out"):
        ResultsWriter(tmp_path, RUN)


def test_rows_are_durable_one_by_one(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with ResultsWriter(tmp_path / "a.tsv", RUN) as writer:
        header = synced[0]
        writer.append(row(0))
        writer.append(row(1))
    assert header == len("\t".join(COLUMNS)) + 1 and synced[-1] > synced[-2] > header


def test_times_are_readable_as_locuslabs(tmp_path):
    text = row(0, seconds=75.25)["time"]
    assert text == str(datetime.timedelta(seconds=75.25)) == "0:01:15.250000"
