"""``for batch in stream``: a run whose sink is the caller's loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from .deliver import Deliver, Delivery
from .errors import PlanError
from .graph import Graph, Port, Step, StepOptions
from .inline import step_inline
from .options import RunOptions
from .quarantine import Quarantine
from .run import Session, session
from .site import calling_site

__all__ = ["delivery_step", "iterate"]

log = logging.getLogger("penstock")


def delivery_step(port: Port) -> Step:
    """The step that ends `port` in a Python loop."""
    return Step("deliver", Deliver(), (port,), port.schema, calling_site(), StepOptions())


def iterate(port: Port, *, runner: str = "local", **options: Any) -> Iterator[pa.RecordBatch]:
    """The batches of a stream's `port`, in order. Closing the iterator stops the run. A loop gets no report: the first
    record that is put aside is logged as a warning, and at the end how many there were. Raises PlanError for a runner that
    has no way to feed a Python loop.
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
        aside = _Aside(current.runtime.quarantine)
        if current.local is None:
            delivery.limited = False
            for _ in step_inline(current.runtime):
                aside.tell_first()
                yield from delivery.drain()
        else:
            current.local.start()
            for batch in _follow(current, delivery):
                aside.tell_first()
                yield batch
        yield from delivery.drain()
        current.close(commit=True)
        aside.tell_all()


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


class _Aside:
    """Says that records were put aside: of the first as soon as it is known, and at the end of how many."""

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine, self._told = quarantine, False

    def tell_first(self) -> None:
        if self._told or not self._quarantine.total:
            return
        self._told = True
        for step, record in self._quarantine.records()[:1]:
            log.warning("step %r puts a record aside: %s: %s", step, record.place, record.error)

    def tell_all(self) -> None:
        self.tell_first()
        total = self._quarantine.total
        if total > 1:
            log.warning("%s records were put aside; quarantine=FOLDER keeps them all", f"{total:,}")
