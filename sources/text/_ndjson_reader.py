"""Framing: a plain or packed file in blocks of whole lines, numbered, with every byte accounted for.

Blocks end at newlines and hold a bounded number of records, so what a block decodes to is bounded too. A line longer than
`max_line` is never held: its beginning is kept for quarantine and the rest is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool, Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.unpack import head_of, open_feed
from ._ndjson_decode import Layout, Text, decode_text
from ._ndjson_detect import BOM, HEAD_BYTES, check_head
from ._ndjson_lines import count_records
from ._ndjson_plan import address
from ._ndjson_simd import PADDING
from ._ndjson_spec import MOST_RECORDS

__all__ = ["LineReader", "retry_line"]

#: Bytes of a line that is too long that are kept for quarantine.
_KEPT = 65_536


@dataclass(frozen=True, slots=True)
class _Lost:
    """A piece of the file that could not be framed."""

    bad: BadRecord


class LineReader(SourceReader):
    """An open file of JSON lines."""

    def __init__(
        self,
        path: str,
        layout: Layout,
        context: Context,
        *,
        position: Position,
        stop: int | None,
        block_bytes: int,
        max_line: int,
    ) -> None:
        self._path, self._layout, self._pool = path, layout, context.pool
        self._offset, self._seq, self._line = int(position["offset"]), int(position["seq"]), int(position["line"])
        self._bytes = open_feed(path)
        if self._offset:
            self._bytes.seek(self._offset)
        self._left = None if stop is None else stop - self._offset
        self._block_bytes, self._max_line = block_bytes, max_line
        self._whole = stop is None and self._offset == 0
        self._index = 0

    def close(self) -> None:
        self._bytes.close()

    def decode(self, block: Block) -> Decoded:
        """Decode one block of lines; see `SourceReader.decode`."""
        if isinstance(block.payload, _Lost):
            return Decoded((), (block.payload.bad,))
        batches, bad = decode_text(block.payload, self._layout, self._pool, block.first_seq, block.records)
        return Decoded(batches, bad)

    def blocks(self) -> Iterator[Block]:
        """Frame the file; see `SourceReader.blocks`. Raises FormatError for an empty file or one of another format."""
        if self._whole:
            check_head(head_of(self._path, HEAD_BYTES)[0], self._path)
        carry, ended, fresh, found, want = b"", False, self._offset == 0, False, self._block_bytes
        while carry or not ended:
            size = len(carry) if ended else max(want, len(carry))
            lease = self._pool.take(size + PADDING)
            data = _view(lease, size + PADDING)
            data[: len(carry)] = np.frombuffer(carry, np.uint8)
            have = len(carry) + self._fill(memoryview(data)[len(carry) : size])  # type: ignore[arg-type]
            ended = ended or have < size
            if fresh and have >= 3 and data[:3].tobytes() == BOM:
                data[: have - 3] = data[3:have].copy()
                self._offset += 3
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
                block, carry, ended = self._skip_line(data[:cut].tobytes() + tail, ended)
                yield block
                continue
            carry, cut = data[int(stop) - base : cut].tobytes() + tail, int(stop) - base
            data[cut : cut + PADDING] = 0
            text, first = Text(lease, cut, self._offset, self._line), self._seq
            self._offset += cut
            self._seq += int(records)
            self._line += int(lines)
            if records:
                yield self._block(first, int(records), cut, text)
        if self._bytes.error is not None:
            place = f"{self._layout.file}, byte {self._offset} of its text"
            yield self._block(self._seq, 0, 0, _Lost(BadRecord(place, "ndjson.unpack", self._bytes.error, b"")))
        elif self._whole and not found:
            raise FormatError(f"{self._path} is empty: it holds no line of JSON")

    def _fill(self, view: memoryview) -> int:
        if self._left is not None:
            view = view[: self._left]
        count = self._bytes.fill(view)
        if self._left is not None:
            self._left -= count
        return count

    def _skip_line(self, text: bytes, ended: bool) -> tuple[Block, bytes, bool]:
        """Step over a line that is too long: its block, what was read behind it, and whether the file has ended."""
        kept, length, newline = b"", 0, text.find(b"\n")
        chunk = memoryview(bytearray(self._block_bytes))
        while newline < 0 and not ended:
            kept += text[: _KEPT - len(kept)]
            length += len(text)
            got = self._fill(chunk)
            text, ended = bytes(chunk[:got]), got < len(chunk)
            newline = text.find(b"\n")
        line = text if newline < 0 else text[:newline]
        kept += line[: _KEPT - len(kept)]
        length += len(line)
        behind = text[newline + 1 :] if newline >= 0 else b""
        place = f"{self._layout.file}, line {self._line}, byte {self._offset}"
        error = f"a line of {length} bytes, more than max_line={self._max_line}; its first {len(kept)} bytes are kept"
        bad = BadRecord(place, "ndjson.frame", error, kept, self._seq)
        self._offset += length + (newline >= 0)
        self._seq += 1
        self._line += newline >= 0
        return self._block(self._seq - 1, 1, length, _Lost(bad)), behind, ended

    def _block(self, first: int, records: int, nbytes: int, payload: object) -> Block:
        after = {"offset": self._offset, "seq": self._seq, "line": self._line}
        self._index += 1
        return Block(self._index - 1, first, records, nbytes, after, payload)


def retry_line(record: BadRecord, layout: Layout, max_line: int) -> Decoded | None:
    """Decode a quarantined line on its own; None if `record` is no whole line."""
    line = record.data
    whole = record.operation == "ndjson.decode" or (record.operation == "ndjson.frame" and len(line) < _KEPT)
    if not whole or record.seq is None:
        return None
    if len(line) > max_line:
        error = f"a line of {len(line)} bytes, more than {max_line=}"
        return Decoded((), (BadRecord(record.place, "ndjson.frame", error, line, record.seq),))
    pool = BufferPool()
    size = len(line) + 1
    lease = pool.take(size + PADDING)
    _view(lease, size + PADDING)[:] = np.frombuffer(line + b"\n" + bytes(PADDING), np.uint8)
    batches, bad = decode_text(Text(lease, size, 0, 1), layout, pool, record.seq, 1)
    return Decoded(batches, bad)


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
