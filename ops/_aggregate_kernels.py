"""Kernels that add rows to accumulators, one row after the other, and merge accumulators.

Every sum is taken in row order and only the values of a slot enter it, so the result does not depend on where batches
were cut. A state of zeros is an empty accumulator. `valid` is empty when nothing is null; rows with slot -1 are skipped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..pipeline.jit import kernel

__all__ = [
    "add_count",
    "add_edge",
    "add_float_extreme",
    "add_float_sum",
    "add_int_extreme",
    "add_int_sum",
    "add_spread",
    "fold_edge",
    "fold_float_extreme",
    "fold_float_sum",
    "fold_int_extreme",
    "fold_int_sum",
    "fold_spread",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_MOST = np.int64((1 << 63) - 1)
_LEAST = np.int64(-(1 << 63))


@kernel
def add_count(slots: Ints, begin: int, end: int, valid: Bools, n: Ints) -> None:
    nulls = valid.size > 0
    for row in range(begin, end):
        slot = slots[row]
        if slot >= 0 and (not nulls or valid[row]):
            n[slot] += 1


@kernel
def add_int_sum(slots: Ints, begin: int, end: int, values: Ints, valid: Bools, n: Ints, total: Ints) -> int:
    """Returns the first row whose value does not fit the sum, or -1."""
    nulls = valid.size > 0
    for row in range(begin, end):
        slot = slots[row]
        if slot >= 0 and (not nulls or valid[row]):
            value = values[row]
            have = total[slot]
            if (value > 0 and have > _MOST - value) or (value < 0 and have < _LEAST - value):
                return row
            total[slot] = have + value
            n[slot] += 1
    return -1


@kernel
def fold_int_sum(sources: Ints, targets: Ints, n: Ints, total: Ints, to_n: Ints, to_total: Ints) -> int:
    """Add slot ``sources[i]`` to slot ``targets[i]`` of another (or the same) state; returns the first overflow or -1."""
    for i in range(sources.size):
        source, target = sources[i], targets[i]
        value, have = total[source], to_total[target]
        if (value > 0 and have > _MOST - value) or (value < 0 and have < _LEAST - value):
            return i
        to_total[target] = have + value
        to_n[target] += n[source]
    return -1


@kernel
def add_float_sum(slots: Ints, begin: int, end: int, values: Floats, valid: Bools, n: Ints, total: Floats) -> None:
    nulls = valid.size > 0
    for row in range(begin, end):
        slot = slots[row]
        if slot >= 0 and (not nulls or valid[row]):
            total[slot] += values[row]
            n[slot] += 1


@kernel
def fold_float_sum(sources: Ints, targets: Ints, n: Ints, total: Floats, to_n: Ints, to_total: Floats) -> None:
    for i in range(sources.size):
        to_total[targets[i]] += total[sources[i]]
        to_n[targets[i]] += n[sources[i]]


@kernel
def add_spread(
    slots: Ints, begin: int, end: int, values: Floats, valid: Bools, n: Ints, mean: Floats, spread: Floats
) -> None:
    """Welford's update of the mean and of the sum of squared distances from it."""
    nulls = valid.size > 0
    for row in range(begin, end):
        slot = slots[row]
        if slot >= 0 and (not nulls or valid[row]):
            value = values[row]
            n[slot] += 1
            step = value - mean[slot]
            mean[slot] += step / n[slot]
            spread[slot] += step * (value - mean[slot])


@kernel
def fold_spread(
    sources: Ints,
    targets: Ints,
    n: Ints,
    mean: Floats,
    spread: Floats,
    to_n: Ints,
    to_mean: Floats,
    to_spread: Floats,
) -> None:
    """Chan's merge of two means and sums of squared distances."""
    for i in range(sources.size):
        source, target = sources[i], targets[i]
        if n[source] == 0:
            continue
        if to_n[target] == 0:
            to_n[target], to_mean[target], to_spread[target] = n[source], mean[source], spread[source]
            continue
        many = to_n[target] + n[source]
        step = mean[source] - to_mean[target]
        to_spread[target] += spread[source] + step * step * (to_n[target] * (n[source] / many))
        to_mean[target] += step * (n[source] / many)
        to_n[target] = many


@kernel
def add_int_extreme(
    slots: Ints, begin: int, end: int, values: Ints, valid: Bools, n: Ints, best: Ints, largest: bool
) -> None:
    nulls = valid.size > 0
    for row in range(begin, end):
        slot = slots[row]
        if slot >= 0 and (not nulls or valid[row]):
            value = values[row]
            if n[slot] == 0 or (value > best[slot] if largest else value < best[slot]):
                best[slot] = value
            n[slot] += 1


@kernel
def fold_int_extreme(
    sources: Ints, targets: Ints, n: Ints, best: Ints, to_n: Ints, to_best: Ints, largest: bool
) -> None:
    for i in range(sources.size):
        source, target = sources[i], targets[i]
        if n[source] == 0:
            continue
        value = best[source]
        if to_n[target] == 0 or (value > to_best[target] if largest else value < to_best[target]):
            to_best[target] = value
        to_n[target] += n[source]


@kernel
def add_float_extreme(
    slots: Ints, begin: int, end: int, values: Floats, valid: Bools, n: Ints, best: Floats, largest: bool
) -> None:
    """NaN gives way to any number."""
    nulls = valid.size > 0
    for row in range(begin, end):
        slot = slots[row]
        if slot >= 0 and (not nulls or valid[row]):
            value, have = values[row], best[slot]
            if n[slot] == 0 or np.isnan(have) or (value > have if largest else value < have):
                best[slot] = value
            n[slot] += 1


@kernel
def fold_float_extreme(
    sources: Ints, targets: Ints, n: Ints, best: Floats, to_n: Ints, to_best: Floats, largest: bool
) -> None:
    for i in range(sources.size):
        source, target = sources[i], targets[i]
        if n[source] == 0:
            continue
        value, have = best[source], to_best[target]
        if to_n[target] == 0 or np.isnan(have) or (value > have if largest else value < have):
            to_best[target] = value
        to_n[target] += n[source]


@kernel
def add_edge(
    slots: Ints,
    begin: int,
    end: int,
    times: Ints,
    words: npt.NDArray[np.uint64],
    valid: Bools,
    n: Ints,
    when: Ints,
    held: npt.NDArray[np.uint64],
    latest: bool,
) -> None:
    """Keep the row of the earliest (or latest) time; among equal times the first (or last) row."""
    nulls = valid.size > 0
    for row in range(begin, end):
        slot = slots[row]
        if slot >= 0 and (not nulls or valid[row]):
            time = times[row]
            if n[slot] == 0 or (time >= when[slot] if latest else time < when[slot]):
                when[slot] = time
                for word in range(held.shape[1]):
                    held[slot, word] = words[row, word]
            n[slot] += 1


@kernel
def fold_edge(
    sources: Ints,
    targets: Ints,
    n: Ints,
    when: Ints,
    held: npt.NDArray[np.uint64],
    to_n: Ints,
    to_when: Ints,
    to_held: npt.NDArray[np.uint64],
    latest: bool,
) -> None:
    for i in range(sources.size):
        source, target = sources[i], targets[i]
        if n[source] == 0:
            continue
        time = when[source]
        if to_n[target] == 0 or (time >= to_when[target] if latest else time < to_when[target]):
            to_when[target] = time
            for word in range(held.shape[1]):
                to_held[target, word] = held[source, word]
        to_n[target] += n[source]
