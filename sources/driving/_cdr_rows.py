"""What the CDR decoders share: reasons for bad messages, names as dictionaries, payloads gathered into one column."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnBlock
from ...pipeline.memory import BufferPool
from ._cdr_image_kernels import gather
from ._cdr_kernels import intern

__all__ = [
    "BAD_LAYOUT",
    "BAD_TIME",
    "REASONS",
    "Array",
    "bad_rows",
    "bools",
    "frame_ids",
    "interned",
    "large_binary",
    "take_rows",
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


def bad_rows(status: Array) -> list[tuple[int, str]]:
    """``(message, reason)`` where `status` is not 0."""
    return [(int(i), REASONS[int(status[i])]) for i in np.flatnonzero(status)]


def bools(values: Array) -> pa.Array:
    """Bytes as a boolean column."""
    bits = np.packbits(values.astype(bool), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def interned(data: Array, at: Array, size: Array) -> tuple[Array, list[bytes]]:
    """A code for each byte string and the strings by code; -1 beyond 32767 different ones."""
    codes, first = np.zeros(len(at), np.int64), np.empty(min(_NAMES, len(at)), np.int64)
    table = np.full(1 << (2 * len(first) + 1).bit_length(), -1, np.int64)
    count = intern(data, at, size, codes, first, table)
    return codes, [data[at[i] : at[i] + size[i]].tobytes() for i in first[:count]]


def frame_ids(data: Array, at: Array, size: Array, status: Array, rows: Array) -> tuple[Array, pa.Array]:
    """Codes and dictionary of the frame_ids of messages `rows`; `status` is set where one cannot be a name."""
    codes, values = interned(data, at, size)
    texts = []
    for code, value in enumerate(values):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError:
            texts.append("")
            status[rows[codes == code]] = BAD_NAME
    status[rows[codes < 0]] = BAD_NAME
    return codes, pa.array(texts, pa.utf8())


def take_rows(block: ColumnBlock, rows: Array, first: int, ts_event: Array, ts_recv: Array) -> None:
    """Fill the event columns of `block` with the messages `rows`."""
    count = len(rows)
    block["ts_event"][:count] = ts_event[rows]
    block["ts_recv"][:count] = ts_recv[rows]
    block["seq"][:count] = (rows + first).astype(np.uint64)


def large_binary(data: Array, at: Array, size: Array, pool: BufferPool) -> tuple[pa.Array, int]:
    """Pieces of `data` as one column, gathered into leased memory, and how many bytes that moved."""
    offsets = np.zeros(len(at) + 1, np.int64)
    np.cumsum(size, out=offsets[1:])
    total = int(offsets[-1])
    lease = pool.take(total)
    gather(data, at, size, offsets, lease.array(np.uint8, total))
    buffers = [None, pa.py_buffer(offsets), lease.buffer(0, total)]
    return pa.Array.from_buffers(pa.large_binary(), len(at), buffers), total
