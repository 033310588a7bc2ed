"""Where the files of the repository's `weights/` folder are, installed or not.

An installed package carries the folder as the data of the package `intsmooth.weights`; in a checkout, and so after an
editable install, it lies beside the package. Nothing is searched for anywhere else.
"""

import os
import pathlib

from intsmooth.errors import DataError, InputError

_PACKAGE = pathlib.Path(__file__).resolve().parent


def weights_folder() -> pathlib.Path:
    """The folder that holds the shipped models and the bundled digits; DataError where the installation lacks it."""
    candidates = (_PACKAGE / "weights", _PACKAGE.parent / "weights")
    for folder in candidates:
        if (folder / "FORMAT.md").is_file():
            return folder
    raise DataError(
        f"the shipped models are missing: neither {candidates[0]} nor {candidates[1]} is there; reinstall intsmooth"
    )


def shipped_models() -> dict[str, pathlib.Path]:
    """Names of the shipped models and their files, sorted by name; a data set beside them is not a model."""
    return {path.stem: path for path in sorted(weights_folder().glob("*.h5")) if not path.stem.endswith("_test")}


def find_model(name: str | pathlib.Path) -> pathlib.Path:
    """The model file that `name` means: a path, a shipped model's name, or the beginning of exactly one such name.

    A file in the current folder goes before a shipped model of the same name. InputError lists the shipped models where
    nothing, or more than one, is meant.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"the model is a {type(name).__name__}; a path, the name of a shipped model or a Graph is required")
    path = pathlib.Path(name)
    if path.is_file():
        return path
    models = shipped_models()
    text = str(name)
    if text in models:
        return models[text]
    meant = [model for model in models if model.startswith(text + "-")]
    if len(meant) == 1:
        return models[meant[0]]
    shipped = ", ".join(models) or "none"
    if meant:
        raise InputError(f"{text!r} may be any of {', '.join(meant)}: give one of these names in full")
    raise InputError(f"there is no file {text!r}, and no shipped model of this name; shipped are: {shipped}")
