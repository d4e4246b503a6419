"""Where a replay sends: a TCP or WebSocket server, datagrams, or POST requests."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...pipeline.clock import Clock
from ...pipeline.errors import FormatError, GraphError, MissingExtraError, PenstockError
from ..live._splitter import FRAMINGS
from ..live.stamp import HTTP_FIELD, MOST_NUMBER, pack
from .message import Message, Playable

__all__ = ["Outlet", "outlet_to"]

_PATIENCE_S = 0.1
_MEDIUM, _LONG = struct.Struct(">BBH"), struct.Struct(">BBQ")


class Outlet(ABC):
    """Sends messages; where there are receivers that connect, all get all, and the slowest sets the pace."""

    #: Where it listens or sends, once it is open.
    address = ""
    #: Whether several messages are best given at once.
    together = False

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


class _Served(Outlet):
    """An outlet that receivers connect to."""

    def __init__(self, clock: Clock, stop: threading.Event, *, stamped: bool) -> None:
        super().__init__(clock, stop, stamped=stamped)
        self._receivers: list[Any] = []
        self._changed = threading.Condition()

    def _joined(self, receiver: Any) -> None:
        with self._changed:
            self._receivers.append(receiver)
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

    def _to_all(self, data: Any, send: Any) -> None:
        """Give `data` to whoever is there; if nobody is, wait."""
        sent = False
        while not sent and self.ready(1):
            for receiver in list(self._receivers):
                try:
                    send(receiver, data)
                    sent = True
                except Exception as error:  # each library has its own for a receiver that has gone
                    if not _is_gone(error):
                        raise
                    self._gone(receiver)


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
            self._server = socket.create_server((host, port))
        except OSError as error:
            raise _no_server(error, f"tcp://{host}:{port}") from None
        self._server.settimeout(_PATIENCE_S)
        self.address = f"tcp://{host}:{self._server.getsockname()[1]}"
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
        self._to_all(self._framed(message), socket.socket.sendall)

    def send_all(self, messages: Sequence[Message]) -> None:
        self._to_all(b"".join([self._framed(message) for message in messages]), socket.socket.sendall)

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
            self._server = serve(self._handle, host, port, compression=None)
        except OSError as error:
            raise _no_server(error, f"ws://{host}:{port}") from None
        self.address = f"ws://{host}:{self._server.socket.getsockname()[1]}"
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
        self._to_all((self._text, bodies, b"".join([_frame(body, self._text) for body in bodies])), _send)

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


class UdpOutlet(Outlet):
    """Sends datagrams to `host`:`port`; multicast ones stay on this machine unless `ttl` says otherwise.

    Stamped ones are numbered, so that their receiver knows of a lost one.

    Raises ConnectionRefusedError if nobody listens there when the first one arrives, as far as that can be told; later ones
    that are refused are counted.
    """

    together = True

    def __init__(
        self, host: str, port: int, ttl: int, interface: str, playable: Playable, *args: Any, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.address = f"udp://{host}:{port}"
        self._greeting = playable.greeting
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
            self._socket.connect((host, port))
        except OSError as error:
            self._socket.close()
            raise OSError(error.errno, f"cannot send to {self.address}: {error.strerror or error}") from None
        self._sent, self._number = False, 0

    def ready(self, receivers: int) -> bool:
        if self._greeting is not None and not self._sent:
            self.send(self._greeting)
        return super().ready(receivers)

    def send(self, message: Message) -> None:
        self.send_all([message])

    def send_all(self, messages: Sequence[Message]) -> None:
        now, number, send = self._clock.now_ns(), self._number, self._socket.send
        for ts_ns, data, channel in messages:
            if self._stamped:
                number = number % MOST_NUMBER + 1
                data = pack(data, ts_ns, now, channel, number)
            try:
                send(data)
            except OSError as error:
                self._failed(error, data)
            if not self._sent:
                self._check_first()
        self._number = number

    def _check_first(self) -> None:
        self._sent = True
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {self.address}")

    def _failed(self, error: OSError, data: bytes) -> None:
        if error.errno == errno.EMSGSIZE:
            why = f"a message of {len(data)} bytes does not fit a datagram; serve it on tcp:// or ws://"
            raise FormatError(why) from None
        if error.errno != errno.ECONNREFUSED:
            raise OSError(error.errno, f"cannot send to {self.address}: {error.strerror or error}") from None
        self._refused()  # tells of one that was sent before; this one did not go out
        self._send_again(data)

    def _send_again(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except ConnectionRefusedError:
            self._refused()

    def _refused(self) -> None:
        reason = f"datagrams were refused by {self.address}: nobody listened"
        self.lost[reason] = self.lost.get(reason, 0) + 1

    def close(self) -> None:
        self._socket.close()


class HttpOutlet(Outlet):
    """POSTs each message to `url` and waits for the answer; anything but 2xx ends the replay."""

    def __init__(self, url: str, playable: Playable, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        parts = urlsplit(url)
        self._path = parts.path or "/"
        self._kind = "application/json" if playable.text else "application/octet-stream"
        self._greeting = playable.greeting
        self._connection = HTTPConnection(str(parts.hostname), parts.port or 80, timeout=30)
        self.address = url

    def ready(self, receivers: int) -> bool:
        if self._greeting is not None:
            self.send(self._greeting)
            self._greeting = None
        return super().ready(receivers)

    def send(self, message: Message) -> None:
        headers = {"Content-Type": self._kind}
        if self._stamped:
            headers[HTTP_FIELD] = str(message.ts_ns)
        try:
            self._connection.request("POST", self._path, message.data, headers)
            answer = self._connection.getresponse()
            answer.read()
        except HTTPException as error:
            raise ConnectionError(f"{self.address}: {error!r}") from None
        except ConnectionRefusedError as error:
            raise ConnectionRefusedError(error.errno, f"nobody listens on {self.address}") from None
        except OSError as error:
            raise OSError(error.errno, f"cannot send to {self.address}: {error.strerror or error}") from None
        if answer.status // 100 != 2:
            raise PenstockError(f"{self.address} answered {answer.status} {answer.reason}")

    def close(self) -> None:
        self._connection.close()


def _no_server(error: OSError, address: str) -> OSError:
    return OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}")


def outlet_to(url: str, playable: Playable, clock: Clock, stop: threading.Event, *, stamped: bool) -> Outlet:
    """What serves or sends to `url`. Raises GraphError for a URL that is none, OSError where it cannot be opened."""
    parts = urlsplit(url)
    asked = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("tcp", "udp", "ws", "http") or not host or port is None:
        expected = "tcp://HOST:PORT, ws://HOST:PORT (served), udp://HOST:PORT or http://HOST:PORT/PATH (sent to)"
        raise GraphError("not an address to replay to", expected=expected, got=url)
    both: Sequence[Any] = (clock, stop)
    if parts.scheme == "udp":
        return UdpOutlet(
            host, port, _ttl(asked, url), asked.get("interface", "127.0.0.1"), playable, *both, stamped=stamped
        )
    if parts.scheme == "http":
        return HttpOutlet(url, playable, *both, stamped=stamped)
    kind = TcpOutlet if parts.scheme == "tcp" else WebSocketOutlet
    return kind(host, port, playable, *both, stamped=stamped)


def _ttl(asked: dict[str, str], url: str) -> int:
    text = asked.get("ttl", "0")
    if not (text.isdigit() and int(text) < 256):
        raise GraphError("no time to live", expected="?ttl=0 to 255", got=url)
    return int(text)
