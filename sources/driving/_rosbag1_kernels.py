"""The walk over ROS 1 bag records in memory: nothing is read past the end, whatever a length claims."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._cdr_kernels import u32

__all__ = ["walk"]

#: Headers of records inside a chunk are shorter than this; looking for one in damaged bytes, longer ones are not tried.
_SHORT = 1024


@kernel
def walk(
    b: Any, end: int, ops: Any, conns: Any, times: Any, places: Any, starts: Any, lengths: Any, gaps: Any
) -> tuple[int, int]:
    """Kind, connection, time (ns), place of record and data, and data length of the records in ``b[:end]``.

    A record whose header has no connection or time has -1 there. Where a record cannot be right, the walk goes on with the
    next one that can; if that begins inside the record before, that one's length was wrong and is cut. ``gaps[k]`` takes
    begin and end of the bytes that belong to no record. The arrays take as many as they have room for; returns how many
    records and gaps there are in all.
    """
    pos, count, gap = 0, 0, 0
    last: Any = np.int64(-1)  # where the data of the record before begins, if that may hold the next one
    while pos < end:
        op, conn, time, start, length = _record(b, pos, end, end)
        if op < 0:
            from_ = pos + 1 if last < 0 else last
            p = _next(b, from_, end)
            if last >= 0 and p < pos:
                if count - 1 < ops.shape[0]:
                    lengths[count - 1] = p - last
            else:
                if gap < gaps.shape[0]:
                    gaps[gap, 0], gaps[gap, 1] = pos, p
                gap += 1
            pos, last = p, np.int64(-1)
            continue
        if count < ops.shape[0]:
            ops[count], conns[count], times[count] = op, conn, time
            places[count], starts[count], lengths[count] = pos, start, length
        count += 1
        last = start
        pos = start + length
    return count, gap


@kernel
def _next(b: Any, pos: int, end: int) -> int:
    """Where the next record begins that is a message, ends at `end`, or is followed by another; `end` if there is none.

    A message's header has 30 bytes that are always the same, so one needs no other record behind it.
    """
    while end - pos >= 16:
        if b[pos + 2] == 0 and b[pos + 3] == 0 and b[pos] | b[pos + 1]:
            op, _, _, start, length = _record(b, pos, end, _SHORT)
            if op >= 0:
                behind = start + length
                if op == 2 or behind == end or _record(b, behind, end, _SHORT)[0] >= 0:
                    return pos
        pos += 1
    return end


@kernel
def _record(b: Any, pos: int, end: int, most: int) -> tuple[Any, Any, Any, Any, Any]:
    """Kind, connection, time, place and length of the data of the record at `pos`; the kind is -1 if it is none."""
    none = np.int64(-1)
    if end - pos < 8:
        return none, none, none, none, none
    size = u32(b, pos, False)
    if size > end - pos - 8 or size > most:
        return none, none, none, none, none
    q, stop = pos + 4, pos + 4 + size
    op, conn, time = none, none, none
    while stop - q >= 4:
        n = u32(b, q, False)
        q += 4
        if n > stop - q:
            return none, none, none, none, none
        if n == 4 and b[q] == 111 and b[q + 1] == 112 and b[q + 2] == 61:  # op=
            op = np.int64(b[q + 3])
        elif n == 9 and _named(b, q, 99, 111, 110, 110):  # conn=
            conn = u32(b, q + 5, False)
        elif n == 13 and _named(b, q, 116, 105, 109, 101):  # time=
            time = u32(b, q + 5, False) * 1_000_000_000 + u32(b, q + 9, False)
        q += n
    length = u32(b, stop, False)
    if q != stop or length > end - stop - 4 or (op == 2 and (conn < 0 or time < 0)):
        return none, none, none, none, none
    return op, conn, time, np.int64(stop + 4), length


@kernel
def _named(b: Any, q: int, c0: int, c1: int, c2: int, c3: int) -> Any:
    return b[q] == c0 and b[q + 1] == c1 and b[q + 2] == c2 and b[q + 3] == c3 and b[q + 4] == 61
