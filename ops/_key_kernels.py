"""Kernels behind `keys.KeyIndex`: dense numbers for integers and for dictionary entries, in order of first appearance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.jit import kernel

__all__ = ["COUNT", "NULL", "assign", "rehash", "through"]

#: Positions in the counters of an integer map: how many values it holds, and the number of null (-1: not seen).
COUNT, NULL = 0, 1

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@kernel
def _home(value: Any, mask: Any) -> Any:
    """Where `value` would lie in a table of ``mask + 1`` places (the finisher of splitmix64)."""
    mixed = np.uint64(value)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((mixed ^ (mixed >> np.uint64(31))) & np.uint64(mask))


@kernel
def assign(values: Ints, valid: Bools, begin: int, table: Ints, keys: Ints, counters: Ints, out: Ints) -> int:
    """Number ``values[begin:]`` into `out`; stops early, before a row that needs room in `keys`.

    `valid` is empty when nothing is null. `table` is a power of two of places, -1 where free, at least twice `keys`.
    Returns the row reached.
    """
    mask = table.size - 1
    nulls = valid.size > 0
    for row in range(begin, values.size):
        if nulls and not valid[row]:
            if counters[NULL] < 0:
                if counters[COUNT] == keys.size:
                    return row
                counters[NULL] = counters[COUNT]
                keys[counters[COUNT]] = 0
                counters[COUNT] += 1
            out[row] = counters[NULL]
            continue
        value = values[row]
        place = _home(value, mask)
        while True:
            number = table[place]
            if number < 0:
                number = counters[COUNT]
                if number == keys.size:
                    return row
                keys[number] = value
                table[place] = number
                counters[COUNT] = number + 1
                break
            if keys[number] == value:
                break
            place = (place + 1) & mask
        out[row] = number
    return values.size


@kernel
def rehash(table: Ints, keys: Ints, count: int, null: int) -> None:
    """Enter ``keys[:count]`` (without the one that stands for null) into an empty `table`."""
    mask = table.size - 1
    for number in range(count):
        if number == null:
            continue
        place = _home(keys[number], mask)
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = number


@kernel
def through(indices: Ints, codes: Ints, out: Ints, missing: Ints) -> int:
    """``out = codes[indices]``; entries that have no code yet (-1) are listed once, as they appear, in `missing`.

    Returns how many are missing, or ``-1 - row`` for a row whose index lies outside `codes`.
    """
    found = 0
    for row in range(indices.size):
        index = indices[row]
        if index < 0 or index >= codes.size:
            return -1 - row
        code = codes[index]
        if code == -1:
            codes[index] = -2
            missing[found] = index
            found += 1
        out[row] = code
    return found
