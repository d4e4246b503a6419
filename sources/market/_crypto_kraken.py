"""Messages of Kraken v2: trade, book and ticker; those of v1 beside it.

Prices and sizes are JSON numbers, read from their text. A book has no numbers but a checksum of its ten best levels on each
side, by which a gap shows. A snapshot of trades repeats those from before the subscription and is no row. ``side``
of a trade is the taker's.
Source: Kraken Spot WebSocket API v2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._crypto_checksum import TextLevel
from ._crypto_kraken_v1 import is_first_version, read_first_version
from ._crypto_messages import BadMessage, Event, Message, field_of, identity, iso_ns, price, size, text

__all__ = ["read_kraken"]

_SIDES = {"buy": 1, "sell": -1}
_OTHERS = frozenset(("heartbeat", "status", "instrument", "ohlc", "level3"))


def read_kraken(message: Any, decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    if is_first_version(message):
        return read_first_version(message, decimals)
    if not isinstance(message, dict):
        raise BadMessage("the message is no JSON object")
    channel = message.get("channel")
    if channel not in ("trade", "book", "ticker"):
        if "method" in message or message.get("event") in ("subscriptionStatus", "systemStatus"):
            return Message("response")
        if message.get("event") == "heartbeat":
            return Message("heartbeat")
        return Message(channel if isinstance(channel, str) and channel in _OTHERS else "other")
    data = field_of(message, "data")
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        raise BadMessage("'data' is no list of objects")
    kind = field_of(message, "type")
    if kind not in ("snapshot", "update"):
        raise BadMessage(f"'type' is {kind!r:.60}, neither snapshot nor update")
    if channel == "book":
        return Message("book", [_book(one, kind == "snapshot", decimals) for one in data])
    if channel == "ticker":
        return Message("ticker", [_best(one, decimals) for one in data])
    if kind == "snapshot":
        return Message("trade snapshot")
    return Message("trade", [_trade(one, decimals) for one in data])


def _time(one: Mapping[str, Any]) -> int | None:
    return iso_ns(one, "timestamp") if "timestamp" in one else None


def _trade(one: Mapping[str, Any], decimals: int) -> Event:
    side = field_of(one, "side")
    if side not in ("buy", "sell"):
        raise BadMessage(f"'side' is {side!r:.60}, neither buy nor sell")
    row = (price(field_of(one, "price"), decimals), size(field_of(one, "qty")), _SIDES[side], identity(one, "trade_id"))
    return Event("trade", text(one, "symbol"), iso_ns(one, "timestamp"), [row])


def _best(one: Mapping[str, Any], decimals: int) -> Event:
    row = (
        price(field_of(one, "bid"), decimals),
        size(field_of(one, "bid_qty")),
        price(field_of(one, "ask"), decimals),
        size(field_of(one, "ask_qty")),
        0,
    )
    return Event("bbo", text(one, "symbol"), _time(one), [row])


def _levels(one: Mapping[str, Any], key: str) -> list[tuple[Any, Any]]:
    found = one.get(key, [])
    if not isinstance(found, list) or not all(isinstance(level, dict) for level in found):
        raise BadMessage(f"{key!r} is no list of levels")
    return [(field_of(level, "price"), field_of(level, "qty")) for level in found]


def _book(one: Mapping[str, Any], snapshot: bool, decimals: int) -> Event:
    rows: list[tuple[Any, ...]] = []
    texts: list[TextLevel] = []
    for side, key in ((1, "bids"), (-1, "asks")):
        for at, much in _levels(one, key):
            rows.append((side, price(at, decimals), size(much)))
            texts.append((side, rows[-1][1], str(at), str(much)))
    event = Event("l2", text(one, "symbol"), _time(one), rows, is_snapshot=snapshot)
    if "checksum" in one:
        event.checksum, event.texts, event.checked = identity(one, "checksum"), texts, True
    return event
