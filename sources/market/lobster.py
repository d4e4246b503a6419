"""LOBSTER files: messages of six columns a line, seconds after midnight as an exact decimal, and the books behind them.

books = sources.Lobster("AAPL_2012-06-21_34200000_57600000_orderbook_10.csv")   # its messages are beside it

Spec: https://lobsterdata.com/info/DataStructure.php.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import describe, event_schema
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import BytesFeed, head_of, open_feed
from ._itch_format import l3_schema, midnight_ns, session_date
from ._lobster_levels import MOST_LEVELS, Assemble, book_schema, levels_in, unsound_book

if TYPE_CHECKING:
    from ._lobster_book import BookReader
    from ._ticks_csv import Cells, CsvReader, Dialect

__all__ = ["Lobster", "inspect_lobster", "is_lobster", "open_lobster"]

_HEAD = 1 << 16
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_NAMES = (("_orderbook_", "_message_"), ("_message_", "_orderbook_"))
_LINE = re.compile(rb"\d{1,5}(\.\d{1,12})?,[1-7],(-1|\d+),\d+,-?\d+,-?1\r?$")
#: Letters of ITCH for event types 1 to 7.
_LETTERS = np.frombuffer(b"\0AXDEPQH", np.uint8)
_DAY = 86_400 * 10**9


@dataclass(frozen=True)
class Lobster(SourceSpec):
    """One LOBSTER message file as ``market.l3``, the columns of NASDAQ ITCH files, or with its order book.

    Event types become the letters of ITCH messages: 1 A (submission), 2 X (partial cancellation), 3 D (deletion), 4 E
    (execution of a visible order), 5 P (of a hidden one), 6 Q (cross), 7 H (halt; `price` is then what the file has,
    times 1e5; crosses and halts have no order, their -1 is 0 here). `side` is the direction: 1 for an order to buy, -1 to
    sell. `price` is int64 of 1e-9 USD. `ts_event` is midnight of the session's `date` in `timezone` plus the time, exact to
    the ns; `ts_recv` is the same. `symbol` and
    `date` come from the file's name (``AAPL_2012-06-21_34200000_57600000_message_10.csv``) unless given. What LOBSTER does
    not have is 0.

    ``table="levels"`` gives ``market.levels``, a row for each message with the book behind it: `symbol`, `msg_type`, `side`,
    `order_id`, `price`, `size` and `levels`, fixed_size_list<struct<bid_px, ask_px int64, bid_sz, ask_sz, bid_ct, ask_ct
    uint32>>, best first, as many as the file has. A level that is not there is null, and so are the counts of orders, which
    LOBSTER does not tell. `path` is then the order book's file, with its `messages` beside it: the file of the same name
    with ``message`` for ``orderbook``, unless given (the other way round if `path` names the messages). Without `table`, a
    file whose name has ``_orderbook_`` is an order book. Line i of the book belongs to line i of the messages: a record is
    both lines, and where one of them is bad or blank it is a bad record. A file that ends before the other is told as a bad
    record (``lobster.pair``) at the first line that has none to go with; such lines are dropped, and counted.

    A line with another number of fields, or a field that is not what it should be, is a bad record on its own. `seq` is
    the number of the line among those that are not blank. Raises GraphError if the date or the file of messages is not
    known, FormatError for a file that holds something else.
    """

    path: PathLike
    date: str | dt.date | None = None
    symbol: str | None = None
    timezone: str = "America/New_York"
    table: str | None = None
    messages: PathLike | None = None

    format: ClassVar[str] = "lobster"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table is None:
            book = self.messages is not None or "_orderbook_" in base_name(self.path)
            object.__setattr__(self, "table", "levels" if book else "l3")
        if self.table not in ("l3", "levels"):
            raise GraphError(f"Lobster has no table {self.table!r}; choose l3 or levels")
        if self.table == "l3" and self.messages is not None:
            raise GraphError("Lobster: messages= goes with an order book, table='levels'")
        if self.table == "levels":
            self._find_messages()
        name = base_name(self.path)
        if self.date is None and not _DATE.search(name) and self.messages is not None:
            name = base_name(self.messages)
        found = _DATE.search(name)
        if self.date is None and not found:
            raise GraphError(
                f"the name {name!r} does not hold the session's date: give Lobster(path, date='2012-06-21')"
            )
        day = self.date if self.date is not None else found[0] if found else None
        object.__setattr__(self, "date", session_date(day, name))
        if self.symbol is None:
            object.__setattr__(self, "symbol", name.split("_")[0].split(".")[0] or "?")
        midnight_ns(session_date(self.date, ""), self.timezone)

    def _find_messages(self) -> None:
        """Say which of the two files is which, by their names if `messages` is not given."""
        path = str(self.path)
        name, place = base_name(path), path.rfind(base_name(path))
        swapped = {a: f"{path[:place]}{name.replace(a, b)}{path[place + len(name) :]}" for a, b in _NAMES if a in name}
        if self.messages is not None:
            object.__setattr__(self, "messages", location(self.messages))
        elif "_orderbook_" in swapped:
            object.__setattr__(self, "messages", swapped["_orderbook_"])
        elif "_message_" in swapped:
            object.__setattr__(self, "messages", path)
            object.__setattr__(self, "path", swapped["_message_"])
        else:
            raise GraphError(
                f"the times of the order book {name!r} are in its file of messages, which its name does not tell: "
                "give Lobster(path, messages='..._message_10.csv')"
            )

    @property
    def schema(self) -> pa.Schema:
        if self.table == "levels":
            return book_schema(self._levels(), base_name(self.path))
        return self._orders_schema()

    def _orders_schema(self) -> pa.Schema:
        source = l3_schema("")
        return event_schema(
            [source.field(i) for i in range(3, len(source))],
            source=base_name(self.path),
            format="lobster",
            clock="exchange",
            units="price 1e-9 USD, size shares",
        )

    @property
    def name(self) -> str:
        return base_name(self.path)

    def _dialect(self) -> Dialect:
        from ._ticks_csv import Dialect, Field

        fields = (
            *(Field("time", "seconds"), Field("type", "int"), Field("order_id", "int"), Field("size", "int")),
            *(Field("price", "int"), Field("direction", "int")),
        )
        midnight = midnight_ns(session_date(self.date, ""), self.timezone)
        constants = {"symbol": self.symbol, "midnight": midnight}
        return Dialect("lobster", fields, self._orders_schema(), _orders, constants=constants, check=_unsound)

    def _levels(self) -> int:
        """How many levels the book has."""
        path = str(self.path)
        levels = levels_in(_text_head(path), strict=False)
        if not levels:
            raise FormatError(
                f"{path} is no LOBSTER order book: four whole numbers a level are expected on each line, "
                f"of {MOST_LEVELS} levels at most"
            )
        return levels

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        if self.table == "l3":
            _text_head(str(self.path))
            return self._reader(context, position or {}, None)
        wrong = ""
        try:
            wrong = "" if _messages_in(_text_head(str(self.messages))) else "is no LOBSTER message file"
        except FileNotFoundError:
            wrong = "is not there"
        if wrong:
            raise FormatError(
                f"{self.messages}, where the times of the order book {self.path} should be, {wrong}: "
                "name it with Lobster(path, messages='...')"
            )
        return self._book_reader(context, position or {})

    def _reader(self, context: Context, position: Position, data: bytes | None) -> CsvReader:
        from ._ticks_csv import CsvReader

        feed = open_feed(self.path) if data is None else BytesFeed(data)
        return CsvReader(feed, path=str(self.path), dialect=self._dialect(), context=context, position=position)

    def _book_reader(self, context: Context, position: Position, *, real: bool = True) -> BookReader:
        from ._lobster_book import BookReader
        from ._ticks_csv import CsvReader, Dialect, Field

        levels, orders = self._levels(), self._dialect()
        names = [f"{way}_{what}_{i + 1}" for i in range(levels) for way in ("ask", "bid") for what in ("px", "sz")]
        schema = book_schema(levels, base_name(self.path))
        fields = tuple(Field(name, "int") for name in names)
        book = Dialect("lobster", fields, schema, lambda cells: {}, check=unsound_book)
        files = {"messages": (str(self.messages), orders), "book": (str(self.path), book)}
        readers: dict[str, CsvReader] = {}
        try:
            for key, (path, dialect) in files.items():
                feed, at = open_feed(path) if real else BytesFeed(b""), position.get(key, {})
                readers[key] = CsvReader(feed, path=path, dialect=dialect, context=context, position=at)
        except BaseException:
            for reader in readers.values():
                reader.close()
            raise
        return BookReader(readers["messages"], readers["book"], Assemble(schema, orders, book), position)

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line (or a line of messages and one of the book) again.

        None for one of which only the beginning was kept, and for a damaged packed stream.
        """
        if self.table == "levels":
            return self._book_reader(Context("retry"), {}, real=False).retry(record)
        return self._reader(Context("retry"), {}, b"").retry(record)

    @property
    def block_bound(self) -> int:
        return 64 << 20


def _text_head(path: str) -> bytes:
    """The beginning of the content. Raises FormatError if there is none or it is no text."""
    head = head_of(path, _HEAD)[0]
    if not head.strip():
        raise FormatError(f"{path} is empty")
    if b"\0" in head[:4096]:
        raise FormatError(f"{path} begins with {head[:16].hex(' ')}, which is no text")
    return head


def _unsound(cells: Cells) -> Mapping[str, Any]:
    """Lines whose values cannot be, by what is wrong."""
    time, kind, size, price = cells["time"], cells["type"], cells["size"], cells["price"]
    return {
        "the time is not within a day": (time < 0) | (time > _DAY + 3600 * 10**9),
        "the type is not 1 to 7": (kind < 1) | (kind > 7),
        "the order id is negative": (cells["order_id"] < -1) | ((cells["order_id"] == -1) & (kind < 6)),
        "the size does not fit 32 bits": (size < 0) | (size >= 1 << 32),
        "the price does not fit 64 bits": np.abs(price) > (1 << 63) // 100_000 - 1,
        "the direction is not 1 or -1": np.abs(cells["direction"]) != 1,
    }


def _orders(cells: Cells) -> Mapping[str, Any]:
    times = cells["time"] + cells.dialect.constants["midnight"]
    none = np.zeros(len(cells), np.uint64)
    symbols = pa.array([cells.dialect.constants["symbol"]], pa.utf8())
    return {
        "ts_event": times,
        "ts_recv": times,
        "seq": cells.seq,
        "locate": np.zeros(len(cells), np.uint16),
        "symbol": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(cells), np.int32)), symbols),
        "msg_type": _LETTERS[cells["type"]],
        "side": cells["direction"].astype(np.int8),
        "order_id": np.maximum(cells["order_id"], 0).view(np.uint64),
        "new_order_id": none,
        "price": cells["price"] * 100_000,
        "size": cells["size"].astype(np.uint32),
        "match_id": none,
        "flags": np.zeros(len(cells), np.uint8),
    }


def _messages_in(head: bytes) -> bool:
    lines = head.split(b"\n")
    whole = [line for line in (lines[:-1] or lines)[:20] if line.strip()]
    return bool(whole) and 3 * sum(_LINE.match(line) is not None for line in whole) >= 2 * len(whole)


def is_lobster(head: bytes) -> bool:
    """Whether a file that begins with `head` (unpacked) is a LOBSTER message file or order book."""
    return _messages_in(head) or levels_in(head) > 0


def open_lobster(path: PathLike, **options: Any) -> Lobster:
    """The file as a source, of the table that it holds; `options` are those of `Lobster`.

    Raises FormatError if it is neither a LOBSTER message file nor an order book.
    """
    head = head_of(location(path), _HEAD)[0]
    if not _messages_in(head) and levels_in(head):
        if "messages" not in options and "_orderbook_" not in base_name(path):
            raise FormatError(
                f"{location(path)} is an order book of LOBSTER, and its name does not tell the file of messages beside it "
                "that has its times: give sources.Lobster(path, messages='..._message_10.csv')"
            )
        return Lobster(path, **{"table": "levels", **options})
    if not _messages_in(head):
        raise FormatError(
            f"{location(path)} is no LOBSTER file: lines of six columns of numbers (messages), or of four whole numbers a "
            "level (an order book), are expected"
        )
    return Lobster(path, **({} if "messages" in options else {"table": "l3"}) | options)


def inspect_lobster(path: PathLike) -> dict[str, Any]:
    """What a LOBSTER file holds, an order book with its messages: plain values for `penstock inspect`, found by reading."""
    from ._ticks_csv_inspect import survey

    spec = open_lobster(path)
    if spec.table == "l3":
        return {**survey(spec, "message"), "schema": describe(spec.schema)}
    return {**survey(spec, "message with its book"), "schema": describe(spec.schema)}
