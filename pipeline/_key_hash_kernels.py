"""FNV-1a over many short texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel

__all__ = ["fnv1a"]

_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)


@kernel
def fnv1a(data: Any, offsets: Any, out: Any) -> Any:
    """64-bit FNV-1a of ``data[offsets[i]:offsets[i + 1]]`` in ``out[i]``; returns how many were in bounds, in order."""
    for row in range(len(out)):
        start = offsets[row]
        stop = offsets[row + 1]
        if start < 0 or stop > len(data):
            return row
        value = _BASIS
        for at in range(start, stop):
            value = (value ^ np.uint64(data[at])) * _PRIME
        out[row] = value
    return len(out)
