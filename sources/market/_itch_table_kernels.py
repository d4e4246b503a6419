"""The side tables of ITCH at native speed: which messages belong to a table, its columns, and symbols learnt from messages.

As in `_itch_kernels`, the caller leaves `PAD` zero bytes behind the data, and the offset of a bad message points at them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._itch_kernels import PAD, RENAMED, WRONG_LENGTH, _u16, _u32, _u64

__all__ = ["NO_ORDER", "ODD_SIDE", "ODD_TIME", "gather", "learn", "match_symbols", "pick", "trades"]

_DIRECTORY = 82  # R
# What is wrong with a message of ``market.trades``.
ODD_TIME, ODD_SIDE, NO_ORDER = 1, 2, 3


@kernel
def learn(
    data: Any,
    offsets: Any,
    sizes: Any,
    first: Any,
    count: Any,
    lengths: Any,
    bad: Any,
    names: Any,
    named: Any,
    used: Any,
    mark: Any,
    state: Any,
) -> Any:
    """Check the messages from `first` on against their `sizes` and learn symbols; returns where it stopped.

    It stops before a stock directory message that names a locate which messages since `first` have used, and where `bad`,
    rows of (what, message), is full. `state` is (bad messages, highest locate, symbols named). The offset of a bad message
    is set to the padding.
    """
    nothing = data.size - PAD
    for number in range(first, count):
        at = np.int64(offsets[number])
        size = np.int64(sizes[number])
        kind = data[at]
        want = lengths[kind]
        what = 0
        if size == 0 or (want != 0 and size != want):
            what = WRONG_LENGTH
        elif want != 0:
            locate = np.int64(_u16(data, at + 1))
            if kind == _DIRECTORY:
                if named[locate] == 0:
                    if used[locate] == mark:
                        return number
                    for i in range(8):
                        names[locate, i] = data[at + 11 + i]
                    named[locate] = 1
                    state[2] += 1
                else:
                    for i in range(8):
                        if names[locate, i] != data[at + 11 + i]:
                            what = RENAMED
            if what == 0:
                used[locate] = mark
                state[1] = max(state[1], locate)
        if what != 0:
            if state[0] >= len(bad):
                return number
            bad[state[0], 0] = what
            bad[state[0], 1] = number
            state[0] += 1
            offsets[number] = nothing
    return count


@kernel
def pick(data: Any, offsets: Any, count: Any, wanted: Any, latest: Any, counts: Any, rows: Any, bad: Any) -> Any:
    """Numbers of the messages of `wanted` types, and of those whose time is beyond `latest`; adds up `counts` by type."""
    kept = 0
    wrong = 0
    for number in range(count):
        at = np.int64(offsets[number])
        kind = data[at]
        counts[kind] += 1
        if wanted[kind]:
            if np.int64(_u64(data, at + 3) & np.uint64(0xFFFFFFFFFFFF)) > latest:
                bad[wrong] = number
                wrong += 1
            else:
                rows[kept] = number
                kept += 1
    return kept, wrong


@kernel
def gather(data: Any, offsets: Any, rows: Any, places: Any, width: Any, out: Any, valid: Any) -> None:
    """The unsigned number of `width` bytes at ``places[type]`` of each of `rows`; 0 and not valid where that is negative."""
    shift = np.uint64(64 - 8 * width)
    for row in range(len(rows)):
        at = np.int64(offsets[rows[row]])
        place = places[data[at]]
        valid[row] = place >= 0
        out[row] = _u64(data, at + max(place, 0)) >> shift if place >= 0 else np.uint64(0)


@kernel
def match_symbols(locates: Any, raw: Any, valid: Any, names: Any, named: Any, symbols: Any) -> Any:
    """`symbols` of rows whose stock is the name of their locate; -1 for others, which are counted."""
    others = 0
    for row in range(len(locates)):
        where = np.int64(locates[row])
        symbols[row] = where
        if valid[row] and not (named[where] and _u64(names, 8 * where) == raw[row]):
            symbols[row] = -1
            others += 1
        elif not valid[row]:
            symbols[row] = 0
    return others


@kernel
def trades(
    data: Any,
    offsets: Any,
    count: Any,
    midnight: Any,
    latest: Any,
    first_seq: Any,
    resting_price: Any,
    resting_side: Any,
    ts_event: Any,
    seq: Any,
    locate: Any,
    symbol: Any,
    msg_type: Any,
    price: Any,
    size: Any,
    side: Any,
    match_id: Any,
    cross_type: Any,
    printable: Any,
    counts: Any,
    bad: Any,
) -> Any:
    """Rows of ``market.trades``. `resting_*` hold, for each E and C in order, what it was executed against (side 0: not
    known). `bad` gets (what, message). Returns (rows, bad messages)."""
    row = 0
    wrong = 0
    execution = 0
    for number in range(count):
        at = np.int64(offsets[number])
        kind = data[at]
        counts[kind] += 1
        executed = kind == 69 or kind == 67  # E, C
        traded = executed or kind == 80 or kind == 81 or kind == 66  # P, Q, B
        added = kind == 65 or kind == 70  # A, F
        if not (traded or added or kind == 88 or kind == 68 or kind == 85):  # X, D, U
            continue
        since_midnight = np.int64(_u64(data, at + 3) & np.uint64(0xFFFFFFFFFFFF))
        what = ODD_TIME if since_midnight > latest else 0
        if added and what == 0 and data[at + 19] != 66 and data[at + 19] != 83:
            what = ODD_SIDE
        way = np.int64(0)
        held = np.int64(0)
        if executed:
            way = np.int64(resting_side[execution])
            held = np.int64(resting_price[execution])
            execution += 1
            if what == 0 and way == 0:
                what = NO_ORDER
        if what != 0:
            bad[wrong, 0] = what
            bad[wrong, 1] = number
            wrong += 1
            continue
        if not traded:
            continue
        ts_event[row] = midnight + since_midnight
        seq[row] = first_seq + number
        where = _u16(data, at + 1)
        locate[row] = where
        symbol[row] = where
        msg_type[row] = kind
        cross_type[row] = 0
        printable[row] = 1
        if executed:
            price[row] = (held if kind == 69 else np.int64(_u32(data, at + 32))) * 100_000
            size[row] = np.uint64(_u32(data, at + 19))
            match_id[row] = _u64(data, at + 23)
            if kind == 67:
                printable[row] = data[at + 31] == 89
        elif kind == 80:
            way = np.int64(data[at + 19] == 66) - np.int64(data[at + 19] == 83)
            price[row] = np.int64(_u32(data, at + 32)) * 100_000
            size[row] = np.uint64(_u32(data, at + 20))
            match_id[row] = _u64(data, at + 36)
        elif kind == 81:
            price[row] = np.int64(_u32(data, at + 27)) * 100_000
            size[row] = _u64(data, at + 11)
            match_id[row] = _u64(data, at + 31)
            cross_type[row] = data[at + 39]
        else:
            price[row] = 0
            size[row] = 0
            match_id[row] = _u64(data, at + 11)
            printable[row] = 0
        side[row] = way
        row += 1
    return row, wrong
