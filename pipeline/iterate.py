"""``for batch in stream``: a run whose sink is the caller's loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from .deliver import Deliver, Delivery
from .errors import PlanError
from .graph import Graph, Port, Step, StepOptions
from .inline import step_inline
from .options import RunOptions
from .run import Session, session
from .site import calling_site

__all__ = ["delivery_step", "iterate"]


def delivery_step(port: Port) -> Step:
    """The step that ends `port` in a Python loop."""
    return Step("deliver", Deliver(), (port,), port.schema, calling_site(), StepOptions())


def iterate(port: Port, *, runner: str = "local", **options: Any) -> Iterator[pa.RecordBatch]:
    """The batches of a stream's `port`, in order. Closing the iterator stops the run. Raises PlanError for a runner that has
    no way to feed a Python loop.
    """
    if runner == "ray":
        raise PlanError("a Python loop runs with runner='local' or 'inline'; end the stream in a sink to run on Ray")
    return _batches(Graph((delivery_step(port),)), runner, RunOptions(**options))


def _batches(graph: Graph, runner: str, options: RunOptions) -> Iterator[pa.RecordBatch]:
    with session(graph, runner, options) as current:
        (cell,) = current.runtime.sinks()
        delivery = cell.sink
        if not isinstance(delivery, Delivery):
            raise TypeError("the last step does not deliver")
        cell.on_end = delivery.end
        if current.local is None:
            delivery.limited = False
            for _ in step_inline(current.runtime):
                yield from delivery.drain()
        else:
            current.local.start()
            yield from _follow(current, delivery)
        yield from delivery.drain()
        current.close(commit=True)


def _follow(current: Session, delivery: Delivery) -> Iterator[pa.RecordBatch]:
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
