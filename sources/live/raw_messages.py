"""Messages as they are: bytes with their times. What `penstock record` uses where no codec is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.schema import event_schema
from ...pipeline.source import Decoded
from ._losses import Losses
from .arrival import Arrival
from .session import Codec, Framed, Session

__all__ = ["RawMessages"]


@dataclass(frozen=True)
class RawMessages(Codec):
    """One row a message: `line` uint8 (which connection), `channel` uint16, `data` large_binary.

    ``ts_event`` and ``ts_recv`` are the time at which it came. A connection that was lost is a bad record ``live.gap``, and
    so are missing datagrams that a replay had numbered. Other messages have no numbers here: one that the sender or the
    network loses cannot be seen, and one that comes twice is two rows.
    """

    name: ClassVar[str] = "raw"
    framing: ClassVar[str] = "u32"

    def schema(self, source: str) -> pa.Schema:
        fields = [
            pa.field("line", pa.uint8(), nullable=False),
            pa.field("channel", pa.uint16(), nullable=False),
            pa.field("data", pa.large_binary(), nullable=False),
        ]
        return event_schema(fields, source=source, format=self.name)

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        return _Session(self.schema(source), source)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> RawMessages:
        """The codec of which `describe` gave `values`."""
        return cls(**values)


class _Session(Session):
    def __init__(self, schema: pa.Schema, source: str) -> None:
        self._schema, self._source = schema, source
        self._losses = Losses()

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        noticed: list[BadRecord] = []
        messages = [arrival for arrival in arrivals if not arrival.event]
        for arrival in arrivals:
            if arrival.event:
                noticed += self._losses.heard(arrival, f"{self._source}, line {arrival.line}")
        return Framed(messages, len(messages), sum(len(arrival.data) for arrival in messages), noticed)

    def finish(self, first_seq: int) -> Framed | None:
        told = self._losses.ended(self._source)
        return Framed([], 0, 0, told) if told else None

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        messages: Sequence[Arrival] = payload
        if not messages:
            return Decoded(())
        times = pa.array(np.array([m.recv_ns for m in messages], np.int64)).cast(self._schema.field("ts_recv").type)
        columns = [
            times,
            times,
            pa.array(np.arange(first_seq, first_seq + len(messages), dtype=np.uint64)),
            pa.array([m.line for m in messages], pa.uint8()),
            pa.array([m.channel for m in messages], pa.uint16()),
            pa.array([m.data for m in messages], pa.large_binary()),
        ]
        return Decoded([pa.RecordBatch.from_arrays(columns, schema=self._schema)])
