"""Where lines and records begin and end."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._ndjson_simd import load8, load64, trailing_zeros

__all__ = ["after_space", "count_records", "line_end"]

_U = np.uint64


@kernel
def after_space(at: Any) -> Any:
    byte = load8(at)
    while byte == 32 or byte == 9 or byte == 13:
        at += 1
        byte = load8(at)
    return at


@kernel
def line_end(at: Any, end: Any) -> Any:
    """The address of the newline that ends the line at `at`, or `end`."""
    while at < end and load8(at) != 10:
        at += 1
    return at


@kernel
def count_records(at: Any, end: Any, most_records: Any, most_bytes: Any) -> Any:
    """``(records, lines, stop, long)``: records (lines not blank) and newlines between two addresses.

    Counting stops in front of the record after `most_records`, and in front of a line of more than `most_bytes`, which
    sets `long`; `stop` is where, or `end`.
    """
    records, lines = np.int64(0), np.int64(0)
    while at < end:
        first = after_space(at)
        if first >= end and end - at <= most_bytes:
            break
        newline = _find_newline(min(first, end), end)
        if newline - at > most_bytes:
            return records, lines, at, True
        if first < end and load8(first) != 10:
            if records == most_records:
                return records, lines, at, False
            records += 1
        if newline < end:
            lines += 1
        at = newline + 1
    return records, lines, end, False


@kernel
def _find_newline(at: Any, end: Any) -> Any:
    newlines, ones, highs = _U(0x0A0A0A0A0A0A0A0A), _U(0x0101010101010101), _U(0x8080808080808080)
    while at < end:
        word = load64(at) ^ newlines
        hit = (word - ones) & ~word & highs
        if hit != _U(0):
            return min(at + (trailing_zeros(np.int64(hit)) >> 3), end)
        at += 8
    return end
