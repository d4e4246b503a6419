"""One pass from decoded pixels to a row of the batch: bilinear resize, scale and offset, layout, cast.

Vertical first: two source rows are blended into one row of float32, a loop over contiguous memory that compiles to vector
instructions; then each output pixel blends two neighbours of that row and is stored once, in its final type and place.
Sample positions are half-pixel centres, ``(i + 0.5) * source / target - 0.5`` clamped to the image, as in OpenCV's
INTER_LINEAR, ONNX ``half_pixel`` and torch ``align_corners=False`` without antialiasing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.jit import kernel

__all__ = ["axis_weights", "resize_pixels", "store_pixels"]


@lru_cache(maxsize=256)
def axis_weights(source: int, target: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """For each of `target` samples along an axis of `source` pixels: the left pixel and the share of the right one."""
    position = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    left = np.floor(position)
    index, share = left.astype(np.uint64), (position - left).astype(np.float32)
    index.flags.writeable = share.flags.writeable = False
    return index, share


@kernel
def resize_pixels(
    pixels: npt.NDArray[np.uint8],
    top: npt.NDArray[np.uint64],
    down: npt.NDArray[np.float32],
    left: npt.NDArray[np.uint64],
    across: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    steps: tuple[int, int, int],
    out: npt.NDArray[Any],
) -> None:
    """Resize RGB `pixels` (h, w, 3) to (len(top), len(left)) and store ``value * scale[c] + bias[c]`` in flat `out`.

    `steps` are the distances in `out` of rows, columns and channels. A store to an integer type truncates, so a bias of
    0.5 rounds.
    """
    one, three = np.uint64(1), np.uint64(3)
    height, width = pixels.shape[0], pixels.shape[1]
    span = np.uint64(width * 3)
    flat = pixels.reshape(height * width * 3)
    row = np.empty(width * 3 + 3, np.float32)
    scale0, scale1, scale2 = scale[0], scale[1], scale[2]
    bias0, bias1, bias2 = bias[0], bias[1], bias[2]
    row_step, column_step, channel_step = np.uint64(steps[0]), np.uint64(steps[1]), np.uint64(steps[2])
    for y in range(len(top)):
        upper = flat[top[y] * span : top[y] * span + span]
        below = min(top[y] + one, np.uint64(height - 1))
        lower = flat[below * span : below * span + span]
        share = down[y]
        for i in range(span):
            value = np.float32(upper[i])
            row[i] = value + (np.float32(lower[i]) - value) * share
        for c in range(3):
            row[span + np.uint64(c)] = row[span - three + np.uint64(c)]
        place = np.uint64(y) * row_step
        for x in range(len(left)):
            i = left[x] * three
            share = across[x]
            red, green, blue = row[i], row[i + one], row[i + np.uint64(2)]
            out[place] = (red + (row[i + three] - red) * share) * scale0 + bias0
            out[place + channel_step] = (green + (row[i + np.uint64(4)] - green) * share) * scale1 + bias1
            out[place + channel_step + channel_step] = (blue + (row[i + np.uint64(5)] - blue) * share) * scale2 + bias2
            place += column_step


@kernel
def store_pixels(
    pixels: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    steps: tuple[int, int, int],
    out: npt.NDArray[Any],
) -> None:
    """As `resize_pixels` for an image that has its final size: scale, layout and cast only."""
    row_step, column_step, channel_step = steps
    for c in range(3):
        factor, offset = scale[c], bias[c]
        for y in range(pixels.shape[0]):
            place = y * row_step + c * channel_step
            for x in range(pixels.shape[1]):
                out[place] = np.float32(pixels[y, x, c]) * factor + offset
                place += column_step
