"""The command line as a user meets it: what it prints, what it writes, exit codes."""

import os
import sys

import numpy as np
import pytest
from small_runs import timeless

import intsmooth
from intsmooth import cli, h5file
from intsmooth.commands.options import radii_list
from intsmooth.graph import build_graph
from intsmooth.h5file import save

pytestmark = pytest.mark.usefixtures("folder")


def test_certify_from_nothing_to_summary_and_again(folder, run):
    command = ("certify", "model.h5", "--data", "data.npz", "--n", "500")
    code, out, err = run(*command)
    assert code == 0 and "expected time" in err and "8/8 images, 100 %" in err
    assert "sigma 0.25 = 4 levels" in out and "average certified radius" in out and "abstained on" in out
    assert "images/s" in out and "samples/s" in out and str(folder / "model-n500.tsv") in out
    content = (folder / "model-n500.tsv").read_bytes()
    code, again, err = run(*command)  # takes the seed from the file, and finds nothing left
    assert (
        code == 0
        and "8 images are in the results file already, 0 are left" in err
        and "nothing was left to do" in again
    )
    assert (folder / "model-n500.tsv").read_bytes() == content
    assert [line for line in out.splitlines() if " of 8" in line] == [
        line for line in again.splitlines() if " of 8" in line
    ]


def test_certify_selects_plots_and_writes_where_told(folder, run):
    pytest.importorskip("matplotlib")
    line = (
        "certify plain.h5 --data data.npz --every 20 --max 3 --sigma 0.5 --n0 20 --n 200 --alpha 0.01 --batch-size 64 "
        "--seed 7 --out a.tsv --plot a.svg --threads 1 --backend numpy --law discrete --radii 0,0.1"
    )
    code, out, _ = run(*line.split())
    assert code == 0 and (folder / "a.svg").read_bytes().startswith(b"<?xml") and "plot: a.svg" in out
    rows = [line.split("\t") for line in (folder / "a.tsv").read_text().splitlines()]
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [row["idx"] for row in table] == ["0", "20", "40"]
    assert {(r["sigma"], r["law"], r["n0"], r["n"], r["alpha"]) for r in table} == {
        ("0.5", "discrete", "20", "200", "0.01")
    }
    assert int(table[0]["seed"], 16) == 7
    assert [line.split()[0] for line in out.splitlines() if " of 3" in line and "abstained" not in line] == [
        "0.000",
        "0.100",
    ]


def test_a_plot_that_cannot_be_drawn_is_missed_before_the_work(folder, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = run("certify", "model.h5", "--data", "data.npz", "--n", "100", "--plot", "a.png")
    assert code == 7 and "intsmooth[plot]" in err and not (folder / "model-n100.tsv").exists()


def test_certify_digits_needs_nothing_else(folder, run):
    code, out, err = run("certify", "digits", "--max", "4", "--n", "300", "--seed", "1")
    assert code == 0 and "digits-test: 4 images of 8 x 8 x 1, levels 0 to 16" in out and "sigma 0.25 = 4 levels" in out
    assert (folder / "digits-s0.25-n300.tsv").read_bytes().count(b"\n") == 5


def test_both_backends_write_the_same_rows(folder, run):
    for backend in ("numba", "numpy"):
        arguments = ("--data", "data.npz", "--n", "100", "--seed", "1", "--backend", backend, "--out", f"{backend}.tsv")
        assert run("certify", "model.h5", *arguments)[0] == 0
    assert timeless(folder / "numba.tsv") == timeless(folder / "numpy.tsv")


def test_predict_prints_a_table(folder, run):
    code, out, _ = run(
        "predict", "model.h5", "--data", "data.npz", "--index", "70", "10", "--n", "300", "--seed", "1"
    )
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and lines[0] == ["idx", "label", "predict", "class"]
    assert [(line[0], line[1]) for line in lines[1:]] == [("70", "2"), ("10", "1")]
    smooth = intsmooth.Smooth("model.h5", 0.25, seed=1)
    dataset = intsmooth.open_dataset("data.npz").pick([70, 10])
    for line, item in zip(lines[1:], dataset, strict=True):
        found = smooth.predict(item.image, n=300)
        assert line[2:] == [str(found), "abstain" if found == intsmooth.ABSTAIN else f"class {found}"]


def test_info_adds_up(run):
    code, out, _ = run("info", "model.h5")
    assert code == 0 and "8 x 8 x 1, levels 0 to 16, 16 levels = 1.0" in out and "sigma     0.25" in out
    assert "conv2d_1            conv2d            8 x 8 x 8           80          4,608" in out  # 8*9 + 8; 64*8*9
    assert "parameters     1,446" in out  # 80 + (12*9*8 + 12) + (10*48 + 10)
    assert "multiply-adds  8,544" in out  # 4608 + 4*12*9*8 + 480
    assert "overflow       proved impossible" in out


def test_info_works_without_numba(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "intsmooth.plan", None)
    code, out, _ = run("info", "model.h5")
    assert code == 0 and "known where numba is installed" in out and "multiply-adds  8,544" in out


def test_info_cuts_long_facts_unless_asked(folder, run):
    graph = intsmooth.load("model.h5")
    parts = {name: getattr(graph, name) for name in ("nodes", "input", "output", "levels", "unit", "classes")}
    facts = {"long": "x" * 300, "recipe": "first line\nsecond line", "short": "said"}
    save(build_graph(tensors=graph.tensors.values(), facts=facts, **parts), folder / "facts.h5")
    _, out, _ = run("info", "facts.h5")
    assert "x" * 101 not in out and "second line" not in out and out.count("(--facts shows all)") == 2 and "said" in out
    _, out, _ = run("info", "facts.h5", "--facts")
    assert "x" * 300 in out and "second line" in out and "--facts" not in out


def test_curve_compares_files_ours_and_locuslabs(folder, run):
    header = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
    (folder / "theirs.tsv").write_text(header + "0\t3\t3\t0.5\t1\t1.5\n20\t7\t-1\t0.0\t0\t1.5\n")
    run("certify", "model.h5", "--data", "data.npz", "--n", "100", "--out", "ours.tsv")
    code, out, _ = run("curve", "ours.tsv", "theirs.tsv", "--radii", "0,0.5")
    assert code == 0 and [line.split()[-1] for line in out.splitlines()[:3]] == ["theirs", "50.0", "50.0"]


@pytest.mark.parametrize("command", [*cli.COMMANDS, None])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"] if command else ["--help"])
    out = capsys.readouterr().out
    assert (
        stop.value.code == 0
        and f"intsmooth {command or 'certify'} " in out
        and ("examples:" in out or "first steps:" in out)
    )


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("certify nothing.h5", 2, "no shipped model of this name"),
        ("certify model.h5", 2, "give --data"),
        ("certify plain.h5 --data data.npz", 2, "give --sigma"),
        ("certify model.h5 --data data.npz --sigma 0", 2, "sigma is 0"),
        ("certify model.h5 --data data.npz --sigma -1", 2, "sigma is -1"),
        ("certify model.h5 --data data.npz --sigma nan", 2, "sigma is 'nan'"),
        ("certify model.h5 --data data.npz --alpha 0.5", 2, "alpha is 0.5"),
        ("certify model.h5 --data data.npz --alpha 0", 2, "alpha is 0"),
        ("certify model.h5 --data data.npz --n 0", 2, "n is 0"),
        ("certify model.h5 --data data.npz --n0 -1", 2, "n0 is -1"),
        ("certify model.h5 --data data.npz --threads 0", 2, "threads is 0"),
        ("certify model.h5 --data data.npz --batch-size 0", 2, "batch_size is 0"),
        ("certify model.h5 --data data.npz --seed zz", 2, "seed is 'zz'"),
        ("certify model.h5 --data data.npz --every 0", 2, "every is 0"),
        ("certify model.h5 --data data.npz --max 0", 2, "number of images is 0"),
        ("certify model.h5 --data missing.npz", 2, "no file or folder 'missing.npz'"),
        ("certify model.h5 --data floats.npz", 4, "integers of shape"),
        ("certify model.h5 --data wide.npz --n 5", 2, "shape (8, 9)"),
        ("certify model.h5 --data bright.npz --n 5", 2, "the model needs 0 to 16"),
        ("certify model.h5 --data labels.npz", 4, "labels 0..10; the model knows the classes 0..9"),
        ("certify model.h5 --data unlabelled.npz", 4, "has no labels"),
        ("certify truncated.h5 --data data.npz", 3, "truncated.h5"),
        ("certify data.npz --data data.npz", 3, "data.npz"),
        ("certify model.h5 --data data.npz --out none/a.tsv", 6, "cannot write"),
        ("certify model.h5 --data data.npz --out foreign.tsv", 5, "no results file of this version"),
        ("predict model.h5 --data data.npz --index 5", 2, "has no image 5"),
        ("predict model.h5 --data data.npz --n 0", 2, "n is 0"),
        ("info truncated.h5", 3, "truncated.h5"),
        ("curve none.tsv", 5, "none.tsv"),
        ("curve foreign.tsv", 5, "no results file"),
        ("curve foreign.tsv --plot foreign.tsv", 2, "would be overwritten"),
        ("certify model.h5 --data data.npz --out a.svg --plot a.svg", 2, "would be overwritten"),
        ("certify model.h5 --data data.npz --plot none/a.svg", 6, "there is no folder"),
        ("certify model.h5 --data data.npz --plot a.txt", 2, "a name that ends in one of"),
        ("certify model.h5 --data data.npz --radii=-1", 2, "at least 0"),
        ("certify model.h5 --data data.npz --dask foo", 2, "HOST:PORT"),
        ("table --n 20 --model model.h5 -o model.h5", 2, "would be overwritten"),
        ("table --n 20 --model model.h5 --dimension 0 -o t.h5", 2, "dimension is 0"),
        ("table --n 20 --model model.h5 --unit 0 -o t.h5", 2, "unit is 0"),
        ("compare model.h5 numpy --data wide.npz", 2, "shape (8, 9)"),
        ("compare model.h5 numpy --data bright.npz", 2, "the model needs 0 to 16"),
        ("audit model.h5 --data bright.npz", 2, "the model needs 0 to 16"),
        (f"info {300 * 'x'}", 6, "too long"),
    ],
)
def test_bad_input_is_one_clear_line_and_an_exit_code(folder, run, line, code, message):
    images = np.load("data.npz")["images"]
    np.savez("floats.npz", images=images / 16, labels=np.zeros(8, int))
    np.savez("wide.npz", images=np.zeros((2, 8, 9), np.uint8), labels=[0, 1])
    np.savez("bright.npz", images=np.full((2, 8, 8), 200, np.uint8), labels=[0, 1])
    np.savez("labels.npz", images=images, labels=[0, 10] * 4)
    np.savez("unlabelled.npz", images=images)
    (folder / "truncated.h5").write_bytes((folder / "model.h5").read_bytes()[:-1000])
    (folder / "foreign.tsv").write_text("my thesis\n")
    found, out, err = run(*line.split())
    last = err.splitlines()[-1]
    assert found == code and last.startswith("intsmooth: error: ") and message in last
    assert "Traceback" not in out + err and (folder / "foreign.tsv").read_text() == "my thesis\n"
    assert not list(folder.glob("[at].*")) and h5file.load("model.h5").unit == 16


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_cannot_be_written(folder, run):
    (folder / "locked").mkdir(mode=0o500)
    code, _, err = run("certify", "model.h5", "--data", "data.npz", "--out", "locked/a.tsv")
    assert code == 6 and "cannot write" in err


@pytest.mark.parametrize("line", ["certify", "nonsense", "certify model.h5 --n many", "curve a --radii 0,x"])
def test_argparse_refuses_with_code_2(capsys, line):
    with pytest.raises(SystemExit) as stop:
        cli.main(line.split())
    assert stop.value.code == 2 and "usage:" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip() == f"intsmooth {intsmooth.__version__}"


def test_radii_lists():
    assert radii_list("0,0.25,1") == (0.0, 0.25, 1.0)
