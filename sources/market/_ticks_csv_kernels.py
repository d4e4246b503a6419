"""Lines of comma-separated ticks at native speed: where they begin, and from digits to integers without a float between.

Text is read by address, because a helper that takes an array costs more than the field it reads. No address is read that
is not between the ends of its line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...pipeline.jit import kernel

__all__ = [
    "EMPTY",
    "FIELDS",
    "FINE",
    "NONE",
    "NUMBER",
    "RANGE",
    "TIME",
    "WORD",
    "lines",
    "parse",
    "span_sizes",
    "span_texts",
]

# What a field is. Prices are 1e-9; a time is an integer times its scale, or in the unit that its size tells.
SKIP, INT, PRICE, ROUNDED, FLOAT, STAMP, SECONDS, SIDE, BOOL, TEXT, IDENTITY, DATETIME = range(12)
# What is wrong with a line.
FIELDS, EMPTY, NUMBER, RANGE, FINE, WORD, TIME = range(1, 8)
#: A number that is not there.
NONE = -(1 << 63)

_MOST = np.uint64(922_337_203_685_477_579)  # ten times this, and a digit, fits an int64
_INT_MAX = np.uint64((1 << 63) - 1)
_TENS = np.array([10**i for i in range(19)], np.uint64)
_FLOAT_TENS = np.array([10.0**i for i in range(23)])
_COMMA, _QUOTE, _MINUS, _PLUS, _POINT, _ZERO = 44, 34, 45, 43, 46, 48


@intrinsic  # type: ignore[untyped-decorator]
def _byte(typing: Any, address: Any) -> Any:
    """The byte at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))

    return types.int64(types.int64), generate


@kernel
def lines(base: Any, filled: Any, final: Any, starts: Any, ends: Any) -> Any:
    """``(lines, newlines, where the next begins)``: whole lines that are not blank; a carriage return is no part of one."""
    count, newlines, at, begin = 0, 0, 0, 0
    most = len(starts)
    while at < filled and count < most:
        if _byte(base + at) == 10:
            stop = at
            if stop > begin and _byte(base + stop - 1) == 13:
                stop -= 1
            if stop > begin:
                starts[count] = begin
                ends[count] = stop
                count += 1
            newlines += 1
            begin = at + 1
        at += 1
    if final and at >= filled and begin < filled and count < most:
        stop = filled
        if _byte(base + stop - 1) == 13:
            stop -= 1
        if stop > begin:
            starts[count] = begin
            ends[count] = stop
            count += 1
        begin = filled
    return count, newlines, begin


@kernel
def _decimal(at: Any, end: Any) -> Any:
    """``(wrong, negative, digits, exponent, cut)`` of a number. `cut` says that not all digits fit."""
    negative = False
    if at < end and (_byte(at) == _MINUS or _byte(at) == _PLUS):
        negative = _byte(at) == _MINUS
        at += 1
    digits = np.uint64(0)
    exponent, zeros, seen, point, cut = 0, 0, 0, False, False
    while at < end:
        byte = _byte(at)
        if byte == _POINT and not point:
            point = True
        elif 48 <= byte <= 57:
            seen += 1
            digit = np.uint64(byte - 48)
            if digit == np.uint64(0) and (point or zeros > 0):
                zeros += 1  # counts only if another digit follows
                exponent -= 1 if point else 0
            else:
                while zeros > 0 and digits <= _MOST:
                    digits *= np.uint64(10)
                    zeros -= 1
                if zeros > 0 or digits > _MOST:
                    cut = True
                else:
                    digits = digits * np.uint64(10) + digit
                exponent -= 1 if point else 0
        else:
            break
        at += 1
    exponent += zeros
    if at < end and (_byte(at) == 101 or _byte(at) == 69) and seen > 0:
        at += 1
        down = False
        if at < end and (_byte(at) == _MINUS or _byte(at) == _PLUS):
            down = _byte(at) == _MINUS
            at += 1
        power, some = 0, False
        while at < end and 48 <= _byte(at) <= 57:
            power = min(power * 10 + _byte(at) - 48, 10_000)
            some = True
            at += 1
        if not some:
            return True, negative, digits, exponent, cut
        exponent += -power if down else power
    return at != end or seen == 0, negative, digits, exponent, cut


@kernel
def _scaled(digits: Any, exponent: Any, places: Any, rounded: Any) -> Any:
    """``(what is wrong, digits * 10**(exponent + places))``, which must be an integer unless `rounded` (half to even)."""
    shift = exponent + places
    if digits == np.uint64(0):
        return 0, np.uint64(0)
    if shift >= 0:
        if shift > 18 or digits > _INT_MAX // _TENS[shift]:
            return RANGE, digits
        return 0, digits * _TENS[shift]
    if shift < -18:
        return (0 if rounded else FINE), np.uint64(0)
    unit = _TENS[-shift]
    whole, rest = digits // unit, digits % unit
    if rest != np.uint64(0):
        if not rounded:
            return FINE, whole
        twice = rest * np.uint64(2)
        if twice > unit or (twice == unit and (whole & np.uint64(1)) == np.uint64(1)):
            whole += np.uint64(1)
    return 0, whole


@kernel
def _fixed(at: Any, end: Any, places: Any, rounded: Any) -> Any:
    """``(what is wrong, number * 10**places)`` as int64."""
    wrong, negative, digits, exponent, cut = _decimal(at, end)
    if wrong:
        return NUMBER, np.int64(0)
    if cut:
        return RANGE, np.int64(0)
    what, value = _scaled(digits, exponent, places, rounded)
    if what == 0 and value > _INT_MAX:
        what = RANGE
    number = np.int64(value & _INT_MAX)
    return what, -number if negative else number


@kernel
def _two(at: Any) -> Any:
    tens, ones = _byte(at) - 48, _byte(at + 1) - 48
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1


@kernel
def _datetime(at: Any, end: Any) -> Any:
    """``(what is wrong, ns)`` of ``2024-01-31 23:59:59`` with T or a space, a fraction if any, Z if any; UTC."""
    if end - at < 19 or _byte(at + 4) != 45 or _byte(at + 7) != 45 or _byte(at + 13) != 58 or _byte(at + 16) != 58:
        return TIME, np.int64(0)
    high, low, month, day = _two(at), _two(at + 2), _two(at + 5), _two(at + 8)
    hour, minute, second = _two(at + 11), _two(at + 14), _two(at + 17)
    separator = _byte(at + 10)
    if min(high, low, hour, minute, second) < 0 or not 1 <= month <= 12 or (separator != 32 and separator != 84):
        return TIME, np.int64(0)
    year = high * 100 + low
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    length = 29 if month == 2 and leap else 28 if month == 2 else 30 if month in (4, 6, 9, 11) else 31
    if not 1 <= day <= length or hour > 23 or minute > 59 or second > 59 or not 1700 <= year <= 2261:
        return TIME, np.int64(0)
    rest, fraction, unit = at + 19, np.int64(0), np.int64(1_000_000_000)
    if rest < end and _byte(rest) == _POINT:
        rest += 1
        while rest < end and 48 <= _byte(rest) <= 57:
            unit //= 10
            if unit == 0 and _byte(rest) != 48:
                return FINE, np.int64(0)
            fraction += (_byte(rest) - 48) * unit
            rest += 1
    if rest < end and _byte(rest) == 90:
        rest += 1
    if rest != end:
        return TIME, np.int64(0)
    shifted = year - (1 if month <= 2 else 0)  # days from the civil date, years beginning in March
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return 0, (days * 86_400 + hour * 3600 + minute * 60 + second) * 1_000_000_000 + fraction


@kernel
def _stamp(at: Any, end: Any, scale: Any) -> Any:
    """``(what is wrong, ns)`` of an integer time; with a scale of 0, its size tells s, ms, us and ns apart."""
    what, value = _fixed(at, end, 0, False)
    if what != 0:
        return what, value
    if scale == 0:
        size = abs(value)
        if size < 100_000_000_000:
            scale = 1_000_000_000
        elif size < 100_000_000_000_000:
            scale = 1_000_000
        elif size < 100_000_000_000_000_000:
            scale = 1000
        else:
            scale = 1
    if abs(value) > 9_223_372_036_854_775_000 // scale:
        return RANGE, value
    return 0, value * scale


@kernel
def _identity(at: Any, end: Any) -> Any:
    """The number that a text of digits is, else the FNV-1a hash of the text."""
    what, value = _fixed(at, end, 0, False)
    if what == 0 and value >= 0 and 48 <= _byte(at) <= 57:
        return np.uint64(value)
    mixed = np.uint64(0xCBF29CE484222325)
    while at < end:
        mixed = (mixed ^ np.uint64(_byte(at))) * np.uint64(0x100000001B3)
        at += 1
    return mixed


@kernel
def _side(at: Any, end: Any) -> Any:
    """1 for buy, bid and b; -1 for sell, ask, s and a; 0 for unknown; 2 for any other word. Case does not matter."""
    first, size = _byte(at) | 32, end - at
    second = _byte(at + 1) | 32 if size > 1 else 0
    if first == 98 and (size == 1 or (size == 3 and (second == 117 or second == 105))):
        return 1
    if (first == 115 and (size == 1 or (size == 4 and second == 101))) or (
        first == 97 and (size == 1 or (size == 3 and second == 115))
    ):
        return -1
    return 0 if first == 117 and size == 7 and second == 110 else 2


@kernel
def parse(
    base: Any, starts: Any, ends: Any, count: Any, kinds: Any, slots: Any, optional: Any, scales: Any,
    ints: Any, floats: Any, slow: Any, spans: Any, status: Any,
) -> None:  # fmt: skip
    """Fields of lines to `ints`, `floats` (both by slot and line) and `spans` (begin and end of texts).

    `status` is 0 for a sound line, else what is wrong with it in the low byte and the field in the others. `slow` marks
    floats that need more than a double's digits to be read right.
    """
    width = len(kinds)
    for line in range(count):
        at, end = base + np.int64(starts[line]), base + np.int64(ends[line])
        field, wrong = 0, 0
        while wrong == 0:
            stop = at
            while stop < end and _byte(stop) != _COMMA:
                stop += 1
            if field >= width:
                wrong = FIELDS
                break
            kind, slot = kinds[field], slots[field]
            begin, until = at, stop
            if until - begin >= 2 and _byte(begin) == _QUOTE and _byte(until - 1) == _QUOTE:
                begin, until = begin + 1, until - 1
            if kind == SKIP:
                pass
            elif kind == TEXT:
                spans[slot, line, 0] = begin - base
                spans[slot, line, 1] = until - base
            elif begin == until:
                if not optional[field]:
                    wrong = EMPTY
                elif kind == FLOAT:
                    floats[slot, line] = np.nan
                else:
                    ints[slot, line] = NONE
            elif kind == FLOAT:
                bad, negative, digits, exponent, cut = _decimal(begin, until)
                if bad:
                    wrong = NUMBER
                elif cut or digits >= np.uint64(1 << 53) or exponent < -22 or exponent > 22:
                    slow[slot, line] = True
                    spans[len(spans) - 1 - slot, line, 0] = begin - base
                    spans[len(spans) - 1 - slot, line, 1] = until - base
                else:
                    value = np.float64(digits)
                    value = value / _FLOAT_TENS[-exponent] if exponent < 0 else value * _FLOAT_TENS[exponent]
                    floats[slot, line] = -value if negative else value
            elif kind == BOOL:
                word, size = _byte(begin) | 32, until - begin
                if (word == 116 and (size == 4 or size == 1)) or (word == 49 and size == 1):
                    ints[slot, line] = 1
                elif (word == 102 and (size == 5 or size == 1)) or (word == 48 and size == 1):
                    ints[slot, line] = 0
                else:
                    wrong = WORD
            elif kind == SIDE:
                side = _side(begin, until)
                ints[slot, line] = side
                if side == 2:
                    wrong = WORD
            elif kind == IDENTITY:
                ints[slot, line] = np.int64(_identity(begin, until))
            elif kind == DATETIME:
                wrong, ints[slot, line] = _datetime(begin, until)
            elif kind == STAMP:
                wrong, ints[slot, line] = _stamp(begin, until, scales[field])
            elif kind == INT:
                wrong, ints[slot, line] = _fixed(begin, until, 0, False)
            else:
                wrong, ints[slot, line] = _fixed(begin, until, scales[field], kind == ROUNDED)
            field += 1
            if stop >= end:
                break
            at = stop + 1
        if wrong == 0 and field != width:
            wrong = FIELDS
        status[line] = wrong | (max(0, field - 1) << 8)


@kernel
def span_sizes(spans: Any, rows: Any, ends: Any) -> Any:
    """Arrow offsets of the texts of `rows`."""
    total = np.int32(0)
    ends[0] = 0
    for i in range(len(rows)):
        total += np.int32(spans[rows[i], 1] - spans[rows[i], 0])
        ends[i + 1] = total
    return total


@kernel
def span_texts(base: Any, spans: Any, rows: Any, ends: Any, out: Any) -> None:
    """Copy texts to where `span_sizes` said."""
    for i in range(len(rows)):
        at = base + np.int64(spans[rows[i], 0])
        for j in range(ends[i + 1] - ends[i]):
            out[ends[i] + j] = _byte(at + j)
