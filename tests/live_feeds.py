"""Senders and receivers on loopback for the tests of live feeds."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.source import SourceSpec


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def follow(spec: SourceSpec) -> tuple[pa.Table, list[BadRecord], dict[str, int]]:
    """Read `spec` to its end: rows, bad records, drops."""
    context = Context("feed")
    reader = spec.open(context)
    batches: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    dropped: dict[str, int] = {}
    try:
        for block in reader.blocks():
            decoded = reader.decode(block)
            batches += decoded.batches
            bad += decoded.bad
            for reason, count in decoded.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
    finally:
        reader.close()
    return pa.Table.from_batches(batches, schema=spec.schema), bad, dropped


@contextmanager
def tcp_server(*connections: Iterable[bytes]) -> Iterator[int]:
    """Serves one list of pieces to each connection in turn and closes it; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            for pieces in connections:
                try:
                    receiver, _ = server.accept()
                except OSError:
                    return
                with receiver:
                    for piece in pieces:
                        receiver.sendall(piece)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
    thread.join(5.0)


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run `work` in a thread; the list holds what it returned, or raised, once the block has ended."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield outcome
    thread.join(30.0)
    assert outcome, "the thread still runs"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]


def lines_of(count: int, *, start: int = 0) -> list[bytes]:
    """JSON lines with a time and a number."""
    return [b'{"ts_ns": %d, "n": %d}' % (10**18 + n * 1_000_000, n) for n in range(start, start + count)]


def write_lines(path: Path, count: int) -> Path:
    """A file of `lines_of`."""
    path.write_bytes(b"\n".join(lines_of(count)) + b"\n")
    return path


def until_bound(port: int) -> None:
    """Wait until somebody receives on a UDP port (asking by binding it could get in the way)."""
    pause = threading.Event()
    wanted = f":{port:04X}"
    for _ in range(3000):
        tables = [table for name in ("udp", "udp6") if (table := Path("/proc/net", name)).exists()]
        lines = [line for table in tables for line in table.read_text().splitlines()[1:]]
        if any(line.split()[1].endswith(wanted) for line in lines):
            return
        pause.wait(0.01)
    raise AssertionError(f"nobody has bound the port {port}")


#: How long a test waits for what should come at once, s: kernels may have to be compiled first, on a busy machine.
_PATIENCE_S = 90
#: Steps of a faulty sender, beside the messages that it sends: wait until something has come out of the feed, wait until the
#: feed has told something, end the connection and begin another one.
PAUSE, TOLD, BREAK = "pause", "told", "break"
FAULTS = ("drop", "duplicate", "reorder", "delay", "disconnect")


def faulty(messages: Sequence[Any], at: int, fault: str, *, told: bool = True) -> list[Any]:
    """What a sender does to `messages` with a fault at one of them. Where a loss must be `told`, it is before the second
    message behind it is sent."""
    before, here, behind = list(messages[:at]), messages[at], list(messages[at + 1 :])
    seen = [TOLD] if told else []
    return {
        "none": [*before, here, *behind],
        "drop": [*before, behind[0], *seen, *behind[1:]],
        "duplicate": [*before, here, here, *behind],
        "reorder": [*before, behind[0], here, *behind[1:]],
        "delay": [*before, PAUSE, here, *behind],
        "disconnect": [*before, PAUSE, BREAK, behind[0], *seen, *behind[1:]],
    }[fault]


class Watched:
    """Reads a feed in a thread of its own, and lets a sender wait for what comes out of it."""

    def __init__(self, spec: SourceSpec) -> None:
        self.context = Context("feed")
        self.rows: list[pa.RecordBatch] = []
        self.bad: list[BadRecord] = []
        self.dropped: dict[str, int] = {}
        self._schema, self._blocks = spec.schema, 0
        self._reader = spec.open(self.context)
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for block in self._reader.blocks():
                decoded = self._reader.decode(block)
                with self._changed:
                    self._blocks += 1
                    self.rows += decoded.batches
                    self.bad += decoded.bad
                    for reason, count in decoded.dropped.items():
                        self.dropped[reason] = self.dropped.get(reason, 0) + count
                    self._changed.notify_all()
        except BaseException as error:
            self._failure = error
        finally:
            self._ended.set()
            self._reader.close()  # takes until the socket's next timeout

    def wait(self, step: str) -> None:
        """Until something has come, or something has been told."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.bad if step == TOLD else self._blocks, _PATIENCE_S)
        assert came, f"nothing has been {step}"

    def finish(self) -> pa.Table:
        """All rows, once the feed has ended."""
        assert self._ended.wait(_PATIENCE_S), "the feed has not ended"
        if self._failure is not None:
            raise self._failure
        return pa.Table.from_batches(self.rows, self._schema)

    @property
    def counted(self) -> dict[str, int]:
        """Everything that was dropped or noted."""
        metrics = self.context.metrics
        return {**self.dropped, **metrics.dropped, **metrics.noted}


@contextmanager
def tcp_sender(steps: Sequence[Any], wait: Callable[[str], None]) -> Iterator[str]:
    """Serves the steps over TCP; gives the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            receiver, _ = server.accept()
            for step in steps:
                if step == BREAK:
                    receiver.close()
                    receiver, _ = server.accept()
                elif isinstance(step, str):
                    wait(step)
                else:
                    receiver.sendall(step)
            receiver.close()

        with beside(run):
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def ws_sender(steps: Sequence[Any], wait: Callable[[str], None]) -> Iterator[str]:
    """Serves the steps over a WebSocket, text as text; gives the address. A broken connection has no closing handshake."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve

    left = iter(steps)

    def handle(connection: Any) -> None:
        for step in left:
            if step == BREAK:
                connection.socket.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(step, str):
                wait(step)
                continue
            connection.send(step.decode() if step[:1] in b"{[" else step)
        with contextlib.suppress(ConnectionClosed):
            connection.recv()

    server = serve(handle, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join(5)


@contextmanager
def udp_sender(steps: Sequence[Any], wait: Callable[[str], None], *, lines: int = 1) -> Iterator[Any]:
    """Sends the steps as datagrams to as many ports; gives the addresses. A step may be a pair (line, datagram)."""
    ports = [free_port(socket.SOCK_DGRAM) for _ in range(lines)]

    def run() -> None:
        for port in ports:
            until_bound(port)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for step in steps:
            if step == BREAK:
                sender.close()
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            elif isinstance(step, str):
                wait(step)
            else:
                line, data = step if isinstance(step, tuple) else (0, step)
                sender.sendto(data, ("127.0.0.1", ports[line]))
        sender.close()

    urls = tuple(f"udp://127.0.0.1:{port}" for port in ports)
    with beside(run):
        yield urls if lines > 1 else urls[0]


@contextmanager
def zmq_sender(steps: Sequence[Any], wait: Callable[[str], None]) -> Iterator[str]:
    """Publishes the steps, of several frames each, over ZeroMQ; gives the address."""
    import zmq

    with zmq.Context() as owner:
        first = _publisher(owner, 0)
        url = first.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")

        def run() -> None:
            sender = first
            sender.recv()
            for step in steps:
                if step == BREAK:
                    sender.close(5000)  # what is on its way arrives
                    sender = _publisher(owner, int(url.rpartition(":")[2]))
                    sender.recv()
                elif isinstance(step, str):
                    wait(step)
                else:
                    sender.send_multipart(step)
            sender.close(1000)

        with beside(run):
            yield url


def _publisher(owner: Any, port: int) -> Any:
    """An XPUB socket, which hears when somebody subscribes; waits until the port is free."""
    import zmq

    sock = owner.socket(zmq.XPUB)
    for _ in range(1000):
        try:
            sock.bind(f"tcp://127.0.0.1:{port or '*'}")
        except zmq.ZMQError:
            threading.Event().wait(0.005)
        else:
            return sock
    raise AssertionError(f"the port {port} is not free")


@contextmanager
def http_sender(steps: Sequence[Any], wait: Callable[[str], None]) -> Iterator[str]:
    """POSTs the steps one after the other; gives the address. A broken connection ends inside the body of a POST."""
    port = free_port()

    def connected() -> http.client.HTTPConnection:
        for _ in range(500):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.connect()
            except ConnectionRefusedError:
                threading.Event().wait(0.01)
            else:
                return connection
        raise AssertionError(f"nobody listens on port {port}")

    def run() -> None:
        connection = connected()
        for step in steps:
            if step == BREAK:
                connection.putrequest("POST", "/")
                connection.putheader("Content-Length", "1000")
                connection.endheaders(b"{" * 500)
                connection.close()
                wait(TOLD)
                connection = connected()
            elif isinstance(step, str):
                wait(step)
            else:
                connection.request("POST", "/", step, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200
        connection.close()

    with beside(run):
        yield f"http://127.0.0.1:{port}/"
