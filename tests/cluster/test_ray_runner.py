"""Pipelines on a cluster give what they give in one thread, however many processes read, work and keep state."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock import Flow, Stream, ops, sinks
from penstock.demos.game_recording import write_game
from penstock.ops import agg
from penstock.pipeline.context import Context
from penstock.pipeline.errors import DecodeError, FormatError, RunError
from penstock.pipeline.quarantine import read_quarantine
from penstock.pipeline.source import Block, Decoded, Position, SourceReader, Split
from penstock.sources import Rows, game_events
from ray_runs import connection, facts, wait_until_idle
from streams import affordable, endings, identity, notional, pipelines, plans, recording, source

pytestmark = [pytest.mark.ray, pytest.mark.nightly]
#: Keyed steps in these endings can be divided.
DIVIDED = {"window", "sliding"}


@pytest.fixture(scope="module", autouse=True)
def connected(cluster: Any) -> Iterator[Any]:
    with connection(cluster.address, __name__) as ray:
        yield ray


def check_alike(flow: Flow, **options: Any) -> Any:
    """Run inline and on the cluster; the cluster's report, once both are found to agree."""
    expected = flow.run(runner="inline")
    report = flow.run(runner="ray", **options)
    assert facts(report) == facts(expected)
    assert report["cluster"]["spilled_bytes"] == 0
    return report


def everything(tables: Sequence[pa.Table], readers: int, parts: int, pool: int) -> Flow:
    """A late side, a pool, a divided window, a sync of two sources, a diamond, a merge, and a sink on each."""
    gate = source(tables[0], 60, parallelism=readers).watermark("1ms", name="gate")
    other = source(tables[1], 45, 2_000_000, parallelism=1, name="other")
    priced = gate.map(notional, inputs=["price", "size"], outputs={"price": pa.float64()}, parallelism=pool)
    bars = priced.key_by("symbol", parallelism=parts).window(
        ops.Tumbling("10ms"), n=agg.count(), total=agg.sum("price"), last=agg.last("size"), name="bars"
    )
    pairs = priced.sync(other, tolerance="2ms", name="pairs")
    diamond = priced.filter(affordable, inputs=["price"]).sync(priced.map(identity), tolerance="1ms", name="diamond")
    both = other.map(identity, parallelism=pool).merge(source(tables[2], 33, 2_000_000, name="third"))
    streams = [gate.late, bars, pairs, pairs.unmatched, diamond, both.batch(11)]
    flow = Flow(())
    for number, stream in enumerate(streams):
        flow += stream.write(sinks.Null(), name=f"out-{number}")
    return flow


@pytest.mark.parametrize(("readers", "parts", "pool"), [(3, 2, 2), (1, 3, 3)])
def test_side_outputs_pools_divided_windows_syncs_diamonds_and_merges_give_the_same_rows(
    readers: int, parts: int, pool: int
) -> None:
    tables = [recording(seed, 900 - 100 * seed, disorder_ns=2_500_000) for seed in range(3)]
    report = check_alike(everything(tables, readers, parts, pool))
    assert all(sink["rows"] > 0 for sink in report["sinks"].values())
    assert report["late_rows"] > 0


def check_random(plan: Sequence[str], ending: str, rows: int, size: int, readers: int, parts: int, edge: int) -> None:
    tables = [recording(seed, max(0, rows - 40 * seed), disorder_ns=2_000_000) for seed in range(3)]

    def build(rows_per_batch: int, parts: int | None) -> Stream:
        return pipelines(lambda i: source(tables[i], rows_per_batch, 1_000_000), plan, ending, parts)

    flow = build(size, parts if ending in DIVIDED else None).write(sinks.Null())
    report = check_alike(flow, parallelism=readers, edge_bytes=edge)
    whole = build(1_000, None).write(sinks.Null()).run(runner="inline")
    assert report.digests == whole.digests


drawn = given(
    plan=plans,
    ending=endings,
    rows=st.integers(0, 400),
    size=st.integers(20, 150),
    readers=st.integers(1, 3),
    parts=st.integers(2, 3),
    edge=st.sampled_from([1, 2_000, 8 << 20]),
)
alive = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@drawn
@settings(max_examples=2, derandomize=True, deadline=None, suppress_health_check=alive)
def test_random_pipelines_give_the_same_rows(**parts: Any) -> None:
    check_random(**parts)


@pytest.mark.nightly
@drawn
@settings(max_examples=80, deadline=None, suppress_health_check=alive)
def test_many_random_pipelines_give_the_same_rows(**parts: Any) -> None:
    check_random(**parts)


def test_a_source_without_splits_and_one_without_rows_give_the_same_rows(tmp_path: Path) -> None:
    plain, packed = tmp_path / "game.ndjson", tmp_path / "game.ndjson.gz"
    write_game(plain, events=600, seed=4)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    from penstock import read

    played = read(game_events(packed), parallelism=3, name="events")
    empty = source(recording(1, 0), 50, parallelism=2, name="empty")
    some = source(recording(2, 90), 50, name="some")
    flow = played.map(ops.ActionSequence(length=8, every=4)).write(sinks.Null(), name="actions")
    flow += empty.sync(some, tolerance="1ms").write(sinks.Null(), name="synced")
    flow += empty.map(identity, parallelism=2).merge(some).write(sinks.Null(), name="merged")
    report = check_alike(flow)
    assert [sink["rows"] > 0 for sink in report["sinks"].values()] == [True, False, True]


def fails_on_seven(size: np.ndarray) -> np.ndarray:
    if np.any(size % 7 == 0):
        raise ValueError("a multiple of seven")
    return size


def fails_on_eleven(batch: pa.RecordBatch) -> pa.RecordBatch:
    if np.any(np.asarray(batch.column("size")) % 11 == 0):
        raise ValueError("a multiple of eleven")
    return batch


def one_by_one(size: np.ndarray) -> np.ndarray:
    if np.any(size % 13 == 0):
        raise ZeroDivisionError("a multiple of thirteen")
    return size


def test_rows_on_which_functions_fail_go_to_the_quarantine_folder_whoever_works_on_them(tmp_path: Path) -> None:
    stream = source(recording(4, 600), 50).map(
        fails_on_seven, inputs=["size"], outputs={"size": pa.int64()}, name="sevens"
    )
    stream = stream.batch(40).map(fails_on_eleven, parallelism=2, name="elevens")
    stream = stream.batch(30).map(one_by_one, inputs=["size"], outputs={"size": pa.int64()}, name="thirteens")
    flow = stream.write(sinks.Null())
    reports, kept = [], []
    for runner in ("inline", "ray"):
        folder = tmp_path / runner
        reports.append(facts(flow.run(runner=runner, parallelism=2, quarantine=folder)))
        records = read_quarantine(folder)
        kept.append([(r.step, r.place, r.operation, r.error, r.seq, r.data()) for r in records])
    assert reports[0] == reports[1]
    assert kept[0] == kept[1]
    assert all(reports[1]["quarantined"][step] > 0 for step in ("sevens", "elevens", "thirteens"))


def test_on_error_raise_stops_at_a_bad_row_and_names_the_step(tmp_path: Path) -> None:
    stream = source(recording(4, 600), 50).batch(40).map(fails_on_eleven, parallelism=2, name="elevens")
    with pytest.raises(DecodeError, match=r"step 'elevens'.*a multiple of eleven") as raised:
        stream.write(sinks.Parquet(tmp_path / "out")).run(runner="ray", on_error="raise")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("*.parquet"))
    wait_until_idle()


def wrong(size: np.ndarray) -> np.ndarray:
    raise KeyError("typo")


def test_a_function_that_fails_on_every_row_fails_the_run_with_its_place() -> None:
    stream = source(recording(4, 100), 50).map(wrong, inputs=["size"], outputs={"size": pa.int64()})
    with pytest.raises(RunError, match=r"^step 'map' \(test_ray_runner.py:\d+\) fails on every row: 'typo'$"):
        stream.write(sinks.Null()).run(runner="ray")


def fails_in_between(seq: np.ndarray) -> np.ndarray:
    if np.any((seq >= 200) & (seq < 350)):
        raise ValueError("a bad stretch")
    return seq


def test_whole_batches_of_bad_rows_in_between_are_put_aside_and_do_not_end_the_run() -> None:
    stream = source(recording(4, 600), 50, parallelism=2)
    read = stream.map(fails_in_between, inputs=["seq"], outputs={"seq": pa.uint64()}, name="reading")
    pooled = stream.batch(50).map(
        fails_in_between, inputs=["seq"], outputs={"seq": pa.uint64()}, parallelism=2, name="pooled"
    )
    report = check_alike(read.write(sinks.Null()) + pooled.write(sinks.Null()))
    assert report["quarantined"] == 300


@dataclass(frozen=True)
class Torn(Rows):
    """Rows that cannot be framed, or not decoded, from row 200 on."""

    framing: bool = False

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        return TornReader(super().open(context, split, position), self.framing)


class TornReader(SourceReader):
    def __init__(self, whole: SourceReader, framing: bool) -> None:
        self._whole, self._framing = whole, framing

    def blocks(self) -> Iterator[Block]:
        for block in self._whole.blocks():
            if self._framing and block.first_seq >= 200:
                raise FormatError("rows.bin at byte 4096: the header ends in the middle")
            yield block

    def decode(self, block: Block) -> Decoded:
        if block.first_seq >= 200:
            raise OSError("rows.bin: device not ready")
        return self._whole.decode(block)


@pytest.mark.parametrize("framing", [False, True])
def test_a_source_that_fails_half_way_ends_the_run_with_one_line_and_nothing_left(
    framing: bool, tmp_path: Path
) -> None:
    from penstock import read

    stream = read(Torn(recording(1, 600), 20, framing=framing), parallelism=2, name="torn").map(identity)
    flow = stream.write(sinks.Parquet(tmp_path / "out")) + stream.batch(30).write(sinks.Null())
    text = "rows.bin at byte 4096" if framing else "OSError: rows.bin: device not ready"
    with pytest.raises(RunError, match=rf"^step 'torn' \(test_ray_runner.py:\d+\): {text}") as raised:
        flow.run(runner="ray", report=tmp_path / "run.json")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["run.json"]
    wait_until_idle()


def test_a_replay_at_a_speed_is_paced_and_gives_the_same_rows() -> None:
    table = recording(6, 300)
    stream = source(table, 40).map(identity).key_by("symbol", parallelism=2)
    flow = stream.window(ops.Tumbling("10ms"), n=agg.count()).write(sinks.Null())
    report = flow.run(runner="ray", speed=2.0)
    times = np.asarray(table["ts_recv"].cast(pa.int64()))
    assert report["elapsed_s"] >= (times[-1] - times[0]) / 2e9
    assert report["replay"]["speed"] == 2.0
    assert facts(report) == facts(flow.run(runner="inline"))


@pytest.mark.nightly
def test_a_replay_that_cannot_keep_up_reports_how_late_it_was() -> None:
    report = source(recording(6, 300), 40).map(identity).write(sinks.Null()).run(runner="ray", speed=1e6)
    assert report["replay"]["largest_lag_ms"] > 0
