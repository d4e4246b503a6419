"""Encoded video to frames: H.264, H.265 and MJPEG in rows, by one decoder a stream, each frame with its row's own times.

    camera = ps.read(sources.Mcap("drive.mcap").topic("/camera/front/h264"))
    camera.apply(ops.DecodeVideo(270, 480)).batch(32)

A picture hangs on those before it, so a stream is decoded in order, and what a decoder has seen is state: see
`_video_stream` for how it is kept over a checkpoint. Several streams are decoded at once, and the frames of a batch are
scaled and converted at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.context import BadRecord, Context
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec, State
from ..pipeline.schema import check_event_schema, tensor_type
from ._rows import Gatherer, Piece
from ._tensor_memory import TensorMemory
from .keys import KeyIndex, check_key_type

if TYPE_CHECKING:
    from ._video_stream import Bad, Event, Picture, VideoStream

__all__ = ["DecodeVideo"]

#: Bytes of frames, as they leave, for which rows are decoded at once; and rows at most.
_AT_ONCE, _ROWS_AT_ONCE = 8 << 20, 64


@dataclass(frozen=True)
class DecodeVideo(OperatorSpec):
    """Decode rows of encoded video into a ``fixed_shape_tensor`` column, one frame for each row that a picture comes of.

    In: rows with `column` (binary, large_binary or a list of uint8), one access unit each: H.264 or H.265 in Annex B with
    parameter sets in front of key frames (or anywhere before), or a JPEG; ``cam.encoded`` of files and topics, or the
    columns of ``foxglove.CompressedVideo``. The column `codec`, or ``format`` where there is no such column, names it
    (``h264``, ``h265``, ``hevc``, ``jpeg``, ...); without either the first bytes of a stream tell. `key` tells streams
    apart: a column, by default ``topic`` where there is one, else all rows are one stream.

    Out: the columns of the row that a picture was encoded in, its times and `seq` too, without `column` (unless
    `drop_encoded` is off), and `output` as the last column: RGB, stretched to `height` x `width` by FFmpeg's scaler, as
    ``sources.Video(table="frame")`` gives it.

    - ``dtype="uint8"``: values 0 to 255;
    - ``dtype="float32"``: ``(value / 255 - mean[c]) / std[c]``, with `mean` 0 and `std` 1 unless given;
    - ``layout="hwc"``: ``[height, width, 3]``; ``layout="chw"``: ``[3, height, width]``.

    Frames of a stream leave in the order in which they are shown: with B-frames that is not the order of the rows. A
    decoder holds frames back until it knows what is shown next; the output watermark waits for them, and the end gives
    what is left. Frames of several streams leave in the order of the rows that brought them out.

    A unit that is damaged goes to quarantine (operation ``video.decode``), and decoding goes on at the next key frame of
    its stream; the rows lost until then are counted by reason, as are rows in front of a stream's first key frame and
    rows without a picture (parameter sets, second fields). `conceal` lets the decoder paint over damage instead.

    State: the encoded units since the last key frame, up to `stream_limit` bytes for each of at most `max_streams`
    streams, else StateLimitError; the decoder's own pictures, 17 at most, come on top. A resumed run decodes the units
    again and gives no frame twice. An H.264 stream without IDR pictures is begun anew at a recovery point when half of
    the limit is used; pictures that lead it are lost and counted.

    A picture of more than `max_pixels` is refused before memory is taken for it. Raises GraphError for columns and
    arguments that do not fit; MissingExtraError without the package ``av``.
    """

    height: int
    width: int
    _: KW_ONLY
    column: str = "data"
    output: str = "image"
    key: str | None = None
    codec: str = "codec"
    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Literal["hwc", "chw"] = "hwc"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    drop_encoded: bool = True
    conceal: bool = False
    max_pixels: int = 64_000_000
    max_streams: int = 8
    stream_limit: int = 32 << 20

    kind: ClassVar[str] = "decode_video"

    def __post_init__(self) -> None:
        for name in ("height", "width", "max_pixels", "max_streams", "stream_limit"):
            if getattr(self, name) <= 0:
                raise GraphError(f"{name} must be positive", got=getattr(self, name))
        for name, choices in (("dtype", ("uint8", "float32")), ("layout", ("hwc", "chw"))):
            if getattr(self, name) not in choices:
                raise GraphError(f"{name} is not known", expected=" or ".join(choices), got=getattr(self, name))
        for name in ("mean", "std"):
            if getattr(self, name) is None:
                continue
            values = tuple(float(value) for value in getattr(self, name))
            if self.dtype == "uint8":
                raise GraphError(f'{name} needs dtype="float32": normalised values do not fit uint8')
            if len(values) != 3 or not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
                raise GraphError(f"{name} is three finite numbers{', above 0' if name == 'std' else ''}", got=values)
            object.__setattr__(self, name, values)

    @property
    def tensor(self) -> pa.FixedShapeTensorType:
        """Type of the output column."""
        size = (self.height, self.width)
        shape = (3, *size) if self.layout == "chw" else (*size, 3)
        return tensor_type(pa.uint8() if self.dtype == "uint8" else pa.float32(), shape)

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        if (problem := check_event_schema(schema)) is not None:
            raise GraphError(f"DecodeVideo: {problem}")
        index = schema.get_field_index(self.column)
        if index < 0:
            raise GraphError(f"no column {self.column!r} to decode", expected="large_binary", got=schema.names)
        if not _is_bytes(schema.field(index).type):
            raise GraphError(
                f"column {self.column!r} does not hold encoded video",
                expected="large_binary",
                got=schema.field(index).type,
            )
        named = self.codec_column(schema)
        if named is not None and not _is_text(schema.field(named).type):
            raise GraphError(
                f"column {named!r} does not hold codec names", expected="utf8", got=schema.field(named).type
            )
        key = self.key_column(schema)
        if key is not None:
            if key not in schema.names:
                raise GraphError(f"no column {key!r} that tells streams apart", got=schema.names)
            check_key_type(key, schema.field(key).type)
        if self.drop_encoded:
            schema = schema.remove(index)
        if self.output in schema.names:
            raise GraphError(f"there is already a column {self.output!r}: choose another output=")
        return schema.append(pa.field(self.output, self.tensor, nullable=False))

    def key_column(self, schema: pa.Schema) -> str | None:
        """The column that tells streams apart."""
        return self.key if self.key is not None else ("topic" if "topic" in schema.names else None)

    def codec_column(self, schema: pa.Schema) -> str | None:
        """The column that names the codec."""
        return next((name for name in (self.codec, "format") if name in schema.names), None)

    def state_bound(self, *inputs: pa.Schema) -> int:
        return self.max_streams * self.stream_limit

    def cause(self) -> str:
        return "decode"

    def retry_row(self, record: BadRecord, schema: pa.Schema) -> pa.RecordBatch | None:
        """The row of a JPEG; what else was put aside needs the units before it."""
        if record.data[:2] != b"\xff\xd8":
            return None
        known = {"seq": record.seq, self.column: record.data}
        columns = [pa.array([known.get(field.name)], field.type) for field in schema]
        return pa.RecordBatch.from_arrays(columns, names=schema.names)

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        from ._video_stream import av_library

        av_library()
        return _DecodeVideo(self, context, inputs[0], self.output_schema(*inputs))


class _DecodeVideo(Operator):
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
        from ._video_stream import VideoStream

        return VideoStream(name, self._spec.stream_limit, self._spec.max_pixels, self._spec.conceal)

    def _emit(self, events: Sequence[Event]) -> list[pa.RecordBatch]:
        from ._video_stream import Bad, Lost, Picture

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


def _writer(spec: DecodeVideo) -> Any:
    from ._video_pixels import PixelWriter

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


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return bool(kind.value_type == pa.uint8())
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))
