"""What the CDR decoders share: reasons for bad messages, names as dictionaries, payloads gathered into one column."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.memory import BufferPool
from ._cdr_image_kernels import ends, gather
from ._cdr_kernels import alike, intern

__all__ = [
    "BAD_LAYOUT",
    "BAD_TIME",
    "FEW",
    "REASONS",
    "Array",
    "FrameIds",
    "bad_rows",
    "interned",
    "large_binary",
]

#: A numpy array.
Array = npt.NDArray[Any]

#: What a status of the kernels means.
REASONS = (
    "",
    "the message ends inside a field",
    "not plain CDR (its first two bytes are neither 00 00 nor 00 01)",
    "a string or list goes past the end of the message",
    "bytes are left over behind the last field",
    "a CAN frame with a length code above 15",
    "the data goes past the end of the message",
    "its log time is beyond the year 2262",
    "the points do not fit the stored bytes (height, width, point_step and row_step do not agree)",
    "the frame_id is not UTF-8, or one of more than 32767 in a block",
    "no point field is known, or one lies outside point_step or has an unknown datatype",
    "a string is not UTF-8",
)
BAD_TIME, BAD_NAME, BAD_LAYOUT = 7, 9, 10
_NAMES = 32767
#: A dictionary of up to so many names is kept for the next block.
FEW = 100


def bad_rows(status: Array, good: int) -> list[tuple[int, str]]:
    """``(message, reason)`` where `status` is not 0; `good` are the rows where it is."""
    return [(int(i), REASONS[int(status[i])]) for i in np.flatnonzero(status)] if good < len(status) else []


def interned(data: Array, at: Array, size: Array) -> tuple[Array, list[bytes]]:
    """A code for each byte string and the strings by code; -1 beyond 32767 different ones."""
    codes = np.zeros(len(at), np.int64)
    if alike(data, at, size):
        first = np.zeros(min(1, len(at)), np.int64)
        count = len(first)
    else:
        first = np.empty(min(_NAMES, len(at)), np.int64)
        table = np.full(1 << (2 * len(first) + 1).bit_length(), -1, np.int64)
        count = intern(data, at, size, codes, first, table)
    return codes, [data[at[i] : at[i] + size[i]].tobytes() for i in first[:count]]


class FrameIds:
    """The frame_ids of messages as a dictionary; the last one is kept, since most blocks have the same. Thread-safe."""

    def __init__(self) -> None:
        self._last: tuple[list[bytes], pa.Array] = ([], pa.array([], pa.utf8()))

    def __call__(self, data: Array, at: Array, size: Array) -> tuple[Array, pa.Array, Array | None]:
        """Codes, the dictionary, and which are no names or one too many (None: all are names)."""
        codes, values = interned(data, at, size)
        bad = codes < 0 if len(values) == _NAMES else None
        known, dictionary = self._last
        if values == known:
            return codes, dictionary, bad if bad is not None and bad.any() else None
        texts = []
        for code, value in enumerate(values):
            try:
                texts.append(value.decode("utf-8"))
            except UnicodeDecodeError:
                texts.append("")
                bad = codes == code if bad is None else bad | (codes == code)
        dictionary = pa.array(texts, pa.utf8())
        if bad is not None and bad.any():
            return codes, dictionary, bad
        if len(values) <= FEW:
            self._last = values, dictionary
        return codes, dictionary, None


def large_binary(data: Array, at: Array, size: Array, pool: BufferPool) -> tuple[pa.Array, int]:
    """Pieces of `data` as one column, gathered into leased memory, and how many bytes that moved."""
    offsets = np.empty(len(at) + 1, np.int64)
    total = ends(size, offsets)
    lease = pool.take(total)
    gather(data, at, size, offsets, lease.array(np.uint8, total))
    buffers = [None, pa.py_buffer(offsets), lease.buffer(0, total)]
    return pa.Array.from_buffers(pa.large_binary(), len(at), buffers), total
