"""Nearest-in-time matching against an O(n*m) reference, with every row accounted for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import (
    Result,
    assert_boundaries_do_not_matter,
    assert_restorable,
    event_times,
    events,
    run_operator,
)
from penstock.ops.sync import Sync
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError
from penstock.pipeline.operator import END_OF_TIME


def partners(left: list[int], right: list[int], tolerance: int) -> list[int | None]:
    """For each left row the row number of its partner: least (distance, time, arrival)."""
    found: list[int | None] = []
    for t in left:
        near = [(abs(r - t), r, row) for row, r in enumerate(right) if abs(r - t) <= tolerance]
        found.append(min(near)[2] if near else None)
    return found


def camera(times: list[int]) -> pa.RecordBatch:
    return events(times, topic=[f"cam{t % 2}" for t in times], frame=pa.array([t % 9 for t in times], pa.int16()))


def radar(times: list[int]) -> pa.RecordBatch:
    names = pa.array([f"radar{t % 3}" for t in times], pa.string()).dictionary_encode()
    return events(times, topic=names, points=pa.array([[1.0] * (t % 4) for t in times], pa.list_(pa.float32())))


def check(left: pa.RecordBatch, right: pa.RecordBatch, tolerance: int, result: Result) -> None:
    a, b = (side["ts_event"].cast(pa.int64()).to_pylist() for side in (left, right))
    found = partners(a, b, tolerance)
    matched = [(row, other) for row, other in enumerate(found) if other is not None]
    assert result.rows["seq"].to_pylist() == [row for row, _ in matched]
    assert result.rows["right_seq"].to_pylist() == [other for _, other in matched]
    assert result.rows["dt_ns"].to_pylist() == [b[other] - a[row] for row, other in matched]
    for name, source, rows in (("topic", left, 0), ("right_topic", right, 1), ("points", right, 1)):
        if name in result.rows.column_names:
            whole = source[name.removeprefix("right_")].to_pylist()
            assert result.rows[name].to_pylist() == [whole[pair[rows]] for pair in matched]
    assert result.side["unmatched"]["seq"].to_pylist() == [row for row, other in enumerate(found) if other is None]
    lost, unused = len(a) - len(matched), len(b) - len({other for _, other in matched})
    reason = f"no partner within {tolerance}ns" if b else "other stream empty"
    expected = {reason: lost, "partner never used": unused}
    assert result.dropped == {why: count for why, count in expected.items() if count}


@settings(deadline=None)
@given(event_times(), event_times(), st.integers(0, 40), st.data())
def test_partners_are_those_of_the_definition(
    left: list[int], right: list[int], tolerance: int, data: st.DataObject
) -> None:
    a, b = camera(left), radar(right)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.ops.sync._LEAST_LOOK", data.draw(st.sampled_from([1, 1024]), label="look"))
        check(a, b, tolerance, assert_boundaries_do_not_matter(Sync(tolerance), a, b, data=data))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(1 << 63) + 1, (1 << 63) - 2), max_size=8), st.integers(0, 1 << 64), st.data())
def test_times_at_the_ends_of_the_range_do_not_overflow(times: list[int], tolerance: int, data: st.DataObject) -> None:
    split = data.draw(st.integers(0, len(times)))
    a, b = sorted(times[:split]), sorted(times[split:])
    result = assert_boundaries_do_not_matter(Sync(tolerance), events(a), events(b), data=data, gates=0)
    found = partners(a, b, tolerance)
    assert result.rows["right_seq"].to_pylist() == [row for row in found if row is not None]


def test_a_tie_goes_to_the_earlier_row_and_of_equal_times_to_the_first() -> None:
    result = run_operator(Sync("5ns"), events([100]), events([105, 95, 95, 105]), sizes=1)
    assert result.rows["right_seq"].to_pylist() == [1]
    assert result.rows["dt_ns"].to_pylist() == [-5]


def test_a_row_is_decided_as_soon_as_nothing_nearer_can_come() -> None:
    context = Context("sync")
    left, right = events([100, 200]), events([97])
    sync = Sync(50).open(context, left.schema, right.schema)
    sync.process(left, 0)
    sync.advance(200, 0)
    sync.process(right, 1)
    assert not sync.advance(102, 1)
    (out,) = sync.advance(103, 1)
    assert out["seq"].to_pylist() == [0]
    assert sync.watermark() == 200
    assert not sync.advance(250, 1)
    assert context.metrics.dropped == {}
    sync.advance(251, 1)
    assert context.metrics.dropped == {"no partner within 50ns": 1}


def test_right_rows_are_forgotten_when_no_left_row_can_need_them() -> None:
    context = Context("sync")
    sync = Sync(1000).open(context, events([]).schema, events([]).schema)
    for start in range(0, 400, 10):
        sync.process(events([start, start + 5]), 1)
    full = context.metrics.state_bytes
    sync.advance(202, 0)
    assert context.metrics.state_bytes == 20 * 48 < full  # 200 is the last one before 202; its batch stays
    sync.advance(END_OF_TIME, 0)
    assert context.metrics.state_bytes == 0
    assert context.metrics.dropped == {"partner never used": 80}


def test_consecutive_matches_are_not_copied_on_either_side() -> None:
    times = list(range(0, 1000, 10))
    result = run_operator(Sync(2), events(times), events([t + 1 for t in times]))
    assert result.rows.num_rows == 100
    assert result.metrics.bytes_copied == 0


def test_reasons_do_not_depend_on_when_the_other_stream_begins() -> None:
    left = events([10, 20, 30])
    sync = Sync(1).open(context := Context("sync"), left.schema, left.schema)
    sync.process(left, 0)
    sync.advance(100, 1)  # a filter before the sync may let nothing through yet
    assert context.metrics.dropped == {}
    sync.process(events([200]), 1)
    assert context.metrics.dropped == {"no partner within 1ns": 3}


def test_it_restores_at_every_step() -> None:
    a, b = camera([10, 14, 13, 40, 41, 80]), radar([9, 12, 15, 15, 39, 60, 70])
    check(a, b, 5, assert_restorable(Sync(5), a, b, sizes=2, interleave=[1, 0, 0, 1]))
    check(a, b, 5, assert_restorable(Sync(5), a, b, sizes=2, interleave="last port first"))
    empty = radar([])
    check(a, empty, 5, assert_restorable(Sync(5), [a], [], schemas=[a.schema, empty.schema], sizes=2))


def test_the_stream_that_is_behind_is_named_when_too_much_waits() -> None:
    with pytest.raises(StateLimitError, match=r"'sync-under-test' holds 24000 bytes \(1000 left rows.*right input is"):
        run_operator(Sync(5, state_limit=20_000), events(range(1000)), events([1]), interleave="port by port")


def test_columns_are_named_without_clashes_or_refused() -> None:
    a, b = camera([1]).schema, radar([1]).schema
    joined = Sync(1).output_schema(a, b)
    right = ["right_ts_event", "right_ts_recv", "right_seq", "right_topic", "points", "dt_ns"]
    assert joined.names == [*a.names, *right]
    again = Sync(1, prefix="lidar_").output_schema(joined, b)
    assert again.names[-2:] == ["lidar_points", "lidar_dt_ns"]
    with pytest.raises(GraphError, match=r"'right_ts_event' of the right input.*give another prefix"):
        Sync(1).output_schema(joined, b)
    with pytest.raises(GraphError, match="two inputs"):
        Sync(1).output_schema(a)
    with pytest.raises(ValueError, match="prefix"):
        Sync(1, prefix="")


def test_a_real_drive_has_every_frame_and_scan_accounted_for(recordings: Callable[[str], Path]) -> None:
    mcap = pytest.importorskip("mcap.reader")
    times: dict[str, list[int]] = {}
    with next(recordings("driving/derived_drive").rglob("*.mcap")).open("rb") as file:
        for _, channel, message in mcap.make_reader(file).iter_messages():
            times.setdefault(channel.topic, []).append(message.log_time)
    cameras = next(found for topic, found in times.items() if len(found) == 221 and "image" in topic)
    scans = next(found for topic, found in times.items() if len(found) == 177)
    tolerance = 50_000_000
    result = assert_restorable(Sync("50ms"), events(cameras), events(scans), sizes=[7, 5])
    found = partners(cameras, scans, tolerance)
    assert result.rows["right_seq"].to_pylist() == [row for row in found if row is not None]
    unmatched = result.side["unmatched"].num_rows
    assert result.rows.num_rows + unmatched == 221
    assert len(set(result.rows["right_seq"].to_pylist())) + result.dropped.get("partner never used", 0) == 177
    assert np.abs(result.rows["dt_ns"].to_numpy()).max() <= tolerance
