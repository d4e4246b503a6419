"""What a file of JSON lines holds: records, counts by type, time range, and the values seen with their JSON types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ...pipeline.columns import as_numpy
from ...pipeline.context import Context
from ..storage.unpack import head_of

if TYPE_CHECKING:
    from .ndjson import Ndjson

__all__ = ["describe_file", "find_time", "type_counts"]

_TYPES = ("event", "type", "_T")
_TIMES = ("ts_ns", "timestamp", "time", "ts", "_D", "t")
_SAMPLE = 10_000
_NAMES = {bool: "bool", int: "int", float: "float", str: "string", list: "array", type(None): "null", dict: "object"}


def describe_file(path: str) -> dict[str, Any]:
    """See `ndjson.inspect_ndjson`."""
    from .ndjson import Ndjson

    probe = Ndjson(path, columns={}, time="-")
    seen, sampled, first = _survey(probe)
    kind = next((key for key in _TYPES if seen.get(key) == {"string"}), None)
    time, unit = _find_time(seen, first)
    result: dict[str, Any] = {"format": "NDJSON", "compression": head_of(path, 1)[1]}
    if time is not None:
        spec = Ndjson(
            path, columns={} if kind is None else {"type": f"{kind}:dict32=(none)"}, time=time, time_unit=unit
        )
        messages, bad, types, span = type_counts(spec)
    else:
        messages, bad, types, span = sum(block.records for block, _ in _blocks(probe)), None, Counter(), None
    result |= {
        "messages": messages,
        "types": dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        "bad": bad,
        "time": None if span is None else _time_range(*span),
        "time_key": time,
        "time_unit": unit if time is not None else None,
        "columns": {path: "|".join(sorted(kinds)) for path, kinds in seen.items()},
        "columns_from": f"the first {sampled} records",
    }
    return result


def find_time(path: str) -> tuple[str | None, str]:
    """The key that looks like the time of the first records, or None, and its unit."""
    from .ndjson import Ndjson

    seen, _, first = _survey(Ndjson(path, columns={}, time="-"))
    return _find_time(seen, first)


def _blocks(spec: Ndjson) -> Iterator[tuple[Any, Any]]:
    reader = spec.open(Context("inspect"))
    try:
        for block in reader.blocks():
            yield block, reader
    finally:
        reader.close()


def type_counts(spec: Ndjson) -> tuple[int, int, Counter[str], tuple[int, int] | None]:
    """Records, bad ones, rows by the value of the column ``type``, and the first and last event time."""
    messages, bad, types, low, high = 0, 0, Counter[str](), None, None
    for block, reader in _blocks(spec):
        decoded = reader.decode(block)
        messages += block.records
        bad += len(decoded.bad)
        for batch in decoded.batches:
            times = as_numpy(batch["ts_event"])
            low = int(times.min()) if low is None else min(low, int(times.min()))
            high = int(times.max()) if high is None else max(high, int(times.max()))
            if "type" in spec.columns:
                column = batch["type"]
                counts = np.bincount(as_numpy(column), minlength=len(column.dictionary))
                for name, count in zip(column.dictionary.to_pylist(), counts.tolist(), strict=True):
                    if count:
                        types[name] += count
    return messages, bad, types, None if low is None or high is None else (low, high)


def _survey(probe: Ndjson) -> tuple[dict[str, set[str]], int, Mapping[str, Any]]:
    """JSON types by path over the first records, how many those were, and the first of them."""
    seen: dict[str, set[str]] = {}
    sampled = 0
    first: dict[str, Any] = {}
    for block, _ in _blocks(probe):
        lines = block.payload.bytes.tobytes().split(b"\n") if hasattr(block.payload, "bytes") else []
        for line in lines:
            try:
                record = msgspec.json.decode(line) if line.strip() else None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(record, dict):
                _note(record, "", seen, 0)
                first = first or record
                sampled += 1
        if sampled >= _SAMPLE:
            break
    return seen, sampled, first


def _note(record: Mapping[str, Any], prefix: str, seen: dict[str, set[str]], depth: int) -> None:
    for key, value in record.items():
        path = prefix + key.replace(".", "\\.")
        if isinstance(value, dict) and depth < 8:
            _note(value, f"{path}.", seen, depth + 1)
        elif len(seen) < 1_000 or path in seen:
            seen.setdefault(path, set()).add(_NAMES[type(value)])


def _find_time(seen: Mapping[str, set[str]], first: Mapping[str, Any]) -> tuple[str | None, str]:
    for key in _TIMES:
        kinds, value = seen.get(key), first.get(key)
        if kinds == {"string"}:
            return key, "iso"
        if kinds and kinds <= {"int", "float"} and isinstance(value, int | float):
            if key.endswith("_ns"):
                return key, "ns"
            size = abs(value)
            return (
                key,
                "ns" if size > 1e17 else "us" if size > 1e14 else "ms" if size > 1e11 else "s" if size > 1e8 else "ms",
            )
    return None, "ns"


def _time_range(start: int, end: int) -> dict[str, Any]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    iso = [(epoch + timedelta(microseconds=ns // 1_000)).isoformat() for ns in (start, end)]
    return {"start": iso[0], "end": iso[1], "start_ns": start, "end_ns": end, "seconds": (end - start) / 1e9}
