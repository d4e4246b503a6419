"""The catalog of a file without a usable summary: every record head is visited and every chunk unpacked and counted.

Where a record cannot be right, the rest of the file is one broken piece, unless the remains of a summary say where the
next chunk begins; then only the bytes up to there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ._mcap_catalog import BROKEN, CHUNKED, LOOSE, Catalog, Piece, check_magic
from ._mcap_chunk import RecordFile, chunk_head, unpack
from ._mcap_format import (
    ATTACHMENT,
    ATTACHMENT_INDEX,
    CHANNEL,
    CHUNK,
    CHUNK_INDEX,
    DATA_END,
    FOOTER,
    MESSAGE,
    MESSAGE_INDEX,
    METADATA,
    METADATA_INDEX,
    RECORD_HEAD,
    SCHEMA,
    STATISTICS,
    SUMMARY_OFFSET,
    Channel,
    MessageType,
)
from ._mcap_kernels import census, outline

__all__ = ["survey"]

_WINDOW = 1 << 20
_RECORDS = 1 << 16
#: A run of loose messages is cut into pieces of about this size.
_LOOSE_BYTES = 4 << 20
#: Definitions longer than this are not read.
_DEFINITION_LIMIT = 16 << 20
#: What may follow DataEnd.
_BEHIND_DATA = {FOOTER, SCHEMA, CHANNEL, CHUNK_INDEX, ATTACHMENT_INDEX, STATISTICS, METADATA_INDEX, SUMMARY_OFFSET}
#: What may stand in the data section besides chunks and what is in them.
_AMONG_DATA = {MESSAGE_INDEX, ATTACHMENT, METADATA}
#: Opcodes from here on are for private use and skipped, as the specification asks.
_PRIVATE = 0x80


def survey(
    file: RecordFile, limit: int, hints: Sequence[int] = (), expected: Mapping[int, int] | None = None
) -> Catalog:
    """Walk `file`. `limit` bounds what one chunk may unpack to.

    `hints` are offsets where chunks begin, ascending, and `expected` the messages by channel, where a summary tells.
    """
    walk = _Walk(file, limit, sorted(hints))
    profile, library, start = check_magic(file)
    walk.run(start)
    walk.compare(expected or {})
    problem = next((piece.error for piece in walk.pieces if piece.error), "")
    known = walk.times[0] <= walk.times[1]
    return Catalog(
        path=file.path,
        profile=profile,
        library=library,
        types=walk.types,
        channels=walk.channels,
        pieces=tuple(walk.pieces),
        counts={int(i): int(walk.counts[i]) for i in np.flatnonzero(walk.counts)},
        start_ns=int(walk.times[0]) if known else None,
        end_ns=int(walk.times[1]) if known else None,
        indexed=False,
        complete=walk.complete and not problem,
        problem=problem,
    )


class _Walk:
    def __init__(self, file: RecordFile, limit: int, hints: Sequence[int]) -> None:
        self.file, self.limit, self.hints = file, limit, hints
        self._hinted = frozenset(hints)
        self.pool = BufferPool(keep=64 << 20)
        self.types: dict[int, MessageType] = {}
        self.channels: dict[int, Channel] = {}
        self.pieces: list[Piece] = []
        self.counts = np.zeros(1 << 16, np.int64)
        self.times = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min])
        self.complete = False
        self._offsets, self._lengths = np.empty(_RECORDS, np.int64), np.empty(_RECORDS, np.int64)
        self._run: tuple[int, int] | None = None
        self._run_counts = np.zeros(1 << 16, np.int64)

    def run(self, pos: int) -> None:
        """Visit every record from `pos` on."""
        while not self.complete and pos >= 0:
            pos = self._window(pos)
        self._end_run()

    def compare(self, expected: Mapping[int, int]) -> None:
        """Tell of messages that the walk did not find, or of no topic, if nothing told of any damage yet."""
        if any(piece.error for piece in self.pieces):
            return
        missing = sum(max(0, count - int(self.counts[channel])) for channel, count in expected.items())
        strays = {int(i): int(self.counts[i]) for i in np.flatnonzero(self.counts) if int(i) not in self.channels}
        error = ""
        if missing:
            error = f"{missing} messages fewer than the file's statistics count: a record head must be damaged"
        elif strays:
            some = ", ".join(map(str, list(strays)[:8]))
            error = f"{sum(strays.values())} messages are of channels that no channel record describes: {some}"
        if error:
            self.pieces.append(Piece(BROKEN, self.file.size, 0, error=error))

    def _window(self, pos: int) -> int:
        """Visit the records of the next window; return where to go on, or -1 at the end of the file."""
        file = self.file
        if pos >= file.size:
            return self._broken(pos, "the file ends without an end-of-data record: the recording was cut")
        window = file.load(pos, min(_WINDOW, file.size - pos), self.pool)
        data = window.data
        count, after = outline(data, len(data), file.size - pos, self._offsets, self._lengths)
        offsets, lengths = self._offsets[:count].copy(), self._lengths[:count].copy()
        ops = data[offsets]
        plain = ((ops == MESSAGE) | (ops == SCHEMA) | (ops == CHANNEL)) & (lengths >= 0) & (lengths <= self.limit)
        first = 0
        for i in [*np.flatnonzero(~plain).tolist(), count]:
            if i > first:
                self._extend_run(pos, data, offsets[first:i], lengths[first:i], ops[first:i])
            if i < count:
                go_on = self._special(int(ops[i]), pos + int(offsets[i]), int(lengths[i]))
                if go_on is not None:
                    return go_on
            first = i + 1
        return pos + int(after)

    def _special(self, op: int, offset: int, length: int) -> int | None:
        """A record that is not part of a run of messages. Returns where to go on if not right behind it."""
        size = RECORD_HEAD + length
        if length < 0:
            what = "zero bytes" if op == 0 else f"a record (opcode {op}) that goes past the end of the file"
            return self._broken(offset, f"{what} at byte {offset}: the recording was cut or damaged there")
        if op == CHUNK:
            return self._chunk(offset, size)
        if op == DATA_END and length == 4:
            following = self.file.read(offset + size, 1)
            if not following or following[0] in _BEHIND_DATA:
                self.complete = True
                return -1
            return self._broken(offset, f"an end-of-data record at byte {offset} with data behind it")
        if op in (DATA_END, FOOTER) or offset in self._hinted:
            return self._broken(offset, f"a misplaced record (opcode {op}) at byte {offset}")
        wrong = ""
        if op in (MESSAGE, SCHEMA, CHANNEL):
            wrong = f"a record of {length} bytes is more than max_chunk_bytes={self.limit}"
        elif op not in _AMONG_DATA and op < _PRIVATE:
            wrong = f"a record that has no place among data (opcode {op}) at byte {offset}"
        elif op == MESSAGE_INDEX and int.from_bytes(self.file.read(offset + 11, 4), "little") > length - 6:
            wrong = f"the message index at byte {offset} has a wrong length"
        if wrong:
            self._end_run()
            self.pieces.append(Piece(BROKEN, offset, size, error=wrong))
        return None

    def _broken(self, offset: int, error: str) -> int:
        """Everything from `offset` to the next chunk known of, or to the end of the file, cannot be read."""
        self._end_run()
        i = bisect_right(self.hints, offset)
        end = self.hints[i] if i < len(self.hints) and self.hints[i] < self.file.size else -1
        stop = self.file.size if end < 0 else end
        self.pieces.append(Piece(BROKEN, offset, max(0, stop - offset), error=error))
        return end

    def _define(self, op: int, offset: int, length: int) -> None:
        if length > _DEFINITION_LIMIT:
            return
        self._define_from(op, self.file.read(offset + RECORD_HEAD, length))

    def _define_from(self, op: int, body: bytes) -> None:
        try:
            if op == SCHEMA:
                kind = MessageType.parse(body)
                self.types.setdefault(kind.id, kind)
            else:
                channel = Channel.parse(body)
                self.channels.setdefault(channel.id, channel)
        except FormatError:
            return

    def _extend_run(
        self,
        base: int,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        ops: npt.NDArray[np.uint8],
    ) -> None:
        start, end = base + int(offsets[0]), base + int(offsets[-1] + lengths[-1]) + RECORD_HEAD
        self._run = (start if self._run is None else self._run[0], end)
        for i in np.flatnonzero(ops != MESSAGE).tolist():
            self._define(int(ops[i]), base + int(offsets[i]), int(lengths[i]))
        messages = offsets[ops == MESSAGE]
        channels = data[messages + 9].astype(np.int64) | (data[messages + 10].astype(np.int64) << 8)
        counts = np.bincount(channels, minlength=1 << 16)
        self._run_counts += counts
        self.counts += counts
        if len(messages):
            times = data[messages[:, None] + np.arange(15, 23)].view("<i8")
            self.times[:] = min(self.times[0], times.min()), max(self.times[1], times.max())
        if end - self._run[0] >= _LOOSE_BYTES:
            self._end_run()

    def _end_run(self) -> None:
        if self._run is not None:
            counts = {int(i): int(self._run_counts[i]) for i in np.flatnonzero(self._run_counts)}
            if counts:
                self.pieces.append(Piece(LOOSE, self._run[0], self._run[1] - self._run[0], counts))
            self._run, self._run_counts[:] = None, 0

    def _chunk(self, offset: int, size: int) -> int | None:
        self._end_run()
        try:
            if size > self.limit + (1 << 20):
                raise FormatError(f"it has {size} bytes, more than max_chunk_bytes={self.limit}")
            chunk = self.file.load(offset, size, self.pool)
            head = chunk_head(chunk.data)
        except FormatError as error:
            self.pieces.append(Piece(BROKEN, offset, size, error=f"chunk at byte {offset}: {error}"))
            return None
        if head.stored != size - RECORD_HEAD - head.data_at:
            return self._broken(offset, f"chunk at byte {offset}: its two lengths do not agree")
        try:
            records = unpack(chunk, self.limit, self.pool)
        except FormatError as error:
            self.pieces.append(Piece(BROKEN, offset, size, error=f"chunk at byte {offset}: {error}"))
            return None
        counts, described = np.zeros(1 << 16, np.int64), np.empty(1 << 12, np.int64)
        data = records.data
        found, end = census(data, len(data), counts, self.times, described)
        if found > len(described):
            described = np.empty(found, np.int64)
            census(data, len(data), np.zeros_like(counts), self.times, described)
        for at in described[:found].tolist():
            length = int.from_bytes(data[at + 1 : at + RECORD_HEAD].tobytes(), "little")
            if length <= _DEFINITION_LIMIT:
                self._define_from(int(data[at]), data[at + RECORD_HEAD : at + RECORD_HEAD + length].tobytes())
        self.counts += counts
        wrong = f"chunk at byte {offset}: its records break off at byte {end} of {len(data)}" if end < len(data) else ""
        here = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
        self.pieces.append(Piece(CHUNKED, offset, size, here, size=head.size, error=wrong))
        return None
