"""DBN order records to ``market.l3`` in one pass: what was just unpacked is framed and written to columns while in cache.

Nearly all records of a file are alike, so eight at a time are copied and then asked whether they are; where one is not, up
to sixteen are framed as those of any schema are, and gone through one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from . import _dbn_frame_kernels as framing
from ._dbn_frame_kernels import frame
from ._dbn_kernels import find_name
from ._dbn_loads import i32, i64, u8, u16, u32
from ._dbn_order_columns import AHEAD, LENGTH, eight_orders

__all__ = [
    "AHEAD",
    "COLUMNS",
    "FEW",
    "LEARN",
    "ODD",
    "RECENT",
    "ROW",
    "SPARE",
    "START",
    "STATE",
    "State",
    "forget",
    "go_on",
    "keep",
    "orders",
]

#: Where each column begins, in bytes a row, and the bytes of a row.
COLUMNS = {
    "ts_event": 0, "ts_recv": 8, "seq": 16, "order_id": 24, "price": 32, "symbol": 40, "size": 44, "instrument_id": 48,
    "ts_in_delta": 52, "sequence": 56, "publisher_id": 60, "msg_type": 62, "side": 63, "flags": 64, "channel_id": 65,
}  # fmt: skip
ROW = 66


class State:
    """Indices of the in-out counters: where in the data, in the block and in its rows the reader is."""

    POSITION, FILLED, UNTIL, FINAL = 0, 1, 2, 3
    ROOM, FIRST, NUMBER, ROW, OTHERS = 4, 5, 6, 7, 8
    BAD, MAPPED, SINCE, UP_TO, PRICELESS, NAMELESS, BASE = 9, 10, 11, 12, 13, 14, 15


#: Where in the data bytes are read to. What was left before, no more than a verdict on damage needs, is moved before it.
START = framing.LOOKAHEAD + 1024
#: Numbers in the state.
STATE = 16
#: Records that are framed at once where eight are not alike, and entries of `bad` that are kept free for them.
FEW, SPARE = 16, 40
# Why `orders` stopped, beside what `frame` says: symbols were mapped that hold from here on.
LEARN = 3
#: What is wrong with a bad record, beside what `frame` says: its side or its time cannot be.
ODD = 4

#: Names that were found lately are kept by some bits of the instrument's id, id and name in one word: where ids alternate,
#: a look-up in a table has branches that are guessed wrong.
RECENT = 1024
_MIX = np.uint64(0x9E3779B1)
_NO_PRICE = (1 << 63) - 1
_EARLIEST, _LATEST = -(1 << 63), (1 << 63) - 1
_NO_RECORD = 0xFFFFFFFF
_SYMBOL_MAPPING = 0x16
# Unsigned, so that no access has to ask whether it counts from the end.
_8, _32 = np.uint64(8), np.uint64(32)
_POSITION, _FILLED, _UNTIL, _FINAL = State.POSITION, State.FILLED, State.UNTIL, State.FINAL
_ROOM, _FIRST, _NUMBER, _ROW, _OTHERS = State.ROOM, State.FIRST, State.NUMBER, State.ROW, State.OTHERS
_BAD, _MAPPED, _SINCE, _UP_TO = State.BAD, State.MAPPED, State.SINCE, State.UP_TO
_PRICELESS, _NAMELESS, _BASE = State.PRICELESS, State.NAMELESS, State.BASE


@kernel
def _place(instrument: Any) -> Any:
    return ((instrument * _MIX) >> np.uint64(22)) & np.uint64(RECENT - 1)


@kernel
def forget(recent: Any, state: Any) -> None:
    """Nothing is known of names: an id that belongs elsewhere in every place, at all times."""
    recent[:] = 0
    recent[0] = np.uint64(1) << _32
    state[_SINCE], state[_UP_TO] = _EARLIEST, _LATEST


@kernel
def _columns(out: Any, room: Any) -> Any:
    """Columns of `room` rows one behind the other, as `COLUMNS` has them, `symbol`, `seq` and `side` last."""
    return (
        (
            out[: 8 * room].view(np.int64), out[8 * room : 16 * room].view(np.int64), out[62 * room : 63 * room],
            out[24 * room : 32 * room].view(np.uint64), out[32 * room : 40 * room].view(np.int64),
            out[44 * room : 48 * room].view(np.uint32), out[64 * room : 65 * room],
            out[48 * room : 52 * room].view(np.uint32), out[60 * room : 62 * room].view(np.uint16), out[65 * room :],
            out[52 * room : 56 * room].view(np.int32), out[56 * room : 60 * room].view(np.uint32),
        ),
        out[40 * room : 44 * room].view(np.int32),
        out[16 * room : 24 * room].view(np.uint64),
        out[63 * room : 64 * room].view(np.int8),
    )  # fmt: skip


@kernel
def alike(data: Any, out: Any, recent: Any, state: Any) -> None:
    """Go on over orders eight at a time, while all are alike, their names are known, and there is room in the block."""
    columns, symbol, seq, side = _columns(out, state[_ROOM])
    instrument_id = columns[7]
    at, row, number = state[_POSITION], np.uint64(state[_ROW]), state[_NUMBER]
    first = np.uint64(state[_FIRST]) - row + np.uint64(number)
    begin, since, until = row, state[_SINCE], state[_UP_TO]
    last = min(state[_FILLED] - AHEAD, state[_UNTIL] - 7 * LENGTH - 1)
    stop = row + np.uint64(max(0, state[_ROOM] - number - 7))
    all_unusual, all_names = np.uint64(0), np.uint64(0)
    while at <= last and row < stop:
        unusual = eight_orders(data, at, row, first + row, since, until, seq, side, columns)
        others, names = unusual & np.uint64(255), np.uint64(0)
        for k in range(_8):
            instrument = np.uint64(instrument_id[row + k])
            entry = recent[_place(instrument)]
            others |= (entry >> _32) ^ instrument
            names |= entry
            symbol[row + k] = np.int32(np.uint32(entry))
        if others:
            break
        all_unusual |= unusual
        all_names |= names
        row += _8
        at += 8 * LENGTH
    if row > begin:
        state[_POSITION], state[_ROW], state[_NUMBER] = at, row, number + np.int64(row - begin)
        state[_OTHERS] = 1
        state[_PRICELESS] |= all_unusual != 0
        state[_NAMELESS] |= np.int32(np.uint32(all_names)) < 0


@kernel
def go_on(data: Any, out: Any, recent: Any, state: Any, got: Any) -> Any:
    """`alike`, over `got` more bytes in ``data[START:]`` (-1: none were asked for). Whether more have to be read now."""
    if got >= 0:
        state[_FILLED] += got
        state[_FINAL] = state[_FILLED] < len(data)
    alike(data, out, recent, state)
    at, filled = state[_POSITION], state[_FILLED]
    if state[_FINAL] or at + AHEAD <= filled or at >= state[_UNTIL] or state[_NUMBER] == state[_ROOM]:
        return False
    keep(data, state)
    return True


@kernel
def keep(data: Any, state: Any) -> None:
    """Move what is left before `START`, so that `READ` bytes more can come behind it, at an aligned place."""
    at, left = state[_POSITION], state[_FILLED] - state[_POSITION]
    for i in range(left):
        data[START - left + i] = data[at + i]
    moved = at - (START - left)
    state[_BASE] += moved
    state[_UNTIL] -= moved
    state[_POSITION], state[_FILLED] = START - left, START


@kernel
def _maps(data: Any, sizes: Any, state: Any) -> Any:
    """Whether a whole symbol mapping comes next."""
    at, size = state[_POSITION], np.int64(sizes[_SYMBOL_MAPPING])
    if size == 0 or at + size > state[_FILLED] or at >= state[_UNTIL]:
        return False
    return data[at + 1] == _SYMBOL_MAPPING and np.int64(data[at]) * 4 == size


@kernel
def _one_by_one(
    data: Any, out: Any, recent: Any, state: Any, wanted: Any, sides: Any, symbols: Any, few: Any, count: Any, bad: Any,
    counts: Any,
) -> None:  # fmt: skip
    """The records that begin at ``few[:count]``: orders to rows, what is odd about others to `bad`."""
    columns, symbol, seq, side = _columns(out, state[_ROOM])
    ts_event, ts_recv, msg_type, order_id, price, size, flags, instrument_id = columns[:8]
    publisher_id, channel_id, ts_in_delta, sequence = columns[8:]
    instruments, begins, ends, names, slots = symbols
    for i in range(count):
        at = np.int64(few[i])
        if at == _NO_RECORD:
            continue
        kind = u8(data, at + 1)
        if not wanted[kind]:
            counts[kind] += 1
            continue
        number = state[_NUMBER] + i
        event, recv = i64(data, at + 8), i64(data, at + 40)
        if event == -1:
            event = recv
        elif recv == -1:
            recv = event
        way = sides[u8(data, at + 39)]
        if event < 0 or recv < 0 or way == 2:
            wrong = state[_BAD]
            bad[wrong, 0], bad[wrong, 1], bad[wrong, 2], bad[wrong, 3] = ODD, at, 4 * np.int64(data[at]), number
            state[_BAD] += 1
            continue
        instrument = np.uint64(u32(data, at + 4))
        if recv < state[_SINCE] or recv >= state[_UP_TO]:
            forget(recent, state)
        entry = recent[_place(instrument)]
        if entry >> _32 != instrument:
            named, first, end = find_name(instrument, recv, instruments, begins, ends, names, slots)
            state[_SINCE], state[_UP_TO] = max(state[_SINCE], first), min(state[_UP_TO], end)
            entry = (instrument << _32) | np.uint64(np.uint32(named))
            recent[_place(instrument)] = entry
        amount, row = i64(data, at + 24), np.uint64(state[_ROW])
        ts_event[row], ts_recv[row], seq[row] = event, recv, np.uint64(state[_FIRST] + number)
        symbol[row], side[row], price[row] = np.int32(np.uint32(entry)), way, amount
        msg_type[row], flags[row], channel_id[row] = u8(data, at + 38), u8(data, at + 36), u8(data, at + 37)
        order_id[row], size[row] = i64(data, at + 16), u32(data, at + 32)
        instrument_id[row], publisher_id[row] = instrument, u16(data, at + 2)
        ts_in_delta[row], sequence[row] = i32(data, at + 48), u32(data, at + 52)
        state[_PRICELESS] |= amount == _NO_PRICE
        state[_NAMELESS] |= symbol[row] < 0
        state[_ROW] += 1


@kernel
def orders(
    data: Any, out: Any, recent: Any, state: Any, sizes: Any, wanted: Any, sides: Any, symbols: Any, few: Any, bad: Any,
    mappings: Any, counts: Any,
) -> Any:  # fmt: skip
    """Go on over whatever records come, and say why not further: `MORE`, `FULL` or `MAPPING_NOW` of `frame`, or `LEARN`.

    Records that are no orders are counted by type. `bad` gets what is wrong, where, how many bytes, and the number of the
    record in the block. Before anything is decoded for which the symbols in `mappings` hold, it stops with `LEARN`.
    """
    local = np.zeros(5, np.int64)
    while True:
        while state[_MAPPED] < len(mappings) and state[_NUMBER] < state[_ROOM] and _maps(data, sizes, state):
            if state[_OTHERS]:
                return framing.MAPPING_NOW
            mappings[state[_MAPPED]] = state[_POSITION]
            state[_POSITION] += np.int64(sizes[_SYMBOL_MAPPING])
            state[_MAPPED] += 1
            state[_NUMBER] += 1
            counts[_SYMBOL_MAPPING] += 1
        if state[_MAPPED] > 0:
            return LEARN
        alike(data, out, recent, state)
        at = state[_POSITION]
        if state[_ROOM] - state[_NUMBER] < FEW or state[_BAD] > len(bad) - SPARE:
            return framing.FULL
        if _maps(data, sizes, state):
            continue
        if not state[_FINAL] and at + AHEAD > state[_FILLED]:
            return framing.MORE
        local[:] = 0
        local[framing.POSITION], local[framing.BAD] = at, state[_BAD]
        frame(data, state[_FILLED], state[_UNTIL], state[_FINAL] != 0, sizes, few, bad, mappings, local)
        count = local[framing.RECORDS]
        if count == 0:
            return framing.MORE
        for wrong in range(state[_BAD], local[framing.BAD]):
            bad[wrong, 3] += state[_NUMBER]
        state[_BAD] = local[framing.BAD]
        _one_by_one(data, out, recent, state, wanted, sides, symbols, few, count, bad, counts)
        state[_NUMBER] += count
        state[_POSITION] = local[framing.POSITION]
        state[_OTHERS] = 1
