"""Partitions of a topic put into one order that does not depend on which of them came first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ..live.arrival import Arrival

__all__ = ["InTimeOrder", "Piece"]

_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class Piece:
    """A message of a partition, or a gap in it: `next` is the offset behind it."""

    stamp: int
    partition: int
    next: int
    arrivals: tuple[Arrival, ...]

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return _OVERHEAD + sum(len(arrival.data) for arrival in self.arrivals)


class InTimeOrder:
    """Merges by (time, partition), each partition in its own order.

    A piece is given once every partition that has not ended has one waiting, so the order is the same however the
    broker's answers were cut.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self._waiting: dict[int, deque[Piece]] = {partition: deque() for partition in sorted(partitions)}
        self._open = set(self._waiting)
        self._held = dict.fromkeys(self._waiting, 0)

    @property
    def ended(self) -> bool:
        """Whether every partition has ended and all was given."""
        return not self._open and not any(self._waiting.values())

    def is_open(self, partition: int) -> bool:
        """Whether more of `partition` is expected."""
        return partition in self._open

    def add(self, piece: Piece) -> None:
        """The next of its partition."""
        self._waiting[piece.partition].append(piece)
        self._held[piece.partition] += piece.size

    def end(self, partition: int) -> None:
        """No more comes of `partition`."""
        self._open.discard(partition)

    def waiting(self, partition: int) -> Iterable[Piece]:
        """The pieces of `partition` that wait."""
        return self._waiting[partition]

    def held(self, partition: int) -> int:
        """Bytes of `partition` that wait."""
        return self._held[partition]

    def pop(self) -> Piece | None:
        """The next piece, or None until more has come."""
        first: Piece | None = None
        for partition, pieces in self._waiting.items():
            if not pieces:
                if partition in self._open:
                    return None
                continue
            if first is None or pieces[0].stamp < first.stamp:
                first = pieces[0]
        if first is not None:
            self._waiting[first.partition].popleft()
            self._held[first.partition] -= first.size
        return first
