"""The reader of DBN order records, which are most of what DBN files hold.

Unpacking is what takes the time here, and whatever sweeps the caches between two calls of it makes it slower. So as much
is unpacked at a time as stays in the second-level cache, and one kernel call frames that and writes it to the columns of
the block. What Python does a block (an Arrow array a column, most of all) comes once in `ROWS` records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import Lease, aligned_empty
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from . import _dbn_frame_kernels as framing
from . import _dbn_order_kernels as kernels
from ._dbn_decode import Decoder
from ._dbn_layout import UNDEF_PRICE, record_layout, record_sizes
from ._dbn_metadata import Metadata
from ._dbn_order_kernels import COLUMNS, ROW, State
from ._dbn_reader import Framer, mapped_names, others, unsound
from ._dbn_symbols import SymbolTable

__all__ = ["READ", "ROWS", "OrderReader"]

#: Bytes that are unpacked at a time, and records of a block at most. The first one is smaller, so that it comes soon, and
#: a short file touches little memory.
READ = 1 << 18
ROWS = 1 << 17
_FIRST = 1 << 14
#: Bad records of a block at most, and symbol mappings that are learnt at once.
_BAD, _MAPPINGS = 1024, 8192


@dataclass(frozen=True, slots=True)
class _Filled:
    """A block whose columns are written: of `room` rows each in `lease`, one behind the other, `rows` of them filled."""

    lease: Lease
    room: int
    rows: int
    symbols: SymbolTable
    priceless: bool
    nameless: bool
    bad: list[BadRecord]
    dropped: dict[str, int]


class OrderReader(SourceReader):
    """An open DBN file whose order records are read. `end` bounds a split: what begins at or behind it is the next one's."""

    def __init__(
        self,
        feed: Feed,
        *,
        path: str,
        metadata: Metadata,
        decoder: Decoder,
        context: Context,
        position: Position,
        end: int | None,
    ) -> None:
        self._feed, self._path, self._end, self._decoder, self._pool = feed, path, end, decoder, context.pool
        self._columns = _Columns(decoder.schema)
        self._sizes, self._mapping = record_sizes(metadata.version), record_layout("symbol-mapping", metadata.version)
        self._symbols, self._mapped_until = SymbolTable(metadata.mapped), 0
        offset, mapped = int(position.get("offset", metadata.size)), int(position.get("mapped", 0))
        if mapped > metadata.size:
            framer = Framer(feed, metadata, context.pool)
            for _ in framer.pieces(until=mapped):
                pass
            self._symbols, self._mapped_until = framer.symbols, framer.mapped_until
        feed.seek(offset)
        self._seq = int(position.get("seq", 0))
        data: Any = aligned_empty(kernels.START + READ)
        self._data, self._view = data, memoryview(data)[kernels.START :]
        state = self._state = np.zeros(kernels.STATE, np.int64)
        state[State.POSITION] = state[State.FILLED] = kernels.START
        state[State.BASE] = offset - kernels.START
        state[State.UNTIL] = (1 << 62) if end is None else end - offset + kernels.START
        self._recent = np.empty(kernels.RECENT, np.uint64)
        self._few = np.empty(kernels.FEW + 1, np.uint32)
        self._bad, self._mappings = np.empty((_BAD, 4), np.int64), np.empty(_MAPPINGS, np.int64)
        self._counts = np.zeros(256, np.int64)
        kernels.forget(self._recent, state)

    def blocks(self) -> Iterator[Block]:
        index = 0
        while (block := self._next(index)) is not None:
            yield block
            index += 1
        if self._state[State.FINAL] and self._feed.error is not None and self._end is None:
            place = f"{self._path}, offset {self._offset}"
            after = {"offset": self._offset, "seq": self._seq, "mapped": self._mapped_until}
            yield Block(index, self._seq, 0, 0, after, BadRecord(place, "dbn.read", self._feed.error, b""))

    @property
    def _offset(self) -> int:
        return int(self._state[State.BASE] + self._state[State.POSITION])

    def _next(self, index: int) -> Block | None:
        """The next block, filled; None at the end."""
        begin, first, state = self._offset, self._seq, self._state
        room = ROWS if index else min(_FIRST, ROWS)
        lease = self._pool.take(room * ROW)
        state[State.ROOM : State.MAPPED] = room, first, 0, 0, 0, 0
        state[State.PRICELESS], state[State.NAMELESS] = 0, 0
        bad = self._fill(lease.array(np.uint8, room * ROW), first)
        _, _, number, rows = state[State.ROOM : State.OTHERS].tolist()
        if not number:
            return None
        dropped: dict[str, int] = {}
        if number > rows + len(bad):
            dropped = others(self._decoder.schema_name, self._counts)
            self._counts[:] = 0
        self._seq += number
        filled = _Filled(
            lease, room, rows, self._symbols, bool(state[State.PRICELESS]), bool(state[State.NAMELESS]), bad, dropped
        )
        after = {"offset": self._offset, "seq": self._seq, "mapped": self._mapped_until}
        return Block(index, first, number, self._offset - begin, after, filled)

    def _fill(self, out: Any, first: int) -> list[BadRecord]:
        """Go on until the block in `out` is full, or something ends it; gives its bad records in order."""
        data, recent, state, bad = self._data, self._recent, self._state, list[BadRecord]()
        go_on, fill, view, got = kernels.go_on, self._feed.fill, self._view, -1
        while True:
            while go_on(data, out, recent, state, got):
                got = fill(view)
            got, why = -1, self._others(out)
            if state[State.BAD]:
                bad += self._told(first)
            if why == kernels.LEARN:
                self._learn()
            elif why != framing.MORE or state[State.POSITION] >= state[State.UNTIL]:
                break
            elif state[State.FINAL]:
                bad += self._cut(first)
                break
            else:
                kernels.keep(data, state)
                got = fill(view)
        if len(bad) > 1:
            bad.sort(key=lambda record: record.seq or 0)
        return bad

    def _others(self, out: Any) -> int:
        """Go on over records that are not like the others; why it stops."""
        sizes, decoder = self._sizes, self._decoder
        why: int = kernels.orders(
            self._data, out, self._recent, self._state, sizes, decoder.wanted, decoder.sides, self._symbols.arrays,
            self._few, self._bad, self._mappings, self._counts,
        )  # fmt: skip
        return why

    def _learn(self) -> None:
        """What is said by the symbol mappings that were just met."""
        mappings = self._mappings[: self._state[State.MAPPED]]
        self._symbols = self._symbols.updated(mapped_names(self._data, self._mapping, mappings))
        self._mapped_until = int(self._state[State.BASE] + mappings[-1]) + self._mapping.itemsize
        self._state[State.MAPPED] = 0
        kernels.forget(self._recent, self._state)

    def _told(self, first: int) -> list[BadRecord]:
        """The bad records that the kernel noted; they are taken over."""
        rows = self._bad[: self._state[State.BAD]].tolist()
        self._state[State.BAD] = 0
        return [self._wrong(first, row) for row in rows]

    def _wrong(self, first: int, row: list[int]) -> BadRecord:
        what, at, size, number = row
        base = int(self._state[State.BASE])
        if what != kernels.ODD:
            return unsound(self._path, base, self._data, self._sizes, first, row)
        raw, place = self._data[at : at + size].tobytes(), f"{self._path}, offset {base + at}"
        return BadRecord(place, "dbn.decode mbo", self._decoder.what_is_odd(raw), raw, first + number)

    def _cut(self, first: int) -> list[BadRecord]:
        """The record that the file ends in, if it does."""
        at, filled = self._state[: State.UNTIL].tolist()
        if at == filled:
            return []
        number = int(self._state[State.NUMBER])
        self._state[State.NUMBER], self._state[State.POSITION] = number + 1, filled
        return [self._wrong(first, [framing.CUT, at, filled - at, number])]

    def decode(self, block: Block) -> Decoded:
        filled: _Filled | BadRecord = block.payload
        if isinstance(filled, BadRecord):
            return Decoded((), (filled,))
        batches = (self._columns.batch(filled),) if filled.rows else ()
        return Decoded(batches, filled.bad, filled.dropped)

    def close(self) -> None:
        self._feed.close()


class _Columns:
    """From the memory of a block to a batch of `schema`, ``market.l3``. Thread-safe."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        ends = [*COLUMNS.values(), ROW][1:]
        widths = {name: end - at for (name, at), end in zip(COLUMNS.items(), ends, strict=True)}
        absent = [field for field in schema if field.name not in COLUMNS]
        self._zero_kinds = [field.type for field in absent]
        self._nothing: pa.Buffer = pa.py_buffer(b"")
        self._zeros: tuple[int, list[pa.Array]] = (-1, [])
        #: Of each column the type, and where it begins and its width, or its place among those of zeros and 0.
        self._fields = [
            (field.type.index_type if field.name == "symbol" else field.type, COLUMNS[field.name], widths[field.name])
            if field.name in COLUMNS
            else (field.type, absent.index(field), 0)
            for field in schema
        ]
        self._symbol, self._price = schema.get_field_index("symbol"), schema.get_field_index("price")

    def batch(self, filled: _Filled) -> pa.RecordBatch:
        """The rows of a block."""
        lease, room, rows = filled.lease, filled.room, filled.rows

        def column(name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
            return lease.array(dtype, rows, COLUMNS[name] * room)

        present, names = None, filled.symbols.dictionary
        if filled.priceless:
            mask = column("price", np.int64) != UNDEF_PRICE
            present = pa.py_buffer(np.packbits(mask, bitorder="little"))
        if filled.nameless:
            ids: Any = column("instrument_id", np.uint32)
            names = filled.symbols.name_rest(column("symbol", np.int32), ids)
        zeros, buffer, wrap = self._zero_columns(rows), lease.buffer, pa.Array.from_buffers
        arrays = [
            wrap(kind, rows, [None, buffer(at * room, width * rows)]) if width else zeros[at]
            for kind, at, width in self._fields
        ]
        arrays[self._symbol] = pa.DictionaryArray.from_arrays(arrays[self._symbol], names, safe=False)
        if present is not None:
            data = buffer(COLUMNS["price"] * room, 8 * rows)
            arrays[self._price] = wrap(pa.int64(), rows, [present, data])
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _zero_columns(self, rows: int) -> list[pa.Array]:
        """Columns that DBN has nothing for; batches share them."""
        known, columns = self._zeros
        if known != rows:
            nothing = self._nothing
            if nothing.size < 8 * rows:
                self._nothing = nothing = pa.py_buffer(bytes(16 * rows))
            columns = [pa.Array.from_buffers(kind, rows, [None, nothing]) for kind in self._zero_kinds]
            self._zeros = rows, columns
        return columns
