"""Several streams of one schema as one, in event time.

Rows leave in the order (``ts_event``, port, arrival) once the watermarks of all ports have passed them, so the result is
the same however the ports were read. A port that lags holds all others back: that is the price of the order.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.context import Context
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec, State
from ..pipeline.registry import supplies
from ..pipeline.schema import check_event_schema, difference
from ._rows import Gatherer, Ints, Piece, is_sorted, rewrap

__all__ = ["Merge"]

#: Runs of rows from one batch that are at least this large on average leave as slices; smaller ones are copied together.
_RUN_BYTES = 64 << 10


@supplies("merge")
@dataclass(frozen=True)
class Merge(OperatorSpec):
    """All rows of all inputs, ordered by (``ts_event``, port, arrival).

    The inputs have the same columns and types; dictionary columns may differ in their values. `seq` is kept as it is, so
    it may repeat. StateLimitError if more than `state_limit` bytes wait for the slowest input.
    """

    state_limit: int = 64 << 20
    kind: ClassVar[str] = "merge"
    event_time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.state_limit <= 0:
            raise ValueError(f"{self.state_limit=} must be positive; it is the bytes that may wait")

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        """The common schema, with the metadata that all inputs agree on. Raises GraphError if they differ."""
        if len(inputs) < 2:
            raise GraphError("a merge has two inputs or more", expected=">= 2", got=len(inputs))
        for port, schema in enumerate(inputs):
            if (problem := check_event_schema(schema)) is not None:
                raise GraphError(f"a merge needs event time: input {port}: {problem}")
            if (problem := difference(inputs[0], schema)) is not None:
                raise GraphError(f"inputs of a merge have one schema, but input {port} differs from input 0: {problem}")
        fields = [
            field.with_nullable(any(schema.field(index).nullable for schema in inputs))
            for index, field in enumerate(inputs[0])
        ]
        shared = set.intersection(*(set((schema.metadata or {}).items()) for schema in inputs))
        return pa.schema(fields, metadata=dict(sorted(shared)))

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Merge(self, context, self.output_schema(*inputs), len(inputs))

    def state_bound(self, *inputs: pa.Schema) -> int:
        return self.state_limit

    def cause(self) -> str:
        return "sync"


#: A waiting batch: least event time, port, arrival number, the rows, their bytes.
_Waiting = tuple[int, int, int, pa.RecordBatch, int]


class _Merge(Operator):
    def __init__(self, spec: Merge, context: Context, schema: pa.Schema, ports: int) -> None:
        self._limit, self._context, self._schema = spec.state_limit, context, schema
        self._gatherer = Gatherer(context)
        self._watermarks = [NO_TIME] * ports
        self._waiting: list[_Waiting] = []
        self._arrivals = 0
        self._held = 0

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        if batch.num_rows:
            self._hold(rewrap(batch, self._schema), port, self._arrivals)
            self._arrivals += 1
            self._account()
        return ()

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        before = min(self._watermarks)
        self._watermarks[port] = watermark
        low = min(self._watermarks)
        if low == before:
            return ()
        ready: list[tuple[int, int, pa.RecordBatch, Ints | None, Ints]] = []
        while self._waiting and (self._waiting[0][0] < low or low == END_OF_TIME):
            _, port_of, arrival, batch, size = heapq.heappop(self._waiting)
            self._held -= size
            times = event_ns(batch)
            if low == END_OF_TIME or int(times.max()) < low:
                ready.append((port_of, arrival, batch, None, times))
                continue
            passed = times < low
            rows = np.flatnonzero(passed)
            ready.append((port_of, arrival, batch, rows, times[rows]))
            rest = len(rows)
            if rows[-1] + 1 == rest:
                self._hold(batch.slice(rest), port_of, arrival)
            else:
                self._hold(self._gatherer.select(batch, np.flatnonzero(~passed)), port_of, arrival)
        self._account()
        ready.sort(key=lambda item: item[:2])
        return self._merged([(batch, rows, times) for _, _, batch, rows, times in ready])

    def _merged(self, ready: Sequence[tuple[pa.RecordBatch, Ints | None, Ints]]) -> Sequence[pa.RecordBatch]:
        if not ready:
            return ()
        times = np.concatenate([ts for _, _, ts in ready]) if len(ready) > 1 else ready[0][2]
        sizes = [len(ts) for _, _, ts in ready]
        starts = np.cumsum([0, *sizes])
        order = np.arange(len(times)) if is_sorted(times) else np.argsort(times, kind="stable")
        owner = np.searchsorted(starts, order, "right") - 1
        local = order - starts[owner]
        for number, (_, rows, _) in enumerate(ready):
            if rows is not None:
                mine = owner == number
                local[mine] = rows[local[mine]]
        breaks = np.flatnonzero((owner[1:] != owner[:-1]) | (local[1:] != local[:-1] + 1)) + 1
        nbytes = sum(batch.nbytes * size // batch.num_rows for (batch, _, _), size in zip(ready, sizes, strict=True))
        if nbytes >= _RUN_BYTES * (len(breaks) + 1) or not len(breaks):
            bounds = [0, *breaks.tolist(), len(order)]
            return [
                ready[owner[start]][0].slice(int(local[start]), stop - start)
                for start, stop in itertools.pairwise(bounds)
            ]
        pieces = []
        for number, (batch, _, _) in enumerate(ready):
            into = np.flatnonzero(owner == number)
            pieces.append(Piece(batch, local[into], into))
        return (self._gatherer.gather(self._schema, pieces, len(order)),)

    def _hold(self, batch: pa.RecordBatch, port: int, arrival: int) -> None:
        size = batch.nbytes
        heapq.heappush(self._waiting, (int(event_ns(batch).min()), port, arrival, batch, size))
        self._held += size

    def _account(self) -> None:
        self._context.metrics.state_bytes = self._held
        if self._held > self._limit:
            waits = [0] * len(self._watermarks)
            for _, port, _, batch, _ in self._waiting:
                waits[port] += batch.num_rows
            slowest = min(range(len(waits)), key=lambda port: (self._watermarks[port], waits[port]))
            rows = sum(waits)
            raise StateLimitError(
                f"step {self._context.step!r} holds {self._held} bytes ({rows} rows) that wait for input {slowest}, "
                f"more than state_limit={self._limit}: read that input faster or together with the others, lower its "
                "lateness, or raise state_limit"
            )

    def snapshot(self) -> State:
        waiting = [
            {"port": port, "arrival": arrival, "rows": batch}
            for _, port, arrival, batch, _ in sorted(self._waiting, key=lambda item: item[1:3])
        ]
        return {"watermarks": list(self._watermarks), "arrivals": self._arrivals, "waiting": waiting}

    def restore(self, state: State) -> None:
        self._watermarks, self._arrivals = list(state["watermarks"]), state["arrivals"]
        for item in state["waiting"]:
            self._hold(rewrap(item["rows"], self._schema), item["port"], item["arrival"])
        self._account()
