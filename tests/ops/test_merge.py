"""Merging against a plain sort."""

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
from penstock.ops.merge import Merge
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError


def stream(times: list[int], port: int) -> pa.RecordBatch:
    """Every kind of column: dictionaries that differ between ports, text, lists, nulls, booleans, tensors."""
    count = len(times)
    names = [f"p{port}-{row % 3}" if row % 4 else "both" for row in range(count)]
    tensor = pa.FixedShapeTensorArray.from_storage(
        pa.fixed_shape_tensor(pa.uint8(), [2, 2]),
        pa.array([[row % 256, port, 0, 1] for row in range(count)], pa.list_(pa.uint8(), 4)),
    )
    return events(
        times,
        topic=pa.array(names, pa.string()).dictionary_encode(),
        text=pa.array(names, pa.large_string()),
        points=pa.array([[row] * (row % 3) for row in range(count)], pa.list_(pa.float32())),
        maybe=pa.array([row if row % 2 else None for row in range(count)], pa.int32()),
        flag=pa.array([row % 2 == port for row in range(count)], pa.bool_()),
        image=tensor,
    )


def sorted_by_hand(*ports: pa.RecordBatch) -> pa.Table:
    table = pa.concat_tables([pa.Table.from_batches([port]) for port in ports], promote_options="permissive")
    keys = [
        (t, p, r) for p, port in enumerate(ports) for r, t in enumerate(port["ts_event"].cast(pa.int64()).to_pylist())
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return table.unify_dictionaries().combine_chunks().take(pa.array(order, pa.int64()))


@pytest.mark.parametrize("run_bytes", [0, 64 << 10], ids=["as slices", "copied together"])
@settings(max_examples=60, deadline=None)
@given(a=event_times(most=25), b=event_times(most=25), c=event_times(most=8), data=st.data())
def test_rows_are_sorted_by_time_port_and_arrival(
    run_bytes: int, a: list[int], b: list[int], c: list[int], data: st.DataObject
) -> None:
    ports = [stream(times, port) for port, times in enumerate((a, b, c))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.ops.merge._RUN_BYTES", run_bytes)
        result = assert_boundaries_do_not_matter(Merge(), *ports, data=data)
    assert_same_rows(sorted_by_hand(*ports), result.rows)


def test_rows_leave_when_all_watermarks_have_passed_them() -> None:
    a, b = events([1, 2, 3, 4]), events([3, 9])
    context = Context("merge")
    merge = Merge().open(context, a.schema, b.schema)
    assert merge.process(a, 0) == ()
    assert merge.advance(4, 0) == ()
    merge.process(b, 1)
    (out,) = merge.advance(3, 1)
    assert out["ts_event"].cast(pa.int64()).to_pylist() == [1, 2]
    assert merge.advance(3, 1) == ()
    (out,) = merge.advance(9, 1)
    assert out["ts_event"].cast(pa.int64()).to_pylist() == [3, 3]
    assert context.metrics.state_bytes == 2 * 24


def test_streams_one_after_the_other_are_not_copied() -> None:
    a, b = events(range(5_000)), events(range(5_000, 15_000))
    result = run_operator(Merge(), a, b, interleave="port by port")
    assert result.rows["seq"].to_pylist() == [*range(5_000), *range(10_000)]
    assert result.metrics.bytes_copied == 0
    mixed = run_operator(Merge(), events(range(0, 200, 2)), events(range(1, 201, 2)), watermarks="at the end")
    assert mixed.metrics.bytes_copied == 200 * 24


def test_it_restores_at_every_step() -> None:
    a, b = stream([5, 3, 8, 8, 12, 11], 0), stream([4, 8, 6, 30], 1)
    result = assert_restorable(Merge(), a, b, sizes=2, interleave=[1, 1, 0])
    assert result.rows.num_rows == 10


def test_a_port_that_lags_is_named_when_too_much_waits() -> None:
    a, b = events(range(1000)), events([])
    with pytest.raises(StateLimitError, match=r"'merge-under-test' holds 24000 bytes \(1000 rows\).* input 1"):
        run_operator(Merge(state_limit=20_000), [a], [b], interleave="port by port")


def test_schemas_must_agree_and_shared_metadata_stays() -> None:
    a = events([1], x=[1]).schema.with_metadata({"penstock.source": "a", "penstock.clock": "utc"})
    b = events([1], x=[1]).schema.with_metadata({"penstock.source": "b", "penstock.clock": "utc"})
    assert Merge().output_schema(a, b).metadata == {b"penstock.clock": b"utc"}
    with pytest.raises(GraphError, match="input 1 differs from input 0: column 'x' is string, not int64"):
        Merge().output_schema(a, events([1], x=["1"]).schema)
    with pytest.raises(GraphError, match="two inputs or more"):
        Merge().output_schema(a)
