"""Framing and decoding of CAN logs in text: blocks of whole lines, numbered, with every byte accounted for.

A *grammar* knows one format: `scan` looks at the lines in order, for what one line says about later ones (a new interface,
time since the line before), and `columns` turns lines into rows anywhere, many blocks at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import BufferPool, Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from ._can_line_kernels import find_lines

__all__ = ["READ", "CanLogReader", "Grammar", "decode_line"]

#: Bytes of a read buffer, and lines of a block at most.
READ = 1 << 18
_LINES = 1 << 14
#: Bytes of a line that quarantine keeps.
_KEPT = 1 << 16

Array = npt.NDArray[Any]


class Grammar(Protocol):
    """One format of text logs."""

    name: str
    reasons: Sequence[str]
    #: Statuses of lines that are no frames and no errors: counted as dropped.
    no_frames: Sequence[int]

    def restore(self, position: Position) -> None:
        """Go on from what `position` gave."""

    def position(self) -> dict[str, Any]:
        """What `scan` has to remember, as plain JSON."""

    def scan(self, data: Array, starts: Array, lengths: Array) -> Array:
        """An int64 a line that `columns` needs; called in the order of the file."""

    def columns(
        self,
        data: Array,
        starts: Array,
        lengths: Array,
        scanned: Array,
        first: int,
        status: Array,
        columns: list[Array],
    ) -> int:
        """Write rows; see the kernels."""


@dataclass(frozen=True, slots=True)
class _Lines:
    lease: Lease
    data: Array
    base: int
    starts: Array
    lengths: Array
    scanned: Array


@dataclass(frozen=True, slots=True)
class _Lost:
    bad: BadRecord


class CanLogReader(SourceReader):
    """An open CAN log in text."""

    def __init__(
        self,
        feed: Feed,
        grammar: Grammar,
        *,
        path: str,
        schema: pa.Schema,
        context: Context,
        position: Position | None,
        block_bytes: int = READ,
    ) -> None:
        self._feed, self.grammar, self._path, self._columns = feed, grammar, path, ColumnLayout(schema)
        self._pool, self._size = context.pool, block_bytes
        self._offset = self._seq = self._index = 0
        if position:
            self._offset, self._seq = int(position["offset"]), int(position["seq"])
            grammar.restore(position)
            feed.seek(self._offset)

    @property
    def problem(self) -> str | None:
        """Why the content ended, if not at its end."""
        return self._feed.error

    def close(self) -> None:
        self._feed.close()

    def blocks(self) -> Iterator[Block]:
        carry, ended, size = b"", False, self._size  # a line of `size` bytes or more is passed over, wherever it begins
        while not ended:
            lease = self._pool.take(size)
            data: Any = lease.array(np.uint8, size)
            data[: len(carry)] = np.frombuffer(carry, np.uint8)
            have = len(carry) + self._feed.fill(memoryview(data)[len(carry) : size])
            ended = have < size
            cut = have if ended else data[:have].tobytes().rfind(b"\n") + 1
            if not cut and not ended:
                carry, ended, lost = self._pass_over(data[:have].tobytes())
                yield lost
                continue
            yield from self._lines(lease, data, cut)
            carry = data[cut:have].tobytes()
        if carry:  # what follows the line that was passed over
            lease = self._pool.take(len(carry))
            data = lease.array(np.uint8, len(carry))
            data[:] = np.frombuffer(carry, np.uint8)
            yield from self._lines(lease, data, len(carry))
        if self._feed.error is not None:
            bad = BadRecord(f"{self._path}, byte {self._offset}", f"{self.grammar.name}.unpack", self._feed.error, b"")
            yield self._block(0, 0, _Lost(bad))

    def _lines(self, lease: Lease, data: Array, end: int) -> Iterator[Block]:
        base, at = self._offset, 0
        while at < end:
            starts, lengths = np.empty(_LINES, np.int64), np.empty(_LINES, np.int64)
            count, stop = find_lines(data, at, end, starts, lengths)
            starts, lengths = starts[:count].copy(), lengths[:count].copy()
            scanned = self.grammar.scan(data, starts, lengths)
            self._offset = base + stop
            if count or stop == end:
                yield self._block(count, stop - at, _Lines(lease, data, base, starts, lengths, scanned))
            at = stop

    def _pass_over(self, text: bytes) -> tuple[bytes, bool, Block]:
        """Step over a line that is longer than any buffer: what was read behind it, whether that is all, its block."""
        kept, length, ended = text[:_KEPT], len(text), False
        scratch = memoryview(bytearray(self._size))
        newline, got = -1, 0
        while newline < 0 and not ended:
            got = self._feed.fill(scratch)
            ended = got < len(scratch)
            newline = bytes(scratch[:got]).find(b"\n")
            length += got if newline < 0 else newline + 1
        place = f"{self._path}, byte {self._offset}"
        error = f"a line of {length} bytes is no CAN frame; its first {len(kept)} bytes are kept"
        bad = BadRecord(place, f"{self.grammar.name}.frame", error, kept, self._seq)
        self._offset += length
        behind = bytes(scratch[newline + 1 : got]) if newline >= 0 else b""
        return behind, ended, self._block(1, length, _Lost(bad))

    def _block(self, records: int, nbytes: int, payload: object) -> Block:
        first, self._seq = self._seq, self._seq + records
        self._index += 1
        after = {"offset": self._offset, "seq": self._seq, **self.grammar.position()}
        return Block(self._index - 1, first, records, nbytes, after, payload)

    def decode(self, block: Block) -> Decoded:
        if isinstance(block.payload, _Lost):
            return Decoded((), (block.payload.bad,))
        lines: _Lines = block.payload
        batch, status = _decode(lines, self.grammar, self._columns, block.first_seq, self._pool)
        bad, dropped = [], {}
        for code in np.unique(status[status != 0]).tolist():
            if code in self.grammar.no_frames:
                dropped[f"{self.grammar.name}: {self.grammar.reasons[code]}"] = int((status == code).sum())
        for i in np.flatnonzero(status).tolist():
            if int(status[i]) not in self.grammar.no_frames:
                bad.append(self._bad(lines, i, int(status[i]), block.first_seq + i))
        return Decoded([batch] if batch.num_rows else [], bad, dropped)

    def _bad(self, lines: _Lines, i: int, status: int, seq: int) -> BadRecord:
        start = int(lines.starts[i])
        text = lines.data[start : start + min(int(lines.lengths[i]), _KEPT)].tobytes()
        place = f"{self._path}, byte {lines.base + start}"
        return BadRecord(place, f"{self.grammar.name}.decode", self.grammar.reasons[status], text, seq)


def _decode(lines: _Lines, grammar: Grammar, layout: ColumnLayout, first: int, pool: BufferPool) -> tuple[Any, Array]:
    rows = len(lines.starts)
    out, status = layout.take(pool, rows), np.zeros(rows, np.uint8)
    ext, fd = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    columns = [out["ts_event"], out["ts_recv"], out["seq"], out["bus"], out["can_id"], ext, fd, out["len"], out["data"]]
    count = grammar.columns(lines.data, lines.starts, lines.lengths, lines.scanned, first, status, columns)
    return out.batch(count, columns={"ext": pa.array(ext[:count]), "fd": pa.array(fd[:count])}), status


def decode_line(record: BadRecord, grammar: Grammar, schema: pa.Schema) -> Decoded | None:
    """Decode a quarantined line on its own; None if `record` is no whole line."""
    if record.operation != f"{grammar.name}.decode" or record.seq is None or len(record.data) >= _KEPT:
        return None
    pool = BufferPool()
    lease = pool.take(len(record.data) + 1)
    data: Any = lease.array(np.uint8, len(record.data))
    data[:] = np.frombuffer(record.data, np.uint8)
    starts, lengths = np.empty(1, np.int64), np.empty(1, np.int64)
    count, _ = find_lines(data, 0, len(data), starts, lengths)
    if not count:
        return None
    lines = _Lines(lease, data, 0, starts, lengths, grammar.scan(data, starts, lengths))
    batch, status = _decode(lines, grammar, ColumnLayout(schema), record.seq, pool)
    if status[0]:
        bad = BadRecord(record.place, record.operation, grammar.reasons[int(status[0])], record.data, record.seq)
        return Decoded((), (bad,))
    return Decoded((batch,))
