"""The integer-only certificate: from an image to its budget by table, no Python value is a float and none can be made.

A trace function looks at every variable and result of every Python function that runs, and at the byte code of these
functions: a true division, a power, a floating-point constant or the name of a function that gives floats is reported even
if it was not reached. What is compiled is
the matter of the checks `code` and `dynamic`.
"""

import dis
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from types import CodeType, FrameType
from typing import Any

import numpy as np

from intsmooth.audit.finding import Finding
from intsmooth.certificate_table import CertificateTable, build_table, rederive
from intsmooth.certify import certificate_from_counts
from intsmooth.errors import InputError
from intsmooth.records import ABSTAIN
from intsmooth.smooth import Smooth

CLAIM = "from counts to budget, a certificate by table is integers only, and its entries are what they have to be"
_N, _ENTRIES = 200, 40  # of the table that is made where none is given; entries that are derived again
_MAKERS = frozenset(  # names of what gives a float, though it may never be kept in a variable
    "float complex float16 float32 float64 longdouble Decimal sqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan tanh "
    "erf gamma lgamma hypot fsum ldexp frexp truediv true_divide divide mean average std var median linspace random ppf cdf "
    "norm time monotonic perf_counter".split()
)
_DIVISION, _POWER = "a true division", "a power, which is a float where the exponent is negative,"
_OPERATIONS = {  # until Python 3.10 by name, from 3.11 on by symbol
    "/": _DIVISION, "BINARY_TRUE_DIVIDE": _DIVISION, "INPLACE_TRUE_DIVIDE": _DIVISION,
    "**": _POWER, "BINARY_POWER": _POWER, "INPLACE_POWER": _POWER,
}  # fmt: skip
_DEPTH = 2  # how deep containers are looked into


def check_certificate(smooth: Smooth, image: np.ndarray, table: CertificateTable | None = None) -> Finding:
    """Certify one image by table under watch, compare with the ordinary certificate, derive entries again.

    smooth: on one thread, so that all Python code runs here; table: one that fits it, made here where None.
    """
    if table is None:
        table = build_table(
            _N, sigma=smooth.sigma, law=smooth.law, dimension=image.size, unit=smooth.graph.unit, tv=smooth.table.tv
        )
    try:
        smooth.decide(image, table)  # loads modules and compiles
    except InputError as error:
        return Finding("certificate", CLAIM, False, "the table does not fit the model", [str(error)])
    decided, floats, functions = watched(partial(smooth.decide, image, table))
    problems = [f"a float in {place}" for place in floats]
    problems += [f"{function}: {what}" for function, found in functions.items() for what in found]
    control, seen, _ = watched(partial(smooth.certify, image, alpha=table.alpha, table=table))
    if not seen:
        problems.append("no float is seen where there is one, in the radius of `certify`: the watch says nothing")
    chain = certificate_from_counts(
        control.hits, table.n, sigma=table.sigma, law=table.law, dimension=table.dimension, alpha=table.alpha,
        unit=table.unit, tv=table.tv, tau=table.tau or None, top=control.top,
    )  # fmt: skip
    if decided != (chain.prediction, chain.budget):
        problems.append(f"the table decides {decided}, the chain of bounds {(chain.prediction, chain.budget)}")
    entries = sorted({i * table.n // (_ENTRIES - 1) for i in range(_ENTRIES)})
    problems += [f"entry {hits} is not what it has to be" for hits in entries if rederive(table, hits) != table.budgets[hits]]
    answer = "abstains" if decided[0] == ABSTAIN else f"class {decided[0]}, budget {decided[1]}"
    return Finding(
        "certificate",
        CLAIM,
        not problems,
        f"{len(functions)} Python functions ran from an image to its certificate ({answer}) without a float; as a control, "
        f"the radius for people is seen; {len(entries)} of {table.n + 1} entries derived again",
        problems,
        [f"table {table.digest}"],
        {"functions": sorted(functions), "decided": list(decided), "digest": table.digest, "entries": len(entries)},
    )


def watched(work: Callable[[], Any]) -> tuple[Any, list[str], dict[str, list[str]]]:
    """(work()'s result, places where a float was seen, float operations by the function whose byte code has them).

    A function is named by its module and qualified name; those without a float operation have an empty list.
    """
    places: dict[str, None] = {}
    codes: dict[CodeType, str] = {}

    def trace(frame: FrameType, event: str, result: Any):
        function = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)  # qualified from Python 3.11 on
        name = f"{frame.f_globals.get('__name__', '?')}.{function}"
        codes.setdefault(frame.f_code, name)
        for variable, value in frame.f_locals.items():
            if is_float(value):
                places[f"{name}, {variable}"] = None
        if event == "return" and is_float(result):
            places[f"{name}, its result"] = None
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        outcome = work()
    finally:
        sys.settrace(before)
    functions: dict[str, list[str]] = {}
    for code, name in codes.items():
        if name.startswith("intsmooth."):
            functions.setdefault(name, []).extend(float_operations(code))
    return outcome, list(places), functions


def is_float(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a value is, or holds, a floating-point or decimal number."""
    if isinstance(value, float | complex | np.inexact | Decimal):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc"
    if depth and isinstance(value, tuple | list):
        return any(is_float(item, depth - 1) for item in value[:64])
    if depth and isinstance(value, dict):
        return any(is_float(item, depth - 1) for item in list(value.values())[:64])
    return False


def float_operations(code: CodeType) -> list[str]:
    """True divisions, powers, floating-point constants and names of functions that give floats, in a function's byte code."""
    found = [f"the constant {constant!r}" for constant in code.co_consts if is_float(constant)]
    found += [f"the name {name}" for name in code.co_names if name in _MAKERS]
    for instruction in dis.get_instructions(code):
        what = _OPERATIONS.get(instruction.opname)
        if instruction.opname == "BINARY_OP":
            what = _OPERATIONS.get(instruction.argrepr.rstrip("="))
        if what:
            found.append(f"{what} at byte {instruction.offset}")
    return found
