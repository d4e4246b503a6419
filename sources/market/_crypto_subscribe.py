"""Where each venue's public feed is, and how its streams are asked for.

Binance names streams in the URL; the others take a message for each subscription. Sources: the venues' documentation of
their public WebSocket market data (Binance spot, USD-M and COIN-M; Bybit v5; OKX v5; Coinbase Exchange; Kraken v2;
Hyperliquid).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...pipeline.errors import GraphError

__all__ = ["snapshot_url", "stream_url", "subscriptions"]

_BINANCE = {
    "binance-spot": (
        "wss://stream.binance.com:9443",
        "https://api.binance.com/api/v3/depth?symbol={symbol}&limit=1000",
    ),
    "binance-usdm": ("wss://fstream.binance.com", "https://fapi.binance.com/fapi/v1/depth?symbol={symbol}&limit=1000"),
    "binance-coinm": ("wss://dstream.binance.com", "https://dapi.binance.com/dapi/v1/depth?symbol={symbol}&limit=1000"),
}
_ADDRESSES = {
    "bybit": "wss://stream.bybit.com/v5/public/linear",
    "okx": "wss://ws.okx.com:8443/ws/v5/public",
    "coinbase": "wss://ws-feed.exchange.coinbase.com",
    "kraken": "wss://ws.kraken.com/v2",
    "hyperliquid": "wss://api.hyperliquid.xyz/ws",
}
_STREAMS = {"bbo": "bookTicker", "trade": "trade", "agg_trade": "aggTrade", "l2": "depth@100ms"}
_CHANNELS = {
    "bybit": {"bbo": "orderbook.1", "trade": "publicTrade", "l2": "orderbook.200"},
    "okx": {"bbo": "bbo-tbt", "trade": "trades", "l2": "books"},
    "coinbase": {"bbo": "ticker", "trade": "matches", "l2": "level2_batch"},
    "kraken": {"bbo": "ticker", "trade": "trade", "l2": "book"},
    "hyperliquid": {"bbo": "bbo", "trade": "trades", "l2": "l2Book"},
}


def stream_url(venue: str, table: str, symbols: Sequence[str]) -> str:
    """The address of a feed. Raises GraphError without symbols, or where the venue has no such stream."""
    if not symbols:
        raise GraphError("which symbols?", expected="at least one, as the venue writes it, such as BTCUSDT")
    if venue in _BINANCE:
        streams = "/".join(f"{symbol.lower()}@{_STREAMS[table]}" for symbol in symbols)
        return f"{_BINANCE[venue][0]}/stream?streams={streams}"
    if table not in _CHANNELS[venue]:
        raise GraphError(f"{venue} has no stream for {table!r}", expected=" | ".join(_CHANNELS[venue]))
    return _ADDRESSES[venue]


def snapshot_url(venue: str) -> str:
    """Where a book's snapshot is, with ``{symbol}``; empty for venues that send it in the stream."""
    return _BINANCE[venue][1] if venue in _BINANCE else ""


def subscriptions(venue: str, table: str, symbols: Sequence[str], path: str) -> list[str]:
    """Messages that ask for the streams; none for Binance where the URL's `path` names them."""
    if venue in _BINANCE:
        if not symbols or path.startswith(("/stream", "/ws/")):
            return []
        names = [f"{symbol.lower()}@{_STREAMS[table]}" for symbol in symbols]
        return [json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1})]
    if not symbols:
        return []
    channel = _CHANNELS[venue].get(table, "")
    if venue == "bybit":
        return [json.dumps({"op": "subscribe", "args": [f"{channel}.{symbol}" for symbol in symbols]})]
    if venue == "okx":
        return [json.dumps({"op": "subscribe", "args": [{"channel": channel, "instId": symbol} for symbol in symbols]})]
    if venue == "coinbase":
        return [json.dumps({"type": "subscribe", "product_ids": list(symbols), "channels": [channel]})]
    if venue == "hyperliquid":
        wanted = ({"type": channel, "coin": symbol} for symbol in symbols)
        return [json.dumps({"method": "subscribe", "subscription": one}) for one in wanted]
    return [json.dumps({"method": "subscribe", "params": {"channel": channel, "symbol": list(symbols)}})]
