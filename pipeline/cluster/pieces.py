"""What the processes that decode send to the one that keeps the order: a block's batches, and everything counted on the way.

Nothing is counted where it is decoded. A block that was decoded but not delivered when a process was lost is decoded again,
and is counted, put aside and delivered once, by the process that keeps the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..cells import Cell
from ..context import BadRecord, Context, StageMetrics, Tally
from ..reading import Given
from ..source import Position

__all__ = ["Gathering", "HeadPart", "Piece", "costs_of"]


@dataclass(frozen=True, slots=True)
class HeadPart:
    """What one step of a head did for a batch: rows and bytes in, ns spent, and what it set aside."""

    rows: int
    nbytes: int
    spent: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A decoded block of split `split`, or that split's end (``after`` is None then)."""

    split: int
    after: Position | None = None
    records: int = 0
    nbytes: int = 0
    busy_ns: int = 0
    given: Given | None = None
    batches: Sequence[Any] = ()
    bad: Sequence[BadRecord] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    costs: Sequence[tuple[int, HeadPart]] = ()
    asides: Mapping[int, Tally] = field(default_factory=dict)
    error: BaseException | None = None
    copied: int = 0
    tallies: Sequence[Tally] = ()


class Gathering:
    """Counts of the steps of a head while they work on one batch; used by the one thread that works."""

    def __init__(self) -> None:
        self._bad: dict[str, list[BadRecord]] = {}
        self._contexts: list[Context] = []

    def set_aside(self, step: str, record: BadRecord) -> None:
        """The quarantine of the steps' contexts."""
        self._bad.setdefault(step, []).append(record)

    def watch(self, context: Context) -> None:
        """Gather what is counted through `context`."""
        self._contexts.append(context)

    def take(self) -> dict[int, Tally]:
        """What was counted since the last call, by position of the step."""
        found = {}
        for position, context in enumerate(self._contexts):
            metrics = context.metrics
            bad = self._bad.pop(context.step, [])
            if bad or metrics.dropped or metrics.noted or metrics.bytes_copied:
                found[position] = Tally(bad, dict(metrics.dropped), dict(metrics.noted), metrics.bytes_copied)
                _clear(metrics)
        return found


def _clear(metrics: StageMetrics) -> None:
    metrics.dropped.clear()
    metrics.noted.clear()
    metrics.bytes_copied = 0
    metrics.quarantined = 0


def costs_of(cells: Sequence[Cell], costs: Sequence[tuple[Cell, int, int, int]]) -> list[tuple[int, HeadPart]]:
    """Costs by position of the step in its head, as they travel."""
    places = {id(cell): position for position, cell in enumerate(cells)}
    return [(places[id(cell)], HeadPart(rows, nbytes, spent)) for cell, rows, nbytes, spent in costs]
