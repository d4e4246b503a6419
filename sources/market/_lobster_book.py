"""A LOBSTER order book with its messages: line i of the one is the book behind line i of the other.

The two files are framed each on its own and then put together by the number of the line, so that a blank line in one of
them, or a line that is missing at its end, is told and shifts no book to another message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ._lobster_levels import Assemble
from ._ticks_csv import Cells, CsvReader, Lines, alone, wrap

__all__ = ["BookReader"]

#: Numbers of a block at most, which bounds what the lines of many levels become.
_NUMBERS = 1 << 20
_SIDES = ("messages", "book")
_UNPAIRED = "no line in the other file"


@dataclass(frozen=True, slots=True)
class _Part:
    """Lines of one file in a block of both: `rows` are their places among the block's records."""

    lines: Lines
    rows: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Records of both files; or what is to be told, with the records that are dropped."""

    parts: tuple[_Part, _Part] | None
    told: tuple[BadRecord, ...] = ()
    dropped: int = 0


class _Side:
    """One file: the block that is being used up, and the numbers of its lines that are left."""

    def __init__(self, name: str, reader: CsvReader, position: Position) -> None:
        self.name, self.reader = name, reader
        self.failed = bool(position.get("failed", False))
        self._blocks, self._after = reader.blocks(), position
        self._lines: Lines | None = None
        self.numbers: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._used = 0

    def more(self) -> BadRecord | None:
        """Have lines, if there are any left; what damaged the file, where that is met."""
        while self._used >= len(self.numbers):
            block = next(self._blocks, None)
            if block is None:
                return None
            self._after, self._used = block.after, 0
            lines: Lines = block.payload
            if lines.bad is not None and not block.records:
                self.numbers, told = np.empty(0, np.int64), not self.failed
                self.failed = True
                return lines.bad if told else None
            self._lines, self.numbers = lines, _numbers(lines)
        return None

    @property
    def left(self) -> int:
        return len(self.numbers) - self._used

    def number(self, ahead: int) -> int:
        """The number of the line `ahead` of those used, or of the last."""
        return int(self.numbers[min(self._used + ahead, len(self.numbers)) - 1])

    def take(self, most: int) -> tuple[Lines, npt.NDArray[np.int64]]:
        """The lines up to number `most`."""
        if self._lines is None or not self.left:
            return alone(b""), np.empty(0, np.int64)
        stop = int(np.searchsorted(self.numbers, most, side="right"))
        span, lines, numbers = slice(self._used, stop), self._lines, self.numbers[self._used : stop]
        self._used = stop
        if lines.bad is None:
            lines = replace(lines, starts=lines.starts[span], ends=lines.ends[span], count=len(numbers), peek=False)
        return lines, numbers

    def position(self) -> dict[str, Any]:
        offset, line = self._after.get("offset", 0), self._after.get("line", 1)
        if self._lines is not None and self.left:
            begin = 0 if self._lines.bad is not None else int(self._lines.starts[self._used])
            offset, line = self._lines.base + begin, int(self.numbers[self._used])
        return {"offset": int(offset), "line": int(line), "failed": self.failed}


def _numbers(lines: Lines) -> npt.NDArray[np.int64]:
    """The numbers of the lines in their file."""
    if lines.bad is not None:
        return np.array([lines.line], np.int64)
    stop = int(lines.ends[lines.count - 1])
    breaks = np.flatnonzero(lines.data[:stop] == 10)
    return lines.line + np.searchsorted(breaks, lines.starts[: lines.count]).astype(np.int64)


class BookReader(SourceReader):
    """An open pair of files."""

    def __init__(self, messages: CsvReader, book: CsvReader, assemble: Assemble, position: Position) -> None:
        self._sides = tuple(
            _Side(name, reader, position.get(name, {})) for name, reader in zip(_SIDES, (messages, book), strict=True)
        )
        self._assemble = assemble
        self._seq, self._index = int(position.get("seq", 0)), 0
        self._ended = bool(position.get("ended", False))
        self._most = max(1, _NUMBERS // max(len(assemble.book.fields), 6))

    def blocks(self) -> Iterator[Block]:
        """Frame both files; see `SourceReader.blocks`."""
        messages, book = self._sides
        while True:
            for side in self._sides:
                if (bad := side.more()) is not None:
                    yield self._block(_Pairs(None, (bad,)), 0, 0)
                    break
            else:
                if messages.left and book.left:
                    most = min(messages.number(self._most), book.number(self._most))
                    yield self._paired(most)
                elif messages.left or book.left:
                    yield self._unpaired(*((messages, book) if messages.left else (book, messages)))
                else:
                    return

    def _paired(self, most: int) -> Block:
        before = self._offset()
        (a, left), (b, right) = (side.take(most) for side in self._sides)
        if len(left) == len(right) and bool((left == right).all()):
            records, rows = len(left), (np.arange(len(left)), np.arange(len(left)))
        else:  # a blank line in one of them
            union = np.union1d(left, right)
            records, rows = len(union), (np.searchsorted(union, left), np.searchsorted(union, right))
        pairs = _Pairs((_Part(a, rows[0], left), _Part(b, rows[1], right)))
        return self._block(pairs, records, self._offset() - before)

    def _unpaired(self, longer: _Side, shorter: _Side) -> Block:
        before = self._offset()
        lines, numbers = longer.take(longer.number(longer.left))
        told: tuple[BadRecord, ...] = ()
        if not self._ended:
            self._ended = True
            if lines.bad is None:
                place, data = longer.reader.spot(lines, 0)
            else:
                place, data = lines.bad.place, lines.bad.data
            error = (
                f"the other file, {shorter.reader.path}, ends before line {int(numbers[0])}: "
                f"this line and those behind it have no {'book' if shorter.name == 'book' else 'message'}"
            )
            told = (BadRecord(place, "lobster.pair", error, data),)
        return self._block(_Pairs(None, told, len(numbers)), len(numbers), self._offset() - before)

    def _offset(self) -> int:
        return sum(side.position()["offset"] for side in self._sides)

    def _block(self, payload: _Pairs, records: int, nbytes: int) -> Block:
        first = self._seq
        self._seq += records
        self._index += 1
        after = {side.name: side.position() for side in self._sides}
        return Block(
            self._index - 1, first, records, nbytes, {**after, "seq": self._seq, "ended": self._ended}, payload
        )

    def decode(self, block: Block) -> Decoded:
        """Decode one block of lines of both; see `SourceReader.decode`."""
        pairs: _Pairs = block.payload
        if pairs.parts is None:
            return Decoded((), pairs.told, {_UNPAIRED: pairs.dropped} if pairs.dropped else {})
        return self._decode(pairs.parts, block.records, block.first_seq)

    def _decode(self, parts: tuple[_Part, _Part], records: int, first_seq: int) -> Decoded:
        cells: list[Cells | None] = []
        place = np.zeros((2, records), np.int64)
        sound = np.zeros((2, records), np.bool_)
        wrong: list[dict[int, str]] = []
        for i, (side, part) in enumerate(zip(self._sides, parts, strict=True)):
            place[i, :] = -1
            place[i, part.rows] = np.arange(len(part.rows))
            if part.lines.bad is not None or not len(part.rows):
                cells.append(None)
                wrong.append({} if part.lines.bad is None else {0: part.lines.bad.error})
                continue
            found, refused = side.reader.parse(part.lines, first_seq)
            sound[i, part.rows[found.rows]] = True
            cells.append(found)
            wrong.append(refused)
        both = sound[0] & sound[1]
        bad = [self._bad(parts, place[:, row], wrong, first_seq + int(row)) for row in np.flatnonzero(~both)]
        good = np.flatnonzero(both)
        messages, book = cells
        if not len(good) or messages is None or book is None:
            return Decoded((), bad)
        seq = good.astype(np.uint64) + np.uint64(first_seq)
        columns = self._assemble(messages.only(place[0, good]), book.only(place[1, good]), seq)
        return Decoded((wrap(self._assemble.schema, columns),), bad)

    def _bad(
        self, parts: tuple[_Part, _Part], row: npt.NDArray[np.int64], wrong: list[dict[int, str]], seq: int
    ) -> BadRecord:
        places, data, errors, cut = [], [], [], False
        for side, part, at, why in zip(self._sides, parts, row.tolist(), wrong, strict=True):
            if at < 0:
                data.append(b"")
                errors.append(f"{side.name}: the line is blank")
                continue
            if part.lines.bad is not None:
                where, raw, cut = part.lines.bad.place, part.lines.bad.data, True
            else:
                where, raw = side.reader.spot(part.lines, at)
            places.append(where)
            data.append(raw)
            if at in why:
                errors.append(f"{side.name}: {why[at]}")
        operation = "lobster.frame" if cut else "lobster.decode"
        return BadRecord(" and ".join(places), operation, "; ".join(errors), b"\n".join(data), seq)

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode the two lines of a quarantined record again; None for what was not kept whole."""
        if record.operation != "lobster.decode":
            return None
        parts = []
        for line in record.data.partition(b"\n")[::2]:
            rows = np.arange(1 if line else 0)
            parts.append(_Part(alone(line), rows, rows + 1))
        return self._decode((parts[0], parts[1]), 1, record.seq or 0)

    def close(self) -> None:
        for side in self._sides:
            side.reader.close()
