"""ZeroMQ over loopback: rows of the file, frames, losses that numbers show, connections, ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_feeds import beside, follow, free_port, lines_of, write_lines
from penstock import read, sinks, sources
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, MissingExtraError
from penstock.pipeline.source import SourceSpec
from penstock.sources.brokers._stamps import number_of, stamp_of
from penstock.sources.brokers.zeromq import Zmq
from penstock.sources.live.json_messages import JsonMessages
from penstock.sources.live.raw_messages import RawMessages
from source_reading import read_whole

zmq = pytest.importorskip("zmq")

COLUMNS = {"n": "n:int64"}
JSON = JsonMessages(sources.Ndjson("feed", columns=COLUMNS))
BASE = 10**18
NUMBERED = ("topic", "ts", "sequence", "payload")


def digest(spec: SourceSpec, path: Path) -> str:
    report = read(spec).write(sinks.ArrowIpc(path, overwrite=True)).run(runner="inline")
    return str(next(iter(report.digests.values())))


class Publisher:
    """An XPUB socket: it hears when somebody subscribes."""

    def __init__(self, owner: Any, port: int = 0) -> None:
        self.sock = owner.socket(zmq.XPUB)
        self.sock.setsockopt(zmq.LINGER, 1000)
        self.sock.setsockopt(zmq.SNDHWM, 0)
        self.sock.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.url = self.sock.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")

    def wait_for_subscriber(self) -> bytes:
        assert self.sock.poll(10_000)
        return bytes(self.sock.recv())

    def send(self, messages: list[list[bytes]]) -> None:
        for parts in messages:
            self.sock.send_multipart(parts)


@contextmanager
def publisher() -> Iterator[Publisher]:
    with zmq.Context() as owner:
        made = Publisher(owner)
        try:
            yield made
        finally:
            made.sock.close()


def published(spec_of: Any, messages: list[list[bytes]], run: Any = follow) -> Any:
    """What `run` makes of the source while `messages` are published to it."""
    with publisher() as sender:

        def send() -> None:
            sender.wait_for_subscriber()
            sender.send(messages)

        with beside(send):
            return run(spec_of(sender.url))


@pytest.mark.parametrize("stamp", [lambda ns: b"%d" % ns, lambda ns: ns.to_bytes(8, "little")], ids=["text", "bytes"])
def test_published_rows_are_those_of_the_file(tmp_path: Path, stamp: Any) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 2000)
    want = digest(sources.Ndjson(path, columns=COLUMNS), tmp_path / "file.arrow")
    messages = [[b"feed", stamp(BASE + n * 1_000_000), line] for n, line in enumerate(lines_of(2000))]
    got = published(lambda url: Zmq(url, JSON, most=2000), messages, lambda spec: digest(spec, tmp_path / "zmq.arrow"))
    assert got == want


@pytest.mark.parametrize("bind", [False, True])
def test_pushed_rows_are_those_of_the_file(tmp_path: Path, bind: bool) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 500)
    want = digest(sources.Ndjson(path, columns=COLUMNS), tmp_path / "file.arrow")
    url = f"tcp://127.0.0.1:{free_port()}"

    def push() -> None:
        with zmq.Context() as owner, owner.socket(zmq.PUSH) as sock:
            (sock.connect if bind else sock.bind)(url)
            for n, line in enumerate(lines_of(500)):
                sock.send_multipart([b"feed", b"%d" % (BASE + n * 1_000_000), line])

    with beside(push):
        assert digest(Zmq(url, JSON, kind="pull", bind=bind, most=500), tmp_path / "zmq.arrow") == want


def test_only_the_topic_that_was_asked_for_comes_and_arrival_is_its_time() -> None:
    messages = [[b"a.1", b"x"], [b"b.1", b"y"], [b"a.2", b"z"]]
    table, bad, _ = published(lambda url: Zmq(url, RawMessages(), topic=b"a.", most=2), messages)
    assert table["data"].to_pylist() == [b"x", b"z"] and bad == []
    assert table["ts_recv"].cast("int64")[0].as_py() > 1_700_000_000 * 10**9


def test_messages_that_never_came_are_told_by_their_numbers() -> None:
    numbers = [(b"a", 5), (b"b", 0), (b"a", 6), (b"a", 9), (b"b", 1), (b"a", 10), (b"a", 3)]
    messages = [[t, b"%d" % BASE, n.to_bytes(8, "little"), b"%s%d" % (t, n)] for t, n in numbers]
    table, bad, _ = published(lambda url: Zmq(url, RawMessages(), frames=NUMBERED, most=7), messages)
    assert table["data"].to_pylist() == [b"a5", b"b0", b"a6", b"a9", b"b1", b"a10", b"a3"]
    assert [(record.operation, record.error) for record in bad] == [
        ("broker.gap", "messages 7 to 8 of topic 'a' never came"),
        ("broker.gap", "numbers of topic 'a' began again at 3 after 10"),
    ]


def test_a_message_with_other_frames_is_a_bad_record_and_the_rest_goes_on() -> None:
    good = [b"t", b"%d" % BASE, b"good"]
    messages = [[b"t", b"no time", b"x"], [b"1", b"2", b"3", b"4"], good]
    table, bad, _ = published(lambda url: Zmq(url, RawMessages(), most=1), messages)
    assert table["data"].to_pylist() == [b"good"]
    assert [(record.operation, record.data) for record in bad] == [
        ("broker.frames", b"t\nno time\nx"),
        ("broker.frames", b"1\n2\n3\n4"),
    ]
    assert "4 frames (1, 1, 1, 1 bytes)" in bad[1].error


def test_a_connection_that_was_lost_and_made_again_is_told() -> None:
    with zmq.Context() as owner:
        first = Publisher(owner)
        port = int(first.url.rpartition(":")[2])

        def send() -> None:
            first.wait_for_subscriber()
            first.send([[b"", b"%d" % BASE, b"before"]])
            first.sock.close(1000)
            again: Any = None
            while again is None:  # the port is free once the old socket is gone
                try:
                    again = Publisher(owner, port)
                except zmq.ZMQError:
                    continue
            again.wait_for_subscriber()
            again.send([[b"", b"%d" % BASE, b"after"]])
            again.sock.close(1000)

        with beside(send):
            table, bad, _ = follow(Zmq(first.url, RawMessages(), most=2))
    assert table["data"].to_pylist() == [b"before", b"after"]
    assert [record.operation for record in bad] == ["live.gap"]


def test_a_run_that_goes_on_says_that_it_missed_something_and_counts_on() -> None:
    spec = published(lambda url: Zmq(url, RawMessages(), most=2), [[b"a"], [b"b"]], read_whole)
    after = spec.blocks[-1].after
    whole = published(
        lambda url: Zmq(url, RawMessages(), most=3), [[b"c"]], lambda spec: read_whole(spec, position=after)
    )
    assert whole.table["seq"].to_pylist() == [2]
    assert [record.operation for record in whole.bad] == ["broker.gap"]


def test_the_feed_ends_when_the_sender_has_been_away_for_long_enough() -> None:
    with zmq.Context() as owner:
        sender = Publisher(owner)

        def send() -> None:
            sender.wait_for_subscriber()
            sender.send([[b"", b"last"]])
            sender.sock.close(1000)

        with beside(send):
            table, _, _ = follow(Zmq(sender.url, RawMessages(), reconnect="300ms"))
    assert table["data"].to_pylist() == [b"last"]


def test_nobody_there_or_no_such_address_is_one_clear_error() -> None:
    with pytest.raises(ConnectionError, match="nobody answers there"):
        follow(Zmq(f"tcp://127.0.0.1:{free_port()}", JSON, reconnect="100ms"))
    with pytest.raises(ConnectionError, match="zmq:tcp://127"):
        follow(Zmq("tcp://127.0.0.1:notaport", JSON))


def test_a_stopped_run_ends_quietly_and_so_does_one_whose_time_is_up() -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    assert follow(Zmq(url, JSON, kind="pull", bind=True, duration="1ms"))[0].num_rows == 0
    context = Context("feed", stop=threading.Event())
    reader = Zmq(url, JSON, kind="pull", bind=True).open(context)
    with beside(lambda: list(reader.blocks())) as rest:
        context.stop.set()
    assert rest == [[]]
    reader.close()


def test_numbers_and_times_are_checked() -> None:
    assert stamp_of(b"12") == stamp_of("12") == 12 and stamp_of(b"-1") is stamp_of(b"") is stamp_of(None) is None
    assert stamp_of(b"9" * 19) is None and stamp_of(b"%d" % (2**63 - 1)) == 2**63 - 1
    assert number_of((7).to_bytes(8, "little")) == 7 and number_of(b"\xff" * 8) is None and number_of(b"77") == 77


def test_wrong_arguments_and_a_missing_package_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: list[dict[str, Any]] = [
        {"kind": "req"},
        {"kind": "pull", "topic": b"x"},
        {"frames": ("topic",)},
        {"frames": ("payload", "payload")},
        {"frames": ("payload", "other")},
        {"queue": 0},
        {"most": 0},
    ]
    for options in wrong:
        with pytest.raises(GraphError):
            Zmq("tcp://h:1", JSON, **options)
    with pytest.raises(GraphError, match="address"):
        Zmq("h:1", JSON)
    monkeypatch.setitem(sys.modules, "zmq", None)
    monkeypatch.setattr("penstock.sources.brokers.zeromq.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"penstock\[brokers\]"):
        Zmq("tcp://h:1", JSON).open(Context("feed"))
