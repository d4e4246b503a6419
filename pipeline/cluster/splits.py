"""One source read by several processes, put in order again.

The source is divided into many more splits than there are readers, each about as large as what a reader may be ahead.
Readers get them in turn; pieces are taken split by split, so the rows come in the order of the recording whichever reader
is faster. A reader has two splits to work on, so it never waits to be told what is next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..context import Context
from ..ledger import Trace
from ..operator import State
from ..pace import Pacer
from ..plan import Node
from ..reading import Head, Reading, Work
from ..source import Block, Decoded, Position, SourceReader, SourceSpec, Split
from ..split_reading import split_position
from .parcels import opened
from .pieces import Piece
from .puller import PATIENCE

__all__ = ["RemoteReading", "SplitFeed", "SplitReaderHandle", "division_of"]

#: What a split should hold, as stored; and how many there are at most, but enough that no reader idles long at the end.
_SPLIT_BYTES = 2 << 20
_MOST_SPLITS, _MOST_EACH = 4096, 16
_ASSIGNED = 2
_UNDER_WAY = 2


class SplitReaderHandle(Protocol):
    """A reader in another process, by its calls; both give Ray references."""

    def assign(self, number: int, split: Split | None, position: Position | None) -> Any: ...

    def pull(self, number: int, credit: int, patience: float) -> Any: ...


def division_of(spec: SourceSpec, state: State | None, readers: int) -> tuple[int, int, Position | None]:
    """Into how many splits to divide for so many readers, which is the first, and where in it to begin.

    A run that goes on uses the division it began with. One that began undivided reads the rest undivided.
    """
    position = state["position"] if state is not None else None
    if position is not None:
        if "division" not in position:
            return 1, 0, position
        return int(position["division"]), int(position["split"]), position["at"]
    path = getattr(spec, "path", None)
    size = Path(path).stat().st_size if isinstance(path, (str, Path)) and Path(path).is_file() else 0
    wanted = spec.splits_wanted or -(-size // _SPLIT_BYTES)
    return max(1, min(max(_MOST_SPLITS, _MOST_EACH * readers), wanted)), 0, None


class SplitFeed(SourceReader):
    """Takes pieces from `readers` in the order of the splits. Used by one thread."""

    def __init__(
        self,
        spec: SourceSpec,
        readers: Sequence[SplitReaderHandle],
        state: State | None,
        credit: int,
        get: Callable[[Any], Any],
    ) -> None:
        self._readers, self._credit, self._get = list(readers), credit, get
        self.division, first, self._at = division_of(spec, state, len(self._readers))
        self._splits = list(spec.splits(self.division))[first:]
        self._owners: dict[int, int] = {}
        self._given = 0
        self._told = [0] * len(readers)
        self._calls = [0] * len(readers)
        self._under_way: list[deque[Any]] = [deque() for _ in readers]
        self._arrived: list[deque[tuple[Piece, int]]] = [deque() for _ in readers]
        self.moved_bytes = self.copied_bytes = 0
        for _ in range(_ASSIGNED):
            for reader in range(len(readers)):
                self._assign(reader)
        for reader in range(len(readers)):
            self._ask(reader)

    def _assign(self, reader: int) -> None:
        if self._given < len(self._splits):
            split = self._splits[self._given]
            self._owners[split.index] = reader
            self._tell(reader, split, self._at)
            self._at = None
            self._given += 1
        elif self._given == len(self._splits):
            self._given += 1
            for other in range(len(self._readers)):
                self._tell(other, None, None)

    def _tell(self, reader: int, split: Split | None, position: Position | None) -> None:
        self._readers[reader].assign(self._told[reader], split, position)
        self._told[reader] += 1

    def _ask(self, reader: int) -> None:
        while len(self._under_way[reader]) < _UNDER_WAY:
            credit = max(1, self._credit // _UNDER_WAY)
            self._under_way[reader].append(self._readers[reader].pull(self._calls[reader], credit, PATIENCE))
            self._calls[reader] += 1

    def pieces(self) -> Iterator[tuple[Piece, int]]:
        """Every piece in order, with its age in ns; empty splits have none."""
        for split in self._splits:
            reader = self._owners[split.index]
            while True:
                piece, age = self._next(reader)
                if piece.after is None and piece.error is None:
                    break
                yield piece, age
            self._assign(reader)

    def _next(self, reader: int) -> tuple[Piece, int]:
        arrived = self._arrived[reader]
        while not arrived:
            self._ask(reader)
            for _, piece, nbytes, age in self._get(self._under_way[reader].popleft()):
                arrived.append((piece, age))
                self.moved_bytes += nbytes
                self.copied_bytes += piece.copied
            self._ask(reader)
        return arrived.popleft()

    def blocks(self) -> Iterator[Block]:
        raise NotImplementedError("pieces are decoded where they were read")

    def decode(self, block: Block) -> Decoded:
        raise NotImplementedError("pieces are decoded where they were read")


class RemoteReading(Reading):
    """A source whose blocks other processes decode; delivered, counted and cut here."""

    def __init__(self, index: int, node: Node, feed: SplitFeed, context: Context, pacer: Pacer | None) -> None:
        super().__init__(index, node, feed, context, Head([]), pacer)
        self._feed = feed
        self._pieces: Iterator[tuple[Piece, int]] | None = None

    def frame(self) -> Work | None:
        if self.ended:
            return None
        if self._pieces is None:
            self._pieces = self._feed.pieces()
        started = self._now()
        found = next(self._pieces, None)
        if found is None:
            return None
        piece, age = found
        if piece.error is not None:
            return Work(error=piece.error)
        now = self._now()
        self.metrics.wait_input_ns += now - started
        after = split_position(self._feed.division, piece.split, piece.after)
        trace: Trace = (None, self.index, now - age - piece.busy_ns, now - age, 0, "decode")
        cells = self.head.cells
        return Work(
            batches=[(opened(batch), trace) for batch in piece.batches],
            decoded=Decoded((), piece.bad, piece.dropped),
            given=piece.given,
            block=Block(0, 0, piece.records, piece.nbytes, after, None),
            costs=[(cells[place], part.rows, part.nbytes, part.spent) for place, part in piece.costs],
            asides=[(cells[place], aside) for place, aside in piece.asides.items()],
            trace=trace,
            tallies=list(piece.tallies),
        )

    def decode(self, work: Work) -> Work:
        return work
