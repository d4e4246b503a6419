"""Comma-separated ticks: framing in whole lines, and decoding of the lines by a format's fields.

A format says what the fields of a line are (`Field`) and how they become the columns of a table (`Dialect.assemble`). A
block ends before the last whole line that was read, which goes with the next block but may be looked at: whether a row is
the last of its event depends on the line behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from . import _ticks_csv_kernels as kernels

__all__ = ["READ", "Cells", "CsvReader", "Dialect", "Field", "wrap"]

#: Bytes of a read buffer, which is also the longest line; lines of a block at most.
READ = 1 << 20
LINES = 1 << 15
_KEPT = 1 << 16

_KINDS = {
    "skip": kernels.SKIP,
    "int": kernels.INT,
    "price": kernels.PRICE,
    "rounded": kernels.ROUNDED,
    "float": kernels.FLOAT,
    "stamp": kernels.STAMP,
    "seconds": kernels.SECONDS,
    "side": kernels.SIDE,
    "bool": kernels.BOOL,
    "text": kernels.TEXT,
    "id": kernels.IDENTITY,
    "datetime": kernels.DATETIME,
}
_PLACES = {"price": 9, "rounded": 9, "seconds": 9}
_WRONG = {
    kernels.FIELDS: "the line does not have {width} fields",
    kernels.EMPTY: "{name} is empty",
    kernels.NUMBER: "{name} is no number",
    kernels.RANGE: "{name} does not fit 64 bits",
    kernels.FINE: "{name} has more than 9 decimals",
    kernels.WORD: "{name} is none of the words it can be",
    kernels.TIME: "{name} is no date and time",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a line. `scale` makes a ``stamp`` ns; 0 tells its unit from its size."""

    name: str
    kind: str = "skip"
    optional: bool = False
    scale: int = 0


@dataclass(frozen=True)
class Dialect:
    """A format of lines. `assemble` makes columns (numpy or Arrow, all of one length) and the line of each row."""

    format: str
    fields: tuple[Field, ...]
    schema: pa.Schema
    assemble: Callable[[Cells], Mapping[str, Any]]
    header: bool = False
    #: Rows that a line can give.
    rows: int = 1
    constants: Mapping[str, Any] = field(default_factory=dict)
    #: Lines that cannot be although their fields can, by what is wrong.
    check: Callable[[Cells], Mapping[str, Any]] | None = None


class Cells:
    """The fields of sound lines, by name. `seq` numbers the lines; `next_same(name)` looks at the line behind each."""

    def __init__(
        self,
        dialect: Dialect,
        slots: Mapping[str, tuple[str, int]],
        arrays: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
        good: npt.NDArray[np.int64],
        status: npt.NDArray[np.int64],
        base: int,
        first_seq: int,
    ) -> None:
        self.dialect = dialect
        self._slots, self._arrays, self._good, self._status, self._base = slots, arrays, good, status, base
        self.seq: npt.NDArray[np.uint64] = good.astype(np.uint64) + np.uint64(first_seq)

    def __len__(self) -> int:
        return len(self._good)

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A number field: int64, or float64 for floats. A missing integer is `kernels.NONE`, a missing float NaN."""
        kind, slot = self._slots[name]
        return np.ascontiguousarray(self._arrays[kind == "float"][slot][self._good])

    def number(self, name: str) -> pa.Array:
        """An int64 column with nulls where there is none."""
        values = self[name]
        return pa.array(values, pa.int64(), mask=values == kernels.NONE)

    def text(self, name: str, index: pa.DataType) -> pa.Array:
        """A dictionary column. What is not UTF-8 has U+FFFD in its place."""
        spans = self._arrays[2][self._slots[name][1]]
        ends = np.zeros(len(self) + 1, np.int32)
        total = kernels.span_sizes(spans, self._good, ends)
        out = np.empty(total, np.uint8)
        kernels.span_texts(self._base, spans, self._good, ends, out)
        raw = pa.Array.from_buffers(pa.binary(), len(self), [None, pa.py_buffer(ends), pa.py_buffer(out)])
        try:
            text = raw.cast(pa.utf8())
        except pa.ArrowInvalid:
            text = pa.array([value.decode("utf-8", "replace") for value in raw.to_pylist()], pa.utf8())
        encoded = text.dictionary_encode()
        return pa.DictionaryArray.from_arrays(encoded.indices.cast(index), encoded.dictionary)

    def next_same(self, name: str) -> npt.NDArray[np.bool_]:
        """Whether the line behind each line is sound and has the same value."""
        values = self._arrays[0][self._slots[name][1]]
        behind = self._good + 1
        inside = np.minimum(behind, len(values) - 1)
        same: npt.NDArray[np.bool_] = (
            (behind < len(values)) & (self._status[inside] & 255 == 0) & (values[inside] == values[self._good])
        )
        return same


@dataclass(frozen=True, slots=True)
class _Lines:
    """A framed block: `count` lines that are its own, one more to look at if `peek`. `note` is what ended the content."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.uint32]
    ends: npt.NDArray[np.uint32]
    count: int
    peek: bool
    base: int
    line: int
    leases: tuple[Lease, ...]
    bad: BadRecord | None = None


class CsvReader(SourceReader):
    """An open file of lines."""

    def __init__(self, feed: Feed, *, path: str, dialect: Dialect, context: Context, position: Position) -> None:
        self._feed, self._path, self._dialect, self._pool = feed, path, dialect, context.pool
        self._offset, self._seq = int(position.get("offset", 0)), int(position.get("seq", 0))
        self._line, self._index = int(position.get("line", 1)), 0
        self._fresh = self._offset == 0
        if self._offset:
            feed.seek(self._offset)
        self._slots: dict[str, tuple[str, int]] = {}
        width = len(dialect.fields)
        self._plan = np.zeros((4, width), np.int64)
        taken = {"int": 0, "float": 0, "text": 0}
        for i, column in enumerate(dialect.fields):
            store = column.kind if column.kind in ("float", "text") else "int"
            self._plan[:, i] = (
                _KINDS[column.kind],
                taken[store],
                column.optional,
                _PLACES.get(column.kind, column.scale),
            )
            if column.kind != "skip":
                self._slots[column.name] = store, taken[store]
                taken[store] += 1
        self._taken = taken

    def blocks(self) -> Iterator[Block]:
        """Frame the file; see `SourceReader.blocks`."""
        tail, final = b"", False
        while tail or not final:
            lease, data, filled = self._buffer(tail, final)
            final = final or filled < READ
            at = self._skip_header(data, filled) if self._fresh else 0
            full, emitted = True, False
            while full:
                starts, ends, held = self._spans()
                count, _, stop = kernels.lines(_address(data) + at, filled - at, final, starts, ends)
                full = count == LINES
                peek = count > 1 and (full or not final)
                if peek:
                    stop = int(starts[count - 1])
                if count > peek and (peek or final):
                    yield self._block(data, starts, ends, count - peek, peek, at, at + stop, (lease, held))
                    at, emitted = at + stop, True
            if final:
                self._pass(data, at, filled)
                break
            if not emitted and stop == 0:
                lost, tail, final = self._too_long(data[:filled])
                yield lost
                continue
            if not emitted:  # blank lines, or one line, and the beginning of a long one
                if count:
                    yield self._block(data, starts, ends, count, False, at, at + stop, (lease, held))
                else:
                    self._pass(data, at, at + stop)
                at += stop
            tail = data[at:filled].tobytes()
        if self._feed.error is not None:
            place, operation = f"{self._path}, offset {self._offset}", f"{self._dialect.format}.read"
            yield self._lost(BadRecord(place, operation, self._feed.error, b""), 0, 0)

    def _buffer(self, tail: bytes, final: bool) -> tuple[Lease, npt.NDArray[np.uint8], int]:
        lease = self._pool.take(READ + 1)
        data: Any = lease.array(np.uint8, READ + 1)
        data[: len(tail)] = np.frombuffer(tail, np.uint8)
        filled = len(tail)
        if not final:
            filled += self._feed.fill(memoryview(data)[filled:READ])
        data[filled] = 0
        return lease, data, filled

    def _spans(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], Lease]:
        held = self._pool.take(8 * LINES)
        starts: Any = held.array(np.uint32, LINES)
        ends: Any = held.array(np.uint32, LINES, 4 * LINES)
        return starts, ends, held

    def _skip_header(self, data: npt.NDArray[np.uint8], filled: int) -> int:
        """Where the first line of data begins. The header was checked when the file was opened."""
        self._fresh = False
        at = 3 if data[:3].tobytes() == b"\xef\xbb\xbf" else 0
        if self._dialect.header:
            found = data[:filled].tobytes().find(b"\n", at)
            at = filled if found < 0 else found + 1
            self._line += 1
        self._offset += at
        return at

    def _pass(self, data: npt.NDArray[np.uint8], at: int, stop: int) -> None:
        self._line += int(np.count_nonzero(data[at:stop] == 10))
        self._offset += stop - at

    def _block(
        self,
        data: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.uint32],
        ends: npt.NDArray[np.uint32],
        count: int,
        peek: bool,
        at: int,
        stop: int,
        leases: tuple[Lease, ...],
    ) -> Block:
        payload = _Lines(data[at:], starts, ends, count, peek, self._offset, self._line, leases)
        first = self._seq
        self._seq += count
        self._pass(data, at, stop)
        self._index += 1
        return Block(self._index - 1, first, count, stop - at, self._after(), payload)

    def _after(self) -> Position:
        return {"offset": self._offset, "seq": self._seq, "line": self._line}

    def _lost(self, bad: BadRecord, records: int, nbytes: int) -> Block:
        nothing: Any = np.empty(0, np.uint32)
        payload = _Lines(np.empty(0, np.uint8), nothing, nothing, 0, False, 0, 0, (), bad)
        self._index += 1
        return Block(self._index - 1, self._seq - records, records, nbytes, self._after(), payload)

    def _too_long(self, data: npt.NDArray[np.uint8]) -> tuple[Block, bytes, bool]:
        """Step over a line longer than the buffer: its block, what was read behind it, and whether the file has ended."""
        kept, length, final = data[:_KEPT].tobytes(), len(data), False
        place = f"{self._path}, line {self._line}, offset {self._offset}"
        scratch, tail = memoryview(bytearray(READ)), b""
        while not final:
            count = self._feed.fill(scratch)
            final = count < READ
            found = bytes(scratch[:count]).find(b"\n")
            length += count if found < 0 else found + 1
            if found >= 0:
                tail = bytes(scratch[found + 1 : count])
                self._line += 1
                break
        self._offset += length
        self._seq += 1
        error = f"a line of {length} bytes, more than {READ}; its first {len(kept)} bytes are kept"
        bad = BadRecord(place, f"{self._dialect.format}.frame", error, kept, self._seq - 1)
        return self._lost(bad, 1, length), tail, final

    def decode(self, block: Block) -> Decoded:
        """Decode one block of lines; see `SourceReader.decode`."""
        piece: _Lines = block.payload
        if piece.bad is not None:
            return Decoded((), (piece.bad,))
        return self._decode(piece, block.first_seq)

    def _decode(self, piece: _Lines, first_seq: int) -> Decoded:
        count = piece.count + piece.peek
        taken, base = self._taken, _address(piece.data)
        ints = np.empty((max(1, taken["int"]), count), np.int64)
        floats = np.empty((max(1, taken["float"]), count), np.float64)
        slow = np.zeros((max(1, taken["float"]), count), np.bool_)
        spans = np.zeros((taken["text"] + taken["float"], count, 2), np.uint32)
        status = np.empty(count, np.int64)
        kinds, slots, optional, scales = self._plan
        parse: Any = kernels.parse
        parse(
            base, piece.starts, piece.ends, count, kinds, slots, optional, scales, ints, floats, slow, spans, status
        )  # fmt: skip
        for slot, row in zip(*np.nonzero(slow), strict=True):
            begin, until = spans[len(spans) - 1 - slot, row]
            floats[slot, row] = float(piece.data[begin:until].tobytes())
        own = status[: piece.count]
        good = np.flatnonzero(own & 255 == 0)
        bad = [self._bad(piece, first_seq, int(row), int(own[row])) for row in np.flatnonzero(own & 255)]
        cells = Cells(self._dialect, self._slots, (ints, floats, spans), good, status, base, first_seq)
        if self._dialect.check is not None and len(good):
            refused: dict[int, str] = {}
            for why, where in self._dialect.check(cells).items():
                for row in good[where].tolist():
                    refused.setdefault(row, why)
            if refused:
                bad += [self._bad(piece, first_seq, row, 0, why) for row, why in refused.items()]
                bad.sort(key=lambda record: record.seq or 0)
                good = np.array([row for row in good.tolist() if row not in refused], np.int64)
                cells = Cells(self._dialect, self._slots, (ints, floats, spans), good, status, base, first_seq)
        if not len(good):
            return Decoded((), bad)
        return Decoded((wrap(self._dialect.schema, self._dialect.assemble(cells)),), bad)

    def _bad(self, piece: _Lines, first_seq: int, row: int, status: int, why: str | None = None) -> BadRecord:
        begin, until = int(piece.starts[row]), int(piece.ends[row])
        fields = self._dialect.fields
        name = fields[min(status >> 8, len(fields) - 1)].name
        line = piece.line + int(np.count_nonzero(piece.data[:begin] == 10))
        place = f"{self._path}, line {line}, offset {piece.base + begin}"
        error = why or _WRONG[status & 255].format(name=name, width=len(fields))
        return BadRecord(
            place, f"{self._dialect.format}.decode", error, piece.data[begin:until].tobytes(), first_seq + row
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a quarantined line again; None for what is no whole line."""
        if not record.operation.endswith(".decode"):
            return None
        data = np.frombuffer(record.data + b"\0", np.uint8)
        starts, ends = np.zeros(1, np.uint32), np.full(1, len(record.data), np.uint32)
        return self._decode(_Lines(data, starts, ends, 1, False, 0, 1, ()), record.seq or 0)

    def close(self) -> None:
        self._feed.close()


def _address(data: npt.NDArray[np.uint8]) -> int:
    return int(data.ctypes.data)


def wrap(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """A batch of `schema` from numpy and Arrow columns; numpy ones share their memory."""
    arrays = []
    for column in schema:
        values = columns[column.name]
        if isinstance(values, np.ndarray):
            storage = pa.int64() if pa.types.is_timestamp(column.type) else column.type
            values = pa.array(values, storage)
            values = values.view(column.type) if storage != column.type else values
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
