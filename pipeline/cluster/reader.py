"""A process that reads splits of a source: framing, decoding and the stateless steps behind it, ahead of who pulls."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from ..cells import failure
from ..clock import RealClock
from ..inbox import Stopped
from ..plan import Node, Plan
from ..reading import Given, Reading, Work
from ..source import Decoded, Position, SourceSpec, Split
from .heads import HeadProcess
from .marks import Marks
from .outbox import Outbox, Parcels
from .parcels import packed
from .pieces import Piece, costs_of

__all__ = ["SplitReading"]


class SplitReading:
    """Reads the splits it is assigned, in that order, on a thread of its own; at most `budget` bytes ahead."""

    def __init__(self, plan: Plan, source: Node, head: Sequence[Node], budget: int, largest: int, marks: Marks) -> None:
        if not isinstance(source.spec, SourceSpec):
            raise TypeError(f"{source.id} is not a source")
        self.spec, self.source, self._marks = source.spec, source, marks
        self._clock, self._stop = RealClock(), threading.Event()
        self.process = HeadProcess(plan, head, self._clock, self._stop)
        self._index = plan.nodes.index(source)
        self._context = self.process.context(source)
        self.outbox = Outbox(budget, self._clock, self._stop, largest=largest)
        self._assigned: queue.SimpleQueue[tuple[Split, Position | None] | None] = queue.SimpleQueue()
        self._early: dict[int, tuple[Split, Position | None] | None] = {}
        self._turn, self._order = 0, threading.Lock()
        self.rows = self.blocks = 0
        self._thread = threading.Thread(target=self._run, name=f"penstock-{source.id}", daemon=True)
        self._thread.start()

    def assign(self, number: int, split: Split | None, position: Position | None) -> None:
        """Read `split` as the `number`-th, from `position`; None: there are no more. Calls may come in any order."""
        with self._order:
            self._early[number] = None if split is None else (split, position)
            while self._turn in self._early:
                self._assigned.put(self._early.pop(self._turn))
                self._turn += 1

    def pull(self, number: int, credit: int, patience: float) -> Parcels:
        """What is ready; see `Outbox.pull`."""
        return self.outbox.pull(number, credit, patience)

    def _run(self) -> None:
        split: Split | None = None
        try:
            while (assigned := self._assigned.get()) is not None:
                split, position = assigned
                self._read(split, position)
        except Stopped:
            pass
        except BaseException as error:
            self.outbox.put("piece", Piece(split.index if split else 0, error=failure(self.source, error)), 0, 0)
        finally:
            self.process.close()

    def _read(self, split: Split, position: Position | None) -> None:
        reader = self.spec.open(self._context, split, position)
        before = position
        try:
            reading = self._reading = Reading(self._index, self.source, reader, self._context, self.process.head, None)
            while (work := reading.frame()) is not None and work.block is not None:
                if self._stop.is_set():
                    raise Stopped
                if not self._marks.careful or not self._marks.skips(self.source.id, split.index, before):
                    self._marks.note(self.source.id, split.index, before)
                    reading.decode(work)
                    piece = self._piece(split, work)
                else:
                    piece = self._marks.survivors(self, split, before, work)
                before = work.block.after
                size = sum(int(batch.nbytes) for batch, _ in work.batches)
                self.outbox.put("piece", piece, max(1, size), self._clock.monotonic_ns())
                self.rows += piece.records
                self.blocks += 1
                if piece.error is not None:
                    raise Stopped
            self.outbox.put("piece", Piece(split.index), 0, self._clock.monotonic_ns())
        finally:
            reader.close()

    def decode_bare(self, work: Work) -> tuple[Decoded, Given]:
        """Decode a block of the split at hand, without the steps behind."""
        return self._reading.decode_bare(work)

    def _piece(self, split: Split, work: Work) -> Piece:
        asides = self.process.gathering.take()
        if work.error is not None or work.block is None or work.decoded is None or work.trace is None:
            return Piece(split.index, error=work.error or RuntimeError("nothing was decoded"))
        parcels = [packed(batch) for batch, _ in work.batches]
        return Piece(
            split.index,
            work.block.after,
            work.block.records,
            work.block.nbytes,
            work.trace[3] - work.trace[2],
            work.given,
            [parcel for parcel, _ in parcels],
            work.decoded.bad,
            work.decoded.dropped,
            costs_of(self.process.head.cells, work.costs),
            asides,
            copied=sum(copied for _, copied in parcels),
            tallies=[tally for tally in work.tallies if tally],
        )

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._assigned.put(None)
        self.outbox.wake()
