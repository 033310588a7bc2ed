"""Test this installation in seconds: cipher, noise, kernels, statistics.

Known answers, the goodness of fit of the integers that the running sampler draws, compiled kernels against naive ones.
A tampered or biased generator is found here; see docs/soundness.md.
"""

import argparse

SUMMARY = "test cipher, noise, kernels and statistics on this machine"
EXAMPLES = ("selftest", "selftest --json")
FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--seed", help="an integer or hexadecimal text (default: fresh, and shown)")
    parser.add_argument("--json", action="store_true", help="all statistics, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 if every check passed, 1 if one failed."""
    from intsmooth.audit.selftest import selftest
    from intsmooth.noise.stream import parse_seed

    report = selftest(parse_seed(arguments.seed) if arguments.seed is not None else None)
    print(report.json() if arguments.json else report.text("self-test"))
    return 0 if report.passed else FAILED
