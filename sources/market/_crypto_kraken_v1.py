"""Messages of Kraken v1, which are arrays: trade, spread, ticker and book, in ``[channel, data, .., name, pair]``.

Trades have no numbers (0), a ticker has no time. The checksum of a book cannot be followed, because a snapshot has none: a
gap does not show.
Source: Kraken WebSocket API v1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._crypto_messages import BadMessage, Event, Message, field_of, price, size

__all__ = ["is_first_version", "read_first_version"]

_SIDES = {"b": 1, "s": -1}
_SECONDS = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)
_KEYS = (("bs", 1), ("b", 1), ("as", -1), ("a", -1))
_LONGEST = 64


def is_first_version(message: Any) -> bool:
    """Whether it is shaped like these."""
    return (
        isinstance(message, list)
        and 4 <= len(message) <= 5
        and all(isinstance(part, str) for part in message[-2:])
        and all(isinstance(part, list | dict) for part in message[1:-2])
    )


def read_first_version(message: Sequence[Any], decimals: int) -> Message:
    """What it says. Raises BadMessage."""
    name, pair = message[-2:]
    if not 1 <= len(pair.encode()) <= _LONGEST:
        raise BadMessage(f"the pair is {pair!r:.60}, no name of 1 to {_LONGEST} bytes")
    if name == "trade":
        return Message("trade", [_trade(one, pair, decimals) for one in _arrays(message[1], "trade", 4)])
    if name == "spread":
        return Message("spread", [_spread(message[1], pair, decimals)])
    if name == "ticker":
        return Message("ticker", [_best(message[1], pair, decimals)])
    if re.fullmatch(r"book(-\d{1,4})?", name):
        return Message("book", [_book(message[1:-2], pair, decimals)])
    return Message("ohlc" if name.startswith("ohlc") else "other")


def _arrays(value: Any, what: str, least: int) -> list[list[Any]]:
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) >= least for one in value):
        raise BadMessage(f"{value!r:.60} is no list of {what}s of {least} values")
    return value


def _time(value: Any) -> int:
    match = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > 9_223_372_035:
        raise BadMessage(f"{value!r:.60} is no time in s")
    return int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0"))


def _trade(one: Sequence[Any], pair: str, decimals: int) -> Event:
    side = _SIDES.get(one[3]) if isinstance(one[3], str) else None
    if side is None:
        raise BadMessage(f"the side is {one[3]!r:.60}, neither b nor s")
    return Event("trade", pair, _time(one[2]), [(price(one[0], decimals), size(one[1]), side, 0)])


def _spread(data: Any, pair: str, decimals: int) -> Event:
    if not isinstance(data, list) or len(data) < 5:
        raise BadMessage(f"{data!r:.60} is no spread of 5 values")
    bid, ask, time, bid_size, ask_size = data[:5]
    row = (price(bid, decimals), size(bid_size), price(ask, decimals), size(ask_size), 0)
    return Event("bbo", pair, _time(time), [row])


def _best(data: Any, pair: str, decimals: int) -> Event:
    if not isinstance(data, dict):
        raise BadMessage("a ticker is no object")
    row: list[Any] = []
    for key in ("b", "a"):
        level = field_of(data, key)
        if not isinstance(level, list) or len(level) < 3:
            raise BadMessage(f"{key!r} is {level!r:.60}, no price with lots and size")
        row += [price(level[0], decimals), size(level[2])]
    return Event("bbo", pair, None, [(*row, 0)])


def _book(parts: Sequence[Any], pair: str, decimals: int) -> Event:
    rows: list[tuple[Any, ...]] = []
    times = []
    sides: list[Mapping[str, Any]] = [part for part in parts if isinstance(part, dict)]
    for key, side in _KEYS:
        for part in sides:
            for level in _arrays(part.get(key, []), "level", 3):
                rows.append((side, price(level[0], decimals), size(level[1])))
                times.append(_time(level[2]))
    snapshot = any("bs" in part or "as" in part for part in sides)
    if not rows and not snapshot:
        raise BadMessage("a book without levels")
    return Event("l2", pair, max(times, default=None), rows, is_snapshot=snapshot)
