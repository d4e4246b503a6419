"""Batches whose composition depends on the rows alone.

Each closing rule looks at the row sequence: a batch ends after `rows` rows, before the row that would make it larger than
`max_bytes`, and before the first row whose event time is `max_age` or more after that of the batch's *first* row. The
last rule is what lets a watermark close a batch early: once ``w >= first + max_age``, every row that can still come has
``ts_event >= w`` and would end the batch anyway, whatever the disorder of the stream. So watermarks decide how soon a
batch leaves, never what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..pipeline.columns import event_ns, numpy_layout
from ..pipeline.context import Context
from ..pipeline.duration import nanoseconds
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec, State
from ..pipeline.registry import supplies
from ..pipeline.schema import check_event_schema, row_bytes
from ._rows import Gatherer, Ints, Piece, rewrap

__all__ = ["Batch", "row_sizes"]

_LEAST_LIMIT = 64 << 20


@supplies("batch")
@dataclass(frozen=True)
class Batch(OperatorSpec):
    """Re-batch into batches of `rows` rows, closed earlier by `max_bytes` or by `max_age_ns` in event time.

    The size of a row is that of `row_sizes`; a row larger than `max_bytes` is a batch of its own. `max_age_ns` is an
    integer of ns or a text such as ``"40ms"``. The last batch may be shorter. Batches that lie inside one input batch
    are slices; others are copied once, fixed-width columns into one block. StateLimitError if the rows of an open batch
    are larger than `state_limit` (default: `max_bytes`, or what `rows` rows take, at least 64 MiB where a column has no
    fixed width).
    """

    rows: int
    max_bytes: int | None = None
    max_age_ns: int | None = None
    state_limit: int | None = None
    kind: ClassVar[str] = "batch"
    light: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("rows", "max_bytes", "state_limit"):
            value = getattr(self, name)
            if value is None and name != "rows":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number above 0")
        if self.max_age_ns is not None:
            object.__setattr__(self, "max_age_ns", nanoseconds(self.max_age_ns))
            if not self.max_age_ns:
                raise ValueError("max_age=0 would close every batch after its first row; write rows=1 for that")

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        """The input's schema, which must start with the event columns; GraphError otherwise."""
        if len(inputs) != 1:
            raise GraphError("a batch step has one input", expected=1, got=len(inputs))
        if (problem := check_event_schema(inputs[0])) is not None:
            raise GraphError(f"a batch step needs event time: {problem}")
        if self.max_bytes is not None or not _fixed(inputs[0]):
            for field in inputs[0]:
                try:
                    _sizes(pa.array([], field.type))
                except TypeError as error:
                    raise GraphError(f"rows cannot be measured: column {field.name!r}: {error}") from None
        return inputs[0]

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Batch(self, context, inputs[0], self.state_bound(*inputs))

    def state_bound(self, *inputs: pa.Schema) -> int:
        if self.state_limit is not None:
            return self.state_limit
        if self.max_bytes is not None:
            return self.max_bytes
        expected = self.rows * row_bytes(inputs[0])
        return expected if _fixed(inputs[0]) else max(_LEAST_LIMIT, expected)

    def passes_row_work(self) -> bool:
        return self.max_bytes is None

    def cause(self) -> str:
        return "batch fill"


class _Batch(Operator):
    def __init__(self, spec: Batch, context: Context, schema: pa.Schema, limit: int) -> None:
        self._spec, self._context, self._schema, self._limit = spec, context, schema, limit
        self._gatherer = Gatherer(context)
        self._measured = spec.max_bytes is not None or not _fixed(schema)
        self._row_bytes = 0 if self._measured else row_bytes(schema)
        self._watermark = NO_TIME
        self._clear()

    def _clear(self) -> None:
        self._open: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0
        self._first = NO_TIME
        self._oldest = END_OF_TIME

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        if not batch.num_rows:
            return ()
        times = event_ns(batch)
        ends = np.concatenate([[0], np.cumsum(row_sizes(batch))]) if self._measured else None
        done: list[pa.RecordBatch] = []
        start = 0
        while start < batch.num_rows:
            stop, full = self._fit(times, ends, start)
            if stop > start:
                nbytes = (stop - start) * self._row_bytes if ends is None else int(ends[stop] - ends[start])
                self._add(batch, times, start, stop, nbytes)
            if full:
                done.append(self._close())
            start = stop
        self._account()
        return done

    def _fit(self, times: Ints, ends: Ints | None, start: int) -> tuple[int, bool]:
        """How far the open batch reaches into this one, and whether it is then known to be complete.

        ``ends[i]`` is the size of the first i rows.
        """
        spec = self._spec
        stop, full = min(len(times), start + spec.rows - self._rows), False
        if spec.max_bytes is not None and ends is not None:
            room = spec.max_bytes - self._bytes + int(ends[start])
            fits = int(np.searchsorted(ends, room, "right")) - 1
            if fits < stop:
                stop, full = max(fits, start if self._rows else start + 1), True
        if spec.max_age_ns is not None and stop > start:
            first = self._first if self._rows else int(times[start])
            limit = first + spec.max_age_ns
            if limit <= END_OF_TIME:
                aged = times[start:stop] >= limit
                cut = start + int(aged.argmax())
                if aged[cut - start]:
                    stop, full = cut, True
        return stop, full or self._rows + stop - start == spec.rows

    def _add(self, batch: pa.RecordBatch, times: Ints, start: int, stop: int, nbytes: int) -> None:
        if not self._rows:
            self._first = int(times[start])
        self._oldest = min(self._oldest, int(times[start:stop].min()))
        self._open.append(batch if stop - start == batch.num_rows else batch.slice(start, stop - start))
        self._rows += stop - start
        self._bytes += nbytes

    def _close(self) -> pa.RecordBatch:
        pieces, rows = self._open, self._rows
        self._clear()
        if len(pieces) == 1:
            return rewrap(pieces[0], self._schema)
        placed, start = [], 0
        for piece in pieces:
            placed.append(Piece(piece, None, slice(start, start + piece.num_rows)))
            start += piece.num_rows
        return self._gatherer.gather(self._schema, placed, rows)

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        self._watermark = watermark
        age = self._spec.max_age_ns
        if not self._rows or age is None or watermark < self._first + age:
            return ()
        done = [self._close()]
        self._account()
        return done

    def watermark(self) -> int:
        return min(self._watermark, self._oldest)

    def finish(self) -> Sequence[pa.RecordBatch]:
        done = [self._close()] if self._rows else []
        self._account()
        return done

    def _account(self) -> None:
        self._context.metrics.state_bytes = self._bytes
        if self._bytes > self._limit:
            raise StateLimitError(
                f"step {self._context.step!r} holds {self._rows} rows of {self._bytes} bytes in an open batch of "
                f"{self._spec.rows}, more than state_limit={self._limit}: lower rows, set max_bytes or max_age, drop "
                "columns that the batch does not need, or raise state_limit"
            )

    def snapshot(self) -> State:
        return {"open": list(self._open), "watermark": self._watermark}

    def restore(self, state: State) -> None:
        for batch in state["open"]:
            nbytes = int(row_sizes(batch).sum()) if self._measured else batch.num_rows * self._row_bytes
            self._add(batch, event_ns(batch), 0, batch.num_rows, nbytes)
        self._watermark = state["watermark"]
        self._account()


def row_sizes(batch: pa.RecordBatch) -> Ints:
    """Bytes of each row, the same whatever batch the row lies in.

    Fixed-width values count their width (booleans 1), text, binary and lists their offset and their content (none where
    null), structs the sum of their fields, dictionaries their index. Validity bits count nothing.
    """
    total = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        total += _sizes(column)
    return total


def _sizes(array: pa.Array) -> int | Ints:
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _sizes(array.storage)
    if pa.types.is_dictionary(kind):
        return int(kind.index_type.bit_width // 8)
    if pa.types.is_null(kind):
        return 0
    if pa.types.is_boolean(kind):
        return 1
    if pa.types.is_struct(kind):
        fields: list[Any] = [_sizes(array.field(i)) for i in range(kind.num_fields)]
        return sum(fields) if fields else 0
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) or pa.types.is_large_list(kind)
    if wide or pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_list(kind):
        return _variable(array, 8 if wide else 4)
    if pa.types.is_fixed_size_list(kind):
        inner = _sizes(array.flatten()) if numpy_layout(kind) is None else None
        if inner is None or isinstance(inner, int):
            return int(kind.list_size * (_sizes(pa.array([], kind.value_type)) if inner is None else inner))
        raise TypeError(f"{kind} has values without a fixed width; use a list instead")
    try:
        return int(kind.bit_width // 8)
    except ValueError:
        raise TypeError(f"the size of {kind} is not known; cast it to a plain type first") from None


def _variable(array: pa.Array, offset_bytes: int) -> Ints:
    nested = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    if not len(array):
        return np.empty(0, np.int64)
    if nested:
        bounds = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        inner = _sizes(array.values)
        ends = bounds * inner if isinstance(inner, int) else np.concatenate([[0], np.cumsum(inner)])[bounds]
    else:
        dtype = np.int64 if offset_bytes == 8 else np.int32
        view = np.frombuffer(array.buffers()[1], dtype, count=len(array) + 1, offset=array.offset * offset_bytes)
        ends = view.astype(np.int64)
    content = ends[1:] - ends[:-1]
    if array.null_count:
        content = np.where(array.is_valid().to_numpy(zero_copy_only=False), content, 0)
    sizes: Ints = content + offset_bytes
    return sizes


def _fixed(schema: pa.Schema) -> bool:
    return all(numpy_layout(field.type) is not None or pa.types.is_boolean(field.type) for field in schema)
