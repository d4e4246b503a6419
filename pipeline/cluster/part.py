"""The part of a plan that one host runs, and its ways to the others: `Remote` over Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..cells import Receiver, Sizer
from ..clock import RealClock
from ..context import Context, StageMetrics
from ..operator import Operator, State
from ..pace import Pacer
from ..plan import Node, Stage, output_of
from ..reading import Reading
from ..remote import Incoming
from ..source import SourceSpec
from .divided import DividedOperator
from .layout import Layout, edges
from .outbox import LARGEST, Outbox, OutboxPort
from .parcels import opened
from .pool import RemotePool
from .puller import Puller
from .splits import RemoteReading, SplitFeed

__all__ = ["Part", "Staff", "edge_name"]


def edge_name(consumer: Node, port: int) -> str:
    """What the edge into `port` of `consumer` is called in calls and reports."""
    return f"{consumer.id}:{port}"


@dataclass
class Staff:
    """The processes of a run, as the handles of their calls: hosts by index, readers and pools by what they serve."""

    hosts: dict[int, Any] = field(default_factory=dict)
    readers: dict[str, list[Any]] = field(default_factory=dict)
    pools: dict[int, list[Any]] = field(default_factory=dict)
    parts: dict[str, list[Any]] = field(default_factory=dict)


class Part:
    """What `Runtime` and `LocalRun` ask in a process that runs host `index` of `layout`."""

    def __init__(
        self,
        layout: Layout,
        index: int,
        staff: Staff,
        *,
        budgets: Mapping[str, int],
        get: Callable[[Any], Any],
    ) -> None:
        self.layout, self.index, self.staff = layout, index, staff
        self._budgets, self._get = budgets, get
        self.metrics: Mapping[str, StageMetrics] = {}
        self.stop = threading.Event()
        clock = self._clock = RealClock()
        self.outboxes: dict[str, Outbox] = {}
        self.pullers: dict[str, Puller] = {}
        self.feeds: dict[str, SplitFeed] = {}
        self.pools: dict[int, RemotePool] = {}
        self.divided: list[DividedOperator] = []
        for producer, consumer, port in _crossing(layout, index):
            name = edge_name(consumer, port)
            if layout.host_of(producer).index == index:
                self.outboxes[name] = Outbox(budgets[name], clock, self.stop, largest=budgets.get(LARGEST))
        for stage in self.stages:
            if stage.index in layout.pools:
                self.pools[stage.index] = RemotePool(staff.pools[stage.index], get, clock.monotonic_ns, self.stop)

    @property
    def stages(self) -> Sequence[Stage]:
        return self.layout.hosts[self.index].stages

    def reading(
        self, index: int, node: Node, context: Context, pacer: Pacer | None, state: State | None
    ) -> Reading | None:
        if not isinstance(node.spec, SourceSpec) or (state is not None and state["ended"]):
            return None
        feed = SplitFeed(node.spec, self.staff.readers[node.id], state, self._budgets[node.id], self._get)
        self.feeds[node.id] = feed
        return RemoteReading(index, node, feed, context, pacer)

    def operator(self, node: Node, context: Context) -> Operator | None:
        parts = self.staff.parts.get(node.id)
        if parts is None:
            return None
        self.divided.append(DividedOperator(node, parts, context, self._get))
        return self.divided[-1]

    def outgoing(self, producer: Node, consumer: Node, port: int) -> Receiver:
        outbox = self.outboxes[edge_name(consumer, port)]
        index = self.layout.plan.nodes.index(consumer)
        size = Sizer(output_of(consumer.inputs[port]))
        return OutboxPort(outbox, index, size, self.metrics[producer.id], self._clock)

    def incoming(self) -> Sequence[Incoming]:
        found = []
        for producer, consumer, port in _crossing(self.layout, self.index):
            if self.layout.host_of(consumer).index == self.index:
                found.append(Incoming(producer, consumer, port, self._receive(producer, consumer, port)))
        return found

    def _receive(self, producer: Node, consumer: Node, port: int) -> Callable[[Receiver], None]:
        name = edge_name(consumer, port)
        handle = self.staff.hosts[self.layout.host_of(producer).index]
        index = self.layout.plan.nodes.index(producer)

        def run(receiver: Receiver) -> None:
            puller = Puller(
                lambda number, credit, patience: handle.pull(name, number, credit, patience),
                self._get, receiver, port, index, self._budgets[name], self._clock, self.stop,
            )  # fmt: skip
            self.pullers[name] = puller
            puller.run()

        return run

    def pool(self, stage: Stage) -> RemotePool | None:
        return self.pools.get(stage.index)

    @property
    def traffic(self) -> tuple[int, int]:
        """Payload bytes that went through the object store on behalf of this host, and bytes copied on the way there."""
        ways: list[_Way] = [*self.outboxes.values(), *self.feeds.values(), *self.pools.values(), *self.divided]
        return sum(way.moved_bytes for way in ways), sum(way.copied_bytes for way in ways)

    def local(self, batch: Any) -> Any:
        return opened(batch, self._get)

    def wake(self) -> None:
        """Let everyone who waits at an edge look at the stop event."""
        for outbox in self.outboxes.values():
            outbox.wake()


class _Way(Protocol):
    """What counts the payload that goes through it."""

    moved_bytes: int
    copied_bytes: int


def _crossing(layout: Layout, index: int) -> list[tuple[Node, Node, int]]:
    return [e for e in edges(layout) if index in (layout.host_of(e[0]).index, layout.host_of(e[1]).index)]
