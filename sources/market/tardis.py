"""Tardis.dev CSV files: trades, quotes, incremental and snapshot books, derivative tickers.

Spec: https://docs.tardis.dev/downloadable-csv-files. The columns are told by the header's names, the unit of times (us, but
ns in files that were converted) by their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import TIMESTAMP, describe, event_schema
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import BytesFeed, head_of, open_feed

if TYPE_CHECKING:
    from ._ticks_csv import Cells, CsvReader, Dialect

__all__ = ["Tardis", "inspect_tardis", "is_tardis", "open_tardis"]

_HEAD = 1 << 16
_LEADING = ("exchange", "symbol", "timestamp", "local_timestamp")
_QUOTES = ("ask_amount", "ask_price", "bid_price", "bid_amount")
_KINDS = ("trades", "quotes", "incremental_book_L2", "book_snapshot", "derivative_ticker")
_SYMBOL = pa.dictionary(pa.int32(), pa.utf8())
_EXCHANGE = pa.dictionary(pa.int16(), pa.utf8())


@dataclass(frozen=True)
class Tardis(SourceSpec):
    """One Tardis.dev CSV file, plain or packed.

    ``trades`` become ``market.trade``, ``quotes`` and ``book_ticker`` ``market.bbo``, ``incremental_book_L2`` and
    ``book_snapshot_N`` ``market.l2`` (a row for each level; rows of one line share its `seq`), ``derivative_ticker``
    ``market.derivative``; each with `exchange` behind. Prices are int64 of 1e-9 and exact, sizes float64 (the nearest).
    `ts_event` is the venue's time, or `ts_recv` where the venue gave none; `ts_recv` is ``local_timestamp``. `trade_id` is
    the id where that is a number, else the 64-bit FNV-1a hash of its text. The index and mark prices of derivative tickers
    are rounded to 1e-9 (half to even). In an incremental book `last_in_event` marks the last line of a message: the next one
    has another ``local_timestamp``.

    A line that has other fields than the header, or a field that is not what it should be, is a bad record on its own.
    `seq` is the number of the line among those that are not blank. Raises FormatError for a file with another header.
    """

    path: PathLike

    format: ClassVar[str] = "tardis"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))

    @property
    def schema(self) -> pa.Schema:
        return self._dialect().schema

    @property
    def name(self) -> str:
        return base_name(self.path)

    def _dialect(self) -> Dialect:
        path = str(self.path)
        return _dialect(_header(head_of(path, _HEAD)[0], path), base_name(path), path)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        return self._reader(context, position or {}, None)

    def _reader(self, context: Context, position: Position, data: bytes | None) -> CsvReader:
        from ._ticks_csv import CsvReader

        dialect = self._dialect()
        feed = open_feed(self.path) if data is None else BytesFeed(data)
        return CsvReader(feed, path=str(self.path), dialect=dialect, context=context, position=position)

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line again. None for one of which only the beginning was kept, and for a damaged packed stream."""
        return self._reader(Context("retry"), {}, b"").retry(record)

    @property
    def block_bound(self) -> int:
        return 64 << 20


def _header(head: bytes, path: str) -> list[str]:
    if not head:
        raise FormatError(f"{path} is empty")
    names = _names(head)
    if names is None:
        raise FormatError(f"{path} is no Tardis CSV: a header that begins with {','.join(_LEADING)} is expected")
    return names


def _names(head: bytes) -> list[str] | None:
    line = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].strip()
    names = line.decode("latin-1").split(",")
    return names if tuple(names[:4]) == _LEADING and _kind(names) else None


def _kind(names: Sequence[str]) -> str | None:
    """Which of Tardis' data types has these columns."""
    have = set(names[4:])
    if {"id", "side", "price", "amount"} <= have:
        return "trades"
    if set(_QUOTES) <= have:
        return "quotes"
    if {"is_snapshot", "side", "price", "amount"} <= have:
        return "incremental_book_L2"
    if {"asks[0].price", "asks[0].amount", "bids[0].price", "bids[0].amount"} <= have:
        return "book_snapshot"
    return "derivative_ticker" if {"funding_rate", "mark_price"} <= have else None


def _dialect(names: Sequence[str], source: str, path: str) -> Dialect:
    from ._ticks_csv import Dialect, Field

    kinds = {
        "exchange": Field("exchange", "text"),
        "symbol": Field("symbol", "text"),
        "timestamp": Field("timestamp", "stamp", True),
        "local_timestamp": Field("local_timestamp", "stamp"),
        "id": Field("id", "id", True),
        "side": Field("side", "side"),
        "price": Field("price", "price"),
        "amount": Field("amount", "float"),
        "is_snapshot": Field("is_snapshot", "bool"),
        **{name: Field(name, "price" if name.endswith("price") else "float", True) for name in _QUOTES},
        "funding_timestamp": Field("funding_timestamp", "stamp", True),
        **{name: Field(name, "float", True) for name in ("funding_rate", "predicted_funding_rate", "open_interest")},
        **{name: Field(name, "rounded", True) for name in ("last_price", "index_price", "mark_price")},
    }
    for name in names[4:]:
        if name.startswith(("asks[", "bids[")):
            kinds[name] = Field(name, "price" if name.endswith(".price") else "float", True)
    if len(set(names)) < len(names):
        raise FormatError(f"{path}: a column comes twice in its header")
    kind = _kind(names)
    build, own, table = {
        "trades": (_trades, _TRADE, "market.trade"),
        "quotes": (_quotes, _BBO, "market.bbo"),
        "incremental_book_L2": (_updates, _L2, "market.l2"),
        "book_snapshot": (_snapshots, _L2, "market.l2"),
        "derivative_ticker": (_derivatives, _DERIVATIVE, "market.derivative"),
    }[kind or "trades"]
    schema = event_schema(
        [("symbol", _SYMBOL), *own, ("exchange", _EXCHANGE)],
        source=source,
        format="tardis",
        table=table,
        units="price 1e-9, size as given",
    )
    fields = tuple(kinds.get(name, Field(name)) for name in names)
    levels = sum(name.endswith(".price") for name in names)
    return Dialect("tardis", fields, schema, build, header=True, rows=max(1, levels))


_TRADE = [("price", pa.int64()), ("size", pa.float64()), ("side", pa.int8()), ("trade_id", pa.uint64())]
_BBO = [
    *(("bid_px", pa.int64()), ("bid_sz", pa.float64()), ("ask_px", pa.int64()), ("ask_sz", pa.float64())),
    ("update_id", pa.uint64()),
]
_L2 = [
    *(("side", pa.int8()), ("price", pa.int64()), ("size", pa.float64()), ("first_id", pa.uint64())),
    *(("last_id", pa.uint64()), ("prev_id", pa.uint64()), ("is_snapshot", pa.bool_()), ("last_in_event", pa.bool_())),
]
_DERIVATIVE = [
    *(("funding_timestamp", TIMESTAMP), ("funding_rate", pa.float64()), ("predicted_funding_rate", pa.float64())),
    *(
        ("open_interest", pa.float64()),
        ("last_price", pa.int64()),
        ("index_price", pa.int64()),
        ("mark_price", pa.int64()),
    ),
]


def _shared(cells: Cells) -> dict[str, Any]:
    recv, event = cells["local_timestamp"], cells["timestamp"]
    return {
        "ts_event": np.where(event == _NONE, recv, event),
        "ts_recv": recv,
        "seq": cells.seq,
        "symbol": cells.text("symbol", pa.int32()),
        "exchange": cells.text("exchange", pa.int16()),
    }


_NONE = -(1 << 63)


def _trades(cells: Cells) -> Mapping[str, Any]:
    ids = cells["id"]
    return {
        **_shared(cells),
        "price": cells["price"],
        "size": cells["amount"],
        "side": cells["side"].astype(np.int8),
        "trade_id": np.where(ids == _NONE, 0, ids).view(np.uint64),
    }


def _float(cells: Cells, name: str) -> pa.Array:
    values = cells[name]
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def _quotes(cells: Cells) -> Mapping[str, Any]:
    return {
        **_shared(cells),
        "bid_px": cells.number("bid_price"),
        "bid_sz": _float(cells, "bid_amount"),
        "ask_px": cells.number("ask_price"),
        "ask_sz": _float(cells, "ask_amount"),
        "update_id": np.zeros(len(cells), np.uint64),
    }


def _updates(cells: Cells) -> Mapping[str, Any]:
    none = np.zeros(len(cells), np.uint64)
    return {
        **_shared(cells),
        "side": cells["side"].astype(np.int8),
        "price": cells["price"],
        "size": cells["amount"],
        "first_id": none,
        "last_id": none,
        "prev_id": none,
        "is_snapshot": cells["is_snapshot"] == 1,
        "last_in_event": ~cells.next_same("local_timestamp"),
    }


def _snapshots(cells: Cells) -> Mapping[str, Any]:
    """A row for each level that is there: bids from the best, then asks."""
    names = [field.name for field in cells.dialect.fields]
    depth = sum(name.startswith("bids[") and name.endswith(".price") for name in names)
    keys = [f"{side}[{i}]" for side in ("bids", "asks") for i in range(depth) if f"{side}[{i}].price" in cells]
    prices = np.stack([cells[f"{key}.price"] for key in keys], axis=1)
    sizes = np.stack([cells[f"{key}.amount"] for key in keys], axis=1)
    there = (prices != _NONE) & ~np.isnan(sizes)
    line, level = np.nonzero(there)
    sides = np.array([1 if key.startswith("bids") else -1 for key in keys], np.int8)
    shared = {name: _taken(values, line) for name, values in _shared(cells).items()}
    none, last = np.zeros(len(line), np.uint64), np.ones(len(line), np.bool_)
    last[:-1] = line[1:] != line[:-1]
    return {
        **shared,
        "side": sides[level],
        "price": prices[there],
        "size": sizes[there],
        "first_id": none,
        "last_id": none,
        "prev_id": none,
        "is_snapshot": np.ones(len(line), np.bool_),
        "last_in_event": last,
    }


def _taken(values: Any, rows: Any) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else values.take(pa.array(rows))


def _derivatives(cells: Cells) -> Mapping[str, Any]:
    return {
        **_shared(cells),
        "funding_timestamp": cells.number("funding_timestamp").cast(TIMESTAMP),
        **{name: _float(cells, name) for name in ("funding_rate", "predicted_funding_rate", "open_interest")},
        **{name: cells.number(name) for name in ("last_price", "index_price", "mark_price")},
    }


def is_tardis(head: bytes) -> bool:
    """Whether a file that begins with `head` (unpacked) is a Tardis.dev CSV file."""
    return _names(head) is not None


def open_tardis(path: PathLike, **options: Any) -> Tardis:
    """The file as a source. Raises FormatError if it is no Tardis CSV file."""
    if options:
        raise GraphError(f"Tardis takes no option {sorted(options)[0]!r}")
    spec = Tardis(path)
    _ = spec.schema
    return spec


def inspect_tardis(path: PathLike) -> dict[str, Any]:
    """What a Tardis CSV file holds: plain values for `penstock inspect`, found by reading it."""
    from ._ticks_csv_inspect import survey

    spec = open_tardis(path)
    kind = _kind(_header(head_of(str(spec.path), _HEAD)[0], str(spec.path)))
    return {**survey(spec, kind or ""), "schema": describe(spec.schema)}
