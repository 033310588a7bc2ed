"""The command line as a user meets it: outputs, exit codes, Ctrl-C, what is installed and what is imported."""

import configparser
import os
import pathlib
import signal
import subprocess
import sys
import time

import models
import numpy as np
import pytest

import intsmooth
from intsmooth import cli, h5file
from intsmooth.commands.options import radii_list
from intsmooth.errors import DataError, InputError
from intsmooth.graph import build_graph
from intsmooth.h5file import save
from intsmooth.progress import Progress
from intsmooth.shipped import find_model, shipped_models, weights_folder

ROOT = pathlib.Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder with a model that knows its noise, one that does not, and a data set."""
    monkeypatch.chdir(tmp_path)
    graph = models.tiny_conv(np.random.default_rng(1))
    save(graph, tmp_path / "plain.h5")
    parts = {name: getattr(graph, name) for name in ("nodes", "input", "output", "levels", "unit", "classes")}
    save(build_graph(tensors=graph.tensors.values(), facts={"sigma": "0.25"}, **parts), tmp_path / "model.h5")
    images = np.random.default_rng(2).integers(0, 17, (8, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=[0, 1, 2, 2, 2, 2, 2, 2], index=np.arange(8) * 10)
    return tmp_path


def run(capsys, *arguments):
    code = cli.main([*arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_certify_from_nothing_to_summary_and_again(folder, capsys):
    command = ("certify", "model.h5", "--data", "data.npz", "--n", "500")
    code, out, err = run(capsys, *command)
    assert code == 0 and "expected time" in err and "8/8 images, 100 %" in err
    assert "sigma 0.25 = 4 levels" in out and "average certified radius" in out and "abstained on" in out
    assert "images/s" in out and "samples/s" in out and str(folder / "model-n500.tsv") in out
    content = (folder / "model-n500.tsv").read_bytes()
    code, again, err = run(capsys, *command)  # takes the seed from the file, and finds nothing left
    assert (
        code == 0
        and "8 images are in the results file already, 0 are left" in err
        and "nothing was left to do" in again
    )
    assert (folder / "model-n500.tsv").read_bytes() == content
    assert [line for line in out.splitlines() if " of 8" in line] == [
        line for line in again.splitlines() if " of 8" in line
    ]


def test_certify_selects_plots_and_writes_where_told(folder, capsys):
    pytest.importorskip("matplotlib")
    line = (
        "certify plain.h5 --data data.npz --every 20 --max 3 --sigma 0.5 --n0 20 --n 200 --alpha 0.01 --batch-size 64 "
        "--seed 7 --out a.tsv --plot a.svg --threads 1 --backend numpy --law discrete --radii 0,0.1"
    )
    code, out, _ = run(capsys, *line.split())
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


def test_a_plot_that_cannot_be_drawn_is_missed_before_the_work(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = run(capsys, "certify", "model.h5", "--data", "data.npz", "--n", "100", "--plot", "a.png")
    assert code == 7 and "intsmooth[plot]" in err and not (folder / "model-n100.tsv").exists()


def test_certify_digits_needs_nothing_else(folder, capsys):
    code, out, err = run(capsys, "certify", "digits", "--max", "4", "--n", "300", "--seed", "1")
    assert code == 0 and "digits-test: 4 images of 8 x 8 x 1, levels 0 to 16" in out and "sigma 0.25 = 4 levels" in out
    assert (folder / "digits-s0.25-n300.tsv").read_bytes().count(b"\n") == 5


def test_both_backends_write_the_same_rows(folder, capsys):
    for backend in ("numba", "numpy"):
        arguments = ("--data", "data.npz", "--n", "100", "--seed", "1", "--backend", backend, "--out", f"{backend}.tsv")
        assert run(capsys, "certify", "model.h5", *arguments)[0] == 0
    numba, numpy = (
        [line.split("\t")[:5] + line.split("\t")[6:] for line in (folder / f"{name}.tsv").read_text().splitlines()]
        for name in ("numba", "numpy")
    )
    assert numba == numpy


def test_predict_prints_a_table(folder, capsys):
    code, out, _ = run(
        capsys, "predict", "model.h5", "--data", "data.npz", "--index", "70", "10", "--n", "300", "--seed", "1"
    )
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and lines[0] == ["idx", "label", "predict", "class"]
    assert [(line[0], line[1]) for line in lines[1:]] == [("70", "2"), ("10", "1")]
    smooth = intsmooth.Smooth("model.h5", 0.25, seed=1)
    dataset = intsmooth.open_dataset("data.npz").pick([70, 10])
    for line, item in zip(lines[1:], dataset, strict=True):
        found = smooth.predict(item.image, n=300)
        assert line[2:] == [str(found), "abstain" if found == intsmooth.ABSTAIN else f"class {found}"]


def test_info_adds_up(capsys):
    code, out, _ = run(capsys, "info", "model.h5")
    assert code == 0 and "8 x 8 x 1, levels 0 to 16, 16 levels = 1.0" in out and "sigma     0.25" in out
    assert "conv2d_1            conv2d            8 x 8 x 8           80          4,608" in out  # 8*9 + 8; 64*8*9
    assert "parameters     1,446" in out  # 80 + (12*9*8 + 12) + (10*48 + 10)
    assert "multiply-adds  8,544" in out  # 4608 + 4*12*9*8 + 480
    assert "overflow       proved impossible" in out


def test_info_works_without_numba(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "intsmooth.plan", None)
    code, out, _ = run(capsys, "info", "model.h5")
    assert code == 0 and "known where numba is installed" in out and "multiply-adds  8,544" in out


def test_info_cuts_long_facts_unless_asked(folder, capsys):
    graph = intsmooth.load("model.h5")
    parts = {name: getattr(graph, name) for name in ("nodes", "input", "output", "levels", "unit", "classes")}
    facts = {"long": "x" * 300, "recipe": "first line\nsecond line", "short": "said"}
    save(build_graph(tensors=graph.tensors.values(), facts=facts, **parts), folder / "facts.h5")
    _, out, _ = run(capsys, "info", "facts.h5")
    assert "x" * 101 not in out and "second line" not in out and out.count("(--facts shows all)") == 2 and "said" in out
    _, out, _ = run(capsys, "info", "facts.h5", "--facts")
    assert "x" * 300 in out and "second line" in out and "--facts" not in out


def test_curve_compares_files_ours_and_locuslabs(folder, capsys):
    header = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
    (folder / "theirs.tsv").write_text(header + "0\t3\t3\t0.5\t1\t1.5\n20\t7\t-1\t0.0\t0\t1.5\n")
    run(capsys, "certify", "model.h5", "--data", "data.npz", "--n", "100", "--out", "ours.tsv")
    code, out, _ = run(capsys, "curve", "ours.tsv", "theirs.tsv", "--radii", "0,0.5")
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
def test_bad_input_is_one_clear_line_and_an_exit_code(folder, capsys, line, code, message):
    images = np.load("data.npz")["images"]
    np.savez("floats.npz", images=images / 16, labels=np.zeros(8, int))
    np.savez("wide.npz", images=np.zeros((2, 8, 9), np.uint8), labels=[0, 1])
    np.savez("bright.npz", images=np.full((2, 8, 8), 200, np.uint8), labels=[0, 1])
    np.savez("labels.npz", images=images, labels=[0, 10] * 4)
    np.savez("unlabelled.npz", images=images)
    (folder / "truncated.h5").write_bytes((folder / "model.h5").read_bytes()[:-1000])
    (folder / "foreign.tsv").write_text("my thesis\n")
    found, out, err = run(capsys, *line.split())
    last = err.splitlines()[-1]
    assert found == code and last.startswith("intsmooth: error: ") and message in last
    assert "Traceback" not in out + err and (folder / "foreign.tsv").read_text() == "my thesis\n"
    assert not list(folder.glob("[at].*")) and h5file.load("model.h5").unit == 16


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_cannot_be_written(folder, capsys):
    (folder / "locked").mkdir(mode=0o500)
    code, _, err = run(capsys, "certify", "model.h5", "--data", "data.npz", "--out", "locked/a.tsv")
    assert code == 6 and "cannot write" in err


@pytest.mark.parametrize("line", ["certify", "nonsense", "certify model.h5 --n many", "curve a --radii 0,x"])
def test_argparse_refuses_with_code_2(capsys, line):
    with pytest.raises(SystemExit) as stop:
        cli.main(line.split())
    assert stop.value.code == 2 and "usage:" in capsys.readouterr().err


def test_ctrl_c_leaves_a_file_that_the_same_command_continues(folder, capsys):
    command = [
        sys.executable,
        "-m",
        "intsmooth",
        "certify",
        "model.h5",
        "--data",
        "data.npz",
        "--n",
        "100000",
        "--out",
        "a.tsv",
    ]
    command += ["--seed", "5", "--threads", "1"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "a.tsv").exists() or (folder / "a.tsv").read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        err = process.communicate()[1]
    assert process.returncode == 130 and "the same command goes on there" in err and "Traceback" not in err
    rows = (folder / "a.tsv").read_bytes()
    assert rows.endswith(b"\n") and 3 <= rows.count(b"\n") < 9
    assert cli.main(command[3:]) == 0
    assert (folder / "a.tsv").read_bytes().startswith(rows) and (folder / "a.tsv").read_bytes().count(b"\n") == 9


def test_a_closed_pipe_is_no_traceback(folder):
    shell = f"{sys.executable} -m intsmooth predict model.h5 --data data.npz --n 20000 | head -n 1"
    done = subprocess.run(["bash", "-c", shell], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("idx") and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("arguments", "unbuffered"), [("info model.h5", "1"), ("info model.h5", ""), ("--version", ""), ("certify --help", "")]
)
def test_output_that_nobody_can_take_is_one_line_or_none(folder, arguments, unbuffered):
    environment = ENVIRONMENT | {"PYTHONUNBUFFERED": unbuffered}
    for place, code in (("| true", 1), ("> /dev/full", 6)):
        shell = f"(sleep 0.2; {sys.executable} -m intsmooth {arguments}; echo rc=$? >&2) {place}"
        err = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True, check=False).stderr
        *lines, last = err.splitlines()
        assert last == f"rc={code}" and len(lines) == (code == 6) and "Traceback" not in err


def test_a_closed_standard_error_stops_nothing(folder):
    shell = f"{sys.executable} -m intsmooth certify model.h5 --data data.npz --n 100 --seed 1 --out a.tsv 2>&-"
    done = subprocess.run(["bash", "-c", shell], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "average certified radius" in done.stdout and "images/s," not in done.stdout.split("\n")[0]
    assert (folder / "a.tsv").read_bytes().count(b"\n") == 9


def test_names_that_the_terminals_encoding_lacks_are_printed_somehow(folder):
    (folder / "model.h5").rename(folder / "müdel 世界.h5")
    command = [sys.executable, "-m", "intsmooth", "info", "müdel 世界.h5"]
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and rb"m\xfcdel \u4e16\u754c.h5" in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip() == f"intsmooth {intsmooth.__version__}"


# What is imported and what is installed.


def test_importing_intsmooth_imports_nothing_heavy():
    script = (
        "import sys, intsmooth, intsmooth.cli; intsmooth.cli.build_parser(); "
        "print([m for m in ('numba', 'scipy', 'h5py', 'torch', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there():
    for name in intsmooth.__all__:
        assert getattr(intsmooth, name) is not None and name in dir(intsmooth)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = intsmooth.nonsense


def test_every_package_folder_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "intsmooth").rglob("__init__.py")}
    assert listed == found | {"intsmooth.weights"}
    assert "intsmooth.weights = weights" in setup["options"]["package_dir"]


def test_models_are_found_by_name_and_by_beginning(folder, monkeypatch):
    (folder / "w").mkdir()
    for name in ("a-s0.25.h5", "b-s0.25.h5", "b-s0.5.h5", "a_test.h5", "FORMAT.md"):
        (folder / "w" / name).touch()
    monkeypatch.setattr("intsmooth.shipped.weights_folder", lambda: folder / "w")
    assert list(shipped_models()) == ["a-s0.25", "b-s0.25", "b-s0.5"]
    assert find_model("a") == find_model("a-s0.25") == folder / "w" / "a-s0.25.h5"
    assert find_model("model.h5") == pathlib.Path("model.h5")
    with pytest.raises(InputError, match="may be any of b-s0.25, b-s0.5"):
        find_model("b")
    with pytest.raises(InputError, match="shipped are: a-s0.25, b-s0.25, b-s0.5"):
        find_model("c")


def test_an_installation_without_weights_says_so(folder, monkeypatch):
    assert (weights_folder() / "FORMAT.md").is_file()
    monkeypatch.setattr("intsmooth.shipped._PACKAGE", folder / "intsmooth")
    with pytest.raises(DataError, match="reinstall intsmooth"):
        weights_folder()


# Progress.


class Screen:
    def __init__(self, terminal):
        self.text, self.terminal = "", terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_in_a_log_adds_few_lines():
    now, screen = [0.0], Screen(terminal=False)
    progress = Progress(100, done=20, stream=screen, clock=lambda: now[0])
    for done in range(21, 101):
        now[0] += 1.0
        progress.advance(done, "note")
    progress.close()
    lines = screen.text.splitlines()
    assert len(lines) == 8 and lines[0] == "30/100 images, 30 %, 1.0 images/s, 0:01:10 left, note"
    assert lines[-1].startswith("100/100 images, 100 %") and "0.0 s left" in lines[-1]


def test_progress_on_a_terminal_rewrites_one_line(monkeypatch):
    now, screen = [0.0], Screen(terminal=True)
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress(10, "MB", stream=screen, scale=0.1, clock=lambda: now[0])
    for done in range(1, 11):
        now[0] += 0.06
        progress.advance(done, "a long note that a narrow terminal has no room for")
    progress.close()
    assert screen.text.count("\r") == 6 and screen.text.count("\n") == 1 and screen.text.endswith("\n")
    assert all(len(line) <= 39 for line in screen.text.rstrip("\n").split("\r"))


def test_radii_lists():
    assert radii_list("0,0.25,1") == (0.0, 0.25, 1.0)
