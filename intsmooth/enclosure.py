"""Decimal arithmetic whose error is known: the ground on which a certificate's mathematics stands.

A certificate must never claim too much, so every real number between the votes and the budget is computed in Python's
`decimal` with 60 digits and then moved outward by a margin that is many orders of magnitude above the worst rounding
error, and many below anything that a float or a person could see. `decimal` promises correctly rounded `+ - * /`,
`sqrt`, `exp` and `ln` (Python documentation, "decimal", and libmpdec), which makes the error analysis a count of
operations; the platform's libm and binary floating point play no part. `docs/theory.md`, section 7, does the
counting.
"""

import functools
from collections.abc import Callable
from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    ROUND_CEILING,
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
)
from fractions import Fraction
from math import inf, isfinite, nextafter
from numbers import Rational
from typing import ParamSpec, TypeVar

from intsmooth.errors import InputError

DIGITS = 60
GRID = 2**53  # probabilities are multiples of 1 / GRID: every one of them is a float and, to 53 digits, a Decimal
LARGEST_TEXT = 64  # characters of a number given as text; keeps exponents and with them the integers behind them small
LARGEST_EXPONENT = 400

P = ParamSpec("P")
T = TypeVar("T")

_TRAPS = [DivisionByZero, InvalidOperation, Overflow]
_NEAREST = Context(DIGITS, ROUND_HALF_EVEN, MIN_EMIN, MAX_EMAX, traps=_TRAPS)
_DOWN = Context(DIGITS, ROUND_FLOOR, MIN_EMIN, MAX_EMAX, traps=_TRAPS)
_UP = Context(DIGITS, ROUND_CEILING, MIN_EMIN, MAX_EMAX, traps=_TRAPS)


def precise(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` in a fresh 60-digit context, whatever context the caller has set."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with localcontext(_NEAREST):
            return function(*args, **kwargs)

    return wrapped


def decimal_below(value: Rational) -> Decimal:
    """The largest 60-digit Decimal that is not above a rational number."""
    return _DOWN.divide(Decimal(value.numerator), Decimal(value.denominator))


def decimal_above(value: Rational) -> Decimal:
    """The smallest 60-digit Decimal that is not below a rational number."""
    return _UP.divide(Decimal(value.numerator), Decimal(value.denominator))


def float_below(value: Decimal | Fraction) -> float:
    """The largest float that is not above an exact number."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= Fraction(value) else nextafter(nearest, -inf)


def exact_fraction(value: object, name: str) -> Fraction:
    """The exact rational number that a caller means: text and floats have their decimal meaning, 0.12 is 12/100.

    Raises InputError for anything that is not a finite number; `name` is the argument's name for the message.
    """
    if isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; a number is required, such as 0.25, '0.25' or Fraction(1, 4)")
    if isinstance(value, Rational):  # int, Fraction and NumPy's integers
        return Fraction(int(value.numerator), int(value.denominator))
    return _fraction_of_text(value, name)


def _fraction_of_text(value: object, name: str) -> Fraction:
    """Of a text, or of a float or Decimal as it is printed; apart, so that integers meet no float on their way."""
    if isinstance(value, Decimal):
        value = str(value)
    try:
        if not isinstance(value, str):
            if not isfinite(float(value)):
                raise ValueError
            value = str(value)  # the shortest text that reads back as this float, whether 64 or 32 bits wide
        if len(value) > LARGEST_TEXT or abs(int(value.lower().partition("e")[2] or 0)) > LARGEST_EXPONENT:
            raise ValueError
        return Fraction(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise InputError(
            f"{name} is {str(value)[:80]!r}; a finite number is required, such as 0.25, '0.25', '1/4' or Fraction(1, 4)"
        ) from None


def exact_text(value: Fraction) -> str:
    """A rational number as people write it: '0.25' where the decimal expansion ends, else '1/3'; reads back exactly."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1 or places > 30:
        return str(value)
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
