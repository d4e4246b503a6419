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

from ...pipeline.jit import kernel
from ._ndjson_lines import after_space, line_end
from ._ndjson_numbers import UNREAD, read_number
from ._ndjson_simd import load8, load16, load64, load_i16, load_i32, load_i64, store8, store32, store64, trailing_zeros
from ._ndjson_text import GROW, copy_text, find_text, same_text, skip_string, string_end
from ._ndjson_values import (
    COLUMN,
    FALS,
    FILL,
    FOUR_BYTES,
    KIND,
    NULL,
    NULLS,
    TARGET,
    TEXTS,
    TRUE,
    VALID,
    WIDTH,
    read_column,
    store_integer,
)

__all__ = [
    "AT",
    "DEPTH",
    "DICTIONARY_FULL",
    "DICTIONARY_GROWS",
    "DONE",
    "FRAME",
    "KEYS",
    "LEARNED",
    "LINE",
    "LINE_END",
    "RECORD",
    "ROW",
    "ROWS_FULL",
    "SLOW",
    "STATE",
    "WHICH",
    "scan",
]

#: Why `scan` returned.
DONE, SLOW, ROWS_FULL, DICTIONARY_GROWS, DICTIONARY_FULL = 0, 1, 2, 3, 4
#: Entries of its state: next address, next row, records and lines passed, end of the line in question, column.
AT, ROW, RECORD, LINE, LINE_END, WHICH, LEARNED = 0, 1, 2, 3, 4, 5, 6
STATE = 8
#: Containers inside each other that the scanner follows; deeper lines take the slow path.
DEPTH = 48

#: The key table: addresses of slots, places, sizes and followers, with the slot mask, the number of keys and the last node.
KEYS = ("slots", "mask", "places", "sizes", "follow", "unknown", "dropped")

#: A container's frame on the stack: its place in the paths (below 0 in an array), what it is to its parent, whether it
#: has kept a member, where it opened, where its last member ended.
NODE, ACT, KEPT, OPENED, ENDED = range(0, 40, 8)
FRAME = 40


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
        at = after_space(at)
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
        store64(frame + NODE, 1)
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
            node = load_i64(frame + NODE)
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
                    at = after_space(at)
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
                        at = after_space(stop + 1)
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
                at = after_space(at)
                if load8(at) == 93 and fresh:
                    closing = True
            fresh = False
            if not closing:
                at = after_space(at)
                byte = load8(at)
                if act > 0:
                    at, outcome = read_column(at, row, columns + (act - 1) * COLUMN, limit)
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
                    store64(frame + NODE, child)
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
                elif (byte == 110 and load64(at) & FOUR_BYTES == NULL) or (
                    byte == 116 and load64(at) & FOUR_BYTES == TRUE
                ):
                    at += 4
                elif byte == 102 and load64(at) & FOUR_BYTES == FALS and load8(at + 4) == 101:
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
                    at = after_space(at)
                    byte = load8(at)
                    if byte == 44:
                        at += 1
                        if rest and not load_i64(frame + KEPT):
                            begin = at
                        break
                closing = False
                if load8(at) != (125 if load_i64(frame + NODE) >= 0 else 93):
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
        tail = after_space(at)
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
            if load_i64(column + KIND) == TEXTS:
                offsets = load_i64(column + FILL) + row * 4
                store32(offsets + 4, load_i32(offsets))
            else:
                store_integer(load_i64(column + TARGET), row, load_i64(column + WIDTH), load_i64(column + FILL))
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
