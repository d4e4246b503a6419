"""The reader of a live feed: threads that receive, a session that keeps order, blocks as soon as something has come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Position
from .arrival import Arrival
from .inlet import Inlet
from .message_reader import BLOCK_BYTES, MessageReader
from .session import Framed, Session

__all__ = ["Line", "LiveReader", "session_position"]

#: How long to wait for a message before looking whether the run is over, s.
_PATIENCE_S = 0.1
_WENT_ON = "lost: gap: the run went on from a checkpoint"


class Line(Protocol):
    """One connection of a feed, with a thread of its own."""

    def run(self, inlet: Inlet, context: Context) -> None:
        """Receive into `inlet` until ``inlet.done`` or the feed ends. Raises OSError where it cannot go on."""


class LiveReader(MessageReader):
    """Receives on `lines`; see `MessageReader` for when it ends."""

    def __init__(self, lines: Sequence[Line], session: Session, context: Context, **options: Any) -> None:
        super().__init__(session, context, **options)
        self._lines = lines
        self._resumed = options.get("position") is not None
        self._inlet = Inlet(context.stop)
        self._threads: list[threading.Thread] = []
        self._overflowed = self._repeated = 0

    def blocks(self) -> Iterator[Block]:
        """Yield what has come as soon as it has; see `SourceReader.blocks`."""
        for line in self._lines:
            self._receive(line.run)
        self._begin()
        try:
            if self._resumed:
                yield from self._block(self._session.take(self._missed(self._context.clock.now_ns()), self._seq))
            while self._room and not self._session.ended:
                if self._finishing:
                    self._inlet.seal()
                arrivals = self._inlet.take(self._room, BLOCK_BYTES, _PATIENCE_S)
                if arrivals is None or (not arrivals and self._late):
                    break
                yield from self._block(self._framed(arrivals))
                if self._late:
                    break
            if not self._context.stop.is_set():
                yield from self._block(self._session.finish(self._seq))
        finally:
            self._inlet.close()
            self._end()

    def _missed(self, now_ns: int) -> list[Arrival]:
        """A feed does not wait: to its session a run that goes on is one whose lines were lost."""
        return [Arrival(now_ns, b"", line, 0, _WENT_ON) for line in range(len(self._lines))]

    def _receive(self, run: Callable[[Inlet, Context], None]) -> None:
        self._inlet.join()

        def receive() -> None:
            failure: BaseException | None = None
            try:
                run(self._inlet, self._context)
            except BaseException as error:
                failure = error
            self._inlet.leave(failure)

        thread = threading.Thread(target=receive, name=f"penstock-{self._context.step}-receive", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _block(self, framed: Framed | None) -> Iterator[Block]:
        for request in framed.requests if framed is not None else ():
            self._receive(request)
        noticed, dropped = self._overflow(), {}
        if (again := self._inlet.repeated - self._repeated) > 0:
            self._repeated += again
            dropped["came on the old and the new connection"] = again
        told = framed is not None and (framed.records or framed.noticed or framed.dropped)
        if told or noticed or dropped:
            yield self._made(framed, noticed, dropped)

    def _overflow(self) -> list[BadRecord]:
        count, self._overflowed = self._inlet.overflowed - self._overflowed, self._inlet.overflowed
        if not count:
            return []
        error = f"{count} packets came faster than they were taken and are lost; read with more parallelism"
        return [BadRecord(self._place, "live.receive", error, b"")]

    def close(self) -> None:
        """Let the threads end."""
        self._inlet.close()
        for thread in self._threads:
            thread.join(2.0)


def session_position(position: Position | None) -> Mapping[str, Any] | None:
    """The session's part of a reader's position."""
    return None if position is None else position["session"]
