"""Row groups of a Parquet file and record batches of an IPC file behind one face, and their rows in our columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import EVENT_FIELDS, TIMESTAMP, event_schema
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage._stored_file import StoredFile
from ..storage.stored import Stored, open_stored
from ._parquet_ticks_values import as_ns, fixed_point, is_number, is_size, is_text, is_time, parsed, without_overflow
from .parquet_ticks import UNITS, USUAL, ParquetTicks

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Plan", "Table", "TableReader", "columns_of", "open_table", "plan_of", "usual_time", "usual_unit"]

#: Rows of a block.
ROWS = 1 << 15
_EVENT = tuple(column.name for column in EVENT_FIELDS)
_SHOWN = 20
_DAMAGE = (pa.ArrowException, OSError)
#: 1990 and 2100, in ns.
_SINCE, _UNTIL = 631_152_000 * 10**9, 4_102_444_800 * 10**9


class Table:
    """An open file: `groups` pieces, each of which gives batches."""

    kind = "Parquet"

    def __init__(self, stored: Stored) -> None:
        import pyarrow.parquet as parquet

        self._stored, self.path = stored, stored.path
        file = pa.PythonFile(StoredFile(stored), mode="r")
        self._file: Any = parquet.ParquetFile(file, pre_buffer=False)
        self.schema: pa.Schema = self._file.schema_arrow
        parts = map(self._file.schema.column, range(len(self._file.schema)))
        self._int96 = {part.path for part in parts if part.physical_type == "INT96"} & set(self.schema.names)
        self._in_seconds: Any = None
        if self._int96:
            whole = pa.PythonFile(StoredFile(stored), mode="r")
            self._in_seconds = parquet.ParquetFile(whole, pre_buffer=False, coerce_int96_timestamp_unit="s")
        self.groups: int = self._file.metadata.num_row_groups

    def rows(self, group: int) -> int:
        return int(self._file.metadata.row_group(group).num_rows)

    @property
    def largest(self) -> int:
        """Bytes of the largest group, unpacked."""
        sizes = (self._file.metadata.row_group(group).total_byte_size for group in range(self.groups))
        return 2 * max((int(size) for size in sizes), default=0)

    def batches(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The group's rows. Raises an error of pyarrow's if it is damaged."""
        found = self._file.iter_batches(ROWS, row_groups=[group], columns=columns, use_threads=False)
        old = [name for name in columns if name in self._int96]
        if not old:
            yield from found
            return
        again = self._in_seconds.iter_batches(ROWS, row_groups=[group], columns=old, use_threads=False)
        for batch, seconds in zip(found, again, strict=True):
            yield without_overflow(batch, seconds)

    def close(self) -> None:
        self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Ipc(Table):
    kind = "Arrow IPC"

    def __init__(self, stored: Stored) -> None:
        self._stored, self.path = stored, stored.path
        self._file = pa.ipc.open_file(pa.PythonFile(StoredFile(stored), mode="r"))
        self.schema = self._file.schema
        self.groups = self._file.num_record_batches
        self._last: tuple[int, pa.RecordBatch] | None = None

    def _batch(self, group: int) -> pa.RecordBatch:
        if self._last is None or self._last[0] != group:
            self._last = group, self._file.get_batch(group)
        return self._last[1]

    def rows(self, group: int) -> int:
        try:
            return int(self._batch(group).num_rows)
        except _DAMAGE:
            return 1

    @property
    def largest(self) -> int:
        return 4 * max((self._batch(group).nbytes for group in range(min(self.groups, 1))), default=0)

    def batches(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        whole = self._batch(group).select(columns)
        for start in range(0, whole.num_rows, ROWS):
            piece = whole.slice(start, ROWS)
            piece.validate(full=True)
            yield piece


def open_table(path: str) -> Table:
    """Open a Parquet or IPC file by its content. Raises FormatError, OSError."""
    stored = open_stored(path)
    head = stored.read(0, 8)
    try:
        if head.startswith((b"PAR1", b"ARROW1\0\0")):
            table = Table(stored) if head.startswith(b"PAR1") else _Ipc(stored)
            _ = table.schema.names, [str(column.type) for column in table.schema]  # names may not be UTF-8
            return table
    except (*_DAMAGE, UnicodeDecodeError) as error:
        stored.close()
        why = " ".join(str(error).split())  # Arrow's may have several lines
        raise FormatError(f"{path} begins like {'Parquet' if head[0] == 80 else 'Arrow IPC'} but: {why}") from None
    stored.close()
    if not head:
        raise FormatError(f"{path} is empty")
    if head.startswith(b"FEA1"):
        raise FormatError(
            f"{path} is Feather version 1: write it again with pyarrow.feather.write_feather(..., version=2)"
        )
    raise FormatError(f"{path} begins with {head.hex(' ')}, which is neither Parquet nor Arrow IPC")


def usual_time(table: Table) -> str:
    """The column that is the event time, by its name, else the only timestamp. Raises FormatError if there is none."""
    schema = table.schema
    stamps = [column.name for column in schema if pa.types.is_timestamp(column.type)]
    by_name = {column.name.lower(): column for column in reversed(list(schema))}
    for name in USUAL:
        column = by_name.get(name)
        if column is not None and _may_be_time(table, column, name):
            return str(column.name)
    if len(stamps) == 1:
        return str(stamps[0])
    raise FormatError(f"{table.path} has columns {_names(schema)}: say which is the time, as in time='ts'")


def _names(schema: pa.Schema) -> str:
    """The names of its columns, not too many of them."""
    return ", ".join(schema.names[:_SHOWN]) + (
        f", and {len(schema.names) - _SHOWN} more" if len(schema) > _SHOWN else ""
    )


def _may_be_time(table: Table, column: pa.Field, usual: str) -> bool:
    if is_text(column.type):
        first = _first(table, column.name)
        return first is not None and parsed(pa.array([first])).null_count == 0
    return is_time(column.type) and not (usual == "date" and is_number(column.type))


def _first(table: Table, name: str) -> Any:
    """The first value of a column that is not null; None if there is none."""
    if table.schema.names.count(name) != 1:
        return None
    try:
        batches = (batch for group in range(table.groups) for batch in table.batches(group, [name]))
        return next((value for batch in batches for value in batch.column(0).drop_null()[:1].to_pylist()), None)
    except _DAMAGE:
        return None


def usual_unit(table: Table, name: str) -> str | None:
    """The unit of a time that is a number, by its first value; None for ns and for times that tell their unit."""
    first = _first(table, name)
    if not isinstance(first, int | float):
        return None
    return next((unit for unit, ns in UNITS.items() if _SINCE <= first * ns < _UNTIL), None)


def columns_of(schema: pa.Schema) -> str:
    """Names and types in one line."""
    return ", ".join(f"{column.name} {' '.join(str(column.type).split())}" for column in schema)


@dataclass(frozen=True)
class Plan:
    """How a file's columns become ours: what is read, and the decimals of those that are fixed-point."""

    schema: pa.Schema
    read: tuple[str, ...]
    time: str
    recv: str | None
    scale: int
    others: tuple[str, ...]
    places: dict[str, int]
    symbol: str | None


def plan_of(found: pa.Schema, spec: ParquetTicks, source: str) -> Plan:
    """Check a spec against a file's schema. Raises GraphError."""
    recv = spec.recv
    if recv is None and "ts_init" in found.names and spec.time == "ts_event":
        recv = "ts_init"
    elif recv is None and found.names.count("ts_recv") == 1 and spec.time != "ts_recv":
        same = found.names.count(spec.time) == 1 and found.field("ts_recv").type == found.field(spec.time).type
        recv = "ts_recv" if same else None
    for name in (spec.time, *([recv] if recv else []), *(spec.columns or ())):
        if found.names.count(name) != 1:
            raise GraphError(f"{source} has no column {name!r}", expected=f"one of {_names(found)}")
    for name in (spec.time, recv or spec.time):
        kind = found.field(name).type
        if not is_time(kind):
            raise GraphError(f"column {name!r} of {source} is {kind}", expected="a timestamp, a date, a number or text")
    names = spec.columns if spec.columns is not None else [n for n in found.names if n not in (spec.time, recv)]
    others = tuple(name for name in names if name not in _EVENT)
    twice = next((name for name in others if found.names.count(name) > 1), None)
    if twice is not None:
        raise GraphError(f"{source} has two columns {twice!r}", expected="columns= that names the others")
    places = dict(spec.fixed_point or ())
    if spec.fixed_point is None:
        widths = {8: 9, 16: 16}
        for name in others:
            kind = found.field(name).type
            if pa.types.is_fixed_size_binary(kind) and kind.byte_width in widths:
                places[name] = widths[kind.byte_width]
    for name in places:
        kind = found.field(name).type if name in others else None
        if kind is None or not pa.types.is_fixed_size_binary(kind) or kind.byte_width not in (8, 16):
            raise GraphError(f"column {name!r} of {source} is {kind}", expected="fixed_size_binary[8] or [16]")
    instrument = (found.metadata or {}).get(b"instrument_id")
    symbol = instrument.decode("utf-8", "replace") if instrument and "symbol" not in others else None
    fields = [pa.field("symbol", pa.dictionary(pa.int32(), pa.utf8()))] if symbol is not None else []
    fields += [
        pa.field(name, pa.float64() if is_size(name) else pa.int64()) if name in places else found.field(name)
        for name in others
    ]
    read = tuple(dict.fromkeys([spec.time, *([recv] if recv else []), *others]))
    schema = event_schema(fields, source=source, format="parquet_ticks")
    return Plan(schema, read, spec.time, recv, UNITS[spec.unit or "ns"], others, places, symbol)


class TableReader(SourceReader):
    """An open file. `stop` is the group where a split ends."""

    def __init__(self, table: Table, plan: Plan, *, position: Position, stop: int | None) -> None:
        self._table, self._plan = table, plan
        self._group, self._row = int(position.get("group", 0)), int(position.get("row", 0))
        self._seq, self._index = int(position.get("seq", 0)), 0
        self._stop = table.groups if stop is None else stop

    def blocks(self) -> Iterator[Block]:
        """Read groups in order; one that does not decode comes out as a block of its own with what is wrong."""
        while self._group < self._stop:
            skip, done = self._row, 0
            try:
                for batch in self._table.batches(self._group, list(self._plan.read)):
                    done += batch.num_rows
                    if done > skip:
                        keep = min(batch.num_rows, done - skip)
                        self._row += keep
                        yield self._block(batch.slice(batch.num_rows - keep), keep)
            except _DAMAGE as error:
                lost = max(0, self._table.rows(self._group) - self._row)
                place = f"{self._table.path}, group {self._group}, rows from {self._row}"
                why = f"{lost} rows do not decode: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
                self._group, self._row = self._group + 1, 0
                yield self._block(BadRecord(place, "parquet_ticks.read", why, b"", self._seq), lost)
                continue
            self._group, self._row = self._group + 1, 0

    def _block(self, payload: pa.RecordBatch | BadRecord, records: int) -> Block:
        first = self._seq
        self._seq += records
        self._index += 1
        after = {"group": self._group, "row": self._row, "seq": self._seq}
        return Block(self._index - 1, first, records, getattr(payload, "nbytes", 0), after, payload)

    def decode(self, block: Block) -> Decoded:
        """Turn a batch into our columns; see `SourceReader.decode`."""
        if isinstance(block.payload, BadRecord):
            return Decoded((), (block.payload,))
        batch: pa.RecordBatch = block.payload
        plan, bad = self._plan, np.zeros(batch.num_rows, np.bool_)
        event, wrong = as_ns(batch.column(plan.time), plan.scale)
        bad |= wrong
        recv = event
        if plan.recv is not None:
            recv, wrong = as_ns(batch.column(plan.recv), plan.scale)
            recv = np.where(wrong, event, recv)
        made: dict[str, pa.Array] = {}
        for name in plan.others:
            column = batch.column(name)
            if name in plan.places:
                made[name], wrong = fixed_point(column, plan.places[name], as_float=is_size(name))
                bad |= wrong
            else:
                made[name] = column
        if plan.symbol is not None:
            indices = pa.array(np.zeros(batch.num_rows, np.int32))
            made["symbol"] = pa.DictionaryArray.from_arrays(indices, pa.array([plan.symbol]))
        seq = np.arange(block.first_seq, block.first_seq + batch.num_rows, dtype=np.uint64)
        stamps = [pa.array(values).view(TIMESTAMP) for values in (event, recv)]
        arrays = [*stamps, pa.array(seq), *(made[column.name] for column in plan.schema if column.name not in _EVENT)]
        rows = pa.RecordBatch.from_arrays(arrays, schema=plan.schema)
        refused = [self._bad(batch, block, row) for row in np.flatnonzero(bad).tolist()]
        if refused:
            rows = rows.filter(pa.array(~bad))
        return Decoded((rows,) if rows.num_rows else (), refused)

    def _bad(self, batch: pa.RecordBatch, block: Block, row: int) -> BadRecord:
        seq = block.first_seq + row
        data = repr(batch.slice(row, 1).to_pylist()[0]).encode()[:65_536]
        why = "the row has no time in the years 1678 to 2262, or a price that 1e-9 does not hold"
        return BadRecord(f"{self._table.path}, row {seq}", "parquet_ticks.decode", why, data, seq)

    def close(self) -> None:
        self._table.close()
