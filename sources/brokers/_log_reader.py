"""The reader of a broker that keeps its messages: each block says where in the broker's log the next one begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..live.arrival import Arrival
from ..live.reader import Tape
from ..live.session import Framed
from ._asking import Stopped
from ._gaps import GapSession

__all__ = ["Log", "LogReader", "Polled"]

#: Messages and bytes of one block at most.
_MESSAGES = 1 << 14
_BYTES = 4 << 20


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


class LogReader(SourceReader):
    """Reads `log`; ends with it, after `most` messages (counted over all runs), or `duration_ns`."""

    def __init__(
        self,
        log: Log,
        session: GapSession,
        context: Context,
        *,
        place: str,
        position: Position | None = None,
        most: int | None = None,
        duration_ns: int | None = None,
        tape: Callable[[], Tape] | None = None,
    ) -> None:
        self._log, self._session, self._context, self._place = log, session, context, place
        self._seq = int(position["seq"]) if position is not None else 0
        self._taken = int(position["taken"]) if position is not None else 0
        self._most, self._duration, self._make_tape = most, duration_ns, tape
        self._index = 0

    def blocks(self) -> Iterator[Block]:
        """Yield what has come as soon as it has; the first block holds nothing but the position of the beginning."""
        try:
            yield from self._blocks()
        except Stopped:
            return

    def _blocks(self) -> Iterator[Block]:
        clock, stop = self._context.clock, self._context.stop
        ends = None if self._duration is None else clock.monotonic_ns() + self._duration
        self._log.begin()
        yield self._made(None, 0, 0, Polled())
        latest = clock.monotonic_ns()
        tape = self._make_tape() if self._make_tape is not None else None
        try:
            while not stop.is_set() and not self._session.ended:
                left = _MESSAGES if self._most is None else min(self._most - self._taken, _MESSAGES)
                if left <= 0:
                    break
                polled = self._log.poll(left, _BYTES)
                now = clock.monotonic_ns()
                if polled.arrivals:
                    latest = now
                    if tape is not None:
                        tape.write(polled.arrivals)
                    self._taken += sum(not arrival.event for arrival in polled.arrivals)
                    yield from self._block(self._session.take(polled.arrivals, self._seq), polled)
                else:
                    yield from self._block(self._session.idle(now - latest, self._seq), polled)
                self._log.taken()
                if polled.ended or (ends is not None and clock.monotonic_ns() >= ends):
                    break
            if not stop.is_set():
                yield from self._block(self._session.finish(self._seq), Polled())
        finally:
            if tape is not None:
                tape.close()

    def _block(self, framed: Framed | None, polled: Polled) -> Iterator[Block]:
        if framed is None:
            if polled.noticed or polled.dropped:
                yield self._made(None, 0, 0, polled)
            return
        self._context.note("requests of the codec that a broker cannot answer", len(framed.requests))
        polled.noticed += framed.noticed
        _add(polled.dropped, framed.dropped)
        if framed.records or polled.arrivals or polled.noticed or polled.dropped:
            yield self._made(framed.payload, framed.records, framed.nbytes, polled)

    def _made(self, payload: Any, records: int, nbytes: int, polled: Polled) -> Block:
        first, self._seq = self._seq, self._seq + records
        after = {
            "seq": self._seq,
            "taken": self._taken,
            "log": dict(self._log.position()),
            "session": dict(self._session.position()),
        }
        self._index += 1
        left = (payload, polled.noticed, polled.dropped)
        return Block(self._index - 1, first, records, nbytes, after, left)

    def decode(self, block: Block) -> Decoded:
        """Decode one block; see `SourceReader.decode`."""
        payload, noticed, left = block.payload
        if payload is None:
            return Decoded((), noticed, left)
        decoded = self._session.decode(payload, block.first_seq)
        dropped: dict[str, int] = dict(decoded.dropped)
        _add(dropped, left)
        return Decoded(decoded.batches, [*noticed, *decoded.bad], dropped)

    def close(self) -> None:
        """Let go of the broker."""
        self._log.close()


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, count in more.items():
        total[reason] = total.get(reason, 0) + count
