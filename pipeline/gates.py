"""Where watermarks come from: a lateness gate directly behind each source that feeds an event-time step.

Directly behind the source the gate sees every row in the recorded order, so which rows are late depends on the recording
alone. Branches without event-time steps are left as they are: nothing is late there.
"""

from __future__ import annotations

from .graph import MAIN
from .operator import OperatorSpec
from .plan import Link, Node, Plan
from .registry import supplied
from .source import SourceSpec

__all__ = ["insert_gates"]


def insert_gates(plan: Plan) -> None:
    """Put a gate behind every read step on the branches that need one."""
    for source in list(plan.nodes):
        if not isinstance(source.spec, SourceSpec):
            continue
        needing = [(node, port) for node, port in plan.consumers(source) if _needs_watermarks(plan, node)]
        if not needing:
            continue
        given = source.options.lateness_ns
        spec = supplied("watermark")(source.spec.lateness_ns if given is None else given)
        gate = Node(f"{source.id}.watermark", spec, [Link(source)], source.schema, source.site)
        plan.nodes.insert(plan.nodes.index(source) + 1, gate)
        for node, port in needing:
            node.inputs[port] = Link(gate, MAIN)


def _needs_watermarks(plan: Plan, node: Node) -> bool:
    if node.kind == "watermark" or not isinstance(node.spec, OperatorSpec):
        return False
    return node.spec.event_time or any(_needs_watermarks(plan, other) for other, _ in plan.consumers(node))
