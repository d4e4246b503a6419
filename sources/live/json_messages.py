"""JSON messages to columns: one object a message, as NDJSON files have one a line.

events = sources.live_events("tcp://127.0.0.1:9000", match_path="match")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ...pipeline.columns import as_numpy
from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Decoded
from ..text.ndjson import Ndjson, game_events
from ._losses import Losses
from .arrival import Arrival
from .feed import Live
from .session import Codec, Framed, Session

if TYPE_CHECKING:
    from ..text._line_framer import Text

__all__ = ["JsonMessages", "live_events", "live_ndjson"]

_FEED = "feed"


@dataclass(frozen=True)
class JsonMessages(Codec):
    """Messages as lines of `lines`, an `Ndjson` whose path is not used.

    ``ts_recv`` is the time at which a message came unless `lines` reads it from the message (`recv`). A message may be
    broken over lines, as those of game-state integration are; a message that is no JSON object is a bad record. A
    connection that was lost leaves a bad record ``live.gap``, and so do missing datagrams that a replay had numbered. Plain
    messages have no numbers: one that the sender or the network loses cannot be seen, and one that comes twice is two rows.
    """

    name: ClassVar[str] = "json"
    lines: Ndjson

    def schema(self, source: str) -> pa.Schema:
        return self._named(source).schema

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        return _Session(self._named(source), context, source, position or {})

    def _named(self, source: str) -> Ndjson:
        return dataclasses.replace(self.lines, path=source)

    def describe(self) -> Mapping[str, Any]:
        return {field.name: getattr(self.lines, field.name) for field in dataclasses.fields(self.lines)}

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> JsonMessages:
        """The codec of which `describe` gave `values`."""
        return cls(Ndjson(**values))


@dataclass(frozen=True, slots=True)
class _Lines:
    text: Text
    recv: Any


class _Session(Session):
    def __init__(self, spec: Ndjson, context: Context, source: str, position: Mapping[str, Any]) -> None:
        self._layout, self._context, self._source = spec._layout(), context, source
        self._most = spec.max_line
        self._stamped = spec.recv is None
        self._offset, self._line = int(position.get("offset", 0)), int(position.get("line", 1))
        self._losses = Losses()

    def position(self) -> Mapping[str, Any]:
        return {"offset": self._offset, "line": self._line}

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        from ..text._line_framer import text_of

        noticed: list[BadRecord] = []
        texts: list[bytes] = []
        times: list[int] = []
        for arrival in arrivals:
            if arrival.event:
                noticed += self._losses.heard(arrival, f"{self._source}, line {self._line}")
            elif len(arrival.data) > self._most:
                error = f"a message of {len(arrival.data)} bytes, more than max_line={self._most}"
                noticed.append(BadRecord(self._source, "live.receive", error, arrival.data[: 1 << 16]))
            elif line := arrival.data.replace(b"\n", b" ").strip():
                texts.append(line)
                times.append(arrival.recv_ns)
        texts.append(b"")
        joined = b"\n".join(texts)
        text = text_of(
            joined, self._context.pool, offset=self._offset, line=self._line, seq=first_seq, records=len(times)
        )
        self._offset += len(joined)
        self._line += len(times)
        return Framed(_Lines(text, np.array(times, np.int64)), len(times), len(joined), noticed)

    def finish(self, first_seq: int) -> Framed | None:
        told = self._losses.ended(f"{self._source}, line {self._line}")
        return dataclasses.replace(self.take([], first_seq), noticed=told) if told else None

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        from ..text._ndjson_decode import decode_text

        lines: _Lines = payload
        if not len(lines.recv):
            return Decoded(())
        batches, bad = decode_text(lines.text, self._layout, self._context.pool)
        if self._stamped:
            batches = [_received(batch, lines.recv, first_seq) for batch in batches]
        return Decoded(batches, bad)


def _received(batch: pa.RecordBatch, recv: Any, first_seq: int) -> pa.RecordBatch:
    """`batch` with the times at which its rows came."""
    rows = as_numpy(batch.column("seq")).astype(np.int64) - first_seq
    times = pa.array(recv[rows], pa.int64()).cast(batch.schema.field("ts_recv").type)
    return batch.set_column(batch.schema.get_field_index("ts_recv"), batch.schema.field("ts_recv"), times)


def live_ndjson(url: str | tuple[str, ...], *, columns: Mapping[str, str], **options: Any) -> Live:
    """JSON objects from a feed, with columns as `Ndjson` takes them; further options are those of `Ndjson` and `Live`."""
    of_feed = {field.name for field in dataclasses.fields(Live)} - {"url", "codec"}
    live = {key: options.pop(key) for key in list(options) if key in of_feed}
    return Live(url, JsonMessages(Ndjson(_FEED, columns=columns, **options)), **live)


def live_events(url: str | tuple[str, ...], **options: Any) -> Live:
    """Game telemetry from a feed as ``game.event``; options are those of `game_events` and of `Live`.

    Over ``http://`` it takes what games POST; ``tcp://`` reads lines, ``ws://`` a message each.
    """
    of_feed = {field.name for field in dataclasses.fields(Live)} - {"url", "codec"}
    live = {key: options.pop(key) for key in list(options) if key in of_feed}
    return Live(url, JsonMessages(game_events(_FEED, **options)), **live)
