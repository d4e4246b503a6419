"""Aggregates over one window, against numpy, pyarrow and a row-by-row sum."""

from __future__ import annotations

import math
import pickle
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import events, run_operator
from penstock.ops import aggregates as agg
from penstock.ops.window import Session, Tumbling, Window
from penstock.pipeline.errors import GraphError, RunError
from penstock.pipeline.schema import tensor_type

FLOATS = st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=1, max_size=25)
INTS = st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=25)


def of(aggregate: agg.Aggregate, values: pa.Array, *, times: list[int] | None = None, sizes: int = 3) -> Any:
    """`aggregate` over one window that holds all `values`, cut into batches of `sizes`."""
    batch = events(times or list(range(len(values))), x=values)
    result = run_operator(Window(Tumbling(1_000), {"out": aggregate}), batch, sizes=sizes)
    assert result.rows.num_rows == 1
    return result.rows["out"][0]


@settings(max_examples=100, deadline=None)
@given(FLOATS, st.sampled_from([pa.float32(), pa.float64()]))
def test_float_sums_are_the_row_by_row_sum_bit_for_bit(values: list[float | None], kind: pa.DataType) -> None:
    present = [v for v in values if v is not None]
    array = pa.array(values, kind)
    total = 0.0
    for value in present:
        total += value
    got, mean = of(agg.sum("x"), array), of(agg.mean("x"), array)
    assert got.type == pa.float64()
    if not present:
        assert got.as_py() is None
        assert mean.as_py() is None
        return
    assert np.array(got.as_py()).tobytes() == np.array(total).tobytes() or (
        math.isnan(total) and math.isnan(got.as_py())
    )
    np.testing.assert_equal(mean.as_py(), total / len(present))


@settings(max_examples=100, deadline=None)
@given(FLOATS)
def test_float_extremes_agree_with_pyarrow_and_ignore_nan(values: list[float | None]) -> None:
    array = pa.array(values, pa.float32())
    numbers = [v for v in values if v is not None and not math.isnan(v)]
    for aggregate, oracle in ((agg.min("x"), min), (agg.max("x"), max)):
        got = of(aggregate, array)
        assert got.type == pa.float32()
        if numbers:
            assert got.as_py() == oracle(numbers)
        else:
            assert got.as_py() is None if array.null_count == len(array) else math.isnan(got.as_py())


@settings(max_examples=100, deadline=None)
@given(INTS, st.sampled_from([pa.int32(), pa.int64(), pa.timestamp("ns", "UTC")]))
def test_integer_aggregates_agree_with_pyarrow(values: list[int | None], kind: pa.DataType) -> None:
    array = pa.array(values, kind)
    for aggregate, oracle in ((agg.min("x"), pc.min), (agg.max("x"), pc.max)):
        got = of(aggregate, array)
        assert got.type == kind
        assert got.equals(oracle(array))
    assert of(agg.count("x"), array).as_py() == len(values) - array.null_count
    assert of(agg.count(), array).as_py() == len(values)
    if pa.types.is_integer(kind):
        got = of(agg.sum("x"), array)
        assert got.type == pa.int64()
        assert got.as_py() == pc.sum(array).as_py()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=25))
def test_std_agrees_with_numpy_and_needs_two_values(values: list[float | None]) -> None:
    present = [v for v in values if v is not None]
    got = of(agg.std("x"), pa.array(values, pa.float64())).as_py()
    if len(present) < 2:
        assert got is None
    else:
        assert got == pytest.approx(float(np.std(present, ddof=1)), rel=1e-9, abs=1e-7)


def test_std_keeps_its_digits_far_from_zero() -> None:
    assert of(agg.std("x"), pa.array([1e9 + 1, 1e9 + 2, 1e9 + 3])).as_py() == 1.0


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.uint64(), [2**64 - 1, 1, 2**63]),
        (pa.int64(), [-(2**63), 2**63 - 1, 0]),
        (pa.uint8(), [255, 0, 7]),
        (pa.bool_(), [True, False, True]),
        (pa.date32(), [date(2024, 1, 1), date(1969, 12, 31), date(2000, 2, 29)]),
    ],
)
def test_extremes_and_edges_keep_every_bit_of_the_type(kind: pa.DataType, values: list[Any]) -> None:
    array = pa.array(values, kind)
    for aggregate, expected in (
        (agg.min("x"), min(values)),
        (agg.max("x"), max(values)),
        (agg.first("x"), values[0]),
        (agg.last("x"), values[-1]),
    ):
        got = of(aggregate, array)
        assert got.type == kind
        assert got.as_py() == expected


@pytest.mark.parametrize(
    "array",
    [
        pa.array([b"abc", None, b"xyz"], pa.binary(3)),
        pa.array([[1.5, 2.5], None, [3.5, 4.5]], pa.list_(pa.float32(), 2)),
        pa.ExtensionArray.from_storage(
            tensor_type(pa.int16(), (2, 2)),
            pa.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]], pa.list_(pa.int16(), 4)),
        ),
        pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), pa.array(["b", "a"])),
        pa.array([1.25, None, 2.5], pa.float16()),
    ],
    ids=lambda array: str(array.type),
)
def test_first_and_last_take_any_fixed_width_row_and_skip_nulls(array: pa.Array) -> None:
    plain = array.storage if isinstance(array, pa.ExtensionArray) else array
    for at, aggregate in ((0, agg.first("x")), (2, agg.last("x"))):
        got = of(aggregate, array, sizes=1)
        assert got.type == array.type
        value = got.value if isinstance(got, pa.ExtensionScalar) else got
        assert value.as_py() == plain[at].as_py()
    nothing = array.slice(1, 1)
    if nothing.null_count:
        assert of(agg.last("x"), nothing).as_py() is None


def test_first_and_last_go_by_event_time_then_row_order() -> None:
    values = pa.array([10, 20, 30, 40, 50])
    times = [5, 3, 9, 3, 9]
    assert of(agg.first("x"), values, times=times).as_py() == 20
    assert of(agg.last("x"), values, times=times).as_py() == 50


@pytest.mark.parametrize(
    "array", [pa.array([2**63 - 1, 1]), pa.array([-(2**63), -1]), pa.array([2**63, 0], pa.uint64())]
)
def test_an_integer_sum_that_leaves_int64_is_an_error_not_a_wrap(array: pa.Array) -> None:
    with pytest.raises(RunError, match=r"'window-under-test'.*'x'.*cast the column to float64"):
        of(agg.sum("x"), array)


def test_merging_two_sessions_can_overflow_too() -> None:
    batch = events([0, 15, 8], x=pa.array([2**63 - 1, 1, 0]))
    with pytest.raises(RunError, match="does not fit int64"):
        run_operator(Window(Session(10), {"out": agg.sum("x")}), batch)


@pytest.mark.parametrize(
    ("aggregate", "column", "words"),
    [
        (agg.sum("y"), pa.array([1]), "no such column"),
        (agg.count("y"), pa.array([1]), "no such column"),
        (agg.sum("x"), pa.array(["a"]), "needs numbers"),
        (agg.mean("x"), pa.array([0], pa.timestamp("ns", "UTC")), "needs numbers"),
        (agg.std("x"), pa.array([b"a"], pa.binary(1)), "needs numbers"),
        (agg.min("x"), pa.array(["a"]), "needs values with an order"),
        (agg.max("x"), pa.array(["a"]).dictionary_encode(), "needs values with an order"),
        (agg.first("x"), pa.array(["a"]), "dictionary-encode text"),
        (agg.last("x"), pa.array([[1]]), "fixed number of bytes"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_when_the_graph_is_built(
    aggregate: agg.Aggregate, column: pa.Array, words: str
) -> None:
    with pytest.raises(GraphError, match=words):
        Window(Tumbling("1s"), {"out": aggregate}).output_schema(events([0], x=column).schema)


def test_aggregates_are_values_that_pickle() -> None:
    assert pickle.loads(pickle.dumps(agg.sum("size"))) == agg.sum("size")
    assert agg.min("x") != agg.max("x")
    assert agg.first("x") != agg.last("x")
