"""One process of a run on Ray, whatever it does: an actor that is told what to be, and again after a loss.

The processes that survive a loss go on with a new role, so that recovery does not wait for processes to start. Every call
names the attempt it belongs to; a call of an earlier one finds nobody.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import ray

from ..source import Position, Split
from .caution import Caution
from .computing import KeyPart, PoolWorker
from .hostrun import HostRun, HostSetup, Status, head_nodes
from .layout import Layout
from .losses import Outdated
from .pool import Computed
from .reader import SplitReading

__all__ = ["Handle", "Member", "PartRole", "PoolRole", "ReadRole", "Role", "create"]

#: Calls at once: an edge has two pulls waiting, and a busy host has tens of edges.
_CALLS = 96


@dataclass(frozen=True)
class ReadRole:
    """Read splits of a source."""

    source: str
    budget: int
    largest: int
    caution: Caution


@dataclass(frozen=True)
class PoolRole:
    """Run the head of a stage."""

    stage: int
    caution: Caution


@dataclass(frozen=True)
class PartRole:
    """Be one part of a divided step."""

    step: str


Role = HostSetup | ReadRole | PoolRole | PartRole


class Member:
    """The actor. `become` comes first; then the calls of that role."""

    def __init__(self) -> None:
        self._attempt = -1
        self._at_work: Any = None

    def hello(self, folders: Sequence[str], imports: Sequence[str] = ()) -> tuple[int, str]:
        """The process id and the node. Modules are looked for in `folders` too, where they exist here.

        `imports` are begun at once: what takes long is under way while others start.
        """
        for module in imports:
            threading.Thread(target=import_module, args=(module,), daemon=True).start()
        sys.path += [folder for folder in folders if folder not in sys.path and Path(folder).exists()]
        return os.getpid(), ray.get_runtime_context().get_node_id()

    def become(self, attempt: int, role: Role, layout: Layout) -> None:
        """Take up a role, leaving the one before. `layout` comes by reference: it is stored once for all."""
        self.leave()
        at_work: Any
        if isinstance(role, HostSetup):
            at_work = HostRun(role, layout, ray.get)
        elif isinstance(role, ReadRole):
            source = next(node for node in layout.plan.nodes if node.id == role.source)
            head = head_nodes(layout, source)
            at_work = SplitReading(layout.plan, source, head, role.budget, role.largest, role.caution.marks())
        elif isinstance(role, PoolRole):
            stage = layout.stage(role.stage)
            at_work = PoolWorker(layout.plan, stage.nodes[: stage.head], role.caution.marks())
        else:
            node = next(node for node in layout.plan.nodes if node.id == role.step)
            at_work = KeyPart(layout.plan, node)
        self._at_work, self._attempt = at_work, attempt

    def leave(self) -> None:
        """Give up the role."""
        at_work, self._at_work, self._attempt = self._at_work, None, -1
        if at_work is not None:
            at_work.close()

    def _now(self, attempt: int) -> Any:
        if attempt != self._attempt or self._at_work is None:
            raise Outdated(f"this process is not part of attempt {attempt} any more")
        return self._at_work

    def start(self, attempt: int) -> None:
        self._now(attempt).start()

    def pull(self, attempt: int, *arguments: Any) -> Any:
        return self._now(attempt).pull(*arguments)

    def assign(self, attempt: int, number: int, split: Split | None, position: Position | None) -> None:
        self._now(attempt).assign(number, split, position)

    def run(self, attempt: int, parcel: Any) -> tuple[Computed, list[Any]]:
        computed: tuple[Computed, list[Any]] = self._now(attempt).run(parcel)
        return computed

    def call(self, attempt: int, number: int, what: str, payload: Any) -> Any:
        return self._now(attempt).call(number, what, payload)

    def ask(self, attempt: int, number: int, times: Mapping[str, int]) -> None:
        self._now(attempt).ask(number, times)

    def resize(self, attempt: int, stage: int, workers: Sequence[Any]) -> int:
        return int(self._now(attempt).resize(stage, workers))

    def status(self, attempt: int) -> Status:
        at_work = self._now(attempt)
        return at_work.status() if isinstance(at_work, HostRun) else Status()


@dataclass(frozen=True)
class Handle:
    """A member as the others call it in one attempt."""

    actor: Any
    attempt: int

    def pull(self, *arguments: Any) -> Any:
        return self.actor.pull.remote(self.attempt, *arguments)

    def assign(self, number: int, split: Split | None, position: Position | None) -> Any:
        return self.actor.assign.remote(self.attempt, number, split, position)

    def run(self, parcel: Any) -> Any:
        return self.actor.run.options(num_returns=2).remote(self.attempt, parcel)

    def call(self, number: int, what: str, payload: Any) -> Any:
        return self.actor.call.remote(self.attempt, number, what, payload)

    def ask(self, number: int, times: Mapping[str, int]) -> Any:
        return self.actor.ask.remote(self.attempt, number, times)

    def resize(self, stage: int, workers: Sequence[Any]) -> Any:
        return self.actor.resize.remote(self.attempt, stage, workers)


@cache
def _actor() -> Any:
    """The actor's class: what must answer at once has threads that no pull can occupy."""
    methods: dict[str, Any] = {}
    for method in ("hello", "status", "ask", "leave", "resize"):
        methods[method] = ray.method(concurrency_group="control")(getattr(Member, method))
    methods["assign"] = ray.method(concurrency_group="order")(Member.assign)
    groups = {"control": 4, "order": 1}
    options: dict[str, Any] = {"concurrency_groups": groups, "max_concurrency": _CALLS}
    remote: Any = ray.remote
    return remote(**options)(type("Penstock", (Member,), methods))


def create(**options: Any) -> Any:
    """A new process. `options` are Ray's: num_cpus, num_gpus, resources, scheduling_strategy."""
    return _actor().options(**options).remote()
