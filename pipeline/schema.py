"""The Arrow schemas that flow: three leading columns on every batch, checked when the graph is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

__all__ = [
    "EVENT_FIELDS",
    "TIMESTAMP",
    "check_event_schema",
    "describe",
    "difference",
    "event_schema",
    "row_bytes",
    "tensor_type",
]

TIMESTAMP = pa.timestamp("ns", tz="UTC")

#: The columns every batch starts with: source time, capture time, position in the source.
EVENT_FIELDS: tuple[pa.Field, ...] = (
    pa.field("ts_event", TIMESTAMP, nullable=False),
    pa.field("ts_recv", TIMESTAMP, nullable=False),
    pa.field("seq", pa.uint64(), nullable=False),
)


def event_schema(
    fields: Iterable[pa.Field | tuple[str, pa.DataType]],
    *,
    source: str = "",
    format: str = "",
    clock: str = "utc",
    **metadata: str,
) -> pa.Schema:
    """A schema with the three event columns first and the ``penstock.*`` metadata set.

    `clock` is ``utc``, ``boot+offset`` or ``exchange``; further keywords become ``penstock.<name>`` entries.
    """
    own = [f if isinstance(f, pa.Field) else pa.field(f[0], f[1]) for f in fields]
    meta = {"penstock.source": source, "penstock.format": format, "penstock.clock": clock}
    meta |= {f"penstock.{key}": value for key, value in metadata.items()}
    return pa.schema([*EVENT_FIELDS, *own], metadata=meta)


def check_event_schema(schema: pa.Schema) -> str | None:
    """None if `schema` starts with the event columns, else a sentence saying what is wrong."""
    for position, field in enumerate(EVENT_FIELDS):
        if position >= len(schema) or schema.field(position).name != field.name:
            return f"column {position} must be {field.name!r}"
        if schema.field(position).type != field.type:
            return f"column {field.name!r} must be {field.type}, not {schema.field(position).type}"
    return None


def difference(expected: pa.Schema, got: pa.Schema) -> str | None:
    """None if both have the same names and types in the same order, else a sentence naming the first difference."""
    for name in expected.names:
        index = got.get_field_index(name)
        if index < 0:
            return f"column {name!r} ({expected.field(name).type}) is missing"
        if got.field(index).type != expected.field(name).type:
            return f"column {name!r} is {got.field(index).type}, not {expected.field(name).type}"
    extra = [name for name in got.names if name not in expected.names]
    if extra:
        return f"unexpected column {extra[0]!r}"
    if expected.names != got.names:
        return f"column order is {got.names}, not {expected.names}"
    return None


def tensor_type(dtype: pa.DataType, shape: Sequence[int]) -> pa.FixedShapeTensorType:
    """``fixed_shape_tensor`` of `dtype` with per-row `shape`, C order."""
    return pa.fixed_shape_tensor(dtype, list(shape))


def describe(schema: pa.Schema) -> str:
    """One line: ``name type, name type``; tensors as ``dtype[d0,d1]``, dictionaries as ``dict<type>``."""
    return ", ".join(f"{field.name} {_type_name(field.type)}" for field in schema)


def _type_name(kind: pa.DataType) -> str:
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"{kind.value_type}[{','.join(map(str, kind.shape))}]"
    if pa.types.is_dictionary(kind):
        return f"dict<{kind.value_type}>"
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.unit}]"
    return str(kind)


def row_bytes(schema: pa.Schema, *, variable: int = 256, known: Mapping[str, int] | None = None) -> int:
    """Bytes a row of `schema` takes; a variable-length column counts as `known[name]` or `variable`."""
    return sum((known or {}).get(f.name, _type_bytes(f.type, variable)) for f in schema)


def _type_bytes(kind: pa.DataType, variable: int) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _type_bytes(kind.storage_type, variable)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _type_bytes(kind.value_type, variable)
    if pa.types.is_dictionary(kind):
        return _type_bytes(kind.index_type, variable)
    if pa.types.is_struct(kind):
        return sum(_type_bytes(kind.field(i).type, variable) for i in range(kind.num_fields))
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return variable
