"""A source at work: framing, decoding and the stateless steps fused behind it, and delivery in order.

`frame` is called by one thread at a time, `decode` by any number at once, `deliver` in the order of framing. A checkpoint
cuts the stream in `deliver`, between two batches: the position is that behind the last block that was delivered whole,
and how many of the rows behind it have gone out already. What was counted is as of that position too: a run that goes on
counts what lies behind it anew, however the source cuts it into blocks then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from .cells import Cell, Saver, Sizer, Target, failure
from .context import BadRecord, Context, StageMetrics, Tally
from .ledger import PACE, Trace
from .operator import NO_TIME, State
from .pace import Pacer
from .plan import Node
from .source import Block, Decoded, Position, SourceReader

__all__ = ["Given", "Head", "Reading", "Work"]


@dataclass(frozen=True, slots=True)
class Given:
    """What a block decoded to, in numbers; `latest` is the newest event time at the end of a batch."""

    batches: int
    rows: int
    nbytes: int
    latest: int


@dataclass(slots=True)
class Work:
    """One block or batch on its way through the parallel part of a stage, with what it cost."""

    batches: list[tuple[Any, Trace | None]] = field(default_factory=list)
    decoded: Decoded | None = None
    given: Given | None = None
    block: Block | None = None
    costs: list[tuple[Cell, int, int, int]] = field(default_factory=list)
    asides: list[tuple[Cell, Tally]] = field(default_factory=list)
    failed: list[tuple[Cell, list[BadRecord]]] = field(default_factory=list)
    error: BaseException | None = None
    trace: Trace | None = None
    #: What the source counted while it framed and decoded.
    tallies: list[Tally] = field(default_factory=list)


class Head:
    """A chain of stateless cells that may work on several batches at once.

    Counters are kept in the `Work` and added up by `settle`, which runs in order in one thread at a time. With `gathers`
    so is what the steps themselves count and put aside; without, somebody else sees to that.
    """

    def __init__(self, cells: Sequence[Cell], *, gathers: bool = False) -> None:
        self.cells, self._gathers = list(cells), gathers
        for cell in self.cells:
            cell.judges = False

    def run(self, work: Work, batches: Sequence[Any], trace: Trace | None, clock: Any) -> None:
        """Send `batches` through the chain; results are left in `work`."""
        current = [(batch, trace) for batch in batches]
        for cell in self.cells:
            following: list[tuple[Any, Trace | None]] = []
            for batch, earlier in current:
                started = clock()
                failed: list[BadRecord] = []
                outputs = self._apart(cell, batch, failed, work) if self._gathers else cell.work(batch, 0, failed)
                if failed:
                    work.failed.append((cell, failed))
                ended = clock()
                work.costs.append((cell, batch.num_rows, cell.size(batch), ended - started))
                for out in outputs:
                    if out.num_rows:
                        following.append((cell.project(out), (earlier, cell.index, started, ended, 0, "")))
            current = following
        work.batches.extend(current)

    def _apart(self, cell: Cell, batch: Any, failed: list[BadRecord], work: Work) -> Sequence[Any]:
        cell.context.gather()
        try:
            return cell.work(batch, 0, failed)
        finally:
            if tally := cell.context.gathered():
                work.asides.append((cell, tally))

    def settle(self, work: Work) -> None:
        """Add the work's costs to the cells' counters. Raises RunError if a step fails on every row."""
        worked: Counter[Cell] = Counter()
        for cell, rows, nbytes, spent in work.costs:
            worked[cell] += rows
            metrics = cell.metrics
            metrics.batches_in += 1
            metrics.rows_in += rows
            metrics.bytes_in += nbytes
            metrics.busy_ns += spent
        for cell, aside in work.asides:
            cell.context.count(aside)
            cell.judge([record for record in aside.bad if record.operation == cell.operation], worked[cell])
        for cell, failed in work.failed:
            cell.judge(failed, worked[cell])
        for before, after in zip(self.cells, self.cells[1:], strict=False):
            before.metrics.rows_out = after.metrics.rows_in
            before.metrics.batches_out = after.metrics.batches_in
            before.metrics.bytes_out = after.metrics.bytes_in


class Reading:
    """A read step and the head of its stage."""

    def __init__(
        self, index: int, node: Node, reader: SourceReader, context: Context, head: Head, pacer: Pacer | None
    ) -> None:
        self.index, self.node, self.reader, self.context = index, node, reader, context
        self.metrics = context.metrics
        self.head = head
        self.down: list[Target] = []
        self.latest = NO_TIME
        self.ended = False
        self.saver: Saver | None = None
        #: Set from another thread: cut checkpoint `number` as soon as rows up to the event time `at` have gone out.
        self.asked: tuple[int, int] | None = None
        self.position: Position | None = None
        #: Counters as they were before the block that is on its way out, and how many rows behind the position are out.
        self._before: list[dict[str, Any]] | None = None
        self._given = 0
        #: Rows behind the position that were out before the run went on.
        self._skip = 0
        self._cut = 0
        self._pacer = pacer
        self._rewinds = getattr(node.spec, "rewinds", True)
        self._now = context.clock.monotonic_ns
        self._size = Sizer(node.schema)
        self._blocks: Iterator[Block] | None = None

    def frame(self) -> Work | None:
        """The next block, or None at the end. One thread at a time."""
        if self.ended:
            return None
        started = self._now()
        self.context.gather()
        try:
            if self._blocks is None:
                self._blocks = iter(self.reader.blocks())
            block = next(self._blocks, None)
        except Exception as error:
            raise failure(self.node, error) from error
        finally:
            tally = self.context.gathered()
        spent = self._now() - started
        self.metrics.busy_ns += spent
        if block is None:
            self.context.count(tally)
            return None
        return Work(block=block, trace=(None, self.index, started, started + spent, 0, "source"), tallies=[tally])

    def decode(self, work: Work) -> Work:
        """Decode a framed block and run the head on it. Any thread; failures are kept for `deliver`."""
        if work.block is None:
            return work
        started = self._now()
        self.context.gather()
        try:
            try:
                work.decoded = self.reader.decode(work.block)
            finally:
                work.tallies = [*work.tallies[:1], self.context.gathered()]
            ended = self._now()
            work.trace = (work.trace, self.index, started, ended, 0, "decode")
            work.costs.clear()
            work.asides.clear()
            batches = [batch for batch in work.decoded.batches if batch.num_rows]
            work.given = self._measure(batches)
            self.head.run(work, batches, work.trace, self._now)
        except Exception as error:
            work.error = failure(self.node, error)
        return work

    def deliver(self, work: Work) -> None:
        """Count a decoded block and send its batches on. In the order of framing, one thread at a time."""
        if work.error is not None:
            raise work.error
        if work.decoded is None or work.block is None or work.trace is None or work.given is None:
            return
        if self.saver is not None:
            self._before = [self.metrics.save(), *(cell.metrics.save() for cell in self.head.cells)]
        self._count(work, work.block, work.decoded, work.given, work.trace)
        for batch, trace in work.batches:
            self._emit(batch, trace)
        if self.context.stop.is_set():
            return
        self.position, self._given, self._before = work.block.after, 0, None
        if self.asked is not None:
            self._cut_if_due()

    def decode_bare(self, work: Work) -> tuple[Decoded, Given]:
        """Decode a framed block without running the head."""
        if work.block is None:
            raise ValueError("there is no block")
        decoded = self.reader.decode(work.block)
        return decoded, self._measure([batch for batch in decoded.batches if batch.num_rows])

    def _measure(self, batches: Sequence[pa.RecordBatch]) -> Given:
        latest = max((batch.column("ts_event")[batch.num_rows - 1].value for batch in batches), default=NO_TIME)
        return Given(len(batches), sum(b.num_rows for b in batches), sum(self._size(b) for b in batches), latest)

    def _count(self, work: Work, block: Block, decoded: Decoded, given: Given, trace: Trace) -> None:
        metrics = self.metrics
        metrics.batches_in += 1
        metrics.rows_in += block.records
        metrics.bytes_in += block.nbytes
        metrics.busy_ns += trace[3] - trace[2]
        metrics.batches_out += given.batches
        metrics.rows_out += given.rows
        metrics.bytes_out += given.nbytes
        self.latest = max(self.latest, given.latest)
        for reason, rows in decoded.dropped.items():
            self.context.drop(reason, rows)
        for record in decoded.bad:
            self.context.quarantine(record)
        for tally in work.tallies:
            self.context.count(tally)
        self.head.settle(work)

    def _emit(self, batch: pa.RecordBatch, trace: Trace | None) -> None:
        if self._skip:  # rows that went out before the snapshot from which this run goes on
            gone = min(self._skip, batch.num_rows)
            self._skip -= gone
            self._given += gone
            batch = batch.slice(gone)
            if not batch.num_rows:
                return
        pieces: Sequence[tuple[pa.RecordBatch, int]] = ((batch, 0),)
        if self._pacer is not None:
            pieces = self._pacer.pieces(batch)
        last = self.head.cells[-1] if self.head.cells else None
        for piece, due in pieces:
            if self.asked is not None and self._rewinds:
                self._cut_if_due()
            came = trace
            if self._pacer is not None:
                started = self._now()
                if self._pacer.wait(due, self.context):
                    return
                came = (None, self.index, started, self._now(), 0, PACE)
            if last is not None:
                last.metrics.batches_out += 1
                last.metrics.rows_out += piece.num_rows
                last.metrics.bytes_out += last.out_size(piece)
            for target in self.down:
                target.receiver.push(piece, target.port, came)
            self._given += piece.num_rows

    def _cut_if_due(self) -> None:
        asked = self.asked
        if asked is not None and asked[0] > self._cut and self.latest >= asked[1]:
            self.barrier(asked[0])

    def barrier(self, number: int) -> None:
        """Cut the stream here for checkpoint `number`. In the thread that delivers."""
        self._cut, self.asked = number, None
        if self.saver is not None:
            for place, cell in enumerate(self.head.cells, 1):
                self.saver.saved(number, cell.node.id, {**cell.save(), "metrics": self._counted(place, cell.metrics)})
            self.saver.saved(number, self.node.id, self.save())
        for target in self.down:
            target.receiver.barrier(number, target.port)

    def save(self) -> State:
        """Where to go on, and what was counted up to there."""
        where = {"position": self.position, "given": self._given + self._skip}
        return {**where, "latest": self.latest, "ended": self.ended, "metrics": self._counted(0, self.metrics)}

    def _counted(self, place: int, metrics: StageMetrics) -> dict[str, Any]:
        """The counters of this step (0) or one of the head's up to the position; of what went out, up to now."""
        if self._before is None:
            return metrics.save()
        saved: dict[str, Any] = self._before[place]
        if place and place == len(self.head.cells):
            saved = {**saved, **{name: getattr(metrics, name) for name in ("batches_out", "rows_out", "bytes_out")}}
        return saved

    def load(self, state: State) -> None:
        """Go on behind a `save`; the reader was opened at its position."""
        self.position, self._skip = state["position"], state["given"]
        self.latest, self.ended = state["latest"], state["ended"]
        self.metrics.load(state["metrics"])

    def end(self) -> None:
        """Tell everyone behind that the source has ended; nothing if it had before the run was resumed."""
        if self.ended:
            return
        self.ended = True
        if self.saver is not None:
            for cell in self.head.cells:
                self.saver.finished(cell.node.id, {**cell.save(), "ended": [True]})
            self.saver.finished(self.node.id, self.save())
        for target in self.down:
            target.receiver.end(target.port, None)
