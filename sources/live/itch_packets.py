"""NASDAQ ITCH 5.0 in MoldUDP64 as it comes: both lines in one sequence, gaps seen at the next packet, filled or told.

day = sources.live_itch(("udp://233.54.12.111:26477", "udp://233.49.196.111:26477"))
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.source import Decoded
from ..market._itch_format import midnight_ns, session_date
from ..market._itch_tables import TABLES, table_schema
from ..market.mold import check_window
from ._losses import MISSED, ended_well
from .arrival import Arrival
from .feed import Live
from .session import Codec, Framed, Session

if TYPE_CHECKING:
    from ..market._mold_capture import Stretch

__all__ = ["MoldPackets", "live_itch"]

_IP, _UDP, _HEAD = 20, 17, 28
_RAW_LINK = 101
#: What stands behind the packets of a buffer, so that decoding may look past the last one.
_PAD = 64
#: Where a message has its time, ns since midnight.
_TIME = slice(5, 11)
_HOUR_NS = 3600 * 10**9
_DAY_NS = 24 * _HOUR_NS
#: Sessions whose dates a checkpoint keeps.
_MOST_DATES = 8


@dataclass(frozen=True)
class MoldPackets(Codec):
    """Datagrams of MoldUDP64 (`Itch`'s tables and columns; see `MoldItch` for gaps, `reorder`, `wait` and `first`).

    ``ts_recv`` is when the kernel took in the first copy of the packet, which for messages behind a gap is before the gap
    was filled. Of messages that come on both lines the first copy counts. A gap that has waited for `wait`, or for
    `reorder` further packets, is given up: one bad record says which messages are missing, they are counted, and the next
    row of ``l3`` has 4 in `flags`. A datagram that is no MoldUDP64 packet is a bad record. The feed ends when its sender has
    announced the end of the session and nothing waits. A run that goes on from a checkpoint tells what it missed; its
    ``trades`` do not know orders from before.

    Messages hold a time of day and no date. Without `date` it is the day, in `timezone`, on which the first message of each
    session was received: today, or of a replay and a recording the day of the file. Where that was just behind midnight and
    the message says just before it (or the other way round) it is the message's day. The date of a session stays: across
    midnight, and when a run goes on from a checkpoint. On a byte stream a packet is behind its length of two bytes.
    """

    name: ClassVar[str] = "mold-itch50"
    framing: ClassVar[str] = "u16"
    table: str = "l3"
    date: str | dt.date | None = None
    reorder: int = 4096
    wait: Duration = "100ms"
    first: int | None = None
    timezone: str = "America/New_York"

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise GraphError(f"no table {self.table!r}", expected=" | ".join(TABLES))
        if self.date is not None:
            object.__setattr__(self, "date", session_date(self.date, "").isoformat())
        midnight_ns(dt.date(2000, 1, 1), self.timezone)
        object.__setattr__(self, "wait", nanoseconds(self.wait))
        check_window(self.reorder, self.first)

    def schema(self, source: str) -> pa.Schema:
        return table_schema(self.table, source)

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        return _Session(self, context, source, position or {})

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> MoldPackets:
        """The codec of which `describe` gave `values`."""
        return cls(**values)


class _Session(Session):
    def __init__(self, codec: MoldPackets, context: Context, source: str, position: Mapping[str, Any]) -> None:
        from ..market import _mold_kernels as kernels
        from ..market._itch_messages import ItchMessages
        from ..market._mold_capture import FeedCapture
        from ..market._mold_reader import DeliveredItch
        from ..market._mold_sequence import MoldSequence

        self._pool, self._source = context.pool, source
        wait = nanoseconds(codec.wait)
        expected = int(position.get("expected", -1))
        sequence = MoldSequence(window=codec.reorder, window_ns=wait, first=codec.first if expected < 0 else expected)
        self._capture = FeedCapture(None, feed=kernels.MOLD, path=source, ports=(1,), sequence=sequence)
        self._capture.position = int(position.get("position", 0))
        known: Mapping[str, str] = position.get("symbols", {})
        self._codec = codec
        self._dates = dict(position.get("dates", {}))

        def messages(first: Stretch) -> ItchMessages:
            midnight = midnight_ns(self._date_of(first), codec.timezone)
            made = ItchMessages(codec.table, source=source, midnight=midnight, pool=context.pool)
            for locate, symbol in known.items():
                made.directory.names[int(locate)] = np.frombuffer(symbol.encode("latin-1").ljust(8)[:8], np.uint8)
                made.directory.named[int(locate)] = 1
            return made

        self._delivered = DeliveredItch(codec.table, messages)
        self._base = self._packets = self._latest = 0
        self._ending = False
        self._symbols = dict(known)

    def position(self) -> Mapping[str, Any]:
        return {
            "expected": self._capture.expected,
            "position": self._capture.position,
            "symbols": self._named(),
            "dates": dict(self._dates),
        }

    def _date_of(self, first: Stretch) -> dt.date:
        """The date of the session that begins with a stretch."""
        if self._codec.date is not None:
            return session_date(self._codec.date, "")
        name = self._capture.session_name(first.session)
        if name not in self._dates:
            self._dates[name] = _day_of(first, self._codec.timezone).isoformat()
            while len(self._dates) > _MOST_DATES:
                del self._dates[next(iter(self._dates))]
        return dt.date.fromisoformat(self._dates[name])

    def _named(self) -> dict[str, str]:
        """Symbols by locate; the same object while none is added."""
        for directory in self._delivered.directories[-1:]:
            if int(directory.named.sum()) > len(self._symbols):
                named = np.flatnonzero(directory.named).tolist()
                self._symbols = {str(i): directory.names[i].tobytes().decode("latin-1") for i in named}
        return self._symbols

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        packets = [arrival for arrival in arrivals if not arrival.event]
        self._ending = self._ending or any(_is_end(arrival.data) for arrival in packets)
        lost = [a for a in arrivals if a.event.startswith("lost: ") and not a.event.startswith(MISSED)]
        if self._ending:  # its sender has said that nothing more comes
            lost = [arrival for arrival in lost if not ended_well(arrival.event)]
        noticed = [BadRecord(self._source, "live.gap", f"line {a.line}: {a.event}", b"") for a in lost]
        if not packets:
            return Framed(None, 0, 0, noticed)
        self._latest = max(self._latest, *(arrival.recv_ns for arrival in packets))
        return self._framed(self._capture.take(self._piece(packets)), noticed)

    def idle(self, quiet_ns: int, first_seq: int) -> Framed | None:
        return self._framed(self._capture.expire(self._latest + quiet_ns), [])

    def finish(self, first_seq: int) -> Framed | None:
        return self._framed(self._capture.flush(), [])

    def _framed(self, delivery: Any, noticed: Sequence[BadRecord]) -> Framed:
        framed = self._delivered.frame(delivery)
        self.ended = self._ending and not self._capture.waiting
        return Framed(framed, delivery.end - delivery.first, delivery.nbytes, noticed)

    def _piece(self, packets: Sequence[Arrival]) -> Any:
        """Datagrams as a capture would hold them: behind IPv4 and UDP headers, in one buffer."""
        from ..network._pcap_framer import Piece

        count = len(packets)
        sizes = np.array([_HEAD + len(arrival.data) for arrival in packets], np.int64)
        ats = np.concatenate([[0], np.cumsum(sizes)])
        total = int(ats[-1])
        lease = self._pool.take(total + _PAD)
        data: Any = lease.array(np.uint8, total + _PAD)
        data[:] = 0
        for at, arrival in zip(ats.tolist(), packets, strict=False):
            head = _header(len(arrival.data))
            data[at : at + _HEAD] = np.frombuffer(head, np.uint8)
            data[at + _HEAD : at + _HEAD + len(arrival.data)] = np.frombuffer(arrival.data, np.uint8)
        base, self._base = self._base, self._base + total
        first, self._packets = self._packets, self._packets + count
        return Piece(
            data,
            count,
            ats[:-1].astype(np.int64),
            sizes.astype(np.int32),
            sizes.astype(np.uint32),
            np.array([arrival.recv_ns for arrival in packets], np.int64),
            np.full(count, _RAW_LINK, np.uint16),
            np.empty((0, 4), np.int64),
            base,
            first,
            total,
            {},
            None,
            lease,
        )

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        return Decoded(()) if payload is None else self._delivered.decode(payload)


def _day_of(first: Stretch, timezone: str) -> dt.date:
    """The day of a message by when it was received; beside midnight by the time that it says."""
    recv_ns = int(first.received[0])
    day = dt.datetime.fromtimestamp(recv_ns // 10**9, ZoneInfo(timezone)).date()
    start = int(first.offsets[0]) + _TIME.start
    said = int.from_bytes(first.data[start : start + _TIME.stop - _TIME.start].tobytes(), "big")
    if first.sizes[0] < _TIME.stop or said >= _DAY_NS:
        return day
    ahead = midnight_ns(day, timezone) + said - recv_ns
    if ahead > _DAY_NS - _HOUR_NS:
        return day - dt.timedelta(days=1)
    return day + dt.timedelta(days=1) if ahead < _HOUR_NS - _DAY_NS else day


def _header(length: int) -> bytes:
    """IPv4 and UDP headers from port 1 to port 1, without check sums (0: none was made)."""
    total = _HEAD + length
    ip = b"\x45\x00" + total.to_bytes(2, "big") + bytes(4) + b"\x01" + bytes([_UDP]) + bytes(2) + bytes(8)
    return ip + b"\x00\x01\x00\x01" + (8 + length).to_bytes(2, "big") + bytes(2)


def _is_end(data: bytes) -> bool:
    return len(data) == 20 and data[18:] == b"\xff\xff"


def live_itch(url: str | tuple[str, ...], *, table: str = "l3", **options: Any) -> Live:
    """ITCH from a MoldUDP64 feed; `url` may be both its lines. Options are those of `MoldPackets` and of `Live`.

    Over ``tcp://``, ``ws://`` and ``http://`` it takes the same packets, which a replay of an ITCH file sends there too.
    """
    own = ("date", "reorder", "wait", "first", "timezone")
    codec = MoldPackets(table, **{key: options.pop(key) for key in own if key in options})
    return Live(url, codec, **options)
