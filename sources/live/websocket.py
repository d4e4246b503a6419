"""Messages over a WebSocket (RFC 6455): pings answered and sent, a fresh connection before a venue cuts the old one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ...pipeline.context import Context
from ...pipeline.errors import MissingExtraError
from ._retry import Retry
from .arrival import Arrival
from .inlet import Inlet
from .stamp import split_text, unpack

__all__ = ["WebSocketLine"]

#: After the new connection has delivered, the old one is read for as long before it is closed.
_OVERLAP_NS = 2 * 10**9
#: Messages that are remembered to tell those that come on both.
_REMEMBERED = 1 << 14


@dataclass(frozen=True)
class WebSocketLine:
    """Connects to a ``ws://`` or ``wss://`` `url`, sends `greeting`, and takes text and binary messages.

    Pings of the server are answered; one of ours goes out every 20 s, and a server that does not answer within 20 s has
    been lost. A connection that is `rollover_ns` old is replaced by a new one before it is closed; a message that comes
    on both is taken once. `limit` is the longest message, in bytes.
    """

    url: str
    line: int = 0
    greeting: Sequence[str] = ()
    patience_ns: int = 30 * 10**9
    rollover_ns: int = 23 * 3600 * 10**9
    limit: int = 64 << 20

    def run(self, inlet: Inlet, context: Context) -> None:
        """See `Line.run`. Raises ConnectionError if there never was a connection within the patience."""
        retry = Retry(context, self.patience_ns)
        connected = False
        current: _Connection | None = None
        while not inlet.done:
            if current is None:
                try:
                    current = _Connection(self, inlet, context, _Recent())
                except (OSError, _websockets().WebSocketException) as error:
                    if retry.wait(inlet):
                        continue
                    if connected or inlet.done:
                        return
                    raise ConnectionError(f"no connection to {self.url}: {error}") from None
                connected = True
                retry.succeeded()
            reason = current.follow(self.rollover_ns)
            if reason is None and not inlet.done:
                current = self._replaced(current, inlet, context)
                continue
            current.close()
            current = None
            if inlet.done:
                return
            inlet.put(Arrival(context.clock.now_ns(), b"", self.line, 0, f"lost: {reason}"))
            if not retry.wait(inlet):
                return
        if current is not None:
            current.close()

    def _replaced(self, old: _Connection, inlet: Inlet, context: Context) -> _Connection:
        """A new connection beside `old`, which is closed once the new one delivers; `old` if there is none to be had."""
        recent = old.recent
        try:
            new = _Connection(self, inlet, context, recent)
        except (OSError, _websockets().WebSocketException):
            old.renew()
            return old
        recent.both = True
        reading = threading.Thread(target=old.follow, args=(1 << 62,), name="penstock-rollover", daemon=True)
        reading.start()
        new.first(_OVERLAP_NS)
        old.close()
        reading.join(2.0)
        recent.both = False
        return new


class _Recent:
    """The last messages of a line: while two connections are followed, what came on one is not taken from the other."""

    def __init__(self) -> None:
        self.both = False
        self._order: deque[bytes] = deque()
        self._known: set[bytes] = set()
        self._lock = threading.Lock()

    def is_new(self, message: bytes) -> bool:
        """Remember `message`; False if it came on the other connection."""
        with self._lock:
            if message in self._known:
                return not self.both
            self._known.add(message)
            self._order.append(message)
            if len(self._order) > _REMEMBERED:
                self._known.discard(self._order.popleft())
            return True


class _Connection:
    def __init__(self, line: WebSocketLine, inlet: Inlet, context: Context, recent: _Recent) -> None:
        _websockets()
        from websockets.sync.client import connect

        self._line, self._inlet, self._context, self.recent = line, inlet, context, recent
        self._resources = ExitStack()
        opening = connect(line.url, max_size=line.limit, open_timeout=10, close_timeout=1)
        self._socket: Any = self._resources.enter_context(opening)
        self._closing = False
        for text in line.greeting:
            self._socket.send(text)
        self.renew()
        inlet.put(Arrival(context.clock.now_ns(), b"", line.line, 0, "connected"))

    def renew(self) -> None:
        """Count its age from now on."""
        self._born = self._context.clock.monotonic_ns()

    def follow(self, age_ns: int) -> str | None:
        """Take messages until the connection is lost (says why) or `age_ns` old (None), or nobody wants more."""
        while not self._inlet.done and not self._closing:
            if self._context.clock.monotonic_ns() - self._born >= age_ns:
                return None
            reason = self._take()
            if reason is not None:
                return reason
        return None

    def first(self, patience_ns: int) -> None:
        """Wait for the first message, up to `patience_ns`."""
        until = self._context.clock.monotonic_ns() + patience_ns
        before = self._taken
        while self._taken == before and self._context.clock.monotonic_ns() < until and not self._inlet.done:
            if self._take() is not None:
                return

    _taken = 0

    def _take(self) -> str | None:
        try:
            message = self._socket.recv(timeout=0.1)
        except TimeoutError:
            return None
        except _websockets().ConnectionClosed as error:
            return str(error) or "closed"
        came = self._context.clock.now_ns()
        self._taken += 1
        if not self.recent.is_new(message.encode() if isinstance(message, str) else message):
            self._inlet.repeated += 1
            return None
        if isinstance(message, str):
            text = message.encode()
            found = split_text(text)
            arrival = Arrival(came if found is None else found[0], text if found is None else found[1], self._line.line)
        else:
            stamped = unpack(message)
            if stamped is None:
                arrival = Arrival(came, message, self._line.line)
            else:
                arrival = Arrival(stamped[0], stamped[2], self._line.line, stamped[1])
        return None if self._inlet.put(arrival) else "no longer wanted"

    def close(self) -> None:
        self._closing = True
        self._resources.close()


def _websockets() -> Any:
    try:
        import websockets.exceptions
    except ImportError:
        raise MissingExtraError("a feed over WebSocket", "websockets", "live") from None
    return websockets.exceptions
