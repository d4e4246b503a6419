"""NASDAQ ITCH 5.0 in MoldUDP64, from packet captures: both lines of a feed in one sequence, gaps noticed and told.

day = sources.MoldItch("nasdaq.pcap.zst", date="2019-01-30", ports=(26477, 26478))
ps.read(day).apply(ops.BookFeatures())
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.memory import BufferPool
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..network.pcap import examine
from ..storage.feed import Feed
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import open_feed
from ._itch_format import midnight_ns, session_date
from ._itch_tables import TABLES, table_schema

if TYPE_CHECKING:
    from ._itch_messages import ItchMessages
    from ._mold_capture import FeedCapture, Stretch

__all__ = ["MoldItch"]

_MOST_WINDOW = 1 << 20


@dataclass(frozen=True)
class MoldItch(SourceSpec):
    """One trading day of NASDAQ TotalView-ITCH 5.0 from a pcap or pcapng capture of its MoldUDP64 packets.

    `table` is ``l3``, ``status``, ``noii`` or ``trades``, with the columns (and `max_orders`) of `Itch`, from which rows
    differ in `ts_recv` (the packet's time of capture) and in `flags` of ``l3``: 4 marks the first row behind a gap. `seq`
    counts the session's messages from the first one captured, missing ones included; the messages of several sessions
    follow one another as they came, each with symbols of its own.

    `ports` are the UDP ports of the feed (both lines): a datagram to them that is not MoldUDP64 is a bad record. Without
    them every datagram counts whose lengths fit MoldUDP64 exactly. What is neither is dropped and counted.

    Packets are put in sequence. Of a message that comes twice the first copy counts. A gap waits to be filled by a later
    packet until `reorder` further packets have come, or until `wait` has passed between captures (``"5ms"``; None: no such
    limit); it is then one bad record (``mold.sequence``) that says which messages are missing, they are counted as dropped
    (``lost before the capture: messages missing``), and the next row is marked. `first` is the sequence number at which the
    session is known to begin, to count what is missing before the first packet. A packet whose number is more than a
    million away is a bad record if the feed goes on without it.

    Resuming reads the capture from its beginning, without decoding. Raises GraphError for wrong arguments; `open` raises
    FormatError if the file is no capture. Spec: MoldUDP64 1.0; schema: formats, section 6, item 1.
    """

    path: PathLike
    table: str = "l3"
    date: str | dt.date | None = None
    ports: Sequence[int] = ()
    reorder: int = 4096
    wait: Duration | None = None
    first: int | None = None
    max_orders: int = 1 << 24
    timezone: str = "America/New_York"

    format: ClassVar[str] = "mold-itch50"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table not in TABLES:
            raise GraphError(f"MoldItch has no table {self.table!r}; choose one of {', '.join(TABLES)}")
        object.__setattr__(self, "date", session_date(self.date, base_name(self.path)))
        midnight_ns(self.session, self.timezone)
        if self.max_orders < 1:
            raise GraphError(f"max_orders={self.max_orders} leaves no room for orders; give at least 1")
        object.__setattr__(self, "ports", check_ports(self.ports))
        object.__setattr__(self, "wait", check_wait(self.wait))
        check_window(self.reorder, self.first)

    @property
    def session(self) -> dt.date:
        """The session's date."""
        return session_date(self.date, "")

    @property
    def schema(self) -> pa.Schema:
        return table_schema(self.table, base_name(self.path))

    @property
    def name(self) -> str:
        return base_name(self.path) + ("" if self.table == "l3" else f":{self.table}")

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._itch_messages import ItchMessages
        from ._mold_reader import DeliveredItch, MoldItchReader

        feed = open_feed(self.path)
        capture = self._capture(feed, context.pool)

        def messages(_: Stretch) -> ItchMessages:
            midnight = midnight_ns(self.session, self.timezone)
            return ItchMessages(
                self.table,
                source=base_name(self.path),
                midnight=midnight,
                pool=context.pool,
                max_orders=self.max_orders,
            )

        skip = int((position or {}).get("blocks", 0))
        return MoldItchReader(feed, capture, DeliveredItch(self.table, messages), skip=skip)

    def _capture(self, feed: Feed, pool: BufferPool) -> FeedCapture:
        from ..network._pcap_framer import PacketFramer
        from . import _mold_kernels as kernels
        from ._mold_capture import FeedCapture
        from ._mold_sequence import MoldSequence

        header, _ = examine(self.path)
        wait = self.wait if isinstance(self.wait, int) else None
        return FeedCapture(
            PacketFramer(feed, header, pool, {}),
            feed=kernels.MOLD,
            path=str(self.path),
            ports=self.ports,
            sequence=MoldSequence(window=self.reorder, window_ns=wait, first=self.first),
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """The message that was put aside, or those of a gap, of the capture as it is now: it is read up to there."""
        from ._mold_reread import reread_messages

        feed = open_feed(self.path)
        try:
            return reread_messages(self, self.path, self._capture(feed, Context("retry").pool), record)
        finally:
            feed.close()

    @property
    def block_bound(self) -> int:
        from ..network._pcap_framer import READ

        return READ * 12


def check_ports(ports: Any) -> tuple[int, ...]:
    """`ports` as a tuple. Raises GraphError if one is no port."""
    given = (ports,) if isinstance(ports, int) else tuple(ports)
    for port in given:
        if not isinstance(port, int) or not 0 < port < 65536:
            raise GraphError(f"ports={ports!r} has {port!r}, which is no UDP port; give numbers from 1 to 65535")
    return given


def check_window(reorder: int, first: int | None) -> None:
    """Raises GraphError for a window that cannot be waited for, or a first number that is none."""
    if not 1 <= reorder <= _MOST_WINDOW:
        raise GraphError(f"{reorder=} packets cannot be waited for; give a number from 1 to {_MOST_WINDOW}")
    if first is not None and not 0 <= first < 1 << 62:
        raise GraphError(f"{first=} is no sequence number")


def check_wait(wait: Duration | None) -> int | None:
    """`wait` in ns. Raises GraphError if it is no duration."""
    try:
        return None if wait is None else nanoseconds(wait)
    except ValueError as error:
        raise GraphError(f"wait={wait!r}: {error}") from None
