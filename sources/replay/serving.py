"""Serving a recording at its own pace.

report = replay("game.ndjson.gz", "ws://127.0.0.1:9000", speed=4)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...pipeline.clock import Clock, RealClock
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError
from .message import Message, Playable
from .outlet import Outlet, outlet_to
from .schedule import Schedule

__all__ = ["ReplayReport", "replay", "serve"]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay sent, and how well it kept its pace. Times in seconds; `pacing` in us, against the due times."""

    messages: int
    bytes: int
    elapsed_s: float
    recorded_s: float
    speed: float
    pacing: dict[str, float]
    stopped: bool

    def describe(self) -> str:
        """One line for people."""
        kept = ""
        if self.speed:
            kept = (
                f"; late by {self.pacing['p50_us'] / 1e3:.2f} ms (half), {self.pacing['p99_us'] / 1e3:.2f} ms (99 %), "
            )
            kept += f"{self.pacing['max_us'] / 1e3:.2f} ms at most"
        pace = f"{self.recorded_s / self.elapsed_s:.3g} times the recorded pace" if self.elapsed_s else "at once"
        end = "stopped after" if self.stopped else "sent"
        return f"{end} {self.messages:,} messages, {self.bytes:,} bytes in {self.elapsed_s:.1f} s, {pace}{kept}"


def replay(
    path: str,
    to: str,
    *,
    speed: float = 1.0,
    start: Duration | None = None,
    end: Duration | None = None,
    loop: int = 1,
    max_gap: Duration | None = None,
    receivers: int = 1,
    stamped: bool = True,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    opened: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> ReplayReport:
    """Send the messages of the recording `path` to `to` at `speed` times the recorded pace (0: as fast as they go).

    ``tcp://`` and ``ws://`` are served: the replay begins when `receivers` have connected and waits while there are none.
    ``udp://`` and ``http://`` are sent to. `start` and `end` cut the recording, counted from its first message; `loop` is
    how often it is sent (0: until stopped); gaps longer than `max_gap` are cut to it. With `stamped` each message tells when
    it was recorded (see `live.stamp`). `opened` hears the address, `progress` messages and recorded ns so far; `options` go
    to the format (such as `time=` for JSON lines). Raises FormatError for a file that cannot be replayed, OSError.
    """
    from .formats import playable_of

    recording = playable_of(path, **options)
    clock = clock if clock is not None else RealClock()
    stop = stop if stop is not None else threading.Event()
    if recording.datagrams is not None and to.startswith("udp://"):
        packed, inner = recording.datagrams, recording.messages
        recording = Playable(lambda: packed(inner()), recording.text, recording.framing)
    outlet = outlet_to(to, recording, clock, stop, stamped=stamped)
    try:
        if opened is not None:
            opened(outlet.address)
        span = (None if start is None else nanoseconds(start), None if end is None else nanoseconds(end))
        schedule = Schedule(clock, stop, speed=speed, max_gap_ns=None if max_gap is None else nanoseconds(max_gap))
        outlet.ready(receivers)
        return serve(recording, outlet, schedule, clock, stop, span=span, loop=loop, speed=speed, progress=progress)
    finally:
        outlet.close()


def serve(
    recording: Playable,
    outlet: Outlet,
    schedule: Schedule,
    clock: Clock,
    stop: threading.Event,
    *,
    span: tuple[int | None, int | None] = (None, None),
    loop: int = 1,
    speed: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """Send `recording` through `outlet`; see `replay`."""
    began = clock.monotonic_ns()
    messages = size = recorded = rounds = 0
    while (not loop or rounds < loop) and not stop.is_set():
        first = last = None
        for message in _between(recording.messages(), *span):
            due = schedule.due(message.ts_ns)
            if schedule.wait(due):
                break
            outlet.send(message)
            if stop.is_set():
                break
            schedule.left(due)
            messages += 1
            size += len(message.data)
            first = message.ts_ns if first is None else first
            last = message.ts_ns if last is None else max(last, message.ts_ns)
            if progress is not None:
                progress(messages, recorded + last - first)
        if first is None or last is None:
            if not stop.is_set() and not messages:
                raise FormatError("there is no message to replay between start and end")
            break
        recorded += last - first
        rounds += 1
        schedule.again()
    elapsed = (clock.monotonic_ns() - began) / 1e9
    return ReplayReport(messages, size, elapsed, recorded / 1e9, speed, schedule.pacing.report(), stop.is_set())


def _between(messages: Iterator[Message], start: int | None, end: int | None) -> Iterator[Message]:
    origin: int | None = None
    for message in messages:
        origin = message.ts_ns if origin is None else origin
        offset = message.ts_ns - origin
        if end is not None and offset >= end:
            return
        if start is None or offset >= start:
            yield message
