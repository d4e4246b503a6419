"""Lines of SocketCAN's candump to columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._can_line_kernels import decimal_ns, digit_of, hex_bytes, skip_space, token_end

__all__ = ["REASONS", "frames", "interfaces"]

#: What a status means.
REASONS = (
    "",
    "it does not begin with a time such as (1436509052.249713)",
    "behind the time there is no interface name of up to 15 characters",
    "its identifier has neither 3 nor 8 hexadecimal digits, or too many bits",
    "its data are not pairs of hexadecimal digits, or not as many as it says",
    "more than 8 bytes of data in a classic frame, or more than 64 in a CAN FD frame",
    "a CAN FD frame with more than 8 bytes; open the log with fd=True to read it",
    "there is text behind the frame",
    "it names a 257th interface",
    "the line is too long for a CAN frame",
)
_TIME, _NAME, _ID, _DATA, _SIZE, _NARROW, _BEHIND, _MANY, _LONG = range(1, 10)
_MOST_LINE = 1024


@kernel
def interfaces(data: Any, starts: Any, lengths: Any, names: Any, sizes: Any, known: Any, codes: Any) -> Any:
    """The number of each line's interface, in the order of first appearance; -1 without one, -2 for a 257th.

    `names` is uint8 ``(256, 16)``, `sizes` the length of each; `known` are there already. Returns how many there are.
    """
    last = 0
    for i in range(starts.shape[0]):
        codes[i] = -1
        p, end = starts[i], starts[i] + min(lengths[i], _MOST_LINE)
        if data[p] != 40:
            continue
        p += 1
        while p < end and (48 <= data[p] <= 57 or data[p] == 46):
            p += 1
        if p >= end or data[p] != 41:
            continue
        first = skip_space(data, p + 1, end)
        stop = token_end(data, first, end)
        size = stop - first
        if first == p + 1 or size == 0 or size > 15 or stop == end:
            continue
        found = -1
        for j in range(known):
            k = last if j == 0 else (j - 1 if j <= last else j)
            if sizes[k] == size:
                same = True
                for b in range(size):
                    same = same and names[k, b] == data[first + b]
                if same:
                    found = k
                    break
        if found < 0:
            if known == names.shape[0]:
                codes[i] = -2
                continue
            for b in range(size):
                names[known, b] = data[first + b]
            sizes[known] = size
            found = known
            known += 1
        codes[i] = last = found
    return known


@kernel
def frames(
    data: Any,
    starts: Any,
    lengths: Any,
    codes: Any,
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
        if lengths[i] > _MOST_LINE:
            status[i] = _LONG
            continue
        time, p = decimal_ns(data, starts[i] + 1, end)
        if data[starts[i]] != 40 or time < 0 or p >= end or data[p] != 41:
            status[i] = _TIME
            continue
        if codes[i] < 0:
            status[i] = _NAME if codes[i] == -1 else _MANY
            continue
        p = skip_space(data, token_end(data, skip_space(data, p + 1, end), end), end)
        p = _behind_extra(data, p, end)
        number, digits = np.int64(0), 0
        while p < end and digits < 9 and digit_of(np.int64(data[p])) >= 0:
            number = number * 16 + digit_of(np.int64(data[p]))
            p += 1
            digits += 1
        error = digits == 8 and number & 0x20000000 != 0
        if (digits == 3 and number > 0x7FF) or number > 0x3FFFFFFF or (digits != 3 and digits != 8) or p >= end:
            status[i] = _ID
            continue
        for b in range(payload.shape[1]):
            payload[k, b] = 0
        if data[p] == 35:
            bad, size, is_fd, remote = _log_data(data, p + 1, end, payload, k)
        else:
            bad, size, is_fd, remote = _shown_data(data, p, end, payload, k)
        status[i] = bad
        if bad:
            continue
        ts_event[k] = ts_recv[k] = time
        seq[k] = np.uint64(first + i)
        bus[k] = codes[i]
        ids[k] = number | (0x40000000 if remote else 0)
        ext[k] = digits == 8 and not error
        fd[k] = is_fd
        sizes[k] = size
        k += 1
    return k


@kernel
def _behind_extra(data: Any, p: Any, end: Any) -> Any:
    """Behind ``RX B E``, which ``candump -x`` puts before the identifier: direction, bit rate switch, error state."""
    if p + 2 > end or data[p + 1] != 88 or (data[p] != 82 and data[p] != 84):
        return p
    q = p
    for _ in range(3):
        q = skip_space(data, token_end(data, q, end), end)
    return q


@kernel
def _log_data(data: Any, p: Any, end: Any, payload: Any, k: Any) -> Any:
    """What stands behind the ``#`` of a log line: status, bytes, whether CAN FD, whether remote."""
    is_fd, remote = False, False
    size: Any = np.int64(0)
    if p < end and data[p] == 35:
        is_fd = True
        if p + 1 >= end or digit_of(np.int64(data[p + 1])) < 0:
            return _DATA, 0, False, False
        p += 2
    elif p < end and (data[p] == 82 or data[p] == 114):
        remote = True
        p += 1
        if p < end and digit_of(np.int64(data[p])) >= 0:
            size = min(digit_of(np.int64(data[p])), 8)
            p += 1
    if not remote:
        size, p = hex_bytes(data, p, end, payload, k)
        if size == -1:
            return _DATA, 0, False, False
        if size == -2 or (not is_fd and size > 8):
            return _NARROW if is_fd and payload.shape[1] < 64 else _SIZE, 0, False, False
    if not is_fd and p + 1 < end and data[p] == 95 and digit_of(np.int64(data[p + 1])) > 8:
        p += 2  # the raw length code of a frame of 8 bytes
    if p < end and data[p] != 32 and data[p] != 9:
        return _DATA, 0, False, False
    p = skip_space(data, p, end)
    if p < end and (p + 1 != end or (data[p] != 82 and data[p] != 84)):
        return _BEHIND, 0, False, False
    return 0, size, is_fd, remote


@kernel
def _shown_data(data: Any, p: Any, end: Any, payload: Any, k: Any) -> Any:
    """``[8]  2A 36 ...``, as candump shows frames on a screen; two digits in the brackets mean CAN FD."""
    p = skip_space(data, p, end)
    if p >= end or data[p] != 91:
        return _ID, 0, False, False
    p += 1
    size, digits = np.int64(0), 0
    while p < end and 48 <= data[p] <= 57 and digits < 3:
        size = size * 10 + (np.int64(data[p]) - 48)
        p += 1
        digits += 1
    if digits == 0 or digits > 2 or p >= end or data[p] != 93:
        return _DATA, 0, False, False
    is_fd = digits == 2
    if size > (64 if is_fd else 8):
        return _SIZE, 0, False, False
    if size > payload.shape[1]:
        return _NARROW, 0, False, False
    p = skip_space(data, p + 1, end)
    if p < end and data[p] == 114 and not is_fd:  # "remote request"
        return 0, size, False, True
    for b in range(size):
        high = digit_of(np.int64(data[p])) if p + 1 < end else -1
        low = digit_of(np.int64(data[p + 1])) if p + 1 < end else -1
        if high < 0 or low < 0 or (p + 2 < end and data[p + 2] != 32):
            return _DATA, 0, False, False
        payload[k, b] = high * 16 + low
        p = skip_space(data, p + 2, end)
    if p < end and digit_of(np.int64(data[p])) >= 0 and data[p] != 69:  # more bytes than it says (not "ERRORFRAME")
        return _DATA, 0, False, False
    return 0, size, is_fd, False
