"""The JSON scanner: lines of text straight into the columns of a plan, one pass, no tree and no Python object.

Most lines of a recording repeat the keys of the line before, so each key is first compared with the one that followed
its predecessor last time; only where that guess fails is the key scanned, hashed and looked up. The scanner accepts a
strict subset of JSON and stops at the first line it is not sure about: the caller decodes that line by the slow path and
calls again. It therefore never has to report an error, and never writes half a row.

All addresses are absolute; inputs and outputs have `PADDING` spare bytes behind them, and inputs zeros there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pipeline.jit import kernel
from ._ndjson_numbers import INTEGER, UNREAD, make_double, read_number
from ._ndjson_simd import (
    load8,
    load16,
    load64,
    load_i16,
    load_i32,
    load_i64,
    store8,
    store16,
    store32,
    store64,
    store_f32,
    store_f64,
    trailing_zeros,
)
from ._ndjson_text import (
    GROW,
    copy_text,
    find_text,
    intern,
    line_end,
    read_iso,
    same_text,
    skip_string,
    string_end,
)

__all__ = [
    "AT",
    "COLUMN",
    "DEPTH",
    "DICTIONARY",
    "DICTIONARY_FULL",
    "DICTIONARY_GROWS",
    "DONE",
    "EPOCH",
    "FILL",
    "FRAME",
    "KEYS",
    "KIND",
    "LEARNED",
    "LEAST",
    "LINE",
    "LINE_END",
    "MOST",
    "NULLS",
    "RECORD",
    "ROW",
    "ROWS_FULL",
    "SLOW",
    "STATE",
    "TARGET",
    "UNIT",
    "VALID",
    "WHICH",
    "WIDTH",
    "count_records",
    "scan",
]

#: Why `scan` returned.
DONE, SLOW, ROWS_FULL, DICTIONARY_GROWS, DICTIONARY_FULL = 0, 1, 2, 3, 4
#: Entries of its state: next address, next row, records and lines passed, end of the line in question, column.
AT, ROW, RECORD, LINE, LINE_END, WHICH, LEARNED = 0, 1, 2, 3, 4, 5, 6
STATE = 8
#: Containers inside each other that the scanner follows; deeper lines take the slow path.
DEPTH = 48

#: A column's record: what the scanner must know of it, int64 each, at these byte offsets.
KIND, WIDTH, TARGET, FILL, MOST, LEAST, UNIT, EPOCH, VALID, NULLS, DICTIONARY = range(0, 88, 8)
COLUMN = 96
#: The key table: addresses of slots, places, sizes and followers, with the slot mask, the number of keys and the last node.
KEYS = ("slots", "mask", "places", "sizes", "follow", "unknown", "dropped")

#: A container's frame on the stack: its place in the paths (below 0 in an array), what it is to its parent, whether it
#: has kept a member, where it opened, where its last member ended.
NODE, ACT, KEPT, OPENED, ENDED = range(0, 40, 8)
FRAME = 40

_U = np.uint64
_NULL, _TRUE, _FALS = _U(0x6C6C756E), _U(0x65757274), _U(0x736C6166)
_LOW = _U(0xFFFFFFFF)
_TENS = np.array([10**e for e in range(19)], np.uint64)
_FLOAT32_MOST = float(np.finfo(np.float32).max)


@kernel
def _after_space(at: Any) -> Any:
    byte = load8(at)
    while byte == 32 or byte == 9 or byte == 13:
        at += 1
        byte = load8(at)
    return at


@kernel
def count_records(at: Any, end: Any, most_records: Any, most_bytes: Any) -> Any:
    """``(records, lines, stop, long)``: records (lines not blank) and newlines between two addresses.

    Counting stops in front of the record after `most_records`, and in front of a line of more than `most_bytes`, which
    sets `long`; `stop` is where, or `end`.
    """
    records, lines = np.int64(0), np.int64(0)
    while at < end:
        first = _after_space(at)
        if first >= end and end - at <= most_bytes:
            break
        newline = _find_newline(min(first, end), end)
        if newline - at > most_bytes:
            return records, lines, at, True
        if first < end and load8(first) != 10:
            if records == most_records:
                return records, lines, at, False
            records += 1
        if newline < end:
            lines += 1
        at = newline + 1
    return records, lines, end, False


@kernel
def _find_newline(at: Any, end: Any) -> Any:
    newlines, ones, highs = _U(0x0A0A0A0A0A0A0A0A), _U(0x0101010101010101), _U(0x8080808080808080)
    while at < end:
        word = load64(at) ^ newlines
        hit = (word - ones) & ~word & highs
        if hit != _U(0):
            return min(at + (trailing_zeros(np.int64(hit)) >> 3), end)
        at += 8
    return end


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
def _store_integer(address: Any, row: Any, width: Any, value: Any) -> Any:
    if width == 8:
        store64(address + row * 8, value)
    elif width == 4:
        store32(address + row * 4, value)
    elif width == 2:
        store16(address + row * 2, value)
    else:
        store8(address + row, value)


@kernel
def _read_column(at: Any, row: Any, column: Any, limit: Any) -> Any:
    """Read the value at `at` into the column whose record is at `column`: ``(end, outcome)``.

    Outcome 1: stored, 0: null, -1: for the slow path, -2: the dictionary takes no more, and the end says why.
    """
    kind, target, width = load_i64(column), load_i64(column + TARGET), load_i64(column + WIDTH)
    byte = load8(at)
    if byte == 110:
        if load64(at) & _LOW == _NULL:
            return at + 4, np.int64(0)
        return at, np.int64(-1)
    if kind >= 4:  # text
        if byte != 34:
            return at, np.int64(-1)
        at += 1
        stop = string_end(at, limit)
        if load8(stop) != 34:
            return at, np.int64(-1)
        size = stop - at
        if kind == 4:
            code = intern(at, size, load_i64(column + DICTIONARY))
            if code < 0:
                return code, np.int64(-2)
            _store_integer(target, row, width, code)
        elif kind == 5:
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
    if kind == 3:
        if load64(at) & _LOW == _TRUE:
            store8(target + row, 1)
            return at + 4, np.int64(1)
        if load64(at) & _LOW == _FALS and load8(at + 4) == 101:
            store8(target + row, 0)
            return at + 5, np.int64(1)
        return at, np.int64(-1)
    stop, form, negative, digits, exponent = read_number(at)
    if form == UNREAD:
        return at, np.int64(-1)
    if kind == 0:
        if form != INTEGER or digits > (load64(column + LEAST) if negative else load64(column + MOST)):
            return at, np.int64(-1)
        whole = np.int64(digits)
        _store_integer(target, row, width, -whole if negative else whole)
    elif kind == 1:
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


@kernel
def scan(
    end: Any,
    limit: Any,
    state: Any,
    rows: Any,
    keys: Any,
    actions: Any,
    stride: Any,
    node_columns: Any,
    columns: Any,
    count: Any,
    required: Any,
    records: Any,
    rest: Any,
    rest_offsets: Any,
    stack: Any,
) -> Any:
    """Scan lines from ``state[AT]`` to `end`, one row each, until DONE or something the caller must do.

    Everything but `state` is an address or a number. `keys` describes the table of keys (`KEYS`), `columns` is an array of
    `COLUMN` records. ``actions[node, key]`` (int16, `stride` keys) says what a key means: 0 nothing, c > 0 column c - 1,
    -1 cut out, -2 - n node n of the paths. `rest` is where the text goes that is left when columns and cut keys are taken
    out, 0 where nobody asked for it.
    """
    at, row, record, lines, learned = state[AT], state[ROW], state[RECORD], state[LINE], state[LEARNED]
    slots, mask, places = load_i64(keys), load_i64(keys + 8), load_i64(keys + 16)
    sizes, follow, unknown = load_i64(keys + 24), load_i64(keys + 32), load_i64(keys + 40)
    dropped = load_i64(keys + 48)
    everything = (np.int64(1) << count) - 1
    status = DONE
    while at < end:
        line = at
        at = _after_space(at)
        if at >= end:
            break
        if load8(at) == 10:
            at += 1
            lines += 1
            continue
        if row >= rows:
            status, at = ROWS_FULL, line
            break
        status = SLOW
        if load8(at) != 123:
            at = line
            break
        depth = 0
        frame = stack
        store64(frame, 1)
        store64(frame + KEPT, 0)
        store64(frame + OPENED, at + 1)
        store64(frame + ENDED, at + 1)
        begin = at
        out = load_i64(rest_offsets + row * 8) if rest else np.int64(0)
        seen = np.int64(0)
        previous = unknown
        at += 1
        fresh = True
        while True:
            node = load_i64(frame)
            act = np.int64(0)
            closing = False
            if node >= 0:
                kid = load_i32(follow + previous * 4)
                hit = False
                if kid >= 0 and load8(at) == 34:
                    size = load_i32(sizes + kid * 4)
                    hit = load16(at + 1 + size) == 0x3A22 and same_text(at + 1, load_i64(places + kid * 8), size)
                if hit:
                    at += size + 3
                else:
                    at = _after_space(at)
                    if load8(at) == 34:
                        at += 1
                        stop = string_end(at, limit)
                        if load8(stop) != 34:
                            break
                        size = stop - at
                        kid, slot = find_text(at, size, slots, mask, places, sizes)
                        if kid < 0:
                            kid = unknown
                            if learned < unknown and size < 64:
                                kid = learned
                                learned += 1
                                store32(slots + slot * 4, kid)
                                store64(places + kid * 8, at)
                                store32(sizes + kid * 4, size)
                        if kid < unknown:
                            store32(follow + previous * 4, kid)
                        at = _after_space(stop + 1)
                        if load8(at) != 58:
                            break
                        at += 1
                    elif load8(at) == 125 and fresh:
                        closing = True
                    else:
                        break
                if not closing:
                    previous = kid
                    act = load_i16(actions + (node * stride + kid) * 2)
            else:
                at = _after_space(at)
                if load8(at) == 93 and fresh:
                    closing = True
            fresh = False
            if not closing:
                at = _after_space(at)
                byte = load8(at)
                if act > 0:
                    at, outcome = _read_column(at, row, columns + (act - 1) * COLUMN, limit)
                    if outcome == 1:
                        seen |= np.int64(1) << (act - 1)
                    elif outcome == 0:
                        seen &= ~(np.int64(1) << (act - 1))
                    else:
                        if outcome == -2:
                            state[WHICH] = act - 1
                            status = DICTIONARY_GROWS if at == GROW else DICTIONARY_FULL
                        break
                elif byte == 34:
                    at = skip_string(at + 1, limit)
                    if at == 0:
                        break
                    at += 1
                elif byte == 123 or byte == 91:
                    if depth + 1 >= DEPTH:
                        break
                    child = np.int64(0)
                    if act <= -2:
                        child = -2 - act
                        seen &= ~load_i64(node_columns + child * 8)
                        if byte == 91:
                            break
                    elif act == -1:
                        child = dropped
                    if byte == 91:
                        # -1 is an array, -2 one inside something that is cut out
                        child = np.int64(-2 if act == -1 or node == dropped or node == -2 else -1)
                    elif node == dropped or node == -2:
                        child = dropped
                    depth += 1
                    frame += FRAME
                    store64(frame, child)
                    store64(frame + ACT, act)
                    store64(frame + KEPT, 1 if child < 0 or child == dropped else 0)
                    store64(frame + OPENED, at + 1)
                    store64(frame + ENDED, at + 1)
                    at += 1
                    fresh = True
                    continue
                elif byte == 45 or (byte >= 48 and byte <= 57):
                    at, form, _, _, exponent = read_number(at)
                    if form == UNREAD or exponent > 280:
                        break
                elif (byte == 110 and load64(at) & _LOW == _NULL) or (byte == 116 and load64(at) & _LOW == _TRUE):
                    at += 4
                elif byte == 102 and load64(at) & _LOW == _FALS and load8(at + 4) == 101:
                    at += 5
                else:
                    break
                if act <= -2:
                    seen &= ~load_i64(node_columns + (-2 - act) * 8)
                    if byte != 110:
                        break
            # a value has ended at `at`, or its container is about to end
            open_still = True
            while True:
                if not closing:
                    if rest:
                        if act > 0 or act == -1:
                            cut = load_i64(frame + (ENDED if load_i64(frame + KEPT) else OPENED))
                            if cut > begin:
                                copy_text(rest + out, begin, cut - begin)
                                out += cut - begin
                            begin = at
                        else:
                            store64(frame + KEPT, 1)
                        store64(frame + ENDED, at)
                    at = _after_space(at)
                    byte = load8(at)
                    if byte == 44:
                        at += 1
                        if rest and not load_i64(frame + KEPT):
                            begin = at
                        break
                closing = False
                if load8(at) != (125 if load_i64(frame) >= 0 else 93):
                    open_still = False
                    break
                at += 1
                act = load_i64(frame + ACT)
                frame -= FRAME
                depth -= 1
                if depth < 0:
                    break
            if not open_still or depth < 0:
                break
        if status != SLOW:
            at = line
            break
        if at == 0 or depth >= 0:
            at = line
            break
        tail = _after_space(at)
        if tail < end and load8(tail) != 10:
            at = line
            break
        missing = everything & ~seen
        if missing & required:
            at = line
            break
        while missing:
            column = columns + trailing_zeros(missing) * COLUMN
            missing &= missing - 1
            store64(column + NULLS, load_i64(column + NULLS) + 1)
            store8(load_i64(column + VALID) + row, 0)
            if load_i64(column) == 5:
                offsets = load_i64(column + FILL) + row * 4
                store32(offsets + 4, load_i32(offsets))
            else:
                _store_integer(load_i64(column + TARGET), row, load_i64(column + WIDTH), load_i64(column + FILL))
        if rest:
            copy_text(rest + out, begin, at - begin)
            store64(rest_offsets + (row + 1) * 8, out + at - begin)
        store64(records + row * 8, record)
        record += 1
        row += 1
        status = DONE
        at = tail
        if at < end:
            at += 1
            lines += 1
    if status == SLOW:
        state[LINE_END] = line_end(at, end)
    state[AT], state[ROW], state[RECORD], state[LINE], state[LEARNED] = at, row, record, lines, learned
    return status
