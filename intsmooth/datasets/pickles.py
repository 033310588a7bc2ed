"""Reads the pickles of CIFAR-10's Python archive without executing anything.

`pickle.load` runs whatever a file names, so a downloaded file could run anything. The batches hold only dictionaries,
lists, numbers, strings and one array, and a pickle is a program of a tiny stack machine: this module steps through its
opcodes (`pickletools.genops`, the standard library's disassembler) and rebuilds just these types. What the file asks to
import or call is kept as inert `Call` records; `byte_array` recognises the one call that it knows: numpy rebuilding an
array.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsmooth.errors import DataError

_VALUES = frozenset(
    "BININT BININT1 BININT2 INT LONG1 BINFLOAT BINSTRING SHORT_BINSTRING "
    "BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


@dataclass
class Call:
    """What a pickle wanted to call: "module name", its arguments, and the state it wanted to set. Never called."""

    symbol: str
    arguments: tuple | None = None
    state: Any = None


def read_plain_pickle(data: bytes, where: str) -> Any:
    """The object that the pickle `data` describes, made of plain types and inert `Call` records.

    Strings of Python 2 come back as latin-1 text. DataError for opcodes beyond those that plain data needs, or broken
    files.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return stack.pop()
            _step(opcode.name, argument, stack, memo)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a well-formed pickle ({error}); fetch the archive again") from error
    raise DataError(f"{where} ends in the middle of a pickle; fetch the archive again")


def _step(name: str, argument: Any, stack: list, memo: dict) -> None:
    """Carry out one opcode on the stack; only containers are ever modified."""
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("PROTO", "FRAME"):
        pass
    elif name == "MARK":
        stack.append(_MARK)
    elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
        stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
    elif name == "TUPLE":
        stack.append(tuple(_pop_to_mark(stack)))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("APPEND", "APPENDS"):
        values = [stack.pop()] if name == "APPEND" else _pop_to_mark(stack)
        _expect(stack[-1], list).extend(values)
    elif name in ("SETITEM", "SETITEMS"):
        values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _pop_to_mark(stack)
        keys = values[::2]
        if not all(isinstance(key, str | bytes | int) for key in keys):  # hashing nested tuples may take for ever
            raise TypeError("a key that is neither text nor a number")
        _expect(stack[-1], dict).update(zip(keys, values[1::2], strict=True))
    elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
        memo[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[int(argument)])
    elif name == "GLOBAL":
        stack.append(Call(argument))
    elif name == "REDUCE":
        arguments = _expect(stack.pop(), tuple)
        stack[-1] = Call(_expect(stack[-1], Call).symbol, arguments)
    elif name == "BUILD":
        state = stack.pop()
        _expect(stack[-1], Call).state = state
    else:
        raise DataError(f"the pickle uses {name}, which plain data does not need; it is not read")


def _pop_to_mark(stack: list) -> list:
    """Take the values above the uppermost mark off the stack, and the mark with them."""
    for start in range(len(stack) - 1, -1, -1):
        if stack[start] is _MARK:
            values = stack[start + 1 :]
            del stack[start:]
            return values
    raise ValueError("no mark on the stack")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} was expected")
    return value


def byte_array(call: Any, where: str) -> np.ndarray:
    """The uint8 array that numpy's pickle of it describes, read-only; DataError for anything else."""
    try:
        if call.symbol not in ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"):
            raise ValueError(call.symbol)
        _version, shape, dtype, fortran_order, content = call.state
        if (dtype.symbol, dtype.arguments[0]) != ("numpy dtype", "u1") or fortran_order:
            raise ValueError(f"another {dtype.symbol}")
        content = content.encode("latin-1") if isinstance(content, str) else content
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{where}: an array of bytes is required, found {error}") from error
