"""DBN records to columns, at native speed.

Every schema but that of orders goes column by column. Every load is bounded by the offsets that framing gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._dbn_loads import i64, u32

__all__ = ["build_slots", "find_name", "lookup", "take", "take4", "take8", "text_sizes", "texts", "times"]

#: Symbols that were found lately are kept by some bits of their id: where ids alternate, a look-up in a table has branches
#: that are guessed wrong, and a call with arrays for each record costs more than all its columns.
_RECENT = 1024
_MIX = np.uint64(0x9E3779B1)


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
def find_name(instrument: Any, time: Any, instruments: Any, begins: Any, ends: Any, names: Any, slots: Any) -> Any:
    """The name of an instrument at `time` (-1: none), and from when to when that is so."""
    mask = np.uint64(len(slots) - 1)
    slot = (np.uint64(instrument) * _MIX) & mask
    first = slots[slot]
    while first >= 0 and instruments[np.uint64(first)] != instrument:
        slot = (slot + np.uint64(1)) & mask
        first = slots[slot]
    since, until = np.int64(-(1 << 63)), np.int64((1 << 63) - 1)
    if first >= 0:
        for row in range(first, len(instruments)):
            if instruments[row] != instrument:
                break
            if time < begins[row]:
                until = begins[row]
                break
            if time < ends[row]:
                return names[row], begins[row], ends[row]
            since = ends[row]
    return np.int32(-1), since, until


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
            known[place] = instrument
            found[place], since[place], until[place] = find_name(
                instrument, time, instruments, begins, ends, names, slots
            )
        symbol[i] = found[place]
        missing += found[place] < 0
    return missing


@kernel
def _time(event: Any, recv: Any) -> Any:
    """``(event, recv)`` where the one that is undefined (-1 as int64) is taken from the other; negative if none is."""
    return (recv if event == -1 else event), (event if recv == -1 else recv)


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
        event = i64(data, at + 8)
        event, recv = _time(event, i64(data, at + recv_at) if recv_at >= 0 else event)
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
        out[start + i * step] = i64(data, np.int64(offsets[i]) + place)


@kernel
def take4(data: Any, offsets: Any, rows: Any, place: Any, out: Any, step: Any, start: Any) -> None:
    """Copy 4 bytes at `place` of each record to ``out[start::step]``, of any type that a uint32 fits."""
    for i in range(rows):
        out[start + i * step] = u32(data, np.int64(offsets[i]) + place)


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
