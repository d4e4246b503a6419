"""The reader of a live feed: threads that receive, a session that keeps order, blocks as soon as something has come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Decoded, Position, SourceReader
from .arrival import Arrival
from .inlet import Inlet
from .session import Framed, Session

__all__ = ["Line", "LiveReader", "Tape"]

#: Messages and bytes of one block at most; under light load a block holds what came since the last one.
_MESSAGES = 1 << 14
_BYTES = 4 << 20
#: How long to wait for a message before looking whether the run is over, s.
_PATIENCE_S = 0.1
_WENT_ON = "lost: gap: the run went on from a checkpoint"


class Line(Protocol):
    """One connection of a feed, with a thread of its own."""

    def run(self, inlet: Inlet, context: Context) -> None:
        """Receive into `inlet` until ``inlet.done`` or the feed ends. Raises OSError where it cannot go on."""


class Tape(Protocol):
    """Where arrivals are recorded."""

    def write(self, arrivals: Sequence[Arrival]) -> None:
        """Keep them, in order."""

    def close(self) -> None:
        """Finish the recording."""


class LiveReader(SourceReader):
    """Receives on `lines`; ends after `most` messages, `duration_ns`, or when the feed does."""

    def __init__(
        self,
        lines: Sequence[Line],
        session: Session,
        context: Context,
        *,
        place: str,
        position: Position | None = None,
        most: int | None = None,
        duration_ns: int | None = None,
        tape: Callable[[], Tape] | None = None,
    ) -> None:
        self._lines, self._session, self._context, self._place = lines, session, context, place
        self._seq = int(position["seq"]) if position is not None else 0
        self._resumed = position is not None
        self._left = most
        self._duration = duration_ns
        self._make_tape = tape
        self._inlet = Inlet(context.stop)
        self._threads: list[threading.Thread] = []
        self._index = 0
        self._overflowed = self._repeated = 0

    def blocks(self) -> Iterator[Block]:
        """Yield what has come as soon as it has; see `SourceReader.blocks`."""
        clock = self._context.clock
        ends = None if self._duration is None else clock.monotonic_ns() + self._duration
        latest = clock.monotonic_ns()
        for line in self._lines:
            self._begin(line.run)
        tape = self._make_tape() if self._make_tape is not None else None
        try:
            if self._resumed:
                yield from self._block(self._session.take(self._missed(clock.now_ns()), self._seq))
            while self._left != 0 and not self._session.ended:
                left = _MESSAGES if self._left is None else min(self._left, _MESSAGES)
                arrivals = self._inlet.take(left, _BYTES, _PATIENCE_S)
                if arrivals is None or (ends is not None and not arrivals and clock.monotonic_ns() >= ends):
                    break
                if arrivals:
                    latest = clock.monotonic_ns()
                    if tape is not None:
                        tape.write(arrivals)
                    if self._left is not None:
                        self._left -= sum(not arrival.event for arrival in arrivals)
                    yield from self._block(self._session.take(arrivals, self._seq))
                else:
                    yield from self._block(self._session.idle(clock.monotonic_ns() - latest, self._seq))
                if ends is not None and clock.monotonic_ns() >= ends:
                    break
            if not self._context.stop.is_set():
                yield from self._block(self._session.finish(self._seq))
        finally:
            self._inlet.close()
            if tape is not None:
                tape.close()

    def _missed(self, now_ns: int) -> list[Arrival]:
        """A feed does not wait: to its session a run that goes on is one whose lines were lost."""
        return [Arrival(now_ns, b"", line, 0, _WENT_ON) for line in range(len(self._lines))]

    def _begin(self, run: Callable[[Inlet, Context], None]) -> None:
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
        if framed is None:
            return
        for request in framed.requests:
            self._begin(request)
        noticed = [*framed.noticed, *self._overflow()]
        dropped = dict(framed.dropped)
        if (again := self._inlet.repeated - self._repeated) > 0:
            self._repeated += again
            _add(dropped, {"came on the old and the new connection": again})
        if not framed.records and not noticed and not dropped:
            return
        first, self._seq = self._seq, self._seq + framed.records
        after = {"seq": self._seq, "session": dict(self._session.position())}
        self._index += 1
        yield Block(self._index - 1, first, framed.records, framed.nbytes, after, (framed.payload, noticed, dropped))

    def _overflow(self) -> list[BadRecord]:
        count, self._overflowed = self._inlet.overflowed - self._overflowed, self._inlet.overflowed
        if not count:
            return []
        error = f"{count} packets came faster than they were taken and are lost; read with more parallelism"
        return [BadRecord(self._place, "live.receive", error, b"")]

    def decode(self, block: Block) -> Decoded:
        """Decode one block; see `SourceReader.decode`."""
        payload, noticed, left = block.payload
        decoded = self._session.decode(payload, block.first_seq)
        dropped: dict[str, int] = dict(decoded.dropped)
        _add(dropped, left)
        return Decoded(decoded.batches, [*noticed, *decoded.bad], dropped)

    def close(self) -> None:
        """Let the threads end."""
        self._inlet.close()
        for thread in self._threads:
            thread.join(2.0)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, count in more.items():
        total[reason] = total.get(reason, 0) + count


def session_position(position: Position | None) -> Mapping[str, Any] | None:
    """The session's part of a reader's position."""
    return None if position is None else position["session"]
