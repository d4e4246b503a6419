"""The last hop: slots allocated once, decoded into, padded, reused; the model sees exactly the rows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from penstock import GraphError, models, ops, sinks, tensor_type
from penstock.models import TensorSpec
from penstock.pipeline.columns import ColumnBlock, as_numpy
from penstock.pipeline.context import Context
from penstock.pipeline.operator import Operator, OperatorSpec
from penstock.pipeline.slots import SlotRing
from streams import recording, source

TABLE = recording(5, 1_000)
PRICE = models.Simulator(service_time=0, inputs={"price": TensorSpec(pa.float64())})


@dataclass(frozen=True)
class Spread(OperatorSpec):
    """Writes price * [1, 2, 3] into a tensor column, in place where it may."""

    kind: ClassVar[str] = "spread"
    stateless: ClassVar[bool] = True
    deferrable: ClassVar[bool] = True

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        return inputs[0].append(pa.field("wide", tensor_type(pa.float64(), [3])))

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return SpreadOperator(context, self.output_schema(*inputs))


class SpreadOperator(Operator):
    def __init__(self, context: Context, schema: pa.Schema) -> None:
        self.context, self.schema = context, schema
        self.in_place = 0

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        rows, kind = batch.num_rows, self.schema.field("wide").type
        values = as_numpy(batch.column("price"))[:, None] * np.arange(1.0, 4.0)
        lease = self.context.allocate("wide", kind, rows) if self.context.allocate else None
        if lease is not None:
            lease.array(np.float64, (rows, 3))[:] = values
            leaf = pa.Array.from_buffers(pa.float64(), rows * 3, [None, lease.buffer(0, rows * 24)])
            storage = pa.Array.from_buffers(kind.storage_type, rows, [None], children=[leaf])
            column = pa.ExtensionArray.from_storage(kind, storage)
        else:
            block = ColumnBlock(self.context.pool, pa.schema([self.schema.field("wide")]), rows)
            block["wide"][:] = values
            column = block.batch(rows).column(0)
        return (pa.RecordBatch.from_arrays([*batch.columns, column], schema=self.schema),)


WIDE = models.Simulator(
    service_time=0, inputs={"wide": TensorSpec(pa.float64(), (3,))}, outputs={"score": TensorSpec(pa.float64())}
)


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_every_row_reaches_the_model_once_and_in_order(runner: str) -> None:
    stream = source(TABLE, 97).batch(64).prefetch(depth=2).infer(PRICE)
    out = pa.Table.from_batches(list(stream.iterate(runner=runner)))
    assert np.array_equal(np.asarray(out["seq"]), np.arange(1_000))
    assert np.array_equal(np.asarray(out["score"]), np.asarray(TABLE["price"]))
    assert "price" not in out.column_names and "size" in out.column_names


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_columns_decoded_into_a_slot_are_not_copied(runner: str) -> None:
    stream = source(TABLE, 97).map(Spread()).batch(64).prefetch(depth=2).infer(WIDE)
    report = stream.write(sinks.Null()).run(runner=runner)
    assert report["stages"]["prefetch"]["bytes_copied"] == 0
    assert report["stages"]["spread"]["batches_in"] == 16  # it ran behind the batches, not before
    out = pa.Table.from_batches(list(stream.iterate(runner=runner)))
    assert np.allclose(np.asarray(out["score"]), np.asarray(TABLE["price"]) * 2)


@pytest.mark.parametrize("parallelism", [1, 2, 4])
@pytest.mark.parametrize("moved", [True, False], ids=["written before the batch", "written behind it"])
def test_however_many_threads_decode_each_batch_has_a_slot_of_its_own(parallelism: int, moved: bool) -> None:
    table = recording(5, 10_000)
    stream = source(table, 20)
    if moved:
        stream = stream.map(Spread(), parallelism=parallelism).batch(64)
    else:
        stream = stream.batch(64).map(Spread(), parallelism=parallelism)
    stream = stream.prefetch(depth=2).infer(WIDE)
    out = pa.Table.from_batches(list(stream.iterate(runner="local", parallelism=parallelism)))
    assert np.array_equal(np.asarray(out["seq"]), np.arange(10_000))
    assert np.allclose(np.asarray(out["score"]), np.asarray(table["price"]) * 2)


def test_two_threads_cannot_fill_one_slot() -> None:
    ring, stop = SlotRing({"a": TensorSpec(pa.uint8(), (3,))}, 5, 3), threading.Event()
    ring.reserve(stop)
    with ThreadPoolExecutor(1) as other, pytest.raises(RuntimeError, match="two threads are filling one slot"):
        other.submit(ring.reserve, stop).result()
    ring.fill()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(ring.reserve, stop).result() is ring.slots[1]


def test_kept_columns_are_copied_out_before_the_slot_is_used_again() -> None:
    stream = source(TABLE, 97).map(Spread()).batch(10).prefetch(depth=1).infer(WIDE, keep=["wide"])
    batches = list(stream)
    wide = np.concatenate([as_numpy(b.column("wide")) for b in batches])
    assert np.array_equal(wide, np.asarray(TABLE["price"])[:, None] * np.arange(1.0, 4.0))


def test_moving_a_step_behind_batch_changes_neither_rows_nor_columns() -> None:
    stream = source(TABLE, 97).map(Spread()).batch(64)
    moved = pa.Table.from_batches(list(stream))
    assert moved.schema.names == stream.schema.names
    assert "runs behind batch" in stream.explain()
    plain = pa.Table.from_batches(list(source(TABLE, 97).map(Spread())))
    assert moved.combine_chunks().equals(plain.combine_chunks())


def test_a_wrong_tensor_is_refused_with_both_types() -> None:
    with pytest.raises(GraphError, match=r"column 'price' does not fit.*price int64.*price double"):
        model = models.Simulator(service_time=0, inputs={"price": TensorSpec(pa.int64())})
        source(TABLE, 10).batch(8).infer(model)


def test_inputs_may_be_mapped_to_other_columns() -> None:
    model = models.Simulator(service_time=0, inputs={"x": TensorSpec(pa.float64())})
    out = pa.Table.from_batches(list(source(TABLE, 10).batch(8).infer(model, inputs={"x": "price"})))
    assert np.array_equal(np.asarray(out["score"]), np.asarray(TABLE["price"]))


def test_slots_are_aligned_and_the_ring_gives_each_back_in_turn() -> None:
    ring = SlotRing({"a": TensorSpec(pa.uint8(), (3,)), "b": TensorSpec(pa.float32())}, 5, 3)
    for slot in ring.slots:
        assert all(host.ctypes.data % 64 == 0 for host in slot.host.values())
    stop = threading.Event()
    first = ring.reserve(stop)
    assert ring.reserve(stop) is first and ring.fill() is first
    second = ring.reserve(stop)
    assert second is not first
    ring.fill()
    ring.reserve(stop)
    ring.fill()
    stop.set()
    assert ring.reserve(stop) is None  # none is free, and the run is stopping
    assert first is not None
    ring.release(first)
    assert ring.reserve(stop) is first


def test_a_model_that_returns_another_shape_than_it_declared_names_the_step() -> None:
    class Wrong(models.Executor):
        def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            return {"score": np.zeros(3)}

        def report(self) -> Mapping[str, Any]:
            return {}

    class WrongModel(models.ModelSpec):
        name, inputs, outputs = "wrong", PRICE.inputs, PRICE.outputs  # type: ignore[assignment]

        def open(self, context: Context, rows: int, calibration: Any = ()) -> models.Executor:
            return Wrong()

    with pytest.raises(Exception, match=r"step 'infer'.*shape \(3,\), declared is \(8,\)"):
        list(source(TABLE, 10).batch(8).infer(WrongModel()))


@pytest.mark.gpu
def test_on_a_gpu_the_slots_are_page_locked_and_the_rows_are_the_same() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ring = SlotRing({"a": TensorSpec(pa.float32(), (1024,))}, 64, 4, "cuda:0")
    stop, seen = threading.Event(), []
    for number in range(20):
        slot = ring.reserve(stop)
        assert slot is not None
        slot.host["a"][:] = number
        slot.send()
        ring.fill()
        slot.wait_arrived()
        seen.append(float(slot.device["a"].sum()))
        ring.release(slot)
    assert torch.from_numpy(ring.slots[0].memory).is_pinned()
    assert seen == [number * 64 * 1024.0 for number in range(20)]


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_a_calibrated_model_that_gets_no_batches_is_not_loaded_and_the_run_completes(runner: str) -> None:
    model = models.load("market", length=8, features=2, width=16, heads=2, layers=1, quantize="int8")

    def nothing(price: np.ndarray) -> np.ndarray:
        return price < 0

    stream = source(TABLE, 97).filter(nothing, inputs=["price"]).apply(ops.RollingSequence(("price", "size"), length=8))
    report = stream.batch(8).infer(model).write(sinks.Null()).run(runner=runner)
    assert report.rows == 0
    assert report["accelerator"]["model"]["loaded"].startswith("no:")
