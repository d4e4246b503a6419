"""Values of any Arrow type as a few characters, exact in time, without pandas and without copying what is long."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

__all__ = ["cell_text", "is_number"]

#: Characters of a cell, bytes shown of a binary, and items of a list.
WIDEST, _BYTES, _ITEMS = 40, 16, 3
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
types = pa.types


def is_number(kind: pa.DataType) -> bool:
    """Whether values are put to the right of their column."""
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def cell_text(value: pa.Scalar) -> str:
    """`value` on one line, in at most `WIDEST` characters (times and sizes are never cut)."""
    kind = value.type
    if value.is_valid and types.is_timestamp(kind):
        return _moment(value.value, kind)
    text = _text(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _text(value: Any) -> str:
    kind = value.type
    if not value.is_valid:
        return "null"
    if types.is_dictionary(kind):
        return _text(value.value)
    if isinstance(kind, pa.FixedShapeTensorType):
        if len(kind.shape) != 1:
            return f"<{kind.value_type} {' x '.join(map(str, kind.shape))}>"
        return _text(value.value)
    if isinstance(kind, pa.BaseExtensionType):
        return _text(value.value)
    if types.is_timestamp(kind):
        return _moment(value.value, kind)
    if types.is_duration(kind):
        return f"{value.value:,} {kind.unit}"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _binary(value.as_buffer())
    if types.is_struct(kind):
        return "{" + ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items()) + "}"
    if types.is_map(kind) or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _items(value.values)
    if types.is_floating(kind):
        return f"{value.as_py():.10g}" if types.is_float64(kind) else f"{value.as_py():.7g}"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(value.as_py()))


def _items(values: pa.Array) -> str:
    shown = [_text(values[i]) for i in range(min(len(values), _ITEMS))]
    return "[" + ", ".join(shown) + (f", .. {len(values):,} in all" if len(values) > _ITEMS else "") + "]"


def _binary(data: pa.Buffer) -> str:
    if data.size > _BYTES:
        return f"<{data.size:,} bytes>"
    content: bytes = data.to_pybytes()
    printable = content.isascii() and content.decode("ascii").isprintable()
    return content.decode("ascii") if printable else content.hex(" ")


def _moment(count: int, kind: Any) -> str:
    """ISO 8601 with all digits of the unit; the number where no calendar has it."""
    digits = _DIGITS[kind.unit]
    whole, rest = divmod(count, 10**digits)
    try:
        text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{count} {kind.unit}"
    return text + (f".{rest:0{digits}d}" if digits else "") + ("Z" if kind.tz else "")
