"""Chunks of a ROS 1 bag: unpacked within bounds, and the messages in them in time order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ._mcap_chunk import Loaded, unlz4
from ._mcap_framing import Found
from ._rosbag1_format import CHUNK, INDEX_DATA, MESSAGE, number, parse_record, text
from ._rosbag1_kernels import walk

__all__ = ["BagFraming", "Records", "records_of", "unpack_chunk"]

#: A chunk's header has three short fields.
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Records:
    """The records in a piece of memory, by column; `gaps` are begin and end of bytes that belong to none."""

    ops: Any
    conns: Any
    times: Any
    places: Any
    starts: Any
    lengths: Any
    gaps: Any


def records_of(data: Any) -> Records:
    """All records in `data` (uint8)."""
    count, breaks = walk(data, len(data), *_columns(0, 0))
    columns = _columns(count, breaks)
    walk(data, len(data), *columns)
    return Records(*columns)


def _columns(rows: int, gaps: int) -> list[Any]:
    return [*np.empty((6, rows), np.int64), np.empty((gaps, 2), np.int64)]


def unpack_chunk(chunk: Loaded, limit: int, pool: BufferPool) -> tuple[Loaded, int]:
    """The records inside the chunk record that `chunk` begins with, unpacked, and where the chunk record ends.

    Raises FormatError where its header, its sizes or its data are wrong, or it would take more than `limit` bytes.
    """
    data = chunk.data
    record = parse_record(data[:_HEAD_BYTES].tobytes(), 0, len(data))
    if record.op != CHUNK:
        raise FormatError(f"no chunk begins here (found a record of kind {record.op})")
    size, compression = number(record.fields, "size", 4), text(record.fields, "compression")
    if size > limit:
        raise FormatError(f"it unpacks to {size} bytes, more than max_chunk_bytes={limit}")
    stored = data[record.data_at : record.end]
    if compression == "none":
        if len(stored) != size:
            raise FormatError(f"it holds {len(stored)} bytes but says {size}")
        return Loaded(stored, chunk.lease), record.end
    if compression not in ("bz2", "lz4"):
        raise FormatError(f"compression {compression!r} is not known; known are none, bz2 and lz4")
    lease = pool.take(size)
    out = Loaded(lease.array(np.uint8, size), lease)
    (_unbz2 if compression == "bz2" else unlz4)(stored, out.data)
    return out, record.end


def _unbz2(stored: Any, out: Any) -> None:
    from bz2 import BZ2Decompressor

    stream, done, extra = BZ2Decompressor(), 0, False
    given: bytes = stored.tobytes()
    try:
        while done < len(out) and not stream.eof:
            piece = stream.decompress(given, max_length=len(out) - done)
            given = b""
            if not piece and stream.needs_input:
                break
            out[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
        if done == len(out) and not stream.eof:
            extra = bool(stream.decompress(b"", max_length=1))
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"bz2: {error}") from None
    if done != len(out):
        raise FormatError(f"it unpacks to only {done} of {len(out)} bytes")
    if extra:
        raise FormatError(f"it unpacks to more than the {len(out)} bytes it says")


class BagFraming:
    """How a ROS 1 bag's pieces are taken apart (see `_mcap_framing`)."""

    operation = "rosbag1"

    def unpack(self, chunk: Loaded, limit: int, pool: BufferPool, size: int | None) -> tuple[Loaded, str]:
        """The chunk's records; bytes between it and the next one that are no index records are told of."""
        records, end = unpack_chunk(chunk, limit, pool)
        behind = records_of(chunk.data[end:])
        if not len(behind.gaps) and (behind.ops == INDEX_DATA).all():
            return records, ""
        return records, f"{len(chunk.data) - end} bytes behind the chunk are not only index records"

    def find(self, data: Any, channels: Sequence[int]) -> Found:
        """The messages of `channels`, sorted by time, those of one time as they are stored."""
        records = records_of(data)
        rows = np.flatnonzero((records.ops == MESSAGE) & np.isin(records.conns, np.array(channels, np.int64)))
        rows = rows[np.argsort(records.times[rows], kind="stable")]
        return Found(records.starts[rows], records.lengths[rows], records.times[rows], records.gaps)
