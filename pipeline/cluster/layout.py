"""Which process runs what: from the stages of a plan to hosts, readers and pools.

A *host* runs whole stages with threads, as one machine would; edges between hosts are pulled (`outbox`). The sinks of a run
are in the driver, where their files belong. The model has a host of its own, with its slots, where the accelerator is. The
serial steps between sources and model that depend on each other share a host: what passes between them is a reference, not
a copy. Beside hosts there are processes that hold no order and no rows: *readers* of splits, and *pools* that run the
stateless head of a stage or the parts of a keyed step; hosts call them and keep the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import PlanError
from ..hop import Infer, Prefetch
from ..operator import OperatorSpec
from ..plan import Node, Plan, Stage
from ..sink import SinkSpec
from ..source import SourceSpec

__all__ = ["DRIVER", "Host", "Layout", "edges", "lay_out"]

#: The host that is the driver itself.
DRIVER = 0


@dataclass(eq=False)
class Host:
    """A process that runs `stages`; `resources` is what it needs in Ray's words."""

    index: int
    name: str
    stages: list[Stage] = field(default_factory=list)
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class Layout:
    """Hosts (the driver first) and how many processes serve each source, pooled stage and divided step.

    `most` has the pools that may grow and shrink: from what they have in `pools`, which is also the least, to so many.
    """

    plan: Plan
    hosts: list[Host]
    readers: dict[Node, int] = field(default_factory=dict)
    pools: dict[int, int] = field(default_factory=dict)
    most: dict[int, int] = field(default_factory=dict)
    parts: dict[Node, int] = field(default_factory=dict)

    def host_of(self, node: Node) -> Host:
        stage = self.plan.stage_of(node)
        return next(host for host in self.hosts if stage in host.stages)

    def host_served_by(self, kind: str, serves: str) -> Host:
        """Who calls a reader of source `serves`, a worker in the pool of stage `serves`, or a part of step `serves`."""
        if kind == "pool":
            return self.host_of(self.stage(int(serves)).entry)
        return self.host_of(next(node for node in self.plan.nodes if node.id == serves))

    def imports(self, kind: str, serves: str) -> list[str]:
        """Modules that a process will need and that take long to import."""
        if kind != "host":
            return []
        nodes = [node for stage in self.hosts[int(serves)].stages for node in stage.nodes]
        return ["torch"] if any(isinstance(node.spec, Infer) for node in nodes) else []

    def stage(self, index: int) -> Stage:
        return self.plan.stages[index]


def lay_out(plan: Plan, readers: int, resources: Mapping[str, float], *, paced: bool = False) -> Layout:
    """A layout for a cluster with `resources` in all; `readers` processes for each source unless its step says otherwise.

    `paced`: sources are replayed at a speed; those that start together share a host, and so one schedule.
    """
    driver = Host(DRIVER, "driver")
    layout = Layout(plan, [driver])
    groups = _groups(plan)
    if paced:
        _keep_together([stage for stage in plan.stages if isinstance(stage.entry.spec, SourceSpec)], groups)
    hosts: dict[str, Host] = {"driver": driver}
    for stage in plan.stages:
        key = groups[stage.index]
        host = hosts.get(key)
        if host is None:
            host = hosts[key] = Host(len(layout.hosts), key)
            layout.hosts.append(host)
        host.stages.append(stage)
        for node in stage.nodes:
            _demand(host, stage, node, resources)
        _staff(layout, stage, readers)
    return layout


def _staff(layout: Layout, stage: Stage, readers: int) -> None:
    entry = stage.entry
    wanted = entry.options.parallelism
    if isinstance(entry.spec, SourceSpec):
        layout.readers[entry] = wanted or readers
        stage.workers = 1
    elif _is_pool(stage):
        layout.pools[stage.index] = entry.options.least or stage.workers
        if entry.options.least is not None:
            layout.most[stage.index] = stage.workers
        stage.workers = 2 * stage.workers  # calls under way: one worked on and one waiting for each process
    elif isinstance(entry.spec, OperatorSpec) and (wanted or 1) > 1 and entry.spec.partitioned(*entry.in_schemas):
        layout.parts[entry] = wanted or 1


def _demand(host: Host, stage: Stage, node: Node, available: Mapping[str, float]) -> None:
    """Add what `node` needs to its host: what the user said, or a GPU for a model where there are some."""
    asked = node.options.resources
    pooled = isinstance(stage.entry.spec, SourceSpec) or _is_pool(stage)
    if asked and not pooled and host.index != DRIVER:
        for name, amount in asked.items():
            host.resources[name] = host.resources.get(name, 0.0) + amount
    elif isinstance(node.spec, Infer) and available.get("GPU", 0):
        host.resources["GPU"] = host.resources.get("GPU", 0.0) + 1.0
    for name, amount in (asked or {}).items():
        if available.get(name, 0.0) < amount:
            raise PlanError(
                f"step {node.id!r} ({node.site}) needs {amount:g} of {name!r}, the cluster has {available.get(name, 0):g}"
            )


def _is_pool(stage: Stage) -> bool:
    return stage.head > 0 and stage.workers > 1


def _groups(plan: Plan) -> dict[int, str]:
    """The name of the host of each stage."""
    groups: dict[int, str] = {}
    floating = []
    for stage in plan.stages:
        entry = stage.entry
        hop = next((node for node in stage.nodes if isinstance(node.spec, (Prefetch, Infer))), None)
        if isinstance(entry.spec, SinkSpec):
            groups[stage.index] = "driver"
        elif hop is not None and (model := hop if isinstance(hop.spec, Infer) else plan.infer_of(hop)) is not None:
            groups[stage.index] = model.id
        elif isinstance(entry.spec, SourceSpec) or _is_pool(stage):
            floating.append(stage)
        elif entry.options.resources:
            groups[stage.index] = entry.id
        else:
            groups[stage.index] = f"steps-{_component(plan, stage)}"
    _join_models(plan, groups)
    _name_after_members(plan, groups)
    for stage in reversed(floating):  # downstream first: an order is kept where the next serial step is
        groups[stage.index] = _beside(plan, stage, groups)
    return groups


def _join_models(plan: Plan, groups: dict[int, str]) -> None:
    """Light steps that only a model's host reads run there: a process of their own would cost more than it does."""
    models = {node.id for node in plan.nodes if isinstance(node.spec, Infer)}
    for stage in reversed(plan.stages):
        if not groups.get(stage.index, "").startswith("steps-"):
            continue
        consumers = [node for member in stage.nodes for node, _ in plan.consumers(member) if node not in stage.nodes]
        there = list(dict.fromkeys(groups.get(plan.stage_of(node).index, "") for node in consumers))
        if len(there) == 1 and there[0] in models and all(_is_light(node) for node in stage.nodes):
            groups[stage.index] = there[0]


def _is_light(node: Node) -> bool:
    return isinstance(node.spec, OperatorSpec) and node.spec.light


def _keep_together(stages: Sequence[Stage], groups: dict[int, str]) -> None:
    """Put `stages` on one host: where they are if it is one already, else one of their own."""
    if len({groups[stage.index] for stage in stages}) < 2:
        return
    for stage in stages:
        groups[stage.index] = "sources"


def _component(plan: Plan, stage: Stage) -> str:
    """The first source of all that meet in some step with the sources of `stage`."""
    behind: dict[Node, set[str]] = {}
    for node in plan.nodes:
        behind[node] = {node.id} if not node.inputs else set().union(*(behind[link.node] for link in node.inputs))
    together = set(behind[stage.entry])
    grown = True
    while grown:
        bigger = together.union(*(sources for sources in behind.values() if sources & together))
        grown, together = bigger != together, bigger
    return min(together)


def _name_after_members(plan: Plan, groups: dict[int, str]) -> None:
    named: dict[str, list[str]] = {}
    for index, key in groups.items():
        if key.startswith("steps-"):
            named.setdefault(key, []).append(plan.stages[index].entry.id)
    for index, key in groups.items():
        if key in named:
            groups[index] = "+".join(named[key][:4]) + ("+..." if len(named[key]) > 4 else "")


def _beside(plan: Plan, stage: Stage, groups: Mapping[int, str]) -> str:
    """The host of a source's or a pool's order: that of the steps behind it, or before it; a model's if it has no other.

    The driver, from which nobody can pull, only if nothing but sinks comes behind.
    """
    models = {node.id for node in plan.nodes if isinstance(node.spec, Infer)}
    members = set(map(id, stage.nodes))
    readers = [node for node in plan.nodes if any(id(link.node) in members for link in node.inputs)]
    after = [groups.get(plan.stage_of(node).index, "driver") for node in readers if id(node) not in members]
    before = [groups.get(plan.stage_of(link.node).index, "driver") for link in stage.entry.inputs]
    hosts = [name for name in (*after, *before) if name != "driver"]
    serial = (name for name in hosts if name not in models)
    return next(serial, next((name for name in after if name != "driver"), "driver"))


def edges(layout: Layout) -> list[tuple[Node, Node, int]]:
    """Every (producer, consumer, port) that crosses from one host to another."""
    crossing = []
    for consumer in layout.plan.nodes:
        for port, link in enumerate(consumer.inputs):
            if layout.host_of(link.node) is not layout.host_of(consumer):
                crossing.append((link.node, consumer, port))
    return crossing
