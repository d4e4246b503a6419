"""Recordings served over sockets: the rows of the live source are those of the file; the schedule is kept or told."""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_feeds import beside, follow, free_port, until_bound, write_lines
from packets import ethernet, ipv4, pcap, udp
from penstock import read, sinks, sources
from penstock.pipeline.clock import SyntheticClock
from penstock.pipeline.errors import FormatError, GraphError
from penstock.pipeline.source import SourceSpec
from penstock.sources.live.json_messages import live_ndjson
from penstock.sources.replay.formats import playable_of
from penstock.sources.replay.message import Message, Playable
from penstock.sources.replay.outlet import Outlet
from penstock.sources.replay.recorder import Recorder
from penstock.sources.replay.schedule import Pacing, Schedule
from penstock.sources.replay.serving import replay, serve

COLUMNS = {"n": "n:int64"}


class Collecting(Outlet):
    """Keeps what is sent, with the time at which it was."""

    def __init__(self, clock: SyntheticClock, stop: threading.Event, *, work_ns: int = 0, most: int = 1 << 60) -> None:
        super().__init__(clock, stop, stamped=False)
        self.sent: list[tuple[int, Message]] = []
        self._work, self._most = work_ns, most

    def send(self, message: Message) -> None:
        self.sent.append((self._clock.monotonic_ns(), message))
        self._clock.wait_ns(self._work, self._stop)
        if len(self.sent) >= self._most:
            self._stop.set()

    def close(self) -> None:
        pass


def served(
    times: list[int],
    *,
    speed: float = 1.0,
    max_gap: int | None = None,
    work_ns: int = 0,
    most: int = 1 << 60,
    **options: Any,
) -> tuple[list[tuple[int, Message]], Any]:
    clock, stop = SyntheticClock(5_000), threading.Event()
    outlet = Collecting(clock, stop, work_ns=work_ns, most=most)
    schedule = Schedule(clock, stop, speed=speed, max_gap_ns=max_gap)
    recording = Playable(lambda: iter([Message(ts, b"%d" % i) for i, ts in enumerate(times)]))
    report = serve(recording, outlet, schedule, clock, stop, speed=speed, **options)
    return outlet.sent, report


@settings(max_examples=100, deadline=None)
@given(gaps=st.lists(st.integers(0, 10**9), min_size=1, max_size=20), speed=st.sampled_from([0.5, 1.0, 4.0]))
def test_original_gaps_are_kept_on_an_absolute_schedule(gaps: list[int], speed: float) -> None:
    times = np.cumsum([0, *gaps]).tolist()
    sent, report = served(times, speed=speed)
    assert [at - 5_000 for at, _ in sent] == [int(ts / speed) for ts in times]
    assert report.messages == len(times) and report.pacing["max_us"] == 0
    assert report.recorded_s == pytest.approx(times[-1] / 1e9)


def test_a_slow_receiver_makes_everything_late_and_nothing_is_skipped() -> None:
    sent, report = served([0, 10, 20, 1000], work_ns=100)
    assert [at - 5_000 for at, _ in sent] == [0, 100, 200, 1000]
    assert report.messages == 4
    assert report.pacing["max_us"] == pytest.approx(0.28)


def test_times_that_go_back_are_due_at_once() -> None:
    sent, _ = served([100, 50, 120])
    assert [at - 5_000 for at, _ in sent] == [0, 0, 20]


def test_long_gaps_are_cut_and_parts_are_chosen() -> None:
    sent, _ = served([0, 10, 10_000, 10_010], max_gap=100)
    assert [at - 5_000 for at, _ in sent] == [0, 10, 110, 120]
    sent, _ = served([1000, 1010, 1020, 1030], span=(10, 30))
    assert [m.ts_ns for _, m in sent] == [1010, 1020]
    with pytest.raises(FormatError, match="no message"):
        served([1000], span=(10, None))


def test_a_loop_begins_again_right_behind_its_end() -> None:
    sent, report = served([0, 10, 30], loop=3)
    assert [at - 5_000 for at, _ in sent] == [0, 10, 30, 30, 40, 60, 60, 70, 90]
    assert report.messages == 9
    sent, report = served([0, 10], loop=0, most=7)
    assert len(sent) == 7 and report.stopped


def test_without_pacing_nothing_is_waited_for() -> None:
    sent, report = served([0, 10**12], speed=0)
    assert [at - 5_000 for at, _ in sent] == [0, 0]
    assert report.pacing["max_us"] == 0


@settings(max_examples=60, deadline=None)
@given(errors=st.lists(st.integers(0, 10**9), min_size=1, max_size=200), q=st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_those_of_numpy_within_a_bin(errors: list[int], q: float) -> None:
    pacing = Pacing()
    for error in errors:
        pacing.add(error)
    exact = float(np.quantile(errors, q, method="inverted_cdf")) / 1e3
    found = pacing.quantile_us(q)
    assert found == max(errors) / 1e3 if exact >= 200_000 else exact <= found + 1e-9 <= exact + 10.1


def digest(spec: SourceSpec, path: Path) -> str:
    report = read(spec).write(sinks.ArrowIpc(path, overwrite=True)).run(runner="inline")
    return str(next(iter(report.digests.values())))


@pytest.mark.parametrize("scheme", ["tcp", "ws", "http", "udp"])
def test_the_live_source_fed_by_the_replay_gives_the_rows_of_the_file(tmp_path: Path, scheme: str) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 400)
    want = digest(sources.Ndjson(path, columns=COLUMNS), tmp_path / "file.arrow")
    stop, opened = threading.Event(), threading.Event()
    where: list[str] = []
    port = 0 if scheme in ("tcp", "ws") else free_port(socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)

    def opened_at(address: str) -> None:
        where.append(address)
        opened.set()

    def send() -> Any:
        while True:  # what listens may not yet
            try:
                return replay(str(path), f"{scheme}://127.0.0.1:{port}", speed=0, stop=stop, opened=opened_at)
            except ConnectionRefusedError:
                stop.wait(0.05)

    if scheme == "udp":
        table = receive_datagrams(path, port)
        assert table["n"].to_pylist() == list(range(400))
        return
    with beside(send) as outcome:
        if not port:
            assert opened.wait(10.0)
        url = where[0] if not port else f"{scheme}://127.0.0.1:{port}"
        got = digest(live_ndjson(url, columns=COLUMNS, most=400, reconnect="0s"), tmp_path / "live.arrow")
    assert got == want
    assert outcome[0].messages == 400


def receive_datagrams(path: Path, port: int) -> Any:
    """Follow a UDP feed whose sender begins once the receiver is bound."""
    spec = live_ndjson(f"udp://127.0.0.1:{port}", columns=COLUMNS, most=400)

    def send() -> Any:
        until_bound(port)
        return replay(str(path), f"udp://127.0.0.1:{port}", speed=50)

    with beside(send):
        table, bad, _ = follow(spec)
    assert bad == []
    return table


def test_two_receivers_get_everything(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 200)
    where: list[str] = []
    opened = threading.Event()

    def opened_at(address: str) -> None:
        where.append(address)
        opened.set()

    with beside(lambda: replay(str(path), "tcp://127.0.0.1:0", speed=0, receivers=2, opened=opened_at)):
        assert opened.wait(10.0)
        spec = live_ndjson(where[0], columns=COLUMNS, reconnect="0s")
        with beside(lambda: follow(spec)) as other:
            first, _, _ = follow(spec)
    assert first["n"].to_pylist() == other[0][0]["n"].to_pylist() == list(range(200))


def test_an_itch_file_goes_out_as_packets_that_hold_every_message_in_order(recordings: Any) -> None:
    path = recordings("market/itch50") / "ex20101224.TEST_ITCH_50.prefixed.itch"
    recording = playable_of(str(path))
    assert recording.datagrams is not None
    alone = [message.data for message in recording.messages()]
    unpacked, number = [], 1
    packets = list(recording.datagrams(recording.messages()))
    for packet in packets[:-1]:
        session, first, count = struct.unpack_from(">10sQH", packet.data)
        assert (session, first) == (b"PENSTOCK  ", number) and len(packet.data) <= 1_420
        at = 20
        for _ in range(count):
            size = int.from_bytes(packet.data[at : at + 2], "big")
            unpacked.append(packet.data[at + 2 : at + 2 + size])
            at += 2 + size
        assert at == len(packet.data)
        number += count
    assert unpacked == alone and len(alone) == 12_012
    assert struct.unpack_from(">QH", packets[-1].data, 10) == (number, 0xFFFF)


def test_what_cannot_be_replayed_and_where_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.ndjson").write_bytes(b'{"name": "x"}\n')
    with pytest.raises(FormatError, match="--time KEY"):
        replay(str(tmp_path / "no.ndjson"), "tcp://127.0.0.1:0")
    path = write_lines(tmp_path / "lines.ndjson", 3)
    for url in ("file:///x", "tcp://127.0.0.1", "ws://h:99999"):
        with pytest.raises(GraphError, match="not an address"):
            replay(str(path), url)
    (tmp_path / "long.ndjson").write_bytes(b'{"ts_ns": 1, "a": "' + b"x" * 70_000 + b'"}\n')
    with pytest.raises(FormatError, match="does not fit a datagram"):
        replay(str(tmp_path / "long.ndjson"), f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}")
    with pytest.raises(ValueError, match="speed"):
        replay(str(path), "udp://127.0.0.1:9", speed=-1)


def test_a_recording_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    from penstock.sources.live.arrival import Arrival

    recorder = Recorder(str(tmp_path / "day.mcap"), feed="udp://h:1")
    recorder.write([Arrival(5, b"", 0, 0, "connected"), Arrival(7, b"abc", 1, 3)])
    assert [p.name for p in tmp_path.iterdir()] == ["day.mcap.part"]
    recorder.close()
    recorder.close()
    assert [p.name for p in tmp_path.iterdir()] == ["day.mcap"]
    assert sorted(sources.Mcap(tmp_path / "day.mcap").topics()) == ["/line/0/events", "/line/1/3"]


def test_captured_datagrams_and_video_packets_go_out_as_they_are(recordings: Any, tmp_path: Path) -> None:
    payloads = [bytes([n]) * (n + 1) for n in range(20)]
    path = tmp_path / "feed.pcap"
    path.write_bytes(pcap([(1_000 * n, ethernet(ipv4(udp(payload)))) for n, payload in enumerate(payloads)]))
    assert [message.data for message in playable_of(str(path)).messages()] == payloads
    film = recordings("driving/dashcam_h264") / "solidWhiteRight.mp4"
    packets = list(playable_of(str(film)).messages())
    assert len(packets) == 221
    assert packets[0].data.startswith(b"\0\0\0\1")
