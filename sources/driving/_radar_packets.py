"""Radar packets as they were on the wire, from where they are recorded: rosbag2 sqlite3 files (NebulaPackets) and captures.

A record of a file is a message of the bag or a datagram of the capture; it holds one packet or several. Packets are
numbered through the file, and reading can go on behind any record.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.source import Position
from ..storage.stored import is_url, open_stored

__all__ = [
    "BagPackets",
    "CapturePackets",
    "Packet",
    "Record",
    "Records",
    "nebula_packets",
    "nebula_topics",
    "open_records",
]

NEBULA = "nebula_msgs/msg/NebulaPackets"
SQLITE = b"SQLite format 3\0"
#: A message larger than this is not loaded; the largest list of a radar has 37 kB.
MESSAGE_LIMIT = 16 << 20
_QUARANTINED = 1 << 20


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet and when the host received it (ns; 0 if unknown)."""

    data: bytes
    stamp_ns: int


@dataclass(slots=True)
class Record:
    """Packets that were recorded together. `first` is the number of the first one, `size` what it takes in the file."""

    first: int
    packets: list[Packet]
    recv_ns: int
    frame_id: str
    topic: str
    place: str
    size: int
    after: dict[str, Any]
    bad: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Numbers that it takes: packets, and bad records that stand for some."""
        return len(self.packets) + len(self.bad)


class Records(Protocol):
    """An open recording."""

    def records(self) -> Iterator[Record]:
        """From the position on."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def nebula_packets(data: bytes) -> tuple[str, list[Packet]]:
    """Frame id and packets of a nebula_msgs/NebulaPackets message in CDR. Raises ValueError where it breaks off.

    >>> nebula_packets(bytes([0, 1, 0, 0]) + bytes(8) + bytes([1, 0, 0, 0]) + bytes(8))
    ('', [])
    """
    if len(data) < 4 or data[0] or data[1] > 1:
        raise ValueError(f"it begins with {data[:4].hex(' ') or 'nothing'}, which is no CDR encapsulation")
    order = "<" if data[1] else ">"
    body = memoryview(data)[4:]
    pair, one = struct.Struct(order + "iI"), struct.Struct(order + "I")

    def number(at: int) -> int:
        if at + 4 > len(body):
            raise ValueError(f"it breaks off at byte {at + 4} of {len(data)}")
        found: int = one.unpack_from(body, at)[0]
        return found

    size = number(8)
    if size > len(body) - 12:
        raise ValueError(f"a frame id of {size} bytes goes past its {len(data)} bytes")
    frame_id = bytes(body[12 : 12 + size]).rstrip(b"\0").decode("utf-8", "replace")
    at = _aligned(12 + size)
    count, at = number(at), at + 4
    if count > (len(body) - at) // 12:
        raise ValueError(f"{count} packets cannot be in the {len(body) - at} bytes that are left")
    packets = []
    for _ in range(count):
        at = _aligned(at)
        length = number(at + 8)
        if length > len(body) - at - 12:
            raise ValueError(f"a packet of {length} bytes at byte {at + 16} goes past its {len(data)} bytes")
        seconds, ns = pair.unpack_from(body, at)
        packets.append(Packet(bytes(body[at + 12 : at + 12 + length]), seconds * 10**9 + ns))
        at += 12 + length
    return frame_id, packets


def _aligned(at: int) -> int:
    return -(-at // 4) * 4


def nebula_topics(path: str) -> dict[str, int]:
    """Topics of NebulaPackets in a bag and how many messages they have. Raises FormatError."""
    with _Bag(path) as bag:
        kinds = bag.rows("SELECT id, name FROM topics WHERE type = ? ORDER BY name", (NEBULA,))
        counts = [bag.rows("SELECT count(*) FROM messages WHERE topic_id = ?", (row[0],))[0][0] for row in kinds]
        return {str(row[1]): int(n) for row, n in zip(kinds, counts, strict=True)}


class _Bag:
    """A rosbag2 sqlite3 file, opened to read and nothing else."""

    def __init__(self, path: str) -> None:
        if is_url(path):
            raise FormatError(
                f"{path}: an sqlite3 file is read at random by a library that opens local files: copy it here"
            )
        with open_stored(path) as stored:  # sqlite's own error for a missing file does not name it
            head = stored.read(0, len(SQLITE))
        if head != SQLITE:
            raise FormatError(f"{path}: not an sqlite3 file: it begins with {head.hex(' ') or 'nothing'}")
        self.path = path
        self._connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, check_same_thread=False)

    def rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        """All rows of a query. Raises FormatError for a damaged file and one that is no rosbag2."""
        try:
            return self._connection.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise FormatError(f"{self.path}: not a readable rosbag2 file: {error}") from None

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> _Bag:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class BagPackets:
    """The messages of one topic, in the order in which they were written."""

    _STEP = 64

    def __init__(self, path: str, topic: str | None, position: Position) -> None:
        self._bag = _Bag(path)
        try:
            found = self._bag.rows("SELECT id, name FROM topics WHERE type = ? ORDER BY name", (NEBULA,))
            names = [row[1] for row in found]
            if topic is None and len(found) != 1:
                raise FormatError(f"{path}: {len(found)} topics of {NEBULA}: give topic= one of {names}")
            if topic is not None and topic not in names:
                raise FormatError(f"{path}: no topic {topic!r} of {NEBULA}; there are {names}")
        except BaseException:
            self._bag.close()
            raise
        self._topic_id, self._topic = found[names.index(topic) if topic is not None else 0]
        self._last, self._seq = count_in(position, "row", path), count_in(position, "seq", path)

    def records(self) -> Iterator[Record]:
        query = (
            "SELECT id, timestamp, length(data), CASE WHEN length(data) <= ? THEN data END FROM messages "
            "WHERE topic_id = ? AND id > ? ORDER BY id LIMIT ?"
        )
        while True:
            try:
                rows = self._bag.rows(query, (MESSAGE_LIMIT, self._topic_id, self._last, self._STEP))
            except FormatError as error:
                place = f"{self._bag.path}, behind row {self._last}"
                after = {"row": (1 << 62), "seq": self._seq + 1}
                bad = BadRecord(place, "rosbag2.read", str(error), b"", self._seq)
                yield Record(self._seq, [], 0, "", self._topic, place, 0, after, [bad])
                return
            for row in rows:
                yield self._record(*row)
            if len(rows) < self._STEP:
                return

    def _record(self, row: int, recv_ns: Any, size: Any, data: Any) -> Record:
        place = f"{self._bag.path}, message {row}"
        first, self._last = self._seq, row
        error, frame_id, packets = "", "", list[Packet]()
        if not isinstance(data, bytes):
            error = f"its {size} bytes are more than {MESSAGE_LIMIT}" if data is None else "its data are no bytes"
        else:
            try:
                frame_id, packets = nebula_packets(data)
            except ValueError as wrong:
                error = f"NebulaPackets: {wrong}"
        if not isinstance(recv_ns, int):
            error, recv_ns, packets = error or f"its time is {recv_ns!r}", 0, []
        kept = data[:_QUARANTINED] if isinstance(data, bytes) else b""
        bad = [BadRecord(place, "rosbag2.decode", error, kept, first)] if error else []
        self._seq = first + len(packets) + len(bad)
        after = {"row": row, "seq": self._seq}
        return Record(first, packets, recv_ns, frame_id, self._topic, place, len(kept), after, bad)

    def close(self) -> None:
        self._bag.close()


class CapturePackets:
    """The UDP payloads of a packet capture that come from or go to a port."""

    def __init__(self, path: str, port: int, context: Context, position: Position) -> None:
        from ..network.pcap import Pcap

        inner = position.get("capture")
        self._path, self._seq = path, count_in(position, "seq", path)
        self._reader = Pcap(path, port=port).open(context, None, inner if isinstance(inner, Mapping) else None)

    def records(self) -> Iterator[Record]:
        for block in self._reader.blocks():
            decoded = self._reader.decode(block)
            first, packets, times = self._seq, list[Packet](), list[int]()
            for batch in decoded.batches:
                stamps = batch.column("ts_event").cast("int64").to_pylist()
                payloads = batch.column("payload").to_pylist()
                packets += [Packet(payload, stamp) for payload, stamp in zip(payloads, stamps, strict=True)]
                times += stamps
            bad = list(decoded.bad)
            self._seq += len(packets) + len(bad)
            after = {"capture": dict(block.after), "seq": self._seq}
            place = f"{self._path}, packets from {block.first_seq}"
            yield Record(
                first,
                packets,
                0,
                "",
                "",
                place,
                block.nbytes,
                after,
                _renumbered(bad, first + len(packets)),
                dict(decoded.dropped),
            )

    def close(self) -> None:
        self._reader.close()


def _renumbered(bad: list[BadRecord], first: int) -> list[BadRecord]:
    return [BadRecord(b.place, b.operation, b.error, b.data, first + i) for i, b in enumerate(bad)]


def open_records(path: str, *, topic: str | None, port: int, context: Context, position: Position) -> Records:
    """The recording at `path`, by its first bytes. Raises FormatError for anything but a bag and a capture."""
    with open_stored(path) as stored:
        head = stored.read(0, len(SQLITE))
    if head == SQLITE:
        return BagPackets(path, topic, position)
    if topic is not None:
        raise GraphError(f"{path} is no rosbag2 file, so it has no topic {topic!r}")
    return CapturePackets(path, port, context, position)


def count_in(position: Position, key: str, path: str) -> int:
    """A count that a position holds, 0 where it does not. Raises FormatError for anything else."""
    value: Any = position.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FormatError(f"{path}: a position of radar packets has a count {key!r}, got {value!r}")
    return value
