"""Every kind of recording under one schedule: parts, loops and gaps hold for all; reading ahead keeps order and errors."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_feeds import beside, free_port, write_lines
from penstock.cli import main
from penstock.pipeline.clock import RealClock, SyntheticClock
from penstock.pipeline.errors import FormatError
from penstock.sources.replay.ahead import read_ahead, several
from penstock.sources.replay.formats import playable_of
from penstock.sources.replay.message import Message, Playable
from penstock.sources.replay.outlet import Outlet, outlet_to
from penstock.sources.replay.outlet_served import _frame
from penstock.sources.replay.schedule import Schedule
from penstock.sources.replay.serving import serve
from penstock.sources.replay.steady import steady


class Collecting(Outlet):
    """Keeps what is sent, with the time at which it was."""

    def __init__(self, clock: Any, stop: threading.Event, *, together: bool = False) -> None:
        super().__init__(clock, stop, stamped=False)
        self.sent: list[tuple[int, Message]] = []
        self.together = together

    def send(self, message: Message) -> None:
        self.sent.append((self._clock.monotonic_ns(), message))

    def close(self) -> None:
        pass


def run(recording: Playable, clock: Any, *, speed: float = 1.0, max_gap: int | None = None, **options: Any) -> Any:
    stop = threading.Event()
    outlet = Collecting(clock, stop, together=options.pop("together", False))
    schedule = Schedule(clock, stop, speed=speed, max_gap_ns=max_gap)
    report = serve(recording, outlet, schedule, clock, stop, speed=speed, **options)
    return outlet.sent, report


CANDUMP = b"".join(b"(%d.%06d) can%d 12%d#0102\n" % (1_400_000_000 + n, 7 * n, n % 2, n) for n in range(6))
ASC = b"date Wed Apr 16 09:21:13.159 am 2014\nbase hex  timestamps absolute\n" + b"".join(
    b"  %d.5 1  12%d  Rx   d 1 0%d\n" % (n, n, n) for n in range(5)
)
RECORDINGS: dict[str, Any] = {
    "candump": CANDUMP,
    "asc": ASC,
    "adc": bytes(5 * 2048),
    "ndjson": None,
    "rosbag1": "driving/rosbag1/example-unsorted-chunks.bag",
    "sqlite3": "driving/rosbag2_conformance/sqlite3/wbag_0.db3",
    "radar": "driving/nebula_radar_ros2/srr520",
    "dbn": "market/dbn_conformance/test_data.mbo.v3.dbn.zst",
    "parquet": None,
}


@pytest.mark.parametrize("name", list(RECORDINGS))
def test_parts_loops_and_gaps_hold_for_every_recording(recordings: Any, tmp_path: Path, name: str) -> None:
    found = RECORDINGS[name]
    if isinstance(found, str):
        path = recordings(str(Path(found).parent)) / Path(found).name
    else:
        path = tmp_path / f"file.{name}"
        path.write_bytes(found or b"")
        if name == "ndjson":
            write_lines(path, 30)
        elif name == "parquet":
            times = pa.array([10**18 + n**3 for n in range(20)], pa.timestamp("ns", tz="UTC"))
            pq.write_table(pa.table({"ts_event": times, "px": pa.array(range(20))}), path)
    cube = {"chirps": 8, "samples": 16, "rx": 4, "frame_period": "10ms", "format": "adc"}
    recording = playable_of(str(path), **(cube if name == "adc" else {}))
    messages = list(recording.messages())
    origin = messages[0].ts_ns
    offsets, latest = [], 0
    for message in messages:
        latest = max(latest, message.ts_ns - origin)
        offsets.append(latest)
    sent, report = run(recording, SyntheticClock(50), loop=2, speed=2.0)
    assert [message for _, message in sent] == messages * 2
    # each round begins right behind the one before
    assert [at - 50 for at, _ in sent] == [
        int((offset + turn * offsets[-1]) / 2.0) for turn in (0, 1) for offset in offsets
    ]
    assert report.messages == 2 * len(messages) and report.recorded_s == pytest.approx(2 * offsets[-1] / 1e9)
    middle = offsets[len(offsets) // 2]
    if middle:
        start, _ = run(recording, SyntheticClock(0), span=(middle, None))
        assert [message for _, message in start] == [m for m in messages if m.ts_ns - origin >= middle]
        end, _ = run(recording, SyntheticClock(0), span=(None, middle))
        first_late = next(i for i, m in enumerate(messages) if m.ts_ns - origin >= middle)
        assert [message for _, message in end] == messages[:first_late]
    gaps = [0, *(min(later - earlier, 1000) for earlier, later in pairwise(offsets))]
    cut, _ = run(recording, SyntheticClock(0), max_gap=1000)
    assert [at for at, _ in cut] == list(accumulate(gaps))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 1 << 17), max_size=150))
def test_lists_hold_every_message_in_order_within_their_bounds(sizes: list[int]) -> None:
    payload = bytes(1 << 17)
    messages = [Message(n, payload[:size]) for n, size in enumerate(sizes)]
    lists = list(several(iter(messages)))
    assert [message for held in lists for message in held] == messages
    assert all(0 < len(held) <= 64 for held in lists)
    assert all(sum(len(m.data) for m in held[:-1]) < 1 << 18 for held in lists)


@pytest.mark.parametrize("ahead", [False, True])
def test_what_came_before_an_error_is_sent_before_it_is_raised(ahead: bool) -> None:
    def broken() -> Iterator[Message]:
        for n in range(100):
            yield Message(n, b"x")
        raise FormatError("the disk is gone")

    taken: list[int] = []
    with pytest.raises(FormatError, match="disk"):
        for held in read_ahead(broken(), threading.Event()) if ahead else several(broken()):
            taken += [message.ts_ns for message in held]
    assert taken == list(range(100))


def test_reading_ahead_is_bounded_and_ends_with_the_one_who_sends() -> None:
    read: list[int] = []
    closed = threading.Event()

    def endless() -> Iterator[Message]:
        try:
            while True:
                read.append(1)
                yield Message(len(read), bytes(1 << 16))
        finally:
            closed.set()

    lists = read_ahead(endless(), threading.Event())
    assert next(lists)[0].ts_ns == 1
    lists.close()  # type: ignore[attr-defined]
    assert closed.wait(5.0)
    assert len(read) * (1 << 16) < 40 << 20


def test_a_real_pace_reads_ahead_and_sends_everything() -> None:
    messages = [Message(n * 10_000, b"%d" % n) for n in range(3_000)]
    began = RealClock().monotonic_ns()
    sent, report = run(Playable(lambda: iter(messages)), RealClock(), together=True)
    assert [message for _, message in sent] == messages and report.messages == 3_000
    assert all(at - began >= message.ts_ns for at, message in sent)  # never before its time


def test_the_interpreter_is_as_before_once_all_replays_have_ended() -> None:
    me = threading.get_native_id()
    before = sys.getswitchinterval(), gc.isenabled(), gc.get_freeze_count()
    nice = os.getpriority(os.PRIO_PROCESS, me)
    with steady(), steady():
        assert not gc.isenabled() and sys.getswitchinterval() == pytest.approx(1e-4)
    with steady(False):
        assert gc.isenabled()
    assert (sys.getswitchinterval(), gc.isenabled(), gc.get_freeze_count()) == before
    assert os.getpriority(os.PRIO_PROCESS, me) == nice


def test_datagrams_that_nobody_takes_are_told() -> None:
    clock, stop = RealClock(), threading.Event()
    silent = free_port(socket.SOCK_DGRAM)
    outlet = outlet_to(f"udp://127.0.0.1:{silent}", Playable(lambda: iter(())), clock, stop, stamped=False)
    with pytest.raises(ConnectionRefusedError, match=f"nobody listens on udp://127.0.0.1:{silent}"):
        outlet.send(Message(0, b"x"))
    outlet.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        outlet = outlet_to(url, Playable(lambda: iter(())), clock, stop, stamped=False)
        outlet.send(Message(0, b"x"))
        assert receiver.recv(10) == b"x"
    for _ in range(4):
        outlet.send(Message(0, b"y"))
    outlet.close()
    ((reason, count),) = outlet.lost.items()
    assert reason == f"datagrams were refused by {url}: nobody listened" and count >= 3


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("text", [False, True])
def test_a_frame_is_what_an_independent_library_reads(size: int, text: bool) -> None:
    from websockets.client import ClientProtocol
    from websockets.frames import Opcode
    from websockets.protocol import State
    from websockets.uri import parse_uri

    client = ClientProtocol(parse_uri("ws://h/"), state=State.OPEN, max_size=None)
    client.receive_data(_frame(b"a" * size, text))
    (frame,) = client.events_received()
    assert frame.opcode == (Opcode.TEXT if text else Opcode.BINARY) and frame.fin and frame.data == b"a" * size


def test_the_command_says_what_it_sends_and_where(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "drive.log"
    path.write_bytes(CANDUMP)
    port = free_port()
    received = bytearray()

    def receive() -> None:
        pause = threading.Event()
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port)) as sock:
                    while piece := sock.recv(1000):
                        received.extend(piece)
                    return
            except ConnectionRefusedError:
                pause.wait(0.02)

    with beside(receive):
        status = main(["replay", str(path), "--to", f"tcp://127.0.0.1:{port}", "--speed", "0", "--plain", "--quiet"])
    assert status == 0 and bytes(received) == CANDUMP
    out, err = capsys.readouterr()
    assert out.startswith("sent 6 messages") and err == f"tcp://127.0.0.1:{port}: waiting for a receiver\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--speed", "-1"], "speed must be 0"),
        (["--loop", "-1"], "loop=-1"),
        (["--start", "soon"], "'soon' is not a duration"),
        (["--option", "chirps"], "--option KEY=VALUE"),
        (["--topic", "/imu"], "'topic'"),
        (["--format", "nothing"], "no format 'nothing'"),
        (["--format", "adc", "--option", "chirps=4"], "frame_period"),
        (["--end", "0s"], "no message to replay"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: Any, options: list[str], told: str) -> None:
    path = tmp_path / "drive.log"
    path.write_bytes(CANDUMP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        assert main(["replay", str(path), "--to", url, "--quiet", *options]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("penstock: ") and told in line
