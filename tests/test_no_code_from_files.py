"""Nothing is run because a file says so: files with traps in them, and what the package's own code may call."""

import ast
import os
import pickle

import numpy as np
import pytest
from places import ROOT

from intsmooth.datasets.arrays import open_arrays
from intsmooth.errors import DataError, ResultsError
from intsmooth.h5file import load
from intsmooth.results import read_results


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_is_run_because_a_file_says_so(tmp_path, capsys, tiny):
    trap = tmp_path / "trapped"
    objects = np.empty((1, 8, 8), object)
    objects[:] = Trap(trap)
    np.save(tmp_path / "a.npy", objects)
    np.savez(tmp_path / "a.npz", images=objects, labels=[0])
    np.savez(tmp_path / "labels.npz", images=np.zeros((1, 8, 8), np.uint8), labels=objects[0, 0, :1])
    for name in ("raw.npy", "raw.npz", "raw.h5", "model.h5", "results.tsv"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(trap)))
    for name in ("a.npy", "a.npz", "labels.npz", "raw.npy", "raw.npz", "raw.h5"):
        with pytest.raises(DataError):
            open_arrays(tmp_path / name)
    with pytest.raises(ValueError):
        load(tmp_path / "model.h5")
    with pytest.raises(ResultsError):
        read_results(tmp_path / "results.tsv")
    assert not trap.exists()
    pickle.loads((tmp_path / "raw.npy").read_bytes())
    assert trap.exists()  # the trap does work


def dotted(node) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "?")


def test_the_package_has_nothing_that_runs_or_fetches_what_a_file_says():
    forbidden = {
        "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads",
        "pickle.Unpickler", "marshal.loads", "shelve.open", "runpy.run_path", "yaml.load", "joblib.load",
        "cloudpickle.loads", "dill.loads",
    }  # fmt: skip
    calls = []
    for path in sorted((ROOT / "intsmooth").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                named = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                calls.append((path.relative_to(ROOT / "intsmooth").as_posix(), dotted(node.func), named))
    assert len(calls) > 1000
    # Not a file: the job that the process which hands out tasks has sent to its workers, as executors send everything.
    sent = {("tasks.py", "pickle.loads")}
    assert {call[:2] for call in calls if call[1] in forbidden} == sent
    assert not [call for call in calls if call[2].get("allow_pickle")]
    assert all(named.get("weights_only") is True for _, name, named in calls if name == "torch.load")
    fetching = ("urlopen", "urlretrieve", "requests.get", "HTTPSConnection", "HTTPConnection", "create_connection")
    assert {path for path, name, _ in calls if name.endswith(fetching)} <= {"datasets/download.py"}
