"""What runs at the last hop: filling slots, and feeding the executor from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .columns import as_numpy, numpy_layout
from .context import Context
from .errors import RunError
from .executor import Executor
from .hop import Infer
from .operator import Operator
from .slots import Slot, SlotRing

__all__ = ["Filled", "InferOperator", "NoBatches", "Pass", "PrefetchOperator", "calibration_inputs", "tensor_column"]


@dataclass(slots=True)
class Filled:
    """A batch on its way to the model: its tensors in `slot`, everything else in `rest`."""

    rest: pa.RecordBatch
    slot: Slot
    rows: int

    @property
    def num_rows(self) -> int:
        return self.rows

    @property
    def nbytes(self) -> int:
        return int(self.rest.nbytes)


class NoBatches(Executor):
    """Stands for a model that was not loaded: it wanted batches to be calibrated on, and the recording gives none."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        raise RunError(
            f"model {self._name!r} got a batch, but there was none to calibrate it on; read the recording again"
        )

    def report(self) -> Mapping[str, Any]:
        return {"model": self._name, "loaded": "no: the pipeline gave it no batches"}


class Pass(Operator):
    """A prefetch step without a model behind it: only its queue matters."""

    def process(self, batch: Any, port: int = 0) -> Sequence[Any]:
        return (batch,)


class PrefetchOperator(Operator):
    """Moves a batch's model inputs into a slot, unless they were decoded there, and starts the transfer."""

    def __init__(self, spec: Infer, ring: SlotRing, context: Context) -> None:
        self._spec, self._ring, self._context = spec, ring, context

    def process(self, batch: Any, port: int = 0) -> Sequence[Any]:
        rows = batch.num_rows
        if rows == 0:
            return ()
        if rows > self._spec.rows:
            raise RunError(
                f"step {self._context.step!r}: a batch of {rows} rows does not fit slots of {self._spec.rows}"
            )
        slot = self._ring.reserve(self._context.stop)
        if slot is None:
            return ()
        kept: dict[str, pa.Array] = {}
        for name, column in self._spec.columns.items():
            source = as_numpy(batch.column(column))
            target = slot.host[name]
            if not slot.holds(name, source):
                np.copyto(target[:rows], source)
                self._context.copied(source.nbytes)
            elif column in self._spec.keep:
                kept[column] = tensor_column(batch.schema.field(column).type, source.copy())
                self._context.copied(source.nbytes)
            if rows < self._spec.rows:
                target[rows:] = 0
        gone = self._spec.consumed()
        fields = [f for f in batch.schema if f.name not in gone]
        arrays = [kept[f.name] if f.name in kept else batch.column(f.name) for f in fields]
        rest = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, metadata=batch.schema.metadata))
        slot.send()
        return (Filled(rest, self._ring.fill(), rows),)


class InferOperator(Operator):
    """Runs the executor on a filled slot and gives the rows back with the model's outputs."""

    def __init__(self, spec: Infer, executor: Executor, ring: SlotRing, context: Context, schema: pa.Schema) -> None:
        self._spec, self._executor, self._ring, self._context = spec, executor, ring, context
        self._schema = schema

    def process(self, batch: Any, port: int = 0) -> Sequence[Any]:
        filled: Filled = batch
        filled.slot.wait_arrived()
        try:
            outputs = self._executor.run(filled.slot.device)
            columns = [
                self._column(name, self._executor.fetch(outputs[name]), filled.rows)
                for name in self._spec.model.outputs
            ]
        finally:
            self._ring.release(filled.slot)
        return (pa.RecordBatch.from_arrays([*filled.rest.columns, *columns], schema=self._schema),)

    def _column(self, name: str, value: npt.NDArray[Any], rows: int) -> pa.Array:
        spec = self._spec.model.outputs[name]
        expected = (self._spec.rows, *spec.shape)
        if value.shape != expected:
            raise RunError(
                f"step {self._context.step!r}: output {name!r} of model {self._spec.model.name!r} has shape {value.shape}, "
                f"declared is {expected}"
            )
        layout = numpy_layout(spec.arrow)
        dtype = value.dtype if layout is None else layout[0]
        # a copy of its own: an executor may reuse its output memory for the next batch
        return tensor_column(spec.arrow, np.array(value[:rows], dtype, order="C"))


def tensor_column(kind: pa.DataType, values: npt.NDArray[Any]) -> pa.Array:
    """A C-contiguous array ``(rows, *shape)`` as an Arrow column of `kind`, sharing its memory."""
    flat = values.reshape(-1)
    if not isinstance(kind, pa.FixedShapeTensorType):
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(flat)])
    leaf = pa.Array.from_buffers(kind.value_type, len(flat), [None, pa.py_buffer(flat)])
    storage = pa.Array.from_buffers(kind.storage_type, len(values), [None], children=[leaf])
    return pa.ExtensionArray.from_storage(kind, storage)


def calibration_inputs(spec: Infer, batch: pa.RecordBatch) -> Mapping[str, npt.NDArray[Any]]:
    """The model inputs of one batch, copied, for calibration before the slots exist."""
    return {name: np.array(as_numpy(batch.column(column))) for name, column in spec.columns.items()}
