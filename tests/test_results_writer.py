"""Writing results: one run per file, no row ever lost or torn, whatever ends the run."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest
from places import ENVIRONMENT
from result_rows import RUN, row, write

from intsmooth.errors import ResourceError, ResultsError
from intsmooth.results import COLUMNS, SETTINGS, read_results
from intsmooth.results_writer import ResultsWriter


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


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="needs /dev/stdout")
def test_a_place_that_is_no_file_is_refused():
    script = "from result_rows import *; ResultsWriter('/dev/stdout', RUN)"
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
        script = "import sys; from result_rows import *; ResultsWriter(sys.argv[1], RUN)"
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
        from result_rows import ResultsWriter, RUN, row
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
        from result_rows import ResultsWriter, RUN, row
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
