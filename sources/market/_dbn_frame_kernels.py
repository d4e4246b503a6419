"""Where DBN records begin, what is between them, and how many there are of each type.

Records of one type have one size, so framing guesses that the next record is like the last one and only looks whether it
is: no load waits for another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._dbn_loads import i64, u16

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
    "frame",
    "select",
    "survey",
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
#: Records that are looked at together: nearly always they are alike.
_RUN = 16


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
    head, stride, alone = np.uint16(0), np.int64(0), 0
    while at < until and at + 2 <= filled:
        end = at + _RUN * stride
        if alone > 0:
            alone -= 1
        elif stride > 0 and end <= filled and end - stride < until and count + _RUN <= most:
            other = np.uint16(0)
            for i in range(_RUN):
                other |= u16(data, at + i * stride) ^ head
            if other == 0:
                for i in range(_RUN):
                    offsets[count + i] = at + i * stride
                count += _RUN
                rows += _RUN
                at = end
                continue
            alone = _RUN
        if count >= most or wrong >= len(bad) - 1 or mapped >= len(mappings):
            status = FULL
            break
        if stride == 0 or u16(data, at) != head:
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
            head = u16(data, at)
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
            time = i64(data, at + 8)
            if time >= 0:
                span[0] = min(span[0], time)
                span[1] = max(span[1], time)
