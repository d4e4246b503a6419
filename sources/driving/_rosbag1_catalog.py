"""What a ROS 1 bag holds and where, in the terms of `_mcap_catalog`: from its index, or by a walk where that is missing.

The index is used only if its chunks tile the file from the bag header on. Pieces come in order of their first message,
since recorders that were merged or filtered write chunks out of order; a walked file is put in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ..storage.stored import stamp_of
from ._mcap_catalog import BROKEN, CHUNKED, LOOSE, Catalog, Piece
from ._mcap_chunk import RecordFile
from ._mcap_contents import Contents, units_of
from ._mcap_format import Channel, MessageType
from ._rosbag1_chunk import Records, records_of, unpack_chunk
from ._rosbag1_format import (
    BAG_HEADER,
    CHUNK,
    CHUNK_INFO,
    CONNECTION,
    INDEX_DATA,
    MAGIC,
    MESSAGE,
    Record,
    number,
    parse_fields,
    parse_record,
    stamp,
    text,
)

__all__ = ["bag_catalog", "bag_contents"]

_INDEX_LIMIT = 1 << 30
#: A record's header is looked for in this many bytes: connections hold their message definition in the data behind it.
_HEAD_BYTES = 1 << 16
_DEFINITION_LIMIT = 16 << 20
_LOOSE_BYTES = 4 << 20
_WINDOW = 1 << 20
_CHUNK_SIGN = re.compile(rb"op=\x05|compression=")


def bag_catalog(path: str, limit: int) -> Catalog:
    """The catalog of the bag as it is now. Raises FormatError if it is not a bag of format 2.0, OSError. Cached."""
    return _catalog(path, limit, stamp_of(path))


def bag_contents(path: str, topic: str, limit: int) -> Contents:
    """The units of `topic`. Raises FormatError if there is no such topic or it mixes types. Cached."""
    return _contents(path, topic, limit, stamp_of(path))


@lru_cache(maxsize=16)
def _catalog(path: str, limit: int, stamp: tuple[object, ...]) -> Catalog:
    with RecordFile(path) as file:
        start, index_at, counts = _open(file)
        return _indexed(file, start, index_at, counts) or _Walk(file, limit, index_at).run(start)


@lru_cache(maxsize=64)
def _contents(path: str, topic: str, limit: int, stamp: tuple[object, ...]) -> Contents:
    return units_of(_catalog(path, limit, stamp), topic)


def _open(file: RecordFile) -> tuple[int, int, tuple[int, int]]:
    """Where the records begin, where the index is said to be, and how many connections and chunks it is said to have."""
    head = file.read(0, _HEAD_BYTES)
    if not head.startswith(MAGIC):
        if head.startswith(b"#ROSBAG V"):
            version = head[8 : head.find(b"\n") if b"\n" in head[:32] else 16].decode("latin-1").strip()
            raise FormatError(f"{file.path}: a ROS bag of format {version}; only V2.0 is read: convert it (rosbag fix)")
        found = f"begins with {head[:13]!r}, not with {MAGIC!r}" if head else "is empty (0 bytes)"
        raise FormatError(f"{file.path}: not a ROS 1 bag: it {found}")
    try:
        record = parse_record(head, len(MAGIC), file.size)
        if record.op != BAG_HEADER:
            return len(MAGIC), 0, (0, 0)
        fields = record.fields
        counts = number(fields, "conn_count", 4), number(fields, "chunk_count", 4)
        index_at = number(fields, "index_pos", 8)
    except FormatError:
        return len(MAGIC), 0, (0, 0)
    if fields.get("encryptor"):
        raise FormatError(f"{file.path}: the bag is encrypted ({text(fields, 'encryptor')!r}); decrypt it first")
    return record.end, index_at, counts


def _indexed(file: RecordFile, start: int, index_at: int, counts: tuple[int, int]) -> Catalog | None:
    """The catalog as the index gives it, or None if there is none or it does not fit the file."""
    if not start <= index_at <= file.size or file.size - index_at > _INDEX_LIMIT:
        return None
    body = file.read(index_at, file.size - index_at)
    types, channels, pos = _Types(), 0, 0
    infos: list[tuple[int, int, int, dict[int, int]]] = []
    try:
        while pos < len(body):
            record = parse_record(body, pos, len(body))
            data = memoryview(body)[record.data_at : record.end]
            if record.op == CONNECTION:
                types.add(record, bytes(data))
                channels += 1
            elif record.op == CHUNK_INFO:
                infos.append(_chunk_info(record, data))
            else:
                return None
            pos = record.end
    except FormatError:
        return None
    if (channels, len(infos)) != counts:
        return None
    infos.sort()
    places = [info[0] for info in infos]
    if (places and (places[0] != start or places[-1] >= index_at)) or len(set(places)) != len(places):
        return None
    if not places and start != index_at:
        return None
    pieces = []
    for (at, first, _, found), end in zip(infos, [*places[1:], index_at], strict=False):
        if not set(found) <= set(types.channels):
            return None
        pieces.append((first, Piece(CHUNKED, at, end - at, found)))
    used = [info for info in infos if info[3]]
    return _catalog_of(
        file.path,
        types,
        pieces,
        (min(info[1] for info in used), max(info[2] for info in used)) if used else None,
        indexed=True,
    )


def _chunk_info(record: Record, data: memoryview) -> tuple[int, int, int, dict[int, int]]:
    fields = record.fields
    if number(fields, "ver", 4) != 1 or len(data) != 8 * number(fields, "count", 4):
        raise FormatError("a chunk info record of another version or a wrong length")
    pairs = np.frombuffer(data, "<u4").reshape(-1, 2).tolist()
    found = {conn: messages for conn, messages in pairs if messages}
    return number(fields, "chunk_pos", 8), stamp(fields, "start_time"), stamp(fields, "end_time"), found


class _Types:
    """Connections by number. Those of one type and checksum share the definition that came first."""

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.types: dict[int, MessageType] = {}
        self._texts: dict[tuple[str, str], bytes] = {}

    def add(self, record: Record, data: bytes) -> None:
        conn, topic = number(record.fields, "conn", 4), text(record.fields, "topic")
        if conn in self.channels:
            return
        fields = parse_fields(data)
        name, checksum = text(fields, "type"), text(fields, "md5sum")
        definition = self._texts.setdefault((name, checksum), fields.get("message_definition", b""))
        self.channels[conn] = Channel(conn, conn, topic, "ros1")
        self.types[conn] = MessageType(conn, name, "ros1msg", definition)


def _catalog_of(
    path: str,
    types: _Types,
    pieces: Iterable[tuple[int, Piece]],
    times: tuple[int, int] | None,
    *,
    indexed: bool,
    problem: str = "",
) -> Catalog:
    ordered = [piece for _, piece in sorted(pieces, key=lambda pair: (pair[0], pair[1].offset))]
    counts: dict[int, int] = {}
    for piece in ordered:
        for conn, messages in piece.counts.items():
            counts[conn] = counts.get(conn, 0) + messages
    return Catalog(
        path=path,
        profile="ros1",
        library="",
        types=types.types,
        channels=types.channels,
        pieces=tuple(ordered),
        counts=counts,
        start_ns=times[0] if times else None,
        end_ns=times[1] if times else None,
        indexed=indexed,
        complete=not problem,
        problem=problem,
    )


class _Walk:
    """Every record from the front; chunks are unpacked and counted."""

    def __init__(self, file: RecordFile, limit: int, index_at: int) -> None:
        self.file, self.limit, self.index_at = file, limit, index_at
        self.types = _Types()
        self.pieces: list[tuple[int, Piece]] = []
        self.problem = ""
        self._latest = 0
        self._times: list[int] = []
        self._pool = BufferPool(keep=64 << 20)

    def run(self, pos: int) -> Catalog:
        while 0 <= pos < self.file.size:
            pos = self._record(pos)
        if pos == self.file.size and not self.problem:
            self._broken(pos, 0, "the file ends without an index: the recording was cut or never closed")
        times = (min(self._times), max(self._times)) if self._times else None
        return _catalog_of(self.file.path, self.types, self.pieces, times, indexed=False, problem=self.problem)

    def _record(self, pos: int) -> int:
        """Visit the record at `pos`; return where to go on, or -1 where the rest is only an index."""
        size = self.file.size
        try:
            head = self.file.read(pos, _HEAD_BYTES)
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
        kept = Records(*[getattr(records, name)[:count] for name in Records.__slots__[:-1]], gaps=records.gaps[:0])
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
