"""CAN frames as candump's lines over a socket, a line a frame.

bus = sources.live_can("tcp://127.0.0.1:9000", interfaces=["can0", "can1"])
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout, as_numpy
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import GraphError
from ...pipeline.names import names_in
from ...pipeline.schema import event_schema
from ...pipeline.source import Decoded
from ..driving._can_tables import can_fields
from ._losses import Losses
from .arrival import Arrival
from .feed import Live
from .session import Codec, Framed, Session

__all__ = ["CanLines", "live_can"]

#: Bytes of a line that quarantine keeps.
_KEPT = 1 << 16


@dataclass(frozen=True)
class CanLines(Codec):
    """Lines as ``candump -l`` writes them, with the columns of `Candump`; a message may be several lines.

    ``bus`` is the number of the line's interface in `interfaces`, others follow in the order of first appearance; ``data``
    has 64 bytes with `fd`, else 8, and longer frames are bad records. ``ts_event`` is the time in the line, ``ts_recv`` when
    it came. A line that is no frame is a bad record; a connection that was lost leaves one, ``live.gap``, and so do missing
    datagrams that a replay had numbered. Frames have no numbers here: one that the sender or the network loses cannot be
    seen, and one that comes twice is two rows.
    """

    name: ClassVar[str] = "candump"
    fd: bool = False
    interfaces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "interfaces", names_in(self.interfaces))
        names = self.interfaces
        good = all(re.fullmatch(r"[!-~\xa1-\xff]{1,15}", name) for name in names)
        if len(names) > 256 or not good or len(set(names)) < len(names):
            raise GraphError("interfaces must be up to 256 different names of 1 to 15 characters", got=names)

    def schema(self, source: str) -> pa.Schema:
        names = ",".join(self.interfaces)
        return event_schema(can_fields(self.fd), source=source, format="candump", table="can.frame", interfaces=names)

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        return _Session(self, context, source, position)

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> CanLines:
        """The codec of which `describe` gave `values`."""
        return cls(**{**values, "interfaces": tuple(values.get("interfaces", ()))})


@dataclass(frozen=True, slots=True)
class _Lines:
    lines: Any
    times: Any


class _Session(Session):
    def __init__(self, codec: CanLines, context: Context, source: str, position: Mapping[str, Any] | None) -> None:
        from ..driving._can_grammars import CandumpGrammar

        self._grammar = CandumpGrammar(codec.interfaces)
        if position:
            self._grammar.restore(position)
        self._columns, self._context, self._source = ColumnLayout(codec.schema(source)), context, source
        self._losses = Losses()

    def position(self) -> Mapping[str, Any]:
        return self._grammar.position()

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        from ..driving._can_line_kernels import find_lines
        from ..driving._can_lines import _Lines as Found

        noticed: list[BadRecord] = []
        texts: list[bytes] = []
        times: list[int] = []
        for arrival in arrivals:
            if arrival.event:
                noticed += self._losses.heard(arrival, self._source)
                continue
            for line in arrival.data.split(b"\n"):
                if text := line.strip(b" \t\r"):
                    texts.append(text)
                    times.append(arrival.recv_ns)
        joined = b"\n".join([*texts, b""])
        lease = self._context.pool.take(len(joined))
        data: Any = lease.array(np.uint8, len(joined))
        data[:] = np.frombuffer(joined, np.uint8)
        starts, lengths = np.empty((2, len(texts) + 1), np.int64)
        count, _ = find_lines(data, 0, len(data), starts, lengths)
        starts, lengths = starts[:count].copy(), lengths[:count].copy()
        scanned = self._grammar.scan(data, starts, lengths)
        found = Found(lease, data, 0, starts, lengths, scanned)
        return Framed(_Lines(found, np.array(times, np.int64)), count, len(joined), noticed)

    def finish(self, first_seq: int) -> Framed | None:
        told = self._losses.ended(self._source)
        return dataclasses.replace(self.take([], first_seq), noticed=told) if told else None

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        from ..driving._can_lines import _decode

        taken: _Lines = payload
        lines = taken.lines
        if not len(lines.starts):
            return Decoded(())
        batch, status = _decode(lines, self._grammar, self._columns, first_seq, self._context.pool)
        bad = []
        for i in np.flatnonzero(status).tolist():
            start, size = int(lines.starts[i]), min(int(lines.lengths[i]), _KEPT)
            place, seq = f"{self._source}, message {first_seq + i}", first_seq + i
            error = self._grammar.reasons[int(status[i])]
            bad.append(BadRecord(place, "candump.decode", error, lines.data[start : start + size].tobytes(), seq))
        if not batch.num_rows:
            return Decoded([], bad)
        came = taken.times[as_numpy(batch["seq"]).astype(np.int64) - first_seq]
        at = batch.schema.get_field_index("ts_recv")
        recv = pa.array(came, pa.int64()).cast(batch.schema.field(at).type)
        return Decoded([batch.set_column(at, batch.schema.field(at), recv)], bad)


def live_can(url: str | tuple[str, ...], *, fd: bool = False, interfaces: Sequence[str] = (), **options: Any) -> Live:
    """CAN frames of a feed that sends candump's lines; options of `CanLines` and of `Live`."""
    known = {field.name for field in dataclasses.fields(Live)}
    if wrong := sorted(set(options) - known):
        raise GraphError(f"a feed of CAN frames takes no option {wrong[0]!r}")
    return Live(url, CanLines(fd, names_in(interfaces)), **options)
