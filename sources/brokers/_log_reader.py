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

    def taken(self) -> None:
        """All that `poll` has given is in a block that was taken."""

    def close(self) -> None:
        """Let go of the broker."""


class LogReader(MessageReader):
    """Reads `log` to its end; see `MessageReader` for when it ends before."""

    def __init__(self, log: Log, session: GapSession, context: Context, **options: Any) -> None:
        super().__init__(session, context, **options)
        self._log = log

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
            while self._room and not stop.is_set() and not self._session.ended:
                polled = self._log.poll(self._room, BLOCK_BYTES)
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
