"""Several workers, one order: items are taken in turn, worked on at once, and given on in the order they were taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from .inbox import Stopped

__all__ = ["OrderedWork"]

T = TypeVar("T")


class OrderedWork(Generic[T]):
    """`take` and `give` are called by one worker at a time, in the same order; `work` by any number at once.

    At most `window` items are between the two, so that a slow `give` holds back `take`. `take` gives None at the end,
    which is given on as the last item.

    Workers that would only hand the interpreter's lock to and fro are worse than none: while an item takes less than
    `worthwhile_ns` on average, all but the first pause.
    """

    def __init__(
        self,
        take: Callable[[], T | None],
        work: Callable[[T], T],
        give: Callable[[T | None], None],
        window: int,
        stop: threading.Event,
        *,
        clock: Callable[[], int],
        worthwhile_ns: int = 250_000,
    ) -> None:
        self._take, self._work, self._give = take, work, give
        self._window, self._stop = window, stop
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._taken = 0
        self._given = 0
        self._exhausted = False
        self._done: dict[int, T | None] = {}
        self._giving = False
        self._clock, self._worthwhile_ns = clock, worthwhile_ns
        self._mean_ns = float(worthwhile_ns)
        self._workers = 0

    def run(self) -> None:
        """What each worker runs until the end. Raises Stopped when the run is abandoned."""
        with self._changed:
            first = self._workers == 0
            self._workers += 1
        while True:
            if not first:
                self._pause_while_not_worthwhile()
            with self._taking:
                if self._exhausted:
                    return
                self._wait_for_room()
                item = self._take()
                ticket = self._taken
                self._taken += 1
                self._exhausted = item is None
            if item is not None:
                started = self._clock()
                item = self._work(item)
                self._mean_ns += (self._clock() - started - self._mean_ns) / 8
            self._finish(ticket, item)

    def _pause_while_not_worthwhile(self) -> None:
        while self._mean_ns < self._worthwhile_ns and not self._exhausted and not self._stop.wait(0.02):
            pass

    def _wait_for_room(self) -> None:
        with self._changed:
            while self._taken - self._given >= self._window:
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.25)
        if self._stop.is_set():
            raise Stopped

    def _finish(self, ticket: int, item: T | None) -> None:
        """Leave a finished item; give on whatever is next in order, unless another worker is doing so."""
        with self._changed:
            self._done[ticket] = item
            if self._giving:
                return
            self._giving = True
        while True:
            with self._changed:
                if self._given not in self._done:
                    self._giving = False
                    return
                following = self._done.pop(self._given)
            self._give(following)
            with self._changed:
                self._given += 1
                self._changed.notify_all()

    def wake(self) -> None:
        """Let workers look at the stop event."""
        with self._changed:
            self._changed.notify_all()
