"""Outlets that receivers connect to: TCP and WebSocket servers. All receivers get all, and the slowest sets the pace."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

from ...pipeline.clock import Clock
from ...pipeline.errors import MissingExtraError
from ..live._addresses import at, family_of
from ..live._splitter import FRAMINGS
from ..live.stamp import pack
from .message import Message, Playable
from .outlet import Outlet

__all__ = ["TcpOutlet", "WebSocketOutlet"]

_PATIENCE_S = 0.1
_MEDIUM, _LONG = struct.Struct(">BBH"), struct.Struct(">BBQ")


class _Served(Outlet):
    """An outlet that receivers connect to."""

    def __init__(self, clock: Clock, stop: threading.Event, *, stamped: bool) -> None:
        super().__init__(clock, stop, stamped=stamped)
        self._receivers: list[Any] = []
        self._changed = threading.Condition()
        self._sent, self._met = 0, False

    def _joined(self, receiver: Any) -> None:
        with self._changed:
            self._receivers.append(receiver)
            self._met = True
            self._changed.notify_all()

    def _gone(self, receiver: Any) -> None:
        with self._changed:
            if receiver in self._receivers:
                self._receivers.remove(receiver)
            self._changed.notify_all()

    def ready(self, receivers: int) -> bool:
        with self._changed:
            while len(self._receivers) < receivers and not self._stop.is_set():
                self._changed.wait(_PATIENCE_S)
            return not self._stop.is_set()

    def _to_all(self, data: Any, send: Any, count: int) -> None:
        """Give `data`, which is so many messages, to whoever is there; if nobody is, say so and wait."""
        sent = False
        while not sent and self._anybody():
            for receiver in list(self._receivers):
                try:
                    send(receiver, data)
                    sent = True
                except Exception as error:  # each library has its own for a receiver that has gone
                    if not _is_gone(error):
                        raise
                    self._gone(receiver)
        self._sent += count

    def _anybody(self) -> bool:
        """Wait until a receiver is there; False if the replay is being stopped."""
        if self._met and not self._receivers and self.told is not None and not self._stop.is_set():
            self.told(f"the receiver left after {self._sent:,} messages; waiting for another")
        return self.ready(1)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__name__.startswith("ConnectionClosed")


class TcpOutlet(_Served):
    """Listens on `host`:`port`; messages as lines or behind their length, or stamped."""

    together = True

    def __init__(self, host: str, port: int, playable: Playable, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._text, self._width = playable.text, FRAMINGS.get(playable.framing, 0)
        self._greeting = playable.greeting
        try:
            self._server = socket.create_server((host, port), family=family_of(host))
        except OSError as error:
            raise _no_server(error, f"tcp://{at(host, port)}") from None
        self._server.settimeout(_PATIENCE_S)
        self.address = f"tcp://{at(host, self._server.getsockname()[1])}"
        self._thread = threading.Thread(target=self._accept, name="penstock-replay-accept", daemon=True)
        self._closing = False
        self._thread.start()

    def _accept(self) -> None:
        while not self._closing and not self._stop.is_set():
            try:
                receiver, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            receiver.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            receiver.settimeout(None)
            try:
                if self._greeting is not None:
                    receiver.sendall(self._framed(self._greeting))
            except OSError:
                receiver.close()
                continue
            self._joined(receiver)

    def send(self, message: Message) -> None:
        self._to_all(self._framed(message), socket.socket.sendall, 1)

    def send_all(self, messages: Sequence[Message]) -> None:
        self._to_all(b"".join([self._framed(message) for message in messages]), socket.socket.sendall, len(messages))

    def _framed(self, message: Message) -> bytes:
        if self._text:
            stamp = b"%d " % message.ts_ns if self._stamped else b""
            return stamp + message.data.replace(b"\n", b" ") + b"\n"
        if self._stamped:
            return pack(message.data, message.ts_ns, self._clock.now_ns(), message.channel)
        return (len(message.data).to_bytes(self._width, "big") if self._width else b"") + message.data

    def close(self) -> None:
        self._closing = True
        self._server.close()
        for receiver in self._receivers:
            receiver.close()
        self._thread.join(2.0)


class WebSocketOutlet(_Served):
    """Listens on `host`:`port`; a message is a frame, text or binary. Frames that are due together are written in one go."""

    together = True

    def __init__(self, host: str, port: int, playable: Playable, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            from websockets.sync.server import serve
        except ImportError:
            raise MissingExtraError("serving over WebSocket", "websockets", "live") from None
        self._text, self._greeting = playable.text, playable.greeting
        try:
            sock = socket.create_server((host, port), family=family_of(host))
        except OSError as error:
            raise _no_server(error, f"ws://{at(host, port)}") from None
        self._server = serve(self._handle, sock=sock, compression=None)
        self.address = f"ws://{at(host, self._server.socket.getsockname()[1])}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="penstock-replay-serve", daemon=True)
        self._thread.start()

    def _handle(self, connection: Any) -> None:
        try:
            if self._greeting is not None:
                _send(connection, (self._text, [body := self._framed(self._greeting)], _frame(body, self._text)))
            self._joined(connection)
            for _ in connection:  # subscriptions are taken and not asked for
                pass
        except Exception as error:
            if not _is_gone(error):
                raise
        finally:
            self._gone(connection)

    def send(self, message: Message) -> None:
        self.send_all([message])

    def send_all(self, messages: Sequence[Message]) -> None:
        bodies = [self._framed(message) for message in messages]
        frames = b"".join([_frame(body, self._text) for body in bodies])
        self._to_all((self._text, bodies, frames), _send, len(messages))

    def _framed(self, message: Message) -> bytes:
        if self._text:
            data = message.data if message.data.isascii() else message.data.decode("utf-8", "replace").encode()
            return b"%d %s" % (message.ts_ns, data) if self._stamped else data
        if self._stamped:
            return pack(message.data, message.ts_ns, self._clock.now_ns(), message.channel)
        return message.data

    def close(self) -> None:
        for connection in list(self._receivers):
            connection.close()
        self._server.shutdown()
        self._thread.join(2.0)


def _frame(data: bytes, text: bool) -> bytes:
    """An unmasked frame, whole (RFC 6455, section 5.2)."""
    size, kind = len(data), 0x81 if text else 0x82
    if size < 126:
        return bytes((kind, size)) + data
    return _MEDIUM.pack(kind, 126, size) + data if size < 1 << 16 else _LONG.pack(kind, 127, size) + data


def _send(connection: Any, messages: tuple[bool, Sequence[bytes], bytes]) -> None:
    """Write frames to the connection's socket while it is open and nobody else writes."""
    text, bodies, frames = messages
    mutex = getattr(connection, "protocol_mutex", None)
    if mutex is None:
        for body in bodies:
            connection.send(body.decode() if text else body)
        return
    with mutex:
        if connection.protocol.state.name != "OPEN":
            raise ConnectionResetError("the receiver is closing the connection")
        connection.socket.sendall(frames)


def _no_server(error: OSError, address: str) -> OSError:
    return OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}")
