"""Bits of CAN frames to raw signal values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pipeline.jit import kernel

__all__ = ["SHORT", "raw_values"]

#: Status of a frame that ends before a signal it should hold.
SHORT = 1


@kernel
def raw_values(
    data: Any,
    sizes: Any,
    rows: Any,
    start: Any,
    stop: Any,
    order: Any,
    places: Any,
    ranges: Any,
    raw: Any,
    present: Any,
    status: Any,
) -> None:
    """Raw values of every signal of the frames ``data[rows[start:stop]]``.

    `places` is int64 ``(signals, 8)``: first byte, step, shift, length, whether signed, bytes needed, parent, and where its
    part of `ranges` ends (it begins where that of the signal before ends); `ranges` is int64 ``(n, 2)``, both ends
    included. `raw` (int64) and `present` (uint8) are ``(signals, frames)``; `status` is `SHORT` where a frame lacks bytes
    of a signal that it should hold. The caller sees to it that every place lies within a row of `data`.
    """
    for i in range(start, stop):
        row = rows[i]
        size = np.int64(sizes[row])
        status[i] = 0
        for j in range(order.shape[0]):
            k = order[j]
            parent = places[k, 6]
            there = True
            if parent >= 0:
                there = False
                if present[parent, i] != 0:
                    chosen = raw[parent, i]
                    for r in range(places[k - 1, 7] if k > 0 else 0, places[k, 7]):
                        if ranges[r, 0] <= chosen and chosen <= ranges[r, 1]:
                            there = True
            if there and size < places[k, 5]:
                status[i] = SHORT
                there = False
            present[k, i] = there
            raw[k, i] = _bits(data, row, places, k) if there else 0


@kernel
def _bits(data: Any, row: Any, places: Any, k: Any) -> Any:
    at, step, shift, length = places[k, 0], places[k, 1], np.uint64(places[k, 2]), places[k, 3]
    count = (places[k, 2] + length + 7) >> 3
    low = np.uint64(0)
    for b in range(min(count, 8)):
        low |= np.uint64(data[row, at + step * b]) << np.uint64(8 * b)
    value = low >> shift
    if count == 9:
        value |= np.uint64(data[row, at + step * 8]) << (np.uint64(64) - shift)
    if length < 64:
        unused = np.uint64(64 - length)
        value = value << unused
        if places[k, 4] != 0:
            return np.int64(value) >> np.int64(64 - length)
        value = value >> unused
    return np.int64(value)
