"""Framing and decoding of BLF logs: the content of containers is one stream of objects, cut into buffers.

A position is the container in which the next object begins and how far into it that is. Where the stream is broken, what is
left of an object there and what comes before the next head are bad records of their own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import BufferPool, Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from . import _blf_kernels as kernels
from ._blf_containers import KEPT, Content, Damage, read_containers
from ._blf_format import HEADER, PADDING, kind_name

__all__ = ["READ", "BlfReader", "decode_object"]

#: Bytes of a read buffer, and objects of a block at most.
READ = 1 << 20
_OBJECTS = 1 << 16

Array = npt.NDArray[Any]
#: Where content of a container begins in the stream: there, the container's place in the file, and how far into it.
Mark = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Objects:
    lease: Lease
    data: Array
    base: int
    marks: tuple[Mark, ...]
    starts: Array
    sizes: Array
    status: Array


@dataclass(frozen=True, slots=True)
class _Lost:
    bad: BadRecord


class _Stream:
    """The content of all containers; `fill` stops where it is broken, and `damage` then says why."""

    def __init__(self, found: Iterator[Content | Damage], start: int, inside: int) -> None:
        self._found, self._chunk, self._inside = found, memoryview(b""), inside
        self.marks: list[Mark] = [(0, start, inside)]
        self.offset = 0
        self.damage: Damage | None = None
        self.ended = False

    def fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view) and self.damage is None and not self.ended:
            if not self._chunk:
                self._next()
                continue
            count = min(len(view) - done, len(self._chunk))
            view[done : done + count] = self._chunk[:count]
            self._chunk = self._chunk[count:]
            done += count
            self.offset += count
        return done

    def _next(self) -> None:
        found = next(self._found, None)
        if isinstance(found, Content):
            self._mark(found.offset)
            self._chunk = memoryview(found.data)[self._inside :]
        elif found is None:
            self.ended = True
        self.damage = found if isinstance(found, Damage) else None
        self._inside = 0

    def go_on(self) -> None:
        """Read behind the damage."""
        if self.damage is not None:
            self._mark(self.damage.after)
        self.damage = None

    def _mark(self, place: int) -> None:
        if self.marks[-1][0] == self.offset:
            self.marks.pop()
        self.marks.append((self.offset, place, self._inside))

    def forget(self, offset: int) -> None:
        """Nothing before `offset` will be asked for."""
        del self.marks[: bisect_right(self.marks, offset, key=lambda mark: mark[0]) - 1]


def _within(marks: Any, offset: int) -> tuple[int, int]:
    """The container that has the byte at `offset` of the stream, and how far into its content that is."""
    start, place, inside = marks[bisect_right(marks, offset, key=lambda mark: mark[0]) - 1]
    return place, inside + offset - start


class BlfReader(SourceReader):
    """An open BLF log. `origin` is the start of the measurement in ns, `start` where the first object of the file begins."""

    def __init__(
        self,
        feed: Feed,
        *,
        origin: int,
        start: int,
        path: str,
        schema: pa.Schema,
        context: Context,
        position: Position | None,
        block_bytes: int = READ,
    ) -> None:
        self._feed, self._origin, self._path, self._columns = feed, origin, path, ColumnLayout(schema)
        self._pool, self._size = context.pool, block_bytes
        self._seq, self._index, inside = 0, 0, 0
        if position:
            start, inside, self._seq = int(position["container"]), int(position["inside"]), int(position["seq"])
        self._stream = _Stream(read_containers(feed, path, start), start, inside)

    @property
    def problem(self) -> str | None:
        """Why the content ended, if not at its end."""
        return self._feed.error

    def close(self) -> None:
        self._feed.close()

    def blocks(self) -> Iterator[Block]:
        stream = self._stream
        tail, wanted = b"", 0
        while True:
            size = max(self._size, min(wanted, 4 * len(tail)), len(tail) + 4 * HEADER)  # lengths may lie: by and by
            lease = self._pool.take(size)
            data: Any = lease.array(np.uint8, size)
            data[: len(tail)] = np.frombuffer(tail, np.uint8)
            have = len(tail) + stream.fill(memoryview(data)[len(tail) : size])
            base, final = stream.offset - have, have < size
            stream.forget(base)
            at, reason = 0, kernels.FULL
            while reason == kernels.FULL:
                starts, sizes = np.empty(_OBJECTS, np.uint32), np.empty(_OBJECTS, np.uint32)
                status, first = np.empty(_OBJECTS, np.uint8), at
                found = kernels.frame(data, at, have, final, starts, sizes, status)
                reason, at, count, wanted = (int(number) for number in found)
                if count or at > first:
                    cuts = (part[:count].copy() for part in (starts, sizes, status))
                    yield self._block(
                        count, at - first, base + at, _Objects(lease, data, base, tuple(stream.marks), *cuts)
                    )
            tail = data[at:have].tobytes()
            if reason == kernels.OPEN:
                tail = yield from self._pass_over(tail, base + at)
                wanted = 0
            if final or stream.damage is not None or stream.ended:
                if stream.damage is not None and not tail:
                    bad = stream.damage.bad
                    stream.go_on()
                    yield self._block(0, 0, stream.offset, _Lost(bad))
                elif stream.ended and not tail:
                    return

    def _pass_over(self, text: bytes, start: int) -> Generator[Block, None, bytes]:
        """Step over what no object begins in, up to the next head; gives what was read from there on."""
        stream, kept, length = self._stream, b"", 0
        scratch = memoryview(bytearray(self._size))
        skip = PADDING  # the first bytes are those of a head that cannot be right
        while True:
            data = np.frombuffer(text, np.uint8)
            found = int(kernels.find(data, min(skip, len(text)), len(text)))
            final = stream.damage is not None or stream.ended
            step = found if found >= 0 else len(text) if final else max(len(text) - HEADER + 1, 0)
            kept, length = kept + text[: min(step, KEPT - len(kept))], length + step
            text = text[step:]
            if found >= 0 or final:
                break
            skip = 0 if step else skip
            text += bytes(scratch[: stream.fill(scratch)])
        place, inside = _within(stream.marks, start)
        where = f"{self._path}, byte {place}, {inside} bytes into its content"
        bad = BadRecord(where, "blf.frame", kernels.REASONS[kernels.LOST].format(size=length), kept, self._seq)
        yield self._block(1, length, start + length, _Lost(bad))
        return text

    def _block(self, records: int, nbytes: int, offset: int, payload: object) -> Block:
        first, self._seq = self._seq, self._seq + records
        self._index += 1
        container, inside = _within(self._stream.marks, offset)
        after = {"container": container, "inside": inside, "seq": self._seq}
        return Block(self._index - 1, first, records, nbytes, after, payload)

    def decode(self, block: Block) -> Decoded:
        if isinstance(block.payload, _Lost):
            return Decoded((), (block.payload.bad,))
        found: _Objects = block.payload
        batch, status, kinds = _decode(found, self._origin, self._columns, block.first_seq, self._pool)
        dropped = {f"blf: {kind_name(kind)}": int(kinds[kind]) for kind in np.flatnonzero(kinds).tolist()}
        wrong = np.flatnonzero((status != 0) & (status != kernels.OTHER)).tolist()
        bad = [self._bad(found, i, int(status[i]), block.first_seq + i) for i in wrong]
        return Decoded([batch] if batch.num_rows else [], bad, dropped)

    def _bad(self, found: _Objects, i: int, status: int, seq: int) -> BadRecord:
        start, size = int(found.starts[i]), int(found.sizes[i])
        place, inside = _within(found.marks, found.base + start)
        where = f"{self._path}, byte {place}, {inside} bytes into its content"
        operation = "blf.frame" if status in (kernels.LOST, kernels.CUT) else "blf.decode"
        error = kernels.REASONS[status].format(size=size)
        return BadRecord(where, operation, error, found.data[start : start + min(size, KEPT)].tobytes(), seq)


def _decode(
    found: _Objects, origin: int, layout: ColumnLayout, first: int, pool: BufferPool
) -> tuple[pa.RecordBatch, Array, Array]:
    rows = len(found.starts)
    out, status, kinds = layout.take(pool, rows), found.status.copy(), np.zeros(256, np.int64)
    ext, fd = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    columns = [out["ts_event"], out["ts_recv"], out["seq"], out["bus"], out["can_id"], ext, fd, out["len"], out["data"]]
    count = int(kernels.frames(found.data, found.starts, found.sizes, origin, first, status, kinds, *columns))
    return out.batch(count, columns={"ext": pa.array(ext[:count]), "fd": pa.array(fd[:count])}), status, kinds


def decode_object(record: BadRecord, origin: int, schema: pa.Schema) -> Decoded | None:
    """Decode a quarantined object on its own; None if `record` is no whole object."""
    size = len(record.data)
    if record.operation != "blf.decode" or record.seq is None or not 2 * HEADER <= size < KEPT:
        return None
    pool = BufferPool()
    lease = pool.take(size)
    data: Any = lease.array(np.uint8, size)
    data[:] = np.frombuffer(record.data, np.uint8)
    one = np.zeros(1, np.uint32), np.full(1, size, np.uint32), np.zeros(1, np.uint8)
    batch, status, _ = _decode(_Objects(lease, data, 0, (), *one), origin, ColumnLayout(schema), record.seq, pool)
    if status[0] == kernels.OTHER:
        return None
    if status[0]:
        error = kernels.REASONS[int(status[0])]
        return Decoded((), (BadRecord(record.place, record.operation, error, record.data, record.seq),))
    return Decoded((batch,))
