"""IEX messages at native speed: which belong to a table and are sound, the numbers of their symbols, and their fields."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ..network._wire_kernels import le16, le32, le64

__all__ = ["BAD_PRICE", "BAD_TIME", "MOST_SYMBOLS", "SHORT", "SLOTS", "SYMBOLS_FULL", "choose", "read_column"]

#: Symbols that are told apart, and slots of the table in which they are looked up.
MOST_SYMBOLS = 1 << 16
SLOTS = 1 << 18

# What is wrong with a message.
SHORT, BAD_TIME, BAD_PRICE, SYMBOLS_FULL = 1, 2, 3, 4


@kernel
def choose(
    data: Any,
    offsets: Any,
    sizes: Any,
    wanted: Any,
    least: Any,
    prices: Any,
    most_price: Any,
    has_symbol: Any,
    counts: Any,
    slots: Any,
    names: Any,
    known: Any,
    rows: Any,
    symbols: Any,
    bad: Any,
) -> Any:
    """The sound messages of the `wanted` types: their numbers in `rows`, and those of their symbols. Returns how many
    are sound and how many are bad; `counts` adds up the others by type, those of no bytes as type 0."""
    kept = 0
    wrong = 0
    mask = np.int64(SLOTS - 1)
    for i in range(len(offsets)):
        at = np.int64(offsets[i])
        size = np.int64(sizes[i])
        kind = data[at] if size > 0 else np.uint8(0)
        if not wanted[kind]:
            counts[kind] += 1
            continue
        what = 0
        if size < least[kind]:
            what = SHORT
        elif np.int64(le64(data, at + 2)) < 0:
            what = BAD_TIME
        else:
            for k in range(prices.shape[1]):
                where = prices[kind, k]
                if where:
                    price = np.int64(le64(data, at + where))
                    if price > most_price or price < -most_price:
                        what = BAD_PRICE
        symbol = np.int64(0)
        if what == 0 and has_symbol[kind]:
            key = np.int64(le64(data, at + 10))
            slot = ((key ^ (key >> 29)) * np.int64(0x1E3779B97F4A7C15) >> 20) & mask
            while slots[slot] != 0 and names[slots[slot] - 1] != key:
                slot = (slot + 1) & mask
            if slots[slot] == 0:
                if known[0] == MOST_SYMBOLS:
                    what = SYMBOLS_FULL
                else:
                    names[known[0]] = key
                    known[0] += 1
                    slots[slot] = known[0]
            symbol = slots[slot] - 1
        if what:
            bad[wrong, 0] = what
            bad[wrong, 1] = i
            wrong += 1
            continue
        rows[kept] = i
        symbols[kept] = symbol
        kept += 1
    return kept, wrong


@kernel
def read_column(data: Any, offsets: Any, rows: Any, at: Any, width: Any, scale: Any, out: Any, valid: Any) -> None:
    """`width` bytes at ``at[type]`` times `scale`; 0 and not valid where that is -1."""
    for i in range(len(rows)):
        place = np.int64(offsets[rows[i]])
        where = at[data[place]]
        value = np.int64(0)
        valid[i] = where >= 0
        if where >= 0:
            if width == 1:
                value = np.int64(data[place + where])
            elif width == 2:
                value = np.int64(le16(data, place + where))
            elif width == 4:
                value = np.int64(le32(data, place + where))
            else:
                value = np.int64(le64(data, place + where))
        out[i] = value * scale
