"""Steps get more processes while they are the bottleneck and give them up again, and the rows do not change."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from penstock import Report, read, sinks
from penstock.pipeline.cluster import scaling
from penstock.pipeline.cluster.autoscale import Decision, Observation, Scaler
from penstock.pipeline.cluster.members import Crew
from penstock.pipeline.cluster.staffing import Seat
from penstock.sources import Rows
from ray_runs import connection, facts
from streams import identity, recording

pytestmark = [pytest.mark.ray, pytest.mark.nightly]

ROWS, BLOCK = 8000, 10
TABLE = recording(5, ROWS)
#: One that reads and one that serves; the order and the file are the driver's.
PROCESSES = 2


@pytest.fixture(scope="module", autouse=True)
def connected(cluster: Any) -> Iterator[Any]:
    with connection(cluster.address, __name__) as ray:
        yield ray


def serve(batch: pa.RecordBatch) -> pa.RecordBatch:
    """What stands for a decoder: a service time, during which no core is needed. Nothing is asserted about time."""
    time.sleep(0.02 if batch.num_rows else 0)
    return batch


def serve_until_killed(once: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Like `serve`, and its process dies once, when most rows are through."""

    def step(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows and batch.column("seq")[0].as_py() > 0.8 * ROWS and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return serve(batch)

    return step


def run(step: Callable[[pa.RecordBatch], pa.RecordBatch], out: Path, **options: Any) -> Report:
    slow = read(Rows(TABLE, BLOCK)).map(step, parallelism=(1, 4), name="serve")
    return slow.map(identity).write(sinks.Parquet(out)).run(**options)


def test_a_bottleneck_gets_processes_and_the_rows_are_those_of_one(tmp_path: Path) -> None:
    report = run(serve, tmp_path / "ray", runner="ray")
    assert facts(report) == facts(run(identity, tmp_path / "inline", runner="inline"))
    decisions = report["cluster"]["scaling"]
    assert decisions[0]["step"] == "serve" and (decisions[0]["before"], decisions[0]["after"]) == (1, 2)
    assert "occupied" in decisions[0]["why"]
    assert all(1 <= decision["after"] <= 4 for decision in decisions)
    assert report["cluster"]["restarts"] == 0


def test_a_loss_while_scaling_costs_no_row(tmp_path: Path) -> None:
    step = serve_until_killed(tmp_path / "once")
    report = run(step, tmp_path / "ray", runner="ray", checkpoint=tmp_path / "checkpoints", checkpoint_every="1s")
    assert facts(report) == facts(run(identity, tmp_path / "inline", runner="inline"))
    assert report["cluster"]["restarts"] == 1
    assert [step for step, stage in report["stages"].items() if stage["restarts"]][:1] == ["serve"]
    assert report["cluster"]["scaling"]
    assert (tmp_path / "once").exists()


def serve_when_told(*marks: tuple[float, Path]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """From each part of the rows on, a call takes until the file is there."""

    def step(batch: pa.RecordBatch) -> pa.RecordBatch:
        for part, told in marks:
            if batch.num_rows and batch.column("seq")[0].as_py() > part * ROWS:
                wait_for(told)
        return batch

    def wait_for(told: Path) -> None:
        for _ in range(2400):
            if told.exists():
                return
            time.sleep(0.05)
        raise TimeoutError(f"never heard of {told.name}")

    return step


def test_those_who_leave_end_their_calls_and_then_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resized, gone = tmp_path / "resized", tmp_path / "gone"
    sizes: list[int] = [1, 3, 1, 2]
    removed: list[int] = []

    class Script(Scaler):
        """One size after the other, each as soon as the one before is reached."""

        done = 0

        def decide(self, seen: Observation) -> Decision | None:
            if seen.workers != sizes[self.done]:
                return None
            if self.done == len(sizes) - 1:
                resized.touch()
                return None
            self.done += 1
            return Decision(seen.time_ns, seen.workers, sizes[self.done], "the script says so")

    def remove(crew: Crew, seat: Seat) -> None:
        assert resized.exists(), "a process with calls under way was ended"
        removed.append(seat.number)
        if len(removed) == 2:
            gone.touch()
        original(crew, seat)

    original = Crew.remove
    monkeypatch.setattr(scaling, "Scaler", Script)
    monkeypatch.setattr(Crew, "remove", remove)
    report = run(serve_when_told((0.5, resized), (0.9, gone)), tmp_path / "ray", runner="ray", parallelism=1)
    assert facts(report) == facts(run(identity, tmp_path / "inline", runner="inline"))
    assert [(d["before"], d["after"]) for d in report["cluster"]["scaling"]] == [(1, 3), (3, 1), (1, 2)]
    assert sorted(removed) == [1, 2]
    assert (report["cluster"]["restarts"], report["cluster"]["processes"]) == (0, PROCESSES + 1)
