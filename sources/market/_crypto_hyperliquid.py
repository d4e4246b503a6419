"""Messages of Hyperliquid: trades, l2Book and bbo.

Every l2Book is the whole of the levels that are shown, so a gap does no harm and has no number to show by. ``side`` of a
trade is the taker's: B bought, A sold. A best price of one side alone is no row.
Source: Hyperliquid API, WebSocket subscriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._crypto_messages import BadMessage, Event, Message, field_of, identity, milliseconds, price, size, text

__all__ = ["is_hyperliquid", "read_hyperliquid"]

_SIDES = {"B": 1, "A": -1}
_RESPONSES = frozenset(("subscriptionResponse", "pong", "error"))
_OTHERS = frozenset(("allMids", "candle", "activeAssetCtx", "activeSpotAssetCtx"))


def is_hyperliquid(message: Mapping[str, Any]) -> bool:
    """Whether it is shaped like market data of theirs."""
    channel, data = message.get("channel"), message.get("data")
    if channel == "trades" and isinstance(data, list):
        return bool(data) and isinstance(data[0], dict) and "coin" in data[0]
    return channel in ("l2Book", "bbo") and isinstance(data, dict) and "coin" in data


def read_hyperliquid(message: Any, decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    if not isinstance(message, dict):
        raise BadMessage("the message is no JSON object")
    channel = message.get("channel")
    if channel not in ("trades", "l2Book", "bbo"):
        if isinstance(channel, str) and channel in _RESPONSES:
            return Message("response")
        return Message(channel if isinstance(channel, str) and channel in _OTHERS else "other")
    data = field_of(message, "data")
    if channel == "trades":
        if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
            raise BadMessage("'data' is no list of objects")
        return Message(channel, [_trade(one, decimals) for one in data])
    if not isinstance(data, dict):
        raise BadMessage("'data' is no object")
    if channel == "l2Book":
        return Message(channel, [_book(data, decimals)])
    sides = _two(data, "bbo")
    if None in sides:
        return Message("bbo of one side")
    return Message(channel, [_best(data, sides, decimals)])


def _two(data: Mapping[str, Any], key: str) -> list[Any]:
    found = field_of(data, key)
    if not isinstance(found, list) or len(found) != 2:
        raise BadMessage(f"{key!r} is not of two sides")
    return found


def _level(level: Any, decimals: int) -> tuple[int, float]:
    if not isinstance(level, dict):
        raise BadMessage(f"{level!r:.60} is no level of a price and a size")
    return price(field_of(level, "px"), decimals), size(field_of(level, "sz"))


def _trade(one: Mapping[str, Any], decimals: int) -> Event:
    letter = field_of(one, "side")
    side = _SIDES.get(letter) if isinstance(letter, str) else None
    if side is None:
        raise BadMessage(f"'side' is {letter!r:.60}, neither B nor A")
    row = (*_level(one, decimals), side, identity(one, "tid"))
    return Event("trade", text(one, "coin"), milliseconds(one, "time"), [row])


def _best(data: Mapping[str, Any], sides: list[Any], decimals: int) -> Event:
    row = (*_level(sides[0], decimals), *_level(sides[1], decimals), 0)
    return Event("bbo", text(data, "coin"), milliseconds(data, "time"), [row])


def _book(data: Mapping[str, Any], decimals: int) -> Event:
    rows: list[tuple[Any, ...]] = []
    for side, found in zip((1, -1), _two(data, "levels"), strict=True):
        if not isinstance(found, list):
            raise BadMessage(f"{found!r:.60} is no list of levels")
        rows += [(side, *_level(level, decimals)) for level in found]
    return Event("l2", text(data, "coin"), milliseconds(data, "time"), rows, is_snapshot=True)
