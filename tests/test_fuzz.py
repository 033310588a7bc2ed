"""A short run of the fuzzer on every kind of file, the fuzzer's own canaries, and what it has found so far."""

import itertools
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading

import fuzz
import fuzz_targets
import numpy as np
import pytest
from result_tables import table

from intsmooth.convert.load import convert_model
from intsmooth.curve import curve_table
from intsmooth.errors import LONGEST_MESSAGE, InputError, ModelError, ResultsError
from intsmooth.report import round_radii
from intsmooth.results import MAX_RADIUS, read_results

FILES = {"h5": 1500, "tflite": 500, "onnx": 700, "table": 700, "results": 1500}
OUTCOMES = {"h5": {"unchanged"}, "table": {"unchanged"}, "results": {"read"}, "tflite": {"ran"}, "onnx": {"ran"}}


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_a_short_run(name, tmp_path, monkeypatch):
    """Mutated files are refused or mean what they may mean, and the damage is neither too small nor too great."""
    monkeypatch.chdir(tmp_path)
    target = fuzz_targets.TARGETS[name]()
    assert "refused" not in map(target.outcome, target.valid), "damage to a file that is refused anyway shows nothing"
    counts = fuzz.run(target, FILES[name], seed=2024)
    assert counts["refused"] > FILES[name] // 5
    assert sum(counts[outcome] for outcome in OUTCOMES[name]) > FILES[name] // 20
    assert set(counts) <= {"refused", "large"} | OUTCOMES[name] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_a_case_follows_from_its_number(name):
    one, other = fuzz_targets.TARGETS[name](), fuzz_targets.TARGETS[name]()
    for number in range(40):
        assert fuzz.case(one, 7, number) == fuzz.case(other, 7, number)


class Faulty(fuzz_targets.Target):
    """A reader with one fault; every second file meets it."""

    def __init__(self, fault):
        self.valid, self.fault = [b"\1\2\3\4" * 8], fault

    def mutate(self, rng):
        return bytes([rng.randrange(2)])

    def read(self, data):
        if data == b"\1":
            self.fault()
        return "read"


def fill_memory():
    return np.ones(2 * fuzz.MAX_BYTES, np.uint8)


def refuse_unreadably():
    raise ModelError("x")


FAULTS = {
    "exception": (lambda: [][1], "IndexError"),
    "warning": (lambda: np.int8(127) + np.int8(1), "RuntimeWarning"),
    "no message": (refuse_unreadably, "empty or endless"),
    "loop": (lambda: [None for _ in itertools.count() if False], "more than"),
    "crash": (lambda: os.kill(os.getpid(), signal.SIGKILL), "died of signal 9"),
}  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", [*FAULTS, "memory"])
def test_every_kind_of_fault_is_a_finding(name, tmp_path, monkeypatch, capfd):
    """Canaries for the fuzzer itself."""
    if name == "memory" and sys.platform != "linux":
        pytest.skip("needs a limit on memory that the system keeps to")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "MAX_SECONDS", 0.3)
    fault, words = FAULTS.get(name, (fill_memory, "MemoryError"))
    assert fuzz.watched(Faulty(fault), 100, seed=1, first=0) == 1
    assert words in capfd.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"\1"]


def test_the_page_of_faults_names_tests_that_exist():
    page = pathlib.Path(__file__).parents[1] / "docs" / "faults.md"
    if not page.exists():
        pytest.skip("docs/ is not part of this installation")
    named, file = [], ""
    for text in re.findall(r"`([^`]*test_\w+[^`]*)`", page.read_text(encoding="utf-8")):
        file, _, test = text.rpartition("::") if "::" in text else (file, "", text)
        if test.startswith("test_") and not test.endswith(".py"):
            named.append((file, test))
    assert len(named) > 50
    for file, test in named:
        assert f"def {test}(" in page.parents[1].joinpath("tests", file).read_text(encoding="utf-8"), (file, test)


# Findings


def test_no_message_controls_a_terminal():
    """Found in messages about .onnx models that quote names of their nodes; so no error of the package does."""
    error = ModelError("node \x1b[2J\u202e\r\x00 is\nnot\tsupported \udcff ü 数")
    assert str(error) == "node \\x1b[2J\\u202e\\r\\x00 is\nnot\tsupported \\udcff ü 数"
    assert len(str(ModelError("x" * 10**6))) < LONGEST_MESSAGE + 100


def test_a_huge_radius_makes_no_endless_table():
    assert len(round_radii(np.array([1e308]))) <= 13 and len(round_radii(np.array([1e6, 0.3]))) <= 13
    assert len(curve_table([table([(1, 1e5, 1), (1, 0.5, 1)])])) < 500


@pytest.mark.parametrize(
    ("column", "value"),
    [("predict", "9" * 30), ("predict", "9" * 5000), ("correct", "9" * 30), ("radius", "1e308"), ("radius", "-0.5"),
     ("radius", str(MAX_RADIUS + 1)), ("radius", "nan"), ("unit", "9" * 30), ("unit", "0"), ("unit", "x")],
)  # fmt: skip
def test_numbers_of_a_results_file_that_make_no_sense(tmp_path, column, value):
    row = {"idx": "0", "label": "1", "predict": "1", "radius": "0.5", "correct": "1", "unit": "16"} | {column: value}
    path = tmp_path / "a.tsv"
    path.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    with pytest.raises(ResultsError, match="damaged"):
        read_results(path)


def test_characters_that_are_no_line_feed_end_no_row(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\n0\t1\t1\t0.5\t1\n1\u2028\x0b\x1c2\t1\t1\t0.5\t1\n", "utf-8")
    assert len(read_results(path)) == 2


def test_a_results_file_that_is_too_large(tmp_path):
    path = tmp_path / "a.tsv"
    path.touch()
    os.truncate(path, 2**40)  # sparse: takes no space
    with pytest.raises(ResultsError, match="larger than"):
        read_results(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    ("name", "reader"), [("a.tflite", convert_model), ("a.onnx", convert_model), ("a.h5", convert_model), ("a.tsv", read_results)]
)  # fmt: skip
def test_a_pipe_that_nobody_writes_to_blocks_no_reader(tmp_path, name, reader):
    os.mkfifo(tmp_path / name)
    caught = []

    def read():
        try:
            reader(tmp_path / name)
        except (InputError, ModelError, ResultsError) as error:
            caught.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert caught and "regular file" in caught[0]


def test_scales_of_an_onnx_model_that_are_far_apart():
    """What overflows in float32 is clamped, without a warning (found by seed 6)."""
    from onnx import TensorProto, helper
    from onnx_builder import Quantized

    from intsmooth.convert import onnx

    b = Quantized((2, 3, 3))
    x = b.integer(b.real(b.start()), np.float32(1e-45), np.int8(0))
    b.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3, 3])]
    output = b.node("DequantizeLinear", [b.layer("Flatten", [x]), np.float32(1), np.int8(0)])
    graph = onnx.load(b.bytes(output), input_scale="1/255").graph
    assert len(graph.classes) == 18


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_twenty_thousand_files_by_the_command(name, tmp_path):
    seed = random.SystemRandom().randrange(10**6)  # named if it finds something
    command = [sys.executable, fuzz.__file__, name, "--files", "20000", "--seed", str(seed)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (seed, done.stdout, done.stderr)
