"""Walks over MCAP records in memory. A record that would go past the end ends the walk, whatever its length claims."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel

__all__ = ["census", "count_messages", "every_message", "find_messages", "message_count", "outline"]

#: What numba gets: uint8 and int64 arrays.
Bytes = Any
Ints = Any


@kernel
def _u16(b: Any, p: int) -> Any:
    return np.int64(b[p]) | (np.int64(b[p + 1]) << 8)


@kernel
def _i64(b: Any, p: int) -> Any:
    value = np.int64(0)
    for i in range(8):
        value |= np.int64(b[p + i]) << (8 * i)
    return value


@kernel
def _body(b: Any, p: int, end: int) -> Any:
    """Length of the body of the record at `p`, or -1 if the record does not fit before `end` or is no record."""
    if end - p < 9 or b[p] == 0:
        return np.int64(-1)
    length = _i64(b, p + 1)
    if length < 0 or length > end - p - 9:
        return np.int64(-1)
    return length


@kernel
def count_messages(b: Bytes, end: int, wanted: Bytes) -> tuple[int, int]:
    """How many messages with ``wanted[channel]`` (65,536 flags) the records in ``b[:end]`` hold; where the walk ended."""
    pos, count = 0, 0
    while pos < end:
        length = _body(b, pos, end)
        if length < 0:
            break
        if b[pos] == 5:
            if length < 22:
                break
            if wanted[_u16(b, pos + 9)]:
                count += 1
        pos += 9 + length
    return count, pos


@kernel
def find_messages(b: Bytes, end: int, wanted: Bytes, starts: Ints, lengths: Ints, log_times: Ints) -> int:
    """Payload offset, payload length and log time of each message with ``wanted[channel]``; the arrays bound how many."""
    pos, count = 0, 0
    while pos < end and count < starts.shape[0]:
        length = _body(b, pos, end)
        if length < 0:
            break
        if b[pos] == 5:
            if length < 22:
                break
            if wanted[_u16(b, pos + 9)]:
                starts[count] = pos + 31
                lengths[count] = length - 22
                log_times[count] = _i64(b, pos + 15)
                count += 1
        pos += 9 + length
    return count


@kernel
def census(b: Bytes, end: int, counts: Ints, times: Ints, described: Ints) -> tuple[int, int]:
    """Count the messages of ``b[:end]`` by channel.

    ``counts[channel]`` is added to, ``times[0]`` and ``times[1]`` become the least and greatest log time, `described`
    takes the offsets of Schema and Channel records. Returns how many of those there were and where the walk ended.
    """
    pos, found = 0, 0
    while pos < end:
        length = _body(b, pos, end)
        if length < 0:
            break
        op = b[pos]
        if op == 5:
            if length < 22:
                break
            counts[_u16(b, pos + 9)] += 1
            at = _i64(b, pos + 15)
            times[0] = min(times[0], at)
            times[1] = max(times[1], at)
        elif op == 3 or op == 4:
            if found < described.shape[0]:
                described[found] = pos
            found += 1
        pos += 9 + length
    return found, pos


@kernel
def outline(b: Bytes, end: int, room: int, offsets: Ints, lengths: Ints) -> tuple[int, int]:
    """Offsets and body lengths of the records that begin in ``b[:end]`` and whose first 31 bytes lie in it.

    `room` is how many bytes the file has from ``b[0]`` on; a record that would go past it is given length -1 and ends
    the walk. Returns how many records there are and where the next one begins (maybe behind `end`).
    """
    pos, count = 0, 0
    while pos < end and count < offsets.shape[0]:
        if pos + 31 > end and end < room:
            break
        length: Any = np.int64(-1)
        if room - pos >= 9 and b[pos] != 0:
            length = _i64(b, pos + 1)
            if length > room - pos - 9 or (b[pos] == 5 and length < 22):
                length = np.int64(-1)
        offsets[count] = pos
        lengths[count] = max(length, np.int64(-1))
        count += 1
        if length < 0:
            break
        pos += 9 + length
    return count, pos


@kernel
def message_count(b: Bytes, end: int) -> tuple[int, int]:
    """How many messages the records in ``b[:end]`` hold, and where the walk ended."""
    pos, count = 0, 0
    while pos < end:
        length = _body(b, pos, end)
        if length < 0:
            break
        if b[pos] == 5:
            if length < 22:
                break
            count += 1
        pos += 9 + length
    return count, pos


@kernel
def every_message(
    b: Bytes, end: int, channels: Any, log_times: Ints, publish_times: Ints, starts: Ints, lengths: Ints
) -> None:
    """Channel, times and payload of each of the messages that `message_count` counted."""
    pos, count = 0, 0
    while pos < end and count < channels.shape[0]:
        length = _body(b, pos, end)
        if b[pos] == 5:
            channels[count] = _u16(b, pos + 9)
            log_times[count] = _i64(b, pos + 15)
            publish_times[count] = _i64(b, pos + 23)
            starts[count] = pos + 31
            lengths[count] = length - 22
            count += 1
        pos += 9 + length
