"""Fixtures of more than one test module. What they need is imported when they are used: tests run without numba too."""

import pytest


@pytest.fixture(scope="module")
def tiny():
    import models
    import numpy as np

    return models.tiny_conv(np.random.default_rng(1))


@pytest.fixture(scope="module")
def image():
    import numpy as np

    return np.random.default_rng(2).integers(0, 17, (8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def serial_lines(tmp_path_factory):
    """Mode -> lines of the results file of the serial run."""
    from executions import MODES, dataset_of
    from small_runs import small_smooth, timeless

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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder with a model that knows its noise, one that does not, and a data set."""
    import models
    import numpy as np

    from intsmooth.graph import build_graph
    from intsmooth.h5file import save

    monkeypatch.chdir(tmp_path)
    graph = models.tiny_conv(np.random.default_rng(1))
    save(graph, tmp_path / "plain.h5")
    parts = {name: getattr(graph, name) for name in ("nodes", "input", "output", "levels", "unit", "classes")}
    save(build_graph(tensors=graph.tensors.values(), facts={"sigma": "0.25"}, **parts), tmp_path / "model.h5")
    images = np.random.default_rng(2).integers(0, 17, (8, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=[0, 1, 2, 2, 2, 2, 2, 2], index=np.arange(8) * 10)
    return tmp_path


@pytest.fixture
def run(capsys):
    """run(*arguments): the command line's exit code, output and errors."""
    from intsmooth import cli

    def run(*arguments):
        code = cli.main([*arguments])
        return code, *capsys.readouterr()

    return run
