"""Messages of Coinbase Advanced Trade: market_trades, l2_data and ticker, each with events inside.

``side`` of a trade is the maker's, so the aggressor is the other one. A snapshot of trades repeats those from before the
subscription and is no row. The numbers of messages count all channels of a connection: a gap of one book does not show.
Source: Coinbase Advanced Trade WebSocket channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._crypto_messages import BadMessage, Event, Message, field_of, identity, iso_ns, price, size, text

__all__ = ["is_advanced", "read_advanced"]

_AGGRESSORS = {"BUY": -1, "SELL": 1}
_SIDES = {"bid": 1, "offer": -1}
_OTHERS = frozenset(("heartbeats", "status", "subscriptions", "candles", "user", "ticker_batch"))


def is_advanced(message: Mapping[str, Any]) -> bool:
    """Whether it is shaped like these."""
    return isinstance(message.get("channel"), str) and isinstance(message.get("events"), list)


def read_advanced(message: Mapping[str, Any], decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    channel = message["channel"]
    if channel == "market_trades":
        trades = list(_inside(message, "trades"))
        if any(kind == "snapshot" for kind, _ in trades):
            return Message("trade snapshot")
        return Message(channel, [_trade(one, decimals) for _, one in trades])
    if channel == "ticker":
        time = iso_ns(message, "timestamp")
        return Message(channel, [_best(one, time, decimals) for _, one in _inside(message, "tickers")])
    if channel == "l2_data":
        time = iso_ns(message, "timestamp")
        return Message(channel, [_book(event, time, decimals) for event in _objects(message, "events")])
    return Message(channel if channel in _OTHERS else "other")


def _objects(holder: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = field_of(holder, key)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadMessage(f"{key!r} is no list of objects")
    return found


def _inside(message: Mapping[str, Any], key: str) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """What the events hold under `key`, with the type of the event."""
    for event in _objects(message, "events"):
        for one in _objects(event, key):
            yield event.get("type"), one


def _of(value: Any, sides: Mapping[str, int]) -> int:
    side = sides.get(value) if isinstance(value, str) else None
    if side is None:
        raise BadMessage(f"the side is {value!r:.60}, neither {' nor '.join(sides)}")
    return side


def _trade(one: Mapping[str, Any], decimals: int) -> Event:
    side = _of(field_of(one, "side"), _AGGRESSORS)
    row = (price(field_of(one, "price"), decimals), size(field_of(one, "size")), side, identity(one, "trade_id"))
    return Event("trade", text(one, "product_id"), iso_ns(one, "time"), [row])


def _best(one: Mapping[str, Any], time: int, decimals: int) -> Event:
    row = (
        price(field_of(one, "best_bid"), decimals),
        size(field_of(one, "best_bid_quantity")),
        price(field_of(one, "best_ask"), decimals),
        size(field_of(one, "best_ask_quantity")),
        0,
    )
    return Event("bbo", text(one, "product_id"), time, [row])


def _book(event: Mapping[str, Any], time: int, decimals: int) -> Event:
    kind = field_of(event, "type")
    if kind not in ("snapshot", "update"):
        raise BadMessage(f"'type' is {kind!r:.60}, neither snapshot nor update")
    rows: list[tuple[Any, ...]] = []
    for one in _objects(event, "updates"):
        side = _of(field_of(one, "side"), _SIDES)
        rows.append((side, price(field_of(one, "price_level"), decimals), size(field_of(one, "new_quantity"))))
    rows.sort(key=lambda row: -row[0])  # bids first, else as they came
    return Event("l2", text(event, "product_id"), time, rows, is_snapshot=kind == "snapshot")
