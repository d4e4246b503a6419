"""The JSON scanner: lines of text straight into the columns of a plan, one pass, no tree and no Python object.

Most lines of a recording repeat the keys of the line before, so each key is first compared with the one that followed
its predecessor last time; only where that guess fails is the key scanned, hashed and looked up. The scanner accepts a
strict subset of JSON and stops at the first line it is not sure about: the caller decodes that line by the slow path and
calls again. It therefore never has to report an error, and never writes half a row.

All addresses are absolute; inputs and outputs have `PADDING` spare bytes behind them, and inputs zeros there.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from ..pipeline.jit import kernel
from ._ndjson_numbers import INTEGER, UNREAD, make_double, read_number
from ._ndjson_simd import load8, load16, load64, store8, store16, store32, store64, store_f32, store_f64, trailing_zeros
from ._ndjson_text import (
    GROW,
    copy_text,
    hash_text,
    intern,
    line_end,
    read_iso,
    same_text,
    skip_string,
    string_end,
)

__all__ = [
    "AT",
    "DEPTH",
    "DICTIONARY_FULL",
    "DICTIONARY_GROWS",
    "DONE",
    "LEARNED",
    "LINE",
    "LINE_END",
    "RECORD",
    "ROW",
    "ROWS_FULL",
    "SLOW",
    "STATE",
    "WHICH",
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

_U = np.uint64
_NULL, _TRUE, _FALS = _U(0x6C6C756E), _U(0x65757274), _U(0x736C6166)
_LOW = _U(0xFFFFFFFF)
_TENS = np.array([10**e for e in range(19)], np.uint64)
_FLOAT32_MOST = float(np.finfo(np.float32).max)


@kernel
def _after_space(at):
    byte = load8(at)
    while byte == 32 or byte == 9 or byte == 13:
        at += 1
        byte = load8(at)
    return at


@kernel
def count_records(at, end, most_records, most_bytes):
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
def _find_newline(at, end):
    newlines, ones, highs = _U(0x0A0A0A0A0A0A0A0A), _U(0x0101010101010101), _U(0x8080808080808080)
    while at < end:
        word = load64(at) ^ newlines
        hit = (word - ones) & ~word & highs
        if hit != _U(0):
            return min(at + (trailing_zeros(np.int64(hit)) >> 3), end)
        at += 8
    return end


@kernel
def _to_ns(negative, digits, exponent):
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
def _store_integer(address, row, width, value):
    if width == 8:
        store64(address + row * 8, value)
    elif width == 4:
        store32(address + row * 4, value)
    elif width == 2:
        store16(address + row * 2, value)
    else:
        store8(address + row, value)


@kernel
def _find_key(at, size, key_slots, key_places, key_sizes):
    mask = key_slots.size - 1
    slot = np.int64(hash_text(at, size) & _U(mask))
    while key_slots[slot] >= 0:
        kid = np.int64(key_slots[slot])
        if key_sizes[kid] == size and same_text(at, key_places[kid], size):
            return kid, slot
        slot = (slot + 1) & mask
    return np.int64(-1), slot


@kernel
def _read_column(
    at, row, column, limit, kinds, widths, targets, extras, most, least, units, epochs,
    dict_of, dict_slots, dict_places, dict_sizes, dict_counts, dict_limits,
):  # fmt: skip
    """Read the value at `at` into a column: ``(end, outcome)``, 1 stored, 0 null, -1 slow path, -2 dictionary."""
    kind = kinds[column]
    byte = load8(at)
    if byte == 110:
        if load64(at) & _LOW == _NULL:
            return at + 4, 0
        return at, -1
    if kind >= 4:  # text
        if byte != 34:
            return at, -1
        at += 1
        stop = string_end(at, limit)
        if load8(stop) != 34:
            return at, -1
        size = stop - at
        if kind == 4:
            which = dict_of[column]
            code = intern(
                at, size, dict_slots[which], dict_places[which], dict_sizes[which], dict_counts[which:], dict_limits[which]
            )
            if code < 0:
                return code, -2
            _store_integer(targets[column], row, widths[column], code)
        elif kind == 5:
            offsets = extras[column] + row * 4
            start = np.int64(load64(offsets) & _LOW)
            copy_text(targets[column] + start, at, size)
            store32(offsets + 4, start + size)
        else:
            good, value = read_iso(at, stop)
            if not good:
                return at, -1
            store64(targets[column] + row * 8, value)
        return stop + 1, 1
    if kind == 3:
        if load64(at) & _LOW == _TRUE:
            store8(targets[column] + row, 1)
            return at + 4, 1
        if load64(at) & _LOW == _FALS and load8(at + 4) == 101:
            store8(targets[column] + row, 0)
            return at + 5, 1
        return at, -1
    stop, form, negative, digits, exponent = read_number(at)
    if form == UNREAD:
        return at, -1
    if kind == 0:
        if form != INTEGER or digits > (least[column] if negative else most[column]):
            return at, -1
        whole = np.int64(digits)
        _store_integer(targets[column], row, widths[column], -whole if negative else whole)
    elif kind == 1:
        good, real = make_double(negative, digits, exponent)
        if not good:
            return at, -1
        if form == INTEGER and digits == _U(0):
            real = 0.0
        if widths[column] == 8:
            store_f64(targets[column] + row * 8, real)
        else:
            if abs(real) > _FLOAT32_MOST:
                return at, -1
            store_f32(targets[column] + row * 4, real)
    else:
        good, value = _to_ns(negative, digits, exponent + units[column])
        if not good:
            return at, -1
        store64(targets[column] + row * 8, value + epochs[column])
    return stop, 1


@kernel
def scan(
    end, limit, state, rows,
    key_slots, key_places, key_sizes, follow, learn, actions, node_columns,
    kinds, widths, targets, extras, most, least, units, epochs, required, valid, nulls,
    dict_of, dict_slots, dict_places, dict_sizes, dict_counts, dict_limits,
    records, rest, rest_offsets, stack,
):  # fmt: skip
    """Scan lines from ``state[AT]`` to `end`, one row each, until DONE or something the caller must do.

    `actions[node, key]` says what a key means: 0 nothing, c > 0 column c - 1, -1 cut out, -2 - n node n of the paths.
    `rest` is the address of the text left when columns and cut keys are taken out, 0 where nobody asked for it.
    """
    at, row = state[AT], state[ROW]
    columns = kinds.size
    unknown = key_sizes.size
    everything = (np.int64(1) << columns) - 1
    nodes, acts, kept, opened, ended = stack[0], stack[1], stack[2], stack[3], stack[4]
    dropped = actions.shape[0] - 1
    status = DONE
    while at < end:
        line = at
        at = _after_space(at)
        if at >= end:
            break
        if load8(at) == 10:
            at += 1
            state[LINE] += 1
            continue
        if row >= rows:
            status, at = ROWS_FULL, line
            break
        status = SLOW
        if load8(at) != 123:
            at = line
            break
        # `nodes` is -1 in an array, else the place in the paths; `acts` what the container itself is to its parent
        depth = 0
        nodes[0], acts[0], kept[0], opened[0], ended[0] = 1, 0, 0, at + 1, at + 1
        begin = at
        out = rest_offsets[row] if rest else np.int64(0)
        seen = np.int64(0)
        previous = unknown
        at += 1
        fresh = True
        while True:
            node = nodes[depth]
            act = np.int64(0)
            closing = False
            if node >= 0:
                kid = np.int64(follow[previous])
                hit = False
                if kid >= 0 and load8(at) == 34:
                    size = np.int64(key_sizes[kid])
                    hit = load16(at + 1 + size) == 0x3A22 and same_text(at + 1, key_places[kid], size)
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
                        kid, slot = _find_key(at, size, key_slots, key_places, key_sizes)
                        if kid < 0:
                            kid = unknown
                            if state[LEARNED] < unknown and learn > 0 and size < 64:
                                kid = state[LEARNED]
                                state[LEARNED] += 1
                                key_slots[slot] = kid
                                key_places[kid] = at
                                key_sizes[kid] = size
                        if kid < unknown:
                            follow[previous] = kid
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
                    act = np.int64(actions[node, kid])
            else:
                at = _after_space(at)
                if load8(at) == 93 and fresh:
                    closing = True
            fresh = False
            if not closing:
                at = _after_space(at)
                byte = load8(at)
                if act > 0:
                    at, outcome = _read_column(
                        at, row, act - 1, limit, kinds, widths, targets, extras, most, least, units, epochs,
                        dict_of, dict_slots, dict_places, dict_sizes, dict_counts, dict_limits,
                    )  # fmt: skip
                    if outcome == 1:
                        seen |= np.int64(1) << (act - 1)
                    elif outcome == 0:
                        seen &= ~(np.int64(1) << (act - 1))
                    else:
                        if outcome == -2:
                            state[WHICH] = dict_of[act - 1]
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
                        seen &= ~node_columns[child]
                        if byte == 91:
                            break
                    elif act == -1:
                        child = dropped
                    if byte == 91:
                        # elements of a cut array must not be cut again: depth keeps the mark in `kept`
                        child = -2 if act == -1 or node == dropped or node == -2 else -1
                    elif node == dropped or node == -2:
                        child = dropped
                    depth += 1
                    nodes[depth], acts[depth], opened[depth], ended[depth] = child, act, at + 1, at + 1
                    kept[depth] = 1 if child < 0 or child == dropped else 0
                    at += 1
                    fresh = True
                    continue
                elif byte == 45 or (byte >= 48 and byte <= 57):
                    at, form, _, _, exponent = read_number(at)
                    if form == UNREAD or exponent > 280:
                        break
                elif byte == 110 and load64(at) & _LOW == _NULL:
                    at += 4
                elif byte == 116 and load64(at) & _LOW == _TRUE:
                    at += 4
                elif byte == 102 and load64(at) & _LOW == _FALS and load8(at + 4) == 101:
                    at += 5
                else:
                    break
                if act <= -2:
                    seen &= ~node_columns[-2 - act]
                    if byte != 110:
                        break
            # a value has ended at `at`, or its container is about to end
            open_still = True
            while True:
                if not closing:
                    if rest:
                        if act > 0 or act == -1:
                            cut = ended[depth] if kept[depth] else opened[depth]
                            if cut > begin:
                                copy_text(rest + out, begin, cut - begin)
                                out += cut - begin
                            begin = at
                        else:
                            kept[depth] = 1
                        ended[depth] = at
                    at = _after_space(at)
                    byte = load8(at)
                    if byte == 44:
                        at += 1
                        if rest and not kept[depth]:
                            begin = at
                        break
                closing = False
                if load8(at) != (125 if nodes[depth] >= 0 else 93):
                    open_still = False
                    break
                at += 1
                act = acts[depth]
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
            column = trailing_zeros(missing)
            missing &= missing - 1
            nulls[column] += 1
            valid[column, row] = 0
            if kinds[column] == 5:
                offsets = extras[column] + row * 4
                store32(offsets + 4, np.int64(load64(offsets) & _LOW))
            else:
                _store_integer(targets[column], row, widths[column], extras[column])
        if rest:
            copy_text(rest + out, begin, at - begin)
            rest_offsets[row + 1] = out + at - begin
        records[row] = state[RECORD]
        state[RECORD] += 1
        row += 1
        status = DONE
        at = tail
        if at < end:
            at += 1
            state[LINE] += 1
    if status == SLOW:
        state[LINE_END] = line_end(at, end)
    state[AT], state[ROW] = at, row
    return status
