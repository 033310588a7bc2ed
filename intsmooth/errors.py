"""Every error that intsmooth raises on purpose, drawn once.

    IntsmoothError
    |- InputError            an argument: image, sigma, alpha, n, threads ... (also a ValueError)
    |- ModelError            a model cannot be used (also a ValueError)
    |  |- FormatError        the file is not a well-formed model
    |  |- UnsupportedError   well-formed, but something in it is not implemented (all of it is listed)
    |  `- OverflowProofError an int32 accumulator could overflow, so the model is refused
    |- DataError             a data set is missing or malformed
    |- ResultsError          a results file belongs to another run, is locked, or is damaged
    |- ResourceError         memory, disk or a folder that cannot be written
    `- MissingExtraError     an optional dependency is not installed (also an ImportError)

A message says what was found, what is required and what to do next.
"""

import functools

LONGEST_MESSAGE = 20_000  # characters


class IntsmoothError(Exception):
    """Base of all errors raised by intsmooth; `exit_code` is what the command line returns for it.

    A message may quote what a hostile file holds: characters that could control a terminal become escapes, and what is
    too long is cut.
    """

    exit_code = 2

    def __init__(self, message: str = ""):
        super().__init__(_readable(str(message)))


def _readable(text: str) -> str:
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:LONGEST_MESSAGE]}... ({len(text) - LONGEST_MESSAGE} more characters)"
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


class InputError(IntsmoothError, ValueError):
    """An argument of the caller is out of its domain."""


class ModelError(IntsmoothError, ValueError):
    """A model cannot be used."""

    exit_code = 3


class FormatError(ModelError):
    """A file is not a well-formed model."""


class UnsupportedError(ModelError):
    """A well-formed model uses something that is not implemented; the message lists all of it."""


class OverflowProofError(ModelError):
    """The overflow proof fails: some int32 accumulator could leave its range."""


class DataError(IntsmoothError):
    """A data set is missing or malformed."""

    exit_code = 4


class ResultsError(IntsmoothError):
    """A results file belongs to another run, is in use, or is damaged."""

    exit_code = 5


class ResourceError(IntsmoothError):
    """The machine lacks what the run needs: memory, disk space, write permission."""

    exit_code = 6


class MissingExtraError(IntsmoothError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 7

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}: python -m pip install 'intsmooth[{extra}]'")


def within_memory(function):
    """Decorate `function` so that a MemoryError in it comes out as a ResourceError that says what to do."""

    @functools.wraps(function)
    def typed(*arguments, **named):
        try:
            return function(*arguments, **named)
        except MemoryError as error:
            raise ResourceError(
                "out of memory: use a smaller model or image, fewer threads, or a smaller batch"
            ) from error

    return typed
