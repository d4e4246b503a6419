"""Messages that others POST to this machine, such as Valve's game-state integration."""

from __future__ import annotations

from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ...pipeline.context import Context
from ._addresses import at, family_of
from .arrival import Arrival
from .inlet import Inlet
from .stamp import HTTP_CHANNEL, HTTP_FIELD

__all__ = ["HttpLine"]


@dataclass(frozen=True)
class HttpLine:
    """Listens on `host`:`port` for POST requests to `path`; the body is the message.

    The answer (200, empty) goes out as soon as there is room for the message, since games slow down when it takes long;
    413 for a body of more than `limit` bytes, 411 without a length, 404 for another path. A body of type
    ``application/x-ndjson`` is one message a line. A body that breaks off is told as a lost connection.
    """

    host: str
    port: int
    line: int = 0
    path: str = "/"
    limit: int = 16 << 20

    def run(self, inlet: Inlet, context: Context) -> None:
        """See `Line.run`. Raises OSError where the address cannot be had."""
        spec = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if self.path.split("?")[0] != spec.path:
                    self._answer(404)
                elif not length.isdigit():
                    self._answer(411)
                elif int(length) > spec.limit:
                    self._answer(413)
                else:
                    body = self._body(int(length))
                    if len(body) < int(length):
                        self.close_connection = True
                        broken = f"lost: a POST broke off, {len(body)} of its {length} bytes came"
                        for event in (broken, "connected"):
                            inlet.put(Arrival(context.clock.now_ns(), b"", spec.line, 0, event))
                        return
                    self._take(body)

            def _body(self, length: int) -> bytes:
                body = bytearray()
                try:
                    while len(body) < length and (piece := self.rfile.read1(length - len(body))):
                        body += piece
                except OSError:
                    self.close_connection = True
                return bytes(body)

            def _take(self, body: bytes) -> None:
                stamp = self.headers.get(HTTP_FIELD, "")
                came = int(stamp) if stamp.isdecimal() and len(stamp) < 20 else context.clock.now_ns()
                number = self.headers.get(HTTP_CHANNEL, "")
                channel = int(number) if number.isdecimal() and len(number) < 6 and int(number) < 1 << 16 else 0
                lines = "ndjson" in self.headers.get("Content-Type", "")
                messages = [m for m in body.split(b"\n") if m.strip()] if lines else [body]
                wanted = all(inlet.put(Arrival(came, message, spec.line, channel)) for message in messages)
                self._answer(200 if wanted else 503)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if status != 200:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Requests are counted, not printed."""

        class Server(ThreadingHTTPServer):
            address_family = family_of(spec.host)

        try:
            server = Server((self.host, self.port), Handler)
        except OSError as error:
            why = error.strerror or error
            raise OSError(error.errno, f"cannot listen on http://{at(self.host, self.port)}: {why}") from None
        server.daemon_threads = True
        server.timeout = 0.1
        with server:
            inlet.put(Arrival(context.clock.now_ns(), b"", self.line, 0, "connected"))
            while not inlet.done:
                server.handle_request()
