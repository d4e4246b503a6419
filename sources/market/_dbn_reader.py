"""Framing and decoding of an open DBN file: one pass finds records and symbol mappings, then blocks decode anywhere.

A read buffer of `READ` bytes is framed in place; what is left of a record at its end moves to the next buffer. Buffers,
offsets and decoded columns all come from the pool, so memory is flat however long the file is. A buffer is large, because
what Python does once a block finds nothing of itself in the caches that unpacking has just swept. A symbol mapping met among
the records (a live capture) begins a new block, so that rows before it do not see what it says.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import BufferPool, Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from . import _dbn_frame_kernels as kernels
from ._dbn_decode import Decoder
from ._dbn_layout import record_layout, record_sizes, rtype_name
from ._dbn_metadata import Metadata
from ._dbn_symbols import SymbolTable

__all__ = ["READ", "RECORDS", "DbnReader", "Framer", "Piece", "mapped_names", "others", "unsound"]

#: Bytes of a read buffer, and records of a block at most.
READ = 3 << 20
RECORDS = 1 << 16
#: Bad records and symbol mappings of a block at most, and bytes that each bad one keeps at most.
_BAD, _MAPPINGS = 1024, 8192
_KEPT = 1 << 16
_NO_OFFSET = 0xFFFFFFFF
_NONE_BAD = np.empty((0, 4), np.int64)


@dataclass(frozen=True, slots=True)
class Piece:
    """A framed block: `data` with the records, where each begins (bad ones nowhere), and the symbols that hold in it."""

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.uint32]
    count: int
    bad: npt.NDArray[np.int64]
    symbols: SymbolTable
    base: int
    lease: Lease
    note: str | None = None


class Framer:
    """Walks a feed. `offset` and `seq` say where it is: the next record's place in the content, and its number."""

    def __init__(self, feed: Feed, metadata: Metadata, pool: BufferPool) -> None:
        self._feed, self._pool = feed, pool
        self._sizes = record_sizes(metadata.version, ts_out=metadata.ts_out)
        self._mapping = record_layout("symbol-mapping", metadata.version, ts_out=metadata.ts_out)
        self.symbols = SymbolTable(metadata.mapped)
        self.seq = 0
        #: Where the last symbol mapping ends; reading up to there gives all of them.
        self.mapped_until = 0
        self._state = np.zeros(5, np.int64)
        self._bad, self._mappings = np.empty((_BAD, 4), np.int64), np.empty(_MAPPINGS, np.int64)
        self._data: npt.NDArray[np.uint8]
        #: Room for the places of records behind the data, until a piece has it.
        self._offsets: npt.NDArray[np.uint32] | None
        self.seek(metadata.size)

    def seek(self, offset: int) -> None:
        """Go to a record's `offset`, with the symbols met so far."""
        self._feed.seek(offset)
        self._base, self._filled, self._final = offset, 0, False
        self._state[kernels.POSITION] = 0
        self._take(b"")

    @property
    def offset(self) -> int:
        return self._base + int(self._state[kernels.POSITION])

    def pieces(self, until: int | None = None) -> Iterator[tuple[int, Piece]]:
        """``(first record number, piece)`` up to the first record at or behind `until`.

        A piece that was given is not held: once its taker has dropped it, its memory, still in cache, is read into again.
        """
        end = (1 << 62) if until is None else until
        status, ended = kernels.FULL, False
        while self.offset < end and not ended:
            if status == kernels.MORE:
                self._refill()
            found, status, ended = self._next(end)
            if found:
                yield found.pop()
        if self._final and self._feed.error is not None and until is None:
            nowhere, lease, note = np.empty(0, np.uint32), self._lease, self._feed.error
            yield self.seq, Piece(self._data, nowhere, 0, _NONE_BAD, self.symbols, self.offset, lease, note)

    def _next(self, end: int) -> tuple[list[tuple[int, Piece]], int, bool]:
        """A piece if there are records, why framing stopped, and whether that is the end."""
        state, bad, mappings = self._state, self._bad, self._mappings
        offsets = self._offsets if self._offsets is not None else np.empty(RECORDS, np.uint32)
        self._offsets = None
        state[1:] = 0
        local = min(end - self._base, 1 << 40)
        frame = kernels.frame
        status = frame(self._data, self._filled, local, self._final, self._sizes, offsets, bad, mappings, state)
        at, count, wrong, _, mapped = state.tolist()
        left = self._filled - at
        ended = status == kernels.MORE and self._final and self._base + at < end
        if ended and left:
            bad[wrong] = kernels.CUT, at, left, count
            offsets[count] = _NO_OFFSET
            count, wrong = count + 1, wrong + 1
            state[kernels.POSITION] = self._filled
        if mapped:
            self._learn(mappings[:mapped])
        if not count:
            return [], status, ended
        self.seq += count
        wrongs = bad[:wrong].copy() if wrong else _NONE_BAD
        piece = Piece(self._data, offsets, count, wrongs, self.symbols, self._base, self._lease)
        return [(self.seq - count, piece)], status, ended

    def _learn(self, mappings: npt.NDArray[np.int64]) -> None:
        self.symbols = self.symbols.updated(mapped_names(self._data, self._mapping, mappings))
        self.mapped_until = self._base + int(mappings[-1]) + self._mapping.itemsize

    def _refill(self) -> None:
        at = int(self._state[kernels.POSITION])
        self._base += at
        self._state[kernels.POSITION] = 0
        tail = self._data[at : self._filled].tobytes()
        del self._data, self._lease, self._offsets
        self._take(tail)

    def _take(self, tail: bytes) -> None:
        """A new buffer that begins with `tail`."""
        self._lease = self._pool.take(READ + 4 * RECORDS)
        whole: Any = self._lease.array(np.uint8, READ + 4 * RECORDS)
        self._data, self._offsets = whole[:READ], whole[READ:].view(np.uint32)
        view = memoryview(whole)[:READ]
        view[: len(tail)] = tail
        self._filled = len(tail) + self._feed.fill(view[len(tail) :])
        self._final = self._filled < READ


def others(schema: str, counts: npt.NDArray[np.int64]) -> dict[str, int]:
    """What is told of records of other types than those of `schema`, from how many there are of each."""
    return {f"not in {schema}: {rtype_name(code)}": int(counts[code]) for code in counts.nonzero()[0].tolist()}


def unsound(
    path: str, base: int, data: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int32], first: int, row: Sequence[int]
) -> BadRecord:
    """The bad record of a `row` of framing: what is wrong, where in `data`, how many bytes, and its number in the block."""
    what, at, size, number = row
    raw = data[at : at + min(size, _KEPT)].tobytes()
    kind = raw[1] if len(raw) > 1 else 0
    want = int(sizes[kind])
    if what == kernels.WRONG_LENGTH:
        error = f"the record says that it has {4 * raw[0]} bytes, but {rtype_name(kind)} has {want}"
    elif what == kernels.CUT:
        error = f"the file ends inside a record of {4 * raw[0]} bytes: {size} of them are there"
    else:
        error = f"no sound record begins here; {size} bytes up to the next one are skipped"
    return BadRecord(f"{path}, offset {base + at}", "dbn.frame", error, raw, first + number)


def mapped_names(data: npt.NDArray[np.uint8], layout: np.dtype[Any], mappings: npt.NDArray[np.int64]) -> dict[int, str]:
    """What symbol mapping records at `mappings` say: name by instrument."""
    named: dict[int, str] = {}
    for at in mappings.tolist():
        record = np.frombuffer(data, layout, 1, at)[0]
        text = bytes(record["stype_out_symbol"]).split(b"\0")[0].decode("utf-8", "replace")
        if text:
            named[int(record["instrument_id"])] = text
    return named


class DbnReader(SourceReader):
    """An open DBN file. `end` bounds a split: the first record at or behind it belongs to the next one."""

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
        self._feed, self._path, self._end, self._decoder = feed, path, end, decoder
        self._pool = context.pool
        self._sizes = record_sizes(metadata.version, ts_out=metadata.ts_out)
        self._framer = Framer(feed, metadata, context.pool)
        offset, mapped = int(position.get("offset", metadata.size)), int(position.get("mapped", 0))
        if offset != metadata.size:
            for _ in self._framer.pieces(until=mapped):
                pass
            self._framer.seek(offset)
        self._framer.seq = int(position.get("seq", 0))

    def blocks(self) -> Iterator[Block]:
        pieces = self._framer.pieces(self._end)
        for index in itertools.count():
            found = [*itertools.islice(pieces, 1)]
            if not found:
                return
            yield self._block(index, *found.pop())

    def _block(self, index: int, first: int, piece: Piece) -> Block:
        framer = self._framer
        after = {"offset": framer.offset, "seq": framer.seq, "mapped": framer.mapped_until}
        begin = int(piece.offsets[0]) if piece.count and piece.offsets[0] != _NO_OFFSET else 0
        return Block(index, first, piece.count, max(0, framer.offset - piece.base - begin), after, piece)

    def decode(self, block: Block) -> Decoded:
        piece: Piece = block.payload
        if piece.note is not None:
            return Decoded((), (BadRecord(f"{self._path}, offset {piece.base}", "dbn.read", piece.note, b""),))
        batches, odd, counts = self._decoder.decode(piece, block.first_seq, self._pool)
        dropped = others(self._decoder.schema_name, counts)
        if not len(piece.bad) and not len(odd):
            return Decoded(batches, (), dropped)
        bad = [
            unsound(self._path, piece.base, piece.data, self._sizes, block.first_seq, row) for row in piece.bad.tolist()
        ]
        bad += [self._odd(piece, block.first_seq, number) for number in odd.tolist()]
        bad.sort(key=lambda record: record.seq or 0)
        return Decoded(batches, bad, dropped)

    def _odd(self, piece: Piece, first: int, number: int) -> BadRecord:
        at = int(piece.offsets[number])
        raw = piece.data[at : at + 4 * int(piece.data[at])].tobytes()
        where = f"{self._path}, offset {piece.base + at}"
        what = f"dbn.decode {rtype_name(raw[1])}"
        return BadRecord(where, what, self._decoder.what_is_odd(raw), raw, first + number)

    def close(self) -> None:
        self._feed.close()
