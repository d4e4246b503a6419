"""What a column of JSON lines is: its path, its type, and what stands for a missing value.

A column is written ``path:type`` or ``path:type=default``. Path parts are object keys joined by dots (``\\.`` is a dot in
a key). Types: ``bool``, ``int8`` to ``int64``, ``uint8`` to ``uint64``, ``float32``, ``float64``, ``utf8``, ``dict``
(``dictionary<int16, utf8>``), ``dict32`` (int32 indices), and ``timestamp[ns|us|ms|s|iso]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from ...pipeline.errors import GraphError
from ...pipeline.schema import TIMESTAMP

__all__ = [
    "MOST_COLUMNS",
    "MOST_KEY_BYTES",
    "MOST_RECORDS",
    "PERSONAL_KEYS",
    "TIME_UNITS",
    "Column",
    "check_paths",
    "parse_columns",
    "split_path",
]

#: Columns one scan can fill, times included: their presence is kept in the bits of one word.
MOST_COLUMNS = 62
#: Records in one block.
MOST_RECORDS = 65_536
#: Length of a key in a path.
MOST_KEY_BYTES = 128
#: Power of ten that turns a unit into nanoseconds; ``iso`` is ISO 8601 text.
TIME_UNITS: Mapping[str, int] = {"ns": 0, "us": 3, "ms": 6, "s": 9, "iso": 0}

_INTEGERS = {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FLOATS = {"float32": 4, "float64": 8}
_TIMESTAMP = re.compile(r"timestamp(?:\[(\w+)\])?")
_SPEC = re.compile(r"(?P<path>.+):(?P<type>[a-z0-9\[\]]+)(?:=(?P<default>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where its value is in the JSON, its type by name, and the value where there is none.

    `default` None means null; a `required` column has neither, and a line without it is a bad record.
    """

    name: str
    path: tuple[str, ...]
    type: str
    default: bool | int | float | str | None = None
    required: bool = False
    epoch_ns: int = 0

    def __post_init__(self) -> None:
        kinds = {"bool", "utf8", "dict", "dict32", *_INTEGERS, *_FLOATS}
        if self.type not in kinds and self.unit is None:
            raise GraphError(
                f"column {self.name!r} has the unknown type {self.type!r}",
                expected=", ".join(sorted(kinds)) + " or timestamp[ns|us|ms|s|iso]",
            )
        if not self.path or any(not part or len(part.encode()) > MOST_KEY_BYTES for part in self.path):
            raise GraphError(
                f"column {self.name!r} has the path {self.where!r}",
                expected=f"object keys of 1 to {MOST_KEY_BYTES} bytes joined by dots",
            )
        if self.default is not None:
            self._check_default()

    def _check_default(self) -> None:
        value, low, high = self.default, *self.limits
        good = (
            isinstance(value, bool)
            if self.type == "bool"
            else isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            if self.type in _INTEGERS
            else isinstance(value, float)
            if self.type in _FLOATS
            else isinstance(value, str)
            if self.is_dictionary
            else False
        )
        if not good:
            raise GraphError(
                f"column {self.name!r} has a default that is no {self.type}",
                expected="one of the column's type; utf8 columns and times have none",
                got=repr(value),
            )

    @property
    def where(self) -> str:
        """The path as it is written."""
        return ".".join(part.replace(".", "\\.") for part in self.path)

    @property
    def unit(self) -> str | None:
        """The unit of a timestamp, None for other types."""
        match = _TIMESTAMP.fullmatch(self.type)
        if match is None:
            return None
        unit = match[1] or "ns"
        return unit if unit in TIME_UNITS else None

    @property
    def width(self) -> int:
        """Bytes a value takes in its column; 0 for text."""
        if self.type in _INTEGERS or self.type in _FLOATS:
            return (_INTEGERS | _FLOATS)[self.type]
        return {"bool": 1, "dict": 2, "dict32": 4, "utf8": 0}.get(self.type, 8)

    @property
    def is_integer(self) -> bool:
        return self.type in _INTEGERS

    @property
    def is_float(self) -> bool:
        return self.type in _FLOATS

    @property
    def is_dictionary(self) -> bool:
        return self.type in ("dict", "dict32")

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest value of an integer column, or index of a dictionary."""
        bits = 8 * (self.width or 8)
        if self.type.startswith("u") and self.is_integer:
            return 0, (1 << bits) - 1
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of the column."""
        if self.unit is not None:
            return TIMESTAMP
        if self.is_dictionary:
            return pa.dictionary(pa.int16() if self.type == "dict" else pa.int32(), pa.utf8())
        kind: pa.DataType = getattr(pa, {"bool": "bool_"}.get(self.type, self.type))()
        return kind

    @property
    def field(self) -> pa.Field:
        """The Arrow field; nullable where there is no default."""
        return pa.field(self.name, self.arrow, nullable=self.default is None and not self.required)


def split_path(text: str) -> tuple[str, ...]:
    """The keys of a path: split at dots, ``\\.`` being a dot inside a key."""
    return tuple(part.replace("\0", ".") for part in text.replace("\\.", "\0").split("."))


def _default(kind: str, text: str) -> bool | int | float | str:
    if kind == "bool" and text in ("true", "false"):
        return text == "true"
    if kind in _INTEGERS:
        return int(text)
    if kind in _FLOATS:
        return float(text)
    return text


def parse_columns(columns: Mapping[str, str]) -> tuple[Column, ...]:
    """`columns` (name to ``path:type[=default]``) as `Column`s. Raises GraphError for what cannot be read."""
    parsed = []
    for name, text in columns.items():
        match = _SPEC.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise GraphError(
                f"column {name!r} cannot be read", expected="'path:type' or 'path:type=default'", got=repr(text)
            )
        try:
            default = None if match["default"] is None else _default(match["type"], match["default"])
        except ValueError as error:
            raise GraphError(
                f"column {name!r} has a default that is no {match['type']}", got=match["default"]
            ) from error
        parsed.append(Column(name, split_path(match["path"]), match["type"], default))
    return tuple(parsed)


def check_paths(columns: Iterable[Column]) -> None:
    """Raises GraphError where two columns want the same value, or one a value inside another's."""
    ordered = sorted(columns, key=lambda column: column.path)
    if len(ordered) > MOST_COLUMNS:
        raise GraphError(f"{len(ordered)} columns in one scan", expected=f"at most {MOST_COLUMNS}")
    for one, other in pairwise(ordered):
        if other.path[: len(one.path)] == one.path:
            raise GraphError(
                f"columns {one.name!r} and {other.name!r} both read {one.where!r}",
                expected="one column for each value in the JSON",
            )


def _spellings(*words: str) -> set[str]:
    title = [word.title() for word in words]
    upper = [word.upper() for word in words]
    forms = {"_".join(words), "-".join(words), "".join(words), words[0] + "".join(title[1:]), "".join(title)}
    return forms | {"_".join(upper), "".join(upper), " ".join(words), " ".join(title), "_".join(title)}


_PERSONAL = (
    "name|nick|nickname|handle|gamertag|battletag|battle tag|alias|player name|player handle|display name|screen name|"
    "user name|username|user|user id|real name|full name|first name|last name|nick name|clan|clan tag|clan name|"
    "summoner name|summoner id|game name|tag line|riot id|puuid|riot id game name|riot id tagline|killer name|"
    "victim name|attacker name|account|account id|account name|steam id|steam id64|xuid|xbox id|psn id|epic id|"
    "toon|toon id|toon handle|profile|profile id|profile url|avatar|avatar url|email|e mail|phone|ip|ip address|"
    "chat|chat text|chat message|message|msg|text|say|whisper|sender|sender name|recipient"
)
#: Keys that hold names, chat or accounts, in the usual spellings; left out of a rest-of-the-line column by default.
PERSONAL_KEYS: frozenset[str] = frozenset(
    spelling for words in _PERSONAL.split("|") for spelling in _spellings(*words.split())
)
