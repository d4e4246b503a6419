"""Moving row-wise decoding behind sync and batch.

``camera.map(DecodeImage(...)).sync(radar).batch(32)`` reads naturally, but run as written it decodes frames that find no
partner and copies every decoded image when batches are formed. A step that only computes new columns from its own row
gives the same rows when it runs later: so it is moved behind `sync` (on the left input) and `batch`, to just before the
memory of the last hop, and decodes into it. The rewriting is part of the plan and so the same for every runner.

It is left alone where it could be seen: when the step in between has other readers, or uses or collides with the columns.
"""

from __future__ import annotations

from .errors import GraphError
from .graph import MAIN
from .hop import Prefetch
from .operator import OperatorSpec
from .plan import Link, Node, Plan, output_of

__all__ = ["defer_row_work", "may_write_in_place"]


def defer_row_work(plan: Plan) -> None:
    """Move every deferrable node as far down as it can go."""
    for node in [n for n in plan.nodes if isinstance(n.spec, OperatorSpec) and n.spec.deferrable]:
        passed = []
        while (below := _passable(plan, node)) is not None and _swap(plan, node, below):
            passed.append(below.id)
        if passed:
            node.note = f"runs behind {', '.join(passed)}"
    plan.sort()


def may_write_in_place(plan: Plan, prefetch: Node) -> list[Node]:
    """The steps above `prefetch` that may write columns straight into its slots: an unbroken chain of row-wise decoding.

    Only steps that add columns and hand all others on qualify, so nothing between them and the slot can move the bytes.
    """
    chain = []
    node = prefetch.inputs[0].node
    while isinstance(node.spec, OperatorSpec) and node.spec.deferrable and len(plan.consumers(node)) == 1:
        chain.append(node)
        if node.inputs[0].output != MAIN:
            break
        node = node.inputs[0].node
    return chain if isinstance(node.spec, OperatorSpec) else []


def _passable(plan: Plan, node: Node) -> Node | None:
    consumers = plan.consumers(node)
    if len(consumers) != 1:
        return None
    below, port = consumers[0]
    if port != 0 or not isinstance(below.spec, OperatorSpec) or len(plan.consumers(below, MAIN)) != 1:
        return None
    if len(plan.consumers(below)) != 1 or isinstance(below.spec, Prefetch) or not below.spec.passes_row_work():
        return None
    return below


def _swap(plan: Plan, node: Node, below: Node) -> bool:
    """Let `below` read what `node` read, and `node` read `below`. False, and no change, if the schemas do not allow it."""
    if not isinstance(node.spec, OperatorSpec) or not isinstance(below.spec, OperatorSpec):
        return False
    before = node.inputs[0]
    others = below.inputs[1:]
    seen = below.schema
    try:
        early = below.spec.output_schema(output_of(before), *[output_of(link) for link in others])
        late = node.spec.output_schema(early)
    except GraphError:
        return False
    if not set(seen.names) <= set(late.names) or any(late.field(n).type != seen.field(n).type for n in seen.names):
        return False
    consumer, port = plan.consumers(below)[0]
    below.inputs[0], below.schema = before, early
    node.inputs[0], node.schema, node.projection = Link(below), seen, seen
    consumer.inputs[port] = Link(node)
    return True
