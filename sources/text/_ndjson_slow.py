"""Lines one by one: what the scanner leaves, and what a line means.

`read_line` is the definition that the scanner must agree with: a line is good if msgspec decodes it as one JSON object
and every column's value has the column's type. msgspec checks the grammar, the numbers' range, escapes and UTF-8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any

import msgspec
import numpy as np

from ._ndjson_spec import TIME_UNITS, Column

__all__ = ["DEEPEST", "BadLine", "read_line"]

_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):?(\d\d))?", re.ASCII)
_EXACT = Context(prec=6000)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Objects and arrays inside each other that a line may have, so that a hostile line cannot exhaust the stack.
DEEPEST = 128


class BadLine(ValueError):
    """A line that is no record; the text says why."""


class _Real(str):
    """A number with a fraction or an exponent, as it is written."""


def _real(text: str) -> _Real:
    if abs(float(text)) == float("inf"):
        raise ValueError(f"the number {text[:40]} is out of range")
    return _Real(text)


_DECODER = msgspec.json.Decoder(float_hook=_real)


def read_line(
    line: bytes, columns: Sequence[Column], *, rest: bool, drop: Collection[str] = ()
) -> tuple[dict[str, Any], str]:
    """The values of the columns present (nulls left out) and the text left, if `rest` is asked for.

    Raises BadLine if the line is no JSON object, or a value has not its column's type, or a required one is missing.
    """
    try:
        text = line.decode("utf-8")
        value = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadLine(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadLine(f"a JSON {_kind(value)}, not an object")
    if line.count(b"{") + line.count(b"[") > DEEPEST:
        _left(text, (), ())
    found: dict[str, Any] = {}
    for column in columns:
        item = _follow(value, column)
        if item is not None:
            found[column.name] = _convert(item, column)
        elif column.required:
            raise BadLine(f"column {column.name!r}: no value at {column.where!r}")
    return found, _left(text, columns, drop) if rest else ""


def _kind(value: object) -> str:
    if isinstance(value, _Real):
        return f"number {value[:40]}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return f"integer {str(value)[:40]}"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def _follow(value: Any, column: Column) -> Any:
    for depth, key in enumerate(column.path):
        if value is None:
            return None
        if not isinstance(value, dict):
            parent = ".".join(column.path[:depth])
            raise BadLine(f"column {column.name!r} ({column.where}): {parent!r} is a {_kind(value)}, not an object")
        value = value.get(key)
    return value


def _convert(value: Any, column: Column) -> Any:
    result: Any = None
    if column.type == "bool":
        result = value if isinstance(value, bool) else None
    elif column.is_integer:
        low, high = column.limits
        integer = isinstance(value, int) and not isinstance(value, bool)
        result = value if integer and low <= value <= high else None
    elif column.is_float:
        result = _to_float(value, column.width)
    elif column.unit is None:
        result = value if isinstance(value, str) and not isinstance(value, _Real) else None
    else:
        result = _to_ns(value, column)
    if result is None:
        raise BadLine(f"column {column.name!r} ({column.where}): expected {column.type}, got {_kind(value)}")
    return result


def _to_float(value: Any, width: int) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | _Real):
        return None
    try:
        real = float(value)
    except OverflowError:
        return None
    with np.errstate(over="ignore"):
        return None if width == 4 and np.isinf(np.float32(real)) else real


def _to_ns(value: Any, column: Column) -> int | None:
    unit = column.unit or "ns"
    if unit == "iso":
        return _iso_ns(value) if isinstance(value, str) and not isinstance(value, _Real) else None
    if isinstance(value, bool) or not isinstance(value, int | _Real):
        return None
    try:
        number = Decimal(value)
        small = abs(number.adjusted()) > 400  # only a small one: the large are out of range
    except InvalidOperation:  # its exponent has more digits than Decimal knows
        small = True
    if small:
        number = Decimal(0)
    ns = int(number.scaleb(TIME_UNITS[unit], _EXACT).to_integral_value(ROUND_HALF_EVEN, _EXACT))
    return ns + column.epoch_ns if abs(ns) <= 1 << 62 else None


def _iso_ns(text: str) -> int | None:
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    try:
        stamp = datetime(*(int(part) for part in match.groups()[:6]), tzinfo=UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        return None
    if not 1678 <= stamp.year <= 2261:
        return None
    if match[8]:
        if int(match[9]) > 23 or int(match[10]) > 59:
            return None
        offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
        stamp += -offset if match[8] == "+" else offset
    passed = stamp - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 10**9 + int((match[7] or "0").ljust(9, "0"))


_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR = re.compile(r'"(?:[^"\\]|\\.)*"|[^ \t\r\n{}\[\]:,"]+')
_Trie = dict[str, "dict[str, Any] | None"]


class _Cutter:
    """Walks a JSON text that is known to be good and notes what is to be cut out of it."""

    def __init__(self, text: str, drop: Collection[str]) -> None:
        self._text, self._drop = text, drop
        self.cuts: list[tuple[int, int]] = []

    def _space(self, at: int) -> int:
        return _SPACE.match(self._text, at).end()  # type: ignore[union-attr]

    def value(self, at: int, paths: _Trie | None, depth: int) -> int:
        """The end of the value at `at`; `paths` says which of its members are columns."""
        if depth > DEEPEST:
            raise BadLine(f"more than {DEEPEST} objects and arrays inside each other")
        opener = self._text[at]
        if opener == "{":
            return self._object(at + 1, paths or {}, depth)
        if opener == "[":
            return self._array(at + 1, depth)
        return _SCALAR.match(self._text, at).end()  # type: ignore[union-attr]

    def _array(self, at: int, depth: int) -> int:
        at = self._space(at)
        while self._text[at] != "]":
            at = self._space(self.value(at, None, depth + 1))
            if self._text[at] == ",":
                at = self._space(at + 1)
        return at + 1

    def _object(self, opened: int, paths: _Trie, depth: int) -> int:
        at = self._space(opened)
        last, kept = opened, False
        while self._text[at] != "}":
            quoted = _STRING.match(self._text, at)
            key = json.loads(quoted[0])  # type: ignore[index]
            at = self._space(self._space(quoted.end()) + 1)  # type: ignore[union-attr]
            at = self.value(at, paths.get(key), depth + 1)
            cut = paths[key] is None if key in paths else key in self._drop
            if cut:
                self.cuts.append((last if kept else opened, at))
            kept = kept or not cut
            last = at
            at = self._space(at)
            if self._text[at] == ",":
                at += 1
                if not kept:
                    self.cuts.append((opened, at))
                at = self._space(at)
        return at + 1


def _left(text: str, columns: Sequence[Column], drop: Collection[str]) -> str:
    """`text` of an object without the members that columns read and, at any depth, those with a key in `drop`.

    What stays is verbatim; a cut takes the member and the comma before it, or the one behind it if none before stays.
    """
    paths: _Trie = {}
    for column in columns:
        node = paths
        for key in column.path[:-1]:
            node = node.setdefault(key, {})  # type: ignore[assignment]
        node[column.path[-1]] = None
    cutter = _Cutter(text, drop)
    begin = text.index("{")
    end = cutter.value(begin, paths, 1)
    pieces = []
    for start, stop in sorted(cutter.cuts):
        pieces.append(text[begin : max(begin, start)])
        begin = max(begin, stop)
    return "".join(pieces) + text[begin:end]
