"""From the graph the user wrote to the plan that runs.

The plan is the same for every runner, so that rewriting cannot make two runners differ. Three things happen to the graph:
lateness gates are put behind sources that feed event-time steps, row-wise decoding is moved as late as it can go (see
`defer`), and steps are grouped into stages, each the work of one thread (or several, where order can be restored).
"""

from __future__ import annotations

from .defer import defer_row_work, may_write_in_place
from .gates import insert_gates
from .graph import MAIN, Graph
from .hop import Infer, Prefetch
from .operator import OperatorSpec
from .plan import Link, Node, Plan, Stage
from .sink import SinkSpec
from .source import SourceSpec

__all__ = ["build_plan", "group_stages"]


def build_plan(graph: Graph, threads: int, *, apart: bool = False) -> Plan:
    """The plan for `graph` with up to `threads` threads for each parallel step.

    `apart` keeps what reads from what does not, and sinks from everything, as where they run in processes of their own.
    """
    by_step: dict[int, Node] = {}
    nodes = []
    for name, step in graph:
        links = [Link(by_step[id(port.step)], port.output) for port in step.inputs]
        node = Node(name, step.spec, links, step.schema, step.site, step.options)
        by_step[id(step)] = node
        nodes.append(node)
    plan = Plan(nodes)
    insert_gates(plan)
    defer_row_work(plan)
    group_stages(plan, threads, apart=apart)
    return plan


def group_stages(plan: Plan, threads: int, *, apart: bool = False) -> None:
    """Divide the nodes, which must be in topological order, among threads.

    What decodes straight into the slots of the last hop has one batch in hand at a time and divides that among its threads.
    In processes of their own there are no slots to decode into.
    """
    prefetches = [] if apart else [node for node in plan.nodes if isinstance(node.spec, Prefetch)]
    in_place = {node for prefetch in prefetches for node in may_write_in_place(plan, prefetch)}
    for node in plan.nodes:
        many = _asks_for_workers(node) and node not in in_place
        host = None if _starts_stage(plan, node, many) else plan.stage_of(node.inputs[0].node)
        if host is not None and apart and _must_part(plan, host, node):
            host = None
        if host is not None:
            host.nodes.append(node)
            if _extends_head(plan, host, node):
                host.head += 1
            continue
        stage = Stage(len(plan.stages), [node])
        if isinstance(node.spec, SourceSpec):
            stage.workers = node.options.parallelism or threads
        elif many:
            stage.head, stage.workers = 1, node.options.parallelism or 1
            if node.options.least is not None and not apart:
                stage.workers = min(stage.workers, threads)
        plan.stages.append(stage)


def _must_part(plan: Plan, host: Stage, node: Node) -> bool:
    if isinstance(node.spec, SinkSpec) or (node.options.least is not None and _asks_for_workers(node)):
        return True  # processes that come and go do nothing else
    if isinstance(node.spec, Prefetch) and any(earlier.options.resources for earlier in host.nodes):
        return True  # what a step was promised is not what the model needs
    pooled = isinstance(host.entry.spec, SourceSpec) or (host.head > 0 and host.workers > 1)
    return pooled and not _extends_head(plan, host, node, joined=False)


def _asks_for_workers(node: Node) -> bool:
    return node.stateless and (node.options.parallelism or 1) > 1


def _extends_head(plan: Plan, stage: Stage, node: Node, *, joined: bool = True) -> bool:
    """Whether `node` (already in its stage, or not `joined` yet) continues the chain of stateless nodes at its start."""
    first = 1 if isinstance(stage.entry.spec, SourceSpec) else 0
    chain = stage.head + first
    place = stage.nodes.index(node) if joined else len(stage.nodes)
    if not (node.stateless and place == chain and (first or stage.head)):
        return False
    return len(plan.consumers(node.inputs[0].node)) == 1 and node.inputs[0].output == MAIN


def _starts_stage(plan: Plan, node: Node, many: bool) -> bool:
    if len(node.inputs) != 1:
        return True
    spec, producer = node.spec, node.inputs[0].node
    if isinstance(producer.spec, (Prefetch, Infer)):
        return True  # the accelerator's thread does nothing else
    if isinstance(spec, SinkSpec):
        return spec.own_thread
    if isinstance(spec, Prefetch):
        return False
    if not isinstance(spec, OperatorSpec):
        return True
    if spec.stateless:
        home = plan.stage_of(producer)
        in_head = isinstance(home.entry.spec, SourceSpec) and (  # whose stage is the source and then `head` nodes
            producer is home.nodes[home.head] or (home.head and producer is home.nodes[home.head - 1])
        )
        parallel_elsewhere = many and not in_head
        return parallel_elsewhere or (
            spec.deferrable and not producer.stateless and not isinstance(producer.spec, SourceSpec)
        )
    return not spec.light
