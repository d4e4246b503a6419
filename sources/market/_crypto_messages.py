"""What a venue's message says, in the same terms for all venues: best prices, trades, changes of a book.

Here also stands how values are read on the general path, which defines the result: prices exactly from their decimal text,
sizes as the nearest float64. JSON numbers with a fraction reach it as their text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ._crypto_checksum import TextLevel

__all__ = [
    "BadMessage",
    "Event",
    "Message",
    "field_of",
    "identity",
    "iso_ns",
    "levels",
    "milliseconds",
    "price",
    "size",
    "text",
]

_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,3}))?")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:?00)", re.ASCII)
_LONGEST = 64
_MOST_MS = (2**63 - 1) // 1_000_000
_MICROSECONDS = 10**15


class BadMessage(ValueError):
    """A message that is not as its venue writes it; the text says what is wrong."""


@dataclass(slots=True)
class Event:
    """One thing that a message says about one symbol.

    `rows`: of ``bbo`` (bid_px, bid_sz, ask_px, ask_sz, update_id); of ``trade`` and ``agg_trade`` (price, size, side,
    trade_id); of ``l2`` (side, price, size), bids first. `symbol` None: to be told from the recording. `ts_event` None:
    the venue gives no time. `book` names the stream that numbers belong to; `prev_id` None where the venue gives none;
    `checked` whether the numbers tell of gaps; `inside` whether a snapshot came within the stream of changes. Where gaps
    show by a `checksum`, `texts` are the levels as they were sent.
    """

    table: str
    symbol: str | None
    ts_event: int | None
    rows: list[tuple[Any, ...]]
    first_id: int = 0
    last_id: int = 0
    prev_id: int | None = None
    is_snapshot: bool = False
    checked: bool = False
    inside: bool = False
    book: str = ""
    checksum: int | None = None
    texts: Sequence[TextLevel] = ()


@dataclass(slots=True)
class Message:
    """A message's kind, as counts name it, and its events; none where it has nothing for any table."""

    kind: str
    events: list[Event] = field(default_factory=list)


def field_of(message: Mapping[str, Any], key: str) -> Any:
    """The member `key`. Raises BadMessage if there is none."""
    try:
        return message[key]
    except KeyError:
        raise BadMessage(f"{key!r} is missing") from None


def text(message: Mapping[str, Any], key: str) -> str:
    """A name: 1 to 64 bytes of text."""
    value = field_of(message, key)
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= _LONGEST:
        raise BadMessage(f"{key!r} is {_shown(value)}, no name of 1 to {_LONGEST} bytes")
    return value


def identity(message: Mapping[str, Any], key: str) -> int:
    """A number from 0 to 2**64 - 1, or its digits as text."""
    value = field_of(message, key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise BadMessage(f"{key!r} is {_shown(value)}, no number from 0 to 2**64 - 1")
    return value


def milliseconds(message: Mapping[str, Any], key: str) -> int:
    """A time as ns. Binance gives microseconds where it is asked to; from 10**15 on a value is taken for those."""
    value = field_of(message, key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadMessage(f"{key!r} is {_shown(value)}, no time in ms")
    ns = value * 1_000 if value >= _MICROSECONDS else value * 1_000_000
    if ns >= 1 << 63:
        raise BadMessage(f"{key!r} is {value}, a time beyond the year 2262")
    return ns


def iso_ns(message: Mapping[str, Any], key: str) -> int:
    """A time in UTC such as 2024-08-08T23:54:15.123456Z, as ns."""
    value = field_of(message, key)
    match = _ISO.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise BadMessage(f"{key!r} is {_shown(value)}, no time in UTC")
    try:
        moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError as error:
        raise BadMessage(f"{key!r} is {_shown(value)}: {error}") from None
    ns = int(moment.timestamp()) * 10**9 + int((match[2] or "").ljust(9, "0") or 0)
    if not -(1 << 63) <= ns < 1 << 63:
        raise BadMessage(f"{key!r} is {_shown(value)}, a time beyond the year 2262")
    return ns


def _decimal(value: Any) -> re.Match[str]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    match = _DECIMAL.fullmatch(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise BadMessage(f"{_shown(value)} is no decimal number")
    return match


def price(value: Any, decimals: int) -> int:
    """A decimal number in units of ``10**-decimals``, exactly. Raises BadMessage if it has more decimals or passes int64."""
    match = _decimal(value)
    fraction = match[3] or ""
    digits: int = int(match[2] + fraction)
    power = int(match[4] or 0) - len(fraction) + decimals
    if digits == 0:
        return 0
    if power >= 0:
        if power > 40:
            raise BadMessage(f"the price {_shown(value)} is too large")
        digits *= int(10**power)
    else:
        digits, rest = divmod(digits, int(10**-power))
        if rest:
            raise BadMessage(
                f"the price {_shown(value)} has more than {decimals} decimals; read with more price_decimals"
            )
    if digits >= 1 << 63:
        raise BadMessage(
            f"the price {_shown(value)} does not fit with {decimals} decimals; read with fewer price_decimals"
        )
    return -digits if match[1] else digits


def size(value: Any) -> float:
    """A decimal number, not negative, as the nearest float64."""
    match = _decimal(value)
    number = float(match[0])
    if number == 0:
        return 0.0
    if match[1] or number == float("inf"):
        raise BadMessage(f"{_shown(value)} is no size")
    return number


def levels(value: Any, side: int, decimals: int) -> list[tuple[int, int, float]]:
    """``(side, price, size)`` of each ``[price, size, ...]``."""
    if not isinstance(value, list):
        raise BadMessage(f"{_shown(value)} is no list of levels")
    rows = []
    for level in value:
        if not isinstance(level, Sequence) or isinstance(level, str) or len(level) < 2:
            raise BadMessage(f"{_shown(level)} is no level of a price and a size")
        rows.append((side, price(level[0], decimals), size(level[1])))
    return rows


def _shown(value: Any) -> str:
    return repr(value)[:60]
