"""The command line: wires the stages together, holds no mathematics.

Every command is a module of `intsmooth.commands` with a one-line SUMMARY, EXAMPLES, `add_arguments` and `run`; what becomes
of errors, outcome.py says.
"""

import argparse
import importlib
import os
import sys

from intsmooth import __version__
from intsmooth.outcome import exit_code

COMMANDS = (
    "certify", "predict", "info", "convert", "quantize", "compare", "curve", "table", "train", "bench", "audit", "selftest"
)  # fmt: skip
_EXIT_CODES = (
    "\nexit codes:\n  0 done, 1 a check of audit or selftest failed or compare found a difference,\n"
    "  2 an argument is wrong, 3 the model or 4 the data set cannot be used,\n"
    "  5 the results file belongs to another run, 6 the machine lacks something (disk, memory, permission),\n"
    "  7 an optional package is missing, 130 interrupted"
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; parsed arguments carry the command's `run`."""
    parser = argparse.ArgumentParser(
        prog="intsmooth",
        description="Certified L2 robustness from integer-only neural networks.",
        epilog="first steps:\n  intsmooth certify digits\n  intsmooth info digits\n" + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"intsmooth {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"intsmooth.commands.{name}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            epilog="examples:\n" + "\n".join(f"  intsmooth {line}" for line in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if hasattr(sys.stdout, "reconfigure"):  # a path or class name that the terminal's encoding lacks is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    return exit_code(lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    return arguments.run(arguments)
