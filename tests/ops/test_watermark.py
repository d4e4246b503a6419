"""The lateness gate against a row-by-row reference."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import (
    assert_boundaries_do_not_matter,
    assert_restorable,
    event_times,
    events,
    run_operator,
)
from penstock.ops.watermark import Watermark
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.pipeline.operator import END_OF_TIME, NO_TIME

GATE = {"watermarks": "at the end"}
anywhere = st.integers(-(1 << 63), (1 << 63) - 1)


def by_hand(times: list[int], lateness: int) -> tuple[list[int], list[int]]:
    """Row numbers in time and late."""
    kept, late, newest = [], [], None
    for row, time in enumerate(times):
        (late if newest is not None and time < newest - lateness else kept).append(row)
        newest = time if newest is None else max(newest, time)
    return kept, late


@settings(deadline=None)
@given(event_times(disorder=30) | st.lists(anywhere, max_size=20), st.integers(0, 25) | st.integers(0, 1 << 65))
def test_late_rows_are_those_of_the_definition(times: list[int], lateness: int) -> None:
    result = run_operator(Watermark(lateness), events(times), sizes=3, **GATE)
    kept, late = by_hand(times, lateness)
    assert result.rows["seq"].to_pylist() == kept
    assert result.side["late"]["seq"].to_pylist() == late
    assert result.metrics.late_rows == len(late)


@settings(deadline=None)
@given(event_times(disorder=30), st.integers(0, 25), st.data())
def test_boundaries_do_not_matter(times: list[int], lateness: int, data: st.DataObject) -> None:
    batch = events(times, name=[f"n{t % 5}" for t in times])
    assert_boundaries_do_not_matter(Watermark(lateness), batch, data=data)


def test_rows_in_time_pass_as_the_same_object() -> None:
    gate = Watermark(5).open(Context("gate"), events([]).schema)
    for times in ([1, 3, 2], [7, 4], [9, 9], [20, 15]):
        batch = events(times)
        assert gate.process(batch)[0] is batch


def test_the_watermark_trails_the_newest_row_and_ends_with_the_input() -> None:
    gate = Watermark("10ns").open(Context("gate"), events([]).schema)
    assert gate.watermark() == NO_TIME
    gate.process(events([]))
    assert gate.watermark() == NO_TIME
    gate.process(events([100, 50]))
    assert gate.watermark() == 90
    gate.process(events([60]))
    assert gate.watermark() == 90
    gate.advance(END_OF_TIME)
    assert gate.watermark() == END_OF_TIME


def test_late_rows_with_a_copy_are_counted_and_a_late_head_is_not_copied() -> None:
    context = Context("gate")
    gate = Watermark(0).open(context, events([]).schema)
    gate.process(events([10]))
    assert gate.process(events([5, 11, 12]))[0]["ts_event"].cast(pa.int64()).to_pylist() == [11, 12]
    assert context.metrics.bytes_copied == 0
    gate.process(events([20, 5, 21]))
    assert context.metrics.bytes_copied == 2 * 24


def test_it_restores_at_every_step() -> None:
    result = assert_restorable(Watermark(3), events([10, 5, 12, 9, 8, 20, 16]), sizes=2, **GATE)
    assert result.metrics.late_rows == 3


def test_a_spec_pickles_and_refuses_what_it_cannot_do() -> None:
    assert pickle.loads(pickle.dumps(Watermark("5ms"))) == Watermark(5_000_000)
    with pytest.raises(ValueError, match="negative"):
        Watermark(-1)
    with pytest.raises(GraphError, match="'ts_event'"):
        Watermark(0).output_schema(pa.schema([("x", pa.int32())]))
