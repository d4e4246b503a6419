"""Radar packets as they were on the wire, from where they are recorded: rosbag2 bags (NebulaPackets) and captures.

A record of a file is a message of the bag or a datagram of the capture; it holds one packet or several. Packets are
numbered through the file, and reading can go on behind any record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...pipeline.columns import as_numpy
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.source import Position
from ..storage.stored import is_url
from ..storage.unpack import head_of

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
_QUARANTINED = 1 << 20


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet and when the host received it (ns; 0 if unknown)."""

    data: bytes
    stamp_ns: int


@dataclass(slots=True)
class Record:
    """Packets that were recorded together.

    `first` is the number of the first one, `size` what it takes in the file, `after` where to go on behind it (None:
    reading cannot begin there).
    """

    first: int
    packets: list[Packet]
    recv_ns: int
    frame_id: str
    topic: str
    place: str
    size: int
    after: dict[str, Any] | None = None
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
    from .rosbag2 import Rosbag2

    return {name: info.messages for name, info in Rosbag2(path).topics().items() if info.type == NEBULA}


class BagPackets:
    """The messages of one topic of a rosbag2 recording (sqlite3 or MCAP, a file or a folder), in its order."""

    def __init__(self, path: str, topic: str | None, context: Context, position: Position) -> None:
        from .rosbag2 import Rosbag2

        found = nebula_topics(path)
        if topic is None and len(found) != 1:
            raise FormatError(f"{path}: {len(found)} topics of {NEBULA}: give topic= one of {sorted(found)}")
        if topic is not None and topic not in found:
            raise FormatError(f"{path}: no topic {topic!r} of {NEBULA}; there are {sorted(found)}")
        self._path, self._topic = path, topic if topic is not None else min(found)
        inner = position.get("bag")
        self._seq = count_in(position, "seq", path)
        spec = Rosbag2(path).topic(self._topic)
        if spec.schema.metadata[b"penstock.table"] != b"raw":
            raise FormatError(f"{path}: {self._topic} has a type of its own called {NEBULA}, with other fields")
        self._reader = spec.open(context, None, inner if isinstance(inner, Mapping) else None)

    def records(self) -> Iterator[Record]:
        for block in self._reader.blocks():
            decoded = self._reader.decode(block)
            waiting: Record | None = None
            for batch in decoded.batches:
                times = as_numpy(batch.column("ts_recv")).tolist()
                numbers = batch.column("seq").to_pylist()
                for number, recv_ns, data in zip(numbers, times, batch.column("data"), strict=True):
                    if waiting is not None:
                        yield waiting
                    waiting = self._record(number, recv_ns, data.as_py())
            bad = _renumbered(list(decoded.bad), self._seq)
            self._seq += len(bad)
            after = {"bag": dict(block.after), "seq": self._seq}
            if waiting is None:
                waiting = Record(self._seq - len(bad), [], 0, "", self._topic, self._path, 0)
            elif bad:
                yield waiting
                waiting = Record(self._seq - len(bad), [], 0, "", self._topic, self._path, 0)
            waiting.bad, waiting.dropped, waiting.after = waiting.bad + bad, dict(decoded.dropped), after
            yield waiting

    def _record(self, number: int, recv_ns: int, data: bytes) -> Record:
        place, first = f"{self._path}, message {number}", self._seq
        try:
            frame_id, packets = nebula_packets(data)
        except ValueError as wrong:
            bad = BadRecord(place, "nebula.decode", f"NebulaPackets: {wrong}", data[:_QUARANTINED], first)
            self._seq += 1
            return Record(first, [], recv_ns, "", self._topic, place, len(data), bad=[bad])
        self._seq += len(packets)
        return Record(first, packets, recv_ns, frame_id, self._topic, place, len(data))

    def close(self) -> None:
        self._reader.close()


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
    """The recording at `path`: a capture, by its first bytes, else a bag. Raises FormatError if it is neither."""
    if is_url(path) or not Path(path).is_dir():
        from ..network.pcap import is_pcap

        if is_pcap(head_of(path)[0]):
            if topic is not None:
                raise GraphError(f"{path} is no rosbag2 recording, so it has no topic {topic!r}")
            return CapturePackets(path, port, context, position)
    return BagPackets(path, topic, context, position)


def count_in(position: Position, key: str, path: str) -> int:
    """A count that a position holds, 0 where it does not. Raises FormatError for anything else."""
    value: Any = position.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FormatError(f"{path}: a position of radar packets has a count {key!r}, got {value!r}")
    return value
