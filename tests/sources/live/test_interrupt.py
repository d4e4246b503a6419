"""Ctrl-C is the end of a feed that has none of its own: what came is written, windows are closed; the second gives up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from live_feeds import lines_of, write_lines
from penstock import read, sinks, sources
from penstock.cli import main
from penstock.ops import Tumbling, agg
from penstock.pipeline.context import Context
from penstock.sources.live.json_messages import live_ndjson
from penstock.sources.replay.recording import Recording

COLUMNS = {"n": "n:int64"}
ROWS = 25


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Whoever runs the tests in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@contextmanager
def endless(lines: int = ROWS) -> Iterator[str]:
    """Sends `lines` to whoever connects, and holds the line."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            receiver, _ = server.accept()
            with receiver, contextlib.suppress(OSError):
                receiver.sendall(b"\n".join(lines_of(lines)) + b"\n")
                receiver.recv(1)

        threading.Thread(target=run, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


class Interrupting:
    """Presses Ctrl-C when the last row comes by, `times` times; each is noticed before the next."""

    def __init__(self, times: int) -> None:
        self._times = times

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if ROWS - 1 in batch["n"].to_pylist():
            for _ in range(self._times):
                handler = signal.getsignal(signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(200):
                    if handler is signal.default_int_handler or signal.getsignal(signal.SIGINT) is not handler:
                        break
                    threading.Event().wait(0.01)
        return batch


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_the_first_ctrl_c_lets_everything_through_and_closes_windows(
    runner: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with endless() as url:
        rows = read(live_ndjson(url, columns=COLUMNS)).map(Interrupting(1))
        sums = rows.window(Tumbling("10ms"), {"count": agg.count()})
        flow = rows.write(sinks.Parquet(tmp_path / "rows")) + sums.write(sinks.Parquet(tmp_path / "sums"))
        report = flow.run(runner=runner)
    assert report["outcome"] == "completed" and report["error"] is None
    assert pq.read_table(tmp_path / "rows")["n"].to_pylist() == list(range(ROWS))
    assert pq.read_table(tmp_path / "sums")["count"].to_pylist() == [10, 10, 5]
    assert caplog.messages == ["stopped receiving; a second Ctrl-C gives up"]


@pytest.mark.parametrize("runner", ["inline", "local"])
@pytest.mark.parametrize("why", ["a second one", "a file beside the feed", "checkpoints"])
def test_ctrl_c_gives_up_where_it_is_the_second_or_sources_end_or_the_run_can_go_on(
    runner: str, why: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"checkpoint": tmp_path / "checkpoints"} if why == "checkpoints" else {}
    with endless() as url:
        rows = read(live_ndjson(url, columns=COLUMNS)).map(Interrupting(2 if why == "a second one" else 1))
        flow = rows.write(sinks.Parquet(tmp_path / "rows"))
        if why == "a file beside the feed":
            flow += read(sources.Ndjson(write_lines(tmp_path / "file", 1), columns=COLUMNS)).write(sinks.Null())
        with pytest.raises(KeyboardInterrupt):
            flow.run(runner=runner, report=tmp_path / "run.json", **options)
    assert not list((tmp_path / "rows").rglob("*.parquet"))


def test_what_came_before_the_feed_is_ended_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.sources.live.message_reader._MESSAGES", 4)
    with endless() as url:
        reader: Any = live_ndjson(url, columns=COLUMNS).open(Context("feed"))
        blocks = reader.blocks()
        found = [next(blocks)]
        for _ in range(1000):
            if len(reader._inlet._queue) + sum(block.records for block in found) >= ROWS:
                break
            threading.Event().wait(0.01)
        assert reader.finish()
        found += blocks
        reader.close()
    assert sum(block.records for block in found) == ROWS


def test_a_recorder_that_is_interrupted_keeps_what_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, part = tmp_path / "day.mcap", tmp_path / "day.mcap.part"

    def press() -> None:
        for _ in range(1000):
            if part.exists() and part.stat().st_size:
                break
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    with endless() as url:
        threading.Thread(target=press, daemon=True).start()
        assert main(["record", f"{url}?framing=lines", "--out", str(path)]) == 0
    assert f"{path}: {ROWS} messages" in capsys.readouterr().out
    reader = Recording(path).open(Context("again"))
    assert sum(block.records for block in reader.blocks()) == ROWS
    reader.close()
