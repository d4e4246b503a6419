"""Lines of PEAK's traces to columns: words in the order that the file's version, or its ``$COLUMNS``, says."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._can_line_kernels import digit_of, skip_space, token_end

__all__ = ["COMMENT", "EVENT", "REASONS", "frames"]

#: What a status means; the last two are no errors.
REASONS = (
    "",
    "it does not begin with the number of a message",
    "its time is no number of milliseconds",
    "its time is beyond all times",
    "its type is not one of Rx Tx Warng Error, DT FD FB FE BI RR ST EC ER EV",
    "its bus is not from 1 to 255",
    "its identifier is not hexadecimal, or has too many bits",
    "its direction is not Rx or Tx",
    "its length is not one that a frame can have",
    "its data are not as many bytes as it says",
    "a CAN FD frame with more than 8 bytes; open the trace with fd=True to read it",
    "comment",
    "event that is no CAN frame",
)
_NUMBER, _TIME, _LATE, _TYPE, _BUS, _ID, _WAY, _LENGTH, _DATA, _NARROW, COMMENT, EVENT = range(1, 13)
_LONGEST = 9_200_000_000 * 10**9
_DATA_FRAME, _FD_FRAME, _REMOTE_FRAME, _ERROR_FRAME = range(4)


@kernel
def frames(
    data: Any,
    starts: Any,
    lengths: Any,
    columns: Any,
    origin: Any,
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
    """Lines to columns; `status` says what is wrong with a line. `columns` are the letters of the file's columns, T (type)
    missing in version 1.0. Returns the rows written."""
    k = 0
    for i in range(starts.shape[0]):
        end = starts[i] + lengths[i]
        if data[starts[i]] == 59:  # ;
            status[i] = COMMENT
            continue
        for b in range(payload.shape[1]):
            payload[k, b] = 0
        bad, time, kind, channel, number, wide, size = _line(data, starts[i], end, columns, payload, k)
        if bad == 0 and time > _LONGEST - max(origin, 0):
            bad = _LATE
        status[i] = bad
        if bad != 0:
            continue
        if kind == _REMOTE_FRAME:
            number |= 0x40000000
        elif kind == _ERROR_FRAME:
            number, wide, size = 0x20000000, False, 0
        ts_event[k] = ts_recv[k] = origin + time
        seq[k] = np.uint64(first + i)
        bus[k], ids[k], ext[k], fd[k], sizes[k] = channel, number, wide, kind == _FD_FRAME, size
        k += 1
    return k


@kernel
def _line(data: Any, p: Any, end: Any, columns: Any, payload: Any, k: Any) -> Any:
    """What is wrong with a line, its time in ns, kind, bus, identifier, whether that has 29 bits, length."""
    time, number, size = np.int64(0), np.int64(0), np.int64(0)
    kind, channel, wide, bad = _DATA_FRAME, np.int64(1), False, 0
    for c in range(columns.shape[0]):
        column = columns[c]
        if kind == _ERROR_FRAME and column != 66:  # of an error frame other columns are left empty, or not
            break
        stop = token_end(data, p, end)
        if column == 78:  # N
            stop = _number_end(data, p, end)
            bad = _NUMBER if stop < 0 else 0
        elif column == 79:  # O
            time = _milliseconds(data, p, stop)
            bad = _TIME if time == -1 else _LATE if time == -2 else 0
        elif column == 84:  # T
            kind = _kind(data, p, stop)
            bad = _TYPE if kind == -1 else EVENT if kind == -2 else 0
        elif column == 66:  # B
            channel = _decimal(data, p, stop)
            bad = _BUS if channel < 1 or channel > 255 else 0
        elif column == 73:  # I
            number = _hexadecimal(data, p, stop)
            wide = stop - p > 4
            if number == 0xFFFFFFFF:
                bad = EVENT
            elif number < 0 or number > (0x1FFFFFFF if wide else 0x7FF):
                bad = _ID
        elif column == 100:  # d
            sound = stop - p == 2 and (data[p] == 82 or data[p] == 84) and data[p + 1] == 120
            bad = 0 if sound else _WAY
        elif column == 76 or column == 108:  # L, l
            size = _decimal(data, p, stop)
            if column == 76:
                size = _of_code(size, kind == _FD_FRAME)
            bad = _LENGTH if size < 0 or size > (64 if kind == _FD_FRAME else 8) else 0
            if bad == 0 and size > payload.shape[1]:
                bad = _NARROW
        elif column == 68:  # D
            kind, bad = _bytes(data, p, end, size, kind, payload, k)
            break
        if bad != 0:
            break
        p = skip_space(data, stop, end)
    return bad, time, kind, channel, number, wide, size


@kernel
def _of_code(code: Any, is_fd: bool) -> Any:
    """The length that a length code stands for; -1 for none."""
    if code <= 8 or code > 15:
        return code if code <= 8 else np.int64(-1)
    if not is_fd:
        return np.int64(8)
    return code * 4 - 24 if code < 13 else code * 16 - 176


@kernel
def _number_end(data: Any, p: Any, end: Any) -> Any:
    """Behind ``17)`` or ``17``; -1 if there is no such number."""
    first = p
    while p < end and 48 <= data[p] <= 57:
        p += 1
    if p == first:
        return -1
    if p < end and data[p] == 41:
        return p + 1
    return p if p == end or data[p] == 32 or data[p] == 9 else -1


@kernel
def _milliseconds(data: Any, p: Any, stop: Any) -> Any:
    """``1059.900`` or ``1059`` in ns, up to nine decimals, of which six count; -1 if it is neither, -2 if too large."""
    whole, digits = np.int64(0), 0
    while p < stop and 48 <= data[p] <= 57 and digits < 17:
        whole = whole * 10 + (np.int64(data[p]) - 48)
        p += 1
        digits += 1
    if digits == 0:
        return -1
    if digits == 17 or whole >= 9_200_000_000_000:
        return -2
    part, places = np.int64(0), 0
    if p < stop and (data[p] == 46 or data[p] == 44):  # some write a comma where their language has one
        p += 1
        while p < stop and 48 <= data[p] <= 57 and places < 9:
            if places < 6:
                part = part * 10 + (np.int64(data[p]) - 48)
            p += 1
            places += 1
        for _ in range(6 - places):
            part *= 10
    return whole * 1_000_000 + part if p == stop else -1


@kernel
def _decimal(data: Any, p: Any, stop: Any) -> Any:
    """A word of up to four decimal digits; -1 if it is none."""
    if stop == p or stop - p > 4:
        return np.int64(-1)
    value = np.int64(0)
    for q in range(p, stop):
        if not 48 <= data[q] <= 57:
            return np.int64(-1)
        value = value * 10 + (np.int64(data[q]) - 48)
    return value


@kernel
def _hexadecimal(data: Any, p: Any, stop: Any) -> Any:
    """A word of up to eight hexadecimal digits; -1 if it is none."""
    if stop == p or stop - p > 8:
        return np.int64(-1)
    value = np.int64(0)
    for q in range(p, stop):
        digit = digit_of(np.int64(data[q]))
        if digit < 0:
            return np.int64(-1)
        value = value * 16 + digit
    return value


@kernel
def _kind(data: Any, p: Any, stop: Any) -> Any:
    """The kind of frame that a type stands for, -2 for an event that is none, -1 for no type."""
    size = stop - p
    if size == 5:
        a, b = data[p], data[p + 1]
        return -2 if a == 87 and b == 97 else _ERROR_FRAME if a == 69 and b == 114 else -1  # Warng, Error
    if size != 2:
        return -1
    a, b = data[p], data[p + 1]
    if (b == 120 and (a == 82 or a == 84)) or (a == 68 and b == 84):  # Rx, Tx, DT
        return _DATA_FRAME
    if (a == 70 and (b == 68 or b == 66 or b == 69)) or (a == 66 and b == 73):  # FD, FB, FE, BI
        return _FD_FRAME
    if a == 82 and b == 82:  # RR
        return _REMOTE_FRAME
    if a == 69 and b == 82:  # ER
        return _ERROR_FRAME
    return -2 if (a == 83 and b == 84) or (a == 69 and (b == 67 or b == 86)) else -1  # ST, EC, EV


@kernel
def _bytes(data: Any, p: Any, end: Any, size: Any, kind: Any, payload: Any, k: Any) -> Any:
    """Pairs of digits to ``payload[k]``, or a word in their place (``RTR``, ``ERROR``): the kind of frame, what is wrong."""
    if kind == _REMOTE_FRAME:
        return kind, 0
    stop = token_end(data, p, end)
    if kind == _DATA_FRAME and stop - p == 3 and data[p] == 82 and data[p + 1] == 84:
        return _REMOTE_FRAME, 0
    if kind == _DATA_FRAME and stop - p == 5 and data[p] == 69 and data[p + 1] == 82:
        return _ERROR_FRAME, 0
    for j in range(size):
        stop = token_end(data, p, end)
        value = _hexadecimal(data, p, stop)
        if stop - p != 2 or value < 0:
            return kind, _DATA
        payload[k, j] = value
        p = skip_space(data, stop, end)
    stop = token_end(data, p, end)
    return kind, _DATA if stop - p == 2 and _hexadecimal(data, p, stop) >= 0 else 0
