"""Which processes a layout needs, where they go, and how many bytes each edge may hold.

CPU work is spread over the nodes; a host with a GPU goes where the GPU is. Processes ask for less than a whole CPU when
there are more of them than CPUs: an idle process must not keep a pipeline from starting on a small cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PlanError
from ..options import RunOptions, readable_bytes
from ..plan import Node
from ..source import SourceSpec
from .layout import DRIVER, Layout, edges
from .outbox import LARGEST
from .part import edge_name

__all__ = ["Cluster", "Seat", "budgets_of", "cpu_share", "default_readers", "seats", "sources_of"]

#: The share of a node's object store that the edges of a run may fill, and that one batch may take.
_STORE_SHARE, _BATCH_SHARE = 0.4, 0.3
_LEAST_CREDIT = 64 << 10


@dataclass(frozen=True)
class Cluster:
    """What Ray says is there: resources in all, the CPUs of each node, and the object store of the smallest node."""

    resources: Mapping[str, float]
    node_cpus: Sequence[float]
    store_bytes: int

    @property
    def nodes(self) -> int:
        return len(self.node_cpus)


@dataclass(frozen=True)
class Seat:
    """A process to be: what it serves, the host, source, stage or step of that name, and what it asks Ray for.

    `flexible`: nobody said how much CPU; a replacement after a loss, when the cluster has become smaller, asks for none.
    """

    kind: str
    serves: str
    number: int = 0
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    flexible: bool = field(default=True, compare=False)

    @property
    def replacement(self) -> Mapping[str, Any]:
        """What a process asks for that takes over this seat."""
        return {**self.options, "num_cpus": 0} if self.flexible else self.options


def default_readers(cluster: Cluster, sources: int) -> int:
    """Readers of a source when nobody said how many: half of the CPUs over all sources, at most eight each."""
    return max(1, min(8, int(cluster.resources.get("CPU", 1)) // (2 * max(1, sources))))


def seats(layout: Layout, cluster: Cluster) -> list[Seat]:
    """The processes of a layout, hosts first: a model takes longest to load."""
    found: list[tuple[str, str, int, Node | None, Mapping[str, float]]] = []
    found += [("host", str(h.index), 0, None, h.resources) for h in reversed(layout.hosts) if h.index != DRIVER]
    for source, count in layout.readers.items():
        found += [("reader", source.id, i, source, {}) for i in range(count)]
    for index, count in layout.pools.items():
        found += [("pool", str(index), i, layout.stage(index).entry, {}) for i in range(count)]
    for node, count in layout.parts.items():
        found += [("part", node.id, i, node, {}) for i in range(count)]
    newcomers = sum(most - layout.pools[index] for index, most in layout.most.items())
    share = cpu_share(cluster.node_cpus, len(found) + newcomers + 1)
    return [
        Seat(kind, serves, i, _options(share, asked := _asked(node, demand)), "CPU" not in asked)
        for kind, serves, i, node, demand in found
    ]


def cpu_share(node_cpus: Sequence[float], processes: int) -> float:
    """The largest part of a CPU, one at most, that `processes` can each have when none is divided between nodes."""
    shares = [min(1.0, int(1000 * cpus / k) / 1000) for cpus in node_cpus for k in range(1, processes + 1) if cpus > 0]
    fitting = [share for share in shares if share and sum(int(cpus / share + 1e-9) for cpus in node_cpus) >= processes]
    return max(fitting, default=0.001)


def _asked(node: Node | None, demand: Mapping[str, float]) -> Mapping[str, float]:
    return demand if node is None else node.options.resources or {}


def _options(share: float, demand: Mapping[str, float]) -> dict[str, Any]:
    asked = dict(demand)
    options: dict[str, Any] = {"num_cpus": asked.pop("CPU", share), "scheduling_strategy": "SPREAD"}
    if "GPU" in asked:
        options["num_gpus"] = asked.pop("GPU")
        options["scheduling_strategy"] = "DEFAULT"
    if asked:
        options["resources"] = asked
    return options


def budgets_of(layout: Layout, cluster: Cluster, options: RunOptions) -> dict[str, int]:
    """Bytes that each edge between processes, and each reader, may hold, and one batch at most (`LARGEST`).

    All of them together fit the share of the smallest object store that a run may fill, whichever node they end up on.
    Raises PlanError if that leaves too little for each.
    """
    names = [edge_name(consumer, port) for _, consumer, port in edges(layout)]
    readers = {node.id: count for node, count in layout.readers.items()}
    pools = sum(2 * count for count in (*{**layout.pools, **layout.most}.values(), *layout.parts.values()))
    ends = len(names) + sum(readers.values()) + pools
    share = int(_STORE_SHARE * cluster.store_bytes / max(1, ends))
    if share < _LEAST_CREDIT:
        raise PlanError(
            f"{ends} edges between processes share {readable_bytes(_STORE_SHARE * cluster.store_bytes)} of object store, "
            f"{readable_bytes(share)} each; use fewer readers, or nodes with a larger object store"
        )
    each = min(options.edge_budget, share)
    return {
        **dict.fromkeys(names, each),
        **dict.fromkeys(readers, each),
        LARGEST: int(_BATCH_SHARE * cluster.store_bytes),
    }


def sources_of(nodes: Sequence[Node]) -> int:
    """How many of `nodes` are sources."""
    return sum(isinstance(node.spec, SourceSpec) for node in nodes)
