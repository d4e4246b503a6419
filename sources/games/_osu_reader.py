"""Frames of an osu! replay: unpacked a piece at a time, cut at commas, and parsed by Arrow's CSV reader.

What that reader does not take is parsed frame by frame, which is also what defines the result.
"""

from __future__ import annotations

import io
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as csv

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import BufferPool
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from ._osu_format import Header, trailing_problem

__all__ = ["OsrReader", "Piece", "parse_frames"]

#: Unpacked text of a block, bytes of a frame at most, and what the unpacker may take for its window.
TEXT, MOST_FRAME, _MOST_MEMORY = 256 << 10, 4096, 96 << 20
_READ, _KEPT = 64 << 10, 1 << 16
#: Milliseconds that frames may add up to: 139 years.
_MOST_MS = 1 << 42
_SEED = -12345
#: Where stable puts two frames that stand for none, before the first.
_FILLER = (256.0, -500.0)
_INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_PLAIN = bytes(sorted(b"0123456789.-eE|,"))


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole frames as text; `offset` is where it begins in the unpacked text, `time_ms` when the frame before was, `first`
    the number of its first frame."""

    text: bytes
    offset: int
    time_ms: int
    first: int = 2


@dataclass(frozen=True, slots=True)
class Frames:
    """Parsed frames: `numbers` within the piece, times in ms, positions, keys. `bad` are (number, offset, text, why)."""

    numbers: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    keys: npt.NDArray[np.int64]
    seeds: int
    fillers: int
    seed: int | None
    bad: list[tuple[int, int, bytes, str]]
    end_ms: int


def parse_frames(piece: Piece, *, mania: bool) -> Frames:
    """Frames ``w|x|y|z`` of a piece. In mania `keys` are the x of a frame, and it has no position."""
    found = _fast(piece, mania)
    return found if found is not None else _slow(piece, mania)


def _fast(piece: Piece, mania: bool) -> Frames | None:
    text = piece.text.removesuffix(b",")
    if not text or text.translate(None, _PLAIN):
        return None
    names = ["w", "x", "y", "z"]
    kinds = {"w": pa.int64(), "x": pa.float64(), "y": pa.float64(), "z": pa.int64()}
    try:
        table = csv.read_csv(
            io.BytesIO(text.replace(b",", b"\n")),
            read_options=csv.ReadOptions(use_threads=False, column_names=names, block_size=4 * TEXT),
            parse_options=csv.ParseOptions(
                delimiter="|", quote_char=False, escape_char=False, newlines_in_values=False, ignore_empty_lines=False
            ),
            convert_options=csv.ConvertOptions(column_types=kinds, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowException:
        return None
    w, x, y, z = (column.to_numpy() for column in table.columns)
    limits = w.min() < -_MOST_MS or w.max() > _MOST_MS or z.min() <= -(10**18) or z.max() >= 10**18
    if len(w) != text.count(b",") + 1 or limits:
        return None
    seed = (w == _SEED) & (x == 0) & (y == 0)
    times = piece.time_ms + np.cumsum(np.where(seed, 0, w))
    keys = x if mania else z
    with np.errstate(over="ignore"):
        x32, y32 = x.astype(np.float32), y.astype(np.float32)
    filler = (x == _FILLER[0]) & (y == _FILLER[1]) & (np.arange(len(w)) < 2 - piece.first) & ~seed
    row = ~(seed | filler)
    whole = keys[row] == np.floor(keys[row])
    sound = np.isfinite(x32).all() and np.isfinite(y32).all() and np.abs(times).max() <= _MOST_MS and whole.all()
    if not sound or (row.any() and (keys[row].min() < 0 or keys[row].max() > 0xFFFFFFFF)):
        return None
    numbers = np.flatnonzero(row)
    last = int(z[seed][-1]) if seed.any() else None
    held = keys[row].astype(np.int64)
    return Frames(
        numbers, times[row], x32[row], y32[row], held, int(seed.sum()), int(filler.sum()), last, [], int(times[-1])
    )


def _slow(piece: Piece, mania: bool) -> Frames:
    """One frame after another. A frame that is none counts for the time too, if its first part is a number."""
    texts = piece.text.removesuffix(b",").split(b",")
    starts = accumulate((len(text) + 1 for text in texts), initial=piece.offset)
    now, rows, bad, seeds, fillers, seed = piece.time_ms, [], [], 0, 0, None
    for number, (text, start) in enumerate(zip(texts, starts, strict=False)):
        parts = text.split(b"|")
        step = int(parts[0]) if _INTEGER.fullmatch(parts[0]) else None
        if step is None or len(parts) != 4:
            if step is not None and abs(now + step) <= _MOST_MS:
                now += step
            bad.append((number, start, text, "a frame is time|x|y|keys in numbers"))
            continue
        values = _values(parts)
        if values is not None and step == _SEED and values[0] == 0 and values[1] == 0:
            seeds, seed = seeds + 1, values[2]
            continue
        if abs(now + step) > _MOST_MS:
            bad.append((number, start, text, f"its time is {now + step} ms from the start"))
            continue
        now += step
        if values is None:
            bad.append((number, start, text, "a frame is time|x|y|keys in numbers"))
            continue
        x, y, z = values
        if number < 2 - piece.first and (x, y) == _FILLER:
            fillers += 1
            continue
        keys: Any = x if mania else z
        if not 0 <= keys <= 0xFFFFFFFF or keys != int(keys):
            bad.append((number, start, text, f"{keys} are no keys"))
            continue
        rows.append((number, now, x, y, int(keys)))
    columns: Any = list(zip(*rows, strict=True)) if rows else [(), (), (), (), ()]
    numbers, times, keys = (np.array(columns[i], np.int64) for i in (0, 1, 4))
    x32, y32 = np.array(columns[2], np.float32), np.array(columns[3], np.float32)
    return Frames(numbers, times, x32, y32, keys, seeds, fillers, seed, bad, now)


def _values(parts: list[bytes]) -> tuple[float, float, int] | None:
    if not (_NUMBER.fullmatch(parts[1]) and _NUMBER.fullmatch(parts[2]) and _INTEGER.fullmatch(parts[3])):
        return None
    x, y = float(parts[1]), float(parts[2])
    return (x, y, int(parts[3])) if abs(x) < 3.4e38 and abs(y) < 3.4e38 else None


class OsrReader(SourceReader):
    """Reads one replay. `position` is one that a block gave."""

    def __init__(
        self, feed: Feed, header: Header, path: str, schema: pa.Schema, start_ns: int, match: str, context: Context,
        position: Position | None,
    ) -> None:  # fmt: skip
        self._feed, self._header, self._path, self._context = feed, header, path, context
        self._columns = ColumnLayout(schema)
        self._start_ns, self._match = start_ns, pa.array([match], pa.utf8())
        where = position or {"offset": 0, "seq": 0, "time_ms": 0}
        self._offset, self._seq, self._time = int(where["offset"]), int(where["seq"]), int(where["time_ms"])
        self._done = bool(where.get("done"))
        self._index = 0
        self._problems: list[BadRecord] = []

    def blocks(self) -> Iterator[Block]:
        if self._done:
            return
        mania = self._header.mode == "mania"
        carry, skipping = b"", 0
        skip = self._offset
        for text in self._unpacked():
            if skip:
                skip, text = max(0, skip - len(text)), text[skip:]
            text = carry + text
            if skipping:
                cut = text.find(b",")
                skipping += len(text) if cut < 0 else cut + 1
                self._offset += len(text) if cut < 0 else cut + 1
                carry, text = b"", b"" if cut < 0 else text[cut + 1 :]
                if cut < 0:
                    continue
                skipping = 0
            cut = text.rfind(b",") + 1
            carry = text[cut:]
            if cut:
                yield self._frames(text[:cut], mania)
            if len(carry) > MOST_FRAME:
                yield self._long(carry)
                skipping, carry = 1, b""
        if carry:
            yield self._frames(carry, mania)
        yield self._end()

    def frame_at(self, offset: int) -> int | None:
        """The number of the frame that begins at `offset` of the unpacked text; None if none does."""
        number, left, last = 0, offset, b","
        for text in self._unpacked():
            number += text[:left].count(b",")
            last = text[left - 1 : left] if 0 < left <= len(text) else last
            left -= len(text)
            if left <= 0:
                return number if last == b"," else None
        return None

    def _frames(self, text: bytes, mania: bool) -> Block:
        piece = Piece(text, self._offset, self._time, self._seq)
        frames = parse_frames(piece, mania=mania)
        first, count = self._seq, text.removesuffix(b",").count(b",") + 1
        self._offset += len(text)
        self._seq += count
        self._time = frames.end_ms
        return self._block(first, count, len(text), frames)

    def _long(self, text: bytes) -> Block:
        place = f"{self._path}, byte {self._offset} of its frames"
        error = f"a frame of more than {MOST_FRAME} bytes; it is skipped up to the next comma"
        bad = BadRecord(place, "osu.frame", error, text[:_KEPT], self._seq)
        self._offset += len(text)
        self._seq += 1
        return self._block(self._seq - 1, 1, len(text), [bad])

    def _end(self) -> Block:
        block = self._block(self._seq, 0, 0, self._problems)
        return Block(block.index, block.first_seq, 0, 0, {**block.after, "done": True}, block.payload)

    def _block(self, first: int, records: int, nbytes: int, payload: object) -> Block:
        after = {"offset": self._offset, "seq": self._seq, "time_ms": self._time}
        self._index += 1
        return Block(self._index - 1, first, records, nbytes, after, payload)

    def _unpacked(self) -> Iterator[bytes]:
        """The text of the frames, at most `TEXT` at a time; what is wrong on the way goes to `_problems`."""
        self._feed.seek(self._header.start)
        left = max(0, self._header.length)
        if self._header.length < 0:
            self._trouble(self._header.start - 4, "osu.header", f"{self._header.length} bytes of frames", b"")
        unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=_MOST_MEMORY)
        raw, at, broken = b"", self._header.start, not left
        view = memoryview(bytearray(_READ))
        ended = False
        while not broken and not unpacker.eof:
            if unpacker.needs_input and not ended:
                count = self._feed.fill(view[: min(_READ, left)])
                ended = count < min(_READ, left) or count == left
                left, raw, at = left - count, bytes(view[:count]), at + count
            elif unpacker.needs_input:
                self._trouble(at, "osu.unpack", f"the frames end early, {left} packed bytes are missing", b"")
                break
            try:
                text = unpacker.decompress(raw, TEXT)
            except (lzma.LZMAError, EOFError, MemoryError) as error:
                self._trouble(at - len(raw), "osu.unpack", f"the packed frames are damaged: {error}", raw)
                broken = True
                break
            raw = b""
            if text:
                yield text
        self._rest(unpacker.unused_data if unpacker.eof else b"", at, left)

    def _rest(self, unused: bytes, at: int, left: int) -> None:
        """Account for packed bytes behind the frames, and for what follows them in the file."""
        kept, skipped = unused[:_KEPT], len(unused)
        behind, total = b"", 0
        view = memoryview(bytearray(_READ))
        while count := self._feed.fill(view):
            inside = min(count, left)
            left -= inside
            skipped += inside
            kept += bytes(view[: min(inside, _KEPT - len(kept))])
            total += count - inside
            behind += bytes(view[inside : min(count, inside + max(0, (1 << 20) - len(behind)))])
            at += count
        if skipped:
            self._trouble(at - total - skipped, "osu.unpack", f"{skipped} packed bytes are not read", kept)
        problem = None if total > 1 << 20 else trailing_problem(self._header, behind)
        if total > 1 << 20:
            problem = f"{total} bytes follow the frames; a score id has 8"
        if problem is not None:
            self._trouble(at - total, "osu.container", problem, behind[:_KEPT])
        if self._feed.error is not None:
            self._trouble(at, "osu.read", self._feed.error, b"")

    def _trouble(self, at: int, operation: str, error: str, data: bytes) -> None:
        self._problems.append(BadRecord(f"{self._path}, offset {at}", operation, error, data))

    def decode(self, block: Block) -> Decoded:
        frames = block.payload
        if not isinstance(frames, Frames):
            return Decoded((), tuple(frames))
        bad = [
            BadRecord(f"{self._path}, byte {at} of its frames", "osu.frame", why, text, block.first_seq + number)
            for number, at, text, why in frames.bad
        ]
        batches = [self._batch(frames, block.first_seq, self._context.pool)] if len(frames.numbers) else []
        dropped = {"seed frame": frames.seeds, "filler frame at the start": frames.fillers}
        return Decoded(batches, bad, {reason: count for reason, count in dropped.items() if count})

    def _batch(self, frames: Frames, first: int, pool: BufferPool) -> pa.RecordBatch:
        count = len(frames.numbers)
        columns: Any = self._columns.take(pool, count)
        columns["ts_event"][:] = self._start_ns + frames.times * 1_000_000
        columns["ts_recv"][:] = columns["ts_event"]
        columns["seq"][:] = frames.numbers.astype(np.uint64) + np.uint64(first)
        columns["match_id"][:] = 0
        columns["x"][:], columns["y"][:] = frames.x, frames.y
        columns["keys"][:] = frames.keys
        absent = np.zeros(count, np.bool_)
        valid = {"x": absent, "y": absent} if self._header.mode == "mania" else {}
        batch: pa.RecordBatch = columns.batch(count, dictionaries={"match_id": self._match}, valid=valid)
        return batch

    def close(self) -> None:
        self._feed.close()
