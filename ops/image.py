"""Encoded images to tensors: decode, resize, normalise and lay out, straight into the memory of the batch.

An image is decoded at a reduced scale into scratch memory that stays in the cache of its thread, and one pass over that
writes the row of the batch. Nothing else is touched, so the cost is that of entropy decoding and little more. Rows are
independent: they are decoded in parallel, and a bad one leaves alone.

The orientation that EXIF data may ask for is not applied: recordings of sensors hold pixels as the sensor saw them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.context import BadRecord, Context
from ..pipeline.errors import GraphError
from ..pipeline.operator import Operator, OperatorSpec
from ..pipeline.schema import tensor_type
from ._tensor_memory import TensorMemory

if TYPE_CHECKING:
    from ._jpeg_rows import Encoded, RowDecoder

__all__ = ["DecodeImage"]


@dataclass(frozen=True)
class DecodeImage(OperatorSpec):
    """Decode an encoded image column into a ``fixed_shape_tensor`` column (FORMATS section 6, ``cam.encoded``).

    In: rows with `column` (binary or large_binary) and, if there, `codec` (utf8 or a dictionary of it; without that
    column the first bytes tell). Out: the same rows with `output` as the last column, RGB:

    - ``dtype="uint8"``: values 0 to 255;
    - ``dtype="float32"``: ``(value / 255 - mean[c]) / std[c]``, with `mean` 0 and `std` 1 unless given;
    - ``layout="hwc"``: ``[height, width, 3]``; ``layout="chw"``: ``[3, height, width]``.

    The image is stretched to the size asked for: bilinear with half-pixel centres, after decoding to the smallest eighth,
    quarter or half that is not smaller than the target. An image that has the size already is not resampled. With
    `drop_encoded`, `column` is removed; ``width`` and ``height``, if there, keep the original size.

    Codecs: ``jpeg``; ``png`` with 8 bits a channel, through Pillow if that is installed; ``raw_rgb8``, ``raw_bgr8`` and
    ``raw_mono8`` without row padding, sized by the columns ``width`` and ``height``. Grey becomes RGB.

    A row that cannot be decoded goes to quarantine (operation ``image.decode``), the others stay in order: null, corrupt,
    truncated (even where a decoder would fill in grey), another codec, CMYK, or more than `max_pixels` pixels by its
    header, which is checked before anything is allocated.

    `backend`: ``"simplejpeg"`` (libjpeg-turbo); ``"dali"`` (nvidia-dali on the CPU: always decodes in full, so the pixels
    are not the same; MissingExtraError if it is not installed); ``"auto"``: simplejpeg, the faster in
    ``bench/frames_decoders.py``.

    Raises GraphError for a missing or unsuitable column and for arguments that do not fit each other.
    """

    height: int
    width: int
    _: KW_ONLY
    column: str = "data"
    output: str = "image"
    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Literal["hwc", "chw"] = "hwc"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    backend: Literal["auto", "simplejpeg", "dali"] = "auto"
    drop_encoded: bool = True
    codec: str = "codec"
    max_pixels: int = 64_000_000

    kind: ClassVar[str] = "decode_image"
    stateless: ClassVar[bool] = True
    deferrable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.height <= 0 or self.width <= 0:
            raise GraphError(
                "an image needs a positive size", expected="height, width > 0", got=(self.height, self.width)
            )
        for name, choices in (
            ("dtype", ("uint8", "float32")),
            ("layout", ("hwc", "chw")),
            ("backend", ("auto", "simplejpeg", "dali")),
        ):
            if getattr(self, name) not in choices:
                raise GraphError(f"{name} is not known", expected=" or ".join(choices), got=getattr(self, name))
        if self.max_pixels <= 0:
            raise GraphError("max_pixels must be positive", got=self.max_pixels)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is None:
                continue
            if self.dtype == "uint8":
                raise GraphError(f'{name} needs dtype="float32": normalised values do not fit uint8')
            values = tuple(float(v) for v in values)
            if len(values) != 3 or not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
                raise GraphError(
                    f"{name} must be three finite numbers{', above 0' if name == 'std' else ''}", got=values
                )
            object.__setattr__(self, name, values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Per-row shape of the output column."""
        return (3, self.height, self.width) if self.layout == "chw" else (self.height, self.width, 3)

    @property
    def tensor(self) -> pa.FixedShapeTensorType:
        """Type of the output column."""
        return tensor_type(pa.uint8() if self.dtype == "uint8" else pa.float32(), self.shape)

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        index = schema.get_field_index(self.column)
        if index < 0:
            raise GraphError(f"no column {self.column!r} to decode", expected="large_binary", got=schema.names)
        kind = schema.field(index).type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise GraphError(f"column {self.column!r} does not hold encoded images", expected="large_binary", got=kind)
        codec = schema.get_field_index(self.codec)
        if codec >= 0 and not _is_text(schema.field(codec).type):
            raise GraphError(
                f"column {self.codec!r} does not hold codec names", expected="utf8", got=schema.field(codec).type
            )
        if self.drop_encoded:
            schema = schema.remove(index)
        if self.output in schema.names:
            raise GraphError(f"there is already a column {self.output!r}: choose another output=")
        return schema.append(pa.field(self.output, self.tensor, nullable=False))

    def retry_row(self, record: BadRecord, schema: pa.Schema) -> pa.RecordBatch | None:
        """`seq` and the encoded image; everything else is null, so the first bytes tell the codec."""
        known = {"seq": record.seq, self.column: record.data}
        columns = [pa.array([known.get(field.name)], field.type) for field in schema]
        return pa.RecordBatch.from_arrays(columns, names=schema.names)

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _DecodeImages(self, context, self.output_schema(*inputs))


class _DecodeImages(Operator):
    def __init__(self, spec: DecodeImage, context: Context, schema: pa.Schema) -> None:
        self._spec, self._context, self._schema = spec, context, schema
        self._rows = _row_decoder(spec)
        self._dali: Any = None
        if spec.backend == "dali":
            from ._jpeg_dali import DaliDecoder

            self._dali = DaliDecoder(spec, self._rows, context)

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        images = _encoded_images(batch, self._spec)
        memory = TensorMemory(self._context, self._spec.output, self._spec.tensor, len(images))
        failed = self._decode(images, memory.rows)
        good = len(images)
        if failed:
            for index in sorted(failed):
                self._context.quarantine(_bad_record(batch, index, images[index].data, failed[index]))
            keep = [index for index in range(len(images)) if index not in failed]
            good = len(keep)
            self._close_gaps(memory.rows, keep)
            batch = batch.take(pa.array(keep, pa.int64()))
        columns = [batch.column(name) for name in self._schema.names[:-1]]
        return (pa.RecordBatch.from_arrays([*columns, memory.column(good)], schema=self._schema),) if good else ()

    def close(self) -> None:
        if self._dali is not None:
            self._dali.close()

    def _decode(self, images: Sequence[Encoded], rows: npt.NDArray[Any]) -> dict[int, str]:
        """Fill `rows`; the error of each image that could not be decoded, by its index."""
        if self._dali is not None:
            errors: dict[int, str] = self._dali.decode(images, rows)
            return errors
        from ._jpeg_decode import ImageError

        failed: dict[int, str] = {}

        def work(start: int, stop: int) -> None:
            for index in range(start, stop):
                try:
                    self._rows.decode(images[index], rows[index])
                except ImageError as error:
                    failed[index] = str(error)

        self._context.map_rows(work, len(images))
        return failed

    def _close_gaps(self, rows: npt.NDArray[Any], keep: Sequence[int]) -> None:
        moved = 0
        for to, index in enumerate(keep):
            if to != index:
                rows[to] = rows[index]
                moved += 1
        if moved:
            self._context.copied(moved * rows[0].nbytes)


def _row_decoder(spec: DecodeImage) -> RowDecoder:
    from ._jpeg_rows import RowDecoder

    exact = spec.dtype == "uint8"
    std = spec.std or (1.0, 1.0, 1.0)
    mean = spec.mean or (0.0, 0.0, 0.0)
    return RowDecoder(
        spec.height,
        spec.width,
        planar=spec.layout == "chw",
        exact=exact,
        scale=(1.0, 1.0, 1.0) if exact else [1 / (255 * s) for s in std],
        bias=(0.5, 0.5, 0.5) if exact else [-m / s for m, s in zip(mean, std, strict=True)],
        max_pixels=spec.max_pixels,
    )


def _encoded_images(batch: pa.RecordBatch, spec: DecodeImage) -> list[Encoded]:
    """The images of a batch as views of its memory."""
    from ._jpeg_rows import Encoded

    column = batch.column(spec.column)
    rows = len(column)
    if rows == 0:
        return []
    _, offset_buffer, data_buffer = column.buffers()
    width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    offsets = np.frombuffer(offset_buffer, width)[column.offset : column.offset + rows + 1].tolist()
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.empty(0, np.uint8)
    valid = column.is_valid().to_pylist() if column.null_count else [True] * rows
    codecs = batch.column(spec.codec).to_pylist() if spec.codec in batch.schema.names else [None] * rows
    sizes: list[tuple[int | None, int | None]] = [(None, None)] * rows
    if any(codec is not None and codec.startswith("raw_") for codec in codecs):
        names = [n if n in batch.schema.names else None for n in ("height", "width")]
        known = [batch.column(n).to_pylist() if n else [None] * rows for n in names]
        sizes = list(zip(*known, strict=True))
    return [Encoded(data[offsets[i] : offsets[i + 1]] if valid[i] else None, codecs[i], *sizes[i]) for i in range(rows)]


def _bad_record(batch: pa.RecordBatch, index: int, data: npt.NDArray[np.uint8] | None, error: str) -> BadRecord:
    seq = batch.column("seq")[index].as_py()
    source = (batch.schema.metadata or {}).get(b"penstock.source", b"").decode()
    topic = batch.column("topic")[index].as_py() if "topic" in batch.schema.names else None
    place = ", ".join(part for part in (source, f"topic {topic}" if topic else "", f"seq {seq}") if part)
    return BadRecord(place, "image.decode", error, b"" if data is None else data.tobytes(), seq)


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))
