"""Feeds recorded on the way and read again: the same rows, nothing lost, both clocks kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_feeds import beside, follow, free_port, lines_of, tcp_server
from penstock import read, sinks, sources
from penstock.cli import main
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.json_messages import JsonMessages, live_ndjson
from penstock.sources.live.raw_messages import RawMessages
from penstock.sources.replay.recorder import Recorder
from penstock.sources.replay.recording import Recording, is_recording, recorded_arrivals
from penstock.sources.replay.serving import replay

COLUMNS = {"n": "n:int64"}
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_a_recorded_feed_gives_the_rows_and_the_gaps_that_it_gave_live(tmp_path: Path) -> None:
    path = tmp_path / "day.mcap"
    first, second = b"\n".join(lines_of(50)) + b"\n", b"\n".join(lines_of(9, start=80)) + b"\nnonsense\n"
    with tcp_server([first[:700], first[700:]], [second]) as port:
        spec = live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, most=60, reconnect="20s", record=str(path))
        live, live_bad, _ = follow(spec)
    again, bad, _ = follow(Recording(path))
    assert again.equals(live) and live.num_rows == 59
    assert [(r.operation, r.error, r.data) for r in bad] == [(r.operation, r.error, r.data) for r in live_bad]
    assert [r.operation for r in bad] == ["live.gap", "ndjson.decode"]


def test_a_recording_goes_on_from_any_block(tmp_path: Path) -> None:
    path = tmp_path / "long.mcap"
    recorder = Recorder(str(path), feed="test", codec=JsonMessages(sources.Ndjson("feed", columns=COLUMNS)))
    filler = b'", "pad": "' + b"x" * 400
    for n, line in enumerate(lines_of(9_000)):
        recorder.write([Arrival(n, line[:-1] + b', "t": "' + filler + b'"}')])
    recorder.close()
    spec = Recording(path)
    reader = spec.open(Context("first"))
    blocks = [(block.after, list(reader.decode(block).batches)) for block in reader.blocks()]
    reader.close()
    assert len(blocks) > 2
    for number, (after, _) in enumerate(blocks):
        rest = spec.open(Context("again"), position=after)
        found = [batch for block in rest.blocks() for batch in rest.decode(block).batches]
        rest.close()
        assert found == [batch for _, made in blocks[number + 1 :] for batch in made]


def test_a_feed_from_which_nothing_came_leaves_no_file(tmp_path: Path) -> None:
    Recorder(str(tmp_path / "none.mcap"), feed="test").close()
    assert list(tmp_path.iterdir()) == []


arrivals = st.lists(
    st.builds(
        Arrival,
        st.integers(0, 2**62),
        st.binary(max_size=50),
        st.integers(0, 3),
        st.integers(0, 5),
        st.just(""),
    )
    | st.builds(Arrival, st.integers(0, 2**62), st.just(b""), st.integers(0, 3), st.just(0), st.just("connected")),
    min_size=1,
    max_size=40,
)


@QUICK
@given(came=arrivals)
def test_what_arrives_is_kept_to_the_byte_in_order_with_its_time(tmp_path: Path, came: list[Arrival]) -> None:
    path = tmp_path / "all.mcap"
    path.unlink(missing_ok=True)
    recorder = Recorder(str(path), feed="test")
    recorder.write(came)
    recorder.close()
    if all(arrival.event for arrival in came):
        assert list(tmp_path.iterdir()) == []
        return
    assert is_recording(path.read_bytes()[:100])
    assert [arrival for _, block in recorded_arrivals(str(path)) for arrival in block] == came
    rows, _, _ = follow(Recording(path))
    assert rows["data"].to_pylist() == [arrival.data for arrival in came if not arrival.event]


def test_a_recording_that_was_cut_gives_what_is_whole_and_says_what_is_not(tmp_path: Path) -> None:
    path, cut = tmp_path / "whole.mcap", tmp_path / "cut.mcap"
    recorder = Recorder(str(path), feed="test", codec=RawMessages())
    for n in range(30):
        recorder.write([Arrival(n, bytes([n]) * 200_000)])
    recorder.close()
    whole = path.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    rows, bad, _ = follow(Recording(cut))
    assert 0 < rows.num_rows < 30
    assert rows["data"].to_pylist() == [bytes([n]) * 200_000 for n in range(rows.num_rows)]
    assert bad


def test_what_was_recorded_is_in_the_file_before_the_feed_ends(tmp_path: Path) -> None:
    path = tmp_path / "day.mcap"
    part = path.with_name("day.mcap.part")
    found: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield b"\n".join(lines_of(20)) + b"\n"
        for _ in range(600):  # until a process that is killed now would leave them behind
            if part.exists() and part.stat().st_size:
                found.append(sum(not came.event for _, block in recorded_arrivals(str(part)) for came in block))
                break
            threading.Event().wait(0.05)
        yield lines_of(1, start=20)[0] + b"\n"

    with tcp_server(pieces()) as port:
        spec = live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, most=21, record=str(path))
        reader = spec.open(Context("kept"))
        for _ in reader.blocks():
            pass
        reader.close()
    assert found == [20]


@pytest.mark.parametrize("there", ["day.mcap", "day.mcap.part"])
def test_a_recording_is_never_written_over(there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, before = tmp_path / "day.mcap", tmp_path / there
    before.write_bytes(b"yesterday")
    url = f"tcp://127.0.0.1:{free_port()}"  # nobody is there: it is refused before anybody is asked
    spec = live_ndjson(url, columns=COLUMNS, record=str(path), reconnect="0s")
    for runner in ("inline", "local"):
        with pytest.raises(GraphError, match=r"step 'read': .*day.mcap.* is there|day.mcap: the file exists"):
            read(spec).write(sinks.Null()).run(runner=runner)
    assert main(["record", url, "--out", str(path), "--reconnect", "0s"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and there in told and "choose another name" in told
    assert [entry.name for entry in tmp_path.iterdir()] == [there] and before.read_bytes() == b"yesterday"


def test_a_run_that_goes_on_records_beside_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "day.mcap"
    path.write_bytes(b"before the checkpoint")
    (tmp_path / "day-2.mcap.part").write_bytes(b"cut")
    with tcp_server([b"\n".join(lines_of(5)) + b"\n"]) as port:
        spec = live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, reconnect="0s", record=str(path))
        reader = spec.open(Context("again"), position={"seq": 3, "taken": 3, "session": {"offset": 9, "line": 4}})
        list(reader.blocks())
        reader.close()
    assert path.read_bytes() == b"before the checkpoint"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["day-2.mcap.part", "day-3.mcap", "day.mcap"]
    assert follow(Recording(tmp_path / "day-3.mcap"))[0]["n"].to_pylist() == list(range(5))


def test_a_recorder_to_which_nothing_came_removes_nothing_but_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "day.mcap.part").write_bytes(b"cut")
    recorder = Recorder(str(tmp_path / "day.mcap"), feed="test")
    (tmp_path / "day-2.mcap").write_bytes(b"made meanwhile")
    recorder.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["day-2.mcap", "day.mcap.part"]


def test_a_look_at_the_first_rows_is_not_recorded(tmp_path: Path) -> None:
    with tcp_server([lines_of(1)[0] + b"\n"]) as port:
        spec = live_ndjson(f"tcp://127.0.0.1:{port}", columns=COLUMNS, most=1, record=str(tmp_path / "day.mcap"))
        reader = spec.open(Context("look", rehearsing=True))
        assert len(list(reader.blocks())) == 1
        reader.close()
    assert list(tmp_path.iterdir()) == []


def test_a_recording_is_served_again_to_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "feed.mcap"
    recorder = Recorder(str(path), feed="test", codec=JsonMessages(sources.Ndjson("feed", columns=COLUMNS)))
    recorder.write([Arrival(0, b"", 0, 0, "connected")])
    recorder.write([Arrival(1000 + n, line) for n, line in enumerate(lines_of(40))])
    recorder.close()
    where: list[str] = []
    opened = threading.Event()

    def opened_at(address: str) -> None:
        where.append(address)
        opened.set()

    with beside(lambda: replay(str(path), "tcp://127.0.0.1:0", speed=0, opened=opened_at)):
        assert opened.wait(10.0)
        served, _, _ = follow(live_ndjson(where[0], columns=COLUMNS, reconnect="0s"))
    read, _, _ = follow(Recording(path))
    assert served.equals(read)
    assert served["ts_recv"].cast(pa.int64()).to_pylist() == list(range(1000, 1040))
