"""Packet captures: pcap and pcapng files, plain or packed, as a table of UDP and TCP payloads, or as what they carry.

    packets = sources.Pcap("capture.pcapng.gz", port=26477)
    ps.read(packets)

`open_pcap` looks at what a capture carries and gives the source for it: NASDAQ ITCH in MoldUDP64, IEX, or plain packets.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import GraphError
from ...pipeline.schema import describe
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.reread import number_behind, rest_of_place
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import head_of, open_feed
from ._pcap_format import CaptureHeader, address, dotted, is_capture, packet_schema, read_header

__all__ = ["Pcap", "inspect_pcap", "is_pcap", "open_pcap"]

_HEAD = 1 << 16


@dataclass(frozen=True)
class Pcap(SourceSpec):
    """The UDP datagrams and TCP segments over IPv4 and IPv6 of a capture (``net.packet``), one row each.

    Columns behind the three of every source: `src_ip`, `dst_ip` uint32 (the first byte of the address is the highest; 0 for
    IPv6), `src_port`, `dst_port` uint16, `vlan` uint16 (of the innermost 802.1Q tag, 0 without one), `payload` binary (a TCP
    segment's as it is: neither ordered nor joined), `src_ip6`, `dst_ip6` fixed_size_binary[16] (null for IPv4). `seq` is the
    number of the packet among all in the file; `ts_event` and `ts_recv` are the time of capture.

    `port` keeps packets from or to that port, `host` (an IPv4 or IPv6 address) from or to that address. What is left out is
    counted as dropped with the reason: other protocols (also encrypted ones), fragments of IPv4 and IPv6 (they are not put
    together), link types other than Ethernet, raw IP, Linux cooked (1 and 2) and loopback, filtered packets, pcapng blocks
    that hold no packet. Of IPv6 the headers for hops, routing, targets, authentication, mobility and a fragment that is the
    whole packet are stepped over. Packets that a snap length cut, headers that do not fit, and bytes in which no packet can
    be found are bad records with their offset (in the unpacked content). Packets of pcapng that have no time take that of
    the packet before.

    Raises GraphError for wrong arguments; `open` raises FormatError for an empty file or one of another format.
    pcap: draft-ietf-opsawg-pcap; pcapng: draft-ietf-opsawg-pcapng; schema: formats, section 6, item 8.
    """

    path: PathLike
    port: int | None = None
    host: str | None = None

    format: ClassVar[str] = "pcap"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.port is not None and not 0 <= self.port < 65536:
            raise GraphError(f"port={self.port!r} is no port; give a number from 0 to 65535")
        if self.host is not None:
            address(self.host)

    @property
    def schema(self) -> pa.Schema:
        return packet_schema(base_name(self.path))

    @property
    def name(self) -> str:
        return base_name(self.path)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._pcap_reader import PcapReader

        header, _ = examine(self.path)
        return PcapReader(
            open_feed(self.path),
            header,
            path=str(self.path),
            schema=self.schema,
            port=-1 if self.port is None else self.port,
            host=-1 if self.host is None else address(self.host),
            context=context,
            position=position if position is not None else {},
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """The packet at the place of the one that was put aside, in the capture as it is now."""
        from ._pcap_reader import PcapReader

        at = number_behind("offset", rest_of_place(record, self.path))
        if at is None or record.operation == "pcap.read":
            return None
        reader = self.open(Context("retry"))
        try:
            return reader.reread(at, record) if isinstance(reader, PcapReader) else None
        finally:
            reader.close()

    @property
    def block_bound(self) -> int:
        from ._pcap_framer import PACKETS, READ
        from ._pcap_kernels import LONGEST_BLOCK

        return 2 * (READ + LONGEST_BLOCK + PACKETS * 100)


def examine(path: PathLike) -> tuple[CaptureHeader, str]:
    """The header of a capture and how the file is packed. Raises FormatError if it is none."""
    head, compression = head_of(path, _HEAD)
    return read_header(head, location(path)), compression


def is_pcap(head: bytes) -> bool:
    """Whether a file that begins with `head` (unpacked) is a pcap or pcapng capture."""
    return is_capture(head)


def inspect_pcap(path: PathLike) -> dict[str, Any]:
    """What a capture holds, found by walking it: plain values for `penstock inspect`.

    ``format``, ``compression``, ``messages`` (packets, bad ones included), ``types`` (``udp 233.54.12.111:26477`` to what
    its packets look like, and how many), ``left_out`` (packets by reason), ``bad``,
    ``time_range``, ``schema`` (of the source that `open_pcap` gives), ``hint``, ``error`` (for a damaged packed stream).
    Raises FormatError if it is no capture.
    """
    from ...pipeline.memory import BufferPool
    from ._pcap_framer import PacketFramer
    from ._pcap_survey import survey

    path = location(path)
    header, compression = examine(path)
    feed = open_feed(path)
    try:
        found = survey(PacketFramer(feed, header, BufferPool(), {}))
        error = feed.error
    finally:
        feed.close()
    types = {
        f"{'udp' if protocol == 17 else 'tcp'} {dotted(version, target)}:{port}": {"name": what, "messages": count}
        for (protocol, version, target, port), (what, count) in sorted(found.flows.items())
    }
    opened = open_pcap(path)
    return {
        "format": header.container,
        "compression": compression,
        "messages": found.packets,
        "types": types,
        "left_out": dict(sorted(found.left_out.items())),
        "bad": found.bad,
        "time_range": {"utc": [_iso(ns) for ns in found.times]} if found.times else None,
        "schema": describe(opened.schema),
        "hint": _hint(opened),
        "error": error,
    }


def _hint(opened: SourceSpec) -> str | None:
    table = getattr(opened, "table", None)
    if table is None:
        return None
    from ..market import _iex_format, _itch_tables

    tables = _iex_format.TABLES if opened.format == "iex" else _itch_tables.TABLES
    others = ", ".join(repr(name) for name in tables if name != table)
    return f"these are rows of table={table!r}; others are {others}; port= gives plain packets"


def open_pcap(path: PathLike, **options: Any) -> SourceSpec:
    """The source for what a capture carries, told by its first few thousand packets.

    IEX-TP gives `Iex` (``table="bbo"`` for TOPS, ``"l2"`` for DEEP), MoldUDP64 with ITCH 5.0 messages gives `MoldItch`
    (with the date of its capture where neither `date` nor the file's name has one), anything else `Pcap`. `options` are
    those of the source that is chosen; ``port=`` or ``host=`` ask for plain packets. Raises FormatError if it is no
    capture.
    """
    from ..market.iex import Iex
    from ..market.mold import MoldItch

    path = location(path)
    if "port" in options or "host" in options:
        return Pcap(path, **options)
    what, first = _carried(path)
    if what in ("tops", "deep"):
        return Iex(path, **({"table": "l2" if what == "deep" else "bbo"} | options))
    if what == "mold":
        return MoldItch(path, **({"date": _session(path, first, options)} | options))
    return Pcap(path, **options)


def _carried(path: str) -> tuple[str, int | None]:
    from ...pipeline.memory import BufferPool
    from ._pcap_framer import PacketFramer
    from ._pcap_survey import carried

    header, _ = examine(path)
    feed = open_feed(path)
    try:
        return carried(PacketFramer(feed, header, BufferPool(), {}))
    finally:
        feed.close()


def _session(path: str, first: int | None, options: Mapping[str, Any]) -> dt.date | None:
    """The day of a session: None where the file's name has it, else that of the first packet, at the exchange."""
    from ..market._itch_format import session_date

    try:
        session_date(None, base_name(path))
    except GraphError:
        zone = ZoneInfo(options.get("timezone", "America/New_York"))
        return None if first is None else dt.datetime.fromtimestamp(first // 10**9, zone).date()
    return None


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:09d}Z"
