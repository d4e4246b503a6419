"""DBN at native speed: where records begin, and from records to columns.

Records of one type have one size, so framing guesses that the next record is like the last one and only looks whether it
is: no load waits for another. Order records are written to all their columns in one pass while the record is in cache;
other schemas go column by column. Every load is bounded by the offsets that `frame` gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...pipeline.jit import kernel

__all__ = [
    "BAD",
    "CUT",
    "FULL",
    "LOOKAHEAD",
    "LOST",
    "MAPPED",
    "MAPPING_NOW",
    "MORE",
    "POSITION",
    "RECORDS",
    "ROWS",
    "WRONG_LENGTH",
    "build_slots",
    "frame",
    "lookup",
    "orders",
    "select",
    "survey",
    "take",
    "take4",
    "take8",
    "text_sizes",
    "texts",
    "times",
]

#: Bytes that decide where records go on after damage.
LOOKAHEAD = 1 << 16
# Why `frame` stopped.
MORE, FULL, MAPPING_NOW = 0, 1, 2
# What is wrong with a bad record.
WRONG_LENGTH, LOST, CUT = 1, 2, 3
# Indices of `frame`'s in-out counters.
POSITION, RECORDS, BAD, ROWS, MAPPED = 0, 1, 2, 3, 4

_SYMBOL_MAPPING = 0x16
_HEADER = 16
#: Symbols that were found lately are kept by some bits of their id: where ids alternate, a look-up in a table has branches
#: that are guessed wrong, and a call with arrays for each record costs more than all its columns.
_RECENT = 1024
_MIX = np.uint64(0x9E3779B1)
_NO_PRICE = (1 << 63) - 1


def _little_endian(result: Any) -> Any:
    """``load(data, offset)``: an unaligned little-endian integer in one load."""

    def load(typing: Any, data: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            kind = ir.IntType(result.bitwidth).as_pointer()
            return builder.load(builder.bitcast(builder.gep(array.data, [args[1]]), kind), align=1)

        return result(data, offset), generate

    return intrinsic(load)


_u8, _u16, _u32, _i32, _i64 = (
    _little_endian(kind) for kind in (types.uint8, types.uint16, types.uint32, types.int32, types.int64)
)


@kernel
def _follows(data: Any, at: Any, limit: Any, at_end: Any, sizes: Any, need: Any) -> Any:
    """Whether `need` sound records follow from `at`, or fewer up to `limit`. Unknown types are stepped over."""
    seen = 0
    steps = 0
    while seen < need:
        if at >= limit:
            return seen > 0 or (at == limit and at_end)
        if at + _HEADER > limit:
            return seen > 0
        size = np.int64(data[at]) * 4
        want = sizes[data[at + 1]]
        if want != 0:
            if size != want:
                return False
            seen += 1
        else:
            steps += 1
            if steps > 4 or size < _HEADER:
                return False
        at += size
    return True


@kernel
def _judge(data: Any, at: Any, limit: Any, at_end: Any, sizes: Any) -> Any:
    """What to do with an unsound record at `at`: (0: unknown type, or what is wrong; bytes it takes)."""
    size = np.int64(data[at]) * 4
    want = sizes[data[at + 1]]
    if want == 0:
        if size >= _HEADER and at + size <= limit and _follows(data, at + size, limit, at_end, sizes, 1):
            return 0, size
    elif size >= _HEADER and at + size <= limit and _follows(data, at + size, limit, at_end, sizes, 2):
        return WRONG_LENGTH, size
    elif at + want <= limit and _follows(data, at + want, limit, at_end, sizes, 2):
        return WRONG_LENGTH, np.int64(want)
    for there in range(at + 1, limit - _HEADER + 1):
        likely = sizes[data[there + 1]]
        if likely != 0 and np.int64(data[there]) * 4 == likely and _follows(data, there, limit, at_end, sizes, 3):
            return LOST, there - at
    if at_end:
        return LOST, limit - at
    return LOST, max(1, limit - at - 2048)


@kernel
def frame(
    data: Any, filled: Any, until: Any, final: Any, sizes: Any, offsets: Any, bad: Any, mappings: Any, state: Any
) -> Any:
    """Find records from ``state[POSITION]`` up to `until`; their offsets, bad ones and symbol mappings are noted.

    A symbol mapping behind other records stops the block, so that what it says holds for the records behind it only.
    Whether a stretch is bad depends on `LOOKAHEAD` bytes and not on where the buffer ends.
    """
    at = state[POSITION]
    count = state[RECORDS]
    wrong = state[BAD]
    rows = state[ROWS]
    mapped = state[MAPPED]
    status = MORE
    most = len(offsets) - 1
    head, stride = np.uint16(0), np.int64(0)
    while at < until and at + 2 <= filled:
        if count >= most or wrong >= len(bad) - 1 or mapped >= len(mappings):
            status = FULL
            break
        if stride == 0 or _u16(data, at) != head:
            stride = np.int64(data[at]) * 4
            if stride == 0 or sizes[data[at + 1]] != stride:
                if not final and filled - at < LOOKAHEAD:
                    break
                limit = min(filled, at + LOOKAHEAD)
                what, size = _judge(data, at, limit, final and limit == filled, sizes)
                if what == 0:
                    offsets[count] = at
                else:
                    bad[wrong, 0] = what
                    bad[wrong, 1] = at
                    bad[wrong, 2] = size
                    bad[wrong, 3] = count
                    wrong += 1
                    offsets[count] = np.uint32(0xFFFFFFFF)
                count += 1
                rows += 1
                at += size
                stride = np.int64(0)
                continue
            if at + stride > filled:
                break
            if data[at + 1] == _SYMBOL_MAPPING:
                if rows > 0:
                    status = MAPPING_NOW
                    break
                mappings[mapped] = at
                mapped += 1
                offsets[count] = at
                count += 1
                at += stride
                stride = np.int64(0)
                continue
            head = _u16(data, at)
        if at + stride > filled:
            break
        offsets[count] = at
        count += 1
        rows += 1
        at += stride
    state[POSITION] = at
    state[RECORDS] = count
    state[BAD] = wrong
    state[ROWS] = rows
    state[MAPPED] = mapped
    return status


@kernel
def select(data: Any, offsets: Any, count: Any, wanted: Any, chosen: Any, numbers: Any, counts: Any) -> Any:
    """Offsets and numbers of the records whose type is wanted; the others are counted by type. Bad ones are skipped."""
    rows = 0
    for i in range(count):
        at = offsets[i]
        if at == np.uint32(0xFFFFFFFF):
            continue
        kind = data[np.int64(at) + 1]
        if wanted[kind]:
            chosen[rows] = at
            numbers[rows] = i
            rows += 1
        else:
            counts[kind] += 1
    return rows


@kernel
def survey(data: Any, offsets: Any, count: Any, counts: Any, span: Any) -> None:
    """Count records by type and widen `span` by their event times."""
    for i in range(count):
        at = np.int64(offsets[i])
        if at != 0xFFFFFFFF:
            counts[data[at + 1]] += 1
            time = _i64(data, at + 8)
            if time >= 0:
                span[0] = min(span[0], time)
                span[1] = max(span[1], time)


@kernel
def build_slots(instruments: Any, slots: Any) -> None:
    """An open-addressing table: where the rows of each instrument begin. `instruments` is sorted."""
    mask = np.uint64(len(slots) - 1)
    for row in range(len(instruments)):
        if row and instruments[row] == instruments[row - 1]:
            continue
        slot = (np.uint64(instruments[row]) * _MIX) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = row


@kernel
def _find(instrument: Any, time: Any, instruments: Any, begins: Any, ends: Any, slots: Any) -> Any:
    """The row of the interval that holds `time`, or -1."""
    mask = np.uint64(len(slots) - 1)
    slot = (np.uint64(instrument) * _MIX) & mask
    first = slots[slot]
    while first >= 0 and instruments[np.uint64(first)] != instrument:
        slot = (slot + np.uint64(1)) & mask
        first = slots[slot]
    if first >= 0:
        for row in range(first, len(instruments)):
            if instruments[row] != instrument:
                break
            if begins[row] <= time and time < ends[row]:
                return np.int64(row)
    return np.int64(-1)


@kernel
def lookup(
    ids: Any, index_times: Any, rows: Any, instruments: Any, begins: Any, ends: Any, names: Any, slots: Any, symbol: Any
) -> Any:
    """Symbol indices of rows, -1 where there is none; gives how many have none."""
    missing = 0
    known, since, until, found = (
        np.zeros(_RECENT, np.uint32), np.zeros(_RECENT, np.int64), np.zeros(_RECENT, np.int64), np.zeros(_RECENT, np.int32)
    )  # fmt: skip
    for i in range(rows):
        instrument, time = ids[i], index_times[i]
        place = ((np.uint64(instrument) * _MIX) >> np.uint64(22)) & np.uint64(_RECENT - 1)
        if known[place] != instrument or time < since[place] or time >= until[place]:
            at = _find(instrument, time, instruments, begins, ends, slots)
            known[place] = instrument
            since[place], until[place] = (begins[at], ends[at]) if at >= 0 else (time, time + 1)
            found[place] = names[at] if at >= 0 else -1
        symbol[i] = found[place]
        missing += found[place] < 0
    return missing


@kernel
def _time(event: Any, recv: Any) -> Any:
    """``(event, recv)`` where the one that is undefined (-1 as int64) is taken from the other; negative if none is."""
    return (recv if event == -1 else event), (event if recv == -1 else recv)


@kernel
def orders(
    data: Any, offsets: Any, count: Any, wanted: Any, first_seq: Any, sides: Any,
    instruments: Any, begins: Any, ends: Any, names: Any, slots: Any,
    ts_event: Any, ts_recv: Any, seq: Any, symbol: Any, msg_type: Any, side: Any, order_id: Any, price: Any, size: Any,
    flags: Any, instrument_id: Any, publisher_id: Any, channel_id: Any, ts_in_delta: Any, sequence: Any,
    valid: Any, odd: Any, counts: Any, found: Any,
) -> None:  # fmt: skip
    """Order records to ``market.l3``: one pass that writes every column. `found`: rows, odd ones, prices, symbols missing.

    Indices are unsigned, so that no access has to ask whether it counts from the end.
    """
    row, one = np.uint64(0), np.uint64(1)
    known, since, until, found_names = (
        np.zeros(_RECENT, np.uint32), np.zeros(_RECENT, np.int64), np.zeros(_RECENT, np.int64), np.zeros(_RECENT, np.int32)
    )  # fmt: skip
    wrong, no_price, no_symbol = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(np.uint64(count)):
        at = np.int64(offsets[i])
        if at == 0xFFFFFFFF:
            continue
        kind = _u8(data, at + 1)
        if not wanted[kind]:
            counts[kind] += 1
            continue
        event, recv = _time(_i64(data, at + 8), _i64(data, at + 40))
        way = sides[_u8(data, at + 39)]
        if event < 0 or recv < 0 or way == 2:
            odd[wrong] = i
            wrong += one
            continue
        instrument = _u32(data, at + 4)
        place = ((np.uint64(instrument) * _MIX) >> np.uint64(22)) & np.uint64(_RECENT - 1)
        if known[place] != instrument or recv < since[place] or recv >= until[place]:
            there = _find(instrument, recv, instruments, begins, ends, slots)
            known[place] = instrument
            since[place], until[place] = (begins[there], ends[there]) if there >= 0 else (recv, recv + 1)
            found_names[place] = names[there] if there >= 0 else -1
        name = found_names[place]
        no_symbol += np.uint64(name < 0)
        amount = _i64(data, at + 24)
        no_price += np.uint64(amount == _NO_PRICE)
        ts_event[row] = event
        ts_recv[row] = recv
        seq[row] = first_seq + i
        symbol[row] = name
        msg_type[row] = _u8(data, at + 38)
        side[row] = way
        order_id[row] = _i64(data, at + 16)
        price[row] = amount
        valid[row] = amount != _NO_PRICE
        size[row] = _u32(data, at + 32)
        flags[row] = _u8(data, at + 36)
        instrument_id[row] = instrument
        publisher_id[row] = _u16(data, at + 2)
        channel_id[row] = _u8(data, at + 37)
        ts_in_delta[row] = _i32(data, at + 48)
        sequence[row] = _u32(data, at + 52)
        row += one
    found[0] = row
    found[1] = wrong
    found[2] = no_price
    found[3] = no_symbol


@kernel
def times(
    data: Any, offsets: Any, numbers: Any, rows: Any, first_seq: Any, recv_at: Any, side_at: Any, sides: Any,
    ts_event: Any, ts_recv: Any, seq: Any, side: Any, odd: Any,
) -> Any:  # fmt: skip
    """The event columns and the side of selected records; keeps the sound ones. `recv_at`, `side_at`: -1 for none.

    Gives how many are sound (their offsets are moved to the front) and how many are not (their numbers are in `odd`).
    """
    kept = 0
    wrong = 0
    for i in range(rows):
        at = np.int64(offsets[i])
        event = _i64(data, at + 8)
        event, recv = _time(event, _i64(data, at + recv_at) if recv_at >= 0 else event)
        way = sides[data[at + side_at]] if side_at >= 0 else np.int8(0)
        if event < 0 or recv < 0 or way == 2:
            odd[wrong] = numbers[i]
            wrong += 1
            continue
        ts_event[kept] = event
        ts_recv[kept] = recv
        seq[kept] = first_seq + np.uint64(numbers[i])
        side[kept] = way
        offsets[kept] = offsets[i]
        kept += 1
    return kept, wrong


@kernel
def take(data: Any, offsets: Any, rows: Any, place: Any, out: Any) -> None:
    """Copy ``out.shape[1]`` bytes at `place` of each record to a column."""
    width = out.shape[1]
    for i in range(rows):
        at = np.int64(offsets[i]) + place
        for j in range(width):
            out[i, j] = data[at + j]


@kernel
def take8(data: Any, offsets: Any, rows: Any, place: Any, out: Any, step: Any, start: Any) -> None:
    """Copy 8 bytes at `place` of each record to ``out[start::step]``, int64."""
    for i in range(rows):
        out[start + i * step] = _i64(data, np.int64(offsets[i]) + place)


@kernel
def take4(data: Any, offsets: Any, rows: Any, place: Any, out: Any, step: Any, start: Any) -> None:
    """Copy 4 bytes at `place` of each record to ``out[start::step]``, of any type that a uint32 fits."""
    for i in range(rows):
        out[start + i * step] = _u32(data, np.int64(offsets[i]) + place)


@kernel
def text_sizes(data: Any, offsets: Any, rows: Any, place: Any, width: Any, ends: Any) -> Any:
    """Arrow offsets of a column of NUL-ended texts."""
    total = np.int32(0)
    ends[0] = 0
    for i in range(rows):
        at = np.int64(offsets[i]) + place
        size = 0
        while size < width and data[at + size] != 0:
            size += 1
        total += np.int32(size)
        ends[i + 1] = total
    return total


@kernel
def texts(data: Any, offsets: Any, rows: Any, place: Any, ends: Any, out: Any) -> None:
    """Copy texts to where `text_sizes` said."""
    for i in range(rows):
        at = np.int64(offsets[i]) + place
        for j in range(ends[i + 1] - ends[i]):
            out[ends[i] + j] = data[at + j]
