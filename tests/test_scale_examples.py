"""The programs that docs/scale.md shows run as they stand."""

import contextlib
import pathlib
import re
import subprocess
import sys

import pytest
from executions import dask_cluster, mpi_start
from places import ENVIRONMENT
from small_runs import timeless

from intsmooth.datasets import open_dataset
from intsmooth.run import certify_dataset
from intsmooth.smooth import Smooth


def documented():
    """Name of the results file -> program."""
    page = pathlib.Path(__file__).parents[1] / "docs" / "scale.md"
    if not page.exists():
        return {}  # docs/ is not part of this installation
    programs = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return {re.search(r"(\w+)\.tsv", program)[1]: program for program in programs}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(documented()))
def test_the_examples_of_the_documentation(tmp_path, name):
    needed = {"dask": "distributed", "mpi": "mpi4py", "loky": "joblib.externals.loky"}
    pytest.importorskip(needed.get(name, "concurrent.futures"))
    (tmp_path / "program.py").write_text(documented()[name])
    start = [sys.executable]
    with contextlib.ExitStack() as stack:
        if name == "dask":
            client = stack.enter_context(dask_cluster())
            text = documented()[name].replace("tcp://10.0.0.1:8786", client.scheduler.address)
            (tmp_path / "program.py").write_text(text)
        elif name == "mpi":
            start = mpi_start()
        subprocess.run([*start, "program.py"], cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=120)
    smooth = Smooth("digits", sigma="0.25", seed=1, threads=1)
    certify_dataset(smooth, open_dataset("digits").select(limit=6), tmp_path / "serial.tsv", n=1000)
    assert timeless(tmp_path / f"{name}.tsv") == timeless(tmp_path / "serial.tsv")


def test_the_documentation_has_an_example_of_each():
    if documented():
        assert sorted(documented()) == ["dask", "loky", "mpi", "processes", "threads"]
