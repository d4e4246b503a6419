"""From a URL to the line that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from ...pipeline.errors import GraphError
from ._addresses import options_of
from ._splitter import FRAMINGS
from .http import HttpLine
from .reader import Line
from .tcp import TcpLine
from .udp import UdpLine
from .websocket import WebSocketLine

__all__ = ["check_url", "line_to"]

_SCHEMES = ("udp", "tcp", "ws", "wss", "http")


def check_url(url: str) -> None:
    """Raises GraphError, saying what is expected, if `url` names no feed."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    missing = not parts.hostname or (port is None and parts.scheme not in ("ws", "wss"))
    if parts.scheme not in _SCHEMES or missing:
        expected = "udp://HOST:PORT, tcp://HOST:PORT, ws://HOST:PORT/PATH, wss://... or http://HOST:PORT/PATH"
        raise GraphError("not the address of a feed", expected=expected, got=url)
    framing = options_of(url).get("framing", "lines")
    if parts.scheme == "tcp" and framing not in FRAMINGS:
        raise GraphError(f"no framing {framing!r}", expected=" | ".join(FRAMINGS), got=url)


def line_to(
    url: str, number: int, *, greeting: Sequence[str], patience_ns: int, rollover_ns: int, framing: str
) -> Line:
    """The line number `number` of a feed. `framing` is the codec's; the URL's ``?framing=`` goes before it."""
    check_url(url)
    parts = urlsplit(url)
    asked = options_of(url)
    host, port = str(parts.hostname), parts.port or 0
    if parts.scheme == "udp":
        return UdpLine(host, port, number, asked.get("interface", ""))
    if parts.scheme == "tcp":
        return TcpLine(host, port, number, asked.get("framing", framing), patience_ns)
    if parts.scheme == "http":
        return HttpLine(host, port, number, parts.path or "/")
    return WebSocketLine(url, number, greeting, patience_ns, rollover_ns)
