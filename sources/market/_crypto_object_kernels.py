"""A message of Binance: a flat object whose keys are one letter, each value in the slot of its letter."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ..text._ndjson_simd import load8, load16, load64, load_i64, store64
from ..text._ndjson_text import string_end
from ._crypto_value_kernels import read_decimal, read_levels, to_price, to_size

__all__ = [
    "AGG_TRADE",
    "BBO",
    "DEPTH",
    "HAS_PU",
    "HAS_T",
    "HAS_TIME",
    "PU",
    "TRADE",
    "is_partial",
    "kind_of",
    "price_at",
    "read_object",
    "size_at",
    "value_of",
    "word",
]

#: Kinds of messages.
BBO, TRADE, AGG_TRADE, DEPTH = 0, 1, 2, 3

_U = np.uint64
_I = np.int64


def word(text: str) -> np.uint64:
    """Up to eight characters as they stand in memory."""
    return np.uint64(int.from_bytes(text.encode(), "little"))


_AGG, _BOOK, _BOOK_END = word("aggTrade"), word("bookTick"), word("okTicker")
_DEPTH, _DEPTH_END = word("depthUpd"), word("thUpdate")
_TRADE, _FIVE = word("trade"), _U((1 << 40) - 1)
_AT_DEPTH, _SIX = word("@depth"), _U((1 << 48) - 1)
_TRUE, _FALS, _DATA, _FOUR = word("true"), word("fals"), word("data"), _U(0xFFFFFFFF)
_KEY_PU = word('"pu":')
#: What a slot holds.
_DECIMAL, _TEXT, _INTEGER, _FLAG, _LEVELS = 1, 2, 3, 4, 5
#: Bit and slot of ``pu``; the others' are those of their letter, counted from A.
PU = 60


def _bits(letters: str) -> np.int64:
    return np.int64(sum(1 << (ord(letter) - 65) for letter in letters))


HAS_T, HAS_TIME, HAS_PU = _bits("T"), _bits("E"), np.int64(1 << PU)
_HAS_E = _bits("e")
_BEST_KEYS, _TRADE_KEYS, _AGG_KEYS, _DEPTH_KEYS = _bits("usbBaA"), _bits("stpqm"), _bits("sapqm"), _bits("sUuba")


@kernel
def is_partial(at: Any, size: Any) -> Any:
    """Whether a stream's name has ``@depth`` with a digit behind it."""
    for index in range(size - 6):
        if load8(at + index) == 64 and load64(at + index) & _SIX == _AT_DEPTH:
            byte = load8(at + index + 6)
            if byte >= 48 and byte <= 57:
                return True
    return False


@kernel
def read_object(at: Any, slots: Any, row: Any, room: Any, columns: Any, unit: Any) -> Any:
    """The flat object whose ``{`` is at `at`, into `slots` (form, value, second value of each key).

    ``(end, seen, row)``: end 0 if not sure, -1 if there is no room for its levels; `seen` has a bit for each key.
    """
    seen = _I(0)
    at += 1
    while True:
        if load8(at) != 34:
            return _I(0), seen, row
        key = load8(at + 1)
        letter = key | 32
        index = _I(-1)
        if letter >= 97 and letter <= 122 and load16(at + 2) == 0x3A22:  # ":
            index = key - 65
            at += 4
        elif load64(at) & _FIVE == _KEY_PU:
            index = _I(PU)
            at += 5
        else:
            stop = string_end(at + 1, 128)
            if load16(stop) != 0x3A22 or (stop - at == 5 and load64(at + 1) & _FOUR == _DATA):
                return _I(0), seen, row
            key, letter = _I(0), _I(0)  # nothing that rows are made of
            at = stop + 2
        if index >= 0:
            bit = _I(1) << index
            if seen & bit:
                return _I(0), seen, row
            seen |= bit
        else:
            index = _I(PU + 1)
        slot = slots + index * 24
        byte = load8(at)
        if byte == 34:
            # p q b B a A
            if key == 112 or key == 113 or letter == 98 or letter == 97:
                at, digits, decimals = read_decimal(at + 1)
                if at == 0:
                    return _I(0), seen, row
                store64(slot, _I(_DECIMAL))
                store64(slot + 8, _I(digits))
                store64(slot + 16, decimals)
            else:
                stop = string_end(at + 1, 128)
                if load8(stop) != 34:
                    return _I(0), seen, row
                store64(slot, _I(_TEXT))
                store64(slot + 8, at + 1)
                store64(slot + 16, stop - at - 1)
                at = stop
            at += 1
        elif byte >= 48 and byte <= 57:
            first = at
            value = _I(0)
            while byte >= 48 and byte <= 57:
                value = value * 10 + (byte - 48)
                at += 1
                byte = load8(at)
            if at - first > 18 or (at - first > 1 and load8(first) == 48):
                return _I(0), seen, row
            store64(slot, _I(_INTEGER))
            store64(slot + 8, value)
        elif byte == 91:
            if key == 98:
                if seen & _I(1 << 32):
                    return _I(0), seen, row
                at, row = read_levels(at, _I(1), row, room, columns, unit)
            elif key == 97:
                if not seen & _I(1 << 33):
                    return _I(0), seen, row
                at, row = read_levels(at, _I(-1), row, room, columns, unit)
            else:
                return _I(0), seen, row
            if at <= 0:
                return at, seen, row
            store64(slot, _I(_LEVELS))
        elif byte == 116 and load64(at) & _FOUR == _TRUE:
            store64(slot, _I(_FLAG))
            store64(slot + 8, _I(1))
            at += 4
        elif byte == 102 and load64(at) & _FOUR == _FALS and load8(at + 4) == 101:
            store64(slot, _I(_FLAG))
            store64(slot + 8, _I(0))
            at += 5
        else:
            return _I(0), seen, row
        byte = load8(at)
        at += 1
        if byte == 44:
            continue
        if byte == 125:
            return at, seen, row
        return _I(0), seen, row


@kernel
def form_of(slots: Any, letter: Any) -> Any:
    return load_i64(slots + (letter - 65) * 24)


@kernel
def value_of(slots: Any, letter: Any) -> Any:
    return load_i64(slots + (letter - 65) * 24 + 8)


@kernel
def kind_of(seen: Any, slots: Any) -> Any:
    """The kind of message in `slots`, with all its values of the right form; -1 if not sure."""
    if seen & _HAS_E:
        if form_of(slots, 101) != _TEXT:
            return -1
        at, size = value_of(slots, 101), load_i64(slots + (101 - 65) * 24 + 16)
        if size == 5 and load64(at) & _FIVE == _TRADE:
            kind = TRADE
        elif size == 8 and load64(at) == _AGG:
            kind = AGG_TRADE
        elif size == 10 and load64(at) == _BOOK and load64(at + 2) == _BOOK_END:
            kind = BBO
        elif size == 11 and load64(at) == _DEPTH and load64(at + 3) == _DEPTH_END:
            kind = DEPTH
        else:
            return -1
    else:
        kind = BBO
    if kind == BBO:
        if seen & _BEST_KEYS != _BEST_KEYS or form_of(slots, 117) != _INTEGER:
            return -1
        for letter in (98, 66, 97, 65):
            if form_of(slots, letter) != _DECIMAL:
                return -1
    elif kind == DEPTH:
        if seen & _DEPTH_KEYS != _DEPTH_KEYS or form_of(slots, 85) != _INTEGER or form_of(slots, 117) != _INTEGER:
            return -1
        if form_of(slots, 98) != _LEVELS or form_of(slots, 97) != _LEVELS:
            return -1
        if seen & HAS_PU and load_i64(slots + PU * 24) != _INTEGER:
            return -1
    else:
        number = 116 if kind == TRADE else 97
        keys = _TRADE_KEYS if kind == TRADE else _AGG_KEYS
        if seen & keys != keys or form_of(slots, number) != _INTEGER or form_of(slots, 109) != _FLAG:
            return -1
        if form_of(slots, 112) != _DECIMAL or form_of(slots, 113) != _DECIMAL:
            return -1
    if kind != BBO and not seen & (HAS_T | HAS_TIME):
        return -1
    if seen & HAS_T:
        if form_of(slots, 84) != _INTEGER:
            return -1
    elif seen & HAS_TIME and form_of(slots, 69) != _INTEGER:
        return -1
    if form_of(slots, 115) != _TEXT:
        return -1
    return kind


@kernel
def price_at(slots: Any, letter: Any, unit: Any) -> Any:
    slot = slots + (letter - 65) * 24
    return to_price(_U(load_i64(slot + 8)), load_i64(slot + 16), unit)


@kernel
def size_at(slots: Any, letter: Any) -> Any:
    slot = slots + (letter - 65) * 24
    return to_size(_U(load_i64(slot + 8)), load_i64(slot + 16))
