"""Messages of OKX v5: trades, bbo-tbt, books and its kin.

``seqId`` of a change of a book follows ``prevSeqId``; a snapshot in the stream has -1 there. Equal numbers say that nothing
changed, and a lower ``seqId`` that the numbers began anew. ``checksum`` is not used: OKX has made it 0. ``books5`` sends the
whole of its five levels each time. ``side`` of a trade is the taker's.
Source: OKX v5 WebSocket, order book channel and trades channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._crypto_messages import BadMessage, Event, Message, field_of, identity, levels, milliseconds, price, size, text

__all__ = ["read_okx"]

_BOOKS = ("books", "books5", "books-l2-tbt", "books50-l2-tbt", "books-rpi", "books-elp")
_OTHERS = ("tickers", "mark-price", "index-tickers", "funding-rate", "open-interest", "instruments", "status", "candle")
_SIDES = {"buy": 1, "sell": -1}


def read_okx(message: Any, decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    if not isinstance(message, dict):
        raise BadMessage("the message is no JSON object")
    arg = message.get("arg")
    channel = arg.get("channel") if isinstance(arg, dict) else None
    if "event" in message:
        return Message("response")
    if not isinstance(arg, dict) or not isinstance(channel, str):
        return Message("other")
    if channel not in (*_BOOKS, "trades", "trades-all", "bbo-tbt"):
        return Message(next((name for name in _OTHERS if channel.startswith(name)), "other"))
    data = field_of(message, "data")
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        raise BadMessage("'data' is no list of objects")
    if channel == "bbo-tbt":
        return Message(channel, [_best(arg, one, decimals) for one in data])
    if channel in _BOOKS:
        return Message(channel, [_book(message, arg, channel, one, decimals) for one in data])
    return Message(channel, [_trade(one, decimals) for one in data])


def _trade(one: Mapping[str, Any], decimals: int) -> Event:
    side = field_of(one, "side")
    if side not in ("buy", "sell"):
        raise BadMessage(f"'side' is {side!r:.60}, neither buy nor sell")
    row = (price(field_of(one, "px"), decimals), size(field_of(one, "sz")), _SIDES[side], identity(one, "tradeId"))
    return Event("trade", text(one, "instId"), milliseconds(one, "ts"), [row])


def _best(arg: Mapping[str, Any], one: Mapping[str, Any], decimals: int) -> Event:
    bids = levels(field_of(one, "bids"), 1, decimals)
    asks = levels(field_of(one, "asks"), -1, decimals)
    (_, bid, bid_size), (_, ask, ask_size) = (side[0] if side else (0, 0, 0.0) for side in (bids, asks))
    number = identity(one, "seqId") if "seqId" in one else 0
    return Event("bbo", text(arg, "instId"), milliseconds(one, "ts"), [(bid, bid_size, ask, ask_size, number)])


def _book(
    message: Mapping[str, Any], arg: Mapping[str, Any], channel: str, one: Mapping[str, Any], decimals: int
) -> Event:
    rows = levels(field_of(one, "bids"), 1, decimals) + levels(field_of(one, "asks"), -1, decimals)
    whole = channel == "books5"
    action = "snapshot" if whole else field_of(message, "action")
    if action not in ("snapshot", "update"):
        raise BadMessage(f"'action' is {action!r:.60}, neither snapshot nor update")
    number = identity(one, "seqId") if "seqId" in one else 0
    prev = one.get("prevSeqId")
    follows = None if prev in (None, -1, "-1") else identity(one, "prevSeqId")
    return Event(
        "l2",
        text(arg, "instId"),
        milliseconds(one, "ts"),
        list(rows),
        number if follows is None else min(number, follows + 1),
        number,
        follows,
        is_snapshot=action == "snapshot",
        checked=not whole and "seqId" in one and (action == "snapshot" or follows is not None),
        inside=True,
        book=channel,
    )
