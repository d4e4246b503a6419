"""Radar points of many scans to grids and to padded tokens, one pass each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.jit import kernel

__all__ = ["pad_points", "raster_points"]

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]


@kernel
def raster_points(
    starts: _Ints,
    stops: _Ints,
    fields: tuple[_Floats, ...],
    limits: tuple[float, ...],
    out: npt.NDArray[np.float32],
) -> Any:
    """Fill ``out[scan] = (count, mean vr, max rcs)`` per cell of the grid ``(x_low, x_high, y_low, y_high)``.

    `fields` are x, y, vr and rcs; NaN is a missing value. Sums are taken in the order of the points. Returns how many
    points had no position and how many lay outside.
    """
    x, y, vr, rcs = fields
    x_low, x_high, y_low, y_high = limits
    rows, columns = out.shape[2], out.shape[3]
    per_x, per_y = rows / (x_high - x_low), columns / (y_high - y_low)
    lost = outside = 0
    speeds = np.zeros((rows, columns), np.int32)
    for scan in range(len(starts)):
        count, speed, strength = out[scan, 0], out[scan, 1], out[scan, 2]
        count[:] = 0
        speed[:] = 0
        strength[:] = -np.inf
        for i in range(starts[scan], stops[scan]):
            ahead, left = np.float64(x[i]), np.float64(y[i])
            if not (np.isfinite(ahead) and np.isfinite(left)):
                lost += 1
                continue
            if ahead < x_low or ahead >= x_high or left < y_low or left >= y_high:
                outside += 1
                continue
            row = min(int((ahead - x_low) * per_x), rows - 1)
            column = min(int((left - y_low) * per_y), columns - 1)
            count[row, column] += 1
            if np.isfinite(vr[i]):
                speed[row, column] += vr[i]
                speeds[row, column] += 1
            if np.isfinite(rcs[i]) and rcs[i] > strength[row, column]:
                strength[row, column] = rcs[i]
        for row in range(rows):
            for column in range(columns):
                if speeds[row, column] > 1:
                    speed[row, column] /= np.float32(speeds[row, column])
                speeds[row, column] = 0
                if strength[row, column] == -np.inf:
                    strength[row, column] = 0
    return lost, outside


@kernel
def pad_points(
    starts: _Ints,
    stops: _Ints,
    fields: tuple[_Floats, ...],
    scale: npt.NDArray[np.float32],
    tokens: npt.NDArray[np.float32],
    mask: npt.NDArray[np.float32],
) -> Any:
    """Fill ``tokens[scan]`` with the nearest points, ascending by range and then by position in the scan, and `mask`.

    `fields` are x, y, z, vr and rcs; NaN is a missing value and becomes 0. Returns how many points had no position and
    how many did not fit.
    """
    most = tokens.shape[1]
    lost = over = 0
    x, y, z, vr, rcs = fields
    ranges = np.empty(most, np.float64)
    places = np.empty(most, np.int64)
    for scan in range(len(starts)):
        kept = 0
        for i in range(starts[scan], stops[scan]):
            ahead, left = np.float64(x[i]), np.float64(y[i])
            if not (np.isfinite(ahead) and np.isfinite(left)):
                lost += 1
                continue
            up = np.float64(z[i]) if np.isfinite(z[i]) else 0.0
            range2 = ahead * ahead + left * left + up * up
            if kept == most:
                over += 1
                if range2 >= ranges[most - 1]:
                    continue
                kept -= 1
            k = kept
            while k > 0 and ranges[k - 1] > range2:
                ranges[k], places[k] = ranges[k - 1], places[k - 1]
                k -= 1
            ranges[k], places[k] = range2, i
            kept += 1
        tokens[scan] = 0
        mask[scan] = 0
        for k in range(kept):
            i = places[k]
            mask[scan, k] = 1
            tokens[scan, k, 0] = x[i] / scale[0]
            tokens[scan, k, 1] = y[i] / scale[1]
            if np.isfinite(z[i]):
                tokens[scan, k, 2] = z[i] / scale[2]
            if np.isfinite(vr[i]):
                tokens[scan, k, 3] = vr[i] / scale[3]
            if np.isfinite(rcs[i]):
                tokens[scan, k, 4] = rcs[i] / scale[4]
    return lost, over
