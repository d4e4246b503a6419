"""The user's own functions as operators: on a whole batch, or on named columns as numpy or torch views.

Views are zero-copy and read-only. A function that raises on one row costs that row: the batch is halved until the rows
that fail stand alone, they go to quarantine, and the others go on (see `isolate`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeGuard

import numpy as np
import pyarrow as pa

from .columns import as_numpy, numpy_layout
from .context import Context
from .errors import GraphError
from .operator import Operator, OperatorSpec
from .schema import check_event_schema, describe, difference
from .site import function_name, function_site

if TYPE_CHECKING:
    import pyarrow.compute as pc

__all__ = ["FilterRows", "FlatMap", "MapBatch", "MapColumns", "View", "view_column", "view_of"]

View = Literal["numpy", "torch"]
Function = Callable[..., Any]


def view_column(array: pa.Array, view: View) -> Any:
    """A column as a numpy array or torch tensor ``(rows, *shape)`` sharing its memory; never write to it."""
    if view == "numpy":
        return as_numpy(array)
    import torch

    layout = numpy_layout(array.type)
    if layout is None:
        raise TypeError(f"a column of {array.type} has no tensor view without a copy")
    dtype, shape = layout
    flat = as_numpy(array).reshape(-1)
    if len(flat) == 0:
        return torch.empty((len(array), *shape), dtype=getattr(torch, dtype.name))
    # through Arrow's DLPack, because torch warns about read-only numpy arrays
    wrapped = pa.Array.from_buffers(pa.from_numpy_dtype(dtype), len(flat), [None, pa.py_buffer(flat)])
    return torch.utils.dlpack.from_dlpack(wrapped).reshape((len(array), *shape))


def view_of(batch: pa.RecordBatch, name: str, view: View) -> Any:
    """`view_column` of the column `name`. Raises ValueError that names it, and says what to do, if it has nulls."""
    column = batch.column(name)
    try:
        return view_column(column, view)
    except ValueError as error:
        if not column.null_count:
            raise ValueError(f"column {name!r}: {error}") from None
        many = f"{column.null_count:,} null{'s' if column.null_count > 1 else ''} in {batch.num_rows:,} rows"
        raise ValueError(
            f"column {name!r} has {many}, and so no view: leave such rows out before it with "
            f".filter(pc.field({name!r}).is_valid()), or fill them (pc.fill_null) in a .map(batch -> batch)"
        ) from None


@dataclass(frozen=True)
class MapBatch(OperatorSpec):
    """``function(batch) -> batch``, row by row in meaning: row i out depends on row i in.

    The schema comes from `schema`, or from running the function once on an empty batch.
    """

    kind: ClassVar[str] = "map"
    stateless: ClassVar[bool] = True
    same_rows: ClassVar[bool] = True

    function: Function
    schema: pa.Schema | None = None

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        return self.schema or _probe(self.function, inputs[0], "schema=")

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _BatchFunction(self.function, self.output_schema(*inputs), same_rows=self.same_rows)


@dataclass(frozen=True)
class FlatMap(MapBatch):
    """``function(batch) -> batch or iterable of batches``; each row gives none, one or many rows, in order."""

    kind: ClassVar[str] = "flat_map"
    same_rows: ClassVar[bool] = False


@dataclass(frozen=True)
class MapColumns(OperatorSpec):
    """``function(*columns) -> array, tuple of arrays or dict`` over views of `inputs`; sets the columns `outputs`."""

    kind: ClassVar[str] = "map"
    stateless: ClassVar[bool] = True

    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, pa.DataType], ...]
    view: View = "numpy"

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        _require(schema, self.inputs)
        for name, kind in self.outputs:
            field = pa.field(name, kind)
            index = schema.get_field_index(name)
            schema = schema.append(field) if index < 0 else schema.set(index, field)
        return schema

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _ColumnFunction(self, self.output_schema(*inputs))


@dataclass(frozen=True)
class FilterRows(OperatorSpec):
    """Keep the rows for which a mask holds: an Arrow expression, ``function(batch)`` or ``function(*columns)``."""

    kind: ClassVar[str] = "filter"
    stateless: ClassVar[bool] = True

    condition: Function | pc.Expression
    inputs: tuple[str, ...] = ()
    view: View = "numpy"

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        _require(schema, self.inputs)
        if _is_expression(self.condition):
            try:
                schema.empty_table().filter(self.condition)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
                raise GraphError(
                    f"the condition {self.condition} does not fit: {error}", got=describe(schema)
                ) from error
        return schema

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Filter(self, context)


class _BatchFunction(Operator):
    def __init__(self, function: Function, schema: pa.Schema, *, same_rows: bool) -> None:
        self._function, self._schema, self._same_rows = function, schema, same_rows

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        result = self._function(batch)
        results: Sequence[pa.RecordBatch]
        results = (result,) if isinstance(result, pa.RecordBatch) else tuple(result)
        for out in results:
            if not out.schema.equals(self._schema) and (problem := difference(self._schema, out.schema)):
                raise TypeError(f"{function_name(self._function)} returned another schema than declared: {problem}")
        if self._same_rows and (len(results) != 1 or results[0].num_rows != batch.num_rows):
            rows = sum(r.num_rows for r in results)
            raise ValueError(
                f"{function_name(self._function)} took {batch.num_rows} rows and returned {rows}; use flat_map for that"
            )
        return results


class _ColumnFunction(Operator):
    def __init__(self, spec: MapColumns, schema: pa.Schema) -> None:
        self._spec, self._schema = spec, schema

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        spec = self._spec
        result = spec.function(*[view_of(batch, name, spec.view) for name in spec.inputs])
        if isinstance(result, Mapping):
            values = [result[name] for name, _ in spec.outputs]
        elif isinstance(result, tuple):
            values = list(result)
        else:
            values = [result]
        if len(values) != len(spec.outputs):
            raise ValueError(
                f"{function_name(spec.function)} returned {len(values)} columns, declared are {len(spec.outputs)}"
            )
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for (name, kind), value in zip(spec.outputs, values, strict=True):
            columns[name] = _to_arrow(value, kind, batch.num_rows, name)
        arrays = [columns[name] for name in self._schema.names]
        return (pa.RecordBatch.from_arrays(arrays, schema=self._schema),)


class _Filter(Operator):
    def __init__(self, spec: FilterRows, context: Context) -> None:
        self._spec, self._context = spec, context

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        condition = self._spec.condition
        if _is_expression(condition):
            kept = pa.Table.from_batches([batch]).filter(condition).combine_chunks().to_batches()
            out = kept[0] if kept else batch.slice(0, 0)
        else:
            if self._spec.inputs:
                mask = condition(*[view_of(batch, name, self._spec.view) for name in self._spec.inputs])
            else:
                mask = condition(batch)
            mask = mask if isinstance(mask, pa.Array) else pa.array(np.asarray(mask))
            if not pa.types.is_boolean(mask.type) or len(mask) != batch.num_rows:
                raise TypeError(
                    f"{function_name(condition)} must return {batch.num_rows} booleans, got {len(mask)} of {mask.type}"
                )
            out = batch.filter(mask)
        if out.num_rows == batch.num_rows:
            return (batch,)
        self._context.drop("filter", batch.num_rows - out.num_rows)
        if out.num_rows == 0:
            return ()
        self._context.copied(out.nbytes)
        return (out,)


def _to_arrow(value: Any, kind: pa.DataType, rows: int, name: str) -> pa.Array:
    if isinstance(value, pa.Array):
        array = value if value.type == kind else value.cast(kind)
    else:
        layout = numpy_layout(kind)
        data = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
        if layout is None:
            array = pa.array(data, kind)
        else:
            dtype, shape = layout
            if data.shape != (rows, *shape):
                raise ValueError(f"column {name!r} must have shape {(rows, *shape)}, got {data.shape}")
            flat = np.ascontiguousarray(data, dtype).reshape(-1)
            storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
            if pa.types.is_fixed_size_list(storage):
                leaf = pa.Array.from_buffers(storage.value_type, len(flat), [None, pa.py_buffer(flat)])
                array = pa.FixedSizeListArray.from_arrays(leaf, type=storage)
            else:
                array = pa.Array.from_buffers(storage, rows, [None, pa.py_buffer(flat)])
            if isinstance(kind, pa.BaseExtensionType):
                array = pa.ExtensionArray.from_storage(kind, array)
    if len(array) != rows:
        raise ValueError(f"column {name!r} must have {rows} rows, got {len(array)}")
    return array


def _require(schema: pa.Schema, names: Iterable[str]) -> None:
    for name in names:
        if schema.get_field_index(name) < 0:
            raise GraphError(f"no column {name!r}", expected=f"one of {schema.names}", got=name)


def _probe(function: Function, schema: pa.Schema, hint: str) -> pa.Schema:
    """The schema a batch function returns, found by running it on an empty batch."""
    empty = pa.RecordBatch.from_arrays([pa.array([], _storage(f.type)) for f in schema], names=schema.names)
    empty = pa.RecordBatch.from_arrays(
        [
            pa.ExtensionArray.from_storage(f.type, c) if isinstance(f.type, pa.BaseExtensionType) else c
            for f, c in zip(schema, empty.columns, strict=True)
        ],
        schema=schema,
    )
    site = function_site(function)
    what = f"{function_name(function)} ({site})" if site else function_name(function)
    try:
        result = function(empty)
        if not isinstance(result, pa.RecordBatch):
            result = next(iter(result), None)
    except Exception as error:
        raise GraphError(
            f"{what} failed on an empty batch: {type(error).__name__}: {error}; mend it, or give {hint}",
            got=describe(schema),
        ) from error
    if not isinstance(result, pa.RecordBatch):
        raise GraphError(
            f"{what} must return a RecordBatch, or give {hint}",
            expected="pyarrow.RecordBatch",
            got=type(result).__name__,
        )
    if problem := check_event_schema(result.schema):
        raise GraphError(f"{what} must keep the event columns: {problem}", got=describe(result.schema))
    return result.schema


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_expression(condition: object) -> TypeGuard[pc.Expression]:
    """Whether it is an Arrow expression; pyarrow.compute, slow to import, is loaded if it can be one."""
    compute = sys.modules.get("pyarrow.compute")
    return compute is not None and isinstance(condition, compute.Expression)
