"""Binance Vision CSV files: trades, aggregate trades, klines, best quotes, order book updates and depth percentages.

Spec: https://github.com/binance/binance-public-data. Files of different years and markets have a header or not, times in ms
or us, and six to eight columns; what a file holds is told by its header, else by its first line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ._binance_columns import KINDS, TYPES, examine

if TYPE_CHECKING:
    from ._ticks_csv import Cells, CsvReader, Dialect

__all__ = ["BinanceCsv", "inspect_binance_csv", "is_binance_csv", "open_binance_csv"]

_HEAD = 1 << 16
_SYMBOL = pa.dictionary(pa.int32(), pa.utf8())


@dataclass(frozen=True)
class BinanceCsv(SourceSpec):
    """One CSV file of Binance's public data, as it is published (a ``.zip``), unpacked, or packed otherwise.

    ``trades`` and ``aggTrades`` become ``market.trade`` (`side` is the aggressor's), ``bookTicker`` ``market.bbo``, the
    updates of ``depth`` ``market.l2``, ``bookDepth`` ``market.depth`` (`percentage`, `depth`, `notional`: float64), and
    ``klines`` (those of index, mark price and premium index too) ``market.ohlcv``: `open`, `high`, `low`, `close` int64,
    `volume`, `quote_volume`, `taker_volume`, `taker_quote_volume` float64, `count` uint64 (trades). `symbol` is the first
    part of the file's name, unless given. Prices are int64 of 1e-9 and exact, sizes float64 (the nearest).
    Times in s, ms, us and ns are told by their size. `ts_recv` is `ts_event`, except for ``bookTicker``, where `ts_event` is
    the transaction's time and `ts_recv` the event's, and for ``klines``, where they are when one opens and closes.

    A line with another number of fields, or a field that is not what it should be, is a bad record on its own. `seq` is the
    number of the line among those that are not blank. Raises FormatError for a file that holds something else.
    """

    path: PathLike
    symbol: str | None = None

    format: ClassVar[str] = "binance_csv"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.symbol == "":
            raise GraphError("BinanceCsv needs a symbol that is not empty")

    @property
    def schema(self) -> pa.Schema:
        return self._dialect().schema

    @property
    def name(self) -> str:
        return base_name(self.path)

    def _dialect(self) -> Dialect:
        path = str(self.path)
        head = head_of(path, _HEAD)[0]
        if not head.strip():
            raise FormatError(f"{path} is empty")
        found = examine(head)
        if found is None:
            kinds = ", ".join(KINDS)
            raise FormatError(f"{path} begins with {head[:60]!r}, which is none of Binance's {kinds}")
        symbol = self.symbol or base_name(path).split("-")[0].split(".")[0] or "?"
        return _dialect(*found, symbol, base_name(path))

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


def _dialect(kind: str, names: Sequence[str], header: bool, symbol: str, source: str) -> Dialect:
    from ._ticks_csv import Dialect, Field

    build, own, table = {
        "trades": (_trades, _TRADE, "market.trade"),
        "aggTrades": (_trades, _TRADE, "market.trade"),
        "bookTicker": (_quotes, _BBO, "market.bbo"),
        "depth": (_updates, _L2, "market.l2"),
        "bookDepth": (_depths, _DEPTH, "market.depth"),
        "klines": (_klines, _OHLCV, "market.ohlcv"),
    }[kind]
    fields = tuple(Field(name, TYPES[name]) if name != "-" else Field(f"column {i}") for i, name in enumerate(names, 1))
    schema = event_schema(
        [("symbol", _SYMBOL), *own], source=source, format="binance_csv", table=table, units="price 1e-9, size as given"
    )
    return Dialect("binance_csv", fields, schema, build, header=header, constants={"symbol": symbol})


_TRADE = [("price", pa.int64()), ("size", pa.float64()), ("side", pa.int8()), ("trade_id", pa.uint64())]
_BBO = [
    *(("bid_px", pa.int64()), ("bid_sz", pa.float64()), ("ask_px", pa.int64()), ("ask_sz", pa.float64())),
    ("update_id", pa.uint64()),
]
_L2 = [
    *(("side", pa.int8()), ("price", pa.int64()), ("size", pa.float64()), ("first_id", pa.uint64())),
    *(("last_id", pa.uint64()), ("prev_id", pa.uint64()), ("is_snapshot", pa.bool_()), ("last_in_event", pa.bool_())),
]
_OHLCV = [
    *((name, pa.int64()) for name in ("open", "high", "low", "close")),
    *(("volume", pa.float64()), ("quote_volume", pa.float64()), ("count", pa.uint64())),
    *(("taker_volume", pa.float64()), ("taker_quote_volume", pa.float64())),
]
_DEPTH = [("percentage", pa.float64()), ("depth", pa.float64()), ("notional", pa.float64())]


def _shared(cells: Cells, event: str, recv: str | None = None) -> dict[str, Any]:
    times = cells[event]
    if "symbol" in cells:
        symbol = cells.text("symbol", pa.int32())
    else:
        indices = pa.array(np.zeros(len(cells), np.int32))
        symbol = pa.DictionaryArray.from_arrays(indices, pa.array([cells.dialect.constants["symbol"]]))
    seen = times if recv is None or recv not in cells else cells[recv]
    return {"ts_event": times, "ts_recv": seen, "seq": cells.seq, "symbol": symbol}


def _trades(cells: Cells) -> Mapping[str, Any]:
    return {
        **_shared(cells, "time"),
        "price": cells["price"],
        "size": cells["qty"],
        "trade_id": cells["id"].view(np.uint64),
        "side": np.where(cells["maker"] == 1, -1, 1).astype(np.int8),
    }


def _quotes(cells: Cells) -> Mapping[str, Any]:
    names = ("bid_px", "bid_sz", "ask_px", "ask_sz")
    return {
        **_shared(cells, "time", "event"),
        **{name: cells[name] for name in names},
        "update_id": cells["id"].view(np.uint64),
    }


def _updates(cells: Cells) -> Mapping[str, Any]:
    updates = cells.text("update", pa.int32())
    snapshot = np.array([value.startswith("snap") for value in updates.dictionary.to_pylist()], np.bool_)
    previous = cells["prev"] if "prev" in cells else np.zeros(len(cells), np.int64)
    return {
        **_shared(cells, "time"),
        "side": cells["side"].astype(np.int8),
        "price": cells["price"],
        "size": cells["qty"],
        "first_id": cells["first"].view(np.uint64),
        "last_id": cells["last"].view(np.uint64),
        "prev_id": previous.view(np.uint64),
        "is_snapshot": snapshot[np.asarray(updates.indices)],
        "last_in_event": ~cells.next_same("last"),
    }


def _klines(cells: Cells) -> Mapping[str, Any]:
    names = [name for name, _ in _OHLCV if name != "count"]
    shared = _shared(cells, "time", "event")
    return {**shared, **{name: cells[name] for name in names}, "count": cells["count"].view(np.uint64)}


def _depths(cells: Cells) -> Mapping[str, Any]:
    return {**_shared(cells, "day"), **{name: cells[name] for name in ("percentage", "depth", "notional")}}


def is_binance_csv(head: bytes) -> bool:
    """Whether a file that begins with `head` (unpacked) is one of Binance's CSV files."""
    return examine(head) is not None


def open_binance_csv(path: PathLike, **options: Any) -> BinanceCsv:
    """The file as a source; `options` are those of `BinanceCsv`. Raises FormatError if it is none of these."""
    spec = BinanceCsv(path, **options)
    _ = spec.schema
    return spec


def inspect_binance_csv(path: PathLike) -> dict[str, Any]:
    """What a Binance CSV file holds: plain values for `penstock inspect`, found by reading it."""
    from ._ticks_csv_inspect import survey

    spec = open_binance_csv(path)
    found = examine(head_of(str(spec.path), _HEAD)[0])
    return {**survey(spec, found[0] if found else ""), "schema": describe(spec.schema)}
