"""From a place in the file to record bytes in memory, never allocating more than the file's own size or a given limit."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.errors import FormatError, MissingExtraError
from ...pipeline.memory import BufferPool, Lease
from ..storage.stored import PathLike, open_stored
from ..storage.unpack import compression_of
from ._mcap_format import CHUNK, RECORD_HEAD, ChunkHead

__all__ = ["Loaded", "RecordFile", "chunk_head", "unlz4", "unpack"]

#: Enough for a chunk's head with any sane compression name.
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes (a uint8 array) in leased memory. Keep the object, not `data` alone: the lease goes with it."""

    data: Any
    lease: Lease


class RecordFile:
    """A file or URL that many threads read at once, by offset, into leased memory.

    One that is compressed as a whole is read from an unpacked copy (see `_mcap_local`); places are in its content.
    """

    def __init__(self, path: PathLike) -> None:
        self._stored = open_stored(path)
        self.path = self._stored.path
        if compression_of(self._stored.read(0, 8)) != "none":
            from ._mcap_local import local_file

            self._stored.close()
            self._copy = local_file(path)
            self._stored = open_stored(self._copy.path)
        self.size = self._stored.size

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`, fewer where the file ends."""
        return self._stored.read(offset, length)

    def load(self, offset: int, length: int, pool: BufferPool) -> Loaded:
        """Exactly `length` bytes at `offset` in leased memory; raises FormatError if the file is shorter."""
        if offset < 0 or length < 0 or length > self.size - offset:
            raise FormatError(f"{length} bytes at byte {offset} go past the end of the file ({self.size} bytes)")
        lease = pool.take(length)
        data: Any = lease.array(np.uint8, length)
        done = self._stored.read_into(offset, memoryview(data))
        if done < length:
            raise FormatError(f"the file ends at byte {offset + done}; it was longer when it was opened")
        return Loaded(data, lease)

    def close(self) -> None:
        self._stored.close()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def chunk_head(record: Any) -> ChunkHead:
    """The head of the chunk record that fills `record`; raises FormatError if it is not one or does not add up."""
    if len(record) < RECORD_HEAD or record[0] != CHUNK:
        raise FormatError(f"no chunk begins here (found opcode {int(record[0]) if len(record) else None})")
    length = int.from_bytes(record[1:RECORD_HEAD].tobytes(), "little")
    if length != len(record) - RECORD_HEAD:
        raise FormatError(f"the chunk says it has {length} bytes, the index says {len(record) - RECORD_HEAD}")
    head = ChunkHead.parse(record[RECORD_HEAD : RECORD_HEAD + _HEAD_BYTES].tobytes())
    if head.stored > length - head.data_at:
        raise FormatError(f"its {head.stored} stored bytes go past its end")
    return head


def unpack(chunk: Loaded, limit: int, pool: BufferPool, size: int | None = None) -> Loaded:
    """The records inside a chunk record, decompressed and checked against its CRC; an uncompressed one is not copied.

    `size` is the uncompressed size that the summary gives, if known. Raises FormatError where sizes, the CRC or the
    compressed data are wrong, or the chunk would take more than `limit` bytes.
    """
    record = chunk.data
    head = chunk_head(record)
    if size is not None and head.size != size:
        raise FormatError(f"the chunk says it unpacks to {head.size} bytes, the index says {size}")
    if head.size > limit:
        raise FormatError(f"it unpacks to {head.size} bytes, more than max_chunk_bytes={limit}")
    at = RECORD_HEAD + head.data_at
    stored = record[at : at + head.stored]
    if head.compression == "":
        if head.stored != head.size:
            raise FormatError(f"it holds {head.stored} bytes but says {head.size}")
        records = Loaded(stored, chunk.lease)
    elif head.compression in ("zstd", "lz4"):
        lease = pool.take(head.size)
        records = Loaded(lease.array(np.uint8, head.size), lease)
        (_unzstd if head.compression == "zstd" else unlz4)(stored, records.data)
    else:
        raise FormatError(f"compression {head.compression!r} is not known; known are none, lz4 and zstd")
    if head.crc and zlib.crc32(records.data) != head.crc:
        raise FormatError("its CRC does not match its data")
    return records


def _unzstd(stored: Any, out: Any) -> None:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("reading zstd chunks", "zstandard", None) from None
    target, done = memoryview(out), 0
    extra = b"\0"
    try:
        with zstandard.ZstdDecompressor().stream_reader(memoryview(stored), read_across_frames=True) as reader:
            while done < len(out) and (count := reader.readinto(target[done:])):
                done += count
            extra = reader.read(1)
    except zstandard.ZstdError as error:
        raise FormatError(f"zstd: {error}") from None
    _check_length(done, extra, len(out))


def unlz4(stored: Any, out: Any) -> None:
    """Unpack LZ4 frames into `out`, which they must fill. Raises FormatError."""
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ImportError:
        raise MissingExtraError("reading lz4 chunks", "lz4", None) from None
    rest: bytes | memoryview = memoryview(stored)
    done, extra = 0, b""
    try:
        while len(rest) and done < len(out):
            frame = LZ4FrameDecompressor()
            piece = frame.decompress(rest, max_length=len(out) - done)
            out[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
            if not frame.eof:
                extra = frame.decompress(b"", max_length=1) if not frame.needs_input else b""
                break
            rest = frame.unused_data or b""
    except (RuntimeError, EOFError) as error:
        raise FormatError(f"lz4: {error}") from None
    _check_length(done, extra, len(out))


def _check_length(done: int, extra: bytes, size: int) -> None:
    if done != size:
        raise FormatError(f"it unpacks to only {done} of {size} bytes")
    if extra:
        raise FormatError(f"it unpacks to more than the {size} bytes it says")
