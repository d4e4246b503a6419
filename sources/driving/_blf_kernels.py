"""Objects of a BLF log: where they are, and those that are CAN frames as columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._blf_format import HEADER, MOST_OBJECT, PADDING

__all__ = ["CUT", "DONE", "FULL", "LOST", "MORE", "OPEN", "OTHER", "REASONS", "find", "frame", "frames"]

#: What a status means; the last is no error.
REASONS = (
    "",
    "no object begins here; {size} bytes up to the next object are skipped",
    "the content ends inside an object",
    "a container inside a container",
    "the object is too short for what it is",
    "its flags do not say whether its time counts 10 us (1) or 1 ns (2)",
    "its time is beyond all times",
    "its channel is above 255",
    "its identifier has more bits than it may",
    "its length is not one that a frame can have",
    "its data are not as many bytes as it says",
    "a CAN FD frame with more than 8 bytes; open the log with fd=True to read it",
    "an object that is no CAN frame",
)
LOST, CUT, _NESTED, _SHORT, _UNIT, _TIME, _CHANNEL, _ID, _LENGTH, _DATA, _NARROW, OTHER = range(1, 13)
#: Why `frame` has stopped: all is framed, more content is needed, no room, lost without an end in sight.
DONE, MORE, FULL, OPEN = range(4)

_SHORTEST = 32
_LONGEST = 9_200_000_000 * 10**9
_REMOTE, _ERROR = 1 << 30, 1 << 29


@kernel
def _u16(b: Any, p: Any) -> Any:
    return np.int64(b[p]) | (np.int64(b[p + 1]) << 8)


@kernel
def _u32(b: Any, p: Any) -> Any:
    return _u16(b, p) | (_u16(b, p + 2) << 16)


@kernel
def _signed(b: Any, p: Any) -> Any:
    """``LOBJ``."""
    return b[p] == 76 and b[p + 1] == 79 and b[p + 2] == 66 and b[p + 3] == 74


@kernel
def _follows(b: Any, p: Any, end: Any) -> Any:
    """Where behind the padding at `p` an object begins; -1 if none does."""
    for q in range(p, min(p + PADDING, end - 4) + 1):
        if _signed(b, q):
            return q
    return -1


@kernel
def _can_be(b: Any, p: Any) -> Any:
    """Whether what is signed at `p` can be the head of an object."""
    head, version, size = _u16(b, p + 4), _u16(b, p + 6), _u32(b, p + 8)
    return head >= HEADER and 1 <= version <= 3 and head <= size <= MOST_OBJECT


@kernel
def find(b: Any, p: Any, end: Any) -> Any:
    """Where the first head in ``b[p:end]`` stands that can be right; -1 if there is none."""
    while p + HEADER <= end:
        if b[p] == 76 and _signed(b, p) and _can_be(b, p):
            return p
        p += 1
    return -1


@kernel
def frame(b: Any, p: Any, end: Any, final: bool, starts: Any, sizes: Any, status: Any) -> Any:
    """The objects in ``b[p:end]``, which is all there is if `final`: why it stopped, where, how many, bytes wanted there.

    An object that is not followed by another, or is longer than frames of its kind are, and has the head of one inside,
    has lied about its length.
    """
    count, ahead = 0, HEADER + PADDING
    while count < starts.shape[0]:
        if end - p < ahead and not final:
            return MORE, p, count, ahead
        if final and end - p <= PADDING and (end - p < 4 or not _signed(b, p)):
            return DONE, end, count, 0
        q = _follows(b, p, end)
        if q < 0:
            r = find(b, p + 1, end)
            if r < 0 and not final:
                return OPEN, p, count, 0
            r = end if r < 0 else r
            starts[count], sizes[count], status[count] = p, r - p, LOST
            count, p = count + 1, r
            continue
        wrong = LOST  # what it is if it is no sound object
        if q + HEADER > end:
            if not final:
                return MORE, q, count, ahead
            wrong = CUT
        elif _can_be(b, q):
            stop = q + _u32(b, q + 8)
            if stop + ahead > end and not final:
                return MORE, q, count, stop + ahead - q
            if stop <= end and _sound(b, q, stop, end):
                starts[count], sizes[count], status[count] = q, stop - q, 0
                count, p = count + 1, stop
                continue
            wrong = CUT
        r = find(b, q + 4, end)
        if r < 0 and not final:
            return OPEN, q, count, 0
        starts[count], status[count] = q, wrong if r < 0 else LOST
        r = end if r < 0 else r
        sizes[count] = r - q
        count, p = count + 1, r
    return FULL, p, count, 0


@kernel
def _sound(b: Any, start: Any, stop: Any, end: Any) -> Any:
    """Whether an object ends where it says."""
    kind, inside = _u32(b, start + 12), start + 4
    if end - stop <= PADDING or _follows(b, stop, end) >= 0:
        body = _longest(kind)
        if body < 0:
            return True
        inside = start + _u16(b, start + 4) + body
    r = find(b, inside, min(end, stop + HEADER - 1))
    return r < 0 or r >= stop


@kernel
def _longest(kind: Any) -> Any:
    """How long the bodies of frames of a kind are at most, as far as is known; -1 for objects that are no frames."""
    if kind == 1:
        return 16
    if kind == 2:
        return 8
    if kind == 86:
        return 24
    if kind == 73:
        return 32
    if kind == 100:
        return 88
    return 160 if kind == 101 or kind == 104 else -1


@kernel
def frames(
    b: Any,
    starts: Any,
    sizes: Any,
    origin: Any,
    first: Any,
    status: Any,
    kinds: Any,
    ts_event: Any,
    ts_recv: Any,
    seq: Any,
    bus: Any,
    ids: Any,
    ext: Any,
    fd: Any,
    lengths: Any,
    payload: Any,
) -> Any:
    """Objects whose `status` is 0 to columns; it then says what is wrong with one. Returns the rows written.

    ``kinds[type]`` counts those that are no frames, types from 255 on together.
    """
    k = 0
    for i in range(starts.shape[0]):
        if status[i] != 0:
            continue
        p = np.int64(starts[i])
        end, kind = p + np.int64(sizes[i]), _u32(b, p + 12)
        if _longest(kind) < 0:
            status[i] = _NESTED if kind == 10 else OTHER
            kinds[min(kind, 255)] += kind != 10
            continue
        body = p + max(_u16(b, p + 4), _SHORTEST + 8 * (_u16(b, p + 6) == 2))
        if end - body < 4:
            status[i] = _SHORT
            continue
        bad, time = _time(b, p, origin)
        for j in range(payload.shape[1]):
            payload[k, j] = 0
        if bad == 0 and (kind == 1 or kind == 86):
            bad, channel, raw, size, is_fd, remote = _classic(b, body, end, payload, k)
        elif bad == 0 and kind == 100:
            bad, channel, raw, size, is_fd, remote = _fd_100(b, body, end, payload, k)
        elif bad == 0 and kind == 101:
            bad, channel, raw, size, is_fd, remote = _fd_101(b, p, body, end, payload, k)
        elif bad == 0:
            channel = np.int64(b[body]) if kind == 104 else _u16(b, body)
            raw, size, is_fd, remote = np.int64(_ERROR), np.int64(0), kind == 104, False
        if bad == 0 and channel > 255:
            bad = _CHANNEL
        wide = False
        if bad == 0 and kind != 2 and kind != 73 and kind != 104:
            wide = raw & 0x80000000 != 0
            raw &= 0x7FFFFFFF
            if raw > (0x1FFFFFFF if wide else 0x7FF):
                bad = _ID
        if bad != 0:
            status[i] = bad
            continue
        ts_event[k] = ts_recv[k] = time
        seq[k] = np.uint64(first + i)
        bus[k], ids[k], ext[k], fd[k] = channel, raw | (_REMOTE if remote else 0), wide, is_fd
        lengths[k] = size
        k += 1
    return k


@kernel
def _time(b: Any, p: Any, origin: Any) -> Any:
    """What is wrong with the time of the object at `p`, and the time."""
    flags = _u32(b, p + 16)
    if flags != 1 and flags != 2:
        return _UNIT, np.int64(0)
    unit = 10_000 if flags == 1 else 1
    high = _u32(b, p + 28)
    time = _u32(b, p + 24) | (high << 32)
    if high >= 0x80000000 or time > (_LONGEST - max(origin, 0)) // unit:
        return _TIME, np.int64(0)
    return 0, origin + time * unit


@kernel
def _copy(b: Any, p: Any, size: Any, payload: Any, k: Any) -> None:
    for j in range(size):
        payload[k, j] = b[p + j]


@kernel
def _classic(b: Any, p: Any, end: Any, payload: Any, k: Any) -> Any:
    """CAN_MESSAGE and CAN_MESSAGE2: channel u16, flags, length code, identifier u32, 8 bytes."""
    if end - p < 8:
        return _SHORT, np.int64(0), np.int64(0), np.int64(0), False, False
    remote = b[p + 2] & 0x80 != 0
    size: Any = min(np.int64(b[p + 3]), 8)
    bad = 0
    if not remote:
        if end - p < 8 + size:
            bad = _DATA
        else:
            _copy(b, p + 8, size, payload, k)
    return bad, _u16(b, p), _u32(b, p + 4), size, False, remote


@kernel
def _fd_100(b: Any, p: Any, end: Any, payload: Any, k: Any) -> Any:
    """CAN_FD_MESSAGE: channel u16, flags, length code, identifier u32; at 13 the FD flags and the length, at 20 the data."""
    if end - p < 20:
        return _SHORT, np.int64(0), np.int64(0), np.int64(0), False, False
    size: Any = np.int64(b[p + 14])
    is_fd = b[p + 13] & 1 != 0 or size > 8
    remote = not is_fd and b[p + 2] & 0x80 != 0
    bad = 0
    if remote:
        size = min(np.int64(b[p + 3]), 8)
    elif size > 64:
        bad = _LENGTH
    elif size > payload.shape[1]:
        bad = _NARROW
    elif end - p < 20 + size:
        bad = _DATA
    else:
        _copy(b, p + 20, size, payload, k)
    return bad, _u16(b, p), _u32(b, p + 4), size, is_fd, remote


@kernel
def _fd_101(b: Any, start: Any, p: Any, end: Any, payload: Any, k: Any) -> Any:
    """CAN_FD_MESSAGE_64: channel, length code, length, -, identifier u32; at 12 flags, at 35 where more follows, at 40 data.

    Where fewer bytes are stored than its length says, the others are zero, as in Vector's own tools.
    """
    if end - p < 40:
        return _SHORT, np.int64(0), np.int64(0), np.int64(0), False, False
    size: Any = np.int64(b[p + 2])
    flags, more = _u32(b, p + 12), np.int64(b[p + 35])
    is_fd = flags & 0x1000 != 0 or size > 8
    remote = not is_fd and flags & 0x10 != 0
    bad = 0
    if remote:
        size = min(np.int64(b[p + 1]), 8)
    elif size > 64:
        bad = _LENGTH
    elif size > payload.shape[1]:
        bad = _NARROW
    else:
        there = min(end, start + more) if more > 0 else end
        _copy(b, p + 40, min(size, max(there - p - 40, 0)), payload, k)
    return bad, np.int64(b[p]), _u32(b, p + 4), size, is_fd, remote
