"""Messages of Binance spot, USD-M and COIN-M, alone or as ``{"stream": .., "data": ..}``, and their REST snapshots.

Times are ms (``T`` of the matching engine, else ``E`` of the event). Spot's bookTicker has none. ``m``: the buyer was the
maker, so the aggressor sold. A partial book (``@depth20``) is a snapshot of its few levels; in futures it looks like a
change and only the name of its stream tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ._crypto_messages import BadMessage, Event, Message, field_of, identity, levels, milliseconds, price, size, text

__all__ = ["read_binance"]

_PARTIAL = re.compile(r"@depth[0-9]")
_BEST = frozenset("usbBaA")
_OTHERS = frozenset(
    (
        *(
            "kline",
            "continuous_kline",
            "indexPrice_kline",
            "markPrice_kline",
            "24hrTicker",
            "24hrMiniTicker",
            "1hTicker",
        ),
        *("4hTicker", "1dTicker", "avgPrice", "markPriceUpdate", "indexPriceUpdate", "forceOrder", "compositeIndex"),
        *("contractInfo", "assetIndexUpdate", "openInterest", "rpiDepthUpdate", "serverShutdown"),
    )
)


def read_binance(message: Any, decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    stream = ""
    if isinstance(message, dict) and "stream" in message and "data" in message:
        stream, message = message["stream"], message["data"]
        if not isinstance(stream, str):
            raise BadMessage(f"the stream is {stream!r:.60}, no name")
    if isinstance(message, list):  # streams of all symbols, such as !ticker@arr
        return Message("array")
    if not isinstance(message, dict):
        raise BadMessage("the message is no JSON object")
    kind = message.get("e")
    if kind == "bookTicker" or (kind is None and message.keys() >= _BEST):
        return Message("bookTicker", [_best(message, decimals)])
    if kind == "trade":
        return Message("trade", [_trade(message, decimals, "trade", "t")])
    if kind == "aggTrade":
        return Message("aggTrade", [_trade(message, decimals, "agg_trade", "a")])
    if kind == "depthUpdate":
        return Message("depthUpdate", [_change(message, decimals, _PARTIAL.search(stream) is not None)])
    if kind is None and "lastUpdateId" in message:
        return Message("snapshot", [_snapshot(message, decimals, stream)])
    if kind is None and ("result" in message or "error" in message):
        return Message("response")
    return Message(kind if isinstance(kind, str) and kind in _OTHERS else "other")


def _time(message: Mapping[str, Any]) -> int | None:
    for key in ("T", "E"):
        if key in message:
            return milliseconds(message, key)
    return None


def _needed_time(message: Mapping[str, Any]) -> int:
    time = _time(message)
    if time is None:
        raise BadMessage("'T' and 'E' are missing")
    return time


def _best(message: Mapping[str, Any], decimals: int) -> Event:
    row = (
        price(field_of(message, "b"), decimals),
        size(field_of(message, "B")),
        price(field_of(message, "a"), decimals),
        size(field_of(message, "A")),
        identity(message, "u"),
    )
    return Event("bbo", text(message, "s"), _time(message), [row])


def _trade(message: Mapping[str, Any], decimals: int, table: str, key: str) -> Event:
    maker = field_of(message, "m")
    if not isinstance(maker, bool):
        raise BadMessage(f"'m' is {maker!r:.60}, neither true nor false")
    row = (
        price(field_of(message, "p"), decimals),
        size(field_of(message, "q")),
        -1 if maker else 1,
        identity(message, key),
    )
    return Event(table, text(message, "s"), _needed_time(message), [row])


def _change(message: Mapping[str, Any], decimals: int, partial: bool) -> Event:
    rows = levels(field_of(message, "b"), 1, decimals) + levels(field_of(message, "a"), -1, decimals)
    return Event(
        "l2",
        text(message, "s"),
        _needed_time(message),
        list(rows),
        identity(message, "U"),
        identity(message, "u"),
        identity(message, "pu") if "pu" in message else None,
        is_snapshot=partial,
        checked=not partial,
    )


def _snapshot(message: Mapping[str, Any], decimals: int, stream: str) -> Event:
    rows = levels(field_of(message, "bids"), 1, decimals) + levels(field_of(message, "asks"), -1, decimals)
    symbol = None
    if "symbol" in message:
        symbol = text(message, "symbol")
    elif "@" in stream:
        symbol = text({"stream": stream.split("@")[0].upper()}, "stream")
    last = identity(message, "lastUpdateId")
    return Event("l2", symbol, _time(message), list(rows), last, last, is_snapshot=True, checked=not stream)
