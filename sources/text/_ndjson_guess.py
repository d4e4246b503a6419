"""Which values of JSON records are their time and their type, told by names and by values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Survey", "time_in", "type_in"]

_TYPES = ("event", "type", "_T")
#: Names that times have, the likeliest first.
_TIMES = (
    *("ts_ns", "timestamp", "time", "ts", "_D", "t", "ts_event", "timestamp_ns", "@timestamp", "event_time"),
    *("eventTime", "datetime", "date", "created_at", "createdAt", "pt", "E", "T"),
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_NUMBERS = {"int", "float"}
_DEEPEST, _MOST_PATHS = 8, 1_000
_NAMES = {bool: "bool", int: "int", float: "float", str: "string", list: "array", type(None): "null", dict: "object"}


@dataclass(slots=True)
class Survey:
    """Records seen: their number, and by path the JSON types, how many have a value, and the first of these."""

    records: int = 0
    kinds: dict[str, set[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, Any] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take note of a record."""
        self.records += 1
        self._note(record, "", 0)

    def _note(self, record: Mapping[str, Any], prefix: str, depth: int) -> None:
        for key, value in record.items():
            path = prefix + key.replace(".", "\\.")
            if isinstance(value, dict) and depth < _DEEPEST:
                self._note(value, f"{path}.", depth + 1)
            elif len(self.kinds) < _MOST_PATHS or path in self.kinds:
                self.kinds.setdefault(path, set()).add(_NAMES[type(value)])
                if value is not None:
                    self.counts[path] += 1
                    self.firsts.setdefault(path, value)


def type_in(seen: Survey) -> str | None:
    """The key that names a record's type."""
    return next((key for key in _TYPES if seen.kinds.get(key) == {"string"}), None)


def time_in(seen: Survey) -> tuple[str | None, str]:
    """The path of the records' time, or None, and its unit: a usual name, else what looks like a time in nearly all."""
    for key in _TIMES:
        unit = _unit(seen, key, usual=True)
        if unit is not None and 2 * seen.counts[key] >= seen.records:
            return key, unit
    most = max((count for path, count in seen.counts.items() if _unit(seen, path, usual=False)), default=0)
    if 10 * most < 9 * seen.records or not most:
        return None, "ns"
    paths = [path for path, count in seen.counts.items() if count == most and _unit(seen, path, usual=False)]
    path = min(paths, key=lambda path: path.replace("\\.", "").count("."))
    return path, str(_unit(seen, path, usual=False))


def _unit(seen: Survey, path: str, *, usual: bool) -> str | None:
    """The unit of a time by its first value; None if that is none. A number of a usual name may count from anything."""
    kinds, value = seen.kinds.get(path, set()) - {"null"}, seen.firsts.get(path)
    if kinds == {"string"}:
        return "iso" if _ISO.fullmatch(value or "") else None
    if not kinds or not kinds <= _NUMBERS or not isinstance(value, int | float):
        return None
    size = abs(value)
    if not usual and not any(10**power <= size < 10 ** (power + 1) for power in (9, 12, 15, 18)):
        return None
    if path.endswith("_ns"):
        return "ns"
    return "ns" if size > 1e17 else "us" if size > 1e14 else "ms" if size > 1e11 else "s" if size > 1e8 else "ms"
