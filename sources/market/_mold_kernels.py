"""What a datagram carries: MoldUDP64 or IEX-TP, told by a header and message lengths that fit its size exactly.

MoldUDP64 (big-endian): session 10, sequence number 8, count 2, then count times length 2 and message. A count of 0 is a
heartbeat, 0xFFFF the end of the session. IEX-TP 1 (little-endian): version 1, reserved 1, protocol 2, channel 4, session
4, payload length 2, count 2, stream offset 8, first sequence number 8, send time 8, then messages behind length 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ..network._wire_kernels import be16, be64, le16, le32, le64

__all__ = ["IEX", "MOLD", "OTHER", "carried_kinds", "find_headers", "locate"]

OTHER, MOLD, IEX = 0, 1, 2
_OK = 0
_UDP = 17


@kernel
def _exact(data: Any, at: Any, end: Any, count: Any, big: Any) -> Any:
    """Whether `count` messages behind two-byte lengths fill ``data[at:end]``."""
    for _ in range(count):
        if at + 2 > end:
            return False
        at += 2 + (np.int64(be16(data, at)) if big else np.int64(le16(data, at)))
    return at == end


@kernel
def _is_mold(data: Any, at: Any, size: Any) -> Any:
    if size < 20:
        return False
    count = np.int64(be16(data, at + 18))
    if count == 0 or count == 0xFFFF:
        return size == 20
    for i in range(10):
        if data[at + i] < 32 or data[at + i] > 126:
            return False
    return _exact(data, at + 20, at + size, count, True)


@kernel
def _is_iex(data: Any, at: Any, size: Any) -> Any:
    if size < 40 or data[at] != 1 or data[at + 1] != 0 or data[at + 3] != 0x80:
        return False
    if np.int64(le16(data, at + 12)) != size - 40:
        return False
    return _exact(data, at + 40, at + size, np.int64(le16(data, at + 14)), False)


@kernel
def carried_kinds(
    data: Any, count: Any, codes: Any, protocols: Any, begins: Any, lengths: Any, kinds: Any, details: Any
) -> None:
    """MOLD, IEX or OTHER for each packet that is read.

    `details` is the first message's type with its length (255 at most) in the upper byte, 0 for none; or IEX's protocol.
    """
    for i in range(count):
        kinds[i] = OTHER
        details[i] = 0
        if codes[i] != _OK or protocols[i] != _UDP:
            continue
        at, size = np.int64(begins[i]), np.int64(lengths[i])
        if _is_iex(data, at, size):
            kinds[i] = IEX
            details[i] = le16(data, at + 2)
        elif _is_mold(data, at, size):
            kinds[i] = MOLD
            if size > 22:
                details[i] = np.int64(data[at + 22]) | (min(np.int64(be16(data, at + 20)), np.int64(255)) << 8)


@kernel
def find_headers(
    data: Any,
    count: Any,
    feed: Any,
    certain: Any,
    wanted: Any,
    ports: Any,
    codes: Any,
    protocols: Any,
    begins: Any,
    lengths: Any,
    target_ports: Any,
    other: Any,
    unsound: Any,
    packets: Any,
    keys: Any,
    seqs: Any,
    counts: Any,
) -> Any:
    """The headers of the packets of `feed` (MOLD or IEX) among those that are read; returns how many.

    `codes` becomes `other` for the rest: where `certain`, packets to one of the sorted `ports` are of the feed, and those
    that do not fit it `unsound`. `wanted` keeps IEX's TOPS (1), DEEP (2) or both (0). `packets` gets the packet's number,
    `keys` two numbers that name the session, `seqs` (-1 where the number does not fit 63 bits) and `counts` what it says.
    """
    found = 0
    for i in range(count):
        if codes[i] != _OK:
            continue
        if protocols[i] != _UDP:
            codes[i] = other
            continue
        if certain:
            port = target_ports[i]
            listed = False
            for k in range(ports.size):
                listed = listed or ports[k] == port
            if not listed:
                codes[i] = other
                continue
        at, size = np.int64(begins[i]), np.int64(lengths[i])
        sound = _is_mold(data, at, size) if feed == MOLD else _is_iex(data, at, size)
        if not sound:
            codes[i] = unsound if certain else other
            continue
        if feed == IEX and wanted:
            protocol = np.int64(le16(data, at + 2))
            if (wanted == 1) != (protocol < 0x8004):
                codes[i] = other
                continue
        packets[found] = i
        if feed == MOLD:
            keys[found, 0] = np.int64(be64(data, at))
            keys[found, 1] = np.int64(be16(data, at + 8))
            number = np.int64(be64(data, at + 10))
            counts[found] = be16(data, at + 18)
        else:
            keys[found, 0] = (np.int64(le32(data, at + 4)) << 32) | np.int64(le32(data, at + 8))
            keys[found, 1] = np.int64(le16(data, at + 2))
            number = np.int64(le64(data, at + 24))
            counts[found] = le16(data, at + 14)
        seqs[found] = number if number >= 0 else -1
        found += 1
    return found


@kernel
def locate(
    data: Any,
    feed: Any,
    begins: Any,
    times: Any,
    runs: Any,
    first_packet: Any,
    offsets: Any,
    sizes: Any,
    received: Any,
    numbers: Any,
) -> Any:
    """Where the messages of delivered `runs` (packet, skip, take, sequence number) lie; returns how many."""
    found = 0
    for r in range(len(runs)):
        packet = runs[r, 0] - first_packet
        at = np.int64(begins[packet]) + (20 if feed == MOLD else 40)
        skip, take = runs[r, 1], runs[r, 2]
        for k in range(skip + take):
            size = np.int64(be16(data, at)) if feed == MOLD else np.int64(le16(data, at))
            if k >= skip:
                offsets[found] = at + 2
                sizes[found] = size
                received[found] = times[packet]
                numbers[found] = runs[r, 3] + (k - skip)
                found += 1
            at += 2 + size
    return found
