"""``for batch in stream``: a run whose sink is the caller's loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from .context import Context
from .flow import Flow
from .graph import Graph, Step, StepOptions
from .inbox import Stopped
from .inline import step_inline
from .options import RunOptions
from .plan import Link, Node, Plan, group_stages, output_of
from .run import Session, session
from .runtime import Runtime
from .sink import Sink, SinkSpec
from .site import calling_site
from .stream import Stream

__all__ = ["Deliver", "deliver", "iterate", "iterate_plan"]


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
        return _Delivery(self.ahead, context.stop)


class _Delivery(Sink):
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


def deliver(stream: Stream, ahead: int = 2) -> tuple[Flow, Deliver]:
    """`stream` closed with a loop at its end."""
    spec = Deliver(ahead)
    step = Step("deliver", spec, (stream.port,), stream.schema, calling_site(), StepOptions())
    return Flow((step,)), spec


def iterate(stream: Stream, *, runner: str = "local", **options: Any) -> Iterator[pa.RecordBatch]:
    """The batches of `stream`, in order. Closing the iterator stops the run."""
    flow, _ = deliver(stream)
    return _batches(flow.graph, runner, RunOptions(**options))


def _batches(graph: Graph, runner: str, options: RunOptions) -> Iterator[pa.RecordBatch]:
    with session(graph, runner, options) as current:
        (cell,) = current.runtime.sinks()
        delivery = cell.sink
        if not isinstance(delivery, _Delivery):
            raise TypeError("the last step does not deliver")
        cell.on_end = delivery.end
        if current.local is None:
            delivery.limited = False
            for _ in step_inline(current.runtime):
                yield from _drain(delivery)
        else:
            current.local.start()
            yield from _follow(current, delivery)
        yield from _drain(delivery)
        current.close(commit=True)


def _follow(current: Session, delivery: _Delivery) -> Iterator[pa.RecordBatch]:
    local = current.local
    while local is not None:
        batch = delivery.take(0.1)
        if batch is not None:
            yield batch
            continue
        ended = delivery.ended and local.join(0.1)
        current.watch.look()
        if local.error is not None:
            raise local.error
        if ended or local.finished.is_set():
            return


def _drain(delivery: _Delivery) -> Iterator[pa.RecordBatch]:
    while (batch := delivery.take(0)) is not None:
        yield batch


def iterate_plan(plan: Plan, end: Link, options: RunOptions) -> Generator[pa.RecordBatch, None, None]:
    """The batches that flow over one link of a plan, run inline; nothing is kept of what it sets aside."""
    needed: list[Node] = []

    def collect(node: Node) -> None:
        for link in node.inputs:
            collect(link.node)
        if node not in needed:
            needed.append(node)

    collect(end.node)
    sink = Node("deliver", Deliver(), [end], output_of(end), end.node.site)
    part = Plan([*needed, sink])
    group_stages(part, 1)
    runtime = Runtime(part, replace(options, quarantine=None, speed=None))
    runtime.open()
    try:
        (cell,) = runtime.sinks()
        delivery = cell.sink
        if isinstance(delivery, _Delivery):
            delivery.limited = False
            for _ in step_inline(runtime):
                yield from _drain(delivery)
    finally:
        runtime.stop.set()
        runtime.close(commit=False)
