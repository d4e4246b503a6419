"""Senders and receivers on loopback for the tests of live feeds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
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
        if any(line.split()[1].endswith(wanted) for line in Path("/proc/net/udp").read_text().splitlines()[1:]):
            return
        pause.wait(0.01)
    raise AssertionError(f"nobody has bound the port {port}")
