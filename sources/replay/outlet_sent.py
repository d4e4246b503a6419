"""Outlets that send to an address: datagrams and POST requests."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from ...pipeline.errors import FormatError, PenstockError
from ..live._addresses import address_of, at, send_from
from ..live.stamp import HEADER, HTTP_CHANNEL, HTTP_FIELD, MAGIC, MOST_NUMBER
from .message import Message, Playable
from .outlet import Outlet

__all__ = ["HttpOutlet", "UdpOutlet"]


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
        self.address = f"udp://{at(host, port)}"
        self._greeting = playable.greeting
        try:
            family, address = address_of(host, port)
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise self._unsent(error) from None
        try:
            send_from(self._socket, address, interface, ttl)
            self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise self._unsent(error) from None
        self._sent, self._number = False, 0

    def ready(self, receivers: int) -> bool:
        if self._greeting is not None and not self._sent:
            self.send(self._greeting)
        return super().ready(receivers)

    def send(self, message: Message) -> None:
        self.send_all([message])

    def send_all(self, messages: Sequence[Message]) -> None:
        now, number, send = self._clock.now_ns(), self._number, self._socket.send
        header = HEADER.pack
        for ts_ns, data, channel in messages:
            if self._stamped:
                number = number % MOST_NUMBER + 1
                data = header(MAGIC, len(data), now, ts_ns, channel, number) + data
            try:
                send(data)
            except OSError as error:
                self._failed(error, data)
            if not self._sent:
                self._check_first()
        self._number = number

    def _unsent(self, error: OSError) -> OSError:
        return OSError(error.errno, f"cannot send to {self.address}: {error.strerror or error}")

    def _check_first(self) -> None:
        self._sent = True
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {self.address}")

    def _failed(self, error: OSError, data: bytes) -> None:
        if error.errno == errno.EMSGSIZE:
            why = f"a message of {len(data)} bytes does not fit a datagram; serve it on tcp:// or ws://"
            raise FormatError(why) from None
        if error.errno != errno.ECONNREFUSED:
            raise self._unsent(error) from None
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
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
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
        if message.channel:
            headers[HTTP_CHANNEL] = str(message.channel)
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
