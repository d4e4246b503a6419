"""Bags and captures of radar packets, written in plain Python, and what reading one gives."""

from __future__ import annotations

import binascii
import sqlite3
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.source import SourceSpec
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

TOPIC = "/radar/packets"
#: CAN ids of header and element, elements, number of the CRC.
NEAR, HRR, OBJECTS = (900, 901, 50, 0), (1100, 1101, 20, 1), (1200, 1201, 20, 2)
OBJECT_BITS = (8, 16, 16, 14, 14, 10, 10, 14, 14, 14, 14, 14, 14, 12, 12, 12, 12, 4, 16, 5, 2, 1)
_DEFINITION = "builtin_interfaces/Time stamp\nuint8[] data\n"
#: The type as an MCAP file describes it.
DEFINITION = "std_msgs/Header header\nnebula_msgs/NebulaPacket[] packets\n"
DEFINITION += f"{'=' * 80}\nMSG: nebula_msgs/NebulaPacket\n{_DEFINITION}"
_STORE = get_typestore(Stores.ROS2_HUMBLE)
_STORE.register(get_types_from_msg(_DEFINITION, "nebula_msgs/msg/NebulaPacket"))
_STORE.register(
    get_types_from_msg("std_msgs/Header header\nnebula_msgs/NebulaPacket[] packets\n", "nebula_msgs/msg/NebulaPackets")
)


def deserialized(data: bytes) -> tuple[str, list[tuple[int, bytes]]]:
    """Frame id and (stamp, packet) of a NebulaPackets message, by rosbags."""
    message = _STORE.deserialize_cdr(data, "nebula_msgs/msg/NebulaPackets")
    packets = [(p.stamp.sec * 10**9 + p.stamp.nanosec, p.data.tobytes()) for p in message.packets]
    return message.header.frame_id, packets


def message(packets: list[bytes], *, frame_id: str = "radar", first_ns: int = 5_000_000_000) -> bytes:
    """A NebulaPackets message of packets a millisecond apart."""
    kind = b"\0\1\0\0"
    out = (
        struct.pack("<iI", *divmod(first_ns, 10**9)) + struct.pack("<I", len(frame_id) + 1) + frame_id.encode() + b"\0"
    )
    out += bytes(-len(out) % 4) + struct.pack("<I", len(packets))
    for i, packet in enumerate(packets):
        out += bytes(-len(out) % 4)
        out += struct.pack("<iII", *divmod(first_ns + i * 1_000_000, 10**9), len(packet)) + packet
    return kind + out


def detection_packet(points: list[tuple[float, ...]], *, seconds: int = 100, ns: int = 7, sync: int = 1) -> bytes:
    """An ARS548's detection list of (azimuth, elevation, range, range rate, rcs, invalid flags, object)."""
    out = struct.pack(">HHI", 0, 336, 35328) + bytes(28) + struct.pack(">IIB", ns, seconds, sync) + bytes(56)
    for azimuth, elevation, distance, rate, rcs, invalid, track in points:
        out += struct.pack(">ffBffffff", azimuth, 0, int(invalid), elevation, 0, distance, 0, rate, 0)
        out += struct.pack(">bHBBBHBH", int(rcs), 1, 90, 2, 5, int(track), 0, 0)
    out += bytes(44 * (800 - len(points))) + struct.pack(">ffI", -20, 20, len(points)) + bytes(23)
    assert len(out) == 35336
    return out


def frames(kind: tuple[int, int, int, int], header: bytes, fragments: list[bytes], *, counter: int = 7) -> list[bytes]:
    """The frames of a list: header, elements, CRC, each with its CAN id in front."""
    header_id, element_id, elements, crc_id = kind
    size, each = (31, 2) if kind is OBJECTS else (6, 10)
    body = b"".join(fragments).ljust(size * each * elements, b"\0")
    parts = [
        body[i * size * each : (i + 1) * size * each].ljust(62, b"\0") + bytes([i, counter]) for i in range(elements)
    ]
    crc = binascii.crc_hqx(header + b"".join(parts), 0xFFFF)
    out = [struct.pack(">I", header_id) + header]
    out += [struct.pack(">I", element_id) + part for part in parts]
    return [*out, struct.pack(">IBHB", 800, crc_id, crc, 0)]


def scan_header(count: int, *, sync: int = 1, counter: int = 7, seconds: int = 50) -> bytes:
    return struct.pack(">IIIBBBIHHH7x", 11, seconds, 9, sync, 1, counter, 33, 40_000, 413, count)


def object_header(count: int, *, counter: int = 7) -> bytes:
    return struct.pack(">IIIBBBIHHBB7x", 11, 50, 9, 1, 1, counter, 33, 35_000, 32_000, 1, count)


def packed(values: tuple[int, ...], widths: tuple[int, ...]) -> bytes:
    number = 0
    for value, width in zip(values, widths, strict=True):
        number = number << width | value
    return number.to_bytes(sum(widths) // 8, "big")


def write_bag(path: Path, messages: list[bytes], *, topics: tuple[str, ...] = (TOPIC,)) -> Path:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as bag:
        bag.execute("PRAGMA synchronous = OFF")
        bag.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
        bag.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)")
        for i, topic in enumerate(topics, 1):
            bag.execute("INSERT INTO topics VALUES (?, ?, 'nebula_msgs/msg/NebulaPackets', 'cdr')", (i, topic))
        for i, data in enumerate(messages):
            bag.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)", (6 * 10**9 + i, data))
    bag.close()
    return path


def bag_messages(path: Path) -> list[bytes]:
    bag = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [row[0] for row in bag.execute("SELECT data FROM messages ORDER BY id")]
    finally:
        bag.close()


def write_capture(path: Path, payloads: list[bytes], port: int) -> Path:
    """A pcap (ns) of UDP datagrams, a microsecond apart."""
    out = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 1)
    for i, payload in enumerate(payloads):
        udp = struct.pack(">HHHH", 42101, port, 8 + len(payload), 0) + payload
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 16, 17, 0, b"\x0a\0\0\1", b"\xe0\0\2\2")
        frame = bytes(12) + b"\x08\0" + head + udp
        out += struct.pack("<IIII", 7, 1000 * i, len(frame), len(frame)) + frame
    path.write_bytes(out)
    return path


def truth(path: Path) -> Any:
    with path.open() as file:
        return yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@dataclass
class Read:
    """What a source gave: rows as plain values (times in ns), bad records, drops, and the positions behind blocks."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    after: list[tuple[dict[str, Any], int, int]] = field(default_factory=list)
    records: int = 0


def read_radar(spec: SourceSpec, position: dict[str, Any] | None = None) -> Read:
    found, reader = Read(), spec.open(Context("read"), None, position)
    try:
        for block in reader.blocks():
            decoded = reader.decode(block)
            assert block.first_seq == (position or {}).get("seq", 0) + found.records
            for batch in decoded.batches:
                assert batch.schema.equals(spec.schema, check_metadata=True)
                batch.validate(full=True)
                for row in batch.to_pylist():
                    found.rows.append(
                        {k: v.value if k.startswith("ts_") else v for k, v in row.items()}  # ns of a pandas Timestamp
                    )
            found.bad += decoded.bad
            for reason, count in decoded.dropped.items():
                found.dropped[reason] = found.dropped.get(reason, 0) + count
            found.records += block.records
            found.after.append((dict(block.after), len(found.rows), len(found.bad)))
    finally:
        reader.close()
    return found
