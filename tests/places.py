"""Where tests find things: this checkout, the data and models of others, and the environment of a child process."""

import os
import pathlib
import signal

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent
SHARED = pathlib.Path(os.environ.get("INTSMOOTH_SHARED", ROOT.parent / "shared"))
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"}


def listen_to_ctrl_c() -> None:
    """preexec_fn of a child that is sent SIGINT: a shell without job control ignores it for what runs in the background,
    and children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
