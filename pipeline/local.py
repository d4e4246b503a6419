"""The local runner: one thread a stage, several for parallel ones, queues bounded in bytes between them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .cells import Receiver, Sizer
from .hop import Prefetch
from .hop_cells import InferCell
from .inbox import Inbox, InboxPort, Item, Stopped
from .ledger import Trace
from .ordered import OrderedWork
from .plan import Node, Plan, Stage, output_of
from .reading import Work
from .remote import Incoming, Remote
from .runtime import Runtime
from .source import SourceSpec

__all__ = ["LocalRun"]

#: Batches a queue holds at most, however small they are: more only adds latency.
QUEUE_ITEMS = 32


@dataclass(slots=True)
class _Activity:
    """What a thread is doing, for naming a stall."""

    stage: Stage
    doing: str = "starting"
    since: int = 0


class LocalRun:
    """A runtime spread over threads. `start`, then `finished` is set; `error` holds the first failure."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.error: BaseException | None = None
        self.finished = threading.Event()
        self.activities: list[_Activity] = []
        self._inboxes: dict[int, Inbox] = {}
        self._ordered: list[OrderedWork[Any]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._running = 0

    def start(self) -> None:
        """Wire the stages and start their threads."""
        runtime, plan = self.runtime, self.runtime.plan
        for stage in runtime.stages:
            if not isinstance(stage.entry.spec, SourceSpec):
                self._inboxes[stage.index] = self._inbox(plan, stage)
        runtime.wire(self._boundary)
        for stage in runtime.stages:
            for loop in self._loops(stage):
                self._add_thread(stage, loop)
        for edge in runtime.remote.incoming() if runtime.remote is not None else ():
            stage = plan.stage_of(edge.consumer)
            if not runtime.cells[edge.consumer].has_ended(edge.port):
                self._add_thread(stage, self._receiving(edge))
        self._running = len(self._threads)
        for thread in self._threads:
            thread.start()

    def _add_thread(self, stage: Stage, loop: Callable[[_Activity], None]) -> None:
        activity = _Activity(stage, since=self.runtime.clock.monotonic_ns())
        self.activities.append(activity)
        name = f"penstock-{stage.entry.id}"
        self._threads.append(threading.Thread(target=self._guard, args=(loop, activity), name=name, daemon=True))

    def _receiving(self, edge: Incoming) -> Callable[[_Activity], None]:
        receiver = self._inbox_port(edge.producer, edge.consumer, edge.port)

        def receive(activity: _Activity) -> None:
            activity.doing = "receiving"
            edge.run(receiver)

        return receive

    def depths(self) -> dict[str, tuple[int, int]]:
        """Items and bytes that wait in front of each stage, by its first step."""
        stages = [stage for stage in self.runtime.stages if stage.index in self._inboxes]
        return {stage.entry.id: self._inboxes[stage.index].depth for stage in stages}

    def abandon(self) -> None:
        """Ask every thread to stop at its next item."""
        self.runtime.stop.set()
        for inbox in self._inboxes.values():
            inbox.wake()
        for ordered in self._ordered:
            ordered.wake()

    def join(self, timeout: float) -> bool:
        """Wait for the threads up to `timeout` seconds in all; True if all have ended."""
        return self.finished.wait(timeout)

    def _inbox(self, plan: Plan, stage: Stage) -> Inbox:
        runtime, entry = self.runtime, stage.entry
        ancestors = [_sources(link.node) for link in entry.inputs]
        related = any(a & b for i, a in enumerate(ancestors) for b in ancestors[i + 1 :])
        feeder = entry.inputs[0].node
        items = feeder.spec.depth if isinstance(feeder.spec, Prefetch) else QUEUE_ITEMS
        budget = runtime.options.edge_budget
        inbox = Inbox(len(entry.inputs), budget, runtime.clock, runtime.stop, related=related, items=items)
        for port in range(len(entry.inputs)):
            if runtime.cells[entry].has_ended(port):
                inbox.close(port)
        return inbox

    def _boundary(self, producer: Node, consumer: Node, port: int, receiver: Receiver) -> Receiver:
        plan = self.runtime.plan
        stage = plan.stage_of(consumer)
        if stage is plan.stage_of(producer):
            return receiver
        there = self._inbox_port(producer, consumer, port)
        remote = self.runtime.remote
        if remote is not None and remote.pool(plan.stage_of(producer)) is not None:
            return _Fetching(there, remote)
        return there

    def _inbox_port(self, producer: Node, consumer: Node, port: int) -> Receiver:
        plan = self.runtime.plan
        size = Sizer(output_of(consumer.inputs[port])) if not isinstance(producer.spec, Prefetch) else _no_bytes
        inbox = self._inboxes[plan.stage_of(consumer).index]
        return InboxPort(inbox, plan.nodes.index(consumer), size, self.runtime.metrics[producer.id])

    def _loops(self, stage: Stage) -> list[Callable[[_Activity], None]]:
        """What each thread of a stage runs."""
        runtime = self.runtime
        window = stage.workers + 1 if stage.workers > 1 else 1
        if isinstance(stage.entry.spec, SourceSpec):
            reading = runtime.readings[stage.entry]

            def give(work: Work | None) -> None:
                if work is None:
                    reading.end()
                else:
                    reading.deliver(work)

            ordered = OrderedWork(
                reading.frame, reading.decode, give, window, runtime.stop, clock=runtime.clock.monotonic_ns
            )
        elif stage.head and stage.workers > 1:
            ordered = self._parallel_stage(stage, window)
        else:
            return [lambda activity: self._serial_loop(stage, activity)]
        self._ordered.append(ordered)

        def work(activity: _Activity) -> None:
            activity.doing = "reading" if isinstance(stage.entry.spec, SourceSpec) else "working"
            ordered.run()

        return [work] * stage.workers

    def _parallel_stage(self, stage: Stage, window: int) -> OrderedWork[Any]:
        runtime = self.runtime
        inbox, head = self._inboxes[stage.index], runtime.heads(stage)
        first, last = head.cells[0], head.cells[-1]
        pool = runtime.remote.pool(stage) if runtime.remote is not None else None

        def take() -> tuple[Item, Work] | None:
            item = inbox.get()
            return None if item is None else (item, Work())

        def work(pair: tuple[Item, Work]) -> tuple[Item, Work]:
            (what, _, payload, _, trace), result = pair
            if what == "batch":
                try:
                    if pool is not None:
                        result.trace = trace
                        pool.work(head, payload, result)
                    else:
                        head.run(result, [payload], trace, runtime.clock.monotonic_ns)
                except Exception as error:
                    result.error = error
            return pair

        def give(pair: tuple[Item, Work] | None) -> None:
            if pair is None:
                return
            (what, port, payload, _, trace), result = pair
            if result.error is not None:
                raise result.error
            if what == "batch":
                head.settle(result)
                for batch, came in result.batches:
                    last.send(batch, came)
            elif what == "watermark":
                first.advance(payload, port, trace)
            elif what == "barrier":
                first.barrier(payload, port)
            else:
                first.end(port, trace)

        return OrderedWork(take, work, give, window, runtime.stop, clock=runtime.clock.monotonic_ns)

    def _serial_loop(self, stage: Stage, activity: _Activity) -> None:
        inbox, cell = self._inboxes[stage.index], self.runtime.cells[stage.entry]
        clock, metrics = self.runtime.clock.monotonic_ns, self.runtime.metrics[stage.entry.id]
        accelerator = cell if isinstance(cell, InferCell) else None
        while True:
            started = clock()
            activity.doing, activity.since = "waiting for input", started
            item = inbox.get()
            ended = clock()
            metrics.wait_input_ns += ended - started
            if item is None:
                return
            what, port, payload, _, trace = item
            activity.doing, activity.since = "working", ended
            if what == "batch":
                if accelerator is not None:
                    accelerator.waited(started, ended)
                cell.push(payload, port, trace)
            elif what == "watermark":
                cell.advance(payload, port, trace)
            elif what == "barrier":
                cell.barrier(payload, port)
            else:
                cell.end(port, trace)

    def _guard(self, loop: Callable[[_Activity], None], activity: _Activity) -> None:
        try:
            loop(activity)
        except Stopped:
            pass
        except BaseException as error:
            with self._lock:
                if self.error is None:
                    self.error = error
            self.abandon()
        finally:
            activity.doing = "ended"
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self.finished.set()

    def describe_stall(self) -> str:
        """Which stage is stuck, with what, and what it waits for."""
        now = self.runtime.clock.monotonic_ns()
        busy = [a for a in self.activities if a.doing in ("working", "reading")]
        waiting = [a for a in self.activities if a.doing == "waiting for input"]
        lines = []
        for activity in busy or waiting:
            entry = activity.stage.entry
            metrics = self.runtime.metrics[entry.id]
            seconds = (now - activity.since) / 1e9
            what = f"step {entry.id!r} is {activity.doing}"
            if activity.doing == "working":
                what += f" on one batch for {seconds:.1f} s (batch {metrics.batches_in}, row {metrics.rows_in})"
            elif activity.doing == "waiting for input":
                port = self._inboxes[activity.stage.index].waiting_port
                source = entry.inputs[port or 0].node.id
                what += f" from {source!r} for {seconds:.1f} s, {metrics.rows_in} rows so far"
            else:
                what += f", {metrics.rows_out} rows so far"
            lines.append(what)
        return "; ".join(dict.fromkeys(lines))


class _Fetching:
    """Makes batches that other processes computed those of this one."""

    def __init__(self, receiver: Receiver, remote: Remote) -> None:
        self.index, self._receiver, self._local = receiver.index, receiver, remote.local
        self.advance, self.barrier, self.end = receiver.advance, receiver.barrier, receiver.end

    def push(self, batch: Any, port: int, trace: Trace | None) -> None:
        self._receiver.push(self._local(batch), port, trace)


def _sources(node: Node) -> set[str]:
    """The read steps that `node` depends on."""
    if not node.inputs:
        return {node.id}
    return set().union(*(_sources(link.node) for link in node.inputs))


def _no_bytes(_: Any) -> int:
    return 0
