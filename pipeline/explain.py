"""A plan for people: what runs where, with which schema, how much memory at most, and where bytes are copied."""

from __future__ import annotations

import pyarrow as pa

from .bound import memory_bound
from .defer import may_write_in_place
from .errors import PlanError
from .graph import Graph
from .hop import Infer
from .operator import OperatorSpec
from .options import RunOptions, readable_bytes
from .plan import Node, Plan, output_of
from .planning import build_plan
from .schema import describe
from .sink import SinkSpec
from .source import SourceSpec

__all__ = ["explain"]

#: Where each kind of step copies payload, in words.
_COPIES = {
    "filter": "copies the rows it keeps, unless all",
    "sync": "copies matched rows of the right input; of the left only where some find no partner",
    "join_asof": "copies matched rows of the right input",
    "merge": "copies rows where inputs interleave",
    "batch": "copies once, unless a batch lies inside one that came",
}


def explain(graph: Graph, options: RunOptions, format: str = "text") -> str:
    """The plan of `graph` as ``text`` or ``mermaid``."""
    plan = build_plan(graph, options.threads)
    if format == "text":
        return _text(plan, options)
    if format == "mermaid":
        return _mermaid(plan)
    raise PlanError(f"explain writes 'text' or 'mermaid', not {format!r}")


def _text(plan: Plan, options: RunOptions) -> str:
    lines = []
    for stage in plan.stages:
        threads = f"{stage.workers} threads" if stage.workers > 1 else "1 thread"
        lines.append(f"stage {stage.index + 1} ({threads})")
        for position, node in enumerate(stage.nodes):
            inputs = ", ".join(f"{link.node.id}{'.' + link.output if link.output else ''}" for link in node.inputs)
            parallel = stage.workers > 1 and position < stage.head + isinstance(stage.entry.spec, SourceSpec)
            how = ["in parallel, order kept"] if parallel else []
            how += [node.note] if node.note else []
            lines.append(f"  {node.id}" + (f" <- {inputs}" if inputs else f" {_what(node)}"))
            if node.inputs and _what(node):
                lines.append(f"      {_what(node)}")
            if how:
                lines.append(f"      {'; '.join(how)}")
            if change := _schema_change(node):
                lines.append(f"      {change}")
            if copies := _copies(plan, node):
                lines.append(f"      {copies}")
    shares = memory_bound(plan, options)
    total = sum(share.nbytes for share in shares)
    lines.append(
        f"memory: at most {readable_bytes(total)} above the idle process, budget {readable_bytes(options.budget)}"
    )
    lines += [f"  {readable_bytes(share.nbytes):>10}  {share.step or 'run'}: {share.what}" for share in shares]
    return "\n".join(lines)


def _schema_change(node: Node) -> str:
    """The schema of a source; of a step, what it adds to and takes from its first input."""
    if isinstance(node.spec, SinkSpec):
        return ""
    if not node.inputs:
        return f"gives {describe(node.schema)}"
    before = output_of(node.inputs[0])
    added = pa.schema([f for f in node.schema if f.name not in before.names or before.field(f.name).type != f.type])
    gone = [name for name in before.names if name not in node.schema.names]
    if len(gone) > len(added) + 3 and len(added) > 3:
        return f"gives {describe(node.schema)}"
    parts = [f"adds {describe(added)}"] if len(added) else []
    return "; ".join([*parts, *([f"takes {', '.join(gone)}"] if gone else [])])


def _what(node: Node) -> str:
    spec = node.spec
    if isinstance(spec, (SourceSpec, SinkSpec)):
        return spec.name
    if isinstance(spec, Infer):
        return f"model {spec.model.name}, batches of {spec.rows}"
    return ""


def _copies(plan: Plan, node: Node) -> str:
    if node.kind == "prefetch":
        consumer = plan.infer_of(node)
        if consumer is None:
            return "copies nothing"
        writers = [above.id for above in may_write_in_place(plan, node)]
        if writers:
            return f"copies nothing that {', '.join(writers)} wrote straight into the slot; other model inputs once"
        return "copies the model's inputs once, into the slot"
    return _COPIES.get(node.kind, "") if isinstance(node.spec, OperatorSpec) else ""


def _mermaid(plan: Plan) -> str:
    names = {node: f"n{position}" for position, node in enumerate(plan.nodes)}
    lines = ["flowchart LR"]
    for stage in plan.stages:
        threads = f" x{stage.workers}" if stage.workers > 1 else ""
        lines.append(f'  subgraph s{stage.index}["stage {stage.index + 1}{threads}"]')
        lines += [f'    {names[node]}["{_label(node)}"]' for node in stage.nodes]
        lines.append("  end")
    for node in plan.nodes:
        for link in node.inputs:
            text = f"|{link.output}|" if link.output else ""
            lines.append(f"  {names[link.node]} -->{text} {names[node]}")
    return "\n".join(lines)


def _label(node: Node) -> str:
    what = _what(node).replace('"', "'")
    return f"{node.id}<br/>{what}" if what else node.id
