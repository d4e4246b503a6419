"""Walking the markers of a JPEG without decoding it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.jit import kernel

__all__ = ["progressive_scans"]


@kernel
def progressive_scans(data: npt.NDArray[np.uint8]) -> Any:
    """How many scans a progressive JPEG has; 0 if it is sequential or its frame header is not found.

    A progressive scan may cost a few bytes and yet make the decoder visit every block of the image, so a small file with
    thousands of scans can hold a decoder for hours.
    """
    size, at = len(data), 2
    while at + 4 <= size:
        if data[at] != 0xFF:
            return 0
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in (0xC2, 0xC6, 0xCA, 0xCE):
                return 0
            break
        if marker == 0xDA or marker == 0xD9:
            return 0
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        at += 2 + (int(data[at + 2]) << 8 | int(data[at + 3]))
    scans = 0
    for i in range(at, size - 1):
        if data[i] == 0xFF and data[i + 1] == 0xDA:
            scans += 1
    return scans
