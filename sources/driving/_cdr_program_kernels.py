"""The interpreter behind `_cdr_program`: instructions are rows ``(operation, a, b, c)`` of an int64 array."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._cdr_kernels import Bytes, Ints, align, move, spare, text, u32

__all__ = [
    "BEGIN_FIXED",
    "BEGIN_LIST",
    "END",
    "LOOP",
    "STRING",
    "VALUE",
    "VALUES_FIXED",
    "VALUES_LIST",
    "fill",
    "measure",
]

#: END; VALUE width column; STRING list column; VALUES_FIXED width column count; VALUES_LIST width column list;
#: BEGIN_LIST list - behind; BEGIN_FIXED count - behind; LOOP begin.
END, VALUE, STRING, VALUES_FIXED, VALUES_LIST, BEGIN_LIST, BEGIN_FIXED, LOOP = range(8)


@kernel
def measure(
    b: Bytes,
    starts: Ints,
    lengths: Ints,
    log_times: Ints,
    most: int,
    code: Ints,
    status: Bytes,
    values: Ints,
    lists: Ints,
) -> None:
    """Check each message; `values` and `lists` become the items and lists that the good ones have in each column."""
    no_bytes, no_offsets = np.empty(0, np.uint8), np.empty(0, np.int32)
    no_bases = np.empty(0, np.int64)
    totals = np.zeros(lists.shape[0], np.int64)
    values_before, lists_before = values.copy(), lists.copy()
    totals_before = totals.copy()
    for i in range(starts.shape[0]):
        start = starts[i]
        if most > 1 and lengths[i] < 4:
            bad = 1
        elif most > 1 and (b[start] != 0 or b[start + 1] > 1):
            bad = 2
        elif log_times[i] < 0:
            bad = 7
        else:
            bad = _run(
                b, start, lengths[i], most, code, False, no_bytes, no_bases, no_offsets, no_bases, values, lists, totals
            )
        status[i] = bad
        if bad:
            _assign(values, values_before)
            _assign(lists, lists_before)
            _assign(totals, totals_before)
        else:
            _assign(values_before, values)
            _assign(lists_before, lists)
            _assign(totals_before, totals)


@kernel
def _assign(to: Any, values: Any) -> None:
    for i in range(to.shape[0]):  # a slice would be the same and takes much longer to compile
        to[i] = values[i]


@kernel
def fill(
    b: Bytes, starts: Ints, lengths: Ints, most: int, code: Ints, bases: Ints, arena: Bytes, entries: Ints, offsets: Any
) -> None:
    """Write messages that `measure` accepted: items at ``arena[bases[column]:]``, list ends at ``entries[list] + 1``."""
    values, lists = np.zeros(bases.shape[0], np.int64), np.zeros(entries.shape[0], np.int64)
    totals = np.zeros(entries.shape[0], np.int64)
    for i in range(starts.shape[0]):
        _run(b, starts[i], lengths[i], most, code, True, arena, bases, offsets, entries, values, lists, totals)


@kernel
def _run(
    b: Any,
    start: int,
    length: int,
    most: int,
    code: Any,
    write: bool,
    arena: Any,
    bases: Any,
    offsets: Any,
    entries: Any,
    values: Any,
    lists: Any,
    totals: Any,
) -> int:
    """One message through the program. Returns its status (see `_cdr_rows.REASONS`)."""
    end = start + length
    big, origin = False, start
    if most > 1:
        big, origin = b[start + 1] == 0, start + 4
    p, pc, depth = origin, 0, 0
    left = np.empty(64, np.int64)
    while True:
        op, x, y, z = code[pc, 0], code[pc, 1], code[pc, 2], code[pc, 3]
        pc += 1
        if op == 0:
            return 4 if end - p > spare(most) else 0
        if op == 7:
            left[depth - 1] -= 1
            if left[depth - 1] > 0:
                pc = x + 1
            else:
                depth -= 1
            continue
        if op == 6:
            left[depth] = x
            depth += 1
            continue
        if op == 2:
            at, n, p = text(b, p, origin, end, big, most)
            if n < 0:
                return 3
            if write:
                to = bases[y] + values[y]
                move(arena, to, b, at, n)
            elif not _is_utf8(b, at, n):
                return 11
            values[y] += n
            totals[x] += n
            lists[x] += 1
            if write:
                offsets[entries[x] + lists[x]] = totals[x]
            continue
        count: Any = np.int64(1)
        if op == 3:
            count = z
        elif op == 4 or op == 5:
            p = align(p, origin, 4, most)
            if end - p < 4:
                return 1
            count = u32(b, p, big)
            p += 4
            if count > end - p:
                return 3
            chain = z if op == 4 else x
            totals[chain] += count
            lists[chain] += 1
            if write:
                offsets[entries[chain] + lists[chain]] = totals[chain]
            if op == 5:
                if count == 0:
                    pc = z
                else:
                    left[depth] = count
                    depth += 1
                continue
            if count == 0:
                continue
        p = align(p, origin, x, most)
        if count > (end - p) // x:
            return 1
        if write:
            _copy(b, p, arena, bases[y] + values[y] * x, count, x, big)
        values[y] += count
        p += count * x


@kernel
def _copy(b: Any, p: int, arena: Any, to: int, count: int, width: int, big: bool) -> None:
    if not big or width == 1:
        move(arena, to, b, p, count * width)
        return
    for i in range(count):
        for j in range(width):
            arena[to + i * width + j] = b[p + i * width + width - 1 - j]


@kernel
def _is_utf8(b: Any, at: int, size: int) -> bool:
    """Well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF."""
    p, end = at, at + size
    while p < end:
        c = b[p]
        p += 1
        if c < 0x80:
            continue
        low, high, more = 0x80, 0xBF, 0
        if 0xC2 <= c <= 0xDF:
            more = 1
        elif 0xE0 <= c <= 0xEF:
            more = 2
            if c == 0xE0:
                low = 0xA0
            elif c == 0xED:
                high = 0x9F
        elif 0xF0 <= c <= 0xF4:
            more = 3
            if c == 0xF0:
                low = 0x90
            elif c == 0xF4:
                high = 0x8F
        if more == 0 or end - p < more:
            return False
        for _ in range(more):
            if not low <= b[p] <= high:
                return False
            low, high = 0x80, 0xBF
            p += 1
    return True
