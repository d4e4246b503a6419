"""The lateness gate: where event time begins.

Only a gate originates watermarks, and it decides row by row: whether a row is late depends on the rows before it in the
stream and on nothing else. Rows that are late leave here, so behind a gate nothing is ever late, and how often a
watermark is passed on can change when a result comes out but never what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.context import Context
from ..pipeline.duration import nanoseconds
from ..pipeline.errors import GraphError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec, State
from ..pipeline.registry import supplies
from ..pipeline.schema import check_event_schema
from ._rows import Gatherer

__all__ = ["Watermark"]


@supplies("watermark")
@dataclass(frozen=True)
class Watermark(OperatorSpec):
    """Take rows that are more than `lateness_ns` behind the newest row before them out of the stream.

    Row i is late if ``ts_event[i] < max(ts_event[:i]) - lateness_ns``. Late rows are counted (``late_rows``) and go to
    the side output ``"late"``. The watermark is the newest event time less `lateness_ns`. `lateness_ns` is an integer
    of ns, or a text such as ``"10ms"``; ValueError if it is negative or no duration.
    """

    lateness_ns: int = 0
    kind: ClassVar[str] = "watermark"
    light: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "lateness_ns", nanoseconds(self.lateness_ns))

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        """The input's schema, which must start with the event columns; GraphError otherwise."""
        if len(inputs) != 1:
            raise GraphError("a watermark has one input", expected=1, got=len(inputs))
        if (problem := check_event_schema(inputs[0])) is not None:
            raise GraphError(f"a watermark needs event time: {problem}")
        return inputs[0]

    def side_outputs(self, *inputs: pa.Schema) -> Mapping[str, pa.Schema]:
        """``"late"``: the rows that came too late, in the order they came."""
        return {"late": inputs[0]}

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Watermark(self, context)


class _Watermark(Operator):
    def __init__(self, spec: Watermark, context: Context) -> None:
        self._lateness, self._context = spec.lateness_ns, context
        self._gatherer = Gatherer(context)
        self._newest = NO_TIME
        self._ended = False

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        if not batch.num_rows:
            return ()
        times = event_ns(batch)
        before = self._newest
        self._newest = max(before, int(times.max()))
        if int(times.min()) >= self._newest - self._lateness:
            return (batch,)
        newest = np.maximum(np.maximum.accumulate(times), before)
        behind = (newest - times).view(np.uint64)  # exact: never negative, and below 2**64
        late = behind > np.uint64(min(self._lateness, (1 << 64) - 1))
        if not late.any():
            return (batch,)
        gone = np.flatnonzero(late)
        self._context.metrics.late_rows += len(gone)
        self._context.side("late", self._gatherer.select(batch, gone))
        kept = np.flatnonzero(~late)
        return (self._gatherer.select(batch, kept),) if len(kept) else ()

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        self._ended = self._ended or watermark == END_OF_TIME
        return ()

    def watermark(self) -> int:
        if self._ended:
            return END_OF_TIME
        return NO_TIME if self._newest == NO_TIME else max(NO_TIME, self._newest - self._lateness)

    def snapshot(self) -> State:
        return {"newest": self._newest, "ended": self._ended}

    def restore(self, state: State) -> None:
        self._newest, self._ended = state["newest"], state["ended"]
