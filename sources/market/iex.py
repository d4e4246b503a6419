"""IEX market data, TOPS and DEEP, from packet captures (the exchange's free history is such).

quotes = sources.Iex("20180127_IEXTP1_TOPS1.6.pcap.gz")                # best bids and offers
levels = sources.Iex("20180127_IEXTP1_DEEP1.0.pcap.gz", table="l2")    # price levels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration
from ...pipeline.errors import GraphError
from ...pipeline.memory import BufferPool
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..network.pcap import examine
from ..storage.feed import Feed
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import open_feed
from ._iex_format import TABLES, table_schema
from .mold import check_ports, check_wait, check_window

if TYPE_CHECKING:
    from ._mold_capture import FeedCapture

__all__ = ["Iex"]

_FEEDS = {None: 0, "tops": 1, "deep": 2}


@dataclass(frozen=True)
class Iex(SourceSpec):
    """One table of an IEX TOPS or DEEP feed in a pcap or pcapng capture. Prices are int64 of 1e-9 USD, sizes shares.

    ``bbo`` (``market.bbo``; quote updates of TOPS): `symbol` dictionary<int32, utf8>, `bid_px`, `bid_sz` float64,
    `ask_px`, `ask_sz`, `update_id` uint64, the message's sequence number. A side without a quote has price and size 0.

    ``trade`` (``market.trade``; trade reports and breaks): `symbol`, `price`, `size` float64 (negative where a trade is
    broken: those shares did not trade), `side` int8 (always 0: IEX does not tell), `trade_id` uint64.

    ``l2`` (``market.l2``; price level updates of DEEP): `symbol`, `side` int8 (1 bid, -1 ask), `price`, `size` (0: the level
    is gone), `first_id` and `last_id` uint64, the message's sequence number, `prev_id` that of the message read before it
    in its session (0: none), so that a gap shows in it, `is_snapshot` false, `last_in_event` true where the book is whole.

    ``status`` (``market.status``; S D H I O P E X A): `symbol` (null for S), `msg_type` uint8 (ASCII), `code` uint8 (the
    byte behind the type: event, status, price type, auction type or flags), and what only some types have, null for the
    others: H `reason`; P `detail`; D `round_lot_size`, `price` (adjusted close), `luld_tier`; X `price`; A `paired_shares`,
    `reference_price`, `indicative_clearing_price`, `imbalance_shares`, `imbalance_side`, `extension_number`,
    `scheduled_auction_time`, `auction_book_clearing_price`, `collar_reference_price`, `lower_collar_price`,
    `upper_collar_price`.

    `ts_event` is the message's time, `ts_recv` that of its capture; `seq` counts the messages of all types from the first
    one captured, missing ones included. `feed` keeps ``"tops"`` or ``"deep"`` where a capture has both; `ports`, `reorder`,
    `wait` and `first` are those of `MoldItch`, and so are gaps: one bad record (``iex.sequence``) each, counted as dropped.
    Messages of other types are dropped, ``not in market.<table>: <type>``. A message that is too short, with a time before
    1970 or a price beyond 64 bits is a bad record. Resuming reads the capture from its beginning, without decoding.

    Raises GraphError for wrong arguments; `open` raises FormatError if the file is no capture. Specs: IEX Transport 1, TOPS
    1.6, DEEP 1.0; schema: formats, section 6, items 1, 3 and 8.
    """

    path: PathLike
    table: str = "bbo"
    feed: str | None = None
    ports: Sequence[int] = ()
    reorder: int = 4096
    wait: Duration | None = None
    first: int | None = None

    format: ClassVar[str] = "iex"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table not in TABLES:
            raise GraphError(f"Iex has no table {self.table!r}; choose one of {', '.join(TABLES)}")
        if self.feed not in _FEEDS:
            raise GraphError(f"feed={self.feed!r} is none of IEX's; choose 'tops' or 'deep'")
        object.__setattr__(self, "ports", check_ports(self.ports))
        object.__setattr__(self, "wait", check_wait(self.wait))
        check_window(self.reorder, self.first)

    @property
    def schema(self) -> pa.Schema:
        return table_schema(self.table, base_name(self.path))

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.table}"

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._iex_reader import IexReader

        feed = open_feed(self.path)
        skip = int((position or {}).get("blocks", 0))
        capture = self._capture(feed, context.pool)
        return IexReader(feed, capture, table=self.table, schema=self.schema, pool=context.pool, skip=skip)

    def _capture(self, feed: Feed, pool: BufferPool) -> FeedCapture:
        from ..network._pcap_framer import PacketFramer
        from . import _mold_kernels as kernels
        from ._mold_capture import FeedCapture
        from ._mold_sequence import MoldSequence

        header, _ = examine(self.path)
        wait = self.wait if isinstance(self.wait, int) else None
        return FeedCapture(
            PacketFramer(feed, header, pool, {}),
            feed=kernels.IEX,
            path=str(self.path),
            ports=self.ports,
            sequence=MoldSequence(window=self.reorder, window_ns=wait, first=self.first),
            wanted=_FEEDS[self.feed],
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
