"""The reader of a broker that keeps its messages: each block says where in the broker's log the next one begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block
from ..live.arrival import Arrival
from ..live.message_reader import BLOCK_BYTES, MessageReader
from ..live.session import Framed
from ._asking import Stopped
from ._gaps import GapSession

__all__ = ["Log", "LogReader", "Polled"]


@dataclass(slots=True)
class Polled:
    """What one poll gave: arrivals in order, what could not be taken, and whether the log's end has been reached."""

    arrivals: list[Arrival] = field(default_factory=list)
    noticed: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    ended: bool = False


class Log(Protocol):
    """Messages that a broker keeps, read from a position."""

    def begin(self) -> None:
        """Connect and find out where to begin. Raises ConnectionError, or Stopped."""

    def poll(self, most: int, most_bytes: int) -> Polled:
        """Up to `most` messages, waiting up to 0.1 s for the first. Raises ConnectionError, or Stopped."""

    def position(self) -> Mapping[str, Any]:
        """Plain values from which a log begins right behind what `poll` has given."""

    def finish(self) -> None:
        """Wait no longer for a broker that is away: `poll` and `begin` raise Stopped then. Sets a flag and no more."""

    def taken(self) -> None:
        """All that `poll` has given is in a block that was taken."""

    def close(self) -> None:
        """Let go of the broker."""


class LogReader(MessageReader):
    """Reads `log` to its end, or as long as it `follows` it; see `MessageReader` for when it ends before."""

    def __init__(self, log: Log, session: GapSession, context: Context, *, follows: bool, **options: Any) -> None:
        super().__init__(session, context, **options)
        self._log, self._follows = log, follows

    def finish(self) -> bool:
        """Take nothing more in; see `SourceReader.finish`. A log that is read to its end ends by itself."""
        if self._follows:
            self._finishing = True
            self._log.finish()
        return self._follows

    def blocks(self) -> Iterator[Block]:
        """Yield what has come as soon as it has; the first block holds nothing but the position of the beginning."""
        try:
            yield from self._blocks()
        except Stopped:
            return

    def _blocks(self) -> Iterator[Block]:
        stop = self._context.stop
        self._log.begin()
        yield self._made(None)
        self._begin()
        try:
            while self._room and not (stop.is_set() or self._finishing or self._session.ended):
                try:
                    polled = self._log.poll(self._room, BLOCK_BYTES)
                except Stopped:
                    break
                yield from self._block(self._framed(polled.arrivals), polled)
                self._log.taken()
                if polled.ended or self._late:
                    break
            if not stop.is_set():
                yield from self._block(self._session.finish(self._seq), Polled())
        finally:
            self._end()

    def _block(self, framed: Framed | None, polled: Polled) -> Iterator[Block]:
        if framed is not None:
            self._context.note("requests of the codec that a broker cannot answer", len(framed.requests))
        told = polled.arrivals or polled.noticed or polled.dropped
        if told or (framed is not None and (framed.records or framed.noticed or framed.dropped)):
            yield self._made(framed, polled.noticed, polled.dropped)

    def _where(self) -> Mapping[str, Any]:
        return {"log": dict(self._log.position())}

    def close(self) -> None:
        """Let go of the broker."""
        self._log.close()
