"""A plan brought to life: everything opened, wired and counted, for a runner to drive.

A runner says where threads meet (`boundary`), drives the sources and closes the runtime. What the rows are is decided
here and in the cells, so runners cannot disagree about them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from .cells import Cell, Receiver, Saver, SinkCell, Target, failure
from .clock import Clock, RealClock
from .context import BadRecord, Context, StageMetrics
from .defer import may_write_in_place
from .errors import DecodeError
from .executor import Executor
from .hop import Infer, Prefetch
from .hop_cells import InferCell
from .last_hop import InferOperator, NoBatches, Pass, PrefetchOperator
from .ledger import Ledger
from .memory import BufferPool
from .operator import OperatorSpec, State
from .options import RunOptions
from .pace import Pacer
from .plan import Node, Plan, Stage
from .quarantine import Quarantine
from .reading import Head, Reading
from .remote import Remote
from .sink import SinkSpec
from .slots import SlotRing
from .source import SourceSpec
from .split_reading import open_reader

__all__ = ["Runtime"]

#: Idle output memory kept for reuse.
POOL_KEEP = 64 << 20


class Runtime:
    """Cells, readers, sinks and executors of one run."""

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        calibration: Mapping[str, Any] | None = None,
        resumed: Mapping[str, State] | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.plan, self.options = plan, options
        self.clock: Clock = options.clock or RealClock()
        self.stop = remote.stop if remote is not None else threading.Event()
        self.pool = BufferPool(POOL_KEEP)
        self.workers = ThreadPoolExecutor(options.threads, thread_name_prefix="penstock-worker")
        self.quarantine = Quarantine(options.quarantine)
        self.metrics = {node.id: StageMetrics() for node in plan.nodes}
        if remote is not None:
            remote.metrics = self.metrics
        self.ledger = Ledger([node.id for node in plan.nodes], [_cause(node) for node in plan.nodes])
        self.pacer = Pacer(options.speed) if options.speed is not None else None
        self.cells: dict[Node, Cell | InferCell | SinkCell] = {}
        self.readings: dict[Node, Reading] = {}
        self.rings: dict[Node, SlotRing] = {}
        self.executors: dict[Node, Executor] = {}
        #: Rows a second of each infer step with its input replaced by one cached batch, where that was measured.
        self.ceilings: dict[str, float] = {}
        self._calibration = calibration or {}
        self._resumed = resumed or {}
        self.remote = remote
        #: Whether this is a look at the first rows before the run itself.
        self.rehearsing = False
        #: What runs in this process.
        self.stages = list(remote.stages) if remote is not None else plan.stages
        self.nodes = [node for stage in self.stages for node in stage.nodes]
        self._committed: set[Node] = set()
        self._open_contexts: dict[Node, Context] = {}
        self.started = self.clock.monotonic_ns()

    def open(self) -> None:
        """Open every node. On failure everything opened so far is closed and the error names the step."""
        try:
            for stage in self.stages:
                for position, node in enumerate(stage.nodes):
                    self._open_node(stage, node, position)
            for node in self.nodes:
                if node.id in self._resumed:
                    self._load(node, self._resumed[node.id])
        except BaseException:
            self.close(commit=False, keep=bool(self._resumed))
            raise
        self.started = self.clock.monotonic_ns()

    def _load(self, node: Node, state: State) -> None:
        """Let a node go on behind the snapshot's `state`."""
        if node in self.readings:
            self.readings[node].load(state)
            return
        cell = self.cells[node]
        if isinstance(cell, SinkCell) and state["ended"] and cell.sink.is_committed(state["sink"]):
            self._committed.add(node)
            cell.load_counts(state)
        else:
            cell.load(state)

    def save_to(self, saver: Saver) -> None:
        """Hand the parts of every snapshot to `saver`."""
        for part in (*self.readings.values(), *self.cells.values()):
            part.saver = saver

    def wire(self, boundary: Callable[[Node, Node, int, Receiver], Receiver]) -> None:
        """Connect producers to consumers; `boundary` may put a queue between two nodes."""
        here = set(self.nodes)
        for node in self.plan.nodes:
            for port, link in enumerate(node.inputs):
                if link.node not in here:
                    continue
                if node in here:
                    receiver = boundary(link.node, node, port, self.cells[node])
                elif self.remote is not None:
                    receiver = self.remote.outgoing(link.node, node, port)
                target = Target(receiver, port)
                producer = self._producer(link.node)
                if link.output:
                    if not isinstance(producer, Cell):
                        raise TypeError(f"{link.node.id} has no side outputs")
                    producer.side_down.setdefault(link.output, []).append(target)
                else:
                    producer.down.append(target)

    def _producer(self, node: Node) -> Any:
        """Who sends on what `node` gives: the reading whose head it ends, or its own cell."""
        stage = self.plan.stage_of(node)
        if isinstance(stage.entry.spec, SourceSpec):
            chain = stage.nodes[: stage.head + 1]
            if node in chain:
                return self.readings[stage.entry] if node is chain[-1] else _Inside()
        return self.cells[node]

    def heads(self, stage: Stage) -> Head:
        """The parallel part of a stage."""
        first = 1 if isinstance(stage.entry.spec, SourceSpec) else 0
        gathers = self.options.checkpoint is not None  # only a snapshot looks at counters while a run goes on
        return Head([self._cell(node) for node in stage.nodes[first : first + stage.head]], gathers=gathers)

    def _cell(self, node: Node) -> Cell:
        cell = self.cells[node]
        if not isinstance(cell, Cell):
            raise TypeError(f"{node.id} is not an ordinary step")
        return cell

    def _context(self, stage: Stage, node: Node, position: int) -> Context:
        # several batches at once already keep the threads busy; otherwise a step may divide one batch
        parallel_head = stage.workers > 1 and 0 < position <= stage.head
        context = Context(
            node.id,
            pool=self.pool,
            clock=self.clock,
            workers=self.workers,
            parallelism=1 if parallel_head else (node.options.parallelism or self.options.threads),
            metrics=self.metrics[node.id],
            quarantine=self._set_aside,
            side=lambda name, batch: self._collect_side(node, name, batch),
            stop=self.stop,
            resuming=bool(self._resumed),
            rehearsing=self.rehearsing,
        )
        self._open_contexts[node] = context
        return context

    def _collect_side(self, node: Node, name: str, batch: pa.RecordBatch) -> None:
        cell = self.cells[node]
        if isinstance(cell, Cell):
            cell.collect_side(name, batch)

    def _set_aside(self, step: str, record: BadRecord) -> None:
        if self.options.on_error == "raise":
            raise DecodeError(f"step {step!r}: {record.operation}: {record.error} ({record.place})")
        self.quarantine.add(step, record)

    def _open_node(self, stage: Stage, node: Node, position: int) -> None:
        index = self.plan.nodes.index(node)
        context = self._context(stage, node, position)
        spec = node.spec
        try:
            if isinstance(spec, SourceSpec):
                state = self._resumed.get(node.id)
                reading = self.remote.reading(index, node, context, self.pacer, state) if self.remote else None
                if reading is None:
                    reader = open_reader(spec, context, state["position"] if state else None)
                    reading = Reading(index, node, reader, context, Head([]), self.pacer)
                self.readings[node] = reading
            elif isinstance(spec, SinkSpec):
                self.cells[node] = SinkCell(index, node, spec.open(context, node.schema), context)
            elif isinstance(spec, Prefetch):
                self._open_prefetch(index, node, context)
            elif isinstance(spec, Infer):
                ring, executor = self.rings[node.inputs[0].node], self.executors[node]
                inferring = InferOperator(spec, executor, ring, context, node.schema)
                self.cells[node] = InferCell(index, node, inferring, context, self.ledger)
            else:
                operator = self.remote.operator(node, context) if self.remote is not None else None
                operator = operator or spec.open(context, *node.in_schemas)
                self.cells[node] = Cell(index, node, operator, context)
        except Exception as error:
            raise failure(node, error) from error
        if stage.head and position == (stage.head if isinstance(stage.entry.spec, SourceSpec) else -1):
            self.readings[stage.entry].head = self.heads(stage)

    def _open_prefetch(self, index: int, node: Node, context: Context) -> None:
        consumer = self.plan.infer_of(node)
        if consumer is None or not isinstance(consumer.spec, Infer) or not isinstance(node.spec, Prefetch):
            self.cells[node] = Cell(index, node, Pass(), context)
            return
        infer = consumer.spec
        model_context = Context(
            consumer.id, pool=self.pool, clock=self.clock, metrics=self.metrics[consumer.id], stop=self.stop
        )
        batches = self._calibration.get(consumer.id)
        executor: Executor = NoBatches(infer.model.name)
        if batches is None or batches:
            executor = infer.model.open(model_context, infer.rows, batches or ())
        self.executors[consumer] = executor
        ring = SlotRing(infer.model.inputs, infer.rows, node.spec.slots, executor.device)
        self.rings[node] = ring
        by_column = {column: name for name, column in infer.columns.items()}
        for above in may_write_in_place(self.plan, node):
            if above in self._open_contexts and not self._is_concurrent(above):
                self._open_contexts[above].allocate = lambda column, kind, rows: ring.allocate(
                    by_column.get(column, ""), kind, rows, self.stop
                )
        self.cells[node] = Cell(index, node, PrefetchOperator(infer, ring, context), context)

    def _is_concurrent(self, node: Node) -> bool:
        """Whether several threads or other processes may work on batches of `node` at the same time."""
        stage = self.plan.stage_of(node)
        first = 1 if isinstance(stage.entry.spec, SourceSpec) else 0
        return stage.workers > 1 and node in stage.nodes[first : first + stage.head]

    def measure_ceilings(self, seconds: float = 0.5, least: int = 5) -> None:
        """Run every model on the batch its slot still holds, without any input, and note the rate."""
        for node, executor in self.executors.items():
            if isinstance(executor, NoBatches):
                continue
            ring = self.rings[node.inputs[0].node]
            inputs, batches = ring.slots[0].device, 0
            started = now = self.clock.monotonic_ns()
            while batches < least or now - started < seconds * 1e9:
                outputs = executor.run(inputs)
                for value in outputs.values():
                    executor.fetch(value)
                batches += 1
                now = self.clock.monotonic_ns()
            if now > started:
                self.ceilings[node.id] = batches * ring.slots[0].rows / ((now - started) / 1e9)

    def counters(self, kind: type[SourceSpec] | type[SinkSpec]) -> list[StageMetrics]:
        """The counters of all sources or all sinks of the plan, wherever they run."""
        return [self.metrics[node.id] for node in self.plan.nodes if isinstance(node.spec, kind)]

    def sinks(self) -> list[SinkCell]:
        return [cell for cell in self.cells.values() if isinstance(cell, SinkCell)]

    def close(self, *, commit: bool, keep: bool = False) -> None:
        """Commit every sink, or abort it, or with `keep` leave what it staged; close everything.

        After a failure of a commit the other sinks are aborted or kept.
        """
        sinks, committed = self.sinks(), False
        try:
            if commit:
                for cell in list(sinks):
                    try:
                        if cell.node in self._committed:
                            cell.sink.detach()
                        else:
                            cell.sink.commit()
                    except Exception as error:
                        raise failure(cell.node, error) from error
                    sinks.remove(cell)
                committed = True
        finally:
            for cell in sinks:
                with contextlib.suppress(OSError):
                    if keep:
                        cell.sink.detach()
                    else:
                        cell.sink.abort()
            self._close_parts(keep and not committed)

    def _close_parts(self, keep: bool) -> None:
        closers: list[Callable[[], None]] = [reading.reader.close for reading in self.readings.values()]
        closers += [cell.operator.close for cell in self.cells.values() if isinstance(cell, Cell)]
        closers += [executor.close for executor in self.executors.values()]
        for close in closers:
            with contextlib.suppress(OSError):
                close()
        self.workers.shutdown(wait=False, cancel_futures=True)
        # now, and not when the garbage collector finds the cycle in the middle of the next run
        for ring in self.rings.values():
            ring.close()
        self.pool.trim()
        if keep:
            self.quarantine.detach()
        else:
            self.quarantine.close()


class _Inside:
    """Targets between two steps of a parallel head: the head itself hands batches on."""

    def __init__(self) -> None:
        self.down: list[Target] = []


def _cause(node: Node) -> str:
    if isinstance(node.spec, SourceSpec):
        return "source"
    if isinstance(node.spec, SinkSpec):
        return "backpressure"
    return node.spec.cause() if isinstance(node.spec, OperatorSpec) else "compute"
