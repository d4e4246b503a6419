"""Radar scans to tensors: a bird's-eye grid for convolutions, or padded points for attention.

Both read the point lists of FORMATS section 6 (``radar.scan``) in place, whatever the offset of the batch, and write into
the memory of the batch. A scan that is null (no partner in a sync, say) is an empty scan. Points that do not make it into
the tensor are counted by reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.context import Context
from ..pipeline.errors import GraphError
from ..pipeline.operator import Operator, OperatorSpec
from ..pipeline.schema import tensor_type
from ._tensor_memory import TensorMemory

__all__ = ["PadRadar", "RasterRadar"]

_FIELDS = ("x", "y", "z", "vr", "rcs")
_NO_POSITION = "radar points without a position"


@dataclass(frozen=True)
class RasterRadar(OperatorSpec):
    """Count, mean radial speed and strongest echo of the points of a scan, on a grid seen from above.

    In: rows with `column`, ``list<struct<x, y, vr, rcs, ...>>`` in m, m/s and dBsm. Out: the same rows with `output` as
    the last column, float32 ``[3, height, width]``: channel 0 the number of points in a cell, 1 the mean of ``vr``, 2 the
    largest ``rcs``; both 0 where no point has a value. Row 0 is nearest to ``x_range[0]`` (x points forward), column 0 to
    ``y_range[0]`` (y points left); ranges are half open.

    Nulls and NaN are missing values: without x or y a point is counted as dropped, as one outside the grid is.
    Raises GraphError for a column that is missing or does not hold points, and for empty ranges.
    """

    height: int
    width: int
    _: KW_ONLY
    x_range: tuple[float, float] = (0.0, 100.0)
    y_range: tuple[float, float] = (-50.0, 50.0)
    column: str = "points"
    output: str = "radar"
    drop_points: bool = True

    kind: ClassVar[str] = "raster_radar"
    stateless: ClassVar[bool] = True
    deferrable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.height <= 0 or self.width <= 0:
            raise GraphError(
                "a grid needs a positive size", expected="height, width > 0", got=(self.height, self.width)
            )
        for name in ("x_range", "y_range"):
            low, high = (float(v) for v in getattr(self, name))
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise GraphError(f"{name} must be (low, high) in m with low < high", got=(low, high))
            object.__setattr__(self, name, (low, high))

    @property
    def tensor(self) -> pa.FixedShapeTensorType:
        """Type of the output column."""
        return tensor_type(pa.float32(), (3, self.height, self.width))

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        return _with_columns(
            inputs[0], self.column, ("x", "y", "vr", "rcs"), {self.output: self.tensor}, drop=self.drop_points
        )

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _RasterScans(self, context, self.output_schema(*inputs))


@dataclass(frozen=True)
class PadRadar(OperatorSpec):
    """The nearest `max_points` points of a scan as tokens, and a mask that says which are real.

    In: rows with `column`, ``list<struct<x, y, z, vr, rcs, ...>>`` in m, m/s and dBsm. Out: the same rows with two columns
    at the end: `output`, float32 ``[max_points, 5]``, each token ``(x, y, z, vr, rcs) / scale``, and `mask`, float32
    ``[max_points]``, 1 for a point and 0 for padding (whose token is 0).

    Points are in ascending range, those of equal range in the order of the scan. Missing z, vr or rcs (null or NaN) are 0;
    points without x or y and those beyond `max_points` are counted as dropped.
    Raises GraphError for a column that is missing or does not hold points.
    """

    max_points: int = 64
    _: KW_ONLY
    scale: Sequence[float] = (100.0, 50.0, 5.0, 30.0, 20.0)
    column: str = "points"
    output: str = "radar"
    mask: str = "radar_mask"
    drop_points: bool = True

    kind: ClassVar[str] = "pad_radar"
    stateless: ClassVar[bool] = True
    deferrable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_points <= 0:
            raise GraphError("max_points must be positive", got=self.max_points)
        scale = tuple(float(v) for v in self.scale)
        if len(scale) != 5 or not np.isfinite(scale).all() or min(scale) <= 0:
            raise GraphError("scale must be five finite numbers above 0, for x, y, z, vr and rcs", got=scale)
        object.__setattr__(self, "scale", scale)

    @property
    def tensors(self) -> dict[str, pa.FixedShapeTensorType]:
        """Types of the output columns by name."""
        return {
            self.output: tensor_type(pa.float32(), (self.max_points, 5)),
            self.mask: tensor_type(pa.float32(), (self.max_points,)),
        }

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        return _with_columns(inputs[0], self.column, _FIELDS, self.tensors, drop=self.drop_points)

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _PadScans(self, context, self.output_schema(*inputs))


class _RasterScans(Operator):
    def __init__(self, spec: RasterRadar, context: Context, schema: pa.Schema) -> None:
        self._spec, self._context, self._schema = spec, context, schema

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        from ._radar_kernels import raster_points

        spec, rows = self._spec, batch.num_rows
        scans = _Scans(batch.column(spec.column), ("x", "y", "vr", "rcs"))
        memory = TensorMemory(self._context, spec.output, spec.tensor, rows)
        limits = (*spec.x_range, *spec.y_range)

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            lost, outside = raster_points(
                scans.starts[part], scans.stops[part], scans.fields, limits, memory.rows[part]
            )
            self._context.note(_NO_POSITION, lost)
            self._context.note("radar points outside the grid", outside)

        self._context.map_rows(work, rows, least=4)
        return (_rebuilt(batch, self._schema, [memory]),)


class _PadScans(Operator):
    def __init__(self, spec: PadRadar, context: Context, schema: pa.Schema) -> None:
        self._spec, self._context, self._schema = spec, context, schema
        self._scale = np.asarray(spec.scale, np.float32)

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        from ._radar_kernels import pad_points

        rows = batch.num_rows
        scans = _Scans(batch.column(self._spec.column), _FIELDS)
        tokens, mask = (TensorMemory(self._context, name, kind, rows) for name, kind in self._spec.tensors.items())

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            lost, over = pad_points(
                scans.starts[part], scans.stops[part], scans.fields, self._scale, tokens.rows[part], mask.rows[part]
            )
            self._context.note(_NO_POSITION, lost)
            self._context.note("radar points beyond max_points", over)

        self._context.map_rows(work, rows, least=64)
        return (_rebuilt(batch, self._schema, [tokens, mask]),)


class _Scans:
    """The points of a column of scans: where each scan starts and stops in the flat `fields` (NaN where null)."""

    def __init__(self, column: pa.Array, names: Sequence[str]) -> None:
        offsets = column.offsets.to_numpy().astype(np.int64)
        first, last = (int(offsets[0]), int(offsets[-1])) if len(column) else (0, 0)
        points = column.values.slice(first, last - first)
        self.starts: npt.NDArray[np.int64] = offsets[:-1] - first
        self.stops: npt.NDArray[np.int64] = offsets[1:] - first
        if column.null_count:
            self.stops = np.where(column.is_valid().to_numpy(zero_copy_only=False), self.stops, self.starts)
        found = dict(zip([field.name for field in points.type], points.flatten(), strict=True))
        self.fields = tuple(_floats(found[name]) for name in names)


def _floats(values: pa.Array) -> npt.NDArray[np.float32]:
    if values.type != pa.float32():
        values = values.cast(pa.float32())
    if values.null_count:
        values = pc.fill_null(values, pa.scalar(float("nan"), pa.float32()))
    result: npt.NDArray[np.float32] = values.to_numpy()
    return result


def _rebuilt(batch: pa.RecordBatch, schema: pa.Schema, memories: Sequence[TensorMemory]) -> pa.RecordBatch:
    kept = [batch.column(name) for name in schema.names[: len(schema) - len(memories)]]
    return pa.RecordBatch.from_arrays([*kept, *(m.column(batch.num_rows) for m in memories)], schema=schema)


def _with_columns(
    schema: pa.Schema,
    column: str,
    needed: Sequence[str],
    tensors: dict[str, pa.FixedShapeTensorType],
    *,
    drop: bool,
) -> pa.Schema:
    index = schema.get_field_index(column)
    expected = f"list<struct<{', '.join(f'{name}: float' for name in needed)}>>"
    if index < 0:
        raise GraphError(f"no column {column!r} of radar points", expected=expected, got=schema.names)
    kind = schema.field(index).type
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
    fields = {field.name: field.type for field in inner} if inner is not None and pa.types.is_struct(inner) else {}
    if any(name not in fields or not pa.types.is_floating(fields[name]) for name in needed):
        raise GraphError(f"column {column!r} does not hold radar points", expected=expected, got=kind)
    if drop:
        schema = schema.remove(index)
    for name, tensor in tensors.items():
        if name in schema.names:
            raise GraphError(f"there is already a column {name!r}: choose another name for the new one")
        schema = schema.append(pa.field(name, tensor, nullable=False))
    return schema
