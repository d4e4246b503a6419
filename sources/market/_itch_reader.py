"""Framing and decoding of an open ITCH file: one pass that finds messages and symbols, then blocks that decode anywhere.

A read buffer of `READ` bytes is framed in place into one block, or a few where messages are very short; what is left of a
message at its end moves to the next buffer. Buffers, message offsets and decoded columns all come from the pool, so memory
is flat however long the file is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import BufferPool, Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from . import _itch_kernels as kernels
from ._itch_format import length_table, type_label
from ._itch_messages import ItchMessages
from ._itch_parts import Directory, Part, Symbols

__all__ = ["MESSAGES", "READ", "Framer", "ItchReader", "Piece", "survey"]

#: Bytes of a read buffer, and messages of a block at most.
READ = 3 << 19
MESSAGES = 1 << 16
#: Bad records of a block at most, and bytes that each keeps at most.
_BAD = 1024
_KEPT = 1 << 16

_ERRORS = {
    kernels.WRONG_LENGTH: "the length prefix says {length}, but type {kind} has {want} bytes",
    kernels.LOST: "no sound message begins here; {size} bytes up to the next one are skipped",
    kernels.CUT: "the file ends inside a message of type {kind}: {have} of its {want} bytes are there",
    kernels.RENAMED: "a stock directory message gives locate {locate} a second name",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A framed block: `data` with the messages, where each begins, and what is wrong with some."""

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.uint32]
    count: int
    bad: npt.NDArray[np.int64]
    symbols: Symbols
    base: int
    leases: tuple[Lease, Lease]
    note: str | None = None


class Framer:
    """Walks a feed. `offset` and `seq` say where it is: the next message's place in the content, and its number."""

    def __init__(self, feed: Feed, prefixed: bool, pool: BufferPool, *, offset: int = 0, seq: int = 0) -> None:
        self._feed, self._prefixed, self._pool = feed, prefixed, pool
        self.seq = seq
        self.directory = Directory()
        self._lengths = length_table()
        self._used = np.zeros(65536, np.int32)
        self._state = np.zeros(6, np.int64)
        self._mark = 0
        self._named_until = 0
        self.seek(offset)

    def seek(self, offset: int) -> None:
        """Go to a message's `offset`, with the symbols met so far."""
        self._feed.seek(offset)
        self._base, self._filled, self._final = offset, 0, False
        self._state[kernels.POSITION] = 0
        self._take(b"")

    @property
    def offset(self) -> int:
        return self._base + int(self._state[kernels.POSITION])

    @property
    def named_until(self) -> int:
        """Where the last message ends that named a symbol; reading up to there gives all symbols met so far."""
        return self._named_until

    def pieces(self, until: int | None = None) -> Iterator[tuple[int, Piece]]:
        """``(first message number, piece)`` up to the first message at or behind `until`."""
        end = (1 << 62) if until is None else until
        while self.offset < end:
            lease = self._pool.take(4 * MESSAGES)
            offsets: Any = lease.array(np.uint32, MESSAGES)
            bad = np.empty((_BAD, 4), np.int64)
            state = self._state
            state[kernels.MESSAGES] = state[kernels.BAD] = 0
            self._mark += 1
            local = min(end - self._base, 1 << 40)
            status = kernels.frame(
                self._data,
                self._filled,
                local,
                self._final,
                self._prefixed,
                self._lengths,
                offsets,
                bad,
                self.directory.names,
                self.directory.named,
                self._used,
                self._mark,
                state,
            )
            if state[kernels.NAMED_UNTIL]:
                self._named_until = self._base + int(state[kernels.NAMED_UNTIL])
                state[kernels.NAMED_UNTIL] = 0
            count, wrong = int(state[kernels.MESSAGES]), int(state[kernels.BAD])
            ended = status == kernels.MORE and self._final and self.offset < end
            left = self._filled - int(state[kernels.POSITION])
            if ended and left and bytes(self._data[self._filled - left : self._filled]) != b"\x00\x00":
                bad[wrong] = kernels.CUT, self._filled - left, left, count
                offsets[count] = self._data.size - kernels.PAD
                count, wrong = count + 1, wrong + 1
            if ended:
                state[kernels.POSITION] = self._filled
            if count:
                symbols = self.directory.values(int(state[kernels.VERSION]), int(state[kernels.HIGHEST]))
                piece = Piece(self._data, offsets, count, bad[:wrong].copy(), symbols, self._base, (self._lease, lease))
                self.seq += count
                yield self.seq - count, piece
            if ended:
                break
            if status == kernels.MORE and self.offset < end:
                self._refill()
        if self._final and self._feed.error is not None and until is None:
            nothing = np.empty(0, np.uint32), 0, np.empty((0, 4), np.int64), self.directory.values(-1, -1)
            yield self.seq, Piece(self._data, *nothing, self.offset, (self._lease, self._lease), self._feed.error)

    def _refill(self) -> None:
        at = int(self._state[kernels.POSITION])
        self._base += at
        self._state[kernels.POSITION] = 0
        self._take(bytes(self._data[at : self._filled]))

    def _take(self, tail: bytes) -> None:
        """A new buffer that begins with `tail`."""
        self._lease = self._pool.take(READ + kernels.PAD)
        data: Any = self._lease.array(np.uint8, READ + kernels.PAD)
        data[READ:] = 0
        data[: len(tail)] = np.frombuffer(tail, np.uint8)
        view = memoryview(data)
        self._filled = len(tail) + self._feed.fill(view[len(tail) : READ])
        self._final = self._filled < READ
        self._data = data


class ItchReader(SourceReader):
    """An open ITCH file. `end` bounds a split: the first message at or behind it belongs to the next one.

    Going on from a `position` reads again what stands before it: for ``market.trades``, whose orders may be as old as the
    day, all of it; for other tables the part that names symbols.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        path: str,
        table: str,
        source: str,
        midnight: int,
        max_orders: int,
        prefixed: bool,
        context: Context,
        position: Position,
        end: int | None,
    ) -> None:
        self._feed, self._path, self._end = feed, path, end
        self._lengths = length_table()
        self._messages = ItchMessages(table, source=source, midnight=midnight, pool=context.pool, max_orders=max_orders)
        self._framer = Framer(feed, prefixed, context.pool)
        offset, named = int(position.get("offset", 0)), int(position.get("directory", 0))
        if offset:
            for first, piece in self._framer.pieces(until=offset if table == "trades" else named):
                self._part(first, piece)
            if self._framer.offset != offset:
                self._framer.seek(offset)
        self._framer.seq = int(position.get("seq", 0))

    def blocks(self) -> Iterator[Block]:
        framer = self._framer
        for index, (first, piece) in enumerate(framer.pieces(self._end)):
            after = {"offset": framer.offset, "seq": framer.seq, "directory": framer.named_until}
            begin = int(piece.offsets[0]) if piece.count else 0
            size = max(0, framer.offset - piece.base - begin + 2)
            yield Block(index, first, piece.count, size, after, (piece, self._part(first, piece)))

    def _part(self, first: int, piece: Piece) -> Part:
        def place(number: int) -> str:
            return self._place(piece, int(piece.offsets[number]) - 2)

        part = Part(
            piece.data,
            piece.offsets,
            piece.count,
            first,
            piece.symbols,
            place,
            unsound=len(piece.bad),
            keep=piece.leases,
        )
        return self._messages.join(part)

    def decode(self, block: Block) -> Decoded:
        piece, part = block.payload
        if piece.note is not None:
            return Decoded((), (BadRecord(self._place(piece, 0), "itch.read", piece.note, b""),))
        decoded = self._messages.decode(part)
        if not len(piece.bad):
            return decoded
        bad = [*(self._unsound(piece, block.first_seq, *row) for row in piece.bad.tolist()), *decoded.bad]
        bad.sort(key=lambda record: record.seq or 0)
        return Decoded(decoded.batches, bad, decoded.dropped)

    def _place(self, piece: Piece, at: int) -> str:
        return f"{self._path}, offset {piece.base + at}"

    def _unsound(self, piece: Piece, first: int, what: int, at: int, size: int, number: int) -> BadRecord:
        raw = piece.data[at : at + min(size, _KEPT)].tobytes()
        code = raw[2] if len(raw) > 2 else 0
        error = _ERRORS[what].format(
            length=int.from_bytes(raw[:2], "big"),
            kind=repr(type_label(code)),
            want=int(self._lengths[code]) or "unknown",
            size=size,
            have=max(0, size - 2),
            locate=int.from_bytes(raw[3:5], "big"),
        )
        return BadRecord(self._place(piece, at), "itch.frame", error, raw, first + number)

    def close(self) -> None:
        self._feed.close()


def survey(framer: Framer) -> tuple[npt.NDArray[np.int64], tuple[int, int] | None, int]:
    """Walk a whole file: messages by type code, least and greatest ns since midnight, and how many are bad."""
    counts, times, bad = np.zeros(256, np.int64), np.array([1 << 62, -1], np.int64), 0
    lengths = length_table()
    for _, piece in framer.pieces():
        kernels.survey(piece.data, piece.offsets, piece.count, lengths, counts, times)
        bad += len(piece.bad)
    return counts, (int(times[0]), int(times[1])) if times[1] >= 0 else None, bad
