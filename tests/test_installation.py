"""What an installation holds: packages, public names, shipped models; and what importing it imports."""

import configparser
import subprocess
import sys

import pytest
from places import ENVIRONMENT, ROOT

import intsmooth
from intsmooth.errors import DataError, InputError
from intsmooth.shipped import find_model, shipped_models, weights_folder


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


def test_models_are_found_by_name_and_by_beginning(tmp_path, monkeypatch):
    (tmp_path / "w").mkdir()
    for name in ("a-s0.25.h5", "b-s0.25.h5", "b-s0.5.h5", "a_test.h5", "FORMAT.md"):
        (tmp_path / "w" / name).touch()
    monkeypatch.setattr("intsmooth.shipped.weights_folder", lambda: tmp_path / "w")
    assert list(shipped_models()) == ["a-s0.25", "b-s0.25", "b-s0.5"]
    assert find_model("a") == find_model("a-s0.25") == tmp_path / "w" / "a-s0.25.h5"
    assert find_model(str(tmp_path / "w" / "FORMAT.md")) == tmp_path / "w" / "FORMAT.md"
    with pytest.raises(InputError, match="may be any of b-s0.25, b-s0.5"):
        find_model("b")
    with pytest.raises(InputError, match="shipped are: a-s0.25, b-s0.25, b-s0.5"):
        find_model("c")


def test_an_installation_without_weights_says_so(tmp_path, monkeypatch):
    assert (weights_folder() / "FORMAT.md").is_file()
    monkeypatch.setattr("intsmooth.shipped._PACKAGE", tmp_path / "intsmooth")
    with pytest.raises(DataError, match="reinstall intsmooth"):
        weights_folder()
