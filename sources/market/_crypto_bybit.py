"""Messages of Bybit v5: publicTrade, orderbook.N, tickers.

A book begins with a snapshot in the stream and each change counts ``u`` up by one; ``u`` 1 is a snapshot after a restart.
``S`` is the taker's side. Trade ids are numbers or UUIDs, of which the first 64 bits are kept. A ticker is a best price only
where it has both sides: in futures most hold just what changed.
Source: Bybit v5 WebSocket public channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ._crypto_messages import BadMessage, Event, Message, field_of, identity, levels, milliseconds, price, size, text

__all__ = ["read_bybit"]

_UUID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_SIDES = {"Buy": 1, "Sell": -1}
_OTHERS = ("kline", "liquidation", "allLiquidation", "tickers_lt", "insurance", "priceLimit", "adlAlert")


def read_bybit(message: Any, decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    if not isinstance(message, dict):
        raise BadMessage("the message is no JSON object")
    topic = message.get("topic")
    if not isinstance(topic, str):
        return Message("response" if "op" in message or "success" in message else "other")
    kind = topic.split(".")[0]
    if kind == "publicTrade":
        return Message(kind, [_trade(one, decimals) for one in _objects(message)])
    if kind == "orderbook":
        return Message(kind, [_book(message, topic, decimals)])
    if kind == "tickers":
        return Message(kind, _best(message, decimals))
    return Message(kind if kind in _OTHERS else "other")


def _objects(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    data = field_of(message, "data")
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        raise BadMessage("'data' is no list of objects")
    return data


def _object(message: Mapping[str, Any]) -> Mapping[str, Any]:
    data = field_of(message, "data")
    if not isinstance(data, dict):
        raise BadMessage("'data' is no object")
    return data


def _trade(one: Mapping[str, Any], decimals: int) -> Event:
    side = field_of(one, "S")
    if side not in ("Buy", "Sell"):
        raise BadMessage(f"'S' is {side!r:.60}, neither Buy nor Sell")
    number = field_of(one, "i")
    match = _UUID.fullmatch(number) if isinstance(number, str) else None
    trade_id = int("".join(match.groups()), 16) if match else identity(one, "i")
    row = (price(field_of(one, "p"), decimals), size(field_of(one, "v")), _SIDES[side], trade_id)
    return Event("trade", text(one, "s"), milliseconds(one, "T"), [row])


def _book(message: Mapping[str, Any], topic: str, decimals: int) -> Event:
    data = _object(message)
    kind = field_of(message, "type")
    if kind not in ("snapshot", "delta"):
        raise BadMessage(f"'type' is {kind!r:.60}, neither snapshot nor delta")
    rows = levels(field_of(data, "b"), 1, decimals) + levels(field_of(data, "a"), -1, decimals)
    number = identity(data, "u")
    snapshot = kind == "snapshot" or number == 1
    time = milliseconds(message, "cts" if "cts" in message else "ts")
    return Event(
        "l2",
        text(data, "s"),
        time,
        list(rows),
        number,
        number,
        is_snapshot=snapshot,
        checked=True,
        inside=True,
        book=topic.split(".")[1][:8] if topic.count(".") else "",
    )


def _best(message: Mapping[str, Any], decimals: int) -> list[Event]:
    data = _object(message)
    keys = ("bid1Price", "bid1Size", "ask1Price", "ask1Size")
    if not all(data.get(key) for key in keys):
        return []
    row = (*(read for key in keys for read in [_value(data[key], key, decimals)]), 0)
    return [Event("bbo", text(data, "symbol"), milliseconds(message, "ts"), [row])]


def _value(value: Any, key: str, decimals: int) -> int | float:
    return price(value, decimals) if key.endswith("Price") else size(value)
