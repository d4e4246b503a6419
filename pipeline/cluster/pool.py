"""A stage's stateless head run by other processes: a host calls them and keeps the order.

A call carries a batch and gives back two things: numbers, which the host waits for, and the batches, which stay in the
object store of the node that computed them until the step that wants them asks. So the host that keeps the order never
touches what passes through the pool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..context import Tally
from ..inbox import Stopped
from ..ledger import Trace
from ..reading import Head, Work
from .parcels import Elsewhere, packed
from .pieces import HeadPart

__all__ = ["Computed", "PoolLoad", "RemotePool"]

#: Calls under way at one process: one worked on and one waiting.
_EACH = 2


@dataclass(frozen=True, slots=True)
class Computed:
    """What a process did for one batch, in numbers: rows and bytes of each batch that came out, and the costs."""

    sizes: Sequence[tuple[int, int]] = ()
    costs: Sequence[tuple[int, HeadPart]] = ()
    asides: dict[int, Tally] = field(default_factory=dict)
    error: BaseException | None = None
    copied: int = 0


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """How a pool is doing: its processes, calls that wait for one, calls done, and the time that processes had a call."""

    workers: int
    waiting: int
    calls_done: int
    occupied_ns: int


@dataclass(eq=False, slots=True)
class _Desk:
    worker: Any
    under_way: int = 0


class RemotePool:
    """Processes that all run the same head; the one with the fewest calls under way gets the next."""

    def __init__(
        self,
        workers: Sequence[Any],
        get: Callable[[Any], Any],
        now: Callable[[], int],
        stop: threading.Event | None = None,
    ) -> None:
        self._get, self._now, self._stop = get, now, stop or threading.Event()
        self._changed = threading.Condition()
        self._desks = [_Desk(worker) for worker in workers]
        self._leaving: list[_Desk] = []
        self._waiting = self._calls_done = self._occupied_ns = 0
        self.moved_bytes = self.copied_bytes = 0
        self._counted_at = now()

    @property
    def calls(self) -> int:
        return _EACH * len(self._desks)

    @property
    def load(self) -> PoolLoad:
        """How it is doing now."""
        with self._changed:
            self._count()
            return PoolLoad(len(self._desks), self._waiting, self._calls_done, self._occupied_ns)

    def resize(self, workers: Sequence[Any]) -> int:
        """Use `workers` from the next call on; how many calls are still under way at others, which they end."""
        with self._changed:
            self._count()
            known = {desk.worker: desk for desk in (*self._leaving, *self._desks)}
            self._desks = [known.pop(worker) if worker in known else _Desk(worker) for worker in workers]
            self._leaving = [desk for desk in known.values() if desk.under_way]
            self._changed.notify_all()
            return sum(desk.under_way for desk in self._leaving)

    def _count(self) -> None:
        """Add the time since the last change to what the processes were occupied."""
        now = self._now()
        self._occupied_ns += (now - self._counted_at) * sum(desk.under_way > 0 for desk in self._desks)
        self._counted_at = now

    def _take_desk(self) -> _Desk:
        """The process with the fewest calls, once there is one with room. Raises Stopped."""
        with self._changed:
            self._waiting += 1
            try:
                while (desk := min(self._desks, key=lambda desk: desk.under_way)).under_way >= _EACH:
                    if self._stop.is_set():
                        raise Stopped
                    self._changed.wait(0.25)
            finally:
                self._waiting -= 1
            self._count()
            desk.under_way += 1
            return desk

    def _leave_desk(self, desk: _Desk) -> None:
        with self._changed:
            self._count()
            desk.under_way -= 1
            self._calls_done += 1
            self._changed.notify()

    def work(self, head: Head, batch: Any, work: Work) -> None:
        """Run `head` on `batch` elsewhere; results and costs are left in `work`."""
        desk = self._take_desk()
        started = self._now()
        try:
            parcel, copied = packed(batch)
            numbers, batches = desk.worker.run(parcel)
            computed: Computed = self._get(numbers)
        finally:
            self._leave_desk(desk)
        if computed.error is not None:
            raise computed.error
        work.costs = [(head.cells[place], part.rows, part.nbytes, part.spent) for place, part in computed.costs]
        work.asides = [(head.cells[place], aside) for place, aside in computed.asides.items()]
        with self._changed:
            self.moved_bytes += int(batch.nbytes) + sum(size[1] for size in computed.sizes)
            self.copied_bytes += copied + computed.copied
        ended = self._now()
        trace: Trace = (work.trace, head.cells[-1].index, started, ended, 0, "")
        sizes = enumerate(computed.sizes)
        work.batches = [(Elsewhere(batches, rows, nbytes, index), trace) for index, (rows, nbytes) in sizes]
