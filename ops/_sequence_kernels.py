"""Rings of the last rows of each key, and windows copied out of them in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pipeline.jit import kernel

__all__ = ["mark", "roll"]


@kernel
def mark(indices: Any, used: Any) -> None:
    """Set `used` to 1 at every index that occurs."""
    for i in range(len(indices)):
        used[indices[i]] = 1


@kernel
def _wrap(place: Any, length: Any) -> Any:
    return place - length if place >= length else place


@kernel
def roll(
    first: Any,
    keys: Any,
    values: Any,
    rings: Any,
    seen: Any,
    every: Any,
    standardize: Any,
    windows: Any,
    rows: Any,
    dropped: Any,
) -> Any:
    """Take rows from `first` on until `windows` is full; returns (row to go on with, windows made).

    `keys` are slots of `rings` (key, length, column) and `seen` (rows so far); `values` is (column, row). `rows` gets the
    row that completed each window. `dropped` counts rows before the first window of a key, and between windows.
    """
    length = rings.shape[1]
    columns = rings.shape[2]
    made = 0
    for number in range(first, len(keys)):
        if made == len(windows):
            return number, made
        key = keys[number]
        count = seen[key]
        place = count % length
        for column in range(columns):
            rings[key, place, column] = values[column, number]
        seen[key] = count + 1
        if count + 1 < length:
            dropped[0] += 1
            continue
        if (count + 1 - length) % every:
            dropped[1] += 1
            continue
        window = windows[made]
        oldest = (place + 1) % length
        ring = rings[key]
        if standardize:
            for column in range(columns):
                base = ring[oldest, column]  # differences from it are exactly 0 in a constant column
                total = 0.0
                for i in range(length):
                    total += ring[_wrap(oldest + i, length), column] - base
                mean = total / length
                square = 0.0
                for i in range(length):
                    away = (ring[_wrap(oldest + i, length), column] - base) - mean
                    square += away * away
                deviation = np.sqrt(square / length)
                for i in range(length):
                    away = (ring[_wrap(oldest + i, length), column] - base) - mean
                    window[i, column] = away / deviation if deviation > 0.0 else 0.0
        else:
            for i in range(length - oldest):
                for column in range(columns):
                    window[i, column] = ring[oldest + i, column]
            for i in range(oldest):
                for column in range(columns):
                    window[length - oldest + i, column] = ring[i, column]
        rows[made] = number
        made += 1
    return len(keys), made
