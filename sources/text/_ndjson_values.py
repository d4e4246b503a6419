"""A JSON value straight into its column: checked against the column's type, stored at the row."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._ndjson_numbers import INTEGER, UNREAD, make_double, read_number
from ._ndjson_simd import (
    load8,
    load64,
    load_i32,
    load_i64,
    store8,
    store16,
    store32,
    store64,
    store_f32,
    store_f64,
)
from ._ndjson_text import copy_text, intern, read_iso, string_end

__all__ = [
    "CODES",
    "COLUMN",
    "DICTIONARY",
    "EPOCH",
    "FALS",
    "FILL",
    "FLAGS",
    "FLOATS",
    "FOUR_BYTES",
    "INTEGERS",
    "KIND",
    "LEAST",
    "MOST",
    "NULL",
    "NULLS",
    "TARGET",
    "TEXTS",
    "TEXT_TIMES",
    "TIMES",
    "TRUE",
    "UNIT",
    "VALID",
    "WIDTH",
    "read_column",
    "store_integer",
]

#: Kinds of columns; those from CODES on are read from strings.
INTEGERS, FLOATS, TIMES, FLAGS, CODES, TEXTS, TEXT_TIMES = range(7)
#: A column's record: what the scanner must know of it, int64 each, at these byte offsets.
KIND, WIDTH, TARGET, FILL, MOST, LEAST, UNIT, EPOCH, VALID, NULLS, DICTIONARY = range(0, 88, 8)
COLUMN = 96
_U = np.uint64
#: The literals as they stand in memory, four bytes of each.
NULL, TRUE, FALS, FOUR_BYTES = _U(0x6C6C756E), _U(0x65757274), _U(0x736C6166), _U(0xFFFFFFFF)
_TENS = np.array([10**e for e in range(19)], np.uint64)
_FLOAT32_MOST = float(np.finfo(np.float32).max)


@kernel
def _to_ns(negative: Any, digits: Any, exponent: Any) -> Any:
    """``(True, digits * 10**exponent)`` as an integer, halves to even; False where that passes 2**62."""
    if exponent < 0:
        if exponent < -18:
            return False, np.int64(0)
        unit = _TENS[-exponent]
        whole, rest = digits // unit, digits % unit
        if rest * _U(2) > unit or (rest * _U(2) == unit and whole & _U(1) == _U(1)):
            whole += _U(1)
    else:
        if exponent > 18 or digits > _U(1 << 62) // _TENS[exponent]:
            return False, np.int64(0)
        whole = digits * _TENS[exponent]
    if whole > _U(1 << 62):
        return False, np.int64(0)
    value = np.int64(whole)
    return True, -value if negative else value


@kernel
def store_integer(address: Any, row: Any, width: Any, value: Any) -> Any:
    if width == 8:
        store64(address + row * 8, value)
    elif width == 4:
        store32(address + row * 4, value)
    elif width == 2:
        store16(address + row * 2, value)
    else:
        store8(address + row, value)


@kernel
def read_column(at: Any, row: Any, column: Any, limit: Any) -> Any:
    """Read the value at `at` into the column whose record is at `column`: ``(end, outcome)``.

    Outcome 1: stored, 0: null, -1: for the slow path, -2: the dictionary takes no more, and the end says why.
    """
    kind, target, width = load_i64(column + KIND), load_i64(column + TARGET), load_i64(column + WIDTH)
    byte = load8(at)
    if byte == 110:
        if load64(at) & FOUR_BYTES == NULL:
            return at + 4, np.int64(0)
        return at, np.int64(-1)
    if kind >= CODES:
        if byte != 34:
            return at, np.int64(-1)
        at += 1
        stop = string_end(at, limit)
        if load8(stop) != 34:
            return at, np.int64(-1)
        size = stop - at
        if kind == CODES:
            code = intern(at, size, load_i64(column + DICTIONARY))
            if code < 0:
                return code, np.int64(-2)
            store_integer(target, row, width, code)
        elif kind == TEXTS:
            offsets = load_i64(column + FILL) + row * 4
            start = load_i32(offsets)
            copy_text(target + start, at, size)
            store32(offsets + 4, start + size)
        else:
            good, value = read_iso(at, stop)
            if not good:
                return at, np.int64(-1)
            store64(target + row * 8, value)
        return stop + 1, np.int64(1)
    if kind == FLAGS:
        if load64(at) & FOUR_BYTES == TRUE:
            store8(target + row, 1)
            return at + 4, np.int64(1)
        if load64(at) & FOUR_BYTES == FALS and load8(at + 4) == 101:
            store8(target + row, 0)
            return at + 5, np.int64(1)
        return at, np.int64(-1)
    stop, form, negative, digits, exponent = read_number(at)
    if form == UNREAD:
        return at, np.int64(-1)
    if kind == INTEGERS:
        if form != INTEGER or digits > (load64(column + LEAST) if negative else load64(column + MOST)):
            return at, np.int64(-1)
        whole = np.int64(digits)
        store_integer(target, row, width, -whole if negative else whole)
    elif kind == FLOATS:
        good, real = make_double(negative, digits, exponent)
        if not good:
            return at, np.int64(-1)
        if form == INTEGER and digits == _U(0):
            real = 0.0
        if width == 8:
            store_f64(target + row * 8, real)
        else:
            if abs(real) > _FLOAT32_MOST:
                return at, np.int64(-1)
            store_f32(target + row * 4, real)
    else:
        good, value = _to_ns(negative, digits, exponent + load_i64(column + UNIT))
        if not good:
            return at, np.int64(-1)
        store64(target + row * 8, value + load_i64(column + EPOCH))
    return stop, np.int64(1)
