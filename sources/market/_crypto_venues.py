"""The venues that are known, and which of them wrote a message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ._crypto_coinbase_advanced import is_advanced
from ._crypto_hyperliquid import is_hyperliquid
from ._crypto_kraken_v1 import is_first_version
from ._crypto_messages import BadMessage

__all__ = ["VENUES", "is_fast", "reader_of", "symbol_in", "table_in", "venue_in", "venue_of"]

#: Names of venues, with the module and the function that reads their messages.
VENUES: dict[str, tuple[str, str]] = {
    "binance-spot": ("_crypto_binance", "read_binance"),
    "binance-usdm": ("_crypto_binance", "read_binance"),
    "binance-coinm": ("_crypto_binance", "read_binance"),
    "bybit": ("_crypto_bybit", "read_bybit"),
    "okx": ("_crypto_okx", "read_okx"),
    "coinbase": ("_crypto_coinbase", "read_coinbase"),
    "kraken": ("_crypto_kraken", "read_kraken"),
    "hyperliquid": ("_crypto_hyperliquid", "read_hyperliquid"),
}
_LINE = re.compile(rb"[ \t\r]*[0-9]{1,19}[ \t]+([{\[].*)", re.DOTALL)
_CUT = (
    (re.compile(rb'\{"lastUpdateId":\d+,"E":'), "binance-usdm"),
    (re.compile(rb'\{"lastUpdateId":\d+,"bids":'), "binance-spot"),
    (re.compile(rb'.{0,120}?"e":"depthUpdate".{0,200}?"pu":', re.DOTALL), "binance-usdm"),
    (re.compile(rb'.{0,120}?"e":"depthUpdate".{0,200}?"b":', re.DOTALL), "binance-spot"),
    (re.compile(rb'\{"topic":"orderbook\.'), "bybit"),
    (re.compile(rb'\{"arg":\{"channel":"'), "okx"),
    (re.compile(rb'\{"type":"snapshot","product_id":"'), "coinbase"),
    (re.compile(rb'\{"channel":"book",'), "kraken"),
    (re.compile(rb'\{"channel":"l2Book",'), "hyperliquid"),
)
_COINM = re.compile(r"USD_(PERP|\d{6})")


def is_fast(venue: str) -> bool:
    """Whether the scanner knows its messages."""
    return venue.startswith("binance-")


def reader_of(venue: str) -> Callable[[Any, int], Any]:
    """The general path for a venue's messages."""
    module, function = VENUES[venue]
    read: Callable[[Any, int], Any] = getattr(import_module(f".{module}", __package__), function)
    return read


def venue_of(message: Any) -> str | None:
    """The venue that writes messages like this one; None if it could be any."""
    if is_first_version(message):
        return "kraken" if "/" in message[-1] else None
    if not isinstance(message, dict):
        return None
    if is_advanced(message) and "sequence_num" in message:
        return "coinbase"
    if is_hyperliquid(message):
        return "hyperliquid"
    if isinstance(message.get("stream"), str) and isinstance(message.get("data"), dict):
        return _binance(message["data"]) or ("binance-spot" if "lastUpdateId" in message["data"] else None)
    if isinstance(message.get("topic"), str) and "data" in message:
        return "bybit"
    arg = message.get("arg")
    if isinstance(arg, dict) and "channel" in arg and ("data" in message or "event" in message):
        return "okx"
    if isinstance(message.get("channel"), str) and isinstance(message.get("data"), list) and "type" in message:
        return "kraken"
    if isinstance(message.get("type"), str) and ("product_id" in message or message["type"] == "subscriptions"):
        return "coinbase"
    return _binance(message)


def _binance(message: Mapping[str, Any]) -> str | None:
    kind, symbol = message.get("e"), message.get("s")
    futures: bool | None = None
    if kind == "depthUpdate" and "u" in message:
        futures = "pu" in message
    elif kind in ("trade", "aggTrade") and "p" in message:
        futures = "M" not in message
    elif kind == "bookTicker":
        futures = "T" in message
    elif kind is None and message.keys() >= set("usbBaA"):
        futures = False
    elif kind is None and "lastUpdateId" in message and "bids" in message:
        symbol = message.get("symbol")
        futures = "T" in message
    if futures is None:
        return None
    if not futures:
        return "binance-spot"
    return "binance-coinm" if isinstance(symbol, str) and _COINM.search(symbol) else "binance-usdm"


def _messages(head: bytes) -> list[Any]:
    """The messages of the whole lines in a file's first bytes; nothing if a line is no recorder line."""
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    found: list[Any] = []
    for line in lines if head.endswith(b"\n") else lines[:-1]:
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        try:
            found.append(json.loads(match[1], parse_float=str))
        except (ValueError, RecursionError):
            continue
    if not found:
        match = _LINE.fullmatch(lines[0])
        try:
            found = [json.loads(match[1], parse_float=str)] if match else []
        except (ValueError, RecursionError):
            found = []
    return found


def venue_in(head: bytes) -> str | None:
    """The venue of a recorder file that begins with `head`; None if it is none or of an unknown venue."""
    first = next((line for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()), b"")
    match = _LINE.fullmatch(first)
    if match is None:
        return None
    for message in _messages(head):
        venue = venue_of(message)
        if venue is not None:
            return venue
    return next((venue for pattern, venue in _CUT if pattern.match(match[1])), None)


def table_in(head: bytes, venue: str) -> str:
    """The table to read unless told otherwise: best prices, or the first other one that messages in `head` are for."""
    read = reader_of(venue)
    seen: set[str] = set()
    for message in _messages(head):
        try:
            seen.update(event.table for event in read(message, 9).events)
        except BadMessage:
            continue
    return next((table for table in ("bbo", "l2", "trade", "agg_trade") if table in seen), "bbo")


def symbol_in(head: bytes) -> str | None:
    """The symbol of the first Binance message in `head` that names one."""
    for message in _messages(head):
        inner = message.get("data", message) if isinstance(message, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("s"), str) and 1 <= len(inner["s"].encode()) <= 64:
            return str(inner["s"])
    return None
