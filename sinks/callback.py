"""Into a function of the user's: for databases, queues and whatever else has no sink of its own.

What a function did cannot be taken back, so a run that is killed and resumed may give it rows a second time. It can tell
if batches have numbers and each number always means the same rows; then "do it unless that number was done" makes any
store that has transactions exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import pyarrow as pa

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, RunError
from ..pipeline.operator import State
from ..pipeline.schema import row_bytes
from ..pipeline.sink import Sink, SinkSpec
from ._canonical import check_columns
from ._row_groups import RowGroups

__all__ = ["Callback"]


@dataclass(frozen=True)
class Callback(SinkSpec):
    """Call ``function(batch)`` for every batch, or ``function(batch, number)`` for every `rows` rows, in order.

    With `rows`, batches have exactly so many rows (the last of the stream may have fewer) and are numbered 0, 1, 2, ...,
    wherever they were cut upstream. A number always comes with the same rows, laid out the same in memory, also from
    another runner or after a crash: a resumed run repeats the numbers since its checkpoint, and no others. So the function
    sees every row at least once, and a write keyed by the number happens exactly once. The number and the rows go into one
    transaction::

        def store(batch: pa.RecordBatch, number: int) -> None:
            with connection.transaction():
                done = connection.execute(
                    "INSERT INTO batches (flow, number) VALUES ('signals', %s) ON CONFLICT DO NOTHING", [number]
                )
                if done.rowcount:  # 0: this batch was stored before the crash
                    connection.cursor().executemany("INSERT INTO signals ...", batch.to_pylist())

        flow = stream.write(sinks.Callback(store, rows=10_000))

    A new run, one that does not resume, begins with number 0 again: give it a key of its own. Without `rows`, where batches
    are cut is up to the runner, and rows since the checkpoint come again in other batches.

    An exception of the function ends the run. To send the graph elsewhere the function must pickle: a module's function,
    not a lambda.
    """

    function: Callable[..., object]
    _: KW_ONLY
    rows: int | None = None

    kind: ClassVar[str] = "callback"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise GraphError("Callback needs a function of one batch", got=repr(self.function))
        if self.rows is not None and self.rows < 1:
            raise GraphError(f"Callback: rows must be at least 1, got {self.rows}")

    @property
    def name(self) -> str:
        return f"{getattr(self.function, '__qualname__', type(self.function).__name__)} (callback)"

    def check(self, schema: pa.Schema) -> None:
        if self.rows is not None:
            check_columns(schema, self.name)

    def state_bound(self, schema: pa.Schema) -> int:
        """With `rows`, the rows that are collected and their copy in one piece."""
        return 2 * (self.rows or 0) * row_bytes(schema)

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        return _CallbackSink(self.function) if self.rows is None else _NumberedSink(self, schema, self.rows)


class _CallbackSink(Sink):
    def __init__(self, function: Callable[[pa.RecordBatch], object]) -> None:
        self._function = function

    def write(self, batch: pa.RecordBatch) -> None:
        self._function(batch)

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class _NumberedSink(Sink):
    """`commit` gives the last, short batch; it alone knows that no row comes after it.

    `is_committed` is never so: a run that died in its commit gives that batch again, under its number.
    """

    def __init__(self, spec: Callback, schema: pa.Schema, rows: int) -> None:
        self._spec = spec
        self._rows = rows
        self._groups = RowGroups(schema, rows)
        self._number = 0
        self._begun = False

    def write(self, batch: pa.RecordBatch) -> None:
        self._begun = True
        for group in self._groups.add(batch):
            self._give(group)

    def commit(self) -> None:
        rest = self._groups.flush()
        if rest is not None:
            self._give(rest)

    def abort(self) -> None: ...

    def snapshot(self) -> State:
        """The number that is next and the rows that wait for it."""
        return {"number": self._number, "rows_each": self._rows, "held": self._groups.held()}

    def restore(self, state: State) -> None:
        """Go on behind a snapshot. Raises RunError if its batches had another size: numbers would mean other rows."""
        if self._begun:
            raise RunError(f"{self._spec.name}: restore comes before the first batch")
        if state["rows_each"] != self._rows:
            raise RunError(
                f"{self._spec.name}: batches had {state['rows_each']} rows before, so numbers would mean others; "
                f"resume with Callback(..., rows={state['rows_each']})"
            )
        self._number = int(state["number"])
        self.write(state["held"])

    def _give(self, group: pa.RecordBatch) -> None:
        self._spec.function(group, self._number)
        self._number += 1
