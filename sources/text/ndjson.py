"""Game events and any other records written as one JSON object a line, plain or packed (FORMATS 6, item 6).

A column spec says which values become columns: ``{"hp": "player.state.health:int32"}``. The lines go straight into the
columns' memory through a compiled scanner; whatever it does not understand is decoded by msgspec line by line, which is
also what defines the result. A line that is no JSON object, or whose value has not its column's type, is quarantined alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import GraphError
from ...pipeline.schema import EVENT_FIELDS, event_schema
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location, stored_size
from ..storage.unpack import head_of, open_feed
from ._ndjson_detect import is_ndjson
from ._ndjson_spec import MOST_RECORDS, PERSONAL_KEYS, TIME_UNITS, Column, check_paths, parse_columns, split_path

if TYPE_CHECKING:
    from ._ndjson_decode import Layout
    from ._ndjson_reader import LineReader

__all__ = ["PERSONAL_KEYS", "Ndjson", "game_events", "inspect_ndjson", "is_ndjson", "open_ndjson"]


@dataclass(frozen=True)
class Ndjson(SourceSpec):
    """A file of JSON objects, one a line; gzip, zstd, bz2, lz4, xz and zip (of one file) are recognised by their content.

    Parameters
    ----------
    path
        The file.
    columns
        Output columns by name, each ``path:type`` or ``path:type=default``. Path parts are keys joined by dots (``\\.`` is
        a dot inside a key). Types: ``bool``, ``int8`` .. ``int64``, ``uint8`` .. ``uint64``, ``float32``, ``float64``,
        ``utf8``, ``dict`` (``dictionary<int16, utf8>``), ``dict32`` (int32 indices) and ``timestamp[ns|us|ms|s|iso]``
        (UTC). A missing key or a JSON null is null, or the default (not for ``utf8`` and timestamps).
    time, time_unit
        Path and unit (``ns``, ``us``, ``ms``, ``s`` or ``iso``) of the event time. A line without it is a bad record.
    time_start_ns
        Added to times that are numbers, for those that count from the start of a match.
    recv
        Path of the capture time in the same unit; None: the event time.
    rest
        Name of a ``large_string`` column that gets the JSON text of each line without the members that became columns,
        verbatim otherwise. Members whose key is in `PERSONAL_KEYS` are cut out of it at every depth, unless
        `keep_personal`.
    constants
        Further ``dictionary<int32, utf8>`` columns with one value, such as a match id.
    max_line
        Longest line in bytes; a longer one is quarantined with its first 64 KiB.
    block_bytes
        Bytes that are read ahead and decoded at a time.

    Integers are exact and checked against their type; ``5.0`` is no integer. Floats are the nearest float64 of the text
    (float32 columns its rounding). Where a key comes twice the last one counts. A line must be UTF-8 JSON of at most 128
    levels. ``seq`` is the number of the line among those that are not blank. Raises FormatError for an empty file or one of
    another format, GraphError for a spec that cannot be.
    """

    path: PathLike
    columns: Mapping[str, str] = field(kw_only=True)
    time: str = field(default="ts_ns", kw_only=True)
    time_unit: str = field(default="ns", kw_only=True)
    time_start_ns: int = field(default=0, kw_only=True)
    recv: str | None = field(default=None, kw_only=True)
    rest: str | None = field(default=None, kw_only=True)
    keep_personal: bool = field(default=False, kw_only=True)
    constants: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    max_line: int = field(default=16 << 20, kw_only=True)
    block_bytes: int = field(default=1 << 20, kw_only=True)
    lateness_ns: int = field(default=0, kw_only=True)

    format: ClassVar[str] = "ndjson"

    def __post_init__(self) -> None:
        if self.time_unit not in TIME_UNITS:
            raise GraphError(f"{self.time_unit=} is no unit of time", expected=" | ".join(TIME_UNITS))
        if not abs(self.time_start_ns) < 1 << 61:
            raise GraphError(f"{self.time_start_ns=} is outside the years 1897 to 2043", expected="ns since 1970")
        if not 64 <= self.max_line <= 1 << 30:
            raise GraphError(f"{self.max_line=}", expected="64 to 2**30 bytes")
        if not 64 <= self.block_bytes <= 1 << 28:
            raise GraphError(f"{self.block_bytes=}", expected="64 to 2**28 bytes")
        names = [*EVENT_NAMES, *self.columns, *self.constants, *([self.rest] if self.rest else [])]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise GraphError(
                f"two columns are called {twice[0]!r}", expected=f"names other than {', '.join(EVENT_NAMES)}"
            )
        check_paths(self._all_columns)

    @cached_property
    def _user_columns(self) -> tuple[Column, ...]:
        return parse_columns(self.columns)

    @cached_property
    def _all_columns(self) -> tuple[Column, ...]:
        kind = f"timestamp[{self.time_unit}]"
        times = [Column("ts_event", split_path(self.time), kind, required=True, epoch_ns=self.time_start_ns)]
        if self.recv is not None and self.recv != self.time:
            times.append(Column("ts_recv", split_path(self.recv), kind, required=True, epoch_ns=self.time_start_ns))
        return (*times, *self._user_columns)

    @property
    def schema(self) -> pa.Schema:
        """The event columns, `constants`, `columns` in their order, then `rest`."""
        fields = [pa.field(name, pa.dictionary(pa.int32(), pa.utf8()), nullable=False) for name in self.constants]
        fields += [column.field for column in self._user_columns]
        if self.rest:
            fields.append(pa.field(self.rest, pa.large_utf8(), nullable=False))
        return event_schema(fields, source=self.name, format=self.format)

    @property
    def name(self) -> str:
        """The file's name."""
        return base_name(self.path)

    @property
    def block_bound(self) -> int:
        """The text of the longest block, its rows, and for each text column as much text again."""
        text = self.max_line + self.block_bytes + 4096
        outputs = sum(column.type == "utf8" for column in self._user_columns) + bool(self.rest)
        row = 8 + 8 * (outputs + len(self.constants)) + sum(column.width + 1 for column in self._all_columns)
        return text + 3 * (text * (1 + outputs) + MOST_RECORDS * row) // 2  # the pool rounds up by half at most

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        """Open the file, one of its splits, or the rest of either behind a position. Raises OSError."""
        start = position or (split.detail if split is not None and split.detail else {"offset": 0, "seq": 0, "line": 1})
        stop = split.detail.get("stop") if split is not None else None
        return self._reader(context, start, stop)

    def _reader(self, context: Context, start: Position, stop: int | None) -> LineReader:
        from ._ndjson_detect import HEAD_BYTES, check_head
        from ._ndjson_reader import LineReader

        path = location(self.path)
        if stop is None and not start["offset"]:
            check_head(head_of(path, HEAD_BYTES)[0], path)
        return LineReader(
            open_feed(path),
            self._layout(),
            context,
            path=path,
            position=start,
            stop=stop,
            block_bytes=self.block_bytes,
            max_line=self.max_line,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a line again; None for a broken packed stream and for a line of which only the beginning was kept."""
        from ._ndjson_reader import retry_line

        return retry_line(record, self._layout(), self.max_line)

    def _layout(self) -> Layout:
        from ._ndjson_decode import Layout
        from ._ndjson_plan import Plan

        drop = frozenset() if self.keep_personal else PERSONAL_KEYS
        plan = Plan(self._all_columns, rest=self.rest is not None, drop=drop)
        recv = any(column.name == "ts_recv" for column in self._all_columns)
        return Layout(ColumnLayout(self.schema), plan, self.rest, dict(self.constants), recv, self.name)

    def splits(self, wanted: int) -> Sequence[Split]:
        """Byte ranges of a plain file that begin at a line, with the number of their first row.

        Numbering them takes one pass that only counts lines. A packed file cannot be split.
        """
        size = stored_size(self.path)
        wanted = min(wanted, size // self.block_bytes)
        if wanted < 2 or head_of(self.path, 1)[1] != "none":
            return (Split(0, 1),)
        first: Position = {"offset": 0, "seq": 0, "line": 1}
        starts, reader = [first], self._reader(Context("splits"), first, None)
        try:
            for block in reader.blocks():
                if block.after["offset"] >= size * len(starts) // wanted and block.after["offset"] < size:
                    starts.append(block.after)
        finally:
            reader.close()
        stops = [int(start["offset"]) for start in starts[1:]] + [size]
        parts = zip(starts, stops, strict=True)
        return tuple(Split(i, len(starts), {**start, "stop": stop}) for i, (start, stop) in enumerate(parts))


def game_events(
    path: PathLike,
    *,
    match_id: str | None = None,
    match_path: str | None = None,
    type: str = "event",
    player: str = "pid",
    target: str = "target",
    x: str = "x",
    y: str = "y",
    z: str = "z",
    value: str = "value",
    columns: Mapping[str, str] | None = None,
    time: str = "ts_ns",
    time_unit: str = "ns",
    time_start_ns: int = 0,
    recv: str | None = None,
    keep_personal: bool = False,
    lateness_ns: int = 0,
    max_line: int = 16 << 20,
    block_bytes: int = 1 << 20,
) -> Ndjson:
    """Game telemetry as ``game.event`` (FORMATS 6, item 6), every path being the user's to change.

    ``match_id`` dict32, ``type`` dict, ``player`` and ``target`` int16 (-1 where there is none), ``x``, ``y``, ``z`` float32
    and ``value`` float64 (null where there is none), then `columns` of the user's own, then ``attrs``: the rest of the JSON
    verbatim, without personal keys (`PERSONAL_KEYS`) unless `keep_personal`. A line without a type gets the empty one.

    The match is read from `match_path`, else it is `match_id`, else a short digest of the file's name, because the names of
    replay files are often those of players.
    """
    digest = hashlib.sha256(base_name(path).encode()).hexdigest()[:12]
    own = {
        **({"match_id": f"{match_path}:dict32="} if match_path is not None else {}),
        "type": f"{type}:dict=",
        "player": f"{player}:int16=-1",
        "target": f"{target}:int16=-1",
        **{name: f"{source}:float32" for name, source in (("x", x), ("y", y), ("z", z))},
        "value": f"{value}:float64",
    }
    return Ndjson(
        path,
        columns={**own, **(columns or {})},
        time=time,
        time_unit=time_unit,
        time_start_ns=time_start_ns,
        recv=recv,
        rest="attrs",
        keep_personal=keep_personal,
        constants={} if match_path is not None else {"match_id": match_id or digest},
        max_line=max_line,
        block_bytes=block_bytes,
        lateness_ns=lateness_ns,
    )


def open_ndjson(path: PathLike, *, columns: Mapping[str, str] | None = None, **options: Any) -> Ndjson:
    """The file as a source: with `columns` as `Ndjson` takes them, without as `game_events`, its time and type found.

    Raises GraphError if `options` do not say which value is the time, and nothing in the first records looks like one.
    """
    from ._ndjson_inspect import guessed

    probe = Ndjson(path, columns={}, time="-")
    if columns is None:
        return game_events(path, **guessed(probe, options))
    if "time" not in options:
        found = guessed(probe, options)
        options |= {name: found[name] for name in ("time", "time_unit") if name in found}
    return Ndjson(path, columns=columns, **options)


def inspect_ndjson(path: PathLike) -> dict[str, Any]:
    """What a file of JSON lines holds, for `penstock inspect`.

    Keys: ``format``, ``compression``, ``messages`` (bad ones included), ``types`` (messages by the value of ``event``,
    ``type`` or ``_T``), ``bad``, ``time`` (start, end as ISO 8601 and ns, seconds), ``time_key``, ``time_unit``, ``columns``
    (path to JSON types, from the first records) and ``columns_from``. Raises FormatError as reading does.
    """
    from ._ndjson_inspect import describe_file

    return describe_file(Ndjson(location(path), columns={}, time="-"), "NDJSON")


EVENT_NAMES = tuple(event.name for event in EVENT_FIELDS)
