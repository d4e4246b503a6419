"""Batching against a row-by-row reference; composition must not depend on anything but the rows."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import (
    assert_boundaries_do_not_matter,
    assert_restorable,
    assert_same_rows,
    event_times,
    events,
    run_operator,
)
from penstock.ops.batch import Batch, row_sizes
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError


def by_hand(times: list[int], sizes: list[int], spec: Batch) -> list[int]:
    batches: list[list[int]] = []
    for row, time in enumerate(times):
        if batches:
            current = batches[-1]
            fits = len(current) < spec.rows
            if spec.max_bytes is not None:
                fits = fits and sum(sizes[i] for i in current) + sizes[row] <= spec.max_bytes
            if spec.max_age_ns is not None:
                fits = fits and time < times[current[0]] + spec.max_age_ns
            if fits:
                current.append(row)
                continue
        batches.append([row])
    return [len(batch) for batch in batches]


def rows_of(times: list[int]) -> pa.RecordBatch:
    return events(
        times,
        name=pa.array([f"n{t % 3}" for t in times], pa.string()).dictionary_encode(),
        data=pa.array([bytes(t % 7) if t % 5 else None for t in times], pa.large_binary()),
        x=pa.array([float(t) for t in times], pa.float32()),
    )


@settings(deadline=None)
@given(
    event_times(disorder=30),
    st.integers(1, 9),
    st.none() | st.integers(1, 200),
    st.none() | st.integers(1, 60),
    st.data(),
)
def test_composition_is_that_of_the_definition_whatever_the_input_batches_and_watermarks(
    times: list[int], rows: int, max_bytes: int | None, max_age: int | None, data: st.DataObject
) -> None:
    spec = Batch(rows, max_bytes, max_age)
    batch = rows_of(times)
    sizes = [24 + 4 + 8 + (t % 7 if t % 5 else 0) + 4 for t in times]
    result = assert_boundaries_do_not_matter(spec, batch, data=data, composition=True)
    assert result.sizes == by_hand(times, sizes, spec)
    assert_same_rows(pa.Table.from_batches([batch]), result.rows)


def test_a_watermark_closes_a_batch_before_its_next_row_comes() -> None:
    batch = Batch(100, max_age_ns="40ns").open(Context("batch"), events([]).schema)
    assert batch.process(events([10, 20])) == []
    assert batch.advance(49) == ()
    assert batch.watermark() == 10
    (out,) = batch.advance(50)
    assert out.num_rows == 2
    assert batch.watermark() == 50


def test_without_watermarks_the_last_batch_comes_at_the_end() -> None:
    result = run_operator(Batch(4), events(range(10)), watermarks="at the end")
    assert result.sizes == [4, 4, 2]


def test_a_batch_inside_one_input_batch_is_a_slice_and_others_are_copied_once() -> None:
    whole = run_operator(Batch(5), events(range(20)))
    assert whole.metrics.bytes_copied == 0
    crossing = run_operator(Batch(5), events(range(20)), sizes=4)
    assert crossing.sizes == [5, 5, 5, 5]
    assert crossing.metrics.bytes_copied == 20 * 24


def test_dictionaries_of_different_batches_are_unified_by_value() -> None:
    a = events([1, 2], key=pa.array(["x", "y"]).dictionary_encode())
    b = events([3, 4], key=pa.array(["y", "z"]).dictionary_encode())
    result = run_operator(Batch(4), [a, b])
    assert result.sizes == [4]
    assert result.rows["key"].to_pylist() == ["x", "y", "y", "z"]


def test_it_restores_at_every_step() -> None:
    source = rows_of([1, 5, 3, 50, 51, 52, 90, 91, 200])
    result = assert_restorable(Batch(3, max_bytes=150, max_age_ns=30), source, sizes=2)
    assert result.rows.num_rows == 9


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 6))
def test_row_sizes_do_not_depend_on_where_a_batch_is_cut(start: int, length: int) -> None:
    batch = events(
        range(8),
        text=["a", "", None, "long text", "é", "b", "c", "d"],
        nested=[[["x", "yy"], []], [], None, [["abc"]], [[]], [["", "q"]], [], [["zz"]]],
        record=[{"a": row, "b": "s" * row} for row in range(8)],
        flag=[True] * 8,
        fixed=pa.array([[1, 2]] * 8, pa.list_(pa.int16(), 2)),
    )
    sizes = row_sizes(batch).tolist()
    assert row_sizes(batch.slice(start, length)).tolist() == sizes[start : start + length]
    text = [4 + n for n in (1, 0, 0, 9, 2, 1, 1, 1)]
    nested = [4 + n for n in (4 + (4 + 1) + (4 + 2) + 4, 0, 0, 4 + 4 + 3, 4, 4 + 4 + 4 + 1, 0, 4 + 4 + 2)]
    record = [8 + 4 + row for row in range(8)]
    assert sizes == [24 + t + n + r + 1 + 4 for t, n, r in zip(text, nested, record, strict=True)]


def test_more_open_rows_than_the_limit_are_an_error_that_says_what_to_do() -> None:
    source = events(range(4), data=pa.array([b"x" * 1000] * 4))
    with pytest.raises(StateLimitError, match=r"'batch-under-test' holds 3 rows of 3084 bytes.*set max_bytes"):
        run_operator(Batch(8, state_limit=3000), source, sizes=1)
    assert Batch(8).state_bound(events([], x=pa.array([], pa.float64())).schema) == 8 * 32
    assert Batch(8).state_bound(source.schema) == 64 << 20
    assert Batch(8, max_bytes=5_000).state_bound(source.schema) == 5_000


def test_arguments_and_schemas_that_cannot_work_are_refused() -> None:
    for wrong in ({"rows": 0}, {"rows": 1, "max_bytes": 0}, {"rows": True}, {"rows": 4, "max_age_ns": 0}):
        with pytest.raises(ValueError):
            Batch(**wrong)
    with pytest.raises(GraphError, match="'ts_event'"):
        Batch(1).output_schema(pa.schema([("x", pa.int32())]))
