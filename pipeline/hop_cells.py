"""The accelerator at work: an infer step that knows what it waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .cells import Cell
from .context import BadRecord, Context
from .hop import Infer
from .last_hop import InferOperator
from .ledger import Ledger, Trace
from .plan import Node

__all__ = ["InferCell"]


class InferCell(Cell):
    """A cell that charges every gap between two batches on the accelerator."""

    def __init__(self, index: int, node: Node, operator: InferOperator, context: Context, ledger: Ledger) -> None:
        super().__init__(index, node, operator, context)
        self._ledger = ledger
        self._last_end = 0
        self._waited: tuple[int, int] | None = None
        self.first_start = 0
        self.last_end = 0
        self.start_ns = 0
        self.busy_ns = 0
        self.wait_ns = 0

    @property
    def delivered_bytes(self) -> int:
        """Payload bytes that reached the model: its inputs, without padding."""
        spec = self.node.spec
        if not isinstance(spec, Infer):
            return 0
        return self.metrics.rows_in * sum(tensor.nbytes for tensor in spec.model.inputs.values())

    def waited(self, start: int, end: int) -> None:
        """The stage's thread says when it waited for the item that comes next."""
        self._waited = (start, end)

    def push(self, batch: Any, port: int, trace: Trace | None) -> None:
        started = self._now()
        if self._last_end:
            # inline, there is no thread that waits: the whole gap belongs to whoever worked on this batch
            low, high = self._waited or (self._last_end, started)
            low = max(low, self._last_end)
            awaited = max(0, high - low)
            self._ledger.charge_wait(low, high, trace, self.index)
            blocked = started - self._last_end - awaited
            behind = self.down[0].receiver.index if self.down else self.index
            self._ledger.charge(behind, "backpressure", blocked)
            self.wait_ns += started - self._last_end
        else:
            self.first_start = started
        super().push(batch, port, trace)

    def work(self, batch: Any, port: int, failed: list[BadRecord] | None = None) -> Sequence[Any]:
        started = self._now()
        outputs = super().work(batch, port, failed)
        self._last_end = self.last_end = self._now()
        self.busy_ns += self._last_end - started
        return outputs
