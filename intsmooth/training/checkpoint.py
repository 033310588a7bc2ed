"""Checkpoints: one file per run, replaced atomically, read without executing anything in it.

work/checkpoint.pt  everything a run needs to go on after the last whole epoch that was saved
work/float.pt       the float network before it was quantized: what --init and the float twin's certification read
"""

import os
import pathlib

import torch

from intsmooth.errors import InputError, ResourceError


def save(path: pathlib.Path, content: dict) -> None:
    """Write tensors, numbers, strings, lists and dicts of them; a kill leaves the old file or the new one."""
    temporary = path.with_suffix(".part")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written ({error.strerror}); free some space or choose another --work"
        ) from error


def load(path: pathlib.Path) -> dict:
    """The content of a checkpoint; InputError where it is missing or not one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}; start without --resume, or name another folder") from None
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise InputError(f"{path} is not a checkpoint of intsmooth train ({error}); start again without it") from error
    if not isinstance(content, dict) or "network" not in content:
        raise InputError(f"{path} is not a checkpoint of intsmooth train; start again without it")
    return content
