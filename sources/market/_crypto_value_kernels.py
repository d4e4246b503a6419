"""Values in a recorder line: stamps, decimal numbers, levels of a book; what is not plain is left to the general path."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ..text._ndjson_numbers import _eight_digits, _eight_value, make_double
from ..text._ndjson_simd import load8, load16, load64, load_i64, store8, store64, store_f64

__all__ = ["read_decimal", "read_levels", "read_stamp", "to_ns", "to_price", "to_size"]

_U = np.uint64
_I = np.int64
_TENS = np.array([10**e for e in range(19)], np.uint64)
_FLOAT_TENS = np.array([10.0**e for e in range(23)], np.float64)
_MOST = _U((1 << 63) - 1)


@kernel
def read_decimal(at: Any) -> Any:
    """The quoted number whose text begins at `at`: ``(closing quote, digits, decimals)``; 0 if not sure."""
    zero = _I(48)
    digits = _U(0)
    first = at
    byte = load8(at) - zero
    while byte >= 0 and byte <= 9:
        digits = digits * _U(10) + _U(byte)
        at += 1
        byte = load8(at) - zero
    whole = at - first
    decimals = _I(0)
    if byte == -2:
        at += 1
        first = at
        byte = load8(at) - zero
        while byte >= 0 and byte <= 9:
            digits = digits * _U(10) + _U(byte)
            at += 1
            byte = load8(at) - zero
        decimals = at - first
        if decimals == 0:
            return _I(0), digits, decimals
    if whole == 0 or whole + decimals > 19 or byte != -14:
        return _I(0), digits, decimals
    return at, digits, decimals


@kernel
def to_price(digits: Any, decimals: Any, unit: Any) -> Any:
    """``(True, digits * 10**(unit - decimals))`` where that is exact and an int64."""
    power = unit - decimals
    if power >= 0:
        scale = _TENS[power]
        if digits > _MOST // scale:
            return False, _I(0)
        return True, _I(digits * scale)
    if power < -18:
        return digits == _U(0), _I(0)
    scale = _TENS[-power]
    whole = digits // scale
    return whole * scale == digits and whole <= _MOST, _I(whole)


@kernel
def to_size(digits: Any, decimals: Any) -> Any:
    """``(True, digits / 10**decimals)``, the nearest float64, where that was decided."""
    if digits <= _U(1 << 53):
        return True, np.float64(digits) / _FLOAT_TENS[decimals]
    return make_double(False, digits, -decimals)


@kernel
def read_levels(at: Any, side: Any, row: Any, room: Any, columns: Any, unit: Any) -> Any:
    """The levels at ``[``: ``(end, row)``; end 0 if not sure, -1 if there is no room. `columns` 0: do not keep them."""
    at += 1
    if load8(at) == 93:
        return at + 1, row
    sides, prices, sizes = _I(0), _I(0), _I(0)
    if columns:
        sides, prices, sizes = load_i64(columns + 32), load_i64(columns + 40), load_i64(columns + 48)
    while True:
        if load16(at) != 0x225B:  # ["
            return _I(0), row
        at, digits, decimals = read_decimal(at + 2)
        if at == 0 or load16(at + 1) != 0x222C:  # ,"
            return _I(0), row
        good, price = to_price(digits, decimals, unit)
        if not good:
            return _I(0), row
        at, digits, decimals = read_decimal(at + 3)
        if at == 0 or load8(at + 1) != 93:
            return _I(0), row
        good, size = to_size(digits, decimals)
        if not good:
            return _I(0), row
        if columns:
            if row >= room:
                return _I(-1), row
            store8(sides + row, side)
            store64(prices + row * 8, price)
            store_f64(sizes + row * 8, size)
            row += 1
        at += 2
        byte = load8(at)
        at += 1
        if byte != 44:
            if byte == 93:
                return at, row
            return _I(0), row


@kernel
def read_stamp(at: Any) -> Any:
    """``(True, ns)`` of 19 digits, a blank and an opening brace."""
    one, two = load64(at), load64(at + 8)
    if not _eight_digits(one) or not _eight_digits(two):
        return False, _I(0)
    a, b, c = load8(at + 16) - 48, load8(at + 17) - 48, load8(at + 18) - 48
    if min(a, b, c) < 0 or max(a, b, c) > 9 or load16(at + 19) != 0x7B20:
        return False, _I(0)
    value = (_eight_value(one) * _U(100_000_000) + _eight_value(two)) * _U(1000) + _U(a * 100 + b * 10 + c)
    return value <= _MOST, _I(value)


@kernel
def to_ns(value: Any) -> Any:
    """ms (or, from 10**15 on, microseconds) as ns; -1 where that is beyond int64."""
    if value >= 1_000_000_000_000_000:
        return value * 1_000 if value <= 9_223_372_036_854_775 else _I(-1)
    return value * 1_000_000 if value <= 9_223_372_036_854 else _I(-1)
