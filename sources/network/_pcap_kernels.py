"""Where packets begin in pcap and pcapng captures, and when each was captured.

Both framers fill a row per packet: `at` (its first byte), `size` (bytes captured), `full` (bytes on the wire), `time` (ns
UTC), `link` (link type). A bad record has size -1 and a row in `bad`: (what, offset, bytes, packet number). Lengths decide
where the next record is, so one that lies is noticed by what follows: a record is taken if its two lengths agree, or if
a sound one follows; else the next sound one is looked for within `LOOKAHEAD` bytes.

pcap: draft-ietf-opsawg-pcap; pcapng: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._wire_kernels import be32, le32, u16, u32

__all__ = [
    "CUT",
    "FULL",
    "GROW",
    "HEADER",
    "INTERFACE",
    "LONGEST_BLOCK",
    "LOOKAHEAD",
    "LOST",
    "MORE",
    "NO_INTERFACE",
    "NO_TIME",
    "PAD",
    "SECTION",
    "frame_pcap",
    "frame_pcapng",
]

PAD = 64
#: Bytes in which the next sound record is looked for behind a bad one.
LOOKAHEAD = 1 << 16
#: The longest packet that libpcap takes, and the longest pcapng block of any kind that is read.
LONGEST_PACKET = 1 << 18
LONGEST_BLOCK = 1 << 22
#: Bytes that are there before something is called bad, unless the file ends.
_NEED = LOOKAHEAD + 2 * LONGEST_PACKET
#: Seconds that a packet behind damage may be away from the one before.
_NEAR = 2 * 86_400
#: The last whole second whose nanoseconds fit 64 bits.
_LATEST = 9_223_372_035

# Why framing stopped.
MORE, FULL, SECTION, INTERFACE, GROW = 0, 1, 2, 3, 4
# What is wrong with a bad record.
LOST, CUT, HEADER, NO_INTERFACE, NO_TIME = 1, 2, 3, 4, 5
# Indices of the in-out counters.
POSITION, PACKETS, BAD, LAST, BLOCK, BIG = 0, 1, 2, 3, 4, 5

_SHB, _IDB, _PB, _SPB, _NRB, _ISB, _EPB = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6


@kernel
def _put_bad(bad: Any, state: Any, sizes: Any, what: Any, at: Any, length: Any) -> None:
    row = state[BAD]
    bad[row, 0] = what
    bad[row, 1] = at
    bad[row, 2] = length
    bad[row, 3] = state[PACKETS]
    sizes[state[PACKETS]] = -1
    state[BAD] += 1
    state[PACKETS] += 1


@kernel
def _plausible(data: Any, at: Any, big: Any, limit: Any) -> Any:
    """Whether the 16 bytes at `at` may be a record header of a pcap file."""
    captured = np.int64(u32(data, at + 8, big))
    full = np.int64(u32(data, at + 12, big))
    empty = captured == 0 and u32(data, at, big) == 0
    return np.int64(u32(data, at + 4, big)) < limit and captured <= LONGEST_PACKET and full >= captured and not empty


@kernel
def _agrees(data: Any, at: Any, big: Any, snap: Any) -> Any:
    captured = np.int64(u32(data, at + 8, big))
    return captured == np.int64(u32(data, at + 12, big)) or captured == snap


@kernel
def _near(data: Any, at: Any, big: Any, second: Any) -> Any:
    """Whether the time of the record at `at` is about `second` (-1: any is)."""
    away = np.int64(u32(data, at, big)) - second
    return second < 0 or (-_NEAR < away < _NEAR)


@kernel
def _continues(data: Any, at: Any, filled: Any, final: Any, big: Any, limit: Any, second: Any) -> Any:
    """Whether a record of about `second` may begin at `at`, or the file ends there."""
    if at == filled:
        return final
    return at + 16 <= filled and _plausible(data, at, big, limit) and _near(data, at, big, second)


@kernel
def _resume(data: Any, at: Any, filled: Any, final: Any, big: Any, limit: Any, snap: Any, last: Any) -> Any:
    """How many bytes from `at` on hold no sound record."""
    edge = min(filled, at + LOOKAHEAD)
    for there in range(at + 1, edge - 16):
        if _plausible(data, there, big, limit) and _agrees(data, there, big, snap):
            captured = np.int64(u32(data, there + 8, big))
            second = np.int64(u32(data, there, big))
            after = there + 16 + captured
            if captured == 0 or not _continues(data, after, filled, final, big, limit, second):
                continue
            if _near(data, there, big, last):
                return there - at
            if after + 16 <= filled and _agrees(data, after, big, snap):  # the time before may itself be wrong
                behind = after + 16 + np.int64(u32(data, after + 8, big))
                if behind + 16 <= filled and _continues(data, behind, filled, final, big, limit, second):
                    return there - at
    if final and edge == filled:
        return filled - at
    return max(1, edge - at - 16)


@kernel
def frame_pcap(
    data: Any,
    filled: Any,
    final: Any,
    big: Any,
    unit: Any,
    snap: Any,
    link_type: Any,
    state: Any,
    ats: Any,
    sizes: Any,
    fulls: Any,
    times: Any,
    links: Any,
    bad: Any,
) -> Any:
    """Find packets in ``data[state[POSITION]:filled]``. `unit` is how many ns a fraction counts. Returns MORE or FULL."""
    limit = 1_000_000_000 // unit
    at = state[POSITION]
    status = FULL
    while state[PACKETS] < ats.size and state[BAD] < len(bad):
        left = filled - at
        if left < 16:
            status = MORE
            if final and left > 0:
                _put_bad(bad, state, sizes, CUT, at, left)
                at = filled
            break
        captured = np.int64(u32(data, at + 8, big))
        sound = _plausible(data, at, big, limit)
        after = at + 16 + captured
        if sound and after <= filled:
            if (not final) and after + 16 > filled and not _agrees(data, at, big, snap):
                status = MORE
                break
            second = np.int64(u32(data, at, big))
            if _agrees(data, at, big, snap) or _continues(data, after, filled, final, big, limit, second):
                number = state[PACKETS]
                ats[number] = at + 16
                sizes[number] = captured
                fulls[number] = u32(data, at + 12, big)
                times[number] = second * 1_000_000_000 + np.int64(u32(data, at + 4, big)) * unit
                links[number] = link_type
                state[LAST] = second
                state[PACKETS] += 1
                at = after
                continue
        if not final and left < _NEED:
            status = MORE
            break
        if (
            captured <= LONGEST_PACKET
            and after < filled
            and not sound
            and _continues(data, after, filled, final, big, limit, state[LAST])
        ):
            _put_bad(bad, state, sizes, HEADER, at, 16 + captured)
            at = after
            continue
        lost = _resume(data, at, filled, final, big, limit, snap, state[LAST])
        whole = sound and final and at + lost == filled
        _put_bad(bad, state, sizes, CUT if whole else LOST, at, lost)
        at += lost
    state[POSITION] = at
    return status


@kernel
def _length(data: Any, at: Any, big: Any) -> Any:
    """Length of the block at `at`, whose first 12 bytes are there; 0 if it can be none. A section tells its own order."""
    if le32(data, at) == _SHB:
        if le32(data, at + 8) == 0x1A2B3C4D:
            big = 0
        elif be32(data, at + 8) == 0x1A2B3C4D:
            big = 1
        else:
            return 0
        if u32(data, at + 4, big) < 28:
            return 0
    length = np.int64(u32(data, at + 4, big))
    return length if length >= 12 and length % 4 == 0 and length <= LONGEST_BLOCK else 0


@kernel
def _ends(data: Any, at: Any, length: Any, big: Any) -> Any:
    """Whether the length is repeated at the end of the block, in the order of its section."""
    order = big
    if le32(data, at) == _SHB:
        order = 0 if le32(data, at + 8) == 0x1A2B3C4D else 1
    return np.int64(u32(data, at + length - 4, order)) == length


@kernel
def _resume_block(data: Any, at: Any, filled: Any, final: Any, big: Any) -> Any:
    """How many bytes from `at` on hold no sound block of a known kind."""
    edge = min(filled, at + LOOKAHEAD)
    for there in range(at + 1, edge - 12):
        kind = u32(data, there, big)
        if (1 <= kind <= 6) or le32(data, there) == _SHB:
            length = _length(data, there, big)
            if length and there + length <= filled and _ends(data, there, length, big):
                return there - at
    if final and edge == filled:
        return filled - at
    return max(1, edge - at - 12)


@kernel
def _since_epoch(high: Any, low: Any, binary: Any, exponent: Any, offset: Any) -> Any:
    """ns since the epoch of a pcapng time stamp, rounded down; -1 if they do not fit 63 bits."""
    ticks = (np.uint64(high) << np.uint64(32)) | np.uint64(low)
    billion = np.uint64(1_000_000_000)
    second = np.int64(0)
    rest = np.int64(0)
    if binary:
        fraction = ticks
        if exponent < 64:
            whole = ticks >> np.uint64(exponent)
            if whole > np.uint64(1 << 62):
                return np.int64(-1)
            second = np.int64(whole)
            fraction = ticks - (whole << np.uint64(exponent))
        if exponent < 32:
            rest = np.int64((fraction * billion) >> np.uint64(exponent))
        elif exponent < 96:
            upper = (fraction >> np.uint64(32)) * billion
            lower = ((fraction & np.uint64(0xFFFFFFFF)) * billion) >> np.uint64(32)
            rest = np.int64((upper + lower) >> np.uint64(exponent - 32))
    elif exponent <= 18:
        power = np.uint64(1)
        for _ in range(exponent):
            power *= np.uint64(10)
        whole = ticks // power
        if whole > np.uint64(1 << 62):
            return np.int64(-1)
        second = np.int64(whole)
        left = np.int64(ticks - whole * power)
        for _ in range(9 - exponent):
            left *= 10
        for _ in range(exponent - 9):
            left //= 10
        rest = left
    else:
        left_over = ticks
        for _ in range(min(exponent - 9, 20)):
            left_over //= np.uint64(10)
        second = np.int64(left_over // billion)
        rest = np.int64(left_over % billion)
    if offset > _LATEST or offset < -(1 << 62) or second > _LATEST - offset or second + offset < 0:
        return np.int64(-1)
    return (second + offset) * 1_000_000_000 + rest


@kernel
def frame_pcapng(
    data: Any,
    filled: Any,
    final: Any,
    interfaces: Any,
    described: Any,
    others: Any,
    state: Any,
    ats: Any,
    sizes: Any,
    fulls: Any,
    times: Any,
    links: Any,
    bad: Any,
) -> Any:
    """Find packets in ``data[state[POSITION]:filled]``, in sections of the byte order ``state[BIG]``.

    `interfaces` has a row (link type, longest packet, binary, exponent, offset in s) for each of the `described` ones.
    Stops at a section header or interface description (whole, ``state[BLOCK]`` bytes), which the caller reads, and asks for
    a longer buffer (GROW) where a block does not fit. `others` counts the blocks that are stepped over, by type up to 15.
    """
    at = state[POSITION]
    big = state[BIG]
    status = FULL
    while state[PACKETS] < ats.size and state[BAD] < len(bad):
        left = filled - at
        if left < 12:
            status = MORE
            if final and left > 0:
                _put_bad(bad, state, sizes, CUT, at, left)
                at = filled
            break
        length = _length(data, at, big)
        if length > left and not final:
            status = GROW if at == 0 else MORE
            break
        if length == 0 or length > left or not _ends(data, at, length, big):
            if not final and left < _NEED:
                status = MORE
                break
            lost = _resume_block(data, at, filled, final, big)
            _put_bad(bad, state, sizes, CUT if length > left and lost == left else LOST, at, lost)
            at += lost
            continue
        kind = np.int64(u32(data, at, big))
        if kind == _IDB or le32(data, at) == _SHB:
            state[BLOCK] = length
            status = INTERFACE if kind == _IDB else SECTION
            break
        number = state[PACKETS]
        if kind in (_EPB, _PB):
            if length < 32:
                _put_bad(bad, state, sizes, HEADER, at, length)
                at += length
                continue
            which = np.int64(u32(data, at + 8, big)) if kind == _EPB else np.int64(u16(data, at + 8, big))
            captured = np.int64(u32(data, at + 20, big))
            what = 0
            if captured > length - 32:
                what = HEADER
            elif which >= described:
                what = NO_INTERFACE
            else:
                form = interfaces[which]
                high, low = u32(data, at + 12, big), u32(data, at + 16, big)
                times[number] = _since_epoch(high, low, form[2], form[3], form[4])
                if times[number] < 0:
                    what = NO_TIME
            if what:
                _put_bad(bad, state, sizes, what, at, length)
                at += length
                continue
            ats[number] = at + 28
            sizes[number] = captured
            fulls[number] = u32(data, at + 24, big)
            links[number] = interfaces[which, 0]
            state[LAST] = times[number]
            state[PACKETS] += 1
        elif kind == _SPB:
            if length < 16 or described == 0:
                _put_bad(bad, state, sizes, HEADER if length < 16 else NO_INTERFACE, at, length)
                at += length
                continue
            full = np.int64(u32(data, at + 8, big))
            snap = interfaces[0, 1]
            ats[number] = at + 12
            sizes[number] = min(full, length - 16) if snap == 0 else min(full, length - 16, snap)
            fulls[number] = full
            times[number] = max(state[LAST], 0)
            links[number] = interfaces[0, 0]
            state[PACKETS] += 1
        else:
            others[min(kind, 15)] += 1
        at += length
    state[POSITION] = at
    return status
