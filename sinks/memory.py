"""Sinks for tests and notebooks: into a list, into nothing."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import State
from ..pipeline.sink import Sink, SinkSpec

__all__ = ["Collect", "Null"]


@dataclass(frozen=True)
class Collect(SinkSpec):
    """Keep the rows in this object: `batches` as they came, `table` joined. Both hold the last run that committed.

    A run with more than `max_bytes` of rows fails with StateLimitError. A copy in another process collects there, not here.
    A checkpoint holds all rows so far, so that a run that resumes has them: use a file sink where there are many.
    """

    _: KW_ONLY
    max_bytes: int = 1 << 30
    batches: list[pa.RecordBatch] = field(default_factory=list, init=False, compare=False, repr=False)

    kind: ClassVar[str] = "collect"
    own_thread: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise GraphError(f"Collect: max_bytes must be at least 1, got {self.max_bytes}")

    def __getstate__(self) -> dict[str, Any]:
        return {"max_bytes": self.max_bytes, "batches": []}

    @property
    def name(self) -> str:
        return "collect"

    def table(self) -> pa.Table:
        """All rows of the last run. Raises ValueError before one has committed."""
        if not self.batches:
            raise ValueError("nothing was collected yet: run the pipeline first")
        return pa.Table.from_batches(self.batches)

    def state_bound(self, schema: pa.Schema) -> int:
        return self.max_bytes

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        return _CollectSink(self, schema)


class _CollectSink(Sink):
    def __init__(self, spec: Collect, schema: pa.Schema) -> None:
        self._spec, self._schema = spec, schema
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._bytes += batch.nbytes
        if self._bytes > self._spec.max_bytes:
            raise StateLimitError(
                f"Collect holds at most {self._spec.max_bytes} bytes; write to a file sink, or raise max_bytes"
            )
        self._batches.append(batch)

    def commit(self) -> None:
        # One batch at least, so that `table` has the schema of a run without rows.
        self._spec.batches[:] = self._batches or [pa.RecordBatch.from_pylist([], schema=self._schema)]

    def abort(self) -> None:
        self._batches.clear()

    def detach(self) -> None:
        self._batches.clear()

    def snapshot(self) -> State:
        return {"batches": list(self._batches)}

    def restore(self, state: State) -> None:
        """Go on behind a snapshot. `is_committed` is never so: what was collected ended with its process."""
        self._batches = list(state["batches"])
        self._bytes = sum(batch.nbytes for batch in self._batches)


@dataclass(frozen=True)
class Null(SinkSpec):
    """Take rows and keep nothing but their number, which the report has: for measuring what is in front."""

    kind: ClassVar[str] = "null"
    own_thread: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "null"

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        return _NullSink()


class _NullSink(Sink):
    def __init__(self) -> None:
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows

    def commit(self) -> None: ...

    def abort(self) -> None: ...

    def snapshot(self) -> State:
        return {"rows": self.rows}

    def restore(self, state: State) -> None:
        self.rows = state["rows"]
