"""Messages over a WebSocket (RFC 6455): pings answered and sent, a fresh connection before a venue cuts the old one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ...pipeline.context import Context
from ...pipeline.errors import MissingExtraError
from ._retry import Retry, reason_of
from .arrival import Arrival
from .inlet import Inlet
from .stamp import split_text, unpack

__all__ = ["WebSocketLine"]

#: Where nothing comes on both connections, the old one is read for as long before it is closed,
_OVERLAP_NS = 2 * 10**9
#: ... and for as long at most while it has not been read to its end.
_BEHIND_NS = 20 * 10**9


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
        retry = Retry(context, self.patience_ns, self.url.partition("?")[0])
        connected = False
        current: _Connection | None = None
        while not inlet.done:
            if current is None:
                try:
                    current = _Connection(self, inlet, context)
                except (OSError, _websockets().WebSocketException) as error:
                    if retry.wait(inlet, reason_of(error)):
                        continue
                    if connected or inlet.done:
                        return
                    raise ConnectionError(f"no connection to {self.url}: {error}") from None
                connected = True
                retry.connected()
            reason = current.follow(self.rollover_ns)
            if current.came:
                retry.succeeded()
            if reason is None and not inlet.done:
                current = self._replaced(current, inlet, context)
                continue
            current.close()
            current = None
            if inlet.done:
                return
            inlet.put(Arrival(context.clock.now_ns(), b"", self.line, 0, f"lost: {reason}"))
            if not retry.wait(inlet, reason):
                return
        if current is not None:
            current.close()

    def _replaced(self, old: _Connection, inlet: Inlet, context: Context) -> _Connection:
        """A new connection beside `old`, which is closed once both gave one message; `old` if there is none to be had."""
        overlap = _Overlap()
        old.overlap = overlap
        try:
            new = _Connection(self, inlet, context, overlap)
        except (OSError, _websockets().WebSocketException):
            old.overlap = None
            old.renew()
            return old
        reading = threading.Thread(target=old.end, name="penstock-rollover", daemon=True)
        reading.start()
        if not new.meet(old):
            now = context.clock.now_ns()
            inlet.put(Arrival(now, b"", self.line, 0, "lost: the old connection was still behind when it was replaced"))
            inlet.put(Arrival(now, b"", self.line, 0, "connected"))
        old.close()
        reading.join(2.0)
        return new


class _Overlap:
    """What came on one of two connections and not yet on the other, so that what comes on both is taken once."""

    def __init__(self) -> None:
        #: Something has come on both: neither lacks what the other gave before.
        self.met = False
        self.old_ended = self.over = False
        self._ahead: tuple[Counter[bytes], Counter[bytes]] = (Counter(), Counter())
        self._lock = threading.Lock()

    def is_new(self, message: bytes, *, old: bool) -> bool:
        """Whether `message` has not come on the other connection. It is over with the first that only the new one has."""
        with self._lock:
            ours, theirs = self._ahead if old else self._ahead[::-1]
            if theirs[message]:
                theirs[message] -= 1
                self.met = True
                return False
            ours[message] += 1
            self.over = self.old_ended and not old
            return True


class _Connection:
    def __init__(self, line: WebSocketLine, inlet: Inlet, context: Context, overlap: _Overlap | None = None) -> None:
        _websockets()
        from websockets.sync.client import connect

        self._line, self._inlet, self._context = line, inlet, context
        self.overlap, self._old, self._idle = overlap, False, False
        #: Whether a message has come.
        self.came = False
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

    def end(self) -> None:
        """Take messages until it is closed, as the old one of two connections."""
        self._old = True
        self.follow(1 << 62)
        if self.overlap is not None:
            self.overlap.old_ended = True

    def meet(self, old: _Connection) -> bool:
        """Take messages until one has come on `old` too, or `old` has none left; False if it is still behind."""
        clock = self._context.clock
        start = clock.monotonic_ns()
        while self.overlap is not None and not self.overlap.met and not self._inlet.done:
            waited = clock.monotonic_ns() - start
            if waited >= _OVERLAP_NS and old._idle:
                return True
            if waited >= _BEHIND_NS:
                return False
            if self._take() is not None:
                return True  # lost again: that is told when it is followed
        return True

    def _take(self) -> str | None:
        try:
            message = self._socket.recv(timeout=0.1)
        except TimeoutError:
            self._idle = True
            return None
        except _websockets().ConnectionClosed as error:
            self._idle = True
            return str(error) or "closed"
        came = self._context.clock.now_ns()
        self._idle, self.came = False, True
        if self.overlap is not None and self._is_repeated(message):
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

    def _is_repeated(self, message: str | bytes) -> bool:
        overlap = self.overlap
        if overlap is None:
            return False
        new = overlap.is_new(message.encode() if isinstance(message, str) else message, old=self._old)
        if overlap.over:
            self.overlap = None
        return not new

    def close(self) -> None:
        self._closing = True
        self._resources.close()


def _websockets() -> Any:
    try:
        import websockets.exceptions
    except ImportError:
        raise MissingExtraError("a feed over WebSocket", "websockets", "live") from None
    return websockets.exceptions
