"""Text of CAN logs: where lines are, and the small pieces they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel

__all__ = ["decimal_ns", "digit_of", "find_lines", "hex_bytes", "skip_space", "token_end"]


@kernel
def find_lines(data: Any, at: Any, end: Any, starts: Any, lengths: Any) -> Any:
    """Lines of ``data[at:end]`` that are not blank, without the space around them: how many, and where the next begins."""
    count = 0
    while at < end and count < starts.shape[0]:
        stop = at
        while stop < end and data[stop] != 10:
            stop += 1
        first, last = skip_space(data, at, stop), stop
        while last > first and (data[last - 1] == 32 or data[last - 1] == 9 or data[last - 1] == 13):
            last -= 1
        if last > first:
            starts[count], lengths[count] = first, last - first
            count += 1
        at = stop + 1
    return count, min(at, end)


@kernel
def skip_space(data: Any, p: Any, end: Any) -> Any:
    """The first position from `p` on that is no space."""
    while p < end and (data[p] == 32 or data[p] == 9 or data[p] == 13):
        p += 1
    return p


@kernel
def token_end(data: Any, p: Any, end: Any) -> Any:
    """Where the word at `p` ends."""
    while p < end and data[p] != 32 and data[p] != 9 and data[p] != 13:
        p += 1
    return p


@kernel
def digit_of(byte: Any) -> Any:
    """The value of a hexadecimal digit; -1 for any other character."""
    if 48 <= byte <= 57:
        return byte - 48
    if 65 <= byte <= 70:
        return byte - 55
    if 97 <= byte <= 102:
        return byte - 87
    return -1


@kernel
def decimal_ns(data: Any, p: Any, end: Any) -> Any:
    """``123.456789`` at `p` as ns, and what follows it; -1 if there is no such number below 9.2e9 with 1 to 9 decimals."""
    whole, digits = np.int64(0), 0
    while p < end and 48 <= data[p] <= 57 and digits < 11:
        whole = whole * 10 + (np.int64(data[p]) - 48)
        p += 1
        digits += 1
    if digits == 0 or digits > 10 or whole >= 9_200_000_000 or p >= end or data[p] != 46:
        return -1, p
    p += 1
    part, places = np.int64(0), 0
    while p < end and 48 <= data[p] <= 57 and places < 10:
        part = part * 10 + (np.int64(data[p]) - 48)
        p += 1
        places += 1
    if places == 0 or places > 9:
        return -1, p
    for _ in range(9 - places):
        part *= 10
    return whole * 1_000_000_000 + part, p


@kernel
def hex_bytes(data: Any, p: Any, end: Any, out: Any, row: Any) -> Any:
    """Pairs of hexadecimal digits, dots between them allowed, to ``out[row]``: how many, and what follows.

    -1 if a digit has no partner, -2 for more than a row holds.
    """
    count = 0
    while p < end:
        if data[p] == 46 and count > 0:
            p += 1
            continue
        high = digit_of(np.int64(data[p]))
        if high < 0:
            break
        low = digit_of(np.int64(data[p + 1])) if p + 1 < end else -1
        if low < 0:
            return -1, p
        if count == out.shape[1]:
            return -2, p
        out[row, count] = high * 16 + low
        count += 1
        p += 2
    return count, p
