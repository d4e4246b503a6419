"""A keyed operator whose parts run in other processes; to its host it is an operator like any other.

Every batch is divided by key and sent to the parts that have rows in it; every watermark goes to all. What they emit comes
back in the order in which the undivided operator would have emitted it, so the host needs to know nothing of parts. A part
answers calls in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ..context import Context, Tally
from ..errors import RunError
from ..operator import Operator, OperatorSpec, State
from ..plan import Node
from ..state_codec import decode_state, encode_state
from .parcels import opened, packed

__all__ = ["DividedOperator", "Emitted"]


@dataclass(frozen=True, slots=True)
class Emitted:
    """What a part emitted for one call, its late rows and state bytes, and what it set aside."""

    batches: Sequence[Any] = ()
    sides: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    aside: Tally | None = None
    late_rows: int = 0
    state_bytes: int = 0
    state: bytes | None = None
    error: BaseException | None = None
    moved: int = 0
    copied: int = 0


class DividedOperator(Operator):
    """Sends to `parts`, each a handle whose ``call(number, what, payload)`` gives a Ray reference to `Emitted`."""

    def __init__(self, node: Node, parts: Sequence[Any], context: Context, get: Callable[[Any], Any]) -> None:
        spec = node.spec
        if not isinstance(spec, OperatorSpec):
            raise TypeError(f"{node.id} is not an operator")
        divided = spec.partitioned(*node.in_schemas)
        if divided is None:
            raise RunError(f"step {node.id!r} ({node.site}) cannot be divided by key")
        self._node, self._parts, self._context, self._get, self._divided = node, list(parts), context, get, divided
        self._calls = [0] * len(self._parts)
        self._held = [0] * len(self._parts)
        self.moved_bytes = self.copied_bytes = 0

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        pieces = self._divided.divide(batch, len(self._parts))
        emitted = self._ask("batch", [None if piece is None else self._packed(piece) for piece in pieces])
        return self._merged(emitted, batch.column("seq"))

    def _packed(self, piece: pa.RecordBatch) -> Any:
        parcel, copied = packed(piece)
        self.moved_bytes += int(piece.nbytes)
        self.copied_bytes += copied
        return parcel

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        return self._merged(self._ask("watermark", [watermark] * len(self._parts)), None)

    def finish(self) -> Sequence[pa.RecordBatch]:
        return self._merged(self._ask("finish", [True] * len(self._parts)), None)

    def _ask(self, what: str, payloads: Sequence[Any]) -> list[Emitted]:
        """Call every part that has a payload, all at once; an empty answer stands for the others."""
        references: list[Any] = []
        for place, payload in enumerate(payloads):
            if payload is None:
                references.append(None)
                continue
            references.append(self._parts[place].call(self._calls[place], what, payload))
            self._calls[place] += 1
        answers = [Emitted() if reference is None else self._get(reference) for reference in references]
        for place, (answer, reference) in enumerate(zip(answers, references, strict=True)):
            if answer.error is not None:
                raise answer.error
            if reference is not None:
                self._count(place, answer)
        return answers

    def _count(self, place: int, answer: Emitted) -> None:
        metrics = self._context.metrics
        self._held[place] = answer.state_bytes
        metrics.state_bytes = sum(self._held)
        metrics.late_rows += answer.late_rows
        self.moved_bytes += answer.moved
        self.copied_bytes += answer.copied
        if answer.aside is not None:
            for reason, rows in answer.aside.dropped.items():
                self._context.drop(reason, rows)
            for noted, count in answer.aside.noted.items():
                self._context.note(noted, count)
            for record in answer.aside.bad:
                self._context.quarantine(record)

    def _merged(self, emitted: Sequence[Emitted], seq: pa.Array | None) -> Sequence[pa.RecordBatch]:
        names = {name: None for answer in emitted for name in answer.sides}
        for name in names:
            rows = [[opened(batch) for batch in answer.sides.get(name, ())] for answer in emitted]
            for batch in self._divided.merge_side(name, rows, seq):
                self._context.side(name, batch)
        if not any(answer.batches for answer in emitted):
            return ()
        return self._divided.merge([[opened(batch) for batch in answer.batches] for answer in emitted], seq)

    def snapshot(self) -> State:
        answers = self._ask("snapshot", [True] * len(self._parts))
        return self._divided.join([decode_state(answer.state or b"") for answer in answers])

    def restore(self, state: State) -> None:
        states = self._divided.split(state, len(self._parts))
        self._ask("restore", [encode_state(part) for part in states])
