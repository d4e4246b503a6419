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

from ..ledger import Trace
from ..reading import Aside, Head, Work
from .parcels import Elsewhere, packed
from .pieces import HeadPart

__all__ = ["Computed", "RemotePool"]


@dataclass(frozen=True, slots=True)
class Computed:
    """What a process did for one batch, in numbers: rows and bytes of each batch that came out, and the costs."""

    sizes: Sequence[tuple[int, int]] = ()
    costs: Sequence[tuple[int, HeadPart]] = ()
    asides: dict[int, Aside] = field(default_factory=dict)
    error: BaseException | None = None


class RemotePool:
    """Processes that all run the same head; the one with the fewest calls under way gets the next."""

    def __init__(self, workers: Sequence[Any], get: Callable[[Any], Any], now: Callable[[], int]) -> None:
        self._get, self._now = get, now
        self._changed = threading.Lock()
        self._workers = list(workers)
        self._under_way = [0] * len(self._workers)
        self.busy_ns = 0
        self.calls_made = 0

    @property
    def calls(self) -> int:
        return 2 * len(self._workers)

    @property
    def size(self) -> int:
        return len(self._workers)

    def resize(self, workers: Sequence[Any]) -> None:
        """Use `workers` from the next call on; calls under way end where they are."""
        with self._changed:
            kept = dict(zip(map(id, self._workers), self._under_way, strict=True))
            self._workers = list(workers)
            self._under_way = [kept.get(id(worker), 0) for worker in self._workers]

    def work(self, head: Head, batch: Any, work: Work) -> None:
        """Run `head` on `batch` elsewhere; results and costs are left in `work`."""
        started = self._now()
        with self._changed:
            chosen = min(range(len(self._workers)), key=self._under_way.__getitem__)
            worker = self._workers[chosen]
            self._under_way[chosen] += 1
            self.calls_made += 1
        try:
            numbers, batches = worker.run(packed(batch)[0])
            computed: Computed = self._get(numbers)
        finally:
            with self._changed:
                if worker in self._workers:
                    self._under_way[self._workers.index(worker)] -= 1
        if computed.error is not None:
            raise computed.error
        work.costs = [(head.cells[place], part.rows, part.nbytes, part.spent) for place, part in computed.costs]
        work.asides = [(head.cells[place], aside) for place, aside in computed.asides.items()]
        ended = self._now()
        with self._changed:
            self.busy_ns += sum(part.spent for _, part in computed.costs)
        trace: Trace = (work.trace, head.cells[-1].index, started, ended, 0, "")
        if computed.sizes:
            rows = sum(size[0] for size in computed.sizes)
            work.batches = [(Elsewhere(batches, rows, sum(size[1] for size in computed.sizes)), trace)]
