"""What readers of messages have in common: a session that keeps order, numbers, limits, a tape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Decoded, Position, SourceReader
from .arrival import Arrival
from .session import Framed, Session

__all__ = ["BLOCK_BYTES", "MessageReader", "Tape"]

#: Messages and bytes of one block at most; under light load a block holds what came since the last one.
_MESSAGES = 1 << 14
BLOCK_BYTES = 4 << 20
#: How often what was recorded goes to the file: so much is lost at most if the process is killed.
_FLUSH_NS = 1_000_000_000


class Tape(Protocol):
    """Where arrivals are recorded."""

    def write(self, arrivals: Sequence[Arrival]) -> None:
        """Keep them, in order."""

    def flush(self) -> None:
        """Give the system what is kept so far."""

    def close(self) -> None:
        """Finish the recording."""


class MessageReader(SourceReader):
    """Ends after `most` messages, counted over all runs, or `duration_ns` of this one, besides when the feed does."""

    def __init__(
        self,
        session: Session,
        context: Context,
        *,
        place: str,
        position: Position | None = None,
        most: int | None = None,
        duration_ns: int | None = None,
        tape: Callable[[], Tape] | None = None,
    ) -> None:
        self._session, self._context, self._place = session, context, place
        self._seq = int(position["seq"]) if position is not None else 0
        self._taken = int(position["taken"]) if position is not None else 0
        self._most, self._duration, self._make_tape = most, duration_ns, tape
        self._tape: Tape | None = None
        self._ends: int | None = None
        self._latest = self._flushed = 0
        self._index = 0
        self._finishing = False

    def finish(self) -> bool:
        """Take nothing more in; see `SourceReader.finish`."""
        self._finishing = True
        return True

    def _begin(self) -> None:
        """The run has begun: `duration_ns` counts from now on."""
        self._latest = self._flushed = self._context.clock.monotonic_ns()
        self._ends = None if self._duration is None else self._latest + self._duration
        self._tape = self._make_tape() if self._make_tape is not None else None

    def _end(self) -> None:
        if self._tape is not None:
            self._tape.close()

    @property
    def _late(self) -> bool:
        """Whether the run has taken its time."""
        return self._ends is not None and self._context.clock.monotonic_ns() >= self._ends

    @property
    def _room(self) -> int:
        """How many messages the next block may have; 0: there have been enough."""
        return _MESSAGES if self._most is None else max(0, min(self._most - self._taken, _MESSAGES))

    def _framed(self, arrivals: Sequence[Arrival]) -> Framed | None:
        """What the session makes of them, or of there having been none."""
        now = self._context.clock.monotonic_ns()
        if self._tape is not None:
            self._tape.write(arrivals)
            if now - self._flushed >= _FLUSH_NS:
                self._tape.flush()
                self._flushed = now
        if not arrivals:
            return self._session.idle(now - self._latest, self._seq)
        self._latest = now
        self._taken += sum(not arrival.event for arrival in arrivals)
        return self._session.take(arrivals, self._seq)

    def _where(self) -> Mapping[str, Any]:
        """What a position has besides the numbers and the session."""
        return {}

    def _made(
        self, framed: Framed | None, noticed: Sequence[BadRecord] = (), dropped: Mapping[str, int] | None = None
    ) -> Block:
        """The next block; `noticed` and `dropped` add to what the session says."""
        told, left = list(noticed), dict(dropped or {})
        payload, records, nbytes = None, 0, 0
        if framed is not None:
            payload, records, nbytes = framed.payload, framed.records, framed.nbytes
            told += framed.noticed
            _add(left, framed.dropped)
        first, self._seq = self._seq, self._seq + records
        after = {"seq": self._seq, "taken": self._taken, **self._where(), "session": dict(self._session.position())}
        self._index += 1
        return Block(self._index - 1, first, records, nbytes, after, (framed is not None, payload, told, left))

    def decode(self, block: Block) -> Decoded:
        """Decode one block; see `SourceReader.decode`."""
        came, payload, told, left = block.payload
        if not came:
            return Decoded((), told, left)
        decoded = self._session.decode(payload, block.first_seq)
        dropped: dict[str, int] = dict(decoded.dropped)
        _add(dropped, left)
        return Decoded(decoded.batches, [*told, *decoded.bad], dropped)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, count in more.items():
        total[reason] = total.get(reason, 0) + count
