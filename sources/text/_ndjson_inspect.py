"""What a file of JSON records holds: counts by type, time range, and the values seen with their JSON types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ...pipeline.columns import as_numpy
from ...pipeline.context import Context
from ...pipeline.errors import GraphError
from ..storage.unpack import head_of
from ._ndjson_guess import Survey, time_in, type_in

if TYPE_CHECKING:
    from .ndjson import Ndjson

__all__ = ["describe_file", "find_time", "guessed", "type_counts"]

_SAMPLE = 10_000
_SHOWN = 12


def _number(kinds: set[str], first: Any) -> bool:
    return kinds <= {"int", "float", "null"}


def _small(kinds: set[str], first: Any) -> bool:
    return kinds <= {"int", "null"} and (first is None or -(1 << 15) <= first < 1 << 15)


def _name(kinds: set[str], first: Any) -> bool:
    return kinds <= {"string", "null"}


#: Which keys `game_events` makes columns of unless told otherwise, and what values those take.
_USUAL = {
    "type": ("event", _name),
    "player": ("pid", _small),
    "target": ("target", _small),
    **{key: (key, _number) for key in ("x", "y", "z", "value")},
}


def describe_file(probe: Ndjson, name: str) -> dict[str, Any]:
    """See `ndjson.inspect_ndjson`. `probe` reads the file without columns."""
    seen = _survey(probe)
    kind = type_in(seen)
    time, unit = time_in(seen)
    result: dict[str, Any] = {"format": name, "compression": head_of(probe.path, 1)[1]}
    if time is not None:
        columns = {} if kind is None else {"type": f"{kind}:dict32=(none)"}
        messages, bad, types, span = type_counts(replace(probe, columns=columns, time=time, time_unit=unit))
    else:
        messages, bad, types, span = sum(block.records for block, _ in _blocks(probe)), None, Counter(), None
    result |= {
        "messages": messages,
        "types": dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        "bad": bad,
        "time": None if span is None else _time_range(*span),
        "time_key": time,
        "time_unit": unit if time is not None else None,
        "columns": {path: "|".join(sorted(kinds)) for path, kinds in seen.kinds.items()},
        "columns_from": f"the first {seen.records} records",
        "options": None if time is not None or not seen.records else "time='PATH', time_unit='ms'",
        "hint": "columns={'NAME': 'PATH:TYPE', ..} makes columns of values",
    }
    return result


def guessed(probe: Ndjson, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the time and the type of the records where they do not say. `probe` reads the file without columns.

    Raises GraphError if nothing in the records looks like a time.
    """
    found = dict(options)
    if "time" in found and "type" in found:
        return found
    seen = _survey(probe)
    if "time" not in found and seen.records:
        time, unit = time_in(seen)
        if time is None:
            keys = ", ".join([*seen.kinds][:_SHOWN]) + (", .." if len(seen.kinds) > _SHOWN else "")
            raise GraphError(
                f"nothing in the records of {probe.name} looks like their time",
                expected="time= and time_unit= that say which value it is",
                got=f"records with {keys or 'no keys'}",
            )
        found |= {"time": time, "time_unit": found.get("time_unit", unit)}
    if "type" not in found and (kind := type_in(seen)) is not None:
        found["type"] = kind
    for name, (key, fits) in _USUAL.items():  # what is called so but is something else stays with the rest
        path = found.get(name, key)
        inside = any(other.startswith(f"{path}.") for other in seen.kinds)
        if name not in options and (inside or not fits(seen.kinds.get(path, set()), seen.firsts.get(path))):
            found[name] = f"-{key}"
    return found


def find_time(path: str) -> tuple[str | None, str]:
    """The value that looks like the time of a file's first records, or None, and its unit."""
    from .ndjson import Ndjson

    return time_in(_survey(Ndjson(path, columns={}, time="-")))


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


def _survey(probe: Ndjson) -> Survey:
    """What the first records have."""
    seen = Survey()
    for block, _ in _blocks(probe):
        lines = block.payload.bytes.tobytes().split(b"\n") if hasattr(block.payload, "bytes") else []
        for line in lines:
            try:
                record = msgspec.json.decode(line) if line.strip() else None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(record, dict):
                seen.add(record)
        if seen.records >= _SAMPLE:
            break
    return seen


def _time_range(start: int, end: int) -> dict[str, Any]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    iso = [(epoch + timedelta(microseconds=ns // 1_000)).isoformat() for ns in (start, end)]
    return {"start": iso[0], "end": iso[1], "start_ns": start, "end_ns": end, "seconds": (end - start) / 1e9}
