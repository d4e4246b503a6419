"""The catalog of a ROS 1 bag without a usable index: every record is visited and every chunk unpacked and counted.

Where a record cannot be right, the bytes up to the next chunk that can be told by its header are one broken piece.
"""

from __future__ import annotations

import re

import numpy as np

from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ._mcap_catalog import BROKEN, CHUNKED, LOOSE, Catalog, Piece
from ._mcap_chunk import RecordFile
from ._rosbag1_chunk import Records, records_of, unpack_chunk
from ._rosbag1_connections import Connections, catalog_from
from ._rosbag1_format import CHUNK, CHUNK_INFO, CONNECTION, HEAD_BYTES, INDEX_DATA, MESSAGE, Record, parse_record

__all__ = ["Walk"]

_DEFINITION_LIMIT = 16 << 20
_LOOSE_BYTES = 4 << 20
_WINDOW = 1 << 20
_CHUNK_SIGN = re.compile(rb"op=\x05|compression=")


class Walk:
    """Every record from the front; chunks are unpacked and counted."""

    def __init__(self, file: RecordFile, limit: int, index_at: int) -> None:
        self.file, self.limit, self.index_at = file, limit, index_at
        self.types = Connections()
        self.pieces: list[tuple[int, Piece]] = []
        self.problem = ""
        self._latest = 0
        self._times: list[int] = []
        self._pool = BufferPool(keep=64 << 20)

    def run(self, pos: int) -> Catalog:
        """The catalog of what lies from `pos` on."""
        while 0 <= pos < self.file.size:
            pos = self._record(pos)
        if pos == self.file.size and not self.problem:
            self._broken(pos, 0, "the file ends without an index: the recording was cut or never closed")
        times = (min(self._times), max(self._times)) if self._times else None
        return catalog_from(self.file.path, self.types, self.pieces, times, indexed=False, problem=self.problem)

    def _record(self, pos: int) -> int:
        """Visit the record at `pos`; return where to go on, or -1 where the rest is only an index."""
        size = self.file.size
        try:
            head = self.file.read(pos, HEAD_BYTES)
            record = parse_record(head, 0, size - pos)
        except FormatError as error:
            if 0 < self.index_at <= pos:
                return self._index_damaged(pos, str(error))
            return self._resync(pos, f"{error} at byte {pos}: the recording was cut or damaged there")
        end = pos + record.end
        if record.op == CHUNK:
            return self._chunk(pos, end)
        if record.op == MESSAGE:
            return self._loose(pos, end)
        if record.op == CONNECTION:
            self._define(record, pos)
        elif record.op not in (INDEX_DATA, CHUNK_INFO):
            self._broken(pos, end - pos, f"a record of unknown kind {record.op} at byte {pos}")
        elif record.op == CHUNK_INFO and not self.problem:
            self.problem = "the index does not fit the file"
        return end

    def _index_damaged(self, pos: int, error: str) -> int:
        """No message is lost with a damaged index: the chunks in front of it were walked."""
        self.problem = self.problem or f"the index at byte {self.index_at} is damaged at byte {pos} ({error})"
        return -1

    def _define(self, record: Record, pos: int) -> None:
        if record.length <= _DEFINITION_LIMIT:
            try:
                self.types.add(record, self.file.read(pos + record.data_at, record.length))
            except FormatError:
                return

    def _chunk(self, pos: int, end: int) -> int:
        try:
            if end - pos > self.limit + (1 << 20):
                raise FormatError(f"it has {end - pos} bytes, more than max_chunk_bytes={self.limit}")
            loaded = self.file.load(pos, end - pos, self._pool)
            unpacked, _ = unpack_chunk(loaded, self.limit, self._pool)
        except FormatError as error:
            self._broken(pos, end - pos, f"chunk at byte {pos}: {error}")
            return end
        records = records_of(unpacked.data)
        for i in np.flatnonzero(records.ops == CONNECTION).tolist():
            at, stop = int(records.places[i]), int(records.starts[i] + records.lengths[i])
            self._define_from(unpacked.data[at:stop].tobytes())
        wrong = ""
        if len(records.gaps):
            wrong = f"chunk at byte {pos}: its records break off at byte {records.gaps[0, 0]} of {len(unpacked.data)}"
        self._add(CHUNKED, pos, end, records, wrong)
        return end

    def _define_from(self, body: bytes) -> None:
        try:
            record = parse_record(body, 0, len(body))
            self.types.add(record, body[record.data_at : record.end])
        except FormatError:
            return

    def _loose(self, pos: int, end: int) -> int:
        """Messages outside chunks, which the format allows: a run of them is a piece."""
        stop = min(self.file.size, max(end, pos + _LOOSE_BYTES))
        if stop - pos > self.limit:
            self._broken(pos, end - pos, f"a message of {end - pos} bytes is more than max_chunk_bytes={self.limit}")
            return end
        loaded = self.file.load(pos, stop - pos, self._pool)
        records = records_of(loaded.data)
        other = np.flatnonzero(records.ops != MESSAGE)
        count = int(other[0]) if len(other) else len(records.ops)
        if len(records.gaps):
            count = min(count, int(np.searchsorted(records.places, records.gaps[0, 0])))
        if not count:
            return self._resync(pos, f"a message record without connection or time at byte {pos}")
        stop = int(records.starts[count - 1] + records.lengths[count - 1])
        columns = [getattr(records, name)[:count] for name in Records.__slots__[:-1]]
        kept = Records(*[*columns, records.gaps[:0]])
        self._add(LOOSE, pos, pos + stop, kept, "")
        return pos + stop

    def _add(self, kind: str, pos: int, end: int, records: Records, wrong: str) -> None:
        rows = records.ops == MESSAGE
        conns, counts = np.unique(records.conns[rows], return_counts=True)
        found = dict(zip(conns.tolist(), counts.tolist(), strict=True))
        if len(conns):
            times = records.times[rows]
            self._times += [int(times.min()), int(times.max())]
            self._latest = int(times.min())
        self.problem = self.problem or wrong
        self.pieces.append((self._latest, Piece(kind, pos, end - pos, found, error=wrong)))

    def _broken(self, pos: int, length: int, error: str) -> None:
        self.problem = self.problem or error
        self.pieces.append((self._latest, Piece(BROKEN, pos, length, error=error)))

    def _resync(self, pos: int, error: str) -> int:
        """The bytes from `pos` to the next chunk that can be told by its header are one broken piece."""
        at = pos + 1
        while at < self.file.size:
            window = self.file.read(at, _WINDOW + 64)
            for sign in _CHUNK_SIGN.finditer(window, 0, min(len(window), _WINDOW + 12)):
                start = sign.start() - 8
                if start < 0:
                    continue
                try:
                    record = parse_record(window, start, self.file.size - at)
                except FormatError:
                    continue
                if record.op == CHUNK and {"compression", "size"} <= set(record.fields):
                    self._broken(pos, at + start - pos, error)
                    return at + start
            at += max(1, min(len(window), _WINDOW) - 8)
        self._broken(pos, self.file.size - pos, error)
        return -1
