"""Captures, packets and feeds written from their specifications, field by field; and all that a source makes of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pyarrow as pa
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.source import SourceSpec

__all__ = [
    "Reading",
    "block",
    "ethernet",
    "iex",
    "interface",
    "ipv4",
    "ipv6",
    "mold",
    "mutated",
    "packet_block",
    "pcap",
    "pcapng",
    "read",
    "record",
    "section",
    "simple_block",
    "tcp",
    "udp",
]


def udp(payload: bytes, source: int = 4000, target: int = 26477) -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def tcp(payload: bytes, source: int = 4000, target: int = 80, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    return struct.pack(">HHIIBBHHH", source, target, 1, 2, words << 4, 24, 8192, 0, 0) + options + payload


def ipv4(
    inner: bytes,
    *,
    protocol: int = 17,
    source: int = 0x0A000001,
    target: int = 0xE9360C6F,
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack(
        ">BBHHHBBHII", 64 + words, 0, 4 * words + len(inner), 7, fragment, 64, protocol, 0, source, target
    )
    return head + options + inner


def ipv6(
    inner: bytes,
    *,
    protocol: int = 17,
    source: int = 0xFE80 << 112 | 1,
    target: int = 0xFF0E << 112 | 0x114,
    headers: Sequence[tuple[int, bytes]] = (),
    length: int | None = None,
) -> bytes:
    """A packet of IPv6; `headers` are the extension headers in order: their protocol number, and what is behind its first
    byte, which says what follows."""
    kinds = [*(kind for kind, _ in headers), protocol]
    body = b"".join(bytes([follows]) + rest for (_, rest), follows in zip(headers, kinds[1:], strict=True)) + inner
    head = struct.pack(">IHBB", 0x6 << 28 | 0xABCDE, len(body) if length is None else length, kinds[0], 64)
    return head + source.to_bytes(16, "big") + target.to_bytes(16, "big") + body


def ethernet(inner: bytes, *, tags: Sequence[tuple[int, int]] = (), kind: int = 0x0800) -> bytes:
    """A frame; `tags` are (ether type, tag control information) from the outermost on. Short ones are padded."""
    head = b"\x01\x00\x5e\x36\x0c\x6f" + b"\x02" * 6
    for tag, control in tags:
        head += struct.pack(">HH", tag, control)
    return (head + struct.pack(">H", kind) + inner).ljust(60, b"\0")


def record(frame: bytes, ns: int, *, big: bool = False, nano: bool = True, full: int | None = None) -> bytes:
    """One packet of a pcap file."""
    order = ">" if big else "<"
    second, rest = divmod(ns, 10**9)
    whole = len(frame) if full is None else full
    return struct.pack(order + "IIII", second, rest if nano else rest // 1000, len(frame), whole) + frame


def pcap(
    frames: Iterable[tuple[int, bytes]], *, big: bool = False, nano: bool = True, link: int = 1, snap: int = 262144
) -> bytes:
    """A pcap file of (ns, frame)."""
    order = ">" if big else "<"
    head = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, snap, link)
    return head + b"".join(record(frame, ns, big=big, nano=nano) for ns, frame in frames)


def _options(pairs: Iterable[tuple[int, bytes]], order: str) -> bytes:
    made = b"".join(
        struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in pairs
    )
    return made + bytes(4) if made else b""


def block(kind: int, body: bytes, *, big: bool = False) -> bytes:
    order = ">" if big else "<"
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(*, big: bool = False, options: Iterable[tuple[int, bytes]] = ((4, b"a test"),)) -> bytes:
    order = ">" if big else "<"
    body = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + _options(options, order)
    return block(0x0A0D0D0A, body, big=big)


def interface(
    *, link: int = 1, snap: int = 0, resolution: int | None = None, offset: int | None = None, big: bool = False
) -> bytes:
    order = ">" if big else "<"
    options = [(2, b"eth0")]
    if resolution is not None:
        options.append((9, bytes([resolution])))
    if offset is not None:
        options.append((14, struct.pack(order + "q", offset)))
    return block(1, struct.pack(order + "HHI", link, 0, snap) + _options(options, order), big=big)


def packet_block(
    frame: bytes, ticks: int, *, which: int = 0, big: bool = False, full: int | None = None, comment: bytes = b""
) -> bytes:
    order = ">" if big else "<"
    whole = len(frame) if full is None else full
    body = struct.pack(order + "IIIII", which, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), whole)
    return block(6, body + frame + bytes(-len(frame) % 4) + _options([(1, comment)] if comment else [], order), big=big)


def simple_block(frame: bytes, *, big: bool = False, full: int | None = None) -> bytes:
    whole = len(frame) if full is None else full
    return block(3, struct.pack((">" if big else "<") + "I", whole) + frame, big=big)


def pcapng(frames: Iterable[tuple[int, bytes]], *, big: bool = False) -> bytes:
    """A pcapng file of (ns, frame) with one interface that counts ns."""
    head = section(big=big) + interface(resolution=9, big=big)
    return head + b"".join(packet_block(frame, ns, big=big) for ns, frame in frames)


def mold(first: int, messages: Sequence[bytes], *, session: bytes = b"000000001A", count: int | None = None) -> bytes:
    """A MoldUDP64 downstream packet; `count` 0 is a heartbeat, 0xFFFF the end of the session."""
    number = len(messages) if count is None else count
    return session + struct.pack(">QH", first, number) + b"".join(struct.pack(">H", len(m)) + m for m in messages)


def iex(
    first: int, messages: Sequence[bytes], *, protocol: int = 0x8003, session: int = 1, channel: int = 1, sent: int = 0
) -> bytes:
    """An IEX-TP segment."""
    body = b"".join(struct.pack("<H", len(m)) + m for m in messages)
    return struct.pack("<BBHIIHHqqq", 1, 0, protocol, channel, session, len(body), len(messages), 0, first, sent) + body


@dataclass(frozen=True)
class Reading:
    """What a source gave: its rows, bad records, drops by reason, records, and the position behind each block."""

    table: pa.Table
    bad: list[BadRecord]
    dropped: dict[str, int]
    records: int
    positions: list[Any]

    def rows(self, *names: str) -> list[Any]:
        """The values of the named columns row by row (times as ns); of one column alone if one is named."""
        columns = []
        for name in names:
            column = self.table[name]
            if pa.types.is_timestamp(column.type):
                column = column.cast(pa.int64())
            columns.append(column.to_pylist())
        return columns[0] if len(names) == 1 else list(zip(*columns, strict=True))


def read(spec: SourceSpec, position: Any = None) -> Reading:
    """Read `spec` to its end, from `position` on; checks that positions and batches fit together."""
    reader = spec.open(Context("read"), None, position)
    batches: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    dropped: dict[str, int] = {}
    positions, first, records = [], None, 0
    for block in reader.blocks():
        first = block.first_seq if first is None else first
        assert block.first_seq == first + records
        records += block.records
        positions.append(block.after)
        decoded = reader.decode(block)
        for batch in decoded.batches:
            batch.validate(full=True)
            assert batch.schema == spec.schema
        batches += decoded.batches
        bad += decoded.bad
        for why, count in decoded.dropped.items():
            dropped[why] = dropped.get(why, 0) + count
    reader.close()
    table = pa.Table.from_batches(batches, spec.schema)
    numbers = table["seq"].to_pylist()
    assert numbers == sorted(set(numbers))
    return Reading(table, bad, dropped, records, positions)


def mutated(data: bytes, random: Random) -> bytes:
    """`data` damaged: bytes flipped, cut out, put in from elsewhere, numbers made small or huge; up to four times."""
    made = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if len(made) < 8:
            break
        at = random.randrange(len(made) - 4)
        kind = random.randrange(6)
        if kind == 0:
            made[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del made[at:]
        elif kind == 2:
            del made[at : at + random.randint(1, 200)]
        elif kind == 3:
            start = random.randrange(len(made))
            made[at:at] = made[start : start + random.randint(1, 400)]
        elif kind == 4:
            value = random.choice([0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x0001FFFF, random.getrandbits(32)])
            made[at : at + 4] = value.to_bytes(4, random.choice(["little", "big"]))
        else:
            made[at : at + random.randint(1, 64)] = random.randbytes(random.randint(0, 64))
    return bytes(made)
