"""sensor_msgs/PointCloud2: any field order, type, byte order and padding, to the eight columns of a radar point."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._cdr_kernels import Bytes, Ints, align, head, same, spare, text, u16, u32, u64

__all__ = ["points", "scans"]


@kernel
def scans(
    b: Bytes,
    starts: Ints,
    lengths: Ints,
    log_times: Ints,
    most: int,
    first: int,
    status: Bytes,
    ts_event: Ints,
    ts_recv: Ints,
    seq: Any,
    n_points: Any,
    places: Ints,
    shape: Ints,
    offsets: Any,
) -> tuple[int, bool, int]:
    """Rows of the messages whose `status` is 0 and stays so.

    Returns how many, whether all list the same fields, and the least bytes between points of a scan that has any.

    ``places[:, row]``: where the frame_id and the list of fields are, each with its length. ``shape[row]``: rows, points
    in a row, bytes between points, bytes between rows, where the points begin, big endian message, big endian points. The
    list is checked to be whole, not what it says. `offsets` become the running sum of the points.
    """
    k, alike, least = 0, True, np.iinfo(np.int64).max
    offsets[0] = 0
    for i in range(starts.shape[0]):
        if status[i]:
            continue
        end, origin = starts[i] + lengths[i], starts[i] + 4
        bad, big, stamp, at, size, p = head(b, starts[i], lengths[i], log_times[i], most)
        rows, width, listed, step, row_step = 0, 0, 0, 0, 0
        repeated, other_order = False, False
        if bad == 0:
            p = align(p, origin, 4, most)
            if end - p < 12:
                bad = 1
        if bad == 0:
            rows, width, listed = u32(b, p, big), u32(b, p + 4, big), p + 8
            if k > 0 and shape[k - 1, 5] == big and places[3, k - 1] <= end - listed:
                repeated = same(b, listed, places[2, k - 1], places[3, k - 1])
            if repeated:
                p = listed + places[3, k - 1]
            else:
                p += 12
                for _ in range(u32(b, listed, big)):
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
            step, row_step = u32(b, p, big), u32(b, p + 4, big)
            other_order = b[behind] != 0
            stored = u32(b, p + 8, big)
            rest = end - p - 12 - stored
            if rest < 1:  # is_dense stands behind the points
                bad = 6
            elif rest > 1 + spare(most):
                bad = 4
            else:
                bad = _fits(rows, width, step, row_step, stored)
        if bad:
            status[i] = bad
            continue
        alike = alike and (repeated or k == 0)
        ts_event[k], ts_recv[k], seq[k], n_points[k] = stamp, log_times[i], first + i, rows * width
        places[0, k], places[1, k], places[2, k], places[3, k] = at, size, listed, behind - listed
        shape[k, 0], shape[k, 1], shape[k, 2], shape[k, 3] = rows, width, step, row_step
        shape[k, 4], shape[k, 5], shape[k, 6] = p + 12, big, other_order
        offsets[k + 1] = offsets[k] + rows * width
        if rows * width > 0:
            least = min(least, step)
        k += 1
    return k, alike, least


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


#: Points whose columns are filled one after the other, while their bytes are in the nearest cache.
_RUN = 512


@kernel
def points(
    b: Bytes,
    shape: Ints,
    layout: Ints,
    offsets: Any,
    layouts: Ints,
    plain: Bytes,
    floats: Any,
    track: Any,
    flags: Any,
    valid: Any,
) -> None:
    """Points of each scan from ``offsets[i]`` on.

    ``layouts[k, c]`` is byte offset and datatype of column `c` (-1: none) in layout `k`; columns are the six of `floats`
    (x, y, z, vr, rcs, snr), then `track`, then `flags`. ``valid[c]`` is cleared where a point has no value: the field is
    missing, or an integer column's value is not a whole number in its range. Where ``plain[c]`` is 1 every value is
    there, and where it is 2 none is: `valid` is then not touched, nor in the second case the column.
    """
    used = np.flatnonzero(plain != 2)
    for i in range(layout.shape[0]):
        k, step, width = layout[i], shape[i, 2], shape[i, 1]
        big = shape[i, 6] != 0
        for row in range(shape[i, 0]):
            begin = np.int64(offsets[i]) + row * width
            for q in range(begin, begin + width, _RUN):
                stop = min(q + _RUN, begin + width)
                start = shape[i, 4] + row * shape[i, 3] + (q - begin) * step
                for c in used:
                    p, kind, there = start + layouts[k, c, 0], layouts[k, c, 1], layouts[k, c, 0] >= 0
                    if c >= 6:
                        if c == 6:
                            _whole(b, p, step, kind, big, there, track, plain[c], valid[c], q, stop)
                        else:
                            _whole(b, p, step, kind, big, there, flags, plain[c], valid[c], q, stop)
                    elif kind == 7 and not big:
                        for j in range(q, stop):
                            floats[c, j] = np.uint32(u32(b, p, False)).view(np.float32)
                            p += step
                    else:
                        for j in range(q, stop):
                            floats[c, j] = np.float32(_number(b, p, kind, big)) if there else np.float32(0.0)
                            p += step
                    if c < 6 and plain[c] == 0:
                        for j in range(q, stop):
                            valid[c, j] = there


@kernel
def _whole(
    b: Any, p: int, step: int, kind: int, big: bool, there: bool, out: Any, plain: int, valid: Any, q: int, stop: int
) -> None:
    """Whole numbers as far as `out` holds them."""
    top = np.float64(np.iinfo(out.dtype).max)
    for j in range(q, stop):
        value = _number(b, p, kind, big) if there else np.float64(-1.0)
        fits = 0.0 <= value <= top
        whole = np.int64(value) if fits else np.int64(0)
        fits = fits and np.float64(whole) == value
        out[j] = whole if fits else 0
        if plain == 0:
            valid[j] = fits
        p += step
