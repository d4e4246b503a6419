"""CDR and ROS 1 messages read by numba: the common message header, and the two fixed tables `can.frame` and `imu`.

CDR (XCDR1) aligns every number to its size, counted from byte 4, behind the encapsulation header. ROS 1 has no such
header, is little endian, packs without gaps, and its std_msgs/Header begins with a counter. All kernels take `most`, the
largest alignment: 8 for CDR, 1 for ROS 1. All positions are int64 offsets into one buffer of records; nothing is read
before it is known to lie inside its message.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._cdr_loads import u16, u32, u64

__all__ = [
    "Bytes",
    "Ints",
    "align",
    "alike",
    "can_frames",
    "head",
    "imu_samples",
    "intern",
    "move",
    "same",
    "spare",
    "text",
    "u16",
    "u32",
    "u64",
]

#: What numba gets: uint8 and int64 arrays.
Bytes = Any
Ints = Any


@kernel
def move(out: Any, to: int, b: Any, at: int, size: int) -> None:
    """Copy `size` bytes. Indexing views lets the loop become a memcpy, and compiles faster than assigning slices."""
    source, target = b[at : at + size], out[to : to + size]
    for j in range(source.shape[0]):
        target[j] = source[j]


@kernel
def align(p: int, origin: int, size: int, most: int) -> Any:
    """`p` moved up to a multiple of `size`, but not more than `most` (powers of two), from `origin`."""
    size = min(size, most)
    return origin + ((p - origin + size - 1) & ~(size - 1))


@kernel
def text(b: Any, p: int, origin: int, end: int, big: bool, most: int) -> tuple[int, int, int]:
    """A string at `p`: where its bytes are, how many without CDR's NUL (-1: it goes past `end`), what follows."""
    p = align(p, origin, 4, most)
    if end - p < 4:
        return p, -1, p
    n = u32(b, p, big)
    if n > end - p - 4:
        return p, -1, p
    at = p + 4
    return at, n - 1 if most > 1 and n > 0 and b[at + n - 1] == 0 else n, at + n


@kernel
def head(b: Any, start: int, length: int, log_time: int, most: int) -> tuple[int, bool, int, int, int, int]:
    """Encapsulation and std_msgs/Header of a message.

    Returns status (0: fine), whether it is big endian, ts_event (the stamp, or `log_time` where that is zero), place and
    length of the frame_id, and the position behind it.
    """
    end, origin = start + length, start + 4
    if most == 1:
        if log_time < 0:
            return 7, False, 0, 0, 0, 0
        if length < 12:
            return 1, False, 0, 0, 0, 0
        stamp = u32(b, start + 4, False) * 1_000_000_000 + u32(b, start + 8, False)
        at, size, p = text(b, start + 12, origin, end, False, most)
        if size < 0:
            return 3, False, 0, 0, 0, 0
        return 0, False, log_time if stamp == 0 else stamp, at, size, p
    if length < 4:
        return 1, False, 0, 0, 0, 0
    if b[start] != 0 or b[start + 1] > 1:
        return 2, False, 0, 0, 0, 0
    if log_time < 0:
        return 7, False, 0, 0, 0, 0
    big = b[start + 1] == 0
    if length < 16:
        return 1, big, 0, 0, 0, 0
    seconds = u32(b, origin, big)
    if seconds >= 1 << 31:
        seconds -= 1 << 32
    stamp = seconds * 1_000_000_000 + u32(b, origin + 4, big)
    at, size, p = text(b, origin + 8, origin, end, big, most)
    if size < 0:
        return 3, big, 0, 0, 0, 0
    return 0, big, log_time if stamp == 0 else stamp, at, size, p


@kernel
def spare(most: int) -> int:
    """How many bytes of padding may follow a message."""
    return 0 if most == 1 else 3


@kernel
def _tail(p: int, end: int, need: int, most: int) -> int:
    """Status of a message whose last `need` bytes begin at `p`, with no more than padding behind them."""
    if end - p < need:
        return 1
    return 4 if end - p > need + spare(most) else 0


@kernel
def _trailing_number(b: Any, at: int, size: int) -> int:
    value, unit, p = 0, 1, at + size - 1
    while p >= at and 48 <= b[p] <= 57 and unit <= 100:
        value += (b[p] - 48) * unit
        unit *= 10
        p -= 1
    return value if value < 256 else 0


@kernel
def can_frames(
    b: Bytes,
    starts: Ints,
    lengths: Ints,
    log_times: Ints,
    most: int,
    first: int,
    bus: int,
    status: Bytes,
    ts_event: Ints,
    ts_recv: Ints,
    seq: Any,
    buses: Bytes,
    ids: Any,
    ext: Bytes,
    sizes: Bytes,
    data: Bytes,
) -> int:
    """can_msgs/Frame to columns; `bus` -1 takes the number at the end of the frame_id. Returns the rows written."""
    k = 0
    for i in range(starts.shape[0]):
        start, end, origin = starts[i], starts[i] + lengths[i], starts[i] + 4
        bad, big, stamp, at, size, p = head(b, start, lengths[i], log_times[i], most)
        if bad == 0:
            p = align(p, origin, 4, most)
            bad = _tail(p, end, 16, most)
        if bad == 0 and b[p + 7] > 15:
            bad = 5
        status[i] = bad
        if bad:
            continue
        ts_event[k], ts_recv[k], seq[k] = stamp, log_times[i], first + i
        buses[k] = bus if bus >= 0 else _trailing_number(b, at, size)
        flags = (np.int64(b[p + 4] != 0) << 30) | (np.int64(b[p + 6] != 0) << 29)
        ids[k] = u32(b, p, big) | flags
        ext[k] = b[p + 5] != 0
        sizes[k] = min(b[p + 7], 8)
        for j in range(8):
            data[k, j] = b[p + 8 + j]
        k += 1
    return k


@kernel
def imu_samples(
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
    acc: Ints,
    gyro: Ints,
) -> int:
    """sensor_msgs/Imu to columns; `acc` and `gyro` are the float64 columns seen as int64. Returns the rows written."""
    k = 0
    for i in range(starts.shape[0]):
        start, end, origin = starts[i], starts[i] + lengths[i], starts[i] + 4
        bad, big, stamp, _, _, p = head(b, start, lengths[i], log_times[i], most)
        if bad == 0:
            p = align(p, origin, 8, most)
            bad = _tail(p, end, 37 * 8, most)
        status[i] = bad
        if bad:
            continue
        ts_event[k], ts_recv[k], seq[k] = stamp, log_times[i], first + i
        for j in range(3):
            gyro[k, j] = u64(b, p + (13 + j) * 8, big)
            acc[k, j] = u64(b, p + (25 + j) * 8, big)
        k += 1
    return k


@kernel
def intern(b: Bytes, at: Ints, size: Ints, codes: Ints, first: Ints, table: Ints) -> int:
    """Give equal byte strings equal codes, in order of appearance; ``first[code]`` is a row that has it.

    `table` holds -1 and is a power of two. Returns how many codes there are; rows that found `first` full get code -1.
    """
    mask, count = table.shape[0] - 1, 0
    for i in range(at.shape[0]):
        if i > 0 and codes[i - 1] >= 0 and size[i] == size[i - 1] and same(b, at[i], at[i - 1], size[i]):
            codes[i] = codes[i - 1]
            continue
        h = np.uint64(14695981039346656037)
        for j in range(size[i]):
            h = (h ^ np.uint64(b[at[i] + j])) * np.uint64(1099511628211)
        slot = np.int64((h ^ (h >> np.uint64(29))) & np.uint64(mask))
        while table[slot] >= 0:
            row = first[table[slot]]
            if size[i] == size[row] and same(b, at[i], at[row], size[i]):
                break
            slot = (slot + 1) & mask
        if table[slot] < 0 and count < first.shape[0]:
            table[slot], first[count] = count, i
            count += 1
        codes[i] = table[slot]
    return count


@kernel
def same(b: Any, p: int, q: int, n: int) -> bool:
    """Whether `n` bytes at `p` are those at `q`."""
    j = 0
    while j + 8 <= n:
        if u64(b, p + j, False) != u64(b, q + j, False):
            return False
        j += 8
    while j < n:
        if b[p + j] != b[q + j]:
            return False
        j += 1
    return True


@kernel
def alike(b: Bytes, at: Ints, size: Ints) -> bool:
    """Whether all byte strings are the same."""
    for i in range(1, at.shape[0]):  # noqa: SIM110 (compiled code knows no generators)
        if size[i] != size[0] or not same(b, at[i], at[0], size[0]):
            return False
    return True
