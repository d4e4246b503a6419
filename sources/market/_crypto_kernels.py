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
from ..text._ndjson_simd import load8, load64, load_i32, load_i64, store8, store32, store64, store_f64
from ..text._ndjson_text import find_text, same_text, string_end
from ._crypto_object_kernels import (
    BBO,
    DEPTH,
    HAS_PU,
    HAS_T,
    HAS_TIME,
    PU,
    TRADE,
    is_partial,
    kind_of,
    price_at,
    read_object,
    size_at,
    value_of,
    word,
)
from ._crypto_value_kernels import read_stamp, to_ns

__all__ = [
    "AT",
    "BOOK",
    "BOOK_CODE",
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
    "scan",
]

#: Why `scan` returned.
DONE, SLOW, ROWS_FULL, NEW_SYMBOL, BOOK = 0, 1, 2, 3, 4
#: Entries of its state. BOOK: a change that does not follow the one before it, with its numbers; its rows are written.
AT, ROW, RECORD, LINE, LINE_END, START, SYMBOL_AT, SYMBOL_SIZE = 0, 1, 2, 3, 4, 5, 6, 7
BOOK_CODE, FIRST, LAST, PREV = 8, 9, 10, 11
STATE = 16
#: Where changes without a level are counted, behind the kinds.
NO_LEVELS = 4

_I = np.int64
_STREAM, _STREAM_END, _DATA = word('{"stream'), word('tream":"'), word(',"data":')


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
        good, recv = read_stamp(at)
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
        at, seen, out = read_object(at, slots, row, room, keep, unit)
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
        kind = kind_of(seen, slots)
        if kind < 0:
            at = line
            break
        event = recv
        if seen & HAS_T:
            event = to_ns(value_of(slots, 84))
        elif seen & HAS_TIME:
            event = to_ns(value_of(slots, 69))
        name, name_size = value_of(slots, 115), load_i64(slots + (115 - 65) * 24 + 16)
        if event < 0 or name_size < 1 or name_size > 64:
            at = line
            break
        price, size, ask, ask_size = _I(0), 0.0, _I(0), 0.0
        if kind == BBO:
            good, price = price_at(slots, 98, unit)
            fine, size = size_at(slots, 66)
            good = good and fine
            fine, ask = price_at(slots, 97, unit)
            good = good and fine
            fine, ask_size = size_at(slots, 65)
            good = good and fine
        elif kind != DEPTH:
            good, price = price_at(slots, 112, unit)
            fine, size = size_at(slots, 113)
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
                first, last = value_of(slots, 85), value_of(slots, 117)
                prev = load_i64(slots + PU * 24 + 8) if seen & HAS_PU else _I(0)
                partial = stream != 0 and is_partial(stream, stream_size)
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
                    follows = prev == known if seen & HAS_PU else first == known + 1 and last >= first
                    if known >= 0 and follows and last > known:
                        books[code] = last
                    else:
                        state[BOOK_CODE], state[FIRST], state[LAST] = code, first, last
                        state[PREV] = prev if seen & HAS_PU else _I(-1)
                        state[START], state[LINE_END] = line, tail
                        status = BOOK
            elif kind == BBO:
                store64(load_i64(columns + 32) + row * 8, price)
                store_f64(load_i64(columns + 40) + row * 8, size)
                store64(load_i64(columns + 48) + row * 8, ask)
                store_f64(load_i64(columns + 56) + row * 8, ask_size)
                store64(load_i64(columns + 64) + row * 8, value_of(slots, 117))
            else:
                store64(load_i64(columns + 32) + row * 8, price)
                store_f64(load_i64(columns + 40) + row * 8, size)
                store8(load_i64(columns + 48) + row, -1 if value_of(slots, 109) else 1)
                store64(load_i64(columns + 56) + row * 8, value_of(slots, 116 if kind == TRADE else 97))
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
