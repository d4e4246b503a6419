"""Where a replay sends: a TCP or WebSocket server, datagrams, or POST requests."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from ...pipeline.clock import Clock
from ...pipeline.errors import GraphError
from ..live._addresses import OPTIONS, options_of
from .message import Message, Playable

__all__ = ["Outlet", "outlet_to"]


class Outlet(ABC):
    """Sends messages; where there are receivers that connect, all get all, and the slowest sets the pace."""

    #: Where it listens or sends, once it is open.
    address = ""
    #: Whether several messages are best given at once.
    together = False
    #: Hears what somebody who watches should know, such as that nobody is there any more.
    told: Callable[[str], None] | None = None

    def __init__(self, clock: Clock, stop: threading.Event, *, stamped: bool) -> None:
        self._clock, self._stop, self._stamped = clock, stop, stamped
        #: Messages that went nowhere, by reason.
        self.lost: dict[str, int] = {}

    @abstractmethod
    def send(self, message: Message) -> None:
        """Send one message; waits while nobody is there to take it. Raises OSError where it cannot be sent."""

    def send_all(self, messages: Sequence[Message]) -> None:
        """Send messages that are due together, in order."""
        for message in messages:
            self.send(message)

    def ready(self, receivers: int) -> bool:
        """Wait for so many receivers; False if the replay is being stopped."""
        return not self._stop.is_set()

    @abstractmethod
    def close(self) -> None:
        """Send what is left and end."""


def outlet_to(url: str, playable: Playable, clock: Clock, stop: threading.Event, *, stamped: bool) -> Outlet:
    """What serves or sends to `url`. Raises GraphError for a URL that is none, OSError where it cannot be opened."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("tcp", "udp", "ws", "http") or not host or port is None:
        expected = "tcp://HOST:PORT, ws://HOST:PORT (served), udp://HOST:PORT or http://HOST:PORT/PATH (sent to)"
        raise GraphError("not an address to replay to", expected=expected, got=url)
    from .outlet_sent import HttpOutlet, UdpOutlet
    from .outlet_served import TcpOutlet, WebSocketOutlet

    if parts.scheme == "udp":
        asked = options_of(url, OPTIONS["udp"])
        return UdpOutlet(
            host, port, _ttl(asked, url), asked.get("interface", ""), playable, clock, stop, stamped=stamped
        )
    if parts.scheme == "http":
        return HttpOutlet(url, playable, clock, stop, stamped=stamped)
    options_of(url, ())
    kind = TcpOutlet if parts.scheme == "tcp" else WebSocketOutlet
    return kind(host, port, playable, clock, stop, stamped=stamped)


def _ttl(asked: dict[str, str], url: str) -> int:
    text = asked.get("ttl", "0")
    if not (text.isdigit() and int(text) < 256):
        raise GraphError("no time to live", expected="?ttl=0 to 255", got=url)
    return int(text)
