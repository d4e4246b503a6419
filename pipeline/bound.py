"""How much memory a plan can come to hold, step by step, before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import PlanError
from .hop import Infer, Prefetch
from .operator import OperatorSpec
from .options import RunOptions, readable_bytes
from .plan import Plan
from .runtime import POOL_KEEP
from .sink import SinkSpec
from .source import SourceSpec

__all__ = ["Share", "check_budget", "memory_bound"]


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes that one step may hold, and as what."""

    step: str
    what: str
    nbytes: int


def memory_bound(plan: Plan, options: RunOptions) -> list[Share]:
    """The worst case of every step and queue. Their sum bounds what the pipeline holds above the idle process.

    A stage that works on several batches at once counts its source's block for each worker and each place in the order.
    """
    shares = [Share("", "output memory kept for reuse", POOL_KEEP)]
    for stage in plan.stages:
        entry = stage.entry
        if isinstance(entry.spec, SourceSpec):
            blocks = stage.workers + 1 if stage.workers > 1 else 1
            shares.append(Share(entry.id, f"{blocks} blocks being decoded", (blocks + 1) * entry.spec.block_bound))
        elif not isinstance(entry.inputs[0].node.spec, Prefetch) or not isinstance(entry.spec, Infer):
            shares.append(Share(entry.id, f"input queue x{len(entry.inputs)}", len(entry.inputs) * options.edge_budget))
        for node in stage.nodes:
            spec = node.spec
            if isinstance(spec, Prefetch):
                consumer = plan.infer_of(node)
                if consumer is not None and isinstance(consumer.spec, Infer):
                    shares.append(Share(node.id, f"{spec.slots} slots", spec.slots * consumer.spec.slot_bytes))
            elif isinstance(spec, OperatorSpec):
                held = spec.state_bound(*node.in_schemas)
                if held:
                    shares.append(Share(node.id, "state", held))
            elif isinstance(spec, SinkSpec):
                held = spec.state_bound(node.schema)
                if held:
                    shares.append(Share(node.id, "rows not yet written out", held))
    return shares


def check_budget(plan: Plan, options: RunOptions) -> int:
    """The bound in bytes. Raises PlanError, naming the step that needs most, if it exceeds the budget."""
    shares = memory_bound(plan, options)
    total, budget = sum(share.nbytes for share in shares), options.budget
    if total > budget:
        largest = max((s for s in shares if s.step), key=lambda share: share.nbytes, default=shares[0])
        raise PlanError(
            f"this pipeline may hold {readable_bytes(total)}, the budget is {readable_bytes(budget)}; "
            f"most is step {largest.step!r}: {largest.what}, {readable_bytes(largest.nbytes)}. "
            "Raise memory=, or lower parallelism=, edge_bytes= or that step's limit"
        )
    return total
