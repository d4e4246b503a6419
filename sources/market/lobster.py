"""LOBSTER message files: six columns a line, seconds after midnight as an exact decimal.

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

if TYPE_CHECKING:
    from ._ticks_csv import Cells, CsvReader, Dialect

__all__ = ["Lobster", "inspect_lobster", "is_lobster", "open_lobster"]

_HEAD = 1 << 16
_LINE = re.compile(rb"\d{1,5}(\.\d{1,12})?,[1-7],(-1|\d+),\d+,-?\d+,-?1\r?$")
#: Letters of ITCH for event types 1 to 7.
_LETTERS = np.frombuffer(b"\0AXDEPQH", np.uint8)
_DAY = 86_400 * 10**9


@dataclass(frozen=True)
class Lobster(SourceSpec):
    """One LOBSTER message file as ``market.l3``, the columns of NASDAQ ITCH files.

    Event types become the letters of ITCH messages: 1 A (submission), 2 X (partial cancellation), 3 D (deletion), 4 E
    (execution of a visible order), 5 P (of a hidden one), 6 Q (cross), 7 H (halt; `price` is then what the file has,
    times 1e5; crosses and halts have no order, their -1 is 0 here). `side` is the direction: 1 for an order to buy, -1 to
    sell. `price` is int64 of 1e-9 USD. `ts_event` is midnight of the session's `date` in `timezone` plus the time, exact to
    the ns; `ts_recv` is the same. `symbol` and
    `date` come from the file's name (``AAPL_2012-06-21_34200000_57600000_message_10.csv``) unless given. What LOBSTER does
    not have is 0.

    A line with another number of fields, or a field that is not what it should be, is a bad record on its own. `seq` is
    the number of the line among those that are not blank. Raises GraphError if the date is not known, FormatError for a
    file that holds something else.
    """

    path: PathLike
    date: str | dt.date | None = None
    symbol: str | None = None
    timezone: str = "America/New_York"

    format: ClassVar[str] = "lobster"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        name = base_name(self.path)
        if self.date is None and not re.search(r"\d{4}-\d\d-\d\d", name):
            raise GraphError(
                f"the name {name!r} does not hold the session's date: give Lobster(path, date='2012-06-21')"
            )
        found = re.search(r"\d{4}-\d\d-\d\d", name)
        day = self.date if self.date is not None else found[0] if found else None
        object.__setattr__(self, "date", session_date(day, name))
        if self.symbol is None:
            object.__setattr__(self, "symbol", name.split("_")[0].split(".")[0] or "?")
        midnight_ns(session_date(self.date, ""), self.timezone)

    @property
    def schema(self) -> pa.Schema:
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
        return Dialect("lobster", fields, self.schema, _orders, constants=constants, check=_unsound)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        path = str(self.path)
        head = head_of(path, _HEAD)[0]
        if not head.strip():
            raise FormatError(f"{path} is empty")
        if b"\0" in head[:4096]:
            raise FormatError(f"{path} begins with {head[:16].hex(' ')}, which is no text")
        return self._reader(context, position or {}, None)

    def _reader(self, context: Context, position: Position, data: bytes | None) -> CsvReader:
        from ._ticks_csv import CsvReader

        feed = open_feed(self.path) if data is None else BytesFeed(data)
        return CsvReader(feed, path=str(self.path), dialect=self._dialect(), context=context, position=position)

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line again. None for one of which only the beginning was kept, and for a damaged packed stream."""
        return self._reader(Context("retry"), {}, b"").retry(record)

    @property
    def block_bound(self) -> int:
        return 64 << 20


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


def is_lobster(head: bytes) -> bool:
    """Whether a file that begins with `head` (unpacked) is a LOBSTER message file."""
    lines = head.split(b"\n")
    whole = [line for line in (lines[:-1] or lines)[:20] if line.strip()]
    return bool(whole) and 3 * sum(_LINE.match(line) is not None for line in whole) >= 2 * len(whole)


def open_lobster(path: PathLike, **options: Any) -> Lobster:
    """The file as a source; `options` are those of `Lobster`. Raises FormatError if it is no LOBSTER message file."""
    spec = Lobster(path, **options)
    if not is_lobster(head_of(str(spec.path), _HEAD)[0]):
        raise FormatError(f"{spec.path} is no LOBSTER message file: six columns of numbers a line are expected")
    return spec


def inspect_lobster(path: PathLike) -> dict[str, Any]:
    """What a LOBSTER message file holds: plain values for `penstock inspect`, found by reading it."""
    from ._ticks_csv_inspect import survey

    spec = open_lobster(path)
    return {**survey(spec, "message"), "schema": describe(spec.schema)}
