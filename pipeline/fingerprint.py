"""What a graph is, in words that can be compared: so that a snapshot of another graph is refused with what changed.

A step is described by its kind, its inputs, the schema it emits and the fields of its spec. Functions are described by
their name and a digest of their code, so an edited function is seen; what it calls is not followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import CodeType
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from .plan import Node, Plan

__all__ = ["changes", "describe_plan"]


def describe_plan(plan: Plan) -> dict[str, dict[str, Any]]:
    """Plain values by step id."""
    return {node.id: _node(node) for node in plan.nodes}


def _node(node: Node) -> dict[str, Any]:
    inputs = [f"{link.node.id}.{link.output}" if link.output else link.node.id for link in node.inputs]
    schema = {field.name: str(field.type) for field in node.schema}
    return {"kind": node.kind, "inputs": inputs, "schema": schema, "spec": _value(node.spec)}


def _value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        parts = {f.name: _value(getattr(value, f.name)) for f in fields(value) if f.compare}
        return {"type": f"{kind.__module__}.{kind.__qualname__}", **parts}
    if isinstance(value, Mapping):
        return {str(key): _value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes {xxhash.xxh3_64_hexdigest(value)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {xxhash.xxh3_64_hexdigest(np.ascontiguousarray(value).data)}"
    if isinstance(value, (pa.Schema, pa.DataType)):
        return str(value)
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return f"{value.num_rows} rows of {value.schema}"
    code = getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
        return f"{name} {_code(code)}{_cells(value)}"
    if hasattr(value, "__fspath__"):
        return str(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _code(code: CodeType) -> str:
    total = xxhash.xxh3_64(code.co_code)
    for constant in code.co_consts:
        total.update((_code(constant) if isinstance(constant, CodeType) else _constant(constant)).encode())
    total.update(" ".join(code.co_names).encode())
    return total.hexdigest()


def _constant(value: Any) -> str:
    # the text of a set depends on the process
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _cells(function: Any) -> str:
    closure = getattr(function, "__closure__", None) or ()
    values = [cell.cell_contents for cell in closure if _filled(cell)]
    return "".join(f" {_value(value)}" for value in values)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions, one line a step; empty if nothing does."""
    lines = [f"step {step!r} is new" for step in now if step not in before]
    lines += [f"step {step!r} is gone" for step in before if step not in now]
    for step in now:
        if step in before and before[step] != now[step]:
            lines.append(f"step {step!r} changed: {'; '.join(_differences(before[step], now[step], ()))}")
    return lines


def _differences(before: Any, now: Any, path: Sequence[str]) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = []
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                found += _differences(before.get(key), now.get(key), (*path, key))
        return found
    name = ".".join(part for part in path if part != "spec") or "value"
    return [f"{name} was {_short(before)}, is {_short(now)}"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
