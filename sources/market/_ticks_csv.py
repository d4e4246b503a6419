"""Comma-separated ticks: framing in whole lines, and decoding of the lines by a format's fields.

A format says what the fields of a line are (`Field`) and how they become the columns of a table (`Dialect.assemble`). A
block ends before the last whole line that was read, which goes with the next block but may be looked at: whether a row is
the last of its event depends on the line behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from . import _ticks_csv_kernels as kernels
from ._ticks_csv_cells import Cells, Dialect, Field, wrap

__all__ = ["READ", "Cells", "CsvReader", "Dialect", "Field", "Lines", "alone", "wrap"]

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
class Lines:
    """A framed block: `count` lines that are its own, one more to look at if `peek`.

    `line` and `base` are the number and the offset in the file of where `data` begins. `bad` is there in place of lines: one
    that was too long, or what ended the content.
    """

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
        self._feed, self.path, self._dialect, self._pool = feed, path, dialect, context.pool
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
            place, operation = f"{self.path}, offset {self._offset}", f"{self._dialect.format}.read"
            bad = BadRecord(place, operation, self._feed.error, b"")
            yield self._lost(bad, 0, 0, self._line, self._offset)

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
        payload = Lines(data[at:], starts, ends, count, peek, self._offset, self._line, leases)
        first = self._seq
        self._seq += count
        self._pass(data, at, stop)
        self._index += 1
        return Block(self._index - 1, first, count, stop - at, self._after(), payload)

    def _after(self) -> Position:
        return {"offset": self._offset, "seq": self._seq, "line": self._line}

    def _lost(self, bad: BadRecord, records: int, nbytes: int, line: int, offset: int) -> Block:
        nothing: Any = np.empty(0, np.uint32)
        payload = Lines(np.empty(0, np.uint8), nothing, nothing, 0, False, offset, line, (), bad)
        self._index += 1
        return Block(self._index - 1, self._seq - records, records, nbytes, self._after(), payload)

    def _too_long(self, data: npt.NDArray[np.uint8]) -> tuple[Block, bytes, bool]:
        """Step over a line longer than the buffer: its block, what was read behind it, and whether the file has ended."""
        kept, length, final = data[:_KEPT].tobytes(), len(data), False
        line, offset = self._line, self._offset
        place = f"{self.path}, line {line}, offset {offset}"
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
        return self._lost(bad, 1, length, line, offset), tail, final

    def decode(self, block: Block) -> Decoded:
        """Decode one block of lines; see `SourceReader.decode`."""
        piece: Lines = block.payload
        if piece.bad is not None:
            return Decoded((), (piece.bad,))
        return self._decode(piece, block.first_seq)

    def _decode(self, piece: Lines, first_seq: int) -> Decoded:
        cells, wrong = self.parse(piece, first_seq)
        operation, bad = f"{self._dialect.format}.decode", []
        for row, why in wrong.items():
            place, data = self.spot(piece, row)
            bad.append(BadRecord(place, operation, why, data, first_seq + row))
        if not len(cells):
            return Decoded((), bad)
        return Decoded((wrap(self._dialect.schema, self._dialect.assemble(cells)),), bad)

    def parse(self, piece: Lines, first_seq: int) -> tuple[Cells, dict[int, str]]:
        """The fields of the sound lines of a block, and what is wrong with each of the others."""
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
        wrong = {row: self._what(int(own[row])) for row in np.flatnonzero(own & 255).tolist()}
        cells = Cells(self._dialect, self._slots, (ints, floats, spans), good, status, base, first_seq)
        if self._dialect.check is not None and len(good):
            refused: dict[int, str] = {}
            for why, where in self._dialect.check(cells).items():
                for row in good[where].tolist():
                    refused.setdefault(row, why)
            if refused:
                good = np.array([row for row in good.tolist() if row not in refused], np.int64)
                cells = Cells(self._dialect, self._slots, (ints, floats, spans), good, status, base, first_seq)
                wrong = dict(sorted({**wrong, **refused}.items()))
        return cells, wrong

    def _what(self, status: int) -> str:
        fields = self._dialect.fields
        return _WRONG[status & 255].format(name=fields[min(status >> 8, len(fields) - 1)].name, width=len(fields))

    def spot(self, piece: Lines, row: int) -> tuple[str, bytes]:
        """Where a line of a block is, and its bytes."""
        begin, until = int(piece.starts[row]), int(piece.ends[row])
        line = piece.line + int(np.count_nonzero(piece.data[:begin] == 10))
        return f"{self.path}, line {line}, offset {piece.base + begin}", piece.data[begin:until].tobytes()

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a quarantined line again; None for what is no whole line."""
        if not record.operation.endswith(".decode"):
            return None
        return self._decode(alone(record.data), record.seq or 0)

    def close(self) -> None:
        self._feed.close()


def alone(line: bytes) -> Lines:
    """A block of one line."""
    data = np.frombuffer(line + b"\0", np.uint8)
    return Lines(data, np.zeros(1, np.uint32), np.full(1, len(line), np.uint32), 1, False, 0, 1, ())


def _address(data: npt.NDArray[np.uint8]) -> int:
    return int(data.ctypes.data)
