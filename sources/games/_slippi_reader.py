"""An open Slippi file: its events up to the end of the raw element, then the metadata, with every byte accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from ..storage.stored import PathLike, location, open_stored
from ..storage.unpack import head_of, open_feed
from ._slippi_columns import Rows, decode_resolved
from ._slippi_format import (
    HEAD,
    TABLES,
    Container,
    Opening,
    game_schema,
    parse_container,
    parse_metadata,
    parse_opening,
    start_ns,
)
from ._slippi_frames import FrameResolver, Resolved

__all__ = ["READ", "Replay", "SlippiReader", "examine", "reread_event"]

#: Bytes read at a time, and bytes of metadata at most.
READ, _MOST_METADATA = 1 << 20, 1 << 20
_KEPT = 1 << 16
_MARK = b"U\x08metadata{"


@dataclass(frozen=True, slots=True)
class Replay:
    """What a file says of itself: where the events are, how they begin, its metadata (None: none that can be read)."""

    path: str
    compression: str
    container: Container
    opening: Opening
    metadata: dict[str, Any] | None
    problem: str

    @property
    def start_ns(self) -> int | None:
        """``startAt``, None if the file has none."""
        return start_ns((self.metadata or {}).get("startAt"))


def examine(path: PathLike) -> Replay:
    """Head and metadata of a file, without its events. Raises FormatError if it is empty or no Slippi replay; OSError."""
    place = location(path)
    head, compression = head_of(place, HEAD)
    if not head:
        packed = "" if compression == "none" else f" {compression} stream"
        raise FormatError(f"{place} is an empty{packed or ' file'}: no Slippi replay to read")
    container = parse_container(head, place)
    opening = parse_opening(head, container, place)
    if opening is None:
        raise FormatError(f"{place}: the table of event sizes is not complete")
    if container.length is None and container.start and compression == "none":
        container = Container(container.start, _length_by_mark(place, container.start))
    metadata, problem = (
        None,
        "the file is still being written, or its writer did not end it: the raw element has no length",
    )
    if container.length is not None:
        feed = open_feed(place)
        try:
            feed.seek(container.start + container.length)
            metadata, _, problem = parse_metadata(_rest(feed))
        finally:
            feed.close()
    elif not container.start:
        problem = ""
    return Replay(place, compression, container, opening, metadata, problem)


def _length_by_mark(path: str, start: int) -> int | None:
    """The events' length where the raw element says 0 although metadata follows it."""
    with open_stored(path) as stored:
        tail = stored.read(max(start, stored.size - _KEPT), _KEPT)
        found = tail.rfind(_MARK)
        return stored.size - len(tail) + found - start if found >= 0 else None


def _rest(feed: Feed) -> bytes:
    view = memoryview(bytearray(_MOST_METADATA))
    return bytes(view[: feed.fill(view)])


class SlippiReader(SourceReader):
    """Reads one replay. `position` is one that a block gave."""

    def __init__(
        self,
        replay: Replay,
        table: str,
        match: str,
        start: int,
        source: str,
        context: Context,
        position: Position | None,
    ) -> None:
        self._replay, self._context = replay, context
        code = TABLES[table]
        sizes, begin = replay.opening.sizes, replay.opening.end
        self._resolver = FrameResolver(sizes, code, offset=begin, position=position, pool=context.pool)
        self._done = bool(position and position.get("done"))
        names = pa.array([match], pa.utf8())
        self._rows = Rows(
            table, ColumnLayout(game_schema(table, source)), int(sizes[code]) + 1, start, names, replay.path
        )
        self._feed = open_feed(replay.path)
        self._index = 0

    def blocks(self) -> Iterator[Block]:
        if self._done:
            return
        container, resolver = self._replay.container, self._resolver
        self._feed.seek(resolver.offset)
        end = None if container.length is None else container.start + container.length
        lease = self._context.pool.take(READ)
        buffer: Any = lease.array(np.uint8, READ)
        read, final, cut = resolver.offset, False, False
        while not final:
            size = READ if end is None else max(0, min(READ, end - read))
            count = self._feed.fill(memoryview(buffer)[:size])
            read += count
            final = count < size or read == end
            for resolved in resolver.feed(buffer[:count], final=final):
                cut = cut or any(event.cut for event in resolved.bad)
                yield self._block(
                    resolved, resolved.records, resolved.rows.nbytes, dict(resolved.after), resolved.first_seq
                )
        problems = [] if self._feed.error is None else [("slippi.unpack", read, self._feed.error, b"")]
        if end is not None and read < end and not problems and not cut:
            lacking = f"the raw element says {container.length} bytes, the file ends {end - read} before that"
            problems.append(("slippi.container", read, lacking, b""))
        if end is not None and read == end:
            problems += self._behind(end)
        after = {**resolver.save(), "done": True}
        bad = [BadRecord(f"{self._replay.path}, offset {at}", what, why, data) for what, at, why, data in problems]
        yield self._block(bad, 0, 0, after, int(after["seq"]))

    def _behind(self, end: int) -> list[tuple[str, int, str, bytes]]:
        """What is wrong with the bytes behind the raw element."""
        data = _rest(self._feed)
        if not self._replay.container.start:
            return []
        _, used, problem = parse_metadata(data)
        found = [("slippi.metadata", end + used, problem, data[used : used + _KEPT])] if problem else []
        if not problem and used < len(data):
            extra = f"{len(data) - used} bytes or more follow the end of the replay"
            found.append(("slippi.container", end + used, extra, data[used : used + _KEPT]))
        if self._feed.error is not None:
            found.append(("slippi.unpack", end + len(data), self._feed.error, b""))
        return found

    def _block(self, payload: object, records: int, nbytes: int, after: Position, first: int) -> Block:
        self._index += 1
        return Block(self._index - 1, first, records, nbytes, after, payload)

    def decode(self, block: Block) -> Decoded:
        if not isinstance(block.payload, Resolved):
            return Decoded((), block.payload)
        self._context.note("missing frames", block.payload.missing)
        return decode_resolved(block.payload, self._rows, self._context.pool)

    def close(self) -> None:
        self._feed.close()


def reread_event(path: PathLike, table: str, at: int, reader: SourceReader, record: BadRecord) -> Decoded | None:
    """The row that the event at byte `at` belongs to, as `reader` (which is closed) gives it, numbered as `record`.

    What is wrong with that event, if it is still damaged; None if it is no event of `table`.
    """
    feed = open_feed(location(path))
    try:
        feed.seek(at)
        head = bytearray(7)
        whole = feed.fill(memoryview(head)) == len(head)
    finally:
        feed.close()
    rows: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    with closing(reader):
        for block in reader.blocks():
            decoded = reader.decode(block)
            bad += [found for found in decoded.bad if found.place == record.place]
            rows += decoded.batches
    if bad:
        return Decoded((), bad)
    if not whole or head[0] != TABLES[table]:
        return None
    frame, player, follower = int.from_bytes(head[1:5], "big", signed=True), head[5], bool(head[6])
    wanted = (pc.field("frame") == frame) & (pc.field("player") == player) & (pc.field("follower") == follower)
    found = pa.Table.from_batches(rows).filter(wanted) if rows else None
    if not found:
        return None
    (batch,) = found.combine_chunks().to_batches()
    numbers = pa.array([record.seq or 0] * batch.num_rows, pa.uint64())
    return Decoded([batch.set_column(2, batch.schema.field("seq"), numbers)])
