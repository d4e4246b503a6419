"""Running steps: a cell is one operator with its counters and what comes behind it.

Cells call each other directly inside a stage and reach other stages through an `Inbox`, which has the same four methods:
`push` a batch, `advance` the watermark, `barrier` of a checkpoint, `end`. Runners differ only in where the inboxes are.

A barrier cuts every edge in two: what came before it is in the snapshot, what comes after is not. A cell with several
inputs saves its state when the barrier has come on all of them; whoever feeds it holds back, until then, the inputs on
which it has come already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa

from .columns import is_fixed_width
from .context import BadRecord, Context
from .digest import RowDigest
from .errors import DecodeError, PenstockError, RunError
from .isolate import process_isolating
from .ledger import Histogram, Trace, birth
from .operator import END_OF_TIME, NO_TIME, Operator, State
from .plan import Node
from .schema import row_bytes
from .sink import Sink, SinkSpec

__all__ = ["Cell", "Guard", "Receiver", "Saver", "SinkCell", "Sizer", "Target", "failure"]


class Receiver(Protocol):
    """Whatever can stand behind a step; `index` is the position in the plan of the step it leads to."""

    index: int

    def push(self, batch: Any, port: int, trace: Trace | None) -> None: ...

    def advance(self, watermark: int, port: int, trace: Trace | None) -> None: ...

    def barrier(self, number: int, port: int) -> None: ...

    def end(self, port: int, trace: Trace | None) -> None: ...


class Saver(Protocol):
    """Who collects the parts of a snapshot."""

    def saved(self, number: int, step: str, state: State) -> None:
        """The state of `step` at barrier `number`."""

    def finished(self, step: str, state: State) -> None:
        """`step` has ended with this state; it stands for every later barrier."""


class Guard(Protocol):
    """Works in a cell's stead on batches that may end the process."""

    def work(self, cell: Cell, batch: Any) -> Sequence[Any] | None:
        """What the cell's operator gives for `batch`; None if the cell may work on it itself."""


class Target:
    """A receiver and the port of it that a step feeds."""

    __slots__ = ("port", "receiver")

    def __init__(self, receiver: Receiver, port: int) -> None:
        self.receiver, self.port = receiver, port


class Sizer:
    """Bytes of a batch: rows times a constant where the schema is fixed-width, asked of Arrow otherwise."""

    __slots__ = ("_per_row",)

    def __init__(self, schema: pa.Schema) -> None:
        fixed = all(is_fixed_width(field.type) for field in schema)
        self._per_row = row_bytes(schema) if fixed else 0

    def __call__(self, batch: Any) -> int:
        return self._per_row * int(batch.num_rows) if self._per_row else int(batch.nbytes)


def failure(node: Node, error: BaseException) -> PenstockError:
    """The error a user sees when a step fails: which step, written where, and the cause."""
    if isinstance(error, DecodeError) or (isinstance(error, RunError) and str(error).startswith("step ")):
        return error
    text = f"{type(error).__name__}: {error}" if not isinstance(error, PenstockError) else str(error)
    failed = RunError(f"step {node.id!r} ({node.site}): {text}")
    failed.__cause__ = error
    return failed


class Cell:
    """One operator at work."""

    def __init__(self, index: int, node: Node, operator: Operator, context: Context) -> None:
        self.index, self.node, self.operator, self.context = index, node, operator, context
        self.metrics = context.metrics
        self.saver: Saver | None = None
        self.guard: Guard | None = None
        self.down: list[Target] = []
        self.side_down: dict[str, list[Target]] = {}
        self._side_rows: list[tuple[str, pa.RecordBatch]] = []
        self._now = context.clock.monotonic_ns
        self.size = Sizer(node.in_schemas[0]) if node.inputs else Sizer(node.schema)
        self.out_size = Sizer(node.schema)
        self._isolates = node.stateless
        #: Whether a step that fails on every row ends the run here; else `judge` is called where the order is kept.
        self.judges = True
        self._projection = node.projection
        self._steers = getattr(type(operator), "watermark", Operator.watermark) is not Operator.watermark
        self._ports = [NO_TIME] * max(1, len(node.inputs))
        self._ended = [False] * len(self._ports)
        self._cuts = [0] * len(self._ports)
        self._crossed = 0
        self._sent = NO_TIME
        self._held_since = 0

    def collect_side(self, name: str, batch: pa.RecordBatch) -> None:
        """Called through the context while the operator works; sent on when it returns."""
        if self.side_down.get(name):
            self._side_rows.append((name, batch))

    def work(self, batch: Any, port: int, failed: list[BadRecord] | None = None) -> Sequence[Any]:
        """Run the operator on one batch, isolating bad rows where it is stateless; they are added to `failed` too."""
        if self.guard is not None and (guarded := self.guard.work(self, batch)) is not None:
            return guarded
        try:
            return self.operator.process(batch, port)
        except Exception as error:
            if not self._isolates or isinstance(error, (DecodeError, RunError)) or self.context.stop.is_set():
                raise failure(self.node, error) from error
            return self._isolate(batch, [] if failed is None else failed)

    def _isolate(self, batch: pa.RecordBatch, failed: list[BadRecord]) -> Sequence[pa.RecordBatch]:
        allocate, self.context.allocate = self.context.allocate, None
        try:
            out = process_isolating(self.operator, batch, self.operation, failed)
        finally:
            self.context.allocate = allocate
        if self.judges:
            self.judge(failed, batch.num_rows)
        for record in failed:
            self.context.quarantine(record)
        return (pa.concat_batches(out),) if len(out) > 1 else out

    def judge(self, failed: Sequence[BadRecord], rows: int) -> None:
        """Raise RunError if all of several `rows` failed in this step, and none has come out of it before."""
        if len(failed) == rows > 1 and not self.metrics.rows_out:
            why = failed[0].error.partition(": ")[2]
            raise RunError(f"step {self.node.id!r} ({self.node.site}) fails on every row: {why}")

    @property
    def operation(self) -> str:
        """What the records of rows that fail here say was being done."""
        return f"{self.node.id} ({self.node.site})"

    def project(self, batch: Any) -> Any:
        """The batch in the column order the user saw, where the plan moved this step."""
        if self._projection is None:
            return batch
        arrays = [batch.column(name) for name in self._projection.names]
        return pa.RecordBatch.from_arrays(arrays, schema=self._projection)

    def push(self, batch: Any, port: int, trace: Trace | None) -> None:
        started = self._now()
        metrics = self.metrics
        metrics.batches_in += 1
        metrics.rows_in += batch.num_rows
        metrics.bytes_in += self.size(batch)
        outputs = self.work(batch, port)
        ended = self._now()
        metrics.busy_ns += ended - started
        if outputs:
            self.emit(outputs, (trace, self.index, started, ended, self._held_since, ""))
            self._held_since = 0
        elif not self._held_since:
            self._held_since = started
        if self._side_rows:
            self._emit_sides(trace)
        if self._steers:
            self._forward_watermark(trace)

    def advance(self, watermark: int, port: int, trace: Trace | None) -> None:
        self._ports[port] = watermark
        started = self._now()
        try:
            outputs = self.operator.advance(watermark, port)
        except Exception as error:
            raise failure(self.node, error) from error
        ended = self._now()
        self.metrics.busy_ns += ended - started
        if outputs:
            self.emit(outputs, (trace, self.index, started, ended, self._held_since, ""))
            self._held_since = 0
        if self._side_rows:
            self._emit_sides(trace)
        self._forward_watermark(trace)

    def end(self, port: int, trace: Trace | None) -> None:
        self._ended[port] = True
        self.advance(END_OF_TIME, port, trace)
        if not all(self._ended):
            self._cross(max(self._cuts))
            return
        started = self._now()
        try:
            outputs = self.operator.finish()
        except Exception as error:
            raise failure(self.node, error) from error
        if outputs:
            self.emit(outputs, (trace, self.index, started, self._now(), self._held_since, ""))
        if self._side_rows:
            self._emit_sides(trace)
        if self.saver is not None:
            self.saver.finished(self.node.id, self.save())
        for target in self._everyone():
            target.receiver.end(target.port, trace)

    def barrier(self, number: int, port: int) -> None:
        """Checkpoint `number` cuts input `port` here."""
        self._cuts[port] = number
        self._cross(number)

    def _cross(self, number: int) -> None:
        """Save the state and hand the barrier on, if it has come on every input that is open."""
        waiting = any(cut < number and not ended for cut, ended in zip(self._cuts, self._ended, strict=True))
        if number <= self._crossed or waiting:
            return
        self._crossed = number
        if self.saver is not None:
            self.saver.saved(number, self.node.id, self.save())
        for target in self._everyone():
            target.receiver.barrier(number, target.port)

    def save(self) -> State:
        """Everything `load` needs to go on here in a fresh cell."""
        try:
            state = self.operator.snapshot()
        except Exception as error:
            raise failure(self.node, error) from error
        times = {"ports": list(self._ports), "ended": list(self._ended), "sent": self._sent}
        return {"operator": state, **times, "metrics": self.metrics.save()}

    def load(self, state: State) -> None:
        """Go on behind a `save`."""
        try:
            self.operator.restore(state["operator"])
        except Exception as error:
            raise failure(self.node, error) from error
        self._ports, self._ended, self._sent = list(state["ports"]), list(state["ended"]), state["sent"]
        self.metrics.load(state["metrics"])

    def has_ended(self, port: int) -> bool:
        """Whether nothing can come on `port` any more."""
        return self._ended[port]

    def emit(self, outputs: Sequence[Any], trace: Trace | None) -> None:
        """Send batches on."""
        for out in outputs:
            if out.num_rows:
                self.send(self.project(out), trace)

    def send(self, out: Any, trace: Trace | None) -> None:
        """Send a batch, in the columns of this step, on."""
        metrics = self.metrics
        metrics.batches_out += 1
        metrics.rows_out += out.num_rows
        metrics.bytes_out += self.out_size(out)
        for target in self.down:
            target.receiver.push(out, target.port, trace)

    def _emit_sides(self, trace: Trace | None) -> None:
        waiting, self._side_rows = self._side_rows, []
        for name, batch in waiting:
            for target in self.side_down[name]:
                target.receiver.push(batch, target.port, trace)

    def _forward_watermark(self, trace: Trace | None) -> None:
        own = self.operator.watermark() if self._steers else None
        watermark = min(self._ports) if own is None else own
        if self._sent < watermark < END_OF_TIME:
            self._sent = watermark
            for target in self._everyone():
                target.receiver.advance(watermark, target.port, trace)

    def _everyone(self) -> list[Target]:
        return [*self.down, *(target for targets in self.side_down.values() for target in targets)]


class SinkCell:
    """A sink at work: rows are digested, counted, timed and written."""

    def __init__(self, index: int, node: Node, sink: Sink, context: Context) -> None:
        self.index, self.node, self.sink, self.context = index, node, sink, context
        self.metrics = context.metrics
        digested = isinstance(node.spec, SinkSpec) and node.spec.digested
        self.digest = RowDigest(node.schema) if digested else None
        self.latency = Histogram()
        self.first_at = 0
        self.ended = False
        self.on_end: Callable[[], None] | None = None
        self.saver: Saver | None = None
        #: Set from another thread: the snapshot of this sink that is stored for good.
        self.to_publish: State | None = None
        self._now = context.clock.monotonic_ns
        self._size = Sizer(node.schema)

    def push(self, batch: Any, port: int, trace: Trace | None) -> None:
        if self.to_publish is not None:
            self.publish()
        started = self._now()
        metrics = self.metrics
        metrics.batches_in += 1
        metrics.rows_in += batch.num_rows
        metrics.bytes_in += self._size(batch)
        try:
            if self.digest is not None:
                self.digest.update(batch)
            self.sink.write(batch)
        except Exception as error:
            raise failure(self.node, error) from error
        ended = self._now()
        metrics.busy_ns += ended - started
        if not self.first_at:
            self.first_at = ended
        if trace is not None:
            self.latency.add(ended - birth(trace))

    def advance(self, watermark: int, port: int, trace: Trace | None) -> None:
        """Sinks have no use for watermarks."""

    def end(self, port: int, trace: Trace | None) -> None:
        self.ended = True
        if self.saver is not None:
            self.saver.finished(self.node.id, self.save())
        if self.on_end is not None:
            self.on_end()

    def barrier(self, number: int, port: int) -> None:
        """Checkpoint `number` cuts the rows here."""
        if self.to_publish is not None:
            self.publish()
        if self.saver is not None:
            self.saver.saved(number, self.node.id, self.save())

    def publish(self) -> None:
        """Let the sink show what is stored for good, if it wants to. In the sink's thread."""
        state, self.to_publish = self.to_publish, None
        if state is not None:
            try:
                self.sink.publish(state)
            except Exception as error:
                raise failure(self.node, error) from error

    def save(self) -> State:
        """Everything `load` needs to go on here in a fresh cell."""
        try:
            state = self.sink.snapshot()
        except Exception as error:
            raise failure(self.node, error) from error
        digest = self.digest.snapshot() if self.digest is not None else None
        return {"sink": state, "digest": digest, "ended": self.ended, "metrics": self.metrics.save()}

    def load(self, state: State) -> None:
        """Go on behind a `save`."""
        try:
            self.sink.restore(state["sink"])
        except Exception as error:
            raise failure(self.node, error) from error
        self.load_counts(state)

    def load_counts(self, state: State) -> None:
        """Take back what a `save` counted, without the sink's own state."""
        if self.digest is not None:
            self.digest.restore(state["digest"])
        self.ended = state["ended"]
        self.metrics.load(state["metrics"])

    def has_ended(self, port: int) -> bool:
        """Whether nothing can come any more."""
        return self.ended
