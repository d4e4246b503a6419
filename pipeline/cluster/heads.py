"""The stateless steps of a stage at work in a process of their own."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..cells import Cell
from ..clock import Clock
from ..context import Context
from ..memory import BufferPool
from ..operator import OperatorSpec
from ..plan import Node, Plan
from ..reading import Head
from ..runtime import POOL_KEEP
from .pieces import Gathering

__all__ = ["HeadProcess"]


class HeadProcess:
    """A head with contexts of its own; `gathering` has what was counted while it worked."""

    def __init__(self, plan: Plan, nodes: Sequence[Node], clock: Clock, stop: threading.Event) -> None:
        self.plan, self.clock, self.stop = plan, clock, stop
        self.pool = BufferPool(POOL_KEEP)
        self.gathering = Gathering()
        cells = []
        for node in nodes:
            if not isinstance(node.spec, OperatorSpec):
                raise TypeError(f"{node.id} is not an operator")
            context = self.context(node)
            self.gathering.watch(context)
            cells.append(Cell(plan.nodes.index(node), node, node.spec.open(context, *node.in_schemas), context))
        self.head = Head(cells)

    def context(self, node: Node) -> Context:
        """A context for a step of this process."""
        gathering = self.gathering
        return Context(node.id, pool=self.pool, clock=self.clock, quarantine=gathering.set_aside, stop=self.stop)

    def close(self) -> None:
        """Release what the steps hold."""
        for cell in self.head.cells:
            cell.operator.close()
        self.pool.trim()
