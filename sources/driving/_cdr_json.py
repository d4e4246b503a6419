"""JSON messages: the text as it is, and a column for each top-level number, string and boolean that the schema names.

A column is null where a message has no such key. ``ts_event`` is a top-level ``timestamp`` of ``sec`` and ``nsec`` if there
is one (as Foxglove's schemas have it), else the log time. A message that is not an object, or has a value of another type
than its schema says, is bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from ...pipeline.memory import BufferPool
from ._cdr_payloads import TOPIC, assemble, free_names, late_clock
from ._cdr_rows import Array
from .cdr import MessageDecoder, Messages

__all__ = ["JsonPlan", "json_plan"]

_ARROW = {"number": pa.float64(), "integer": pa.int64(), "string": pa.utf8(), "boolean": pa.bool_()}
_PYTHON = {"number": float, "integer": int, "string": str, "boolean": bool}
_TEXT_LIMIT, _KEY_LIMIT = 1 << 20, 1000


@dataclass(frozen=True)
class JsonPlan:
    """Top-level keys that become columns with their JSON types, and whether there is a ``timestamp``."""

    keys: tuple[tuple[str, str], ...]
    stamped: bool

    @property
    def columns(self) -> list[tuple[str, pa.DataType]]:
        names = free_names([name for name, _ in self.keys], taken=["json"])
        typed = [(name, _ARROW[kind]) for name, (_, kind) in zip(names, self.keys, strict=True)]
        return [TOPIC, ("json", pa.large_utf8()), *typed]

    def decoder(self, schema: pa.Schema, topic: str) -> MessageDecoder:
        return _JsonDecoder(schema, topic, self)


def json_plan(notation: str, definition: bytes) -> JsonPlan:
    """The columns that a JSON Schema names; only the text if it is of another notation or cannot be read."""
    if notation != "jsonschema" or len(definition) > _TEXT_LIMIT:
        return JsonPlan((), False)
    try:
        properties = msgspec.json.decode(definition, type=dict[str, Any]).get("properties")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return JsonPlan((), False)
    if not isinstance(properties, dict):
        return JsonPlan((), False)
    found = [(name, _kind(what)) for name, what in list(properties.items())[:_KEY_LIMIT]]
    stamp = properties.get("timestamp")
    parts = stamp.get("properties") if isinstance(stamp, dict) else None
    stamped = isinstance(parts, dict) and {"sec", "nsec"} <= set(parts)
    return JsonPlan(tuple((name, kind) for name, kind in found if kind and name), stamped)


def _kind(what: Any) -> str:
    kind = what.get("type") if isinstance(what, dict) else None
    if isinstance(kind, list):
        others = [k for k in kind if k != "null"]
        kind = others[0] if len(others) == 1 else None
    return kind if isinstance(kind, str) and kind in _ARROW else ""


class _Stamp(msgspec.Struct):
    sec: int = 0
    nsec: int = 0


class _JsonDecoder:
    def __init__(self, schema: pa.Schema, topic: str, plan: JsonPlan) -> None:
        self.schema, self._topic, self._plan = schema, topic, plan
        fields: list[Any] = [(f"f{i}", _PYTHON[kind] | None, None) for i, (_, kind) in enumerate(plan.keys)]
        rename = {f"f{i}": name for i, (name, _) in enumerate(plan.keys)}
        if plan.stamped:
            fields.append(("stamp", _Stamp | None, None))
            rename["stamp"] = "timestamp"
        kind = msgspec.defstruct("JsonMessage", fields, rename=rename, gc=False)
        self._decode = msgspec.json.Decoder(kind).decode
        self._names = [f"f{i}" for i in range(len(plan.keys))]
        self._whole = [f"f{i}" for i, (_, kind) in enumerate(plan.keys) if kind == "integer"]

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        bad = late_clock(log_times)
        refused = {i for i, _ in bad}
        rows: list[int] = []
        texts: list[str] = []
        found: list[Any] = []
        stamps: list[int] = []
        for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            if i in refused:
                continue
            payload = data[start : start + length].tobytes()
            try:
                text = payload.decode()
                message = self._decode(payload)
                stamp = self._stamp(message)
                if any((value := getattr(message, name)) is not None and not -(1 << 63) <= value < 1 << 63
                       for name in self._whole):  # fmt: skip
                    raise ValueError("a whole number beyond 64 bits")
            except (ValueError, RecursionError) as error:  # msgspec's errors and those of UTF-8 are ValueErrors
                bad.append((i, f"JSON: {error}"))
                continue
            rows.append(i)
            texts.append(text)
            found.append(message)
            stamps.append(stamp)
        columns = [pa.array(texts, pa.large_utf8())]
        for name, (_, kind) in zip(self._names, self._plan.keys, strict=True):
            columns.append(pa.array([getattr(message, name) for message in found], _ARROW[kind]))
        copied = sum(map(len, texts))
        whole = assemble(self.schema, self._topic, rows, stamps, log_times, first, columns, bad)
        return Messages(whole.batch, whole.bad, copied)

    def _stamp(self, message: Any) -> int:
        stamp = message.stamp if self._plan.stamped else None
        if stamp is None:
            return 0
        ns = stamp.sec * 10**9 + stamp.nsec
        if not 0 <= ns < 1 << 63:
            raise ValueError("a timestamp beyond the year 2262 or before 1970")
        return int(ns)
