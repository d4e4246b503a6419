"""Protobuf messages, described by the FileDescriptorSet recorded beside them, to a column for each field.

Enums are their numbers, ``google.protobuf.Timestamp`` and ``Duration`` are times in ns, maps are lists of ``key, value``, a
message that holds itself is left as bytes. A field that knows whether it is set is null where it is not. ``ts_event`` is a
top-level Timestamp named ``timestamp`` if it is set, else the log time. The `protobuf` package decodes; one Python object a
message, so this is no fast path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...pipeline.errors import MissingExtraError
from ...pipeline.memory import BufferPool
from ...pipeline.schema import TIMESTAMP
from ._cdr_payloads import TOPIC, assemble, free_names, late_clock
from ._cdr_rows import Array
from .cdr import MessageDecoder, Messages

__all__ = ["ProtobufPlan", "protobuf_plan"]

_LIMIT, _DEPTH_LIMIT, _FIELD_LIMIT = 4 << 20, 16, 4096
#: Numbers of FieldDescriptorProto.Type.
_SCALARS: dict[int, pa.DataType] = {
    1: pa.float64(),
    2: pa.float32(),
    3: pa.int64(),
    4: pa.uint64(),
    5: pa.int32(),
    6: pa.uint64(),
    7: pa.uint32(),
    8: pa.bool_(),
    9: pa.utf8(),
    12: pa.large_binary(),
    13: pa.uint32(),
    14: pa.int32(),
    15: pa.int32(),
    16: pa.int64(),
    17: pa.int32(),
    18: pa.int64(),
}
_MESSAGE, _GROUP = 11, 10
_STAMP, _SPAN = "google.protobuf.Timestamp", "google.protobuf.Duration"

#: Takes a message and gives the value of one of its fields.
Take = Callable[[Any], Any]


@dataclass(frozen=True)
class ProtobufPlan:
    """The fields of a message class: name, Arrow type, and how to take it."""

    make: Any
    fields: tuple[tuple[str, pa.DataType, Take], ...]
    stamped: bool

    @property
    def columns(self) -> list[tuple[str, pa.DataType]]:
        names = free_names(name for name, _, _ in self.fields)
        return [TOPIC, *zip(names, (kind for _, kind, _ in self.fields), strict=True)]

    def decoder(self, schema: pa.Schema, topic: str) -> MessageDecoder:
        return _ProtobufDecoder(schema, topic, self)


def protobuf_plan(type_name: str, definition: bytes) -> ProtobufPlan | None:
    """How messages `type_name` decode, or None if the descriptors do not describe them.

    Raises MissingExtraError if the package `protobuf` is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise MissingExtraError("reading protobuf messages", "protobuf", None) from None
    if len(definition) > _LIMIT:
        return None
    try:
        listed = descriptor_pb2.FileDescriptorSet.FromString(definition)
        pool = descriptor_pool.DescriptorPool()
        _add(pool, {file.name: file for file in listed.file})
        kind = pool.FindMessageTypeByName(type_name)
        make = message_factory.GetMessageClass(kind)
        fields = tuple(_Fields().of(kind, ()))
    except Exception:  # the parser raises whatever a hostile descriptor makes it raise
        return None
    stamped = any(name == "timestamp" and arrow == TIMESTAMP for name, arrow, _ in fields)
    return ProtobufPlan(make, fields, stamped)


def _add(pool: Any, files: dict[str, Any]) -> None:
    """Add `files`, each behind those it depends on."""
    while files:
        ready = [file for file in files.values() if not any(needed in files for needed in file.dependency)]
        if not ready:
            raise ValueError("the files depend on each other in a circle")
        for file in ready:
            pool.AddSerializedFile(files.pop(file.name).SerializeToString())


class _Fields:
    def __init__(self) -> None:
        self._count = 0

    def of(self, kind: Any, within: tuple[str, ...]) -> list[tuple[str, pa.DataType, Take]]:
        """The fields of message type `kind`, in order of their numbers, inside the types `within`."""
        within = (*within, kind.full_name)
        return [(field.name, *self._field(field, within)) for field in sorted(kind.fields, key=lambda f: f.number)]

    def _field(self, field: Any, within: tuple[str, ...]) -> tuple[pa.DataType, Take]:
        self._count += 1
        if self._count > _FIELD_LIMIT:
            raise ValueError("the message type has too many fields")
        name = field.name
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            return self._map(field, within)
        arrow, take = self._value(field, within)
        if _repeated(field):
            return pa.list_(arrow), lambda message: [take(value) for value in getattr(message, name)]
        if field.has_presence:
            return arrow, lambda message: take(getattr(message, name)) if message.HasField(name) else None
        return arrow, lambda message: take(getattr(message, name))

    def _map(self, field: Any, within: tuple[str, ...]) -> tuple[pa.DataType, Take]:
        name, entry = field.name, field.message_type.fields_by_name
        key, take_key = self._value(entry["key"], within)
        value, take_value = self._value(entry["value"], within)

        def take(message: Any) -> list[dict[str, Any]]:
            held = getattr(message, name)
            return [{"key": take_key(k), "value": take_value(held[k])} for k in sorted(held)]

        return pa.list_(pa.struct([("key", key), ("value", value)])), take

    def _value(self, field: Any, within: tuple[str, ...]) -> tuple[pa.DataType, Take]:
        if field.type not in (_MESSAGE, _GROUP):
            return _SCALARS[field.type], _itself
        inner = field.message_type
        if inner.full_name == _STAMP:
            return TIMESTAMP, _ns
        if inner.full_name == _SPAN:
            return pa.duration("ns"), _ns
        if inner.full_name in within or len(within) >= _DEPTH_LIMIT:
            return pa.large_binary(), lambda message: message.SerializeToString(deterministic=True)
        fields = self.of(inner, within)
        arrow = pa.struct([(name, kind) for name, kind, _ in fields])
        return arrow, lambda message: {name: take(message) for name, _, take in fields}


def _repeated(field: Any) -> bool:
    """Whether it is repeated; older releases of the package only have the label."""
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == 3)


def _itself(value: Any) -> Any:
    return value


def _ns(value: Any) -> int:
    ns = int(value.seconds) * 10**9 + int(value.nanos)
    if not -(1 << 63) < ns < 1 << 63:
        raise ValueError("a time that 64 bits of ns do not hold")
    return ns


class _ProtobufDecoder:
    def __init__(self, schema: pa.Schema, topic: str, plan: ProtobufPlan) -> None:
        self.schema, self._topic, self._plan = schema, topic, plan

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        from google.protobuf.message import DecodeError

        plan, bad = self._plan, late_clock(log_times)
        refused = {i for i, _ in bad}
        rows: list[int] = []
        stamps: list[int] = []
        values: list[list[Any]] = [[] for _ in plan.fields]
        for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            if i in refused:
                continue
            try:
                message = plan.make.FromString(data[start : start + length].tobytes())
                taken = [take(message) for _, _, take in plan.fields]
                stamp = _ns(message.timestamp) if plan.stamped and message.HasField("timestamp") else 0
                if stamp < 0:
                    raise ValueError("a timestamp before 1970")
            except (DecodeError, ValueError) as error:
                bad.append((i, f"protobuf: {error}"))
                continue
            rows.append(i)
            stamps.append(stamp)
            for column, value in zip(values, taken, strict=True):
                column.append(value)
        columns = [pa.array(column, kind) for column, (_, kind, _) in zip(values, plan.fields, strict=True)]
        return assemble(self.schema, self._topic, rows, stamps, log_times, first, columns, bad)
