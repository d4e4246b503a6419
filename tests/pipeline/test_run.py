"""Runs as a whole: what is reported, how they stop, that stalls are named and pace and memory are kept."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from penstock import Report, read, sinks, sources
from penstock.pipeline.clock import SyntheticClock
from penstock.pipeline.errors import RunError
from penstock.pipeline.report import KEYS
from streams import affordable, identity, recording, source

TABLE = recording(7, 2_000)


def test_a_report_has_exactly_the_documented_keys_and_survives_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    report = source(TABLE, 100).map(identity).write(sinks.Null()).run(report=file)
    assert set(report.data) == set(KEYS)
    assert Report.load(file).data == json.loads(json.dumps(report.data))
    file.write_text("[]")
    with pytest.raises(ValueError, match="not a run report"):
        Report.load(file)


def test_rows_are_accounted_for_at_every_step() -> None:
    stream = (
        source(TABLE, 100).map(identity).filter(affordable, inputs=["price"]).sync(source(TABLE, 70), tolerance="0ns")
    )
    report = stream.write(sinks.Null()).run()
    stages = report["stages"]
    kept = int(np.sum(np.asarray(TABLE["price"]) < 75))
    assert stages["read"]["rows_out"] == stages["map"]["rows_in"] == stages["map"]["rows_out"] == 2_000
    assert stages["filter"]["rows_out"] == kept == 2_000 - report["dropped"]["filter"]["filter"]
    left_out = sum(report["dropped"].get("sync", {}).values())
    assert stages["sync"]["rows_in"] == kept + 2_000
    assert report.rows + left_out >= kept


def test_a_replay_at_a_speed_takes_as_long_as_the_recording_and_gives_the_same_rows() -> None:
    flow = source(TABLE, 100).map(identity).write(sinks.Null())
    clock = SyntheticClock()
    paced = flow.run(speed=2.0, clock=clock)
    times = np.asarray(TABLE["ts_recv"].cast(pa.int64()))
    assert clock.monotonic_ns() >= (times[-1] - times[0]) / 2 - 5_000_000
    assert paced.digests == flow.run().digests
    assert paced["replay"]["speed"] == 2.0


def test_a_step_that_does_not_come_back_is_named(caplog: pytest.LogCaptureFixture) -> None:
    named = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            named.set()

    def stuck(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows and not named.is_set():
            assert named.wait(30)
        return batch

    listener = Listener()
    logging.getLogger("penstock").addHandler(listener)
    try:
        stream = source(TABLE, 100).batch(50).map(stuck, parallelism=1, name="stuck", schema=TABLE.schema)
        report = stream.write(sinks.Null()).run(stall_after=0.3)
    finally:
        logging.getLogger("penstock").removeHandler(listener)
    assert len(report["stalls"]) == 1
    assert "nothing has moved" in report["stalls"][0] and "'read'" in report["stalls"][0]
    assert report.rows == 2_000


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_a_loop_is_told_of_records_that_are_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, runner: str
) -> None:
    file = tmp_path / "events.ndjson"
    lines = [json.dumps({"ts_ns": n, "type": "move"}) if n % 40 else "oops" for n in range(1, 100)]
    file.write_text("\n".join(lines) + "\n")
    stream = read(sources.game_events(file, block_bytes=256))
    with caplog.at_level(logging.WARNING, logger="penstock"):
        assert sum(batch.num_rows for batch in stream.iterate(runner=runner)) == 97
    first, last = caplog.messages
    assert first.startswith("step 'read' puts a record aside: events.ndjson, line 40, byte")
    assert last.startswith("2 records were put aside")
    caplog.clear()
    file.write_text("\n".join(lines[:30]) + "\n")
    assert sum(batch.num_rows for batch in stream.iterate(runner=runner)) == 30
    assert not caplog.messages


def test_a_failing_sink_leaves_nothing_under_a_final_name(tmp_path: Path) -> None:
    def fail(batch: pa.RecordBatch) -> None:
        raise OSError("disk full")

    stream = source(TABLE, 100)
    flow = stream.write(sinks.Parquet(tmp_path / "out")) + stream.write(sinks.Callback(fail), name="callback")
    with pytest.raises(RunError, match=r"step 'callback'.*disk full"):
        flow.run(report=tmp_path / "run.json")
    assert not list(tmp_path.rglob("*.parquet"))
    report = Report.load(tmp_path / "run.json")
    assert report["outcome"] == "failed" and "disk full" in report["error"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_and_leaves_no_finished_file(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "endless.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
            import penstock as ps
            from penstock import sinks
            from streams import identity, recording, source

            def announce(batch):
                if batch.num_rows:
                    print("running", flush=True)
                return batch

            flow = source(recording(1, 100_000), 10).map(announce).batch(5).write(sinks.Parquet({str(tmp_path / "out")!r}))
            """
        )
    )
    command = [sys.executable, "-m", "penstock.cli", "run", str(script), "--speed", "0.001", "--quiet"]
    process = subprocess.Popen(
        [*command, "--report", str(tmp_path / "run.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("running")
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.strip().endswith("nothing unfinished was left under a final name")
    assert not list((tmp_path / "out").rglob("*"))
    assert Report.load(tmp_path / "run.json")["outcome"] == "stopped"


def test_memory_stays_flat_while_ten_times_as_much_is_read() -> None:
    def peak(rows: int) -> int:
        table = recording(9, 1_000)

        def again(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
            return [batch] * rows

        stream = source(table, 100).flat_map(again, schema=table.schema).batch(512)
        report = stream.write(sinks.Null()).run(edge_bytes="256KiB")
        assert report["memory"]["peak_data_bytes"] <= report["memory"]["bound_bytes"]
        return int(report["memory"]["peak_data_bytes"])

    assert peak(200) <= 1.1 * peak(20) + (1 << 20)
