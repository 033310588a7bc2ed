"""The dynamic witness: a whole certification loop leaves the processor's sticky floating-point flags untouched."""

import platform

import numpy as np

from intsmooth.audit.finding import Finding
from intsmooth.vote import ESTIMATION, SELECTION, count_votes

_X86 = ("x86_64", "AMD64", "amd64")
CLAIM = "no floating-point flag is raised while votes are counted"


def check_dynamic(engine, image: np.ndarray, table, seed: bytes, samples: int = 2000) -> Finding:
    """Count votes of both stages on this thread between clearing and reading the flags of MXCSR.

    engine: on one thread, so that the work is done here; image: integer levels; samples: of the estimation stage.
    """
    if platform.machine() not in _X86:
        return Finding("dynamic", CLAIM, None, f"{platform.machine()} has no MXCSR register; see the code check")
    from intsmooth.audit.mxcsr import clear_flags, divide, raised_flags

    problems = []
    if engine.threads != 1:
        problems.append(f"the engine has {engine.threads} threads; the flags of one thread alone can be seen")
    raised_flags(), count_votes(engine, image, table, seed, SELECTION, 0, 1)  # compiles what is not compiled yet
    clear_flags()
    divide(1.0, 3.0)
    control = raised_flags()
    if "inexact" not in control:
        problems.append("1.0 / 3.0 raises no flag here, so that the absence of flags says nothing")
    clear_flags()
    votes = [count_votes(engine, image, table, seed, SELECTION, 0, 100)]
    votes.append(count_votes(engine, image, table, seed, ESTIMATION, 0, samples))
    raised = raised_flags()
    if raised:
        problems.append(f"flags raised while votes were counted: {', '.join(raised)}")
    counted = sum(int(vote.counts.sum()) for vote in votes)
    if counted != 100 + samples:
        problems.append(f"{counted} votes of {100 + samples} were counted")
    return Finding(
        "dynamic",
        CLAIM,
        not problems,
        f"{counted:,} votes counted with all six flags of MXCSR clear; as a control, 1.0 / 3.0 raises: "
        f"{', '.join(control)}"
        if not problems
        else f"{len(problems)} problems",
        problems,
        [],
        {"votes": counted, "raised": raised, "control": control},
    )
