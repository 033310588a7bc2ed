"""What docs/soundness.md says is what docs/soundness.py prints, and it is so."""

import importlib.util
import math
import pathlib

import numpy as np
import pytest

pytest.importorskip("scipy")
DOCS = pathlib.Path(__file__).parents[1] / "docs"
if not (DOCS / "soundness.py").exists():
    pytest.skip("docs/ is not part of this installation", allow_module_level=True)


@pytest.fixture(scope="module")
def soundness():
    spec = importlib.util.spec_from_file_location("soundness", DOCS / "soundness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stated(text: str, printed: str) -> None:
    """Every line that the script prints is in the document."""
    missing = [line for line in printed.splitlines() if line.strip() and line not in text]
    assert missing == []


@pytest.fixture(scope="module")
def document():
    return (DOCS / "soundness.md").read_text()


def test_the_float_certificate_is_refuted_and_the_integer_one_is_not(soundness, document, capsys):
    found = soundness.floats()
    assert found["radius"] > 1.9 > 210 / 255 > 0.8  # certified far beyond the image 0 ...
    assert found["share"] < 0.47  # ... which the smoothed classifier puts into the other class
    assert found["budget"] > 10_000 and found["least"] > 0.5
    stated(document, capsys.readouterr().out)


def test_the_float_function_is_one_at_a_for_every_noise(soundness):
    rng = np.random.default_rng(1)
    assert soundness.float_votes(soundness.A, 50_000, rng)[1] == 50_000


def test_the_shortcuts_are_refuted(soundness, document, capsys):
    found = soundness.shortcuts()
    claimed, least = found["inverse"]
    assert claimed == 2 > math.sqrt(3) and least < 0.49
    radius, top, other = found["two classes"]
    assert radius > 2.08 and top == pytest.approx(other, abs=1e-12)
    assert 1.5e-2 < found["excess 1"] < 1.7e-2 and 2e-7 < found["excess 64"] < 4e-7
    assert found["inner product"][0] != pytest.approx(found["inner product"][1], rel=1e-6)
    budget, worst = found["intsmooth"]
    assert budget > 50 and 0.5 < worst < 0.56
    stated(document, capsys.readouterr().out)


def test_worst_case_by_brute_force(soundness):
    """The Neyman-Pearson curve against all sets of outcomes of a coarse law, in one dimension."""
    k, weights = soundness.discrete(0.6)
    keep = np.abs(k) <= 3
    k, weights = k[keep], weights[keep]
    after = np.array([weights[k == x - 1].sum() for x in k])  # P[Z + 1 = x]
    for bits in range(1 << len(k)):
        chosen = (bits >> np.arange(len(k)) & 1).astype(bool)
        p = weights[chosen].sum()
        if p < 1 - 1e-4:
            assert after[chosen].sum() >= soundness.worst_after_shift(0.6, (1,), p) - 1e-4


def test_a_tampered_generator_is_noticed(soundness, document, capsys):
    found = soundness.generator()
    assert found[0.0][2] == 0 and found[0.0][0] < found[0.0][1]
    for bias in (0.05, 0.2):  # where certificates begin to overstate
        certified, true, failed = found[bias]
        assert certified > true and failed >= 2
    assert found[0.01][2] >= 1  # noticed before they do
    assert "checks failed" in found["self-test"] and found["start-up"] >= 1
    stated(document, capsys.readouterr().out)


def test_the_script_names_what_it_does_not_know(soundness, capsys):
    assert soundness.main(["nonsense"]) == 2
    assert "floats, shortcuts, generator" in capsys.readouterr().err
