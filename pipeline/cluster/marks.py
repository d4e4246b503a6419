"""Finding the record that kills its process.

A process that dies takes with it what it was working on. After a first death the run goes on *carefully*: every process
that decodes notes, where the note outlives it, what it is about to work on. If one dies again, its note names the block or
batch; from then on that one is worked on in a child process, record by record, and what kills the child goes to quarantine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..context import Tally
from ..reading import Work
from ..source import Position, Split
from .pieces import Piece

if TYPE_CHECKING:
    from ..cells import Cell
    from .heads import HeadProcess
    from .reader import SplitReading

__all__ = ["HostGuard", "Marks"]


class Marks:
    """What one process notes; `suspects` are notes of processes that died.

    ``write(step, note)`` stores the last note of a step outside the process.
    """

    def __init__(
        self, *, careful: bool = False, suspects: Sequence[str] = (), write: Callable[[str, str], None] | None = None
    ) -> None:
        self.careful = careful
        self._suspects = frozenset(suspects)
        self._write = write
        self._asides: dict[int, Tally] = {}

    def note(self, step: str, split: int, position: Position | None) -> None:
        """The block of a source behind `position` is about to be decoded."""
        if self.careful and self._write is not None:
            self._write(step, _block(step, split, position))

    def note_batch(self, step: str, batch: pa.RecordBatch) -> None:
        """A batch is about to enter a head."""
        if self.careful and self._write is not None:
            self._write(step, _batch(step, batch))

    def skips(self, step: str, split: int, position: Position | None) -> bool:
        """Whether that block was being decoded when a process died."""
        return _block(step, split, position) in self._suspects

    def suspects(self, step: str, batch: pa.RecordBatch) -> bool:
        """Whether that batch was being worked on when a process died."""
        return _batch(step, batch) in self._suspects

    def survivors(self, reading: SplitReading, split: Split, position: Position | None, work: Work) -> Piece:
        """What a child process could make of a block that killed."""
        from .apart import decode_apart

        return decode_apart(reading, split, position, work)

    def run_apart(self, process: HeadProcess, batch: pa.RecordBatch, work: Work) -> None:
        """Run a head on a batch that killed, in a child process; what kills it is set aside."""
        from .apart import run_apart

        self._asides = run_apart(process, batch, work)

    def take_asides(self) -> Mapping[int, Tally]:
        """What the last `run_apart` set aside."""
        found, self._asides = self._asides, {}
        return found


class HostGuard:
    """Guards the stateless cells of a host."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def work(self, cell: Cell, batch: Any) -> Sequence[Any] | None:
        if not self._marks.suspects(cell.node.id, batch):
            self._marks.note_batch(cell.node.id, batch)
            return None
        from .apart import living_rows

        survivors, records = living_rows([cell], batch)
        for record in records:
            cell.context.quarantine(record)
        return cell.operator.process(survivors) if survivors.num_rows else ()


def _block(step: str, split: int, position: Position | None) -> str:
    return json.dumps({"step": step, "split": split, "position": position}, sort_keys=True, default=str)


def _batch(step: str, batch: Any) -> str:
    seq = batch.column("seq")
    first, last = (seq[0].as_py(), seq[-1].as_py()) if batch.num_rows else (None, None)
    return json.dumps({"step": step, "rows": batch.num_rows, "first": first, "last": last}, sort_keys=True)
