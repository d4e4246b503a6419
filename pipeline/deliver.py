"""The sink behind ``for batch in stream``: batches handed to a Python loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from .context import Context
from .inbox import Stopped
from .sink import Sink, SinkSpec

__all__ = ["Deliver", "Delivery"]


@dataclass(frozen=True)
class Deliver(SinkSpec):
    """Hands batches to a Python loop; the pipeline may be `ahead` batches ahead of it."""

    kind: ClassVar[str] = "deliver"
    own_thread: ClassVar[bool] = False

    ahead: int = 2

    @property
    def name(self) -> str:
        return "a Python loop"

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        return Delivery(self.ahead, context.stop)


class Delivery(Sink):
    """A bounded queue from the pipeline to the loop."""

    def __init__(self, ahead: int, stop: threading.Event) -> None:
        self._ahead, self._stop = ahead, stop
        self._ready: deque[pa.RecordBatch] = deque()
        self._changed = threading.Condition()
        #: Without a limit the inline runner, which fills and empties in one thread, cannot block itself.
        self.limited = True
        self._ended = False

    def write(self, batch: pa.RecordBatch) -> None:
        with self._changed:
            while self.limited and len(self._ready) >= self._ahead:
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.1)
            self._ready.append(batch)
            self._changed.notify_all()

    def take(self, timeout: float) -> pa.RecordBatch | None:
        """The next batch, waiting for it up to `timeout` seconds."""
        with self._changed:
            if not self._ready and not self._ended and timeout:
                self._changed.wait(timeout)
            if not self._ready:
                return None
            batch = self._ready.popleft()
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
