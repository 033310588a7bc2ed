"""What a program makes of an error: one line on standard error, and the exit code of its class.

Errors that intsmooth raises on purpose have a class with a code (errors.py); 130 means interrupted, as shells expect.
What the system refuses (a full disk, a name too long) is one, too. Anything else is a bug and keeps its traceback.
"""

import contextlib
import os
import sys
from collections.abc import Callable

from intsmooth.errors import IntsmoothError, ResourceError

INTERRUPTED = 130


def exit_code(program: Callable[[], int | None]) -> int:
    """Run a program; its own exit code, or that of the error it ended with."""
    try:
        try:
            return program() or 0
        finally:  # here, where a reader who has gone or a full disk can be answered; argparse leaves by SystemExit
            if sys.stdout is not None:
                sys.stdout.flush()
    except IntsmoothError as error:
        return _complain(error)
    except MemoryError:
        return _complain(ResourceError("out of memory: use a smaller model, a smaller batch size or fewer threads"))
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        return _complain(ResourceError(f"the system refused: {error}"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _drop_output() -> None:
    """Keep Python from trying, and complaining, once more when it ends."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: IntsmoothError) -> int:
    print(f"intsmooth: error: {error}", file=sys.stderr)
    return error.exit_code
