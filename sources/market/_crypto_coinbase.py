"""Messages of Coinbase Exchange: match, level2 (snapshot and l2update) and ticker; those of Advanced Trade beside it.

``side`` of a match is the maker's, so the aggressor is the other one. Changes of a book have no numbers: a gap does not
show. ``last_match`` repeats a trade from before the subscription and is no row.
Source: Coinbase Exchange WebSocket channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._crypto_coinbase_advanced import is_advanced, read_advanced
from ._crypto_messages import BadMessage, Event, Message, field_of, identity, iso_ns, levels, price, size, text

__all__ = ["read_coinbase"]

_AGGRESSORS = {"buy": -1, "sell": 1}
_SIDES = {"buy": 1, "sell": -1}
_OTHERS = frozenset(
    ("last_match", "heartbeat", "status", "subscriptions", "error", "received", "open", "done", "change", "activate")
)


def read_coinbase(message: Any, decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    if not isinstance(message, dict):
        raise BadMessage("the message is no JSON object")
    if is_advanced(message):
        return read_advanced(message, decimals)
    kind = message.get("type")
    if kind == "match":
        return Message(kind, [_trade(message, decimals)])
    if kind == "ticker" and "best_bid" in message and "best_bid_size" not in message:  # as they were until 2022
        return Message("ticker without sizes")
    if kind == "ticker":
        return Message(kind, [_best(message, decimals)])
    if kind in ("l2update", "snapshot"):
        return Message(kind, [_change(message, decimals) if kind == "l2update" else _snapshot(message, decimals)])
    return Message(kind if isinstance(kind, str) and kind in _OTHERS else "other")


def _time(message: Mapping[str, Any]) -> int | None:
    return iso_ns(message, "time") if "time" in message else None


def _side(value: Any) -> str:
    if value not in ("buy", "sell"):
        raise BadMessage(f"the side is {value!r:.60}, neither buy nor sell")
    return str(value)


def _trade(message: Mapping[str, Any], decimals: int) -> Event:
    side = _AGGRESSORS[_side(field_of(message, "side"))]
    row = (
        price(field_of(message, "price"), decimals),
        size(field_of(message, "size")),
        side,
        identity(message, "trade_id"),
    )
    return Event("trade", text(message, "product_id"), iso_ns(message, "time"), [row])


def _best(message: Mapping[str, Any], decimals: int) -> Event:
    row = (
        price(field_of(message, "best_bid"), decimals),
        size(field_of(message, "best_bid_size")),
        price(field_of(message, "best_ask"), decimals),
        size(field_of(message, "best_ask_size")),
        identity(message, "sequence") if "sequence" in message else 0,
    )
    return Event("bbo", text(message, "product_id"), _time(message), [row])


def _change(message: Mapping[str, Any], decimals: int) -> Event:
    changes = field_of(message, "changes")
    if not isinstance(changes, list):
        raise BadMessage("'changes' is no list")
    rows: list[tuple[Any, ...]] = []
    for change in changes:
        if not isinstance(change, list) or len(change) != 3:
            raise BadMessage(f"{change!r:.60} is no change of a side, a price and a size")
        rows.append((_SIDES[_side(change[0])], price(change[1], decimals), size(change[2])))
    return Event("l2", text(message, "product_id"), _time(message), rows)


def _snapshot(message: Mapping[str, Any], decimals: int) -> Event:
    rows = levels(field_of(message, "bids"), 1, decimals) + levels(field_of(message, "asks"), -1, decimals)
    return Event("l2", text(message, "product_id"), _time(message), list(rows), is_snapshot=True)
