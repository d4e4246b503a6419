"""Sequences for sequence models: the last rows of each key as one tensor.

books.apply(ops.RollingSequence(columns=("spread", "imbalance", "trade_sz"), length=32, key="symbol"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.columns import ColumnBlock, ColumnLayout, as_numpy
from ..pipeline.context import Context
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import Operator, OperatorSpec, State
from ..pipeline.partition import Partitioned, RowByRow, partition_of
from ..pipeline.schema import EVENT_FIELDS, check_event_schema, tensor_type
from ._key_columns import is_bytes

__all__ = ["RollingSequence"]

#: Bytes of an output batch at most (but one row at least).
_BATCH = 4 << 20
_NORMALIZE = (None, "window")


@dataclass(frozen=True)
class RollingSequence(OperatorSpec):
    """The last `length` rows of each key's `columns`, as ``fixed_shape_tensor<float32>[length, len(columns)]``.

    One row comes out for the `length`-th row of a key and every `every`-th after it: the event columns and the key of that
    row, and the tensor `output`, oldest row first. Rows before the first window of a key are counted as dropped,
    ``warming up``, and with ``every > 1`` those that complete no window as ``between windows``.

    `columns` are integers, floats or booleans; a null counts as 0. `normalize` ``"window"`` standardizes each column
    within each window: (x - mean) / standard deviation over its `length` rows, in float64 and in order, 0 where the
    column is constant. `key` is a dictionary or integer column (nulls are not allowed); keys are told apart by value,
    whatever their dictionary. More than `max_keys` different keys raise StateLimitError.
    """

    columns: tuple[str, ...]
    length: int = 32
    every: int = 1
    key: str = "symbol"
    output: str = "features"
    normalize: str | None = None
    max_keys: int = 65_536

    kind: ClassVar[str] = "sequence"

    def __post_init__(self) -> None:
        columns = (self.columns,) if isinstance(self.columns, str) else tuple(self.columns)
        object.__setattr__(self, "columns", columns)
        if not columns:
            raise GraphError("RollingSequence needs at least one column, for example columns=('mid', 'spread')")
        for name in ("length", "every", "max_keys"):
            if getattr(self, name) < 1:
                raise GraphError(f"RollingSequence: {name} must be at least 1, got {getattr(self, name)}")
        if self.normalize not in _NORMALIZE:
            raise GraphError(f"RollingSequence: normalize is None or 'window', got {self.normalize!r}")
        if self.output in (self.key, *(field.name for field in EVENT_FIELDS)):
            raise GraphError(f"RollingSequence: output={self.output!r} is the name of another output column")

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        if (problem := check_event_schema(schema)) is not None:
            raise GraphError(f"RollingSequence: {problem}")
        for name in (*self.columns, self.key):
            if schema.get_field_index(name) < 0:
                raise GraphError(
                    f"RollingSequence: no column {name!r}", expected="one of the input's", got=schema.names
                )
        for name in self.columns:
            kind = schema.field(name).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise GraphError(f"RollingSequence: column {name!r}", expected="integer, float or bool", got=kind)
        kind = schema.field(self.key).type
        if not (pa.types.is_integer(kind) or pa.types.is_dictionary(kind)):
            raise GraphError(f"RollingSequence: key {self.key!r}", expected="a dictionary or integer column", got=kind)
        tensor = tensor_type(pa.float32(), (self.length, len(self.columns)))
        key = schema.field(self.key)
        fields = [*EVENT_FIELDS, key, pa.field(self.output, tensor, nullable=False)]
        metadata: Any = schema.metadata
        return pa.schema(fields, metadata=metadata)

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Sequences(self, context, self.output_schema(*inputs))

    def state_bound(self, *inputs: pa.Schema) -> int:
        return 2 * self.max_keys * (8 * self.length * len(self.columns) + 8 + 256)

    def partitioned(self, *inputs: pa.Schema) -> Partitioned | None:
        """By the key. None if the tensor holds `seq`, which parts do not see, or for keys but integers, text and binary."""
        kind = inputs[0].field(self.key).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if "seq" in (self.key, *self.columns) or not (pa.types.is_integer(value) or is_bytes(value)):
            return None
        return _Divided(self.key, value, self.output_schema(*inputs))


class _Sequences(Operator):
    def __init__(self, spec: RollingSequence, context: Context, schema: pa.Schema) -> None:
        from . import _sequence_kernels

        self._kernels = _sequence_kernels
        self._spec, self._context, self._columns = spec, context, ColumnLayout(schema)
        self._slots: dict[Any, int] = {}
        self._rings: npt.NDArray[np.float64] = np.zeros((0, spec.length, len(spec.columns)))
        self._seen: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._dictionary: Any = None
        self._known: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._at_once = max(1, _BATCH // (4 * spec.length * len(spec.columns) + 32))

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        if batch.num_rows == 0:
            return ()
        spec = self._spec
        key: Any = batch.column(spec.key)
        if key.null_count:
            raise ValueError(f"RollingSequence: key {spec.key!r} has {key.null_count} nulls; filter them out first")
        slots = self._dictionary_slots(key) if pa.types.is_dictionary(key.type) else self._integer_slots(key)
        values = np.empty((len(spec.columns), batch.num_rows))
        for column, name in enumerate(spec.columns):
            values[column] = _numbers(batch.column(name))
        dropped = np.zeros(2, np.int64)
        batches = []
        at = 0
        while at < batch.num_rows:
            block = self._columns.take(self._context.pool, min(self._at_once, batch.num_rows - at))
            rows = np.empty(block.rows, np.int64)
            at, made = self._kernels.roll(
                at,
                slots,
                values,
                self._rings,
                self._seen,
                spec.every,
                spec.normalize is not None,
                block[spec.output],
                rows,
                dropped,
            )
            if made:
                batches.append(self._emit(batch, block, rows[:made]))
        self._context.drop("warming up", int(dropped[0]))
        self._context.drop("between windows", int(dropped[1]))
        self._context.metrics.state_bytes = self._rings.nbytes + self._seen.nbytes
        return batches

    def _emit(self, batch: pa.RecordBatch, block: ColumnBlock, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
        key: Any = batch.column(self._spec.key)
        for name in (*(field.name for field in EVENT_FIELDS), self._spec.key):
            np.take(as_numpy(batch.column(name)), rows, out=block[name][: len(rows)])
        named = {self._spec.key: key.dictionary} if pa.types.is_dictionary(key.type) else None
        return block.batch(len(rows), dictionaries=named)

    def _dictionary_slots(self, key: Any) -> npt.NDArray[np.int64]:
        indices = as_numpy(key)
        if self._dictionary is None or not _same_memory(self._dictionary, key.dictionary):
            self._dictionary = key.dictionary
            self._known = np.full(len(key.dictionary), -1, np.int64)
        used = np.zeros(len(self._known), np.uint8)
        self._kernels.mark(indices, used)
        fresh = np.flatnonzero((used == 1) & (self._known < 0))
        if len(fresh):
            values = self._dictionary.take(pa.array(fresh)).to_pylist()
            self._known[fresh] = [self._slot(value) for value in values]
            self._make_room()
        slots: npt.NDArray[np.int64] = self._known[indices]
        return slots

    def _integer_slots(self, key: Any) -> npt.NDArray[np.int64]:
        values, places = np.unique(as_numpy(key), return_inverse=True)
        slots = np.array([self._slot(value) for value in values.tolist()], np.int64)
        self._make_room()
        found: npt.NDArray[np.int64] = slots[places]
        return found

    def _slot(self, value: Any) -> int:
        slot = self._slots.get(value)
        if slot is None:
            slot = self._slots[value] = len(self._slots)
            if slot >= self._spec.max_keys:
                raise StateLimitError(
                    f"{self._context.step}: column {self._spec.key!r} has more than max_keys={self._spec.max_keys} "
                    "different values; raise it if memory allows"
                )
        return slot

    def _make_room(self) -> None:
        if len(self._slots) > len(self._seen):
            room = min(self._spec.max_keys, max(16, 2 * len(self._slots)))
            rings = np.zeros((room, *self._rings.shape[1:]))
            seen = np.zeros(room, np.int64)
            rings[: len(self._rings)] = self._rings
            seen[: len(self._seen)] = self._seen
            self._rings, self._seen = rings, seen

    def snapshot(self) -> State:
        count = len(self._slots)
        return {"keys": list(self._slots), "rings": self._rings[:count].copy(), "seen": self._seen[:count].copy()}

    def restore(self, state: State) -> None:
        self._slots = {value: slot for slot, value in enumerate(state["keys"])}
        self._rings = np.array(state["rings"], np.float64)
        self._seen = np.array(state["seen"], np.int64)
        self._dictionary = None


class _Divided(RowByRow):
    """Rings by key."""

    def __init__(self, key: str, kind: pa.DataType, schema: pa.Schema) -> None:
        super().__init__((key,), schema)
        self._kind = kind

    def split(self, state: Mapping[str, Any], parts: int) -> Sequence[Mapping[str, Any]]:
        part_of_key = partition_of([pa.array(state["keys"], self._kind)], parts)
        return [_picked(state, np.flatnonzero(part_of_key == part)) for part in range(parts)]

    def join(self, states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        rings, seen = (np.concatenate([state[name] for state in states]) for name in ("rings", "seen"))
        keys = [key for state in states for key in state["keys"]]
        by_value = sorted(range(len(keys)), key=keys.__getitem__)
        return _picked({"keys": keys, "rings": rings, "seen": seen}, np.array(by_value, np.int64))


def _picked(state: Mapping[str, Any], slots: npt.NDArray[np.int64]) -> dict[str, Any]:
    keys = state["keys"]
    return {"keys": [keys[slot] for slot in slots], "rings": state["rings"][slots], "seen": state["seen"][slots]}


def _numbers(column: Any) -> npt.NDArray[Any]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(0, column.type))
    return as_numpy(column)


def _same_memory(left: Any, right: Any) -> bool:
    """Whether two arrays are views of the same buffers. Safe because the first is still held."""
    if len(left) != len(right) or left.offset != right.offset or left.type != right.type:
        return False
    pairs = zip(left.buffers(), right.buffers(), strict=True)
    return all((a is None) == (b is None) and (a is None or a.address == b.address) for a, b in pairs)
