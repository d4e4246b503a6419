"""The inline runner: one thread, one batch at a time, no queues. For tests and the debugger.

Every step runs in the caller's thread, so a breakpoint in a user's function shows the whole pipeline on the stack.
"""

from __future__ import annotations

from collections.abc import Iterator

from .cells import Receiver
from .plan import Node
from .runtime import Runtime

__all__ = ["step_inline"]


def step_inline(runtime: Runtime) -> Iterator[None]:
    """Run `runtime` to its end, pausing after every block of every source.

    The source that is furthest behind in event time goes next; of equals, the first in the plan.
    """
    runtime.wire(_direct)
    alive = [reading for reading in runtime.readings.values() if not reading.ended]
    while alive:
        reading = min(alive, key=lambda candidate: candidate.latest)
        work = reading.frame()
        if work is None:
            reading.end()
            alive.remove(reading)
        else:
            reading.deliver(reading.decode(work))
        del work  # its memory is what the next block is read into
        yield


def _direct(producer: Node, consumer: Node, port: int, receiver: Receiver) -> Receiver:
    return receiver
