"""The command line's ways of sampling: what it says before, during and after, its files, and its table command."""

import io
import json

import h5py
import pytest

from intsmooth.certificate_table import load_table
from intsmooth.commands.watch import Watch, expectation
from intsmooth.progress import Progress
from intsmooth.results import read_results

DATA = ("--data", "data.npz", "--seed", "3")
pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("INTSMOOTH_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "stopping-cache"))


def plan_of(path) -> dict:
    (plan,) = set(read_results(path).columns["plan"])
    return json.loads(plan)


def test_a_target_radius(folder, run):
    command = ("certify", "model.h5", *DATA, "--target-radius", "0.1", "--max-n", "500", "--beta", "0.05")
    code, out, err = run(*command)
    assert code == 0 and "at most 500 to certify radius 0.1, which needs a probability above" in out
    assert "expected time between" in err and "108 to 600 samples per image" in err
    assert "8/8 images" in err and " per image, " in err and "right " in err
    assert "samples per image, selection included; " in out and "abstained on" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith(" of 8")] == ["0.100"]
    path = folder / "model-r0.1.tsv"
    assert plan_of(path) == {"target_radius": "0.1", "max_n": 500, "beta": "0.05"}
    results = read_results(path)
    assert set(results.columns["radius"]) <= {"0.000000", "0.100000"}
    counted = {json.loads(extra)["decision"] for extra in results.columns["extra"]}
    names = {"certify": "certified", "give up": "given up", "undecided": "undecided"}
    assert all(names[decision] in out for decision in counted)
    content = path.read_bytes()
    code, _, err = run(*command)
    assert code == 0 and "8 images are in the results file already" in err and path.read_bytes() == content
    code, _, err = run(*command[:-1], "0.01", "--out", str(path))
    assert code == 5 and "plan is" in err


@pytest.mark.parametrize(("radius", "name", "shown"), [("1/30", "r1over30", "0.033333"), ("0.0123456789", "r0.0123456789", "0.012345")])
def test_a_target_with_many_decimals_counts_at_what_the_file_says(folder, run, radius, name, shown):
    code, out, _ = run("certify", "model.h5", *DATA, "--target-radius", radius, "--max-n", "500")
    results = read_results(folder / f"model-{name}.tsv")
    right = int(results.correct.sum())
    assert code == 0 and right > 0 and set(results.columns["radius"]) <= {"0.000000", shown}
    assert [line.split()[::5][0:1] + line.split()[-3:] for line in out.splitlines() if line.endswith(" of 8")] == [
        [shown, f"{right}", "of", "8"]
    ]


def test_the_largest_radius(folder, run):
    code, out, err = run("certify", "model.h5", *DATA, "--precision", "0.05", "--max-n", "800", "--n0", "10")
    assert code == 0 and "at most 800 to certify the largest radius, until more would add less than 0.05" in out
    assert "110 to 810 samples per image" in err
    assert plan_of(folder / "model-curve.tsv") == {"precision": "0.05", "max_n": 800, "beta": "0.01"}
    code, out, _ = run("curve", "model-curve.tsv")
    assert code == 0 and "ACR" in out
    code, out, _ = run("certify", "model.h5", *DATA, "--largest-radius", "0.1", "--max-n", "800", "--out", "b.tsv")
    assert code == 0 and "until radius 0.1 is reached" in out


@pytest.mark.parametrize("bound", ["randomized", "two-class"])
def test_other_bounds(folder, run, bound):
    code, out, err = run("certify", "model.h5", *DATA, "--n", "60", "--bound", bound)
    assert code == 0 and f"60 to certify it by the {bound} bound" in out and "between" not in err
    assert plan_of(folder / f"model-n60-{bound}.tsv") == {"n": 60, "bound": bound}


def test_a_table_from_its_making_to_its_use(folder, run):
    code, out, err = run("table", "--n", "80", "--model", "model.h5", "-o", "table.h5")
    table = load_table("table.h5")
    assert code == 0 and table.digest in out and "computing 81 entries" in err
    assert (table.n, str(table.alpha), table.dimension, table.unit, table.law) == (80, "1/1000", 64, 16, "rounded")
    code, out, _ = run("table", "--check", "table.h5")
    assert code == 0 and "81 of 81 entries derived again, 0 differ" in out
    code, out, _ = run("certify", "model.h5", *DATA, "--table", "table.h5")
    assert code == 0 and f"80 to certify it by table {table.digest[:16]}" in out
    assert run("certify", "model.h5", *DATA, "--n", "80")[0] == 0
    by_table, by_chain = read_results("model-n80-table.tsv"), read_results("model-n80.tsv")
    for column in ("idx", "label", "predict", "correct", "budget", "hits", "counts", "selection"):
        assert by_table.columns[column] == by_chain.columns[column]
    assert plan_of("model-n80-table.tsv") == {"n": 80, "table": "0x" + table.digest}
    code, _, err = run("certify", "model.h5", *DATA, "--table", "table.h5", "--alpha", "0.01")
    assert code == 2 and "alpha is 0.001 in the table, 0.01 here" in err
    code, _, err = run("certify", "model.h5", *DATA, "--table", "table.h5", "--sigma", "0.5", "--out", "c.tsv")
    assert code == 2 and "sigma is 0.25 in the table, 0.5 here" in err


def test_a_changed_table_is_noticed(folder, run):
    run("table", "--n", "40", "--sigma", "0.25", "--dimension", "64", "--unit", "16", "-o", "table.h5")
    with h5py.File("table.h5", "r+") as file:
        budgets = file["budgets"][:]
        budgets[-1] += 1
        file["budgets"][:] = budgets
    code, _, err = run("table", "--check", "table.h5")
    assert code == 3 and "damaged or changed" in err
    from intsmooth.certificate_table import CertificateTable, build_table, save_table

    good = build_table(40, sigma="0.25", dimension=64, unit=16)
    facts = {name: getattr(good, name) for name in ("n", "alpha", "sigma", "law", "dimension", "unit", "tv", "tau")}
    save_table(CertificateTable(budgets, **facts), "forged.h5")  # with a digest that fits
    code, out, _ = run("table", "--check", "forged.h5")
    assert code == 1 and f"entry 40 is {budgets[-1]}, derived again it is {budgets[-1] - 1}" in out
    code, out, _ = run("table", "--check", "forged.h5", "--entries", "3")
    assert code == 1 and "3 of 41 entries derived again, 1 differ" in out


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("certify model.h5 --data data.npz --target-radius 0.5 --n 100", 2, "n cannot be combined with target_radius"),
        ("certify model.h5 --data data.npz --target-radius far", 2, "radius is 'far'"),
        ("certify model.h5 --data data.npz --target-radius 0.1 --beta 0.6", 2, "beta is 0.6"),
        ("certify model.h5 --data data.npz --precision 0.1 --bound randomized", 2, "bound cannot be combined"),
        ("certify model.h5 --data data.npz --max-n 0", 2, "max_n is 0"),
        ("certify model.h5 --data data.npz --table none.h5", 2, "there is no file none.h5"),
        ("certify model.h5 --data data.npz --table data.npz", 3, "no certificate table"),
        ("table", 2, "give the file to write with -o"),
        ("table -o t.h5", 2, "give --sigma"),
        ("table -o t.h5 --sigma 0", 2, "sigma is 0"),
        ("table -o t.h5 --sigma 0.25 --n 0", 2, "n is 0"),
        ("table -o t.h5 --sigma 0.25 --alpha 1", 2, "alpha is 1"),
        ("table -o t.h5 --sigma 0.25 --dimension 0", 2, "dimension is 0"),
        ("table -o none/t.h5 --sigma 0.25", 6, "there is no folder"),
        ("table --check data.npz", 3, "no certificate table"),
        ("table -o t.h5 --model nothing", 2, "no shipped model of this name"),
    ],
)
def test_errors(run, line, code, message):
    assert run(*line.split())[::2] == (code, run(*line.split())[2])
    assert message in run(*line.split())[2]


def test_the_expected_time_is_a_range_where_runs_may_stop():
    assert expectation((1100, 1100), 100, 1000.0) == "expected time 0:01:50, at 1,000 samples/s"
    text = expectation((108, 10_100), 100, 1000.0)
    assert "between 10.8 s and 0:16:50" in text and "108 to 10,100 samples per image" in text


def test_the_note_counts_what_is_decided():
    class Everything:
        def __len__(self):
            return 4

    watch = Watch(None, Everything(), (108, 1100), 100)
    watch.progress, watch.begin = Progress(4, stream=io.StringIO()), 0.0
    for decision, n, correct in (("certify", 40, "1"), ("certify", 60, "0"), ("give up", 8, "0")):
        watch.row({"n": str(n), "correct": correct, "extra": json.dumps({"decision": decision})})
    note = watch.note()
    assert "136 +- 25 per image" in note and "certified 2 given up 1" in note and "right 33.3 % (6.1 to 79.2)" in note
    assert "3 images in" in watch.speed() and "136.0 samples per image, selection included" in watch.speed()


def test_images_that_are_wrong_already_are_skipped(folder, run):
    command = ("certify", "model.h5", *DATA, "--n", "300")
    whole, quick = run(*command), run(*command, "--skip-wrong", "--out", "quick.tsv")
    assert quick[0] == whole[0] == 0 and "100 to select a class (the end where it is wrong)" in quick[1]
    assert "expected time between" in quick[2] and "100 to 400 samples per image" in quick[2] and ", ," not in quick[2]
    shares = [[line for line in out.splitlines() if line.endswith(" of 8")] for _, out, _ in (whole, quick)]
    assert shares[0] == shares[1] and "of them because their selection named a wrong class" in quick[1]
    results = read_results(folder / "quick.tsv")
    assert plan_of(folder / "quick.tsv") == {"n": 300, "skip_wrong": True}
    chosen = [max(range(10), key=json.loads(votes).__getitem__) for votes in results.columns["selection"]]
    right = [top == int(label) for top, label in zip(chosen, results.columns["label"], strict=True)]
    assert [n == "300" for n in results.columns["n"]] == right
