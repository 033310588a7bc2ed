"""Checkpoints: one file per run, replaced atomically, read without executing anything in it.

work/checkpoint.pt  everything a run needs to go on after the last whole epoch that was saved
work/float.pt       the float network before it was quantized: what --init and the float twin's certification read
"""

import io
import pathlib

import torch
from torch import nn

from intsmooth.atomic import write_whole
from intsmooth.errors import InputError, ResourceError


def save(path: pathlib.Path, content: dict) -> None:
    """Write tensors, numbers, strings, lists and dicts of them; a kill or a full disk leaves the old file or the new one."""
    buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError of its own
    torch.save(content, buffer)
    try:
        write_whole(path, buffer.getbuffer())
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written ({error.strerror}); free some space or choose another --work"
        ) from error


def load(path: pathlib.Path) -> dict:
    """The content of a checkpoint; InputError where it is missing or not one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}; give a checkpoint of a run of intsmooth train") from None
    except Exception as error:  # torch raises half a dozen kinds for a damaged file, with advice that does not fit here
        raise InputError(f"{path} is damaged or not a checkpoint of intsmooth train; give another or start anew") from error
    if not isinstance(content, dict) or not isinstance(content.get("network"), dict):
        raise InputError(f"{path} is not a checkpoint of intsmooth train; give another or start anew")
    return content


def take_state(network: nn.Module, content: dict, path: pathlib.Path | str, what: str) -> None:
    """Set a network's parameters from a checkpoint's content; InputError names the first that does not fit `what`."""
    own = network.state_dict()
    state = {**{name: own[name] for name in getattr(network, "UNSET", ())}, **content["network"]}
    for name in (*own, *state):
        found, needed = (tuple(d[name].shape) if torch.is_tensor(d.get(name)) else None for d in (state, own))
        if found != needed:
            found, needed = ("missing" if shape is None else f"of shape {shape}" for shape in (found, needed))
            raise InputError(f"{path} does not hold {what}: {name} is {found} there, {needed} in the network of the recipe")
    network.load_state_dict(state)
