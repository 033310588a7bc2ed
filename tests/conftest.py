"""Fixtures of more than one test module. What they need is imported when they are used: tests run without numba too."""

import pytest


@pytest.fixture(scope="module")
def serial_lines(tmp_path_factory):
    """Mode -> lines of the results file of the serial run."""
    from executions import MODES, dataset_of
    from test_run import small_smooth, timeless

    from intsmooth.run import certify_dataset

    folder, lines = tmp_path_factory.mktemp("serial"), {}
    for name, mode in MODES.items():
        certify_dataset(small_smooth(), dataset_of(name), folder / name, **mode)
        lines[name] = timeless(folder / name)
    return lines


@pytest.fixture
def tiny_tasks(monkeypatch):
    """Tasks of 200 to 400 samples however fast the machine is, so that every image is split."""
    monkeypatch.setattr("intsmooth.dispatch.SHORTEST_S", 200)
    monkeypatch.setattr("intsmooth.dispatch.LONGEST_S", 400)
    monkeypatch.setattr("intsmooth.workers.Workers.rate", property(lambda self: 1.0 * bool(self._speeds)))
