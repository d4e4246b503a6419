"""sensor_msgs/PointCloud2: any field order, type, byte order and padding, to the eight columns of a radar point."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._cdr_kernels import Bytes, Ints, align, head, spare, text, u16, u32, u64

__all__ = ["points", "scans"]


@kernel
def scans(
    b: Bytes,
    starts: Ints,
    lengths: Ints,
    log_times: Ints,
    most: int,
    status: Bytes,
    ts_event: Ints,
    id_at: Ints,
    id_size: Ints,
    fields_at: Ints,
    fields_size: Ints,
    shape: Ints,
) -> None:
    """Places of the fields of each message.

    ``shape[i]`` becomes: rows, points in a row, bytes between points, bytes between rows, where the points begin, big
    endian message, big endian points. The fields list is checked to be whole, not what it says.
    """
    for i in range(starts.shape[0]):
        end, origin = starts[i] + lengths[i], starts[i] + 4
        bad, big, stamp, at, size, p = head(b, starts[i], lengths[i], log_times[i], most)
        listed: Any = np.int64(0)
        behind: Any = np.int64(0)
        for j in range(7):
            shape[i, j] = 0
        if bad == 0:
            p = align(p, origin, 4, most)
            if end - p < 12:
                bad = 1
        if bad == 0:
            shape[i, 0], shape[i, 1] = u32(b, p, big), u32(b, p + 4, big)
            count, listed = u32(b, p + 8, big), p + 8
            p += 12
            for _ in range(count):
                _, n, p = text(b, p, origin, end, big, most)
                p = align(p, origin, 4, most) + 5
                p = align(p, origin, 4, most) + 4
                if n < 0 or p > end:
                    bad = 3
                    break
            behind = p
        if bad == 0:
            p = align(p + 1, origin, 4, most)
            if end - p < 12:
                bad = 1
        if bad == 0:
            shape[i, 2], shape[i, 3], shape[i, 4] = u32(b, p, big), u32(b, p + 4, big), p + 12
            shape[i, 5], shape[i, 6] = big, b[behind] != 0
            stored = u32(b, p + 8, big)
            rest = end - p - 12 - stored
            if rest < 1:  # is_dense stands behind the points
                bad = 6
            elif rest > 1 + spare(most):
                bad = 4
            else:
                bad = _fits(shape[i, 0], shape[i, 1], shape[i, 2], shape[i, 3], stored)
        status[i] = bad
        good = bad == 0
        ts_event[i] = stamp if good else 0
        id_at[i], id_size[i] = (at, size) if good else (0, 0)
        fields_at[i], fields_size[i] = (listed, behind - listed) if good else (0, 0)


@kernel
def _fits(rows: int, width: int, step: int, row_step: int, stored: int) -> int:
    """0 if all points lie inside the stored bytes, else 8. Divides, so that no product can overflow."""
    if rows == 0 or width == 0:
        return 0
    if step == 0 or width > stored // step:
        return 8
    if rows == 1:
        return 0
    if row_step < width * step or rows - 1 > (stored - width * step) // row_step:
        return 8
    return 0


@kernel
def _number(b: Any, p: int, kind: int, big: bool) -> Any:
    """A field of PointField datatype `kind` as float64, exact for all of them."""
    if kind == 7:
        return np.float64(np.uint32(u32(b, p, big)).view(np.float32))
    if kind == 8:
        return np.uint64(u64(b, p, big)).view(np.float64)
    if kind == 6:
        return np.float64(u32(b, p, big))
    if kind == 5:
        return np.float64(np.int32(u32(b, p, big)))
    if kind == 4:
        return np.float64(u16(b, p, big))
    if kind == 3:
        return np.float64(np.int16(u16(b, p, big)))
    if kind == 2:
        return np.float64(b[p])
    return np.float64(np.int8(b[p]))


@kernel
def points(
    b: Bytes,
    shape: Ints,
    layout: Ints,
    offsets: Any,
    layouts: Ints,
    floats: Any,
    track: Any,
    flags: Any,
    valid: Any,
) -> None:
    """Points of each scan from ``offsets[i]`` on.

    ``layouts[k, c]`` is byte offset and datatype of column `c` (-1: none) in layout `k`; columns are the six of `floats`
    (x, y, z, vr, rcs, snr), then `track`, then `flags`. ``valid[c]`` is cleared where a point has no value: the field is
    missing, or an integer column's value is not a whole number in its range.
    """
    for i in range(shape.shape[0]):
        k = layout[i]
        big = shape[i, 6] != 0
        for c in range(8):
            at, kind = layouts[k, c, 0], layouts[k, c, 1]
            q = np.int64(offsets[i])
            for row in range(shape[i, 0]):
                p = shape[i, 4] + row * shape[i, 3] + at
                for _ in range(shape[i, 1]):
                    value: Any = 0.0
                    there = at >= 0
                    if there:
                        value = _number(b, p, kind, big)
                    if c < 6:
                        floats[c, q] = np.float32(value)
                    else:
                        top = 4294967295.0 if c == 6 else 65535.0
                        if not (0.0 <= value <= top) or value != np.floor(value):
                            there, value = False, 0.0
                        if c == 6:
                            track[q] = np.uint32(value)
                        else:
                            flags[q] = np.uint16(value)
                    valid[c, q] = there
                    q += 1
                    p += shape[i, 2]
