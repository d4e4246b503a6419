"""Kernels that say which slot of the window state each row belongs to.

A slot is a row of the state arrays: one (key, pane) for tumbling and sliding windows, one open session for session
windows. Kernels stop where Python has to act (no free slot, two sessions to merge) and are called again from that row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.jit import kernel

__all__ = [
    "DONE",
    "FREE",
    "FULL",
    "LEFT",
    "MERGE",
    "RIGHT",
    "SOONEST",
    "STATUS",
    "map_panes",
    "map_sessions",
    "panes_enter",
    "panes_remove",
    "sessions_enter",
    "sessions_remove",
]

#: Positions in the counters: free slots left, why a kernel stopped, the two sessions to merge, the soonest session end.
FREE, STATUS, LEFT, RIGHT, SOONEST = 0, 1, 2, 3, 4
#: Why a kernel stopped.
DONE, FULL, MERGE = 0, 1, 2

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@kernel
def _home(key: Any, pane: Any, mask: Any) -> Any:
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(pane) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))


@kernel
def map_panes(
    times: Ints,
    keys: Ints,
    begin: int,
    every: int,
    rest: int,
    offset: int,
    closed: int,
    table: Ints,
    pane_of: Ints,
    key_of: Ints,
    used: Bytes,
    free: Ints,
    counters: Ints,
    out: Ints,
) -> int:
    """The slot of each row from `begin` in `out`, -1 for rows all of whose windows (up to number `closed`) are closed.

    Slide ``q`` is ``[offset + q * every, offset + (q + 1) * every)``. With ``rest = size % every`` not zero a slide has
    two panes, ``2q`` up to `rest` and ``2q + 1`` behind it, because some windows end there. Returns the row reached.
    """
    mask = table.size - 1
    slide = np.int64(0)
    low = np.int64(0)
    high = np.int64(0)
    for row in range(begin, times.size):
        time = times[row] - offset
        if time < low or time >= high:
            slide = time // every
            low = slide * every
            high = low + every
        if slide <= closed:
            out[row] = -1
            continue
        pane = slide
        if rest > 0:
            pane = 2 * slide + (1 if time - low >= rest else 0)
        key = keys[row]
        place = _home(key, pane, mask)
        while True:
            slot = table[place]
            if slot < 0:
                if counters[FREE] == 0:
                    counters[STATUS] = FULL
                    return row
                counters[FREE] -= 1
                slot = free[counters[FREE]]
                table[place] = slot
                pane_of[slot] = pane
                key_of[slot] = key
                used[slot] = 1
                break
            if pane_of[slot] == pane and key_of[slot] == key:
                break
            place = (place + 1) & mask
        out[row] = slot
    counters[STATUS] = DONE
    return times.size


@kernel
def panes_enter(table: Ints, pane_of: Ints, key_of: Ints, slots: Ints) -> None:
    """Enter `slots`, all different, into the table."""
    mask = table.size - 1
    for slot in slots:
        place = _home(key_of[slot], pane_of[slot], mask)
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = slot


@kernel
def panes_remove(table: Ints, pane_of: Ints, key_of: Ints, slots: Ints) -> None:
    """Take `slots` out of the table, moving back those that were displaced by them."""
    mask = table.size - 1
    for slot in slots:
        hole = _home(key_of[slot], pane_of[slot], mask)
        while table[hole] != slot:
            hole = (hole + 1) & mask
        place = hole
        while True:
            place = (place + 1) & mask
            other = table[place]
            if other < 0:
                break
            home = _home(key_of[other], pane_of[other], mask)
            if ((place - home) & mask) >= ((place - hole) & mask):
                table[hole] = other
                hole = place
        table[hole] = -1


@kernel
def map_sessions(
    times: Ints,
    keys: Ints,
    begin: int,
    gap: int,
    watermark: int,
    head: Ints,
    older: Ints,
    first: Ints,
    last: Ints,
    key_of: Ints,
    used: Bytes,
    free: Ints,
    counters: Ints,
    out: Ints,
) -> int:
    """The slot of each row from `begin` in `out`, -1 for rows whose session would be closed already.

    Rows of a key less than `gap` apart are in one session. ``head[key]`` is its newest open session and `older` leads on
    to earlier ones. A row that joins two sessions makes the kernel stop before it with MERGE: the right one has been
    taken out of the list, its span given to the left one, and its contents are for the caller to merge.
    """
    for row in range(begin, times.size):
        time = times[row]
        key = keys[row]
        newer = np.int64(-1)
        slot = head[key]
        while slot >= 0 and first[slot] - gap >= time:
            newer = slot
            slot = older[slot]
        if slot >= 0 and time - gap < last[slot]:
            left = older[slot]
            if left >= 0 and time - gap < last[left]:
                last[left] = last[slot]
                if newer < 0:
                    head[key] = left
                else:
                    older[newer] = left
                counters[LEFT] = left
                counters[RIGHT] = slot
                counters[STATUS] = MERGE
                return row
            if time < first[slot]:
                first[slot] = time
            if time > last[slot]:
                last[slot] = time
            out[row] = slot
            continue
        if time + gap <= watermark:
            out[row] = -1
            continue
        if counters[FREE] == 0:
            counters[STATUS] = FULL
            return row
        counters[FREE] -= 1
        fresh = free[counters[FREE]]
        first[fresh] = time
        last[fresh] = time
        key_of[fresh] = key
        used[fresh] = 1
        older[fresh] = slot
        if newer < 0:
            head[key] = fresh
        else:
            older[newer] = fresh
        if time + gap < counters[SOONEST]:
            counters[SOONEST] = time + gap
        out[row] = fresh
    counters[STATUS] = DONE
    return times.size


@kernel
def sessions_enter(head: Ints, older: Ints, key_of: Ints, slots: Ints) -> None:
    """Enter `slots`, in order of time, at the head of their keys' lists."""
    for slot in slots:
        older[slot] = head[key_of[slot]]
        head[key_of[slot]] = slot


@kernel
def sessions_remove(head: Ints, older: Ints, key_of: Ints, slots: Ints) -> None:
    """Take `slots` out of their keys' lists."""
    for slot in slots:
        key = key_of[slot]
        if head[key] == slot:
            head[key] = older[slot]
            continue
        newer = head[key]
        while older[newer] != slot:
            newer = older[newer]
        older[newer] = older[slot]
