"""Framing: a stream of text in pieces of whole lines, numbered, with every byte accounted for.

Pieces end at newlines and hold a bounded number of records, so what a piece decodes to is bounded too. A line longer than
`max_line` is never held: its beginning is kept for quarantine and the rest is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool, Lease
from ...pipeline.source import Position
from ..storage.feed import Feed
from ._ndjson_detect import BOM
from ._ndjson_lines import count_records
from ._ndjson_plan import address
from ._ndjson_simd import PADDING
from ._ndjson_spec import MOST_RECORDS

__all__ = ["KEPT", "START", "LineFramer", "Lost", "Text", "text_of"]

#: Bytes of a line that is too long that are kept for quarantine.
KEPT = 65_536
#: The position of the first line.
START: Position = {"offset": 0, "seq": 0, "line": 1}


@dataclass(frozen=True, slots=True)
class Text:
    """Whole lines: `size` bytes at the start of a block of memory, with `PADDING` zeros behind them.

    `offset`, `line` (from 1) and `seq` say where the first stands in the stream; `records` how many are not blank. Only at
    the end of the stream may the newline be missing.
    """

    lease: Lease
    size: int
    offset: int
    line: int
    seq: int
    records: int

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        return _view(self.lease, self.size)


@dataclass(frozen=True, slots=True)
class Lost:
    """A piece of `size` bytes that could not be framed, in place of `records` records from `seq` on."""

    bad: BadRecord
    size: int
    seq: int
    records: int


class LineFramer:
    """Cuts what `feed` gives from `position` on, up to the byte `stop`.

    Public attributes `offset`, `seq` and `line` are where the next piece begins. The feed is at the beginning.
    """

    def __init__(
        self,
        feed: Feed,
        pool: BufferPool,
        position: Position,
        *,
        path: str,
        file: str,
        format: str,
        block_bytes: int,
        max_line: int,
        stop: int | None = None,
    ) -> None:
        self._feed, self._pool, self._path, self._file, self._format = feed, pool, path, file, format
        self.offset, self.seq, self.line = int(position["offset"]), int(position["seq"]), int(position["line"])
        if self.offset:
            feed.seek(self.offset)
        self._left = None if stop is None else stop - self.offset
        self._block_bytes, self._max_line = block_bytes, max_line
        self._whole = stop is None and not self.offset

    @property
    def position(self) -> Position:
        """Where the next piece begins, as plain values."""
        return {"offset": self.offset, "seq": self.seq, "line": self.line}

    def pieces(self) -> Iterator[Text | Lost]:
        """The pieces in order; the last may be a `Lost` of no record that says why the feed broke.

        Raises FormatError if the whole stream holds no line.
        """
        carry, ended, fresh, found, want = b"", False, self.offset == 0, False, self._block_bytes
        while carry or not ended:
            size = len(carry) if ended else max(want, len(carry))
            lease = self._pool.take(size + PADDING)
            data = _view(lease, size + PADDING)
            data[: len(carry)] = np.frombuffer(carry, np.uint8)
            have = len(carry) + self._fill(memoryview(data)[len(carry) : size])  # type: ignore[arg-type]
            ended = ended or have < size
            if fresh and have >= 3 and data[:3].tobytes() == BOM:
                data[: have - 3] = data[3:have].copy()
                self.offset += 3
                have -= 3
            fresh = False
            cut = have if ended else _after_last_newline(data, have)
            if cut == 0 and have <= self._max_line:
                carry, want = data[:have].tobytes(), min(2 * have, self._max_line + self._block_bytes)
                continue
            want = self._block_bytes
            cut = cut or have
            tail = data[cut:have].tobytes()
            data[cut : cut + PADDING] = 0
            base = address(data)
            records, lines, stop, long = count_records(base, base + cut, MOST_RECORDS, self._max_line)
            found = found or bool(records) or bool(long)
            if long and stop == base:
                lost, carry, ended = self._skip_line(data[:cut].tobytes() + tail, ended)
                yield lost
                continue
            carry, cut = data[int(stop) - base : cut].tobytes() + tail, int(stop) - base
            data[cut : cut + PADDING] = 0
            text = Text(lease, cut, self.offset, self.line, self.seq, int(records))
            self.offset += cut
            self.seq += int(records)
            self.line += int(lines)
            if records:
                yield text
        if self._feed.error is not None:
            place = f"{self._file}, byte {self.offset} of its text"
            yield Lost(BadRecord(place, f"{self._format}.unpack", self._feed.error, b""), 0, self.seq, 0)
        elif self._whole and not found:
            raise FormatError(f"{self._path} is empty: it holds no line")

    def _fill(self, view: memoryview) -> int:
        if self._left is not None:
            view = view[: self._left]
        count = self._feed.fill(view)
        if self._left is not None:
            self._left -= count
        return count

    def _skip_line(self, text: bytes, ended: bool) -> tuple[Lost, bytes, bool]:
        """Step over a line that is too long: what is told of it, what was read behind it, whether the stream has ended."""
        kept, length, newline = b"", 0, text.find(b"\n")
        chunk = memoryview(bytearray(self._block_bytes))
        while newline < 0 and not ended:
            kept += text[: KEPT - len(kept)]
            length += len(text)
            got = self._fill(chunk)
            text, ended = bytes(chunk[:got]), got < len(chunk)
            newline = text.find(b"\n")
        line = text if newline < 0 else text[:newline]
        kept += line[: KEPT - len(kept)]
        length += len(line)
        behind = text[newline + 1 :] if newline >= 0 else b""
        place = f"{self._file}, line {self.line}, byte {self.offset}"
        error = f"a line of {length} bytes, more than max_line={self._max_line}; its first {len(kept)} bytes are kept"
        lost = Lost(BadRecord(place, f"{self._format}.frame", error, kept, self.seq), length, self.seq, 1)
        self.offset += length + (newline >= 0)
        self.seq += 1
        self.line += newline >= 0
        return lost, behind, ended


def text_of(lines: bytes, pool: BufferPool, *, offset: int = 0, line: int = 1, seq: int = 0, records: int = 1) -> Text:
    """Lines that are already in memory as a piece."""
    lease = pool.take(len(lines) + PADDING)
    data = _view(lease, len(lines) + PADDING)
    data[: len(lines)] = np.frombuffer(lines, np.uint8)
    data[len(lines) :] = 0
    return Text(lease, len(lines), offset, line, seq, records)


def _view(lease: Lease, size: int) -> npt.NDArray[np.uint8]:
    return lease.array(np.uint8, size)  # type: ignore[return-value]


def _after_last_newline(data: npt.NDArray[np.uint8], have: int) -> int:
    """The position behind the last newline of ``data[:have]``, 0 if there is none."""
    stop, step = have, 4096
    while stop > 0:
        start = max(0, stop - step)
        found = data[start:stop].tobytes().rfind(b"\n")
        if found >= 0:
            return start + found + 1
        stop, step = start, step * 4
    return 0
