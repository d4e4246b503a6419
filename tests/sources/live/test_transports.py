"""Feeds over real sockets on loopback: what arrives, and what is told when something goes wrong."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import threading
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_feeds import beside, follow, free_port, lines_of, tcp_server
from penstock.pipeline.clock import SyntheticClock
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.live._retry import Retry, reason_of
from penstock.sources.live._splitter import Splitter, TooLong
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.feed import Live
from penstock.sources.live.inlet import Inlet
from penstock.sources.live.json_messages import live_events, live_ndjson
from penstock.sources.live.raw_messages import RawMessages
from penstock.sources.live.reader import LiveReader
from penstock.sources.live.stamp import pack, split_text, unpack
from penstock.sources.live.websocket import WebSocketLine, _Overlap
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

COLUMNS = {"n": "n:int64"}


def numbers(table: pa.Table) -> list[int]:
    return table["n"].to_pylist()


def test_lines_over_tcp_in_any_pieces_are_rows_in_order() -> None:
    stream = b"\n".join(lines_of(300)) + b"\n"
    pieces = [stream[at : at + 37] for at in range(0, len(stream), 37)]
    with tcp_server(pieces) as port:
        table, bad, _ = follow(live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, reconnect="0s"))
    assert numbers(table) == list(range(300))
    assert table["seq"].to_pylist() == list(range(300))
    assert bad == []


def test_a_lost_connection_is_made_again_and_the_gap_is_told_once() -> None:
    first, second = lines_of(10), lines_of(5, start=20)
    cut = b"\n".join(first) + b'\n{"ts_ns": 1000000000000000010, "n"'
    with tcp_server([cut], [b"\n".join(second) + b"\n"]) as port:
        spec = live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, most=16, reconnect="20s")
        table, bad, _ = follow(spec)
    assert numbers(table) == [*range(10), *range(20, 25)]
    gaps = [record for record in bad if record.operation == "live.gap"]
    assert len(gaps) == 1 and "closed" in gaps[0].error
    cut_lines = [record for record in bad if record.operation != "live.gap"]  # the piece of a line that came
    assert len(cut_lines) == 1 and cut_lines[0].data.startswith(b'{"ts_ns": 1000000000000000010')
    assert table["seq"].to_pylist() == [*range(10), *range(11, 16)]


def test_a_line_that_does_not_end_breaks_the_connection_and_not_the_memory() -> None:
    with tcp_server([b'{"a": "' + b"x" * 100_000]) as port:
        from penstock.sources.live.tcp import TcpLine

        context = Context("tcp")
        inlet = Inlet(context.stop)
        inlet.join()
        TcpLine("127.0.0.1", port, limit=10_000, patience_ns=0).run(inlet, context)
        arrivals = inlet.take(100, 1 << 20, 0.1) or []
    assert [a.event for a in arrivals] == ["connected", "lost: a line of more than 10000 bytes"]


def test_nobody_at_the_address_is_one_clear_error() -> None:
    port = free_port()
    with pytest.raises(ConnectionError, match=f"no connection to tcp://127.0.0.1:{port}"):
        follow(live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, reconnect="0s"))


@pytest.mark.parametrize(
    "url", ["ftp://host:1", "tcp://host", "tcp://:9", "udp://h:99999", "file.ndjson", "tcp://h:1?framing=none"]
)
def test_an_address_that_is_none_is_refused_when_the_pipeline_is_built(url: str) -> None:
    with pytest.raises(GraphError, match=r"address|framing"):
        Live(url, RawMessages())


def test_datagrams_are_messages_and_stamped_ones_keep_their_times() -> None:
    port = free_port(socket.SOCK_DGRAM)
    spec = Live(f"udp://127.0.0.1:{port}", RawMessages(), most=4)
    context = Context("udp")
    reader = spec.open(context)
    blocks = reader.blocks()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.05):  # until the socket is bound, datagrams go nowhere
            for data in (b"plain", pack(b"stamped", 1234, 5678, 9)):
                sender.sendto(data, ("127.0.0.1", port))

    with beside(send):
        rows: list[dict[str, Any]] = []
        for block in blocks:
            for batch in reader.decode(block).batches:
                rows += batch.to_pylist()
        stop.set()
    reader.close()
    sender.close()
    assert len(rows) == 4
    assert {row["data"] for row in rows} == {b"plain", b"stamped"}
    for row in rows:
        assert (row["ts_recv"].value == 1234 and row["channel"] == 9) == (row["data"] == b"stamped")


def test_what_does_not_fit_is_counted_and_told() -> None:
    stop = threading.Event()
    inlet = Inlet(stop, most=3)
    inlet.join()
    assert [inlet.offer(Arrival(n, b"x")) for n in range(5)] == [True, True, True, False, False]
    assert inlet.overflowed == 2
    assert [a.recv_ns for a in inlet.take(10, 1 << 20, 0.0) or []] == [0, 1, 2]


def test_a_full_inlet_holds_the_sender_back_until_there_is_room() -> None:
    inlet = Inlet(threading.Event(), most=2)
    inlet.join()
    with beside(lambda: [inlet.put(Arrival(n, b"x")) for n in range(20)]):
        seen: list[int] = []
        while len(seen) < 20:
            taken = inlet.take(10, 1 << 20, 1.0) or []
            assert len(taken) <= 2
            seen += [a.recv_ns for a in taken]
    assert seen == list(range(20))


def test_a_failing_line_is_raised_after_what_came_before_it() -> None:
    inlet = Inlet(threading.Event())
    inlet.join()
    inlet.put(Arrival(1, b"x"))
    inlet.leave(OSError("gone"))
    assert len(inlet.take(10, 100, 0.0) or []) == 1
    with pytest.raises(OSError, match="gone"):
        inlet.take(10, 100, 0.0)


def posts(port: int, requests: list[tuple[str, dict[str, str], bytes | None]]) -> list[int]:
    """The answers to POST requests on one connection each, waiting for the server to listen."""
    answers = []
    for path, headers, body in requests:
        for _ in range(400):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.putrequest("POST", path)
                for name, value in headers.items():
                    connection.putheader(name, value)
                if body is not None and "Content-Length" not in headers:
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
                answers.append(connection.getresponse().status)
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.05)
            finally:
                connection.close()
    return answers


def test_posts_are_rows_whatever_their_layout_and_wrong_ones_are_refused() -> None:
    port = free_port()
    spec = live_events(f"http://127.0.0.1:{port}/gsi", match_id="m", time="t", most=4)
    pretty = json.dumps({"t": 5, "event": "round", "map": {"name": "de_dust2"}}, indent=2).encode()
    two = b'{"t": 6, "event": "kill"}\n{"t": 7, "event": "kill"}\n'
    with beside(lambda: follow(spec)) as outcome:
        answers = posts(
            port,
            [
                ("/other", {}, b"{}"),
                ("/gsi", {"Content-Length": str(1 << 30)}, b""),
                ("/gsi", {}, None),
                ("/gsi", {"X-Penstock-Recv-Ns": "77"}, pretty),
                ("/gsi", {"Content-Type": "application/x-ndjson"}, two),
                ("/gsi", {}, b"not json"),
            ],
        )
    assert answers == [404, 413, 411, 200, 200, 200]
    table, bad, _ = outcome[0]
    assert table["type"].to_pylist() == ["round", "kill", "kill"]
    assert table["ts_event"].cast(pa.int64()).to_pylist() == [5, 6, 7]
    assert table["ts_recv"].cast(pa.int64()).to_pylist()[0] == 77
    assert len(bad) == 1 and bad[0].data == b"not json"


class Overrun:
    """A line on which three packets more than fit came last."""

    def run(self, inlet: Inlet, context: Context) -> None:
        inlet.overflowed += 3


def test_packets_that_did_not_fit_are_told_where_nothing_comes_after_them() -> None:
    context = Context("feed")
    reader = LiveReader([Overrun()], RawMessages().open(context, "feed", None), context, place="feed")
    bad = [record for block in reader.blocks() for record in reader.decode(block).bad]
    reader.close()
    assert [record.error.split(" came")[0] for record in bad] == ["3 packets"]


def websocket_server(handler: Any) -> Any:
    server = serve(handler, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_a_server_that_only_comes_and_goes_is_asked_less_and_less_often() -> None:
    context = Context("ws", clock=SyntheticClock())
    inlet = Inlet(context.stop)
    times: list[int] = []

    def handle(connection: Any) -> None:
        times.append(context.clock.monotonic_ns())
        if len(times) == 6:
            inlet.close()

    server = websocket_server(handle)
    WebSocketLine(f"ws://127.0.0.1:{server.socket.getsockname()[1]}").run(inlet, context)
    server.shutdown()
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert pauses == [n * 100_000_000 for n in (1, 2, 4, 8, 16)]


def test_a_websocket_that_breaks_is_joined_again_and_the_gap_is_told() -> None:
    connections: list[int] = []

    def handle(connection: Any) -> None:
        connections.append(1)
        if len(connections) == 1:
            connection.send(lines_of(1)[0].decode())
            connection.socket.shutdown(socket.SHUT_RDWR)  # no closing handshake: code 1006
        else:
            connection.send(lines_of(1, start=7)[0].decode())
            connection.recv()

    server = websocket_server(handle)
    port = server.socket.getsockname()[1]
    table, bad, _ = follow(live_ndjson(f"ws://127.0.0.1:{port}", columns=COLUMNS, most=2, reconnect="20s"))
    server.shutdown()
    assert numbers(table) == [0, 7]
    assert [record.operation for record in bad] == ["live.gap"]


def test_a_connection_that_gets_old_is_replaced_before_it_is_closed_and_nothing_is_missed() -> None:
    everyone: list[Any] = []
    joined, over = threading.Event(), threading.Event()

    def handle(connection: Any) -> None:
        everyone.append(connection)
        joined.set()
        with contextlib.suppress(ConnectionClosed):
            connection.recv()

    def send_to_all() -> None:
        joined.wait(10.0)
        n = 0
        while not over.wait(0.005):
            for connection in list(everyone):
                with contextlib.suppress(ConnectionClosed):
                    connection.send(f'{{"ts_ns": {n}, "n": {n}}}')
            n += 1

    server = websocket_server(handle)
    url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    with beside(send_to_all):
        table, bad, dropped = follow(live_ndjson(url, columns=COLUMNS, most=150, rollover="100ms"))
        over.set()
    server.shutdown()
    assert len(everyone) >= 2
    assert bad == []
    assert sorted(numbers(table)) == list(range(150))
    assert set(dropped) <= {"came on the old and the new connection"}


@settings(max_examples=200, deadline=None)
@given(
    stream=st.lists(
        st.sampled_from([b"a", b"b", b"heartbeat", *(b"%d" % n for n in range(20))]), min_size=1, max_size=30
    ),
    data=st.data(),
)
def test_of_two_connections_that_overlap_each_message_is_taken_once(stream: list[bytes], data: Any) -> None:
    begins = data.draw(st.integers(0, len(stream)), "the new one begins")
    ends = data.draw(st.integers(begins, len(stream)), "the old one ends")
    old, new = list(stream[:ends]), list(stream[begins:])
    unseen = data.draw(st.integers(0, begins), "read from the old one before the overlap")
    taken, old = old[:unseen], old[unseen:]
    # what only the old one gave may equal what only the new one gives: that message says no more than that it was sent again
    expected = Counter(stream) - (Counter(stream[unseen:begins]) & Counter(stream[ends:]))
    overlap = _Overlap()
    while old or new:
        from_old = bool(old) and (not new or data.draw(st.booleans()))
        overlap.old_ended = not old
        if overlap.over:
            taken += new
            break
        message = (old if from_old else new).pop(0)
        if overlap.is_new(message, old=from_old):
            taken.append(message)
    assert expected <= Counter(taken) <= Counter(stream)


framed = st.lists(st.binary(max_size=40), max_size=12)


@settings(max_examples=150, deadline=None)
@given(messages=framed, width=st.sampled_from(["u16", "u32"]), stamped=st.booleans(), cuts=st.lists(st.integers(1, 9)))
def test_a_stream_splits_into_the_same_messages_wherever_it_is_cut(
    messages: list[bytes], width: str, stamped: bool, cuts: list[int]
) -> None:
    size = {"u16": 2, "u32": 4}[width]
    if stamped:
        stream = b"".join(pack(m, 100 + i, 0, i) for i, m in enumerate(messages))
    else:
        stream = b"".join(len(m).to_bytes(size, "big") + m for m in messages)
    splitter, found, at = Splitter(width, 1000), [], 0
    for cut in [*cuts, len(stream)]:
        found += list(splitter.feed(stream[at : at + cut]))
        at += cut
    assert [m for _, _, m in found] == messages
    if stamped:
        assert [ts for ts, _, _ in found] == [100 + i for i in range(len(messages))]
        assert [channel for _, channel, _ in found] == list(range(len(messages)))
    assert splitter.rest == b""


@settings(max_examples=100, deadline=None)
@given(stream=st.binary(max_size=200), width=st.sampled_from(["lines", "u16", "u32"]), cut=st.integers(1, 50))
def test_any_bytes_are_messages_rest_or_too_long(stream: bytes, width: str, cut: int) -> None:
    splitter = Splitter(width, 60)
    total = 0
    try:
        for at in range(0, len(stream), cut):
            total += sum(len(message) for _, _, message in splitter.feed(stream[at : at + cut]))
    except TooLong:
        return
    assert total + len(splitter.rest) <= len(stream)
    assert len(splitter.rest) <= 60 + 32


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=8), cut=st.integers(1, 40))
def test_lines_that_a_replay_has_stamped_are_known_where_lengths_are_due(lines: list[bytes], cut: int) -> None:
    lines = [b"x" + line.replace(b"\n", b"") for line in lines]
    stream = b"".join(b"%d %s\n" % (7 + i * 10**18, line) for i, line in enumerate(lines))
    splitter, found = Splitter("u32", 16 << 20), []
    for at in range(0, len(stream), cut):
        found += list(splitter.feed(stream[at : at + cut]))
    assert [(ts, m) for ts, _, m in found] == [(7 + i * 10**18, line) for i, line in enumerate(lines)]


def test_a_stream_that_does_not_begin_with_a_length_is_one_error_that_says_what_to_do() -> None:
    with tcp_server([b"\n".join(lines_of(20)) + b"\n"], [b"never"]) as port:
        with pytest.raises(FormatError, match=rf"tcp://127.0.0.1:{port}: .*no length.*\?framing=lines \(lines, u16"):
            follow(Live(f"tcp://127.0.0.1:{port}", RawMessages()))
        socket.create_connection(("127.0.0.1", port)).close()  # nobody has taken the second one


def test_connections_on_which_nothing_sound_comes_are_made_again_more_and_more_slowly() -> None:
    clock = SyntheticClock()
    context = Context("retry", clock=clock)
    retry = Retry(context, 10 * 10**9)
    inlet = Inlet(context.stop)
    times = [0]
    for _ in range(20):
        retry.connected()
        assert retry.wait(inlet)
        times.append(clock.monotonic_ns())
    assert times[-1] - times[-2] == 5 * 10**9


def test_stamps_are_read_back_and_what_is_none_is_left_alone() -> None:
    assert unpack(pack(b"data", 12, 34, 5)) == (12, 5, b"data")
    assert unpack(b"PNSK short") is None
    assert unpack(pack(b"data", 12, 34)[:-1]) is None
    assert split_text(b'123 {"a": 1}') == (123, b'{"a": 1}')
    assert split_text(b'{"a": 1}') is None
    assert split_text(b"12x4 {}") is None
    assert split_text(b"9" * 30 + b" {}") is None


def test_trying_again_waits_longer_each_time_and_ends_with_patience() -> None:
    clock = SyntheticClock()
    context = Context("retry", clock=clock)
    retry = Retry(context, 10 * 10**9)
    inlet = Inlet(context.stop)
    times = [clock.monotonic_ns()]
    while retry.wait(inlet):
        times.append(clock.monotonic_ns())
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert pauses[:4] == [100_000_000, 200_000_000, 400_000_000, 800_000_000]
    assert clock.monotonic_ns() == 10 * 10**9
    retry.succeeded()
    assert retry.wait(inlet)


def test_a_run_that_goes_on_numbers_bad_lines_on() -> None:
    codec = live_ndjson("tcp://127.0.0.1:1", columns=COLUMNS).codec
    first = codec.open(Context("json"), "tcp://test", None)
    first.take([Arrival(n, line) for n, line in enumerate(lines_of(4))], 0)
    again = codec.open(Context("json"), "tcp://test", json.loads(json.dumps(dict(first.position()))))
    framed = again.take([Arrival(9, b"no json")], 4)
    (bad,) = again.decode(framed.payload, 4).bad
    assert ", line 5, byte " in bad.place and bad.seq == 4


def test_a_feed_that_goes_on_from_a_snapshot_loses_no_row_that_comes_and_tells_that_it_was_away() -> None:
    with tcp_server([b"\n".join(lines_of(5)) + b"\n"]) as port:
        spec = live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, reconnect="0s", most=44)
        assert not spec.rewinds
        position = json.loads(json.dumps({"seq": 40, "taken": 40, "session": {"offset": 900, "line": 41}}))
        reader = spec.open(Context("feed"), position=position)
        decoded = [reader.decode(block) for block in reader.blocks()]
        reader.close()
    rows = [row for part in decoded for batch in part.batches for row in batch.to_pylist()]
    bad = [record for part in decoded for record in part.bad]
    assert [(row["seq"], row["n"]) for row in rows] == [(40 + n, n) for n in range(4)]
    assert [record.operation for record in bad] == ["live.gap"] and "from a checkpoint" in bad[0].error


def test_the_log_says_once_that_a_feed_is_away_that_it_is_back_and_that_it_did_not_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = SyntheticClock()
    context = Context("retry", clock=clock)
    retry, inlet = Retry(context, 30 * 10**9, "tcp://h:1"), Inlet(context.stop)
    refused = ConnectionRefusedError(111, "Connection refused")
    while clock.monotonic_ns() < 3 * 10**9:
        assert retry.wait(inlet, reason_of(refused))
    retry.succeeded()
    clock.wait_ns(60 * 10**9, context.stop)
    for _ in range(3):  # one that comes and goes is not told of each time
        assert retry.wait(inlet, "closed by the sender")
        retry.connected()
    while retry.wait(inlet, "timed out"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        "tcp://h:1: connection refused; trying again for 30 s",
        "tcp://h:1: connected after 3.1 s",
        "tcp://h:1: closed by the sender; trying again for 30 s",
        "tcp://h:1: connected again after 0.1 s",
        "tcp://h:1: timed out; trying again for 30 s",
        "tcp://h:1: did not come back within 30 s: the feed ends",
    ]


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_a_feed_that_was_refused_first_says_so_and_that_it_is_there(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    spec = live_ndjson(f"{scheme}://127.0.0.1:{port}", columns=COLUMNS, most=1, reconnect="20s")
    with beside(lambda: follow(spec)) as outcome:
        for _ in range(1000):
            if caplog.records:
                break
            threading.Event().wait(0.01)
        line = lines_of(1)[0]
        if scheme == "tcp":
            with socket.create_server(("127.0.0.1", port)) as server, server.accept()[0] as receiver:
                receiver.sendall(line + b"\n")
                receiver.recv(1)
        else:
            server = serve(lambda connection: (connection.send(line.decode()), connection.recv()), "127.0.0.1", port)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    if scheme == "ws":
        server.shutdown()
    told = [record.getMessage() for record in caplog.records if record.name == "penstock"]
    assert numbers(outcome[0][0]) == [0]
    assert told[0] == f"{scheme}://127.0.0.1:{port}: connection refused; trying again for 20 s"
    assert len(told) == 2 and told[1].startswith(f"{scheme}://127.0.0.1:{port}: connected after ")
