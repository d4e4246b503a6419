"""The tail of a Slippi replay that is being written.

While a game is on, the raw element's length is 0 and events are appended; at the end the length is written and the metadata
behind it. What is not a whole event yet waits for its rest. All waiting goes through the context's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.stored import Stored, base_name, open_stored
from ._slippi_columns import Rows, decode_resolved
from ._slippi_format import (
    FIRST_FRAME,
    FRAME_NS,
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
from ._slippi_kernels import TAIL

__all__ = ["SlippiTailReader"]

_READ = 1 << 20
_MARK = b"U\x08metadata"


class SlippiTailReader(SourceReader):
    """Follows one growing replay."""

    def __init__(
        self,
        path: str,
        *,
        table: str,
        match: str | None,
        start: int | None,
        poll_ns: int,
        patience_ns: int | None,
        clock_recv: bool,
        context: Context,
        position: Position | None,
    ) -> None:
        self._path, self._table, self._match, self._context = path, table, match, context
        self._poll, self._patience, self._clock_recv = poll_ns, patience_ns, clock_recv
        self._position: Position = position or {}
        self._start: int | None = self._position.get("start", start)
        self._file: Stored = open_stored(path)
        self._rows: Rows | None = None
        self._index = 0
        self._grown, self._seen = context.clock.monotonic_ns(), 0

    def blocks(self) -> Iterator[Block]:
        if self._position.get("done"):
            return
        opening = self._opening()
        if opening is None:
            return
        resolver = FrameResolver(
            opening.sizes,
            TABLES[self._table],
            offset=opening.end,
            position=self._position,
            mode=TAIL,
            pool=self._context.pool,
        )
        lease = self._context.pool.take(_READ)
        buffer: Any = lease.array(np.uint8, _READ)
        offset = resolver.offset
        while True:
            data, shrunk = self._read(offset, buffer)
            now = self._context.clock.now_ns()
            mark = self._mark(resolver, offset, data)
            final = shrunk or mark is not None
            if mark is not None:
                data = data[: max(0, mark - offset)]
                if mark < offset:
                    resolver.forget_held()
                    offset = mark
            offset += len(data)
            parts = list(resolver.feed(data, final=final)) if len(data) or final else []
            if self._rows is None and (parts or final):
                self._begin(opening, resolver, now)
            for number, resolved in enumerate(parts, 1):
                yield self._block(resolved, resolver.ended and number == len(parts), now)
            if shrunk:
                error = f"the file has become shorter than {offset} bytes: another game is written over it"
                bad = BadRecord(f"{self._path}, offset {offset}", "slippi.tail", error, b"")
                yield self._note(bad, {**resolver.save(), "start": self._start, "done": True})
            if final or resolver.ended:
                return
            if not len(data) and not self._wait():
                if not self._context.stop.is_set():
                    yield from self._give_up(opening, resolver)
                return

    def _opening(self) -> Opening | None:
        """Table of sizes and start of the game, as soon as they are there; None if the run was stopped before."""
        buffer: Any = np.empty(HEAD, np.uint8)
        while True:
            head = bytes(self._read(0, buffer)[0])
            known = len(head) >= 16 or (head[:1] == b"5" and len(head) > 1)
            if known:
                container = Container(parse_container(head, self._path).start, None)
                opening = parse_opening(head, container, self._path, more=True)
                if opening is not None:
                    return opening
            if not self._wait():
                if not self._context.stop.is_set():
                    raise FormatError(f"{self._path} has not grown to a table of event sizes and a start of the game")
                return None

    def _wait(self) -> bool:
        """Wait for more; False if the run is stopped or patience is at its end."""
        clock = self._context.clock
        if self._patience is not None and clock.monotonic_ns() - self._grown >= self._patience:
            return False
        return not clock.wait_ns(self._poll, self._context.stop)

    def _read(self, offset: int, buffer: Any) -> tuple[Any, bool]:
        """What is there from `offset` on, and whether the file is shorter than that."""
        count = self._file.read_into(offset, memoryview(buffer))
        if offset + count > self._seen:
            self._seen, self._grown = offset + count, self._context.clock.monotonic_ns()
        if count:
            return buffer[:count], False
        return buffer[:0], Path(self._path).stat().st_size < offset

    def _peek(self, offset: int, size: int) -> bytes:
        """Bytes at `offset`, those that came after opening too."""
        view = memoryview(bytearray(size))
        return bytes(view[: self._file.read_into(offset, view)])

    def _mark(self, resolver: FrameResolver, offset: int, data: Any) -> int | None:
        """Where the metadata begins, if what is not taken yet begins with it or holds it behind the last event."""
        waiting = offset - resolver.held
        if self._peek(waiting, len(_MARK) + 1) == _MARK + b"{":
            return waiting
        found = data.tobytes().find(_MARK + b"{") if len(data) else -1
        return offset + found if found >= 0 else None

    def _begin(self, opening: Opening, resolver: FrameResolver, now: int) -> None:
        if self._start is None:
            self._start = self._recorded_start()
        if self._start is None:
            self._start = now - (max(resolver.newest, FIRST_FRAME) - FIRST_FRAME) * FRAME_NS
        match = self._match if self._match is not None else opening.match
        code = TABLES[self._table]
        columns = ColumnLayout(game_schema(self._table, base_name(self._path)))
        names = pa.array([match], pa.utf8())
        self._rows = Rows(self._table, columns, int(opening.sizes[code]) + 1, self._start, names, self._path)

    def _recorded_start(self) -> int | None:
        """``startAt``, if the metadata is there already."""
        head = self._peek(0, 16)
        container = parse_container(head, self._path)
        if container.length is None:
            return None
        metadata, _, _ = parse_metadata(self._peek(container.start + container.length, _READ))
        return start_ns((metadata or {}).get("startAt"))

    def _give_up(self, opening: Opening, resolver: FrameResolver) -> Iterator[Block]:
        """The file has not grown for long: the last frames are final, and what is left of an event is bad."""
        now = self._context.clock.now_ns()
        parts = list(resolver.feed(b"", final=True))
        if self._rows is None:
            self._begin(opening, resolver, now)
        for index, resolved in enumerate(parts):
            yield self._block(resolved, index == len(parts) - 1, now)

    def _block(self, resolved: Resolved, done: bool, now: int) -> Block:
        after = {**resolved.after, "start": self._start, **({"done": True} if done else {})}
        self._index += 1
        payload = (resolved, now if self._clock_recv else None)
        return Block(self._index - 1, resolved.first_seq, resolved.records, resolved.rows.nbytes, after, payload)

    def _note(self, bad: BadRecord, after: Position) -> Block:
        self._index += 1
        return Block(self._index - 1, int(after["seq"]), 0, 0, after, bad)

    def decode(self, block: Block) -> Decoded:
        if isinstance(block.payload, BadRecord):
            return Decoded((), (block.payload,))
        resolved, recv = block.payload
        if self._rows is None:
            raise RuntimeError("a block of another reader")
        self._context.note("missing frames", resolved.missing)
        return decode_resolved(resolved, self._rows, self._context.pool, recv)

    def close(self) -> None:
        self._file.close()
