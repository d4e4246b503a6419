"""Runs that end too early and go on from a snapshot: the same rows, on any runner, whatever the moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock import Flow, Stream, ops, read, sinks
from penstock.ops import agg
from penstock.pipeline.checkpoints import CheckpointStore
from penstock.pipeline.errors import CheckpointError, PlanError, RunError
from penstock.pipeline.quarantine import read_quarantine
from penstock.pipeline.report import Report
from penstock.sources import Rows
from streams import endings, pipelines, plans, recording

#: The row of the first source at which a run fails, None for not at all.
TRAP: dict[str, int | None] = {"at": None}


def trapped(batch: pa.RecordBatch) -> pa.RecordBatch:
    at = TRAP["at"]
    if at is not None and np.any(np.asarray(batch.column("seq")) == at):
        raise RunError("trapped")
    return batch


def flow(folder: Path, steps: list[str], ending: str, rows: int, size: int) -> Flow:
    def make(seed: int) -> Stream:
        stream = read(Rows(recording(seed, rows, disorder_ns=2_000_000), size), lateness="1ms")
        return stream.map(trapped) if seed == 0 else stream

    return pipelines(make, steps, ending).write(sinks.Parquet(folder / "out"))


def interrupted(folder: Path, build: Any, at: int | None, **options: Any) -> Report | None:
    TRAP["at"] = at
    try:
        report: Report = build(folder).run(checkpoint=folder / "checkpoints", **options)
        return report
    except RunError as error:
        assert "trapped" in str(error)
        return None
    finally:
        TRAP["at"] = None


def counts(report: Report) -> dict[str, Any]:
    return {
        step: [stage[key] for key in ("rows_in", "rows_out", "late_rows", "dropped", "quarantined")]
        for step, stage in report["stages"].items()
    }


@settings(max_examples=40, deadline=None)
@given(
    steps=plans,
    ending=endings,
    rows=st.integers(1, 1500),
    size=st.integers(1, 300),
    at=st.integers(0, 1500),
    every=st.integers(30, 600),
    first=st.sampled_from(["inline", "local"]),
    second=st.sampled_from(["inline", "local"]),
    speed=st.sampled_from([None, 30.0]),
)
def test_a_run_that_fails_anywhere_goes_on_to_the_same_rows(
    steps: list[str],
    ending: str,
    rows: int,
    size: int,
    at: int,
    every: int,
    first: str,
    second: str,
    speed: float | None,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"

        def build(folder: Path) -> Flow:
            return flow(folder, steps, ending, rows, size)

        expected = build(whole).run(runner="inline")
        interrupted(broken, build, at, runner=first, checkpoint_rows=every, speed=speed)
        report = build(broken).run(runner=second, parallelism=3, checkpoint=broken / "checkpoints", resume=True)
        assert report.digests == expected.digests
        assert counts(report) == counts(expected)
        assert pq.read_table(broken / "out").to_pylist() == pq.read_table(whole / "out").to_pylist()


@settings(max_examples=12, deadline=None)
@given(traps=st.lists(st.integers(0, 1000), max_size=4), every=st.integers(40, 300))
def test_a_run_may_fail_again_and_again(traps: list[int], every: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"

        def build(folder: Path) -> Flow:
            return flow(folder, ["batch"], "window", 1000, 50)

        expected = build(whole).run(runner="inline")
        for attempt, at in enumerate([*traps, None]):
            report = interrupted(broken, build, at, runner="inline", checkpoint_rows=every, resume=attempt > 0)
            if report is not None:
                break
        assert report is not None
        assert report.digests == expected.digests
        assert counts(report) == counts(expected)


def keyed(folder: Path, size: str = "10ms") -> Flow:
    stream = read(Rows(recording(0, 1000), 50)).map(trapped)
    return stream.key_by("symbol").window(ops.Tumbling(size), n=agg.count()).write(sinks.Parquet(folder / "out"))


def test_what_has_completed_is_not_run_again(tmp_path: Path) -> None:
    first = keyed(tmp_path).run(runner="inline", checkpoint=tmp_path / "checkpoints", checkpoint_rows=100)
    assert first["checkpoints"]["written"] > 5
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir())
    again = keyed(tmp_path).run(runner="local", checkpoint=tmp_path / "checkpoints", resume=True)
    assert again.digests == first.digests
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()) == before


def test_another_graph_is_refused_with_what_changed(tmp_path: Path) -> None:
    assert interrupted(tmp_path, keyed, 700, runner="inline", checkpoint_rows=100) is None
    with pytest.raises(CheckpointError, match=r"step 'window' changed: .*size was 10ms, is 20ms"):
        keyed(tmp_path, "20ms").run(runner="inline", checkpoint=tmp_path / "checkpoints", resume=True)
    report = keyed(tmp_path).run(runner="inline", checkpoint=tmp_path / "checkpoints", resume=True)
    assert report["checkpoints"]["resumed_from"] is not None


def test_an_unfinished_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    assert interrupted(tmp_path, keyed, 700, runner="inline", checkpoint_rows=100) is None
    with pytest.raises(PlanError, match="go on from it with resume=True"):
        keyed(tmp_path).run(checkpoint=tmp_path / "checkpoints")


def test_resuming_where_nothing_is_begins_at_the_beginning(tmp_path: Path) -> None:
    report = keyed(tmp_path).run(runner="inline", checkpoint=tmp_path / "checkpoints", resume=True)
    assert report["checkpoints"]["resumed_from"] is None
    assert report.rows > 0


def test_a_failed_run_without_a_snapshot_leaves_nothing(tmp_path: Path) -> None:
    assert interrupted(tmp_path, keyed, 0, runner="inline", checkpoint_rows=10_000) is None
    assert not (tmp_path / "out").exists()


def fussy(size: np.ndarray) -> np.ndarray:
    if np.any(size % 97 == 0):
        raise ValueError("a multiple of 97")
    return size


@pytest.mark.parametrize("on_disk", [False, True])
def test_records_put_aside_are_put_aside_once(tmp_path: Path, on_disk: bool) -> None:
    def build(folder: Path) -> Flow:
        stream = read(Rows(recording(0, 2000), 50)).map(fussy, inputs=["size"], outputs={"size": pa.int64()})
        return stream.map(trapped).write(sinks.Parquet(folder / "out"))

    def aside(folder: Path) -> dict[str, Any]:
        return {"quarantine": folder / "aside"} if on_disk else {}

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = build(whole).run(runner="inline", **aside(whole))
    assert interrupted(broken, build, 1500, runner="inline", checkpoint_rows=400, **aside(broken)) is None
    report = build(broken).run(runner="local", checkpoint=broken / "checkpoints", resume=True, **aside(broken))
    assert report.digests == expected.digests
    assert report["quarantined"] == expected["quarantined"] > 5
    assert report["quarantine"] == expected["quarantine"]
    if on_disk:
        found, wanted = read_quarantine(broken / "aside"), read_quarantine(whole / "aside")
        assert [(r.seq, r.error, r.digest) for r in found] == [(r.seq, r.error, r.digest) for r in wanted]


FLOW = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from penstock import ops, read, sinks
from penstock.ops import agg
from penstock.sources import Rows
from streams import recording
one = read(Rows(recording(0, 3000), 100))
two = read(Rows(recording(1, 3000), 70))
joined = one.sync(two, tolerance="3ms").key_by("symbol")
flow = joined.window(ops.Tumbling("10ms"), n=agg.count(), total=agg.sum("price")).write(
    sinks.Parquet({out!r})
) + joined.unmatched.write(sinks.JsonLines({out!r} + ".jsonl"))
"""


@pytest.mark.parametrize("kills", [1, 3])
def test_a_killed_process_is_resumed_from_the_command_line(tmp_path: Path, kills: int) -> None:
    text = FLOW.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path / "out"))
    (tmp_path / "flow.py").write_text(text)
    command = [sys.executable, "-m", "penstock.cli", "run", str(tmp_path / "flow.py"), "--quiet"]
    command += ["--checkpoint", str(tmp_path / "checkpoints"), "--checkpoint-every", "100ms", "--resume"]
    seen = 0
    for _ in range(kills):
        child = subprocess.Popen([*command, "--speed", "1"], stdout=subprocess.DEVNULL, start_new_session=True)
        store = CheckpointStore(tmp_path / "checkpoints", read_only=True)
        while max(store.numbers(), default=0) < seen + 2:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=0.02)
                break
        seen = max(store.numbers(), default=0)
        child.send_signal(signal.SIGKILL)
        child.wait()
    report = tmp_path / "run.json"
    subprocess.run([*command, "--report", str(report)], check=True, stdout=subprocess.DEVNULL)
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "flow.py").write_text(text.replace(str(tmp_path / "out"), str(whole / "out")))
    other = whole / "run.json"
    run = [sys.executable, "-m", "penstock.cli", "run", str(whole / "flow.py"), "--quiet", "--runner", "inline"]
    subprocess.run([*run, "--report", str(other)], check=True, stdout=subprocess.DEVNULL)
    assert Report.load(report).digests == Report.load(other).digests
    assert counts(Report.load(report)) == counts(Report.load(other))
    assert pq.read_table(tmp_path / "out").to_pylist() == pq.read_table(whole / "out").to_pylist()
    assert (tmp_path / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()
