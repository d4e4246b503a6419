"""Windows in event time: rows are grouped by key and stretch of time, and leave when the watermark has passed it.

    per_second = ops.Window(ops.Tumbling("1s"), {"volume": agg.sum("size")}, keys=("symbol",))

A window is ``[start, end)``. Its row leaves when no row before `end` can come any more, and carries `end` as its event
time: that is when its contents were known. Rows leave ordered by (end, start, key by value), whatever the granularity of
watermarks and wherever batches were cut, and floating-point sums are taken in row order for the same reason. Sliding
windows add up panes (see `_window_state`) instead of adding each row to every window that covers it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.context import Context
from ..pipeline.duration import Duration, nanoseconds, readable_duration
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec, State
from ..pipeline.partition import Partitioned
from ..pipeline.registry import supplies
from ..pipeline.schema import EVENT_FIELDS, TIMESTAMP, check_event_schema
from .aggregates import Aggregate
from .aggregates import max as largest
from .keys import KeyIndex, check_key_type

if TYPE_CHECKING:
    from ._accumulators import Accumulator
    from ._window_state import Closed, WindowState

__all__ = ["Assigner", "Session", "Sliding", "Tumbling", "Window"]

Ints = npt.NDArray[np.int64]

_OUTPUT_ROWS = 1 << 16
_RESERVED = (*(f.name for f in EVENT_FIELDS), "window_start", "window_end")


class Assigner(ABC):
    """Which windows a row belongs to."""

    @property
    @abstractmethod
    def margin(self) -> int:
        """How far (ns) from the ends of representable time rows must stay, so that window bounds do not overflow."""

    @abstractmethod
    def open(
        self, accumulators: Sequence[Accumulator], fits: Callable[[int], bool], refuse: Callable[[int], None]
    ) -> WindowState:
        """Empty state."""


@dataclass(frozen=True, slots=True)
class Tumbling(Assigner):
    """Windows of `size`, one behind the other, from the Unix epoch + `offset` (also backwards)."""

    size: Duration
    offset: Duration = 0

    def __post_init__(self) -> None:
        _positive("Tumbling", "size", self.size)
        _duration("Tumbling", "offset", self.offset)

    @property
    def margin(self) -> int:
        return 2 * nanoseconds(self.size)

    def open(
        self, accumulators: Sequence[Accumulator], fits: Callable[[int], bool], refuse: Callable[[int], None]
    ) -> WindowState:
        from ._window_state import Panes

        size = nanoseconds(self.size)
        return Panes(size, size, nanoseconds(self.offset) % size, accumulators, fits, refuse)


@dataclass(frozen=True, slots=True)
class Sliding(Assigner):
    """Windows of `size`, one starting at every multiple of `every` from the Unix epoch + `offset`; they overlap."""

    size: Duration
    every: Duration
    offset: Duration = 0

    def __post_init__(self) -> None:
        size = _positive("Sliding", "size", self.size)
        every = _positive("Sliding", "every", self.every)
        _duration("Sliding", "offset", self.offset)
        if every > size:
            raise GraphError(
                f"Sliding(size={self.size!r}, every={self.every!r}) would skip the rows between windows; "
                f"use every <= {readable_duration(size)}, or filter first"
            )

    @property
    def margin(self) -> int:
        return nanoseconds(self.size) + 2 * nanoseconds(self.every)

    def open(
        self, accumulators: Sequence[Accumulator], fits: Callable[[int], bool], refuse: Callable[[int], None]
    ) -> WindowState:
        from ._window_state import Panes

        every = nanoseconds(self.every)
        return Panes(nanoseconds(self.size), every, nanoseconds(self.offset) % every, accumulators, fits, refuse)


@dataclass(frozen=True, slots=True)
class Session(Assigner):
    """Rows of a key with less than `gap` between neighbours: from the first row to the last one + `gap`."""

    gap: Duration

    def __post_init__(self) -> None:
        _positive("Session", "gap", self.gap)

    @property
    def margin(self) -> int:
        return nanoseconds(self.gap)

    def open(
        self, accumulators: Sequence[Accumulator], fits: Callable[[int], bool], refuse: Callable[[int], None]
    ) -> WindowState:
        from ._session_state import Sessions

        return Sessions(nanoseconds(self.gap), accumulators, fits, refuse)


@supplies("window")
@dataclass(frozen=True)
class Window(OperatorSpec):
    """Aggregates of each window, per key (all rows together without `keys`).

    Rows out: `ts_event` (the window's end), `ts_recv` (the latest of the window's rows), `seq` (counts rows out), the key
    columns, `window_start`, `window_end`, then `aggregates` by name. A window without rows has no row.

    Rows all of whose windows have closed are counted as late and leave on the side output ``late``; a sliding window
    that is still open takes the row. Raises StateLimitError, naming the step, when open windows need more than
    `state_limit` bytes.
    """

    assigner: Assigner
    aggregates: Mapping[str, Aggregate] = field(hash=False)
    keys: tuple[str, ...] = ()
    state_limit: int = 64 << 20

    kind: ClassVar[str] = "window"
    event_time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "aggregates", dict(self.aggregates))
        object.__setattr__(self, "keys", (self.keys,) if isinstance(self.keys, str) else tuple(self.keys))
        if not isinstance(self.assigner, Assigner):
            raise GraphError(
                "a window needs to know its spans", expected="Tumbling, Sliding or Session", got=repr(self.assigner)
            )
        if not self.aggregates:
            raise GraphError("a window needs something to compute, such as {'rows': agg.count()}")
        for name, aggregate in self.aggregates.items():
            if not isinstance(aggregate, Aggregate):
                raise GraphError(
                    f"aggregate {name!r} is not one", expected="for example agg.sum('size')", got=repr(aggregate)
                )
        names = [*_RESERVED, *self.keys, *self.aggregates]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise GraphError(f"two output columns would be called {repeated[0]!r}; rename the aggregate or the key")
        if self.state_limit <= 0:
            raise GraphError(f"state_limit must be positive, got {self.state_limit}")

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        """Raises GraphError if the input lacks a key or a column to aggregate, or its type does not fit."""
        (schema,) = inputs
        if (problem := check_event_schema(schema)) is not None:
            raise GraphError(f"a window needs event time: {problem}")
        for name in self.keys:
            if schema.get_field_index(name) < 0:
                raise GraphError(f"no key column {name!r}", expected=f"one of {', '.join(schema.names)}")
            check_key_type(name, schema.field(name).type)
        keys = [schema.field(name) for name in self.keys]
        bounds = [pa.field(name, TIMESTAMP, nullable=False) for name in ("window_start", "window_end")]
        values = [aggregate.output(schema).with_name(name) for name, aggregate in self.aggregates.items()]
        return pa.schema([*EVENT_FIELDS, *keys, *bounds, *values], metadata=schema.metadata)

    def side_outputs(self, *inputs: pa.Schema) -> Mapping[str, pa.Schema]:
        return {"late": inputs[0]}

    def state_bound(self, *inputs: pa.Schema) -> int:
        return self.state_limit

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Windows(self, context, inputs[0], self.output_schema(*inputs))

    def partitioned(self, *inputs: pa.Schema) -> Partitioned | None:
        """By the key columns. None without keys, for assigners from elsewhere, and if an aggregate reads `seq`.

        Late rows find their place in the input again by a number that travels as their `seq`, see `Partitioned`.
        """
        from ._window_parts import WindowParts

        reads = [getattr(aggregate, "column", "seq") for aggregate in self.aggregates.values()]
        if not self.keys or "seq" in reads or not isinstance(self.assigner, Tumbling | Sliding | Session):
            return None
        span = "first" if isinstance(self.assigner, Session) else "pane"
        return WindowParts(self.keys, span, self.output_schema(*inputs), inputs[0])


class _Windows(Operator):
    def __init__(self, spec: Window, context: Context, schema: pa.Schema, output: pa.Schema) -> None:
        self._context, self._limit, self._output = context, spec.state_limit, output
        self._margin = spec.assigner.margin
        self._key_columns = [schema.get_field_index(name) for name in spec.keys]
        self._keys = KeyIndex([schema.field(name).type for name in spec.keys]) if spec.keys else None
        # the latest capture time first, then what the user asked for
        aggregates = [largest("ts_recv"), *spec.aggregates.values()]
        accumulators = [aggregate.open(schema, context.step) for aggregate in aggregates]
        self._state = spec.assigner.open(accumulators, self._fits, self._refuse)
        self._watermark = NO_TIME
        self._seq = 0

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        from ._inputs import Inputs

        batch = self._representable(batch)
        if not batch.num_rows:
            return ()
        times = event_ns(batch)
        if self._keys is None:
            keys, key_count = np.zeros(batch.num_rows, np.int64), 1
        else:
            keys = self._keys.ids([batch.column(i) for i in self._key_columns])
            key_count = len(self._keys)
        slots = self._state.add(times, keys, key_count, Inputs(batch), self._watermark)
        late = slots < 0
        if late.any():
            self._context.metrics.late_rows += int(np.count_nonzero(late))
            self._context.side("late", batch.filter(pa.array(late)))
        self._account()
        return ()

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        if watermark <= self._watermark:
            return ()
        out = [batch for closed in self._state.close(self._watermark, watermark) for batch in self._emit(closed)]
        self._watermark = watermark
        if out:
            self._account()
        return out

    def snapshot(self) -> State:
        keys = {} if self._keys is None else self._keys.snapshot()
        return {"watermark": self._watermark, "seq": self._seq, "keys": keys, "windows": self._state.save()}

    def restore(self, state: State) -> None:
        self._watermark, self._seq = state["watermark"], state["seq"]
        if self._keys is not None:
            self._keys.restore(state["keys"])
        self._state.load(state["windows"])
        self._account()

    def _emit(self, closed: Closed) -> list[pa.RecordBatch]:
        ranks = [] if self._keys is None else self._keys.order(closed.keys)
        order = np.lexsort((*reversed(ranks), closed.starts, closed.ends))
        slots = closed.slots[order]
        received, *results = [accumulator.result(slots) for accumulator in closed.accumulators]
        ends = _timestamps(closed.ends[order])
        numbers = np.arange(self._seq, self._seq + order.size, dtype=np.uint64)
        self._seq += order.size
        keys = [] if self._keys is None else self._keys.arrays(closed.keys[order])
        columns = [ends, received, pa.array(numbers), *keys, _timestamps(closed.starts[order]), ends, *results]
        whole = pa.RecordBatch.from_arrays(columns, schema=self._output)
        return [whole.slice(start, _OUTPUT_ROWS) for start in range(0, order.size, _OUTPUT_ROWS)]

    def _representable(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Without the rows so near the ends of time that a window bound would overflow."""
        times = event_ns(batch)
        low, high = NO_TIME + self._margin, END_OF_TIME - self._margin
        if not times.size or (times.min() >= low and times.max() <= high):
            return batch
        keep = (times >= low) & (times <= high)
        self._context.drop("ts_event out of range", int(np.count_nonzero(~keep)))
        return batch.filter(pa.array(keep))

    def _account(self) -> None:
        """Report the bytes held; forget keys without open windows before giving up."""
        if self._keys is not None and 4 * self._keys.nbytes > self._limit:
            live = np.unique(self._state.arrays["key"][self._state.live])
            if 2 * live.size < len(self._keys):
                self._state.renumber(self._keys.retain(live))
        held = self._state.nbytes
        if not self._fits(held):
            self._refuse(held)
        self._context.metrics.state_bytes = held + self._key_bytes

    @property
    def _key_bytes(self) -> int:
        return 0 if self._keys is None else self._keys.nbytes

    def _fits(self, windows: int) -> bool:
        return windows + self._key_bytes <= self._limit

    def _refuse(self, windows: int) -> None:
        raise StateLimitError(
            f"step {self._context.step!r}: {self._state.live.size} open windows of {len(self._keys or ())} keys need "
            f"{windows + self._key_bytes} bytes, more than state_limit={self._limit}; raise state_limit, or use shorter "
            "windows, coarser keys or a smaller lateness"
        )


def _timestamps(values: Ints) -> pa.Array:
    return pa.array(values).view(TIMESTAMP)


def _duration(owner: str, name: str, value: Duration) -> int:
    try:
        return nanoseconds(value)
    except ValueError as error:
        raise GraphError(f"{owner}({name}={value!r}): {error}") from None


def _positive(owner: str, name: str, value: Duration) -> int:
    duration = _duration(owner, name, value)
    if duration == 0:
        raise GraphError(f"{owner}({name}={value!r}): must be longer than nothing")
    return duration
