"""Decoded pictures to rows of a tensor column: scaling and conversion to RGB by FFmpeg, then layout and type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._video_events import av_library

__all__ = ["PixelWriter"]


class PixelWriter:
    """Writes rows of shape ``(height, width, 3)``, or ``(3, height, width)`` if `planar`; one for each thread.

    A pixel becomes ``value * scale[c] + bias[c]``; with `exact` that is the identity (uint8).
    """

    def __init__(
        self, height: int, width: int, *, planar: bool, exact: bool, scale: Sequence[float], bias: Sequence[float]
    ) -> None:
        self._height, self._width, self._planar, self._exact = height, width, planar, exact
        self._scale, self._bias = np.asarray(scale, np.float32), np.asarray(bias, np.float32)
        self._steps = (width, 1, height * width) if planar else (width * 3, 3, 1)
        self._scaler: Any = av_library().video.reformatter.VideoReformatter()

    def write(self, frame: Any, row: npt.NDArray[Any]) -> None:
        """Fill `row` with `frame`. Raises ValueError where FFmpeg cannot convert it."""
        height, width = self._height, self._width
        try:
            plane = self._scaler.reformat(frame, width, height, "rgb24").planes[0]
        except av_library().FFmpegError as error:
            raise ValueError(f"cannot be turned into RGB: {error}") from None
        lines = np.frombuffer(plane, np.uint8)[: height * plane.line_size].reshape(height, plane.line_size)
        pixels = lines[:, : width * 3].reshape(height, width, 3)
        if self._exact:
            row[:] = pixels.transpose(2, 0, 1) if self._planar else pixels
            return
        from ._resize_kernels import store_pixels

        store_pixels(np.ascontiguousarray(pixels), self._scale, self._bias, self._steps, row.reshape(-1))
