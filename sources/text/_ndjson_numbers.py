"""JSON numbers to integers and correctly rounded doubles.

A number is read as decimal digits and a power of ten; the double comes from one exact multiplication or division where
that is possible (Clinger 1990), else from the 128-bit product of Lemire, "Number parsing at a gigabyte per second"
(Softw. Pract. Exper. 51, 2021). What neither decides (more than 19 digits, subnormals, out of range) is left to the
caller, who asks Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._ndjson_simd import double_of_bits, high_product, leading_zeros, load8, load64

__all__ = ["INTEGER", "REAL", "UNREAD", "make_double", "read_number"]

#: What `read_number` found: an integer, a number with a fraction or an exponent, or something for the slow path.
INTEGER, REAL, UNREAD = 0, 1, 2

_LEAST, _MOST = -300, 300


def _five_powers() -> tuple[np.ndarray, np.ndarray]:
    """The 128 leading bits of 5**q for q in [_LEAST, _MOST], as two halves; negative powers rounded up."""
    upper, lower = [], []
    for q in range(_LEAST, _MOST + 1):
        power = 5 ** abs(q)
        if q >= 0:
            size = power.bit_length()
            bits = power << (128 - size) if size <= 128 else power >> (size - 128)
        else:
            z = (power - 1).bit_length()
            bits = (1 << (z + 127 if q >= -27 else 2 * z + 128)) // power + 1
            bits >>= max(0, bits.bit_length() - 128)
        upper.append(bits >> 64)
        lower.append(bits & ((1 << 64) - 1))
    return np.array(upper, np.uint64), np.array(lower, np.uint64)


_FIVE_HIGH, _FIVE_LOW = _five_powers()
_TEN = np.array([float(10**e) for e in range(23)], np.float64)
_U = np.uint64
_ONES = _U((1 << 64) - 1)


@kernel
def read_number(at: Any) -> Any:
    """Read a JSON number at an address: ``(end, kind, negative, digits, exponent)``, value = digits * 10**exponent.

    UNREAD if the text is no JSON number or needs more than 19 digits or an exponent of more than 4.
    """
    zero, ten = np.int64(48), _U(10)
    negative = load8(at) == 45
    if negative:
        at += 1
    digits, exponent, count, kind = _U(0), np.int64(0), np.int64(0), INTEGER
    byte = load8(at) - zero
    if byte == 0:
        at += 1
        byte = load8(at) - zero
        if byte >= 0 and byte <= 9:
            return at, UNREAD, negative, digits, exponent
    elif byte > 0 and byte <= 9:
        start = at
        word = load64(at)
        while _eight_digits(word):
            digits = digits * _U(100_000_000) + _eight_value(word)
            at += 8
            if at - start > 16:
                return at, UNREAD, negative, digits, exponent
            word = load64(at)
        byte = load8(at) - zero
        while byte >= 0 and byte <= 9:
            digits = digits * ten + _U(byte)
            at += 1
            byte = load8(at) - zero
        count = at - start
        if count > 19:
            return at, UNREAD, negative, digits, exponent
    else:
        return at, UNREAD, negative, digits, exponent
    if byte == -2:  # "."
        kind = REAL
        at += 1
        first = at
        byte = load8(at) - zero
        while byte >= 0 and byte <= 9:
            digits = digits * ten + _U(byte)
            if count > 0 or digits != _U(0):
                count += 1
            at += 1
            byte = load8(at) - zero
        exponent = first - at
        if exponent == 0 or count > 19:
            return at, UNREAD, negative, digits, exponent
    if byte == 21 or byte == 53:  # "E" or "e"
        kind = REAL
        at += 1
        byte = load8(at)
        down = byte == 45
        if down or byte == 43:
            at += 1
        first = at
        power = np.int64(0)
        byte = load8(at) - zero
        while byte >= 0 and byte <= 9:
            power = power * 10 + byte
            at += 1
            if at - first > 4:
                return at, UNREAD, negative, digits, exponent
            byte = load8(at) - zero
        if at == first:
            return at, UNREAD, negative, digits, exponent
        exponent += -power if down else power
    return at, kind, negative, digits, exponent


@kernel
def _eight_digits(word: Any) -> Any:
    high = _U(0xF0F0F0F0F0F0F0F0)
    return (word & high) | (((word + _U(0x0606060606060606)) & high) >> _U(4)) == _U(0x3333333333333333)


@kernel
def _eight_value(word: Any) -> Any:
    word -= _U(0x3030303030303030)
    word = word * _U(10) + (word >> _U(8))
    mask = _U(0x000000FF000000FF)
    low = (word & mask) * _U(0x000F424000000064)
    high = ((word >> _U(16)) & mask) * _U(0x0000271000000001)
    return (low + high) >> _U(32)


@kernel
def make_double(negative: Any, digits: Any, exponent: Any) -> Any:
    """``(True, digits * 10**exponent)`` as the nearest double, or ``(False, 0.0)`` where that was not decided."""
    if digits <= _U(1 << 53) and exponent >= -22 and exponent <= 22:
        value = np.float64(digits)
        value = value / _TEN[-exponent] if exponent < 0 else value * _TEN[exponent]
        return True, -value if negative else value
    if digits == _U(0):
        return True, -0.0 if negative else 0.0
    if exponent < _LEAST or exponent > _MOST:
        return False, 0.0
    shift = leading_zeros(digits)
    scaled = digits << _U(shift)
    high_half = _FIVE_HIGH[exponent - _LEAST]
    low = scaled * high_half
    high = high_product(scaled, high_half)
    if high & _U(0x1FF) == _U(0x1FF):
        more = high_product(scaled, _FIVE_LOW[exponent - _LEAST])
        low += more
        if low < more:
            high += _U(1)
    if low == _ONES and (exponent < -27 or exponent > 55):
        return False, 0.0
    top = np.int64(high >> _U(63))
    drop = _U(top + 9)
    mantissa = high >> drop
    power = ((217706 * exponent) >> 16) + 63 + top - shift + 1023
    if power <= 0:
        return False, 0.0
    halfway = low <= _U(1) and exponent >= -4 and exponent <= 23 and mantissa & _U(3) == _U(1)
    if halfway and mantissa << drop == high:
        mantissa &= ~_U(1)
    mantissa = (mantissa + (mantissa & _U(1))) >> _U(1)
    if mantissa >= _U(1 << 53):
        mantissa = _U(1 << 52)
        power += 1
    if power >= 2047:
        return False, 0.0
    bits = (mantissa & _U((1 << 52) - 1)) | (_U(power) << _U(52))
    if negative:
        bits |= _U(1 << 63)
    return True, double_of_bits(bits)
