"""The tables that crypto messages become, and their schemas (formats, section 6, item 3)."""

from __future__ import annotations

import pyarrow as pa

from ...pipeline.schema import event_schema

__all__ = ["TABLES", "crypto_schema"]

_SYMBOL = pa.field("symbol", pa.dictionary(pa.int32(), pa.utf8()), nullable=False)


def _fields(**kinds: pa.DataType) -> list[pa.Field]:
    return [_SYMBOL, *(pa.field(name, kind, nullable=False) for name, kind in kinds.items())]


_TRADE = _fields(price=pa.int64(), size=pa.float64(), side=pa.int8(), trade_id=pa.uint64())
#: Columns of each table behind the three of every source.
TABLES: dict[str, list[pa.Field]] = {
    "bbo": _fields(
        bid_px=pa.int64(), bid_sz=pa.float64(), ask_px=pa.int64(), ask_sz=pa.float64(), update_id=pa.uint64()
    ),
    "trade": _TRADE,
    "agg_trade": _TRADE,
    "l2": _fields(
        side=pa.int8(),
        price=pa.int64(),
        size=pa.float64(),
        first_id=pa.uint64(),
        last_id=pa.uint64(),
        prev_id=pa.uint64(),
        is_snapshot=pa.bool_(),
        last_in_event=pa.bool_(),
    ),
}


def crypto_schema(table: str, source: str, venue: str, price_decimals: int) -> pa.Schema:
    """The schema of ``market.<table>``, with the venue, the price unit and where the event time comes from."""
    metadata = {
        "units": f"price 1e-{price_decimals}, size as the venue gives it, ids the venue's",
        "price_scale": f"1e-{price_decimals}",
        "venue": venue,
        "table": f"market.{table}",
        "event_time": "ts_recv" if (venue, table) == ("binance-spot", "bbo") else "venue",
    }
    return event_schema(TABLES[table], source=source, format="crypto-raw", clock="exchange", **metadata)
