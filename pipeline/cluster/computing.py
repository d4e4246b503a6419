"""What runs in the processes of a pool: the stateless head of a stage, or one part of a keyed step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..cells import failure
from ..clock import RealClock
from ..context import Context, Tally
from ..errors import PenstockError
from ..memory import BufferPool
from ..operator import OperatorSpec
from ..plan import Node, Plan
from ..reading import Work
from ..runtime import POOL_KEEP
from ..state_codec import decode_state, encode_state
from .divided import Emitted
from .heads import HeadProcess
from .marks import Marks
from .parcels import opened, packed
from .pieces import Gathering, costs_of
from .pool import Computed

__all__ = ["KeyPart", "PoolWorker"]


class PoolWorker:
    """Runs a head on one batch at a time."""

    def __init__(self, plan: Plan, head: Sequence[Node], marks: Marks) -> None:
        self._stop = threading.Event()
        self._process = HeadProcess(plan, head, RealClock(), self._stop)
        self._marks, self._entry = marks, head[0]
        self._turn = threading.Lock()
        self.rows = 0

    def run(self, parcel: Any) -> tuple[Computed, list[Any]]:
        """The head on a batch: numbers, and the batches."""
        batch = opened(parcel)
        work = Work()
        process = self._process
        with self._turn:
            try:
                if self._marks.careful and self._marks.suspects(self._entry.id, batch):
                    self._marks.run_apart(process, batch, work)
                else:
                    self._marks.note_batch(self._entry.id, batch)
                    process.head.run(work, [batch], None, process.clock.monotonic_ns)
            except Exception as error:
                return Computed(error=_as_sent(error)), []
            asides = {**process.gathering.take(), **self._marks.take_asides()}
            self.rows += batch.num_rows
        batches = [out for out, _ in work.batches]
        sizes = [(out.num_rows, int(out.nbytes)) for out in batches]
        parcels = [packed(out) for out in batches]
        copied = sum(copied for _, copied in parcels)
        computed = Computed(sizes, costs_of(process.head.cells, work.costs), asides, copied=copied)
        return computed, [parcel for parcel, _ in parcels]

    def close(self) -> None:
        """Release what the steps hold."""
        self._stop.set()
        self._process.close()


class KeyPart:
    """One part of a divided operator; calls are worked on in the order of their numbers."""

    def __init__(self, plan: Plan, node: Node) -> None:
        spec = node.spec
        if not isinstance(spec, OperatorSpec):
            raise TypeError(f"{node.id} is not an operator")
        self._node = node
        self._stop = threading.Event()
        self._gathering = Gathering()
        self._sides: dict[str, list[pa.RecordBatch]] = {}
        self._context = Context(
            node.id, pool=BufferPool(POOL_KEEP), quarantine=self._gathering.set_aside, side=self._side, stop=self._stop
        )
        self._gathering.watch(self._context)
        self._operator = spec.open(self._context, *node.in_schemas)
        self._changed = threading.Condition()
        self._next = 0

    def _side(self, name: str, batch: pa.RecordBatch) -> None:
        self._sides.setdefault(name, []).append(batch)

    def call(self, number: int, what: str, payload: Any) -> Emitted:
        """Do ``what`` (batch, watermark, finish, snapshot or restore) when its turn has come."""
        with self._changed:
            while number != self._next:
                if self._stop.is_set():
                    return Emitted()
                self._changed.wait(0.25)
            try:
                return self._do(what, payload)
            except Exception as error:
                return Emitted(error=failure(self._node, error))
            finally:
                self._next += 1
                self._changed.notify_all()

    def _do(self, what: str, payload: Any) -> Emitted:
        operator, metrics = self._operator, self._context.metrics
        out: Sequence[pa.RecordBatch] = ()
        state = None
        if what == "batch":
            out = operator.process(opened(payload))
        elif what == "watermark":
            out = operator.advance(payload)
        elif what == "finish":
            out = operator.finish()
        elif what == "snapshot":
            state = encode_state(operator.snapshot())
        else:
            operator.restore(decode_state(payload))
        sides, self._sides = self._sides, {}
        late, metrics.late_rows = metrics.late_rows, 0
        aside: Tally | None = self._gathering.take().get(0)
        main = [packed(batch) for batch in out if batch.num_rows]
        aloof = {name: [packed(batch) for batch in batches] for name, batches in sides.items()}
        every = [*main, *(pair for pairs in aloof.values() for pair in pairs)]
        return Emitted(
            [parcel for parcel, _ in main],
            {name: [parcel for parcel, _ in pairs] for name, pairs in aloof.items()},
            aside,
            late,
            metrics.state_bytes,
            state,
            moved=sum(int(batch.nbytes) for batch in (*out, *(b for batches in sides.values() for b in batches))),
            copied=sum(copied for _, copied in every),
        )

    def close(self) -> None:
        """Release what the operator holds."""
        self._stop.set()
        self._operator.close()


def _as_sent(error: Exception) -> Exception:
    """An error that can travel: our own as they are, others by their text."""
    return error if isinstance(error, PenstockError) else PenstockError(f"{type(error).__name__}: {error}")
