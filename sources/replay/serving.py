"""Serving a recording at its own pace.

report = replay("game.ndjson.gz", "ws://127.0.0.1:9000", speed=4)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from ...pipeline.clock import Clock, RealClock
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError
from ...pipeline.source import SourceSpec
from ..storage.stored import PathLike
from .ahead import read_ahead, several
from .message import Message, Playable
from .outlet import Outlet, outlet_to
from .schedule import Schedule
from .steady import steady

__all__ = ["ReplayReport", "replay", "serve"]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay sent, and how well it kept its pace. Times in seconds; `pacing` in us, against the due times.

    `skipped` counts, by reason, what could not be sent: records that could not be read, datagrams that nobody took.
    """

    messages: int
    bytes: int
    elapsed_s: float
    recorded_s: float
    speed: float
    pacing: dict[str, float]
    stopped: bool
    skipped: dict[str, int] = field(default_factory=dict)

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
        lost = "".join(f"; {count:,} {reason}" for reason, count in sorted(self.skipped.items()))
        return f"{end} {self.messages:,} messages, {self.bytes:,} bytes in {self.elapsed_s:.1f} s, {pace}{kept}{lost}"


def replay(
    path: PathLike | Sequence[PathLike] | SourceSpec,
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
    told: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> ReplayReport:
    """Send the messages of the recording `path` to `to` at `speed` times the recorded pace (0: as fast as they go).

    `path` is a file, a folder, a URL, one with wildcards, or several: those are one recording in time order. What has
    messages of its own (packets, topics, lines, records) is sent as it came; any other format goes out as a JSON line a
    row, and so does a source that is given in place of a path.

    ``tcp://`` and ``ws://`` are served: the replay begins when `receivers` have connected and waits while there are none.
    ``udp://`` and ``http://`` are sent to. `start` and `end` cut the recording, counted from its first message; `loop` is
    how often it is sent (0: until stopped), each time with its recorded times; gaps longer than `max_gap` are cut to it.
    With `stamped` each message tells when it was recorded (see `live.stamp`). `opened` hears the address, `told` what is
    sent where that is not plain and when the last receiver has left, `progress` messages and recorded ns so far; `options`
    go to the format (such as `time=` for JSON lines, `topic=` for recordings of topics, `format=` where the content does not
    tell it). Raises ValueError for a wrong number, FormatError for a file that cannot be replayed, OSError.
    """
    from .formats import playable_of

    if loop < 0 or receivers < 0:
        raise ValueError(f"{loop=} and {receivers=} must be 0 or above (loop 0: until stopped)")
    recording = playable_of(path, **options)
    clock = clock if clock is not None else RealClock()
    stop = stop if stop is not None else threading.Event()
    if recording.datagrams is not None:
        packed, inner = recording.datagrams, recording.messages
        recording = replace(recording, messages=lambda: packed(inner()), datagrams=None)
    if told is not None and recording.note:
        told(recording.note)
    span = (None if start is None else nanoseconds(start), None if end is None else nanoseconds(end))
    schedule = Schedule(clock, stop, speed=speed, max_gap_ns=None if max_gap is None else nanoseconds(max_gap))
    outlet = outlet_to(to, recording, clock, stop, stamped=stamped)
    outlet.told = told
    try:
        if opened is not None:
            opened(outlet.address)
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
    paced = bool(speed) and isinstance(clock, RealClock)
    began = clock.monotonic_ns()
    messages = size = recorded = rounds = 0
    with steady(paced):
        while (not loop or rounds < loop) and not stop.is_set():
            first = last = None
            chosen = _between(recording.messages(), *span)
            with closing(read_ahead(chosen, stop) if paced else several(chosen)) as lists:
                for sent in _sent(lists, outlet, schedule, stop):
                    messages += len(sent)
                    size += sum(len(message.data) for message in sent)
                    first = sent[0].ts_ns if first is None else first
                    latest = max(message.ts_ns for message in sent)
                    last = latest if last is None else max(last, latest)
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
    skipped = {reason: count for reason, count in {**recording.skipped, **outlet.lost}.items() if count}
    pacing = schedule.pacing.report()
    return ReplayReport(messages, size, elapsed, recorded / 1e9, speed, pacing, stop.is_set(), skipped)


def _sent(
    lists: Iterator[list[Message]], outlet: Outlet, schedule: Schedule, stop: threading.Event
) -> Iterator[list[Message]]:
    """Send what `lists` hold, each when it is due, what is due by then with it; yields what was sent together."""
    for held in lists:
        dues = schedule.dues([message.ts_ns for message in held])
        at = 0
        while at < len(held):
            if schedule.wait(dues[at]):
                return
            count = schedule.count_due(dues, at) if outlet.together else 1
            together = held[at : at + count]
            outlet.send_all(together)
            if stop.is_set():
                return
            schedule.left(dues[at : at + count])
            yield together
            at += count


def _between(messages: Iterator[Message], start: int | None, end: int | None) -> Iterator[Message]:
    origin: int | None = None
    for message in messages:
        origin = message.ts_ns if origin is None else origin
        offset = message.ts_ns - origin
        if end is not None and offset >= end:
            return
        if start is None or offset >= start:
            yield message
