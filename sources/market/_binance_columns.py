"""What the columns of Binance's CSV files are, by their header or by their first line."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["KINDS", "TYPES", "examine"]

_BOOLS = frozenset({"true", "false"})
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?$")
_DAY = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")

#: What each kind's columns are called, by the names that headers have for them.
KINDS: dict[str, dict[str, str]] = {
    "trades": {
        "id": "id",
        "trade_id": "id",
        "price": "price",
        "qty": "qty",
        "time": "time",
        "is_buyer_maker": "maker",
    },
    "aggTrades": {
        "agg_trade_id": "id",
        "price": "price",
        "quantity": "qty",
        "transact_time": "time",
        "timestamp": "time",
        "is_buyer_maker": "maker",
        "a": "id",
        "p": "price",
        "q": "qty",
        "T": "time",
        "m": "maker",
    },
    "bookTicker": {
        "update_id": "id",
        "best_bid_price": "bid_px",
        "best_bid_qty": "bid_sz",
        "best_ask_price": "ask_px",
        "best_ask_qty": "ask_sz",
        "transaction_time": "time",
        "event_time": "event",
    },
    "klines": {
        "open_time": "time",
        **{name: name for name in ("open", "high", "low", "close", "volume", "quote_volume", "count")},
        "close_time": "event",
        "quote_asset_volume": "quote_volume",
        "number_of_trades": "count",
        "taker_buy_volume": "taker_volume",
        "taker_buy_quote_volume": "taker_quote_volume",
        "taker_buy_base_asset_volume": "taker_volume",
        "taker_buy_quote_asset_volume": "taker_quote_volume",
    },
    "bookDepth": {"timestamp": "day", "percentage": "percentage", "depth": "depth", "notional": "notional"},
    "depth": {
        "symbol": "symbol",
        "timestamp": "time",
        "first_update_id": "first",
        "last_update_id": "last",
        "side": "side",
        "update_type": "update",
        "price": "price",
        "qty": "qty",
        "pu": "prev",
    },
}
#: Without a header: kind by the number of columns and where true and false stand, and what is in each column.
_PLAIN: dict[tuple[int, tuple[int, ...]], tuple[str, str]] = {
    (6, (5,)): ("trades", "id price qty - time maker"),
    (7, (5, 6)): ("trades", "id price qty - time maker -"),
    (7, (6,)): ("aggTrades", "id price qty - - time maker"),
    (8, (6, 7)): ("aggTrades", "id price qty - - time maker -"),
    (7, ()): ("bookTicker", "id bid_px bid_sz ask_px ask_sz time event"),
    (12, ()): ("klines", "time open high low close volume event quote_volume count taker_volume taker_quote_volume -"),
}
TYPES = {
    "id": "int",
    "price": "price",
    "qty": "float",
    "time": "stamp",
    "event": "stamp",
    "maker": "bool",
    "day": "datetime",
    **dict.fromkeys(("bid_px", "ask_px", "open", "high", "low", "close"), "price"),
    **dict.fromkeys(("bid_sz", "ask_sz", "percentage", "depth", "notional", "volume", "quote_volume"), "float"),
    **dict.fromkeys(("taker_volume", "taker_quote_volume"), "float"),
    "count": "int",
    "symbol": "text",
    "update": "text",
    "side": "side",
    "first": "int",
    "last": "int",
    "prev": "int",
}


def examine(head: bytes) -> tuple[str, tuple[str, ...], bool] | None:
    """Kind, our names of the columns ("-" for those that are not read), and whether there is a header."""
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 2)
    first = lines[0].strip().decode("latin-1").split(",")
    if (names := _by_header(first)) is not None:
        return *names, True
    if not all(_NUMBER.match(part) or part.lower() in _BOOLS for part in first):
        return None
    bools = tuple(i for i, part in enumerate(first) if part.lower() in _BOOLS)
    found = _PLAIN.get((len(first), bools))
    if found is None or not first[0].isdigit():
        return None
    kind, columns = found
    names_of = tuple(columns.split())
    time = first[names_of.index("time")]
    return (kind, names_of, False) if time.isdigit() and len(time) in (10, 13, 16, 19) else None


def _by_header(names: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    for kind, known in KINDS.items():
        found = tuple(known.get(name, "-") for name in names)
        needed = set(known.values()) - {"prev", "event"}
        if (
            needed <= set(found)
            and len(set(names)) == len(names)
            and len(found) - found.count("-") == len(set(found) - {"-"})
        ):
            return kind, found
    return None
