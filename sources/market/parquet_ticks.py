"""Any Parquet or Arrow IPC (Feather) file with a time column, as a stream of its rows; catalogs of nautilus_trader too.

    trades = sources.ParquetTicks("trades.parquet", time="exchange_time", unit="us")

A file is read a row group (Parquet) or record batch (IPC) at a time and never whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.names import names_in
from ...pipeline.schema import describe
from ...pipeline.source import Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location

if TYPE_CHECKING:
    from ._parquet_ticks_reader import Plan

__all__ = ["ParquetTicks", "inspect_parquet_ticks", "is_parquet_ticks", "open_parquet_ticks"]

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
#: Names that a time column often has, the likeliest first.
USUAL = (
    *("ts_event", "timestamp_ns", "timestamp", "time", "ts", "datetime", "date", "exchange_time", "transact_time"),
    *(
        "event_time",
        "event_ts",
        "exch_time",
        "exch_ts",
        "exch_timestamp",
        "exchange_timestamp",
        "trade_time",
        "ts_recv",
    ),
    *("local_timestamp", "local_ts", "recv_time", "received_at", "created_at", "open_time", "ts_init"),
)


@dataclass(frozen=True)
class ParquetTicks(SourceSpec):
    """The rows of a Parquet file or an Arrow IPC file (Feather 2), a batch at a time.

    Parameters
    ----------
    path
        The file. Parquet is told from IPC by its content.
    time
        Column with the event time: a timestamp (without a zone it counts as UTC), a date, ISO 8601 text, or a number of
        `unit` (floats are rounded to the ns).
    unit
        ``s``, ``ms``, ``us`` or ``ns``, for times that are numbers; None: ns.
    recv
        Column with the capture time in the same unit; None: ``ts_init`` where a catalog has it, ``ts_recv`` where it is of
        the type of the event time, else the event time.
    columns
        Which other columns, in this order; None: all of them.
    fixed_point
        Columns of nautilus fixed-point binaries (8 or 16 bytes, little-endian), with the decimals these have; None: all
        ``fixed_size_binary`` columns of that width, with the 9 or 16 decimals of nautilus' two precisions.

    Fixed-point columns come out as int64 of 1e-9, or as float64 if their name speaks of a size, quantity or volume; the
    undefined price is null. A catalog's instrument becomes a `symbol` column. All else keeps its name and type. `seq` is the
    number of the row. A row without a time, or with a price that 1e-9 does not hold, is a bad record (its data is the row as
    text); a row group that does not decode is one for all its rows. Raises GraphError for columns that are not there,
    FormatError for a file that is neither.
    """

    path: PathLike
    time: str = field(default="ts_event", kw_only=True)
    unit: str | None = field(default=None, kw_only=True)
    recv: str | None = field(default=None, kw_only=True)
    columns: str | Sequence[str] | None = field(default=None, kw_only=True)
    fixed_point: Sequence[tuple[str, int]] | None = field(default=None, kw_only=True)

    format: ClassVar[str] = "parquet_ticks"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.unit is not None and self.unit not in UNITS:
            raise GraphError(f"{self.unit=} is no unit of time", expected=" | ".join(UNITS))
        if self.columns is not None:
            object.__setattr__(self, "columns", names_in(self.columns))
        if self.fixed_point is not None:
            object.__setattr__(self, "fixed_point", tuple((name, int(places)) for name, places in self.fixed_point))
            if any(not 0 <= places <= 27 for _, places in self.fixed_point or ()):
                raise GraphError(f"{self.fixed_point=} has decimals that cannot be", expected="0 to 27")

    @property
    def schema(self) -> pa.Schema:
        return self._plan().schema

    @property
    def name(self) -> str:
        return base_name(self.path)

    def _plan(self) -> Plan:
        from ._parquet_ticks_reader import open_table, plan_of

        with open_table(str(self.path)) as table:
            return plan_of(table.schema, self, base_name(self.path))

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._parquet_ticks_reader import TableReader, open_table, plan_of

        detail = split.detail if split is not None else {}
        table = open_table(str(self.path))
        try:
            plan = plan_of(table.schema, self, base_name(self.path))
        except BaseException:
            table.close()
            raise
        return TableReader(table, plan, position=position or detail, stop=detail.get("stop"))

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` runs of row groups with about as many rows each."""
        from ._parquet_ticks_reader import open_table

        with open_table(str(self.path)) as table:
            rows = [table.rows(group) for group in range(table.groups)]
        total, starts, seq = sum(rows), [{"group": 0, "row": 0, "seq": 0}], 0
        for group, count in enumerate(rows):
            if group and seq >= total * len(starts) / max(1, wanted) and len(starts) < wanted:
                starts.append({"group": group, "row": 0, "seq": seq})
            seq += count
        stops = [start["group"] for start in starts[1:]] + [len(rows)]
        parts = zip(starts, stops, strict=True)
        return tuple(Split(i, len(starts), {**start, "stop": stop}) for i, (start, stop) in enumerate(parts))

    @property
    def block_bound(self) -> int:
        from ._parquet_ticks_reader import open_table

        with open_table(str(self.path)) as table:
            return max(64 << 20, table.largest)


def is_parquet_ticks(head: bytes) -> bool:
    """Whether a file that begins with `head` is Parquet or an Arrow IPC file. Which columns it has is told at its end."""
    return head.startswith((b"PAR1", b"ARROW1\0\0"))


def open_parquet_ticks(path: PathLike, **options: Any) -> ParquetTicks:
    """The file as a source; what `options` do not say is found: the time by its usual names or as the only timestamp, the
    unit of a time that is a number by its size, if that makes it one of the years 1990 to 2100 (else ns)."""
    from ._parquet_ticks_reader import open_table, usual_time, usual_unit

    place = location(path)
    with open_table(place) as table:
        if "time" not in options:
            options["time"] = usual_time(table)
        if options.get("unit") is None:
            options["unit"] = usual_unit(table, options["time"])
    spec = ParquetTicks(path, **options)
    _ = spec.schema
    return spec


def inspect_parquet_ticks(path: PathLike) -> dict[str, Any]:
    """What the file holds: plain values for `penstock inspect`, found by reading it.

    Where no column looks like the time, only rows and columns are told, and ``time_column`` is None.
    """
    from ._parquet_ticks_reader import columns_of, open_table, usual_time, usual_unit
    from ._ticks_csv_inspect import survey

    place = location(path)
    with open_table(place) as table:
        kind, groups = table.kind, table.groups
        rows = sum(table.rows(group) for group in range(groups))
        try:
            time = usual_time(table)
        except FormatError:
            columns = columns_of(table.schema)
            hint = {"options": "time='COLUMN'", "hint": "no column is the time by its name or type"}
            found = {
                "compression": "none",
                "messages": rows,
                "types": {},
                "bad": None,
                "symbols": 0,
                "time_range": None,
            }
            return {**found, "container": kind, "groups": groups, "time_column": None, **hint, "schema": columns}
        unit = usual_unit(table, time)
    spec = ParquetTicks(path, time=time, unit=unit)
    found = {**survey(spec, "rows"), "container": kind, "groups": groups, "time_column": time, "time_unit": unit}
    return {**found, "schema": describe(spec.schema)}
