"""A run that broke off goes on from its last checkpoint on any runner, with the rows of one that did not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock import Flow, Report, Stream, ops, sinks
from penstock.ops import agg
from penstock.pipeline.errors import CheckpointError, PlanError, RunError
from penstock.pipeline.quarantine import read_quarantine
from ray_runs import connection, facts
from streams import endings, identity, pipelines, plans, recording, source

pytestmark = [pytest.mark.ray, pytest.mark.nightly]
INLINE: dict[str, Any] = {"runner": "inline"}
LOCAL: dict[str, Any] = {"runner": "local", "parallelism": 3}
RAY: dict[str, Any] = {"runner": "ray", "parallelism": 2}
WIDER: dict[str, Any] = {"runner": "ray", "parallelism": 3}
TABLES = [recording(seed, 3_000 - 200 * seed, disorder_ns=2_000_000) for seed in range(2)]


@pytest.fixture(scope="module", autouse=True)
def connected(cluster: Any) -> Iterator[Any]:
    with connection(cluster.address, __name__) as ray:
        yield ray


def newest(snapshots: Path) -> int:
    """The number of the last checkpoint that is complete."""
    return max((int(file.parent.name[-12:]) for file in snapshots.glob("checkpoint-*/manifest.jsonl")), default=0)


class Breaking:
    """Passes rows on, and fails the run with the first at or behind `seq` that comes after another checkpoint was stored."""

    def __init__(self, snapshots: Path, seq: int | None) -> None:
        self.snapshots, self.seq = str(snapshots), seq
        self.before = newest(snapshots)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        due = self.seq is not None and batch.num_rows and np.max(np.asarray(batch.column("seq"))) >= self.seq
        if due and newest(Path(self.snapshots)) > self.before:
            raise RunError("pulled the plug")
        return batch


def fails_on_seven(size: np.ndarray) -> np.ndarray:
    if np.any(size % 7 == 0):
        raise ValueError("a multiple of seven")
    return size


def keyed(folder: Path, at: int | None, parts: int | None) -> Flow:
    """Two sources, a quarantine, late rows, a pool, a divided window, a sync; a step that breaks behind most of it."""
    left = source(TABLES[0], 20, name="left").watermark("1ms", name="gate")
    right = source(TABLES[1], 30, 2_000_000, name="right")
    kept = left.map(fails_on_seven, inputs=["size"], outputs={"size": pa.int64()}, parallelism=2, name="sevens")
    broken = kept.map(Breaking(folder.parent / "snapshots", at), schema=kept.schema, name="breaking")
    bars = broken.key_by("symbol", parallelism=parts).window(
        ops.Tumbling("20ms"), n=agg.count(), total=agg.sum("price"), name="bars"
    )
    pairs = kept.sync(right, tolerance="2ms", name="pairs")
    flow = bars.write(sinks.Parquet(folder / "bars"), name="to_bars")
    flow += pairs.write(sinks.Parquet(folder / "pairs"), name="to_pairs")
    flow += left.late.write(sinks.Collect(), name="to_late")
    return flow + pairs.unmatched.write(sinks.JsonLines(folder / "unmatched.jsonl"), name="to_unmatched")


def written(folder: Path) -> dict[str, Any]:
    """What stands in the folder: rows of the tables (each file has a dictionary of its own), lines of the file."""
    found: dict[str, Any] = {}
    for name in ("bars", "pairs"):
        table = pq.read_table(folder / name)
        plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
        found[name] = table.cast(pa.schema(plain)).combine_chunks()
    return {**found, "unmatched": (folder / "unmatched.jsonl").read_bytes()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    report = keyed(folder / "out", None, None).run(**INLINE, quarantine=folder / "bad")
    return report, {**written(folder / "out"), "bad": bad_rows(folder / "bad")}


def bad_rows(folder: Path) -> list[tuple[str, str, int | None, bytes]]:
    return [(r.step, r.error, r.seq, r.data()) for r in read_quarantine(folder)]


def break_off(flow: Flow, **options: Any) -> None:
    """Run until the step breaks."""
    with pytest.raises(RunError, match="pulled the plug"):
        flow.run(**options)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("first", "then"),
    [(RAY, WIDER), (RAY, INLINE), (INLINE, RAY), (LOCAL, WIDER), (RAY, LOCAL)],
    ids=["ray-wider ray", "ray-inline", "inline-ray", "local-ray", "ray-local"],
)
def test_a_run_that_breaks_off_goes_on_elsewhere_with_exactly_the_rows_of_an_undisturbed_one(
    first: dict[str, Any], then: dict[str, Any], undisturbed: tuple[Report, dict[str, Any]], tmp_path: Path
) -> None:
    expected, results = undisturbed
    saving = {"checkpoint": tmp_path / "snapshots", "checkpoint_rows": 150, "quarantine": tmp_path / "bad"}
    break_off(keyed(tmp_path / "out", 1_000, 2), **first, **saving, edge_bytes=4_000)
    assert not [p for p in (tmp_path / "out").rglob("*.parquet") if ".penstock" not in str(p)]
    report = keyed(tmp_path / "out", None, 3).run(**then, **saving, resume=True)
    assert report["checkpoints"]["resumed_from"] is not None
    assert facts(report) == facts(expected)
    assert {**written(tmp_path / "out"), "bad": bad_rows(tmp_path / "bad")} == results
    assert not [path for path in (tmp_path / "out").rglob("*") if ".penstock" in str(path)]


def test_a_run_may_break_off_again_and_again_and_change_runner_each_time(
    undisturbed: tuple[Report, dict[str, Any]], tmp_path: Path
) -> None:
    expected, results = undisturbed
    saving = {"checkpoint": tmp_path / "snapshots", "checkpoint_rows": 100, "quarantine": tmp_path / "bad"}
    runs = [(RAY, 300, 2), (INLINE, 900, None), (WIDER, 1_200, 3), (LOCAL, 1_800, 2)]
    for number, (options, at, parts) in enumerate(runs):
        flow = keyed(tmp_path / "out", at, parts)
        break_off(flow, **options, **saving, resume=number > 0, edge_bytes=4_000)
    report = keyed(tmp_path / "out", None, 2).run(**RAY, **saving, resume=True)
    assert facts(report) == facts(expected)
    assert {**written(tmp_path / "out"), "bad": bad_rows(tmp_path / "bad")} == results


def test_a_completed_run_is_not_run_again_and_another_pipeline_is_refused(tmp_path: Path) -> None:
    saving = {"checkpoint": tmp_path / "snapshots", "checkpoint_rows": 200, "edge_bytes": 2_000}

    def build(at: int | None, extra: bool) -> Flow:
        stream = source(TABLES[0], 20, name="left").map(Breaking(tmp_path / "snapshots", at), schema=TABLES[0].schema)
        stream = stream.filter(lambda size: size > 3, inputs=["size"]) if extra else stream
        return stream.batch(7).write(sinks.Null())

    break_off(build(500, False), **RAY, **saving)
    with pytest.raises(CheckpointError, match="of another version of this pipeline"):
        build(None, True).run(**RAY, **saving, resume=True)
    with pytest.raises(PlanError, match="resume=True"):
        build(None, False).run(**RAY, **saving)
    report = build(None, False).run(**RAY, **saving, resume=True)
    assert build(None, False).run(**RAY, **saving, resume=True).data == report.data


def check_random(
    plan: list[str], ending: str, rows: int, at: int, order: tuple[int, int], edge: int, folder: Path
) -> None:
    tables = [recording(seed, max(1, rows - 40 * seed), disorder_ns=2_000_000) for seed in range(3)]
    runners = [INLINE, LOCAL, RAY, WIDER]
    snapshots = folder / "snapshots"

    def make(number: int, at: int | None) -> Stream:
        stream = source(tables[number], 15, 1_000_000)
        return stream.map(Breaking(snapshots, at), schema=stream.schema) if number == 0 else stream.map(identity)

    def build(parts: int, at: int | None) -> Flow:
        divided = parts if ending in ("window", "sliding") else None
        return pipelines(lambda number: make(number, at), plan, ending, divided).write(sinks.Collect())

    expected = build(2, None).run(**INLINE)
    saving: dict[str, Any] = {"checkpoint": snapshots, "checkpoint_rows": 40, "edge_bytes": edge}
    try:
        report = build(2, at).run(**runners[order[0]], **saving)
    except RunError as error:
        assert "pulled the plug" in str(error)
        report = build(3, None).run(**runners[order[1]], **saving, resume=True)
    assert facts(report) == facts(expected)


@pytest.mark.nightly
@given(
    plan=plans,
    ending=endings,
    rows=st.integers(1, 500),
    at=st.integers(20, 500),
    order=st.sampled_from([(0, 2), (1, 3), (2, 0), (2, 1), (2, 3), (3, 2)]),
    edge=st.sampled_from([1, 2_000, 8 << 20]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_random_pipelines_go_on_elsewhere(tmp_path_factory: pytest.TempPathFactory, **parts: Any) -> None:
    check_random(**parts, folder=tmp_path_factory.mktemp("resumed"))
