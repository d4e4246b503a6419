"""The sink behind ``for batch in stream``: batches handed to a Python loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from .cells import Sizer
from .context import Context
from .inbox import Stopped
from .sink import Sink, SinkSpec

__all__ = ["Deliver", "Delivery"]


@dataclass(frozen=True)
class Deliver(SinkSpec):
    """Hands batches to a Python loop, which the pipeline may be ahead of by up to `ahead` small batches.

    A loop that takes every batch as it comes would have the interpreter change threads for each; so small batches
    gather, and whoever waits is woken when there is something worth waking for. Large batches wait in twos.
    """

    kind: ClassVar[str] = "deliver"
    own_thread: ClassVar[bool] = False
    digested: ClassVar[bool] = False

    ahead: int = 32
    ahead_bytes: int = 4 << 20

    @property
    def name(self) -> str:
        return "a Python loop"

    def state_bound(self, schema: pa.Schema) -> int:
        return self.ahead_bytes

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        return Delivery(self, Sizer(schema), context.stop)


class Delivery(Sink):
    """A bounded queue from the pipeline to the loop."""

    def __init__(self, spec: Deliver, size: Sizer, stop: threading.Event) -> None:
        self._spec, self._size, self._stop = spec, size, stop
        self._ready: deque[pa.RecordBatch] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._filling = False
        #: Without a limit the inline runner, which fills and empties in one thread, cannot block itself.
        self.limited = True
        self._ended = False

    def write(self, batch: pa.RecordBatch) -> None:
        nbytes = self._size(batch)
        with self._changed:
            if self.limited and self._full(nbytes):
                self._filling = True
                while self._filling:
                    if self._stop.is_set():
                        raise Stopped
                    self._changed.wait(0.1)
            self._ready.append(batch)
            self._bytes += nbytes
            if len(self._ready) == 1:
                self._changed.notify_all()

    def _full(self, nbytes: int) -> bool:
        waiting = len(self._ready)
        return waiting >= self._spec.ahead or (waiting >= 2 and self._bytes + nbytes > self._spec.ahead_bytes)

    def _half_empty(self) -> bool:
        few = len(self._ready) <= self._spec.ahead // 2
        return few and (len(self._ready) <= 1 or self._bytes <= self._spec.ahead_bytes // 2)

    def take(self, timeout: float) -> pa.RecordBatch | None:
        """The next batch, waiting for it up to `timeout` seconds."""
        with self._changed:
            if not self._ready and not self._ended and timeout:
                self._changed.wait(timeout)
            if not self._ready:
                return None
            batch = self._ready.popleft()
            self._bytes -= self._size(batch)
            if self._filling and self._half_empty():
                self._filling = False
                self._changed.notify_all()
            return batch

    @property
    def ended(self) -> bool:
        return self._ended

    def end(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def commit(self) -> None:
        """Everything was handed over."""

    def abort(self) -> None:
        self._ready.clear()

    def drain(self) -> Iterator[pa.RecordBatch]:
        """The batches that are ready."""
        while (batch := self.take(0)) is not None:
            yield batch
