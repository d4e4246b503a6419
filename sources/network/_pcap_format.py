"""What captures are made of: the headers of pcap and pcapng files, and the schema of their packets."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

import pyarrow as pa

from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import event_schema

__all__ = [
    "MAGIC",
    "MOST_INTERFACES",
    "CaptureHeader",
    "address",
    "dotted",
    "interface_of",
    "is_capture",
    "packet_schema",
    "read_header",
]

#: First four bytes to (container, big-endian, ns that a fraction counts).
MAGIC: dict[bytes, tuple[str, bool, int]] = {
    b"\xd4\xc3\xb2\xa1": ("pcap", False, 1000),
    b"\xa1\xb2\xc3\xd4": ("pcap", True, 1000),
    b"\x4d\x3c\xb2\xa1": ("pcap", False, 1),
    b"\xa1\xb2\x3c\x4d": ("pcap", True, 1),
    b"\x0a\x0d\x0d\x0a": ("pcapng", False, 0),
}
#: Interfaces of a section that are kept; packets of later ones are bad.
MOST_INTERFACES = 4096
_ORDER = {b"\x4d\x3c\x2b\x1a": False, b"\x1a\x2b\x3c\x4d": True}


@dataclass(frozen=True, slots=True)
class CaptureHeader:
    """How to read a capture. `size` is where its records begin; `unit`, `snap` and `link` are those of pcap files."""

    container: str
    big: bool
    unit: int
    snap: int
    link: int
    size: int


def is_capture(head: bytes) -> bool:
    """Whether `head` begins a pcap or pcapng file."""
    known = MAGIC.get(head[:4])
    if known is None:
        return False
    if known[0] == "pcapng":
        return head[8:12] in _ORDER
    return len(head) < 8 or head[4:8] == struct.pack(">HH" if known[1] else "<HH", 2, 4)


def read_header(head: bytes, path: str) -> CaptureHeader:
    """The header that a file begins with. Raises FormatError if there is none."""
    if not head:
        raise FormatError(f"{path} is empty (0 bytes): no packets to read")
    known = MAGIC.get(head[:4])
    if known is None or not is_capture(head):
        raise FormatError(
            f"{path} is no packet capture: it begins with {head[:12].hex(' ')}; expected pcap (a1b2c3d4 or a1b23c4d in "
            "either byte order, version 2.4) or pcapng (0a0d0d0a)"
        )
    container, big, unit = known
    if container == "pcapng":
        return CaptureHeader(container, _ORDER[head[8:12]], 0, 0, 0, 0)
    if len(head) < 24:
        raise FormatError(f"{path} ends inside the header of a pcap file: {len(head)} of its 24 bytes are there")
    snap, link = struct.unpack(">II" if big else "<II", head[16:24])
    return CaptureHeader(container, big, unit, snap, link & 0xFFFF, 24)


def interface_of(block: bytes, big: bool) -> tuple[int, int, int, int, int]:
    """(link type, longest packet, time in powers of two, exponent, offset in s) of an interface description block.

    Options that are cut or malformed end the list. Raises ValueError if the block is too short.
    """
    if len(block) < 20:
        raise ValueError(f"an interface description of {len(block)} bytes")
    order = ">" if big else "<"
    link, snap = struct.unpack_from(order + "HxxI", block, 8)
    binary, exponent, offset = 0, 6, 0
    at, end = 16, len(block) - 4
    while at + 4 <= end:
        code, length = struct.unpack_from(order + "HH", block, at)
        at += 4
        if code == 0 or at + length > end:
            break
        if code == 9 and length == 1:
            binary, exponent = block[at] >> 7, block[at] & 0x7F
        elif code == 14 and length == 8:
            (offset,) = struct.unpack_from(order + "q", block, at)
        at += length + -length % 4
    return link, snap, binary, exponent, offset


def packet_schema(source: str) -> pa.Schema:
    """``net.packet``: one row per UDP datagram or TCP segment; spec section 6, item 8, with the addresses of IPv6 behind."""
    return event_schema(
        [
            pa.field("src_ip", pa.uint32(), nullable=False),
            pa.field("dst_ip", pa.uint32(), nullable=False),
            pa.field("src_port", pa.uint16(), nullable=False),
            pa.field("dst_port", pa.uint16(), nullable=False),
            pa.field("vlan", pa.uint16(), nullable=False),
            pa.field("payload", pa.binary(), nullable=False),
            pa.field("src_ip6", pa.binary(16)),
            pa.field("dst_ip6", pa.binary(16)),
        ],
        source=source,
        format="pcap",
        clock="utc",
    )


def address(text: str) -> int | bytes:
    """An IPv4 address as a number, an IPv6 address as 16 bytes. Raises GraphError if it is neither."""
    try:
        found = ipaddress.ip_address(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None or getattr(found, "scope_id", None):
        raise GraphError(f"host={text!r} is no IP address; write for example host='233.54.12.111' or host='ff0e::114'")
    return int(found) if found.version == 4 else found.packed


def dotted(version: int, number: int) -> str:
    """An IP address as text; that of IPv6 in brackets, as it stands before a port."""
    return str(ipaddress.IPv4Address(number)) if version == 4 else f"[{ipaddress.IPv6Address(number)}]"
