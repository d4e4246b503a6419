"""Rows of encoded video in, rows of frames out: streams told apart, decoded at once, their pictures converted at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.context import BadRecord, Context
from ..pipeline.errors import StateLimitError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, State
from ._rows import Gatherer, Piece
from ._tensor_memory import TensorMemory
from ._video_events import Bad, Event, Lost, Picture
from ._video_pixels import PixelWriter
from ._video_stream import VideoStream
from .keys import KeyIndex

if TYPE_CHECKING:
    from .video import DecodeVideo

__all__ = ["VideoDecoder"]

#: Bytes of frames, as they leave, for which rows are decoded at once; and rows at most.
_AT_ONCE, _ROWS_AT_ONCE = 8 << 20, 64


class VideoDecoder(Operator):
    """The running `DecodeVideo`."""

    def __init__(self, spec: DecodeVideo, context: Context, schema: pa.Schema, output: pa.Schema) -> None:
        self._spec, self._context, self._output = spec, context, output
        self._key, self._codec = spec.key_column(schema), spec.codec_column(schema)
        self._keys = KeyIndex([schema.field(self._key).type]) if self._key is not None else None
        self._source = (schema.metadata or {}).get(b"penstock.source", b"").decode()
        held = [f for f in schema if not (spec.drop_encoded and f.name == spec.column)]
        self._held = pa.schema(held, metadata=schema.metadata)
        self._gatherer = Gatherer(context)
        self._streams: list[VideoStream] = []
        self._watermark = NO_TIME
        self._at_once = max(1, min(_ROWS_AT_ONCE, _AT_ONCE // (spec.height * spec.width * 3)))

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        out = []
        for start in range(0, batch.num_rows, self._at_once):
            out += self._some(batch.slice(start, self._at_once))
        self._context.metrics.state_bytes = sum(stream.nbytes for stream in self._streams)
        return out

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        self._watermark = watermark
        if watermark != END_OF_TIME:
            return ()
        return [batch for stream in self._streams for batch in self._emit(list(stream.end()))]

    def watermark(self) -> int | None:
        waiting = [unit.time for stream in self._streams for unit in stream.waiting.values()]
        return min([self._watermark, *waiting])

    def snapshot(self) -> State:
        keys = {} if self._keys is None else self._keys.snapshot()
        streams = []
        for stream in self._streams:
            units = [stream.waiting[number] for number in sorted(stream.waiting)]
            rows = self._rows([(unit.batch, unit.index) for unit in units if unit.batch is not None])
            streams.append({**stream.save(), "name": stream.name, "rows": rows})
        return {"watermark": self._watermark, "keys": keys, "streams": streams}

    def restore(self, state: State) -> None:
        self._watermark = state["watermark"]
        if self._keys is not None:
            self._keys.restore(state["keys"])
        for saved in state["streams"]:
            stream = self._stream(saved["name"])
            stream.load(saved, saved["rows"], _times(saved["rows"]))
            self._streams.append(stream)

    def _some(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        rows = batch.num_rows
        ids = np.zeros(rows, np.int64) if self._keys is None else self._keys.ids([batch.column(str(self._key))])
        self._open_streams(batch, ids)
        units, times = _units(batch.column(self._spec.column)), _times(batch)
        codecs: Sequence[Any] = [None] * rows if self._codec is None else batch.column(self._codec).to_pylist()
        held = batch.select(self._held.names)
        present = np.unique(ids).tolist()
        found: list[list[tuple[int, Event]]] = [[] for _ in present]

        def work(start: int, stop: int) -> None:
            for place in range(start, stop):
                stream = self._streams[present[place]]
                for row in np.flatnonzero(ids == present[place]).tolist():
                    events = stream.push(units[row], codecs[row], held, row, int(times[row]))
                    found[place] += [(row, event) for event in events]

        self._context.map_rows(work, len(present))
        order = sorted((item for events in found for item in events), key=lambda item: item[0])
        return self._emit([event for _, event in order])

    def _open_streams(self, batch: pa.RecordBatch, ids: npt.NDArray[np.int64]) -> None:
        for number in range(len(self._streams), int(ids.max(initial=-1)) + 1):
            if number >= self._spec.max_streams:
                raise StateLimitError(
                    f"step {self._context.step!r}: column {self._key!r} tells more than max_streams="
                    f"{self._spec.max_streams} streams apart; raise it, or choose the key= that names a camera"
                )
            row = int(np.flatnonzero(ids == number)[0])
            self._streams.append(self._stream("" if self._key is None else str(batch.column(self._key)[row].as_py())))

    def _stream(self, name: str) -> VideoStream:
        return VideoStream(name, self._spec.stream_limit, self._spec.max_pixels, self._spec.conceal)

    def _emit(self, events: Sequence[Event]) -> list[pa.RecordBatch]:
        pictures = []
        for event in events:
            if isinstance(event, Picture):
                pictures.append(event)
            elif isinstance(event, Lost):
                self._context.drop(event.reason, event.count)
            elif isinstance(event, Bad):
                self._quarantine(event)
        return [
            batch
            for start in range(0, len(pictures), self._at_once)
            if (batch := self._frames(pictures[start : start + self._at_once])) is not None
        ]

    def _frames(self, pictures: Sequence[Picture]) -> pa.RecordBatch | None:
        spec = self._spec
        memory = TensorMemory(self._context, spec.output, spec.tensor, len(pictures))
        failed: dict[int, str] = {}

        def work(start: int, stop: int) -> None:
            writer = _writer(spec)
            for index in range(start, stop):
                try:
                    writer.write(pictures[index].frame, memory.rows[index])
                except ValueError as error:
                    failed[index] = str(error)

        self._context.map_rows(work, len(pictures))
        for index in sorted(failed):
            self._set_aside(pictures[index].batch, pictures[index].index, failed[index], b"")
        good = [index for index in range(len(pictures)) if index not in failed]
        for to, index in enumerate(good):
            if to != index:
                memory.rows[to] = memory.rows[index]
        if not good:
            return None
        self._context.copied(len(good) * spec.height * spec.width * 3)
        rows = self._rows([(pictures[index].batch, pictures[index].index) for index in good])
        return pa.RecordBatch.from_arrays([*rows.columns, memory.column(len(good))], schema=self._output)

    def _rows(self, places: Sequence[tuple[pa.RecordBatch, int]]) -> pa.RecordBatch:
        """The columns that are handed on, of rows in several batches."""
        batches: dict[int, pa.RecordBatch] = {}
        rows: dict[int, list[int]] = {}
        into: dict[int, list[int]] = {}
        for place, (batch, index) in enumerate(places):
            batches[id(batch)] = batch
            rows.setdefault(id(batch), []).append(index)
            into.setdefault(id(batch), []).append(place)
        pieces = [
            Piece(batch, np.array(rows[name], np.int64), np.array(into[name], np.int64))
            for name, batch in batches.items()
        ]
        return self._gatherer.gather(self._held, pieces, len(places))

    def _quarantine(self, event: Bad) -> None:
        if event.unit.batch is not None:
            self._set_aside(event.unit.batch, event.unit.index, event.error, event.unit.data)

    def _set_aside(self, batch: pa.RecordBatch, row: int, error: str, data: bytes) -> None:
        seq = batch.column("seq")[row].as_py()
        topic = None if self._key is None else batch.column(self._key)[row].as_py()
        place = ", ".join(
            part for part in (self._source, f"{self._key} {topic}" if topic else "", f"seq {seq}") if part
        )
        self._context.quarantine(BadRecord(place, "video.decode", error, data, seq))


def _writer(spec: DecodeVideo) -> PixelWriter:
    exact = spec.dtype == "uint8"
    mean, std = spec.mean or (0.0, 0.0, 0.0), spec.std or (1.0, 1.0, 1.0)
    scale = (1.0, 1.0, 1.0) if exact else [1 / (255 * s) for s in std]
    bias = (0.0, 0.0, 0.0) if exact else [-m / s for m, s in zip(mean, std, strict=True)]
    return PixelWriter(spec.height, spec.width, planar=spec.layout == "chw", exact=exact, scale=scale, bias=bias)


def _times(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Event times; 0 where a row that is tried again has none."""
    column = batch.column("ts_event").cast(pa.int64())
    times: npt.NDArray[np.int64] = column.fill_null(0).to_numpy(zero_copy_only=False)
    return times


def _units(column: pa.Array) -> list[bytes | None]:
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        found: list[bytes | None] = column.to_pylist()
        return found
    return [None if value is None else value.values.to_numpy(zero_copy_only=False).tobytes() for value in column]
