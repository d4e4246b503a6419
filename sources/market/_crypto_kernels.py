"""Recorder lines of Binance straight into columns: one pass over the bytes, no tree and no Python object.

Binance writes flat objects whose keys are one letter (and ``pu``), so a key is a byte, and a value goes to the slot of its
letter. The scanner takes a strict subset of what the general path takes (no white space inside, no escapes, no key twice,
bids before asks, ASCII) and stops in front of the first line that it is not sure about: the caller reads that line by the
general path and calls again. It therefore never reports an error, and never leaves half a message behind.

All addresses are absolute; the text has spare zero bytes behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ..text._ndjson_lines import after_space, line_end
from ..text._ndjson_numbers import _eight_digits, _eight_value, make_double
from ..text._ndjson_simd import load8, load16, load64, load_i32, load_i64, store8, store32, store64, store_f64
from ..text._ndjson_text import find_text, same_text, string_end

__all__ = [
    "AGG_TRADE",
    "AT",
    "BBO",
    "BOOK",
    "BOOK_CODE",
    "DEPTH",
    "DONE",
    "FIRST",
    "LAST",
    "LINE",
    "LINE_END",
    "NEW_SYMBOL",
    "NO_LEVELS",
    "PREV",
    "RECORD",
    "ROW",
    "ROWS_FULL",
    "SLOW",
    "START",
    "STATE",
    "SYMBOL_AT",
    "SYMBOL_SIZE",
    "TRADE",
    "scan",
]

#: Why `scan` returned.
DONE, SLOW, ROWS_FULL, NEW_SYMBOL, BOOK = 0, 1, 2, 3, 4
#: Entries of its state. BOOK: a change that does not follow the one before it, with its numbers; its rows are written.
AT, ROW, RECORD, LINE, LINE_END, START, SYMBOL_AT, SYMBOL_SIZE = 0, 1, 2, 3, 4, 5, 6, 7
BOOK_CODE, FIRST, LAST, PREV = 8, 9, 10, 11
STATE = 16
#: Kinds of messages.
BBO, TRADE, AGG_TRADE, DEPTH = 0, 1, 2, 3
#: Where changes without a level are counted, behind the kinds.
NO_LEVELS = 4

_U = np.uint64
_I = np.int64


def _word(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(text.encode(), "little"))


_STREAM, _STREAM_END, _DATA = _word('{"stream'), _word('tream":"'), _word(',"data":')
_AGG, _BOOK, _BOOK_END, _DEPTH, _DEPTH_END = (
    _word("aggTrade"),
    _word("bookTick"),
    _word("okTicker"),
    _word("depthUpd"),
    _word("thUpdate"),
)
_TRADE, _FIVE = _word("trade"), _U((1 << 40) - 1)
_AT_DEPTH, _SIX = _word("@depth"), _U((1 << 48) - 1)
_TRUE, _FALS, _FOUR = _word("true"), _word("fals"), _U(0xFFFFFFFF)
_TENS = np.array([10**e for e in range(19)], np.uint64)
_FLOAT_TENS = np.array([10.0**e for e in range(23)], np.float64)
_MOST = _U((1 << 63) - 1)
#: What a slot holds.
_DECIMAL, _TEXT, _INTEGER, _FLAG, _LEVELS = 1, 2, 3, 4, 5
#: Bit and slot of ``pu``; the others' are those of their letter, counted from A.
_PU = 60


def _bits(letters: str) -> np.int64:
    return np.int64(sum(1 << (ord(letter) - 65) for letter in letters))


_HAS_E, _HAS_T, _HAS_TIME, _HAS_PU = _bits("e"), _bits("T"), _bits("E"), np.int64(1 << _PU)
_BEST_KEYS, _TRADE_KEYS, _AGG_KEYS, _DEPTH_KEYS = _bits("usbBaA"), _bits("stpqm"), _bits("sapqm"), _bits("sUuba")


@kernel
def _read_decimal(at: Any) -> Any:
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
def _to_price(digits: Any, decimals: Any, unit: Any) -> Any:
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
def _to_size(digits: Any, decimals: Any) -> Any:
    """``(True, digits / 10**decimals)``, the nearest float64, where that was decided."""
    if digits <= _U(1 << 53):
        return True, np.float64(digits) / _FLOAT_TENS[decimals]
    return make_double(False, digits, -decimals)


@kernel
def _read_levels(at: Any, side: Any, row: Any, room: Any, columns: Any, unit: Any) -> Any:
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
        at, digits, decimals = _read_decimal(at + 2)
        if at == 0 or load16(at + 1) != 0x222C:  # ,"
            return _I(0), row
        good, price = _to_price(digits, decimals, unit)
        if not good:
            return _I(0), row
        at, digits, decimals = _read_decimal(at + 3)
        if at == 0 or load8(at + 1) != 93:
            return _I(0), row
        good, size = _to_size(digits, decimals)
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
def _read_stamp(at: Any) -> Any:
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
def _is_partial(at: Any, size: Any) -> Any:
    """Whether a stream's name has ``@depth`` with a digit behind it."""
    for index in range(size - 6):
        if load8(at + index) == 64 and load64(at + index) & _SIX == _AT_DEPTH:
            byte = load8(at + index + 6)
            if byte >= 48 and byte <= 57:
                return True
    return False


@kernel
def _to_ns(value: Any) -> Any:
    """ms (or, from 10**15 on, microseconds) as ns; -1 where that is beyond int64."""
    if value >= 1_000_000_000_000_000:
        return value * 1_000 if value <= 9_223_372_036_854_775 else _I(-1)
    return value * 1_000_000 if value <= 9_223_372_036_854 else _I(-1)


@kernel
def _read_object(at: Any, slots: Any, row: Any, room: Any, columns: Any, unit: Any) -> Any:
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
        if letter < 97 or letter > 122:
            return _I(0), seen, row
        index = key - 65
        if load16(at + 2) == 0x3A22:  # ":
            at += 4
        else:
            second = load8(at + 2) | 32
            if second < 97 or second > 122 or load16(at + 3) != 0x3A22:
                return _I(0), seen, row
            index = _I(_PU) if load16(at + 1) == 0x7570 else _I(-1)
            at += 5
        if index >= 0:
            bit = _I(1) << index
            if seen & bit:
                return _I(0), seen, row
            seen |= bit
        else:
            index = _I(_PU + 1)
        slot = slots + index * 24
        byte = load8(at)
        if byte == 34:
            # p q b B a A
            if key == 112 or key == 113 or letter == 98 or letter == 97:
                at, digits, decimals = _read_decimal(at + 1)
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
                at, row = _read_levels(at, _I(1), row, room, columns, unit)
            elif key == 97:
                if not seen & _I(1 << 33):
                    return _I(0), seen, row
                at, row = _read_levels(at, _I(-1), row, room, columns, unit)
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
def _form(slots: Any, letter: Any) -> Any:
    return load_i64(slots + (letter - 65) * 24)


@kernel
def _value(slots: Any, letter: Any) -> Any:
    return load_i64(slots + (letter - 65) * 24 + 8)


@kernel
def _kind_of(seen: Any, slots: Any) -> Any:
    """The kind of message in `slots`, with all its values of the right form; -1 if not sure."""
    if seen & _HAS_E:
        if _form(slots, 101) != _TEXT:
            return -1
        at, size = _value(slots, 101), load_i64(slots + (101 - 65) * 24 + 16)
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
        if seen & _BEST_KEYS != _BEST_KEYS or _form(slots, 117) != _INTEGER:
            return -1
        for letter in (98, 66, 97, 65):
            if _form(slots, letter) != _DECIMAL:
                return -1
    elif kind == DEPTH:
        if seen & _DEPTH_KEYS != _DEPTH_KEYS or _form(slots, 85) != _INTEGER or _form(slots, 117) != _INTEGER:
            return -1
        if _form(slots, 98) != _LEVELS or _form(slots, 97) != _LEVELS:
            return -1
        if seen & _HAS_PU and load_i64(slots + _PU * 24) != _INTEGER:
            return -1
    else:
        number = 116 if kind == TRADE else 97
        keys = _TRADE_KEYS if kind == TRADE else _AGG_KEYS
        if seen & keys != keys or _form(slots, number) != _INTEGER or _form(slots, 109) != _FLAG:
            return -1
        if _form(slots, 112) != _DECIMAL or _form(slots, 113) != _DECIMAL:
            return -1
    if kind != BBO and not seen & (_HAS_T | _HAS_TIME):
        return -1
    if seen & _HAS_T:
        if _form(slots, 84) != _INTEGER:
            return -1
    elif seen & _HAS_TIME and _form(slots, 69) != _INTEGER:
        return -1
    if _form(slots, 115) != _TEXT:
        return -1
    return kind


@kernel
def _price_at(slots: Any, letter: Any, unit: Any) -> Any:
    slot = slots + (letter - 65) * 24
    return _to_price(_U(load_i64(slot + 8)), load_i64(slot + 16), unit)


@kernel
def _size_at(slots: Any, letter: Any) -> Any:
    slot = slots + (letter - 65) * 24
    return _to_size(_U(load_i64(slot + 8)), load_i64(slot + 16))


@kernel
def scan(
    end: Any,
    state: Any,
    room: Any,
    want: Any,
    columns: Any,
    symbols: Any,
    books: Any,
    passed: Any,
    unit: Any,
    slots: Any,
) -> Any:
    """Scan lines from ``state[AT]`` to `end` until DONE or something the caller must do.

    `want` is the kind of message that makes rows, `room` how many fit; `passed` counts those that made none. `columns` are
    the addresses of the columns in the order of the table's schema (``is_snapshot`` and ``last_in_event`` of `DEPTH` as
    bytes). `symbols` describes the table of names (slots, mask, places, sizes, the last code). ``books[code]`` is the number
    of the last change seen, -1 where the caller wants to see the next one. Prices are in units of ``10**-unit``.
    """
    at, row, record, lines = state[AT], state[ROW], state[RECORD], state[LINE]
    names, mask, places, sizes, latest = symbols[0], symbols[1], symbols[2], symbols[3], symbols[4]
    keep = columns if want == DEPTH else _I(0)
    status = DONE
    while at < end:
        line = at
        at = after_space(at)
        if at >= end:
            break
        if load8(at) == 10:
            at += 1
            lines += 1
            continue
        if row >= room:
            status, at = ROWS_FULL, line
            break
        status = SLOW
        good, recv = _read_stamp(at)
        if not good:
            at = line
            break
        at += 20
        stream, stream_size = _I(0), _I(0)
        if load64(at) == _STREAM and load64(at + 3) == _STREAM_END:
            stream = at + 11
            stop = string_end(stream, 128)
            if load8(stop) != 34 or load64(stop + 1) != _DATA or load8(stop + 9) != 123:
                at = line
                break
            stream_size = stop - stream
            at = stop + 9
        at, seen, out = _read_object(at, slots, row, room, keep, unit)
        if at <= 0:
            if at < 0:
                status = ROWS_FULL
            at = line
            break
        if stream:
            if load8(at) != 125:
                at = line
                break
            at += 1
        tail = after_space(at)
        if tail > end or (tail < end and load8(tail) != 10):
            at = line
            break
        kind = _kind_of(seen, slots)
        if kind < 0:
            at = line
            break
        event = recv
        if seen & _HAS_T:
            event = _to_ns(_value(slots, 84))
        elif seen & _HAS_TIME:
            event = _to_ns(_value(slots, 69))
        name, name_size = _value(slots, 115), load_i64(slots + (115 - 65) * 24 + 16)
        if event < 0 or name_size < 1 or name_size > 64:
            at = line
            break
        price, size, ask, ask_size = _I(0), 0.0, _I(0), 0.0
        if kind == BBO:
            good, price = _price_at(slots, 98, unit)
            fine, size = _size_at(slots, 66)
            good = good and fine
            fine, ask = _price_at(slots, 97, unit)
            good = good and fine
            fine, ask_size = _size_at(slots, 65)
            good = good and fine
        elif kind != DEPTH:
            good, price = _price_at(slots, 112, unit)
            fine, size = _size_at(slots, 113)
            good = good and fine
        if not good:
            at = line
            break
        if kind != want:
            passed[kind] += 1
        else:
            code = latest
            if load_i32(sizes + code * 4) != name_size or not same_text(name, load_i64(places + code * 8), name_size):
                code, _ = find_text(name, name_size, names, mask, places, sizes)
                if code < 0:
                    state[SYMBOL_AT], state[SYMBOL_SIZE] = name, name_size
                    status, at = NEW_SYMBOL, line
                    break
                latest = code
            if kind != DEPTH:
                out = row + 1
            for index in range(row, out):
                store64(load_i64(columns) + index * 8, event)
                store64(load_i64(columns + 8) + index * 8, recv)
                store64(load_i64(columns + 16) + index * 8, record)
                store32(load_i64(columns + 24) + index * 4, code)
            if kind == DEPTH:
                first, last = _value(slots, 85), _value(slots, 117)
                prev = load_i64(slots + _PU * 24 + 8) if seen & _HAS_PU else _I(0)
                partial = stream != 0 and _is_partial(stream, stream_size)
                flag = _I(1) if partial else _I(0)
                for index in range(row, out):
                    store64(load_i64(columns + 56) + index * 8, first)
                    store64(load_i64(columns + 64) + index * 8, last)
                    store64(load_i64(columns + 72) + index * 8, prev)
                    store8(load_i64(columns + 80) + index, flag)
                    store8(load_i64(columns + 88) + index, 0)
                if out > row:
                    store8(load_i64(columns + 88) + out - 1, 1)
                else:
                    passed[NO_LEVELS] += 1
                if not partial:
                    known = books[code]
                    follows = prev == known if seen & _HAS_PU else first == known + 1 and last >= first
                    if known >= 0 and follows and last > known:
                        books[code] = last
                    else:
                        state[BOOK_CODE], state[FIRST], state[LAST] = code, first, last
                        state[PREV] = prev if seen & _HAS_PU else _I(-1)
                        state[START], state[LINE_END] = line, tail
                        status = BOOK
            elif kind == BBO:
                store64(load_i64(columns + 32) + row * 8, price)
                store_f64(load_i64(columns + 40) + row * 8, size)
                store64(load_i64(columns + 48) + row * 8, ask)
                store_f64(load_i64(columns + 56) + row * 8, ask_size)
                store64(load_i64(columns + 64) + row * 8, _value(slots, 117))
            else:
                store64(load_i64(columns + 32) + row * 8, price)
                store_f64(load_i64(columns + 40) + row * 8, size)
                store8(load_i64(columns + 48) + row, -1 if _value(slots, 109) else 1)
                store64(load_i64(columns + 56) + row * 8, _value(slots, 116 if kind == TRADE else 97))
            row = out
        record += 1
        at = tail
        if at < end:
            at += 1
            lines += 1
        if status == BOOK:
            break
        status = DONE
    if status == SLOW:
        state[LINE_END] = line_end(at, end)
    symbols[4] = latest
    state[AT], state[ROW], state[RECORD], state[LINE] = at, row, record, lines
    return status
