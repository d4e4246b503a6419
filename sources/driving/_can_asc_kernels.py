"""Lines of Vector's .asc logs to columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._can_line_kernels import decimal_ns, digit_of, skip_space, token_end

__all__ = ["EVENT", "HEADER", "REASONS", "elapsed", "frames"]

#: What a status means; the last two are no errors.
REASONS = (
    "",
    "it begins neither with a time nor with a word of the header",
    "its channel is not from 1 to 255",
    "its identifier is not a number of the log's base with at most 29 bits",
    "its direction is not Rx, Tx or TxRq",
    "its length is not one that a frame can have",
    "its data are not as many bytes as it says",
    "a CAN FD frame with more than 8 bytes; open the log with fd=True to read it",
    "the times add up to more than 292 years",
    "header or comment",
    "event that is no CAN frame",
)
_LINE, _CHANNEL, _ID, _WAY, _LENGTH, _DATA, _NARROW, _TIME, HEADER, EVENT = range(1, 11)
_LONGEST = 9_200_000_000 * 10**9


@kernel
def elapsed(data: Any, starts: Any, lengths: Any, relative: bool, now: Any, times: Any) -> Any:
    """The time of each line in ns since the start, -1 without one, -2 beyond all times; returns the last.

    With `relative`, a line tells the time since the one before it.
    """
    for i in range(starts.shape[0]):
        end = starts[i] + lengths[i]
        time, p = decimal_ns(data, starts[i], end)
        if time < 0 or (p < end and data[p] != 32 and data[p] != 9):
            times[i] = -1
            continue
        if relative:
            time = -2 if time > _LONGEST - now else now + time
        times[i] = time
        if time >= 0:
            now = time
    return now


@kernel
def frames(
    data: Any,
    starts: Any,
    lengths: Any,
    times: Any,
    origin: Any,
    decimal: bool,
    first: Any,
    status: Any,
    ts_event: Any,
    ts_recv: Any,
    seq: Any,
    bus: Any,
    ids: Any,
    ext: Any,
    fd: Any,
    sizes: Any,
    payload: Any,
) -> Any:
    """Lines to columns; `status` says what is wrong with a line. Returns the rows written."""
    k = 0
    for i in range(starts.shape[0]):
        end = starts[i] + lengths[i]
        if times[i] < 0:
            status[i] = _TIME if times[i] == -2 else (HEADER if _is_header(data, starts[i], end) else _LINE)
            continue
        if times[i] > _LONGEST - max(origin, 0):
            status[i] = _TIME
            continue
        for b in range(payload.shape[1]):
            payload[k, b] = 0
        p = skip_space(data, token_end(data, starts[i], end), end)
        if _word(data, p, end, 67, 65, 78, 70, 68):  # CANFD
            bad, number, channel, size, wide, is_fd = _fd_frame(data, p + 5, end, decimal, payload, k)
        else:
            bad, number, channel, size, wide, is_fd = _classic_frame(data, p, end, decimal, payload, k)
        status[i] = bad
        if bad:
            continue
        ts_event[k] = ts_recv[k] = origin + times[i]
        seq[k] = np.uint64(first + i)
        bus[k], ids[k], ext[k], fd[k], sizes[k] = channel, number, wide, is_fd, size
        k += 1
    return k


@kernel
def _word(data: Any, p: Any, end: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Whether the word at `p` is that of five letters."""
    if token_end(data, p, end) - p != 5:
        return False
    return data[p] == a and data[p + 1] == b and data[p + 2] == c and data[p + 3] == d and data[p + 4] == e


@kernel
def _is_header(data: Any, p: Any, end: Any) -> Any:
    """``date``, ``base``, ``begin``, ``end``, ``internal``, ``no``, ``//``: what lines without a time begin with."""
    size = token_end(data, p, end) - p
    if data[p] == 47:
        return end - p > 1 and data[p + 1] == 47
    a, b = data[p] | 32, (data[p + 1] | 32) if size > 1 else 0
    if a == 100 and b == 97:
        return size == 4
    if a == 98 and (b == 97 or b == 101):
        return size == 4 or size == 5
    if a == 101 and b == 110:
        return size == 3
    if a == 105 and b == 110:
        return size == 8
    return a == 110 and b == 111 and size == 2


@kernel
def _number(data: Any, p: Any, end: Any, base: Any) -> Any:
    """A number of at most nine digits, and what follows; -1 if there is none."""
    value, digits = np.int64(0), 0
    while p < end and digits < 10:
        digit = digit_of(np.int64(data[p]))
        if digit < 0 or digit >= base:
            break
        value = value * base + digit
        p += 1
        digits += 1
    return value if 0 < digits < 10 else -1, p


@kernel
def _whole_number(data: Any, p: Any, end: Any, base: Any) -> Any:
    """A word that is a number, and where the next word begins; -1 if it is none."""
    value, stop = _number(data, p, end, base)
    if stop < end and data[stop] != 32 and data[stop] != 9:
        value = -1
    return value, skip_space(data, token_end(data, stop, end), end)


@kernel
def _identifier(data: Any, p: Any, end: Any, base: Any) -> Any:
    """Identifier, whether it has 29 bits (an ``x`` behind it), and where the next word begins; -1 if it is none."""
    value, stop = _number(data, p, end, base)
    wide = stop < end and (data[stop] == 120 or data[stop] == 88)
    stop += wide
    if (stop < end and data[stop] != 32 and data[stop] != 9) or value > (0x1FFFFFFF if wide else 0x7FF):
        value = -1
    return value, wide, skip_space(data, token_end(data, stop, end), end)


@kernel
def _direction(data: Any, p: Any, end: Any) -> Any:
    """Where the word behind Rx, Tx or TxRq begins; -1 if it is none of them."""
    stop = token_end(data, p, end)
    size = stop - p
    if (size != 2 and size != 4) or data[p + 1] != 120 or (data[p] != 82 and data[p] != 84):
        return -1
    return skip_space(data, stop, end)


@kernel
def _bytes(data: Any, p: Any, end: Any, size: Any, base: Any, payload: Any, k: Any) -> Any:
    """`size` numbers to ``payload[k]``; returns where the next word begins, or -1."""
    for b in range(size):
        value, p = _whole_number(data, p, end, base)
        if value < 0 or value > 255:
            return -1
        payload[k, b] = value
    return p


@kernel
def _is_transport(data: Any, p: Any, stop: Any) -> Any:
    """Whether a word is ``J1939TP``: a message put together from frames that the log has as well."""
    if stop - p != 7 or data[p] != 74 or data[p + 5] != 84 or data[p + 6] != 80:
        return False
    return data[p + 1] == 49 and data[p + 2] == 57 and data[p + 3] == 51 and data[p + 4] == 57


@kernel
def _classic_frame(data: Any, p: Any, end: Any, decimal: bool, payload: Any, k: Any) -> Any:
    base = 10 if decimal else 16
    if p >= end or not 48 <= data[p] <= 57:
        return EVENT, 0, 0, 0, False, False
    channel, p = _whole_number(data, p, end, 10)
    if channel < 1 or channel > 255:
        return _CHANNEL, 0, 0, 0, False, False
    stop = token_end(data, p, end)
    if stop - p == 10 and data[p] == 69 and data[p + 5] == 70:  # ErrorFrame
        return 0, 0x20000000, channel, 0, False, False
    if stop > p and (data[stop - 1] == 58 or _is_transport(data, p, stop)):  # Statistic:
        return EVENT, 0, 0, 0, False, False
    number, wide, p = _identifier(data, p, end, base)
    if number < 0:
        return _ID, 0, 0, 0, False, False
    p = _direction(data, p, end)
    if p < 0:
        return _WAY, 0, 0, 0, False, False
    stop = token_end(data, p, end)
    if stop - p != 1 or (data[p] != 100 and data[p] != 114):
        return _LENGTH, 0, 0, 0, False, False
    remote = data[p] == 114
    p = skip_space(data, stop, end)
    stop = token_end(data, p, end)
    size = digit_of(np.int64(data[p])) if stop - p == 1 else -1
    if remote:
        return 0, number | 0x40000000, channel, max(0, min(size, 8)), wide, False
    if size < 0:
        return _LENGTH, 0, 0, 0, False, False
    size = min(size, 8)
    if _bytes(data, skip_space(data, stop, end), end, size, base, payload, k) < 0:
        return _DATA, 0, 0, 0, False, False
    return 0, number, channel, size, wide, False


@kernel
def _fd_frame(data: Any, p: Any, end: Any, decimal: bool, payload: Any, k: Any) -> Any:
    base = 10 if decimal else 16
    channel, p = _whole_number(data, skip_space(data, p, end), end, 10)
    if channel < 1 or channel > 255:
        return _CHANNEL, 0, 0, 0, False, False
    p = _direction(data, p, end)
    if p < 0:
        return _WAY, 0, 0, 0, False, False
    stop = token_end(data, p, end)
    if stop - p == 10 and data[p] == 69 and data[p + 5] == 70:  # ErrorFrame
        return 0, 0x20000000, channel, 0, False, True
    number, wide, p = _identifier(data, p, end, base)
    if number < 0:
        return _ID, 0, 0, 0, False, False
    stop = token_end(data, p, end)
    if stop - p != 1 or (data[p] != 48 and data[p] != 49):  # the message's name stands before the bit rate switch
        p = skip_space(data, stop, end)
    switch, p = _whole_number(data, p, end, 10)
    state, p = _whole_number(data, p, end, 10)
    code, p = _whole_number(data, p, end, 16)
    if decimal and 0x10 <= code <= 0x15:  # loggers differ in whether the base is that of the length code as well
        code -= 6
    size, p = _whole_number(data, p, end, 10)
    if switch < 0 or switch > 1 or state < 0 or state > 1 or code < 0 or code > 15 or size < 0 or size > 64:
        return _LENGTH, 0, 0, 0, False, False
    if size > payload.shape[1]:
        return _NARROW, 0, 0, 0, False, False
    p = _bytes(data, p, end, size, base, payload, k)
    if p < 0:
        return _DATA, 0, 0, 0, False, False
    _, p = _whole_number(data, p, end, 10)  # duration
    _, p = _whole_number(data, p, end, 10)  # bits
    flags, stop = _number(data, p, end, 16)
    is_fd = p >= end or flags < 0 or flags & 0x1000 != 0 or size > 8
    if not is_fd and flags & 0x10 != 0:
        number, size = number | 0x40000000, min(code, 8)
    return 0, number, channel, size, wide, is_fd
