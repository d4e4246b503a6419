"""An open capture of an IEX feed: its messages in sequence, as rows of one table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool
from ...pipeline.source import Block, Decoded, SourceReader
from ..storage.feed import Feed
from . import _iex_kernels as kernels
from ._iex_format import COLUMNS, LENGTHS, MOST_PRICE, NAMES, PRICES, TABLES, Column
from ._mold_capture import Delivery, FeedCapture, Stretch

__all__ = ["IexReader"]

_ERRORS = {
    kernels.SHORT: "the message has {size} bytes, but type {kind!r} ({name}) has {want}",
    kernels.BAD_TIME: "the time of the message is before 1970",
    kernels.BAD_PRICE: "a price of the message does not fit 64 bits of 1e-9 USD",
    kernels.SYMBOLS_FULL: f"the symbol is one more than the {kernels.MOST_SYMBOLS} that are told apart",
}


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Messages of the table that lie in one buffer, with their symbols' numbers, and whose values these are."""

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int64]
    symbols: npt.NDArray[np.int32]
    received: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    values: pa.Array
    keep: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Framed:
    chosen: tuple[_Chosen, ...]
    bad: tuple[BadRecord, ...]
    dropped: dict[str, int]


class IexReader(SourceReader):
    """Blocks are what a piece of the capture delivered; `skip` of them are gone through without being given out."""

    def __init__(
        self, feed: Feed, capture: FeedCapture, *, table: str, schema: pa.Schema, pool: BufferPool, skip: int
    ) -> None:
        self._feed, self._capture, self._table, self._schema, self._skip = feed, capture, table, schema, skip
        self._pool = pool
        self._wanted, self._least = np.zeros(256, np.bool_), np.zeros(256, np.int64)
        self._prices, self._has_symbol = np.zeros((256, 6), np.int64), np.ones(256, np.bool_)
        for letter in TABLES[table]:
            code = ord(letter)
            self._wanted[code], self._least[code] = True, LENGTHS[letter]
            self._has_symbol[code] = letter != "S"
            places = PRICES.get(letter, ())
            self._prices[code, : len(places)] = places
        self._slots = np.zeros(kernels.SLOTS, np.int32)
        self._names = np.zeros(kernels.MOST_SYMBOLS, np.int64)
        self._known = np.zeros(1, np.int64)
        self._values: pa.Array = pa.array([], pa.utf8())
        self._last: dict[int, int] = {}

    def blocks(self) -> Iterator[Block]:
        for index, delivery in enumerate(self._capture.deliveries()):
            framed = self._frame(delivery)
            if index >= self._skip:
                size, records = max(1, delivery.nbytes), delivery.end - delivery.first
                yield Block(index, delivery.first, records, size, {"blocks": index + 1}, framed)

    def _frame(self, delivery: Delivery) -> _Framed:
        chosen: list[_Chosen] = []
        bad = list(delivery.bad)
        counts = np.zeros(256, np.int64)
        start = 0
        stretches = delivery.stretches
        while start < len(stretches):
            stop = start + 1
            while stop < len(stretches) and stretches[stop].data is stretches[start].data:
                stop += 1
            chosen.append(self._choose(stretches[start:stop], counts, bad))
            start = stop
        dropped = dict(delivery.dropped)
        for code in np.flatnonzero(counts).tolist():
            letter = chr(code) if chr(code).isascii() and chr(code).isalnum() else f"0x{code:02x}"
            dropped[f"not in market.{self._table}: {letter}"] = int(counts[code])
        return _Framed(tuple(chosen), tuple(bad), dropped)

    def _choose(self, stretches: list[Stretch], counts: npt.NDArray[np.int64], bad: list[BadRecord]) -> _Chosen:
        data = stretches[0].data
        offsets = np.concatenate([stretch.offsets for stretch in stretches])
        sizes = np.concatenate([stretch.sizes for stretch in stretches])
        numbers = np.concatenate([stretch.numbers for stretch in stretches])
        before = np.empty(len(numbers), np.int64)
        positions = np.empty(len(numbers), np.int64)
        at = 0
        for stretch in stretches:
            end = at + len(stretch.numbers)
            if end > at:
                before[at] = self._last.get(stretch.session, 0)
                before[at + 1 : end] = stretch.numbers[:-1]
                positions[at:end] = np.arange(stretch.position, stretch.position + end - at)
                self._last[stretch.session] = int(stretch.numbers[-1])
            at = end
        rows, symbols = np.empty(len(offsets), np.int64), np.empty(len(offsets), np.int32)
        wrong = np.empty((len(offsets), 2), np.int64)
        kept, unsound = kernels.choose(
            data,
            offsets,
            sizes,
            self._wanted,
            self._least,
            self._prices,
            MOST_PRICE,
            self._has_symbol,
            counts,
            self._slots,
            self._names,
            self._known,
            rows,
            symbols,
            wrong,
        )
        for what, number in wrong[:unsound].tolist():
            bad.append(self._unsound(stretches, what, number, data, int(offsets[number]), int(sizes[number])))
        received = np.concatenate([stretch.received for stretch in stretches])
        taken = rows[:kept]
        keep = tuple(item for stretch in stretches for item in stretch.keep)
        return _Chosen(
            data,
            offsets,
            taken,
            symbols[:kept],
            received[taken],
            numbers[taken],
            before[taken],
            positions[taken],
            self._dictionary(),
            keep,
        )

    def _dictionary(self) -> pa.Array:
        count = int(self._known[0])
        if count != len(self._values):
            raw = self._names[:count].astype("<i8").tobytes().decode("latin-1")
            self._values = pa.array([raw[8 * i : 8 * i + 8].rstrip(" \0") for i in range(count)], pa.utf8())
        return self._values

    def _unsound(
        self, stretches: list[Stretch], what: int, number: int, data: npt.NDArray[np.uint8], at: int, size: int
    ) -> BadRecord:
        inner = number
        for stretch in stretches:
            if inner < len(stretch.offsets):
                break
            inner -= len(stretch.offsets)
        raw = data[at : at + size].tobytes()
        kind = chr(raw[0])
        error = _ERRORS[what].format(size=size, kind=kind, name=NAMES[kind], want=LENGTHS[kind])
        return BadRecord(stretch.place(inner), f"iex.decode {NAMES[kind]}", error, raw, stretch.position + inner)

    def decode(self, block: Block) -> Decoded:
        framed: _Framed = block.payload
        batches = [self._batch(chosen) for chosen in framed.chosen if len(chosen.rows)]
        return Decoded(batches, framed.bad, framed.dropped)

    def _batch(self, chosen: _Chosen) -> pa.RecordBatch:
        count = len(chosen.rows)
        times = Column("ts_event", pa.int64(), 8, dict.fromkeys(TABLES[self._table], 2))
        arrays = {
            "ts_event": self._read(chosen, times),
            "ts_recv": pa.array(chosen.received),
            "seq": pa.array(chosen.positions.astype(np.uint64)),
        }
        for column in COLUMNS[self._table]:
            arrays[column.name] = self._made(chosen, column) if column.ready else self._read(chosen, column)
        if self._table == "trade":
            arrays["size"] = _signed(arrays["size"], chosen.data[chosen.offsets[chosen.rows]] == ord("B"))
        columns = []
        for field in self._schema:
            array = arrays[field.name]
            columns.append(array if array.type == field.type else array.view(field.type))
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        if batch.num_rows != count:
            raise RuntimeError(f"{batch.num_rows} rows of {count} messages")
        return batch

    def _read(self, chosen: _Chosen, column: Column) -> pa.Array:
        at = np.full(256, -1, np.int64)
        for letter, where in column.at.items():
            at[ord(letter)] = where
        if pa.types.is_dictionary(column.kind):
            return _texts(chosen, at, column.width)
        plain = pa.int64() if pa.types.is_timestamp(column.kind) else column.kind
        dtype = plain.to_pandas_dtype()
        lease = self._pool.take(np.dtype(dtype).itemsize * len(chosen.rows))
        out: Any = lease.array(dtype, len(chosen.rows))
        valid = np.empty(len(chosen.rows), np.bool_)
        kernels.read_column(chosen.data, chosen.offsets, chosen.rows, at, column.width, column.scale, out, valid)
        mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
        return pa.Array.from_buffers(column.kind, len(out), [mask, lease.buffer(0, out.nbytes)])

    def _made(self, chosen: _Chosen, column: Column) -> pa.Array:
        kinds = chosen.data[chosen.offsets[chosen.rows]]
        name = column.name
        if name == "symbol":
            missing = kinds == ord("S") if self._table == "status" else None
            indices = pa.array(chosen.symbols, pa.int32(), mask=missing)
            return pa.DictionaryArray.from_arrays(indices, chosen.values, safe=False)
        if name == "side":
            sides = np.where(kinds == ord("8"), 1, np.where(kinds == ord("5"), -1, 0)).astype(np.int8)
            return pa.array(sides)
        if name == "prev_id":
            return pa.array(chosen.before.astype(np.uint64))
        if name == "is_snapshot":
            return pa.array(np.zeros(len(kinds), np.bool_))
        if name == "last_in_event":
            flags = chosen.data[chosen.offsets[chosen.rows].astype(np.int64) + 1]
            return pa.array((flags & 1).astype(np.bool_))
        return pa.array(chosen.numbers.astype(np.uint64))

    def close(self) -> None:
        self._feed.close()


def _texts(chosen: _Chosen, at: npt.NDArray[np.int64], width: int) -> pa.Array:
    places = chosen.offsets[chosen.rows].astype(np.int64)
    where = at[chosen.data[places]]
    has = np.flatnonzero(where >= 0)
    texts: list[str | None] = [None] * len(places)
    for row in has.tolist():
        start = int(places[row] + where[row])
        texts[row] = chosen.data[start : start + width].tobytes().decode("latin-1").rstrip(" \0")
    return pa.array(texts, pa.dictionary(pa.int32(), pa.utf8()))


def _signed(sizes: pa.Array, broken: npt.NDArray[np.bool_]) -> pa.Array:
    """`sizes` with those of `broken` trades negative."""
    if not broken.any():
        return sizes
    values = sizes.to_numpy(zero_copy_only=False).copy()
    values[broken] *= -1
    return pa.array(values)
