"""Columns without values of their own, and columns of booleans, as the decoders of messages make them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ._cdr_rows import Array

__all__ = ["bools", "zeros"]

_ZEROS = pa.py_buffer(bytes(1 << 16))


def zeros(nbytes: int) -> pa.Buffer:
    """Bytes that are 0; not to be written to."""
    return _ZEROS.slice(0, nbytes) if nbytes <= _ZEROS.size else pa.py_buffer(np.zeros(nbytes, np.uint8))


def bools(values: Array) -> pa.Array:
    """Bytes (0: false) as a boolean column."""
    bits = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits])
