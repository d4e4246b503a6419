"""NASDAQ TotalView-ITCH 5.0 files, plain or packed, with length prefixes or with ``00 00`` in their place.

    day = sources.Itch("01302019.NASDAQ_ITCH50.gz")
    ps.read(day).apply(ops.BookFeatures())
    halts = sources.Itch("01302019.NASDAQ_ITCH50.gz", table="status")

The stock locate of a message is its symbol's index in the dictionary, so a symbol costs no look-up, and batches share one
dictionary until a stock directory message adds to it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import GraphError
from ...pipeline.schema import describe, row_bytes
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.feed import Feed
from ..storage.stored import PathLike, base_name, location, stored_size
from ..storage.unpack import BytesFeed, head_of, open_feed
from ._itch_format import NAMES, check_format, detect, l3_schema, midnight_ns, session_date, type_label
from ._itch_tables import TABLES, table_schema

__all__ = ["Itch", "inspect_itch", "is_itch", "open_itch"]

_HEAD = 1 << 16


@dataclass(frozen=True)
class Itch(SourceSpec):
    """One trading day of NASDAQ TotalView-ITCH 5.0: one row for each message of the types that `table` holds.

    ``l3`` (``market.l3``): order and trade messages, A F E C X D U P Q B. Behind the three columns of every source: `locate`
    uint16, `symbol` dictionary<int32, utf8> (``?<locate>`` before the symbol is named), `msg_type` uint8 (ASCII), `side`
    int8 (1 bid, -1 ask, 0 none), `order_id` uint64, `new_order_id` uint64 (U only), `price` int64 (1e-9 USD), `size` uint32
    (shares), `match_id` uint64, `flags` uint8 (1: the message reports shares that count as traded, as E, P and Q always and
    C if printable; 2: it names a market participant). What a type does not have is 0.

    ``trades`` (``market.trades``): E C P Q B, joined with the book. `locate`, `symbol`, `msg_type` as above; `price` int64
    (1e-9 USD; of E that of the order it executes, of C, P and Q that of the message; null for B); `size` uint64 (null for
    B); `side` int8, that of the resting order: 1 if it was bought for, -1 if it was sold from (of P as the message has it,
    which is 1 since 2014; 0 for Q and B); `match_id` uint64 (of B that of the trade that is broken); `printable` bool (as
    the message says for C, true for E, P and Q, null for B); `cross_type` uint8 (ASCII; null but for Q). An E or C whose
    order is not in the book is a bad record. The book holds at most `max_orders` orders: StateLimitError beyond. This table
    is one split, and a resumed run first reads again all that stands before its position.

    ``status`` (``market.status``): S R H Y L V W K J h N O; ``noii`` (``market.noii``): I. Every field but the reserved one
    is a column, null for types that lack it: `locate`, `symbol` (as it stands in the message; null for S V W), `msg_type`,
    `tracking_number` uint16; letters as uint8 (ASCII), counts as uint32, prices as int64 (1e-9 USD), texts as
    dictionary<int32, utf8>. S: `event_code`. R: `market_category`, `financial_status`, `round_lot_size`,
    `round_lots_only`, `issue_classification`, `issue_subtype`, `authenticity`, `short_sale_threshold`, `ipo_flag`,
    `luld_tier`, `etp_flag`, `etp_leverage`, `inverse`. H: `trading_state`, `reason`. Y: `reg_sho_action`. L: `mpid`,
    `primary_market_maker`, `market_maker_mode`, `participant_state`. V: `level1_price` to `level3_price`. W:
    `breached_level`. K: `ipo_release_time` timestamp (midnight for a message's 0), `ipo_release_qualifier`, `ipo_price`.
    J: `collar_reference_price`, `upper_collar_price`, `lower_collar_price`, `collar_extension`. h: `market_code`,
    `operational_halt_action`. N: `interest_flag`. O: `open_eligibility`, `minimum_allowable_price`,
    `maximum_allowable_price`, `near_execution_price`, `near_execution_time` timestamp, `upper_collar_price`,
    `lower_collar_price`. I: `paired_shares` and `imbalance_shares` uint64, `direction`, `far_price`, `near_price`,
    `reference_price`, `cross_type`, `price_variation`.

    `seq` is the number of the message among all in the file, in every table; `ts_event` is midnight of the session's `date`
    in `timezone` plus the message's time, and `ts_recv` the same. Give `date` where the file name does not hold it.

    Messages of other types are counted as dropped, ``not in market.<table>: <type>``; those of unknown types too, skipped by
    their length. A message whose length is wrong, bytes between messages, a cut last message, a stock directory message
    that renames a locate, a side other than B or S, a number too large for its field, and a time beyond the day are bad
    records with their offset (in the unpacked content). Raises GraphError for wrong arguments; `open` raises FormatError for
    an empty file or one of another format. Spec: Nasdaq TotalView-ITCH 5.0; schema: formats, section 6, item 1.
    """

    path: PathLike
    date: str | dt.date | None = None
    timezone: str = "America/New_York"
    table: str = "l3"
    max_orders: int = 1 << 24

    format: ClassVar[str] = "itch50"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table not in TABLES:
            raise GraphError(f"Itch has no table {self.table!r}; choose one of {', '.join(TABLES)}")
        if self.max_orders < 1:
            raise GraphError(f"max_orders={self.max_orders} leaves no room for orders; give at least 1")
        object.__setattr__(self, "date", session_date(self.date, base_name(self.path)))
        midnight_ns(self.session, self.timezone)

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
        prefixed, _ = _examine(self.path)
        detail = split.detail if split is not None else {}
        start = position if position is not None else detail
        return self._reader(open_feed(self.path), prefixed, context, start, detail.get("end"))

    def _reader(
        self, feed: Feed, prefixed: bool, context: Context, position: Position, end: int | None = None
    ) -> SourceReader:
        from ._itch_reader import ItchReader

        return ItchReader(
            feed,
            path=str(self.path),
            table=self.table,
            source=base_name(self.path),
            midnight=midnight_ns(self.session, self.timezone),
            max_orders=self.max_orders,
            prefixed=prefixed,
            context=context,
            position=position,
            end=end,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode the bytes of a message again. The symbol is ``?<locate>``: the directory stands elsewhere in the file.

        None where the bytes alone do not show what was wrong: a damaged packed stream, a locate named twice, an execution of
        an order that was not in the book.
        """
        data = record.data
        if record.operation.startswith("itch.decode"):
            data = len(data).to_bytes(2, "big") + data
        if self.table == "trades" and data[2:3] in (b"E", b"C"):
            return None
        reader = self._reader(BytesFeed(data), data[:2] != b"\0\0", Context("retry"), {"seq": record.seq or 0})
        decoded = [reader.decode(block) for block in reader.blocks()]
        batches = [batch for part in decoded for batch in part.batches]
        bad = [wrong for part in decoded for wrong in part.bad]
        return Decoded(batches, bad) if batches or bad else None

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` parts of about equal size, at message boundaries found by walking the file.

        One if the file is packed, and for ``trades``, where a part would need the orders of those before it.
        """
        if self.table == "trades":
            return super().splits(wanted)
        prefixed, compression = _examine(self.path)
        size = stored_size(self.path)
        if compression != "none" or wanted < 2 or size < 2 * _HEAD:
            return super().splits(wanted)
        from ...pipeline.memory import BufferPool
        from ._itch_reader import Framer

        feed = open_feed(self.path)
        try:
            framer = Framer(feed, prefixed, BufferPool())
            starts: list[dict[str, Any]] = [{"offset": 0, "seq": 0, "directory": 0}]
            for part in range(1, wanted):
                for _ in framer.pieces(until=size * part // wanted):
                    pass
                here = {"offset": framer.offset, "seq": framer.seq, "directory": framer.named_until}
                if starts[-1]["offset"] < here["offset"] < size:
                    starts.append(here)
        finally:
            feed.close()
        ends = [start["offset"] for start in starts[1:]] + [None]
        parts = zip(starts, ends, strict=True)
        return tuple(Split(i, len(starts), {**start, "end": end}) for i, (start, end) in enumerate(parts))

    @property
    def block_bound(self) -> int:
        from ._itch_reader import MESSAGES, READ

        row = row_bytes(self.schema) - 4 + 9 * (self.table == "trades")
        return (READ + MESSAGES * (4 + row + 4)) * 3 // 2


def is_itch(head: bytes, name: str = "") -> bool:
    """Whether a file that begins with `head` (a few KB, unpacked) holds ITCH 5.0 messages. `name` is not needed."""
    return detect(head) is not None


def inspect_itch(path: PathLike) -> dict[str, Any]:
    """What an ITCH 5.0 file holds, found by walking it without decoding: plain values for `penstock inspect`.

    ``format``, ``compression``, ``prefixed``, ``messages`` (bad ones included), ``types`` (letter to name and messages),
    ``tables`` (name to messages; a message may be in two), ``bad``, ``symbols`` (named ones), ``time_range`` (ns since
    midnight, and ISO times where the file name holds the date), ``schema`` (of ``market.l3``), ``error`` (for a damaged
    packed stream). Raises FormatError as `Itch.open` does.
    """
    from ...pipeline.memory import BufferPool
    from ._itch_reader import Framer, survey

    path = location(path)
    prefixed, compression = _examine(path)
    feed = open_feed(path)
    try:
        framer = Framer(feed, prefixed, BufferPool())
        counts, times, bad = survey(framer)
    finally:
        feed.close()
    types = {
        type_label(code): {"name": NAMES.get(chr(code), "unknown type"), "messages": int(counts[code])}
        for code in range(256)
        if counts[code]
    }
    time_range: dict[str, Any] | None = None
    dated = True
    try:
        day = session_date(None, base_name(path))
    except GraphError:
        dated = False
    if times is not None:
        time_range = {"since_midnight_ns": list(times)}
        if dated:
            midnight = midnight_ns(day, "America/New_York")
            time_range["utc"] = [_iso(midnight + time) for time in times]
    return {
        "format": "NASDAQ TotalView-ITCH 5.0",
        "compression": compression,
        "prefixed": prefixed,
        "messages": framer.seq,
        "types": types,
        "tables": {
            f"market.{table}": sum(int(counts[ord(letter)]) for letter in letters) for table, letters in TABLES.items()
        },
        "bad": bad,
        "symbols": int(framer.directory.named.sum()),
        "time_range": time_range,
        "schema": describe(l3_schema("")),
        "options": None if dated else "date='YYYY-MM-DD'",
        "hint": "these are rows of table='l3'; others are " + ", ".join(repr(name) for name in TABLES if name != "l3"),
        "error": feed.error,
    }


def open_itch(path: PathLike, **options: Any) -> Itch:
    """An ITCH 5.0 file as a source: ``market.l3``, or another `table`; `options` are those of `Itch`."""
    return Itch(path, **options)


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:09d}Z"


def _examine(path: PathLike) -> tuple[bool, str]:
    """Whether messages have length prefixes, and how the file is packed. Raises FormatError if it is not ITCH."""
    head, compression = head_of(path, _HEAD)
    whole = len(head) < _HEAD
    return check_format(head, compression=compression, whole=whole, path=location(path)), compression
