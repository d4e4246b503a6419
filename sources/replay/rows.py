"""Recordings without messages of their own, such as tables and data sets: a JSON line for each row.

A line begins with ``ts_event``, ``ts_recv`` (ns since 1970) and ``seq``, then the row's columns by name. Integers, decimals
and floats are numbers with all their digits (an infinite or undefined float is null), dictionary columns text, times and
durations whole numbers of their column's unit, dates ISO 8601, bytes base64, lists and structs arrays and objects. Of a data
set of several topics, ``topic`` says where a row belongs. A line is due at its ``ts_recv``.
"""

from __future__ import annotations

import base64
import heapq
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import event_ns
from ...pipeline.errors import FormatError
from ...pipeline.source import SourceSpec
from ._decoded import UNREAD, count, decoded_blocks
from .message import Message, Playable

__all__ = ["json_rows", "rows_playable", "spec_playable"]

#: Rows that are written in one go: few, so that other threads get their turn.
_ROWS = 64
NOTE = "one JSON line a row: ts_event and ts_recv (ns) first, then seq and the columns by name; bytes are base64"

Encode = Callable[[Any], str]


def rows_playable(path: str, *, topic: str | Sequence[str] | None = None, **options: Any) -> Playable:
    """The rows of the recording `path`, of all its topics or those named. `options` are those of `sources.open`."""
    from ..dispatch import open_source
    from ..formats import format_of

    names = _topics(path, topic)
    if names is None:
        found = open_source(path, **options)
        if not isinstance(found, SourceSpec):
            raise FormatError(f"{path} holds several topics: say which with --topic")
        return spec_playable(found)
    skipped: dict[str, int] = {}
    key = format_of(path).choice
    specs = {name: open_source(path, **{key: name}, **options) for name in names}

    def messages() -> Iterator[Message]:
        streams = [_keyed(_lines_of(spec, skipped, name), i) for i, (name, spec) in enumerate(specs.items())]
        for _, _, message in heapq.merge(*streams, key=lambda entry: entry[:2]):
            yield message

    note = f"{NOTE}; topic says which of {', '.join(names)}"
    return Playable(messages, text=True, framing="lines", note=note, skipped=skipped)


def _topics(path: str, chosen: str | Sequence[str] | None) -> list[str] | None:
    """The topics of a data set's folder that are wanted; None for what has none."""
    from ..formats import FOLDERS, format_of

    known = format_of(path)
    if known not in FOLDERS:
        if chosen is not None:
            raise FormatError(f"{path} is {known.name}, which has no topics")
        return None
    there = list(known.describe(path)["topics"])
    names = there if chosen is None else [chosen] if isinstance(chosen, str) else list(chosen)
    for name in names:
        if name not in there:
            raise FormatError(f"{path}: no topic {name!r}; it has {', '.join(there) or 'none'}")
    if not names:
        raise FormatError(f"{path} holds nothing to replay")
    return names


def spec_playable(spec: SourceSpec) -> Playable:
    """The rows of any source."""
    skipped: dict[str, int] = {}
    return Playable(
        partial(_lines_of, spec, skipped), text=True, framing="lines", note=f"{NOTE} ({spec.format})", skipped=skipped
    )


def _keyed(messages: Iterator[Message], number: int) -> Iterator[tuple[int, int, Message]]:
    """`messages` by time, none before one that was in front of it."""
    latest = -(1 << 63)
    for message in messages:
        latest = max(latest, message.ts_ns)
        yield latest, number, message


def _lines_of(spec: SourceSpec, skipped: dict[str, int], topic: str | None = None) -> Iterator[Message]:
    extra = {} if topic is None else {"topic": topic}
    for _, decoded in decoded_blocks(spec):
        count(skipped, UNREAD, len(decoded.bad))
        for batch in decoded.batches:
            for low in range(0, batch.num_rows, _ROWS):
                rows = batch.slice(low, _ROWS)
                times = event_ns(rows, "ts_recv").tolist()
                for ts_ns, line in zip(times, json_rows(rows, extra), strict=True):
                    yield Message(ts_ns, line)


def json_rows(rows: pa.RecordBatch, extra: Mapping[str, str] | None = None) -> list[bytes]:
    """Each row as a JSON object; `extra` are texts behind the first three columns, unless a column has the name."""
    names = list(rows.schema.names)
    texts = [column_texts(column) for column in rows.columns]
    for at, (name, value) in enumerate((extra or {}).items()):
        if name not in names:
            names.insert(3 + at, name)
            texts.insert(3 + at, [json.dumps(value)] * rows.num_rows)
    heads = [json.dumps(name) + ":" for name in names]
    return [
        ("{" + ",".join([head + text for head, text in zip(heads, values, strict=True)]) + "}").encode(
            "utf-8", "replace"
        )
        for values in zip(*texts, strict=True)
    ]


def column_texts(column: pa.Array) -> list[str]:
    """The values of a column as JSON."""
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        size = math.prod(kind.shape)
        flat = column.storage.flatten() if not column.null_count else None
        if flat is not None and len(flat) == len(column) * size:
            whole = np.asarray(flat).reshape(len(column), *kind.shape)
            return [_tensor(row, pa.types.is_float32(kind.value_type)) for row in whole]
        column, kind = column.storage, kind.storage_type
    if isinstance(kind, pa.BaseExtensionType):
        column, kind = column.storage, kind.storage_type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind):
        column, kind = column.cast(pa.int64()), pa.int64()
    elif pa.types.is_time32(kind):
        column, kind = column.cast(pa.int32()), pa.int32()
    encode = encoder_of(kind)
    return ["null" if value is None else encode(value) for value in column.to_pylist()]


def _tensor(row: Any, single: bool) -> str:
    if row.ndim:
        return "[" + ",".join(_tensor(part, single) for part in row) + "]"
    value = row.item()
    return _float32(value) if single else _float(value) if isinstance(value, float) else str(value)


def encoder_of(kind: pa.DataType) -> Encode:
    """How one value of a type, as Arrow gives it to Python, is written."""
    types = pa.types
    if types.is_boolean(kind):
        return lambda value: "true" if value else "false"
    if types.is_integer(kind) or types.is_decimal(kind):
        return lambda value: format(value, "f") if types.is_decimal(kind) else str(value)
    if types.is_float32(kind):
        return _float32
    if types.is_floating(kind):
        return lambda value: _float(float(value))
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return lambda value: '"' + base64.b64encode(value).decode("ascii") + '"'
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        inner = [(json.dumps(field.name), field.name, _inner(field.type)) for field in fields]
        return lambda value: "{" + ",".join(f"{head}:{encode(value[name])}" for head, name, encode in inner) + "}"
    if types.is_map(kind):
        first, second = _inner(kind.key_type), _inner(kind.item_type)
        return lambda value: "[" + ",".join(f"[{first(a)},{second(b)}]" for a, b in value) + "]"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        one = _inner(kind.value_type)
        return lambda value: "[" + ",".join(map(one, value)) + "]"
    if types.is_timestamp(kind):
        return lambda value: str(value.value) if hasattr(value, "value") else json.dumps(value.isoformat())
    if types.is_date(kind) or types.is_time(kind):
        return lambda value: json.dumps(value.isoformat())
    return lambda value: json.dumps(value, ensure_ascii=False, default=str)


def _inner(kind: pa.DataType) -> Encode:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    encode = encoder_of(kind)
    return lambda value: "null" if value is None else encode(value)


def _float(value: float) -> str:
    return repr(value) if math.isfinite(value) else "null"


def _float32(value: float) -> str:
    return str(np.float32(value)) if math.isfinite(value) else "null"
