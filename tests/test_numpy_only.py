"""An edge script in an environment that really holds only numpy and h5py."""

import os
import subprocess
import sys
import venv

import pytest
from places import ROOT

SCRIPT = """
import importlib.util
assert not any(importlib.util.find_spec(name) for name in ("numba", "scipy", "llvmlite"))
from intsmooth import Smooth, open_dataset
from intsmooth.vote import ESTIMATION, count_votes

item = open_dataset("digits")[0]
smooth = Smooth("digits", 0.25, seed=1, backend="numpy")
votes = count_votes(smooth.engine, smooth.check_image(item.image), smooth.table, smooth.seed, ESTIMATION, 0, 200)
print(votes.counts.tolist(), smooth.predict(item.image, n=200), smooth.certify(item.image, n=200).budget)
"""


@pytest.mark.slow
def test_predict_and_count_votes(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*command):
        outcome = subprocess.run(list(map(str, command)), env=environment, cwd=tmp_path, capture_output=True, text=True,
                                 timeout=600)
        assert outcome.returncode == 0, outcome.stderr[-3000:]
        return outcome.stdout

    run(python, "-m", "pip", "install", "--quiet", "numpy", "h5py")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", ROOT)
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    expected = SCRIPT.replace('backend="numpy"', 'backend="numba"').replace("assert not any", "any")
    assert run(python, "-c", SCRIPT) == subprocess.run([sys.executable, "-c", expected], env=here, capture_output=True, text=True,
                                                       check=True).stdout
