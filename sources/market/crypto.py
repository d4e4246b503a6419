"""Raw recordings of crypto exchanges' WebSocket feeds: lines ``<receive time in ns> <JSON message>``, plain or packed.

    tape = sources.CryptoRaw("usdm_btcusdt_20240808.gz", table="l2")
    ps.read(tape).apply(ops.BookFeatures())

Binance messages go through a compiled scanner straight into columns; a line that it is not sure about, and those of the
other venues, are read by msgspec and a function of the venue. Both give the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.feed import Feed
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import BytesFeed, head_of, open_feed
from ._crypto_tables import TABLES, crypto_schema
from ._crypto_venues import VENUES, is_fast, reader_of, symbol_in, table_in, venue_in

__all__ = ["CryptoRaw", "inspect_crypto_raw", "is_crypto_raw", "open_crypto_raw"]

_HEAD = 1 << 16


@dataclass(frozen=True)
class CryptoRaw(SourceSpec):
    """One table of a raw recording.

    Parameters
    ----------
    path
        The file; gzip, zstd, bz2, lz4, xz and zip (of one file) are recognised by their content.
    venue
        ``binance-spot``, ``binance-usdm``, ``binance-coinm``, ``bybit``, ``okx``, ``coinbase`` (Exchange and Advanced
        Trade), ``kraken`` (v2 and v1) or ``hyperliquid``; None: by the first messages.
    table
        ``bbo`` (best prices), ``trade``, ``agg_trade`` (Binance aggTrade) or ``l2`` (changes and snapshots of the book, one
        row per level, bids first).
    symbol
        That of REST snapshots, which do not say; None: that of the only book in the recording.
    price_decimals
        Prices are int64 in units of ``10**-price_decimals``; also in the metadata ``penstock.price_scale``.
    max_line
        Longest line in bytes; a longer one is quarantined with its first 64 KiB.
    block_bytes
        Bytes that are read ahead and decoded at a time.
    lateness_ns
        How far event times may go back and still be in time where the user gives nothing: times of several symbols cross,
        and those of a snapshot without a time are of another clock.

    Columns behind the three of every source: `symbol` dictionary<int32, utf8>, numbered by first appearance in the table,
    then for ``bbo`` `bid_px` int64, `bid_sz` float64, `ask_px`, `ask_sz`, `update_id` uint64; for ``trade`` and
    ``agg_trade`` `price`, `size`, `side` int8 (aggressor: 1 bought, -1 sold), `trade_id` uint64; for ``l2`` `side` (1 bid,
    -1 ask), `price`, `size` (0: the level is gone), `first_id`, `last_id`, `prev_id` uint64 (0 where the venue gives
    none), `is_snapshot`, `last_in_event` bool. Prices are exact, sizes the nearest float64. `seq` is the number of the line
    among those not blank: all rows of a message share it. `ts_event` is the venue's time (of the matching engine where it
    is given), `ts_recv` the recorder's; where a message has no time (Binance spot bookTicker and REST snapshot) both are
    the recorder's, and the metadata ``penstock.event_time`` of such a table says ``ts_recv``.

    Messages for other tables are counted as dropped by kind. A line that is no message of the venue is a bad record. A gap
    in the numbers of a book is a bad record too (operation ``crypto.book``), with the message behind it; its rows stay.
    Raises GraphError for wrong arguments; `open` raises FormatError for an empty file or one of another format. Schema:
    formats, section 6, item 3.
    """

    path: PathLike
    venue: str | None = None
    table: str = "bbo"
    symbol: str | None = field(default=None, kw_only=True)
    price_decimals: int = field(default=9, kw_only=True)
    max_line: int = field(default=4 << 20, kw_only=True)
    block_bytes: int = field(default=1 << 20, kw_only=True)
    lateness_ns: int = field(default=2_000_000_000, kw_only=True)

    format: ClassVar[str] = "crypto-raw"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table not in TABLES:
            raise GraphError(f"CryptoRaw has no table {self.table!r}; choose one of {', '.join(TABLES)}")
        if self.venue is not None and self.venue not in VENUES:
            raise GraphError(f"CryptoRaw knows no venue {self.venue!r}; choose one of {', '.join(VENUES)}")
        if self.symbol is not None and not 1 <= len(self.symbol.encode()) <= 64:
            raise GraphError(f"{self.symbol=}", expected="a name of 1 to 64 bytes")
        if not 0 <= self.price_decimals <= 18:
            raise GraphError(f"{self.price_decimals=}", expected="0 to 18")
        if not 64 <= self.max_line <= 1 << 28:
            raise GraphError(f"{self.max_line=}", expected="64 to 2**28 bytes")
        if not 64 <= self.block_bytes <= 1 << 28:
            raise GraphError(f"{self.block_bytes=}", expected="64 to 2**28 bytes")

    @property
    def schema(self) -> pa.Schema:
        """The table's schema; looks at the file where no venue is given."""
        return self._schema(self.venue or self._look()[0])

    def _schema(self, venue: str) -> pa.Schema:
        return crypto_schema(self.table, self.name, venue, self.price_decimals)

    @property
    def name(self) -> str:
        """The file's name and the table."""
        return f"{base_name(self.path)}:{self.table}"

    @property
    def block_bound(self) -> int:
        """The text of the longest block and the rows of its shortest levels; the pool rounds up by half at most."""
        text = self.max_line + self.block_bytes + 4096
        return text + 3 * (text // 10 * 80) // 2

    def _look(self) -> tuple[str, str | None]:
        """The venue and the first symbol. Raises FormatError, OSError."""
        head, compression = head_of(self.path, _HEAD)
        if not head.strip():
            raise FormatError(f"{self.path} is empty: it holds no recorder line")
        venue = self.venue or venue_in(head)
        if venue is None:
            inside = "" if compression == "none" else f" inside {compression}"
            raise FormatError(
                f"{self.path} begins{inside} with {head[:40]!r}, which is no recorder line of a known venue "
                f"(<ns> <JSON>); if it is one, name it with venue={' | '.join(VENUES)}"
            )
        return venue, symbol_in(head)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        """Open the file, or the rest of it behind a position. Raises FormatError, OSError."""
        venue, first = self._look()
        return self._reader(open_feed(self.path), context, venue, first, position)

    def _reader(
        self, feed: Feed, context: Context, venue: str, first: str | None, position: Position | None
    ) -> SourceReader:
        from ._crypto_decode import Layout, LineDecoder
        from ._crypto_reader import CryptoReader

        layout = Layout(
            read=reader_of(venue),
            fast=is_fast(venue),
            table=self.table,
            schema=self._schema(venue),
            price_decimals=self.price_decimals,
            symbol=self.symbol,
            first_symbol=first,
            file=base_name(self.path),
        )
        return CryptoReader(
            feed,
            LineDecoder(layout, context.pool, position),
            context,
            path=str(self.path),
            file=base_name(self.path),
            position=position,
            block_bytes=self.block_bytes,
            max_line=self.max_line,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line again; None for gaps, a broken packed stream, and a line of which only the beginning was kept."""
        if record.operation != "crypto.decode":
            return None
        venue, first = self._look()
        start = {"offset": 0, "seq": record.seq or 0, "line": 1, "symbols": [], "books": []}
        reader = self._reader(BytesFeed(record.data), Context("retry"), venue, first, start)
        decoded = [reader.decode(block) for block in reader.blocks()]
        batches = [batch for part in decoded for batch in part.batches]
        bad = [wrong for part in decoded for wrong in part.bad if wrong.operation != "crypto.book"]
        return Decoded(batches, bad) if batches or bad else None


def is_crypto_raw(head: bytes) -> bool:
    """Whether a file that begins with `head` (up to 64 KiB, unpacked) is a raw recording of a venue known here."""
    return venue_in(head) is not None


def inspect_crypto_raw(path: PathLike) -> dict[str, Any]:
    """What a raw recording holds, found by reading it, for `penstock inspect`.

    ``format``, ``compression``, ``venue``, ``messages`` (bad ones included), ``types`` (messages by kind), ``bad``,
    ``symbols`` (messages by symbol), ``time`` (start and end of the receive times as ISO 8601 and ns, seconds),
    ``event_time`` (the same of the venue's), ``clock_difference_ns`` (event time minus receive time: least, median, most,
    of messages that have both), ``out_of_order`` (messages received before the one in front of them), ``gaps`` (by
    symbol), ``schema``, ``error`` (of a damaged packed stream).
    Raises FormatError as `CryptoRaw.open` does.
    """
    from ._crypto_inspect import describe_file

    return describe_file(location(path))


def open_crypto_raw(path: PathLike, **options: Any) -> CryptoRaw:
    """The recording as a source: best prices unless `table` says otherwise, or another table if its beginning has none."""
    spec = CryptoRaw(path, **options)
    if "table" in options:
        return spec
    head, _ = head_of(spec.path, _HEAD)
    venue = spec.venue or venue_in(head)
    return spec if venue is None else replace(spec, table=table_in(head, venue))
