"""From framed ITCH messages to the batches of one table: pure, so that parts decode in any thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool
from ...pipeline.source import Decoded
from . import _itch_kernels as kernels
from ._itch_format import LENGTHS, NAMES, layout_tables, type_label
from ._itch_parts import Part
from ._itch_tables import COLUMNS, LATEST, TABLES, Column

__all__ = ["Decoder", "decoder"]

_NO_TIME = "a time of {} ns is not within a day"


class Decoder(ABC):
    """Decodes parts into ``market.<table>``."""

    def __init__(self, table: str, schema: pa.Schema, midnight: int, pool: BufferPool) -> None:
        self._table, self._schema, self._midnight, self._pool = table, schema, midnight, pool
        self._wanted = np.zeros(256, np.uint8)
        for letter in TABLES[table]:
            self._wanted[ord(letter)] = 1
        lacking = [f.name for f in schema if f.name == "ts_recv" or pa.types.is_boolean(f.type)]
        self._written = ColumnLayout(pa.schema([field for field in schema if field.name not in lacking]))

    @abstractmethod
    def __call__(self, part: Part) -> Decoded:
        """Batches, bad records in order, and counted drops."""

    def _batch(self, part: Part, batch: pa.RecordBatch, **more: pa.Array) -> pa.RecordBatch:
        """`batch` of the written columns with `ts_recv` and `more`."""
        times = batch.column(0)
        if part.ts_recv is not None:
            numbers = batch.column(1).to_numpy() - np.uint64(part.first_seq)
            received: Any = part.ts_recv[numbers.astype(np.int64)]
            times = pa.array(received).cast(times.type)
        columns = {"ts_recv": times, **more}
        arrays = [columns[name] if name in columns else batch.column(name) for name in self._schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _result(
        self,
        part: Part,
        batches: Sequence[pa.RecordBatch],
        counts: npt.NDArray[np.int64],
        bad: list[BadRecord],
    ) -> Decoded:
        """`counts` are messages by type; those that gave neither a row nor a bad record are dropped by type."""
        counts[0] -= len(part.bad) + part.unsound
        dropped = {
            f"not in market.{self._table}: {type_label(code)}": int(counts[code])
            for code in np.flatnonzero(counts).tolist()
            if not self._wanted[code]
        }
        return Decoded(batches, bad, dropped)

    def _odd(self, part: Part, number: int, error: str = "") -> BadRecord:
        """A bad record of a message with a value that it cannot have."""
        raw = _raw(part, number)
        if (time := int.from_bytes(raw[5:11], "big")) > LATEST:
            error = _NO_TIME.format(time)
        operation = f"itch.decode {NAMES[chr(raw[0])]}"
        return BadRecord(part.place(number), operation, error, raw, part.first_seq + number)


class _Orders(Decoder):
    """``market.l3``."""

    def __init__(self, table: str, schema: pa.Schema, midnight: int, pool: BufferPool) -> None:
        super().__init__(table, schema, midnight, pool)
        self._layout = layout_tables()

    def __call__(self, part: Part) -> Decoded:
        columns = self._written.take(self._pool, part.count + 1)
        counts = np.zeros(256, np.int64)
        odd = np.empty(part.count, np.uint32)
        written: Any = [columns[name] for name in self._written.names]
        decode: Any = kernels.decode
        rows, wrong = decode(
            part.data,
            part.offsets,
            part.count,
            self._layout,
            self._midnight,
            LATEST,
            part.first_seq,
            *written,
            counts,
            odd,
        )
        batches = []
        if rows:
            batches = [self._batch(part, columns.batch(rows, dictionaries={"symbol": part.symbols.texts}))]
        bad = [self._odd(part, number, _odd_order(_raw(part, number))) for number in odd[:wrong].tolist()]
        return self._result(part, batches, counts, bad)


class _Trades(Decoder):
    """``market.trades``."""

    def __call__(self, part: Part) -> Decoded:
        from . import _itch_table_kernels as tables

        if part.resting is None:
            raise ValueError("executions of this part have not been joined with the book")
        columns = self._written.take(self._pool, part.count)
        counts = np.zeros(256, np.int64)
        printable = np.empty(part.count, np.bool_)
        odd = np.empty((part.count, 2), np.int64)
        written: Any = [columns[name] for name in self._written.names]
        decode: Any = tables.trades
        rows, wrong = decode(
            part.data,
            part.offsets,
            part.count,
            self._midnight,
            LATEST,
            part.first_seq,
            *part.resting,
            *written,
            printable,
            counts,
            odd,
        )
        batches = []
        if rows:
            kinds = columns["msg_type"][:rows]
            traded = kinds != ord("B")
            valid = {"price": traded, "size": traded, "cross_type": kinds == ord("Q")}
            batch = columns.batch(rows, dictionaries={"symbol": part.symbols.texts}, valid=valid)
            batches = [self._batch(part, batch, printable=pa.array(printable[:rows], mask=~traded))]
        bad = []
        for what, number in odd[:wrong].tolist():
            raw = _raw(part, number)
            error = _odd_order(raw)
            if what == tables.NO_ORDER:
                error = f"order {int.from_bytes(raw[11:19], 'big')} is not in the book of its symbol"
            counts[raw[0]] -= 1
            bad.append(self._odd(part, number, error))
        return self._result(part, batches, counts, bad)


class _Fields(Decoder):
    """A table that is described by its columns: ``market.status`` and ``market.noii``."""

    def __init__(self, table: str, schema: pa.Schema, midnight: int, pool: BufferPool) -> None:
        super().__init__(table, schema, midnight, pool)
        self._columns = [(column, _places(column)) for column in COLUMNS[table]]
        self._time = _places(Column("ts_event", schema.field("ts_event").type, 8, dict.fromkeys(TABLES[table], 3)))

    def __call__(self, part: Part) -> Decoded:
        from . import _itch_table_kernels as tables

        counts = np.zeros(256, np.int64)
        numbers, odd = np.empty(part.count, np.uint32), np.empty(part.count, np.uint32)
        pick: Any = tables.pick
        kept, wrong = pick(part.data, part.offsets, part.count, self._wanted, LATEST, counts, numbers, odd)
        rows = numbers[:kept]
        bad = [self._odd(part, number) for number in odd[:wrong].tolist()]
        values, valid = np.empty(kept, np.uint64), np.empty(kept, np.bool_)

        def gather(column: Column, places: npt.NDArray[np.int64]) -> None:
            tables.gather(part.data, part.offsets, rows, places, column.width, values, valid)

        for column, places in self._columns:
            if column.limit is not None:
                gather(column, places)
                over = values > np.uint64(column.limit)
                for number, value in zip(rows[over].tolist(), values[over].tolist(), strict=True):
                    bad.append(self._odd(part, number, f"{column.name} is {value}, more than {column.limit}"))
                rows = rows[~over]
                values, valid = values[: len(rows)], valid[: len(rows)]
        bad.sort(key=lambda record: record.seq or 0)
        if not len(rows):
            return self._result(part, (), counts, bad)
        block = self._written.take(self._pool, len(rows))
        masks: dict[str, npt.NDArray[np.bool_]] = {}
        dictionaries: dict[str, pa.Array] = {}
        gather(Column("ts_event", pa.int64(), 8), self._time)
        block["ts_event"][:] = (values & np.uint64(2**48 - 1)).astype(np.int64) + self._midnight
        block["seq"][:] = rows
        block["seq"][:] += np.uint64(part.first_seq)
        for column, places in self._columns:
            gather(column, places)
            out = block[column.name]
            if column.name == "symbol":
                dictionaries["symbol"] = self._symbols(part, block["locate"], values, valid, out)
            elif column.is_text:
                found, inverse = np.unique(values, return_inverse=True)
                dictionaries[column.name] = pa.array([_text(raw, column.width) for raw in found.tolist()], pa.utf8())
                out[:] = inverse
            else:
                out[:] = values if column.scale == 1 else values * np.uint64(column.scale)
                if column.is_time:
                    out[valid] += self._midnight
            if self._schema.field(column.name).nullable:
                masks[column.name] = valid.copy()
        batch = block.batch(len(rows), dictionaries=dictionaries, valid=masks)
        return self._result(part, [self._batch(part, batch)], counts, bad)

    def _symbols(
        self,
        part: Part,
        locates: npt.NDArray[np.uint16],
        raw: npt.NDArray[np.uint64],
        valid: npt.NDArray[np.bool_],
        out: npt.NDArray[np.int32],
    ) -> pa.Array:
        """The stock that each message names: by its locate where the directory agrees, as it stands in the message else."""
        from . import _itch_table_kernels as tables

        symbols = part.symbols
        match: Any = tables.match_symbols
        if not match(locates, raw, valid, symbols.names.reshape(-1), symbols.named, out):
            return symbols.texts
        others = out < 0
        found, inverse = np.unique(raw[others], return_inverse=True)
        out[others] = len(symbols.texts) + inverse
        texts = pa.array([_text(value, 8) for value in found.tolist()], pa.utf8())
        return pa.concat_arrays([symbols.texts, texts])


def decoder(table: str, schema: pa.Schema, midnight: int, pool: BufferPool) -> Decoder:
    """The decoder of ``market.<table>``, whose batches have `schema`."""
    kinds: dict[str, type[Decoder]] = {"l3": _Orders, "trades": _Trades}
    return kinds.get(table, _Fields)(table, schema, midnight, pool)


def _places(column: Column) -> npt.NDArray[np.int64]:
    places = np.full(256, -1, np.int64)
    for letter, at in column.at.items():
        places[ord(letter)] = at
    return places


def _text(raw: int, width: int) -> str:
    return raw.to_bytes(width, "big").decode("latin-1").rstrip(" \x00")


def _raw(part: Part, number: int) -> bytes:
    at = int(part.offsets[number])
    return part.data[at : at + LENGTHS[chr(int(part.data[at]))]].tobytes()


def _odd_order(raw: bytes) -> str:
    if raw[:1] == b"Q":
        return f"{int.from_bytes(raw[11:19], 'big')} shares do not fit 32 bits"
    return f"the side is {raw[19:20]!r}, not B or S"
