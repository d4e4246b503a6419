"""The harness itself: it must see what it claims to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import (
    assert_boundaries_do_not_matter,
    assert_restorable,
    assert_same_rows,
    decode_state,
    digest,
    encode_state,
    event_times,
    events,
    run_operator,
)
from penstock.pipeline.columns import event_ns
from penstock.pipeline.context import Context
from penstock.pipeline.operator import Operator, OperatorSpec


@dataclass(frozen=True)
class Running(OperatorSpec):
    """Running row number in a column; `fault` names the mistake it makes."""

    fault: str = ""
    kind: ClassVar[str] = "running"

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        return inputs[0].append(pa.field("count", pa.int64()))

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Running(self)


class _Running(Operator):
    def __init__(self, spec: Running) -> None:
        self.spec = spec
        self.total = np.zeros(1, np.int64)

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        numbers = np.arange(batch.num_rows) + (0 if self.spec.fault == "per batch" else int(self.total[0]))
        self.total += batch.num_rows
        if self.spec.fault == "schema":
            return [batch]
        return [batch.append_column(pa.field("count", pa.int64()), pa.array(numbers))]

    def watermark(self) -> int | None:
        return 10**15 if self.spec.fault == "eager watermark" else None

    def snapshot(self) -> Mapping[str, Any]:
        if self.spec.fault == "forgets":
            return {}
        if self.spec.fault == "numpy scalar":
            return {"total": self.total[0]}
        return {"total": self.total if self.spec.fault == "aliased" else self.total.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state:
            self.total[:] = state["total"]


FIVE = [events([10, 20, 30]), events([40, 50], first_seq=3)]


def test_a_true_operator_passes_and_its_rows_come_out() -> None:
    result = assert_restorable(Running(), FIVE)
    assert result.rows["count"].to_pylist() == [0, 1, 2, 3, 4]
    assert result.sizes == [3, 2]
    assert result.watermarks == [30, 50, (1 << 63) - 1]


@settings(deadline=None)
@given(event_times(), st.data())
def test_boundaries_do_not_matter_to_a_true_operator(times: list[int], data: st.DataObject) -> None:
    assert_boundaries_do_not_matter(Running(), events(times), data=data)


@pytest.mark.parametrize("fault", ["forgets", "aliased"])
def test_a_snapshot_that_forgets_or_changes_later_is_found(fault: str) -> None:
    with pytest.raises(AssertionError):
        assert_restorable(Running(fault), FIVE)


def test_state_that_is_not_plain_data_is_refused_with_its_path() -> None:
    with pytest.raises(TypeError, match=r"state\['total'\] is a int64"):
        assert_restorable(Running("numpy scalar"), FIVE)
    with pytest.raises(TypeError, match="tuple"):
        encode_state({"a": [(1, 2)]})
    with pytest.raises(TypeError, match="keys of a state are str"):
        encode_state({"a": {1: 2}})
    with pytest.raises(TypeError, match="array of object"):
        encode_state({"a": np.array([object()])})


@pytest.mark.parametrize("fault", ["schema", "eager watermark"])
def test_a_broken_contract_is_found(fault: str) -> None:
    with pytest.raises(AssertionError):
        run_operator(Running(fault), FIVE)


def test_dependence_on_batches_is_found() -> None:
    whole = run_operator(Running("per batch"), FIVE, cuts=[[]])
    cut = run_operator(Running("per batch"), FIVE, sizes=2)
    with pytest.raises(AssertionError, match="row 2, column 'count': expected 2, got 0"):
        assert_same_rows(whole.rows, cut.rows)


def test_a_default_gate_trails_by_the_disorder_of_the_rows() -> None:
    result = run_operator(Running(), [events([100, 95, 120]), events([113])])
    assert result.watermarks[:-1] == [120 - 7]


def test_steps_follow_the_order_asked_for() -> None:
    seen: list[int] = []

    @dataclass(frozen=True)
    class Spy(Running):
        def open(self, context: Context, *inputs: pa.Schema) -> Operator:
            return _Spy(self)

    class _Spy(_Running):
        def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
            seen.extend([port] * batch.num_rows)
            return super().process(batch, port)

    for order in ("port by port", "last port first", [1, 0, 1], "round robin"):
        run_operator(Spy(), events([1, 2]), events([3, 4]), sizes=1, interleave=order)
    assert seen == [*(0, 0, 1, 1), *(1, 1, 0, 0), *(1, 0, 1, 0), *(0, 1, 0, 1)]


def test_state_survives_encoding() -> None:
    batch = events([1, 2, 3], key=pa.array(["a", None, "b"]).dictionary_encode(), x=[[1.5], [], None])
    state = {
        "nested": {"list": [1, "two", 3.5, None, True, float("inf"), -(1 << 63)], "bytes": b"\x00\xff"},
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "batch": batch.slice(1),
        "none": batch.slice(0, 0),
        "table": pa.Table.from_batches([batch, batch]),
        "column": batch["key"],
        "chunked": pa.chunked_array([[1, 2], [3]]),
        "schema": batch.schema,
    }
    back = decode_state(encode_state(state))
    assert back["nested"] == state["nested"]
    assert np.array_equal(back["array"], state["array"]) and back["array"].dtype == np.int16
    assert back["batch"].equals(batch.slice(1)) and isinstance(back["none"], pa.RecordBatch)
    assert back["table"].equals(state["table"]) and back["chunked"].equals(state["chunked"])
    assert back["column"].equals(batch["key"]) and back["schema"].equals(batch.schema)


def test_digest_sees_values_and_not_layout() -> None:
    a = events([1, 2, 3], key=pa.array(["x", "y", "x"]).dictionary_encode(), v=[1.0, float("nan"), None])
    b = events(
        [1, 2, 3],
        key=pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.int32()), pa.array(["y", "x"])),
        v=[1.0, float("nan"), None],
    )
    split = pa.Table.from_batches([b.slice(0, 1), b.slice(1)])
    assert digest(pa.Table.from_batches([a])) == digest(split)
    assert_same_rows(pa.Table.from_batches([a]), split)
    changed = events([1, 2, 3], key=a["key"], v=[1.0, float("nan"), 0.0])
    assert digest(pa.Table.from_batches([changed])) != digest(split)
    assert event_ns(a).tolist() == [1, 2, 3]
