"""The contract between the language and what happens to data.

A *spec* is a frozen dataclass: it says what to do, checks its arguments, derives the output schema when the graph is
built, and pickles. `open` makes the *operator*, which holds the state and does the work in one process. Nothing of a run
lives in a spec, so the same graph can be run twice, in parallel, or elsewhere.

State is explicit: `snapshot` returns everything an operator would need to go on, as plain values and Arrow or numpy
data (never pickled objects), and `restore` takes it back. An operator restored from a snapshot must emit exactly what the
original would have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from .context import BadRecord, Context
from .partition import Partitioned

__all__ = ["END_OF_TIME", "NO_TIME", "Operator", "OperatorSpec", "State"]

#: Watermark of an input that has ended: no row can come after it.
END_OF_TIME = (1 << 63) - 1
#: Watermark of an input of which nothing is known yet.
NO_TIME = -(1 << 63)

#: What `snapshot` returns: nested dicts and lists of str, int, float, bool, None, bytes, numpy arrays and Arrow data.
State = Mapping[str, Any]


class OperatorSpec(ABC):
    """What a step does. Subclasses are frozen dataclasses; every field must pickle.

    Class attributes tell the planner how it may run:

    `kind`
        the step's name in ids, `explain` and reports.
    `stateless`
        output rows depend on the rows of the same batch alone, row by row, and batch boundaries do not matter: the
        planner may fuse it, run several batches at once (order is restored) and split batches.
    `event_time`
        needs watermarks; the planner puts a lateness gate behind the source if the user has not.
    `deferrable`
        computes new columns from its own inputs row by row, so it may run later than written (after a sync or a batch)
        and write straight into the memory of the last hop.
    `light`
        keeps state but does so little that a thread of its own would cost more than it gives.
    """

    kind: ClassVar[str] = "apply"
    stateless: ClassVar[bool] = False
    event_time: ClassVar[bool] = False
    deferrable: ClassVar[bool] = False
    light: ClassVar[bool] = False

    @abstractmethod
    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        """The schema of what comes out. Raises GraphError if an input lacks what is needed."""

    @abstractmethod
    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        """A fresh operator for input schemas already accepted by `output_schema`."""

    def side_outputs(self, *inputs: pa.Schema) -> Mapping[str, pa.Schema]:
        """Further outputs by name, such as ``{"late": schema}``."""
        return {}

    def state_bound(self, *inputs: pa.Schema) -> int:
        """Upper bound of the bytes of state held, enforced by the operator; 0 if it keeps none."""
        return 0

    def passes_row_work(self) -> bool:
        """Whether a deferrable step written in front of this one may run behind it instead.

        True only if rows of the first input come out unchanged and whole (dropping and regrouping rows is fine) and what
        is decided depends on event times and counts alone.
        """
        return False

    def retry_row(self, record: BadRecord, schema: pa.Schema) -> pa.RecordBatch | None:
        """For ``penstock quarantine rerun``: the input row that `record`, which this operator put aside itself, stands for.

        `schema` is that of the first input; columns that the record does not hold are null. None (default) if the bytes
        are not enough to try it again. Rows on which a stateless operator raises need nothing: they are put aside whole.
        """
        return None

    def partitioned(self, *inputs: pa.Schema) -> Partitioned | None:
        """How this operator may be divided by key among several processes; None (default) if it may not."""
        return None

    def cause(self) -> str:
        """What time spent here is charged to when the accelerator waits: source, decode, sync, batch fill, ..."""
        return "decode" if self.stateless else "compute"


class Operator(ABC):
    """A running step. Called by one thread at a time, except stateless ones, whose `process` must be thread-safe."""

    @abstractmethod
    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        """Take a batch from input `port`; return what can be emitted now (often nothing, often one batch).

        Inputs are read-only. Returned batches must not be written to afterwards.
        """

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        """No row with ``ts_event < watermark`` (ns) will come on `port` any more. END_OF_TIME: the port has ended."""
        return ()

    def watermark(self) -> int | None:
        """The output watermark, for operators that hold rows back; None (default) means the least of the inputs'."""
        return None

    def finish(self) -> Sequence[pa.RecordBatch]:
        """All inputs have ended: emit what is left. Called once, after `advance(END_OF_TIME)` on every port."""
        return ()

    def snapshot(self) -> State:
        """All state, so that `restore` on a fresh operator continues exactly here."""
        return {}

    def restore(self, state: State) -> None:
        """Continue from a `snapshot` of an operator with the same spec and schemas."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got {sorted(state)}")

    def close(self) -> None:
        """Release what is held outside Python. Called once, also after an error."""
