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
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ..pipeline.context import BadRecord, Context
from ..pipeline.errors import GraphError
from ..pipeline.operator import Operator, OperatorSpec
from ..pipeline.schema import check_event_schema, tensor_type
from .keys import check_key_type

if TYPE_CHECKING:
    pass

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
        from ._video_events import av_library
        from ._video_operator import VideoDecoder

        av_library()
        return VideoDecoder(self, context, inputs[0], self.output_schema(*inputs))


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return bool(kind.value_type == pa.uint8())
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))
