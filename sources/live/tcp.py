"""A stream of messages over TCP."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ...pipeline.context import Context
from ...pipeline.errors import FormatError
from ._addresses import at
from ._retry import Retry, reason_of
from ._splitter import FRAMINGS, NoLength, Splitter, TooLong
from .arrival import Arrival
from .inlet import Inlet

__all__ = ["TcpLine"]

_PIECE = 1 << 18
_SAY = f"where messages are told apart in another way, say so behind the port: ?framing=lines ({', '.join(FRAMINGS)})"


@dataclass(frozen=True)
class TcpLine:
    """Connects to `host`:`port` and reads messages; connects again for `patience_ns` after a loss.

    `framing` is ``"lines"``, ``"u16"`` or ``"u32"`` (a big-endian length in front of each message) or ``"bytes"`` (what
    comes at a time); stamped messages of a replay are recognised. `limit` is the longest message, in bytes. A connection on
    which nothing came is made again after ever longer pauses.
    """

    host: str
    port: int
    line: int = 0
    framing: str = "lines"
    patience_ns: int = 30 * 10**9
    limit: int = 16 << 20

    def run(self, inlet: Inlet, context: Context) -> None:
        """See `Line.run`. Raises ConnectionError if there never was a connection within the patience, FormatError where
        the first thing that comes is no length."""
        place = f"tcp://{at(self.host, self.port)}"
        retry = Retry(context, self.patience_ns, place)
        connected = came = False
        while not inlet.done:
            try:
                sock = socket.create_connection((self.host, self.port), timeout=5.0)
            except OSError as error:
                if retry.wait(inlet, reason_of(error)):
                    continue
                if connected or inlet.done:
                    return
                raise ConnectionError(f"no connection to {place}: {error}") from None
            connected = True
            retry.connected()
            inlet.put(Arrival(context.clock.now_ns(), b"", self.line, 0, "connected"))
            with sock:
                reason, some = self._read(sock, inlet, context, first=not came)
            came = came or some
            if some:
                retry.succeeded()
            if inlet.done:
                return
            inlet.put(Arrival(context.clock.now_ns(), b"", self.line, 0, f"lost: {reason}"))
            if not retry.wait(inlet, reason):
                return

    def _read(self, sock: socket.socket, inlet: Inlet, context: Context, *, first: bool) -> tuple[str, bool]:
        """Read until the connection ends: why, and whether messages came. `first`: none has come before."""
        some = False
        sock.settimeout(0.1)
        splitter = Splitter(self.framing, self.limit)
        now = context.clock.now_ns
        while not inlet.done:
            try:
                data = sock.recv(_PIECE)
            except TimeoutError:
                continue
            except OSError as error:
                return str(error.strerror or error), some
            try:
                came = now()
                for ts_ns, channel, message in splitter.feed(data) if data else splitter.finish():
                    if not inlet.put(Arrival(came if ts_ns is None else ts_ns, message, self.line, channel)):
                        return "no longer wanted", some
                    some = True
            except NoLength as error:
                if first:
                    raise FormatError(f"tcp://{at(self.host, self.port)}: {error}; {_SAY}") from None
                return str(error), some
            except TooLong as error:
                return str(error), some
            if not data:
                rest = splitter.rest
                why = f"closed inside a message, {len(rest)} bytes of it came" if rest else "closed by the sender"
                return why, some
        return "no longer wanted", some
