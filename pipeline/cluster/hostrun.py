"""A host at work: part of a plan on the threads of one process, and what the driver asks of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from ..accounting import accelerator_report
from ..cells import Cell
from ..context import BadRecord
from ..hop_cells import InferCell
from ..local import LocalRun
from ..operator import State
from ..options import RunOptions
from ..plan import Node
from ..quarantine import Quarantine
from ..runtime import Runtime
from ..state_codec import decode_state, encode_state
from ..watch import resident_bytes
from .caution import Caution
from .layout import Layout
from .losses import loss_of
from .marks import HostGuard
from .outbox import Parcels
from .part import Part, Staff
from .pool import PoolLoad

__all__ = ["HostRun", "HostSetup", "Status", "head_nodes"]


@dataclass(frozen=True)
class HostSetup:
    """What a host is told: which one it is, who its neighbours are, where to go on."""

    index: int
    staff: Staff
    options: RunOptions
    budgets: Mapping[str, int]
    states: Mapping[str, bytes] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    saves: bool = False
    caution: Caution = field(default_factory=Caution)


@dataclass(frozen=True, slots=True)
class Status:
    """How a process is doing. What it `saved`, what `finished` and what is `bad` is told once."""

    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    latest: Mapping[str, int] = field(default_factory=dict)
    saved: Sequence[tuple[int, str, bytes]] = ()
    finished: Sequence[tuple[str, bytes]] = ()
    bad: Sequence[tuple[str, BadRecord]] = ()
    lost: str | None = None
    error: BaseException | None = None
    ended: bool = False
    queues: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    moved_bytes: int = 0
    copied_bytes: int = 0
    pools: Mapping[int, PoolLoad] = field(default_factory=dict)
    accelerator: Mapping[str, Any] | None = None
    delivered_bytes: int = 0
    resident_bytes: int = 0
    data_bytes: int = 0
    largest_lag_ns: int = 0
    stall: str = ""


class _Forwarding(Quarantine):
    """Bad records on their way to the driver."""

    def __init__(self) -> None:
        super().__init__(keep=0)
        self._waiting: list[tuple[str, BadRecord]] = []

    def add(self, step: str, record: BadRecord) -> None:
        self._waiting.append((step, record))

    def take(self) -> list[tuple[str, BadRecord]]:
        """Those since the last call."""
        taken = self._waiting[:]
        del self._waiting[: len(taken)]
        return taken


class HostRun:
    """Runs one host; a `Saver` that keeps what was saved until the driver asks."""

    def __init__(self, setup: HostSetup, layout: Layout, get: Callable[[Any], Any]) -> None:
        self.part = Part(layout, setup.index, setup.staff, budgets=setup.budgets, get=get)
        resumed = {step: decode_state(part) for step, part in setup.states.items()}
        options = replace(setup.options, checkpoint=None, resume=False, quarantine=None)
        self.runtime = Runtime(layout.plan, options, setup.calibration, resumed, self.part)
        self._bad = _Forwarding()
        self.runtime.quarantine = self._bad
        self._lock = threading.Lock()
        self._saved: list[tuple[int, str, bytes]] = []
        self._finished: list[tuple[str, bytes]] = []
        self.runtime.open()
        if setup.saves:
            self.runtime.save_to(self)
        if setup.caution.careful:
            guard = HostGuard(setup.caution.marks())
            for cell in self.runtime.cells.values():
                if isinstance(cell, Cell) and cell.node.stateless:
                    cell.guard = guard
        self.local = LocalRun(self.runtime)
        self._ceilings = setup.options.ceiling

    def start(self) -> None:
        """Begin to work."""
        self.local.start()

    def saved(self, number: int, step: str, state: State) -> None:
        part = encode_state(state)
        with self._lock:
            self._saved.append((number, step, part))

    def finished(self, step: str, state: State) -> None:
        part = encode_state(state)
        with self._lock:
            self._finished.append((step, part))

    def ask(self, number: int, times: Mapping[str, int]) -> None:
        """Let the sources here cut checkpoint `number` when they have reached their times."""
        for node, reading in self.runtime.readings.items():
            if node.id in times and not reading.ended:
                reading.asked = (number, times[node.id])

    def pull(self, edge: str, number: int, credit: int, patience: float) -> Parcels:
        """What is ready on an edge that leaves here."""
        return self.part.outboxes[edge].pull(number, credit, patience)

    def status(self) -> Status:
        """How the host is doing."""
        runtime = self.runtime
        ended = self.local.finished.is_set()
        with self._lock:
            saved, self._saved = self._saved, []
            finished, self._finished = self._finished, []
        slots = sum(ring.nbytes for ring in runtime.rings.values())
        hops = [cell for cell in runtime.cells.values() if isinstance(cell, InferCell)]
        moved, copied = self.part.traffic
        accelerator = None
        if hops:
            if ended and self._ceilings and not runtime.ceilings:
                runtime.measure_ceilings()
            accelerator = accelerator_report(runtime, hops[0])
        return Status(
            metrics={node.id: runtime.metrics[node.id].save() for node in runtime.nodes},
            latest={node.id: reading.latest for node, reading in runtime.readings.items() if not reading.ended},
            saved=saved,
            finished=finished,
            bad=self._bad.take(),
            lost=loss_of(self.local.error),
            error=self.local.error,
            ended=ended,
            queues=self._queues(),
            moved_bytes=moved,
            copied_bytes=copied,
            pools={index: pool.load for index, pool in self.part.pools.items()},
            accelerator=accelerator,
            delivered_bytes=sum(cell.delivered_bytes for cell in hops),
            resident_bytes=resident_bytes(),
            data_bytes=pa.total_allocated_bytes() + runtime.pool.leased_bytes + runtime.pool.idle_bytes + slots,
            largest_lag_ns=runtime.pacer.largest_lag_ns if runtime.pacer is not None else 0,
            stall=self.local.describe_stall(),
        )

    def _queues(self) -> dict[str, tuple[int, int]]:
        waiting = {f"{name} (out)": (box.depth, box.waiting_bytes) for name, box in self.part.outboxes.items()}
        return {**self.local.depths(), **waiting}

    def resize(self, stage: int, workers: Sequence[Any]) -> int:
        """Use these processes for the pool of a stage; how many calls are under way at those who left it."""
        return self.part.pools[stage].resize(workers)

    def close(self) -> None:
        """Abandon whatever is going on."""
        self.runtime.stop.set()
        self.local.abandon()
        self.part.wake()
        self.local.join(2.0)
        self.runtime.close(commit=False)


def head_nodes(layout: Layout, source: Node) -> list[Node]:
    """The steps that are run where a source is read."""
    stage = layout.plan.stage_of(source)
    return stage.nodes[1 : 1 + stage.head]
