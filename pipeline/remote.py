"""What a process needs to know when only part of a plan runs in it: `Runtime` and `LocalRun` ask, a runner answers.

Everything else is as on one machine, so the rows cannot differ.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .cells import Receiver
from .context import Context, StageMetrics
from .operator import Operator, State
from .pace import Pacer
from .plan import Node, Stage
from .reading import Head, Reading, Work

__all__ = ["Incoming", "Pool", "Remote"]


@dataclass(frozen=True, slots=True)
class Incoming:
    """An edge from another process into input `port` of `consumer`: `run` hands on what comes until it has ended."""

    producer: Node
    consumer: Node
    port: int
    run: Callable[[Receiver], None]


class Pool(Protocol):
    """Other processes that run the stateless head of a stage."""

    @property
    def calls(self) -> int:
        """How many calls to have under way at once."""
        ...

    def work(self, head: Head, batch: Any, work: Work) -> None:
        """Run the head on a batch; results and costs are left in `work`. Any number of threads at once."""
        ...


class Remote(Protocol):
    """The part of a plan that runs here, and how to reach the rest."""

    #: Set when the run is being abandoned.
    stop: threading.Event
    #: The counters of every step, from the runtime.
    metrics: Mapping[str, StageMetrics]

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages of this process, in topological order."""
        ...

    def reading(
        self, index: int, node: Node, context: Context, pacer: Pacer | None, state: State | None
    ) -> Reading | None:
        """A source that is read by other processes and delivered here; None if it is read here."""
        ...

    def operator(self, node: Node, context: Context) -> Operator | None:
        """An operator whose work other processes do; None if it runs here."""
        ...

    def outgoing(self, producer: Node, consumer: Node, port: int) -> Receiver:
        """Where to send what a step in another process reads."""
        ...

    def incoming(self) -> Sequence[Incoming]:
        """The edges that come from other processes."""
        ...

    def pool(self, stage: Stage) -> Pool | None:
        """Who runs the head of a stage; None if it runs here."""
        ...

    def local(self, batch: Any) -> Any:
        """A batch as a step in this process wants it."""
        ...
