"""The checkpoints of a run: when they begin, what belongs to them, when they are complete.

A checkpoint begins by asking every source for a barrier. The sources of a joined pipeline are asked to cut at the same
event time, the newest that any of them has reached, so that no operator has to take in much of one input while it waits
for the barrier on another. Every step hands in its state as the barrier passes; when the last one has, the parts are
stored together. Barriers travel with the data, and what they need is room for one item, never for a batch: a checkpoint
does not wait for a slow consumer to make room.

A step that has ended stands in every later snapshot with its last state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .checkpoints import CheckpointStore, Snapshot
from .clock import Clock
from .operator import NO_TIME, State
from .plan import Plan
from .reading import Reading
from .source import SourceSpec
from .state_codec import decode_state, encode_state

__all__ = ["Asker", "Checkpointing", "ask_readings", "components", "has_ended"]

#: After this long a source that has not reached the common event time is asked to cut where it is.
_PATIENCE_NS = 2_000_000_000

Asker = Callable[[int, Mapping[str, int]], None]


class Checkpointing:
    """Collects snapshots for `store`; a `Saver`. `look` and `store_final` are called by the thread that waits for the run.

    `every_ns` and `every_rows` say how often: whichever comes first; None for never.
    """

    def __init__(
        self,
        store: CheckpointStore,
        plan: Plan,
        clock: Clock,
        *,
        every_ns: int | None,
        every_rows: int | None,
        about: Mapping[str, Any],
        resumed: Snapshot | None = None,
    ) -> None:
        self.store = store
        self._steps = [node.id for node in plan.nodes]
        self.groups = components(plan)
        self._clock, self._every_ns, self._every_rows, self._about = clock, every_ns, every_rows, dict(about)
        self._lock = threading.Lock()
        self._number = resumed.number if resumed is not None else 0
        self._parts: dict[str, bytes] | None = None
        self._ended: dict[str, bytes] = {}
        self._began = self._last = clock.monotonic_ns()
        self._last_rows = 0
        self._asked_twice = False
        self.resumed_from = resumed.number if resumed is not None else None
        self.written = self.bytes = self.spent_ns = self.longest_ns = 0
        #: Called with the encoded parts of each snapshot that was stored.
        self.on_stored: Callable[[Mapping[str, bytes]], None] = lambda parts: None
        #: More that belongs to a snapshot but to no step, asked for when one is complete.
        self.extra: Callable[[], Mapping[str, bytes]] = dict
        #: Called when a checkpoint begins.
        self.on_begin: Callable[[], None] = lambda: None
        self._take_ended(resumed)

    def _take_ended(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            for step in self._steps:
                part = snapshot.part(step)
                if has_ended(decode_state(part)):
                    self._ended[step] = part

    def saved(self, number: int, step: str, state: State) -> None:
        self.saved_bytes(number, step, encode_state(state))

    def finished(self, step: str, state: State) -> None:
        self.finished_bytes(step, encode_state(state))

    def saved_bytes(self, number: int, step: str, part: bytes) -> None:
        """Like `saved`, already encoded."""
        with self._lock:
            if self._parts is not None and number == self._number:
                self._parts[step] = part

    def finished_bytes(self, step: str, part: bytes) -> None:
        """Like `finished`, already encoded."""
        with self._lock:
            self._ended[step] = part

    def look(self, latest: Mapping[str, int], rows: int, ask: Asker) -> bool:
        """Begin a checkpoint if one is due, store it if it is complete; whether one was stored.

        `latest` is the newest event time by source that has not ended, `rows` how many were read by all. ``ask(number,
        times)`` asks the sources for barrier `number`, each as soon as it has reached its time.
        """
        now = self._clock.monotonic_ns()
        if self._parts is None:
            if self._is_due(now, rows) and latest:
                self._last_rows = rows
                self.begin(latest, ask)
            return False
        if self._complete():
            self._store(now)
            return True
        if not self._asked_twice and now - self._began > _PATIENCE_NS:
            self._asked_twice = True
            ask(self._number, dict.fromkeys(latest, NO_TIME))
        return False

    def begin(self, latest: Mapping[str, int], ask: Asker) -> int:
        """Ask for the next barrier; its number."""
        with self._lock:
            self._number += 1
            self._parts = {}
        self.on_begin()
        self._began, self._asked_twice = self._clock.monotonic_ns(), False
        times = {}
        for group in self.groups:
            alive = [step for step in group if step in latest]
            if alive:
                times.update(dict.fromkeys(alive, max(latest[step] for step in alive)))
        ask(self._number, times)
        return self._number

    def rewind(self) -> dict[str, State]:
        """The run goes back: forget what was collected; the states of the last snapshot, none if there is none."""
        snapshot = self.store.latest() if self.can_resume else None
        with self._lock:
            self._parts = None
            self._ended.clear()
        self._take_ended(snapshot)
        self._last = self._clock.monotonic_ns()
        return {} if snapshot is None else {step: decode_state(snapshot.part(step)) for step in self._steps}

    def _is_due(self, now: int, rows: int) -> bool:
        by_time = self._every_ns is not None and now - self._last >= self._every_ns
        return by_time or (self._every_rows is not None and rows - self._last_rows >= self._every_rows)

    def _complete(self) -> bool:
        with self._lock:
            parts = self._parts
            return parts is not None and all(step in parts or step in self._ended for step in self._steps)

    def _store(self, now: int, **about: Any) -> None:
        with self._lock:
            parts = {step: (self._parts or {}).get(step) or self._ended[step] for step in self._steps}
            self._parts = None
        self.store.write(self._number, {**self._about, **about, "completed": False}, {**parts, **self.extra()})
        self._last = self._clock.monotonic_ns()
        self.written += 1
        self.bytes += sum(map(len, parts.values()))
        self.longest_ns = max(self.longest_ns, self._last - self._began)
        self.spent_ns += self._last - now
        self.on_stored(parts)

    def store_final(self) -> None:
        """Everything has ended: store the snapshot from which only the commit is left to do."""
        self._number += 1
        self._began = now = self._clock.monotonic_ns()
        with self._lock:
            self._parts = None
        self._store(now, final=True)

    def mark_completed(self, report: Mapping[str, Any]) -> None:
        """Every sink has committed: nothing is left to resume but the `report`."""
        self._number += 1
        self.store.write(self._number, {**self._about, "completed": True, "report": report}, {})

    @property
    def can_resume(self) -> bool:
        """Whether there is a snapshot from which another run could go on."""
        return self.written > 0 or self.resumed_from is not None

    def report(self) -> dict[str, Any]:
        """For the run report."""
        return {
            "written": self.written,
            "resumed_from": self.resumed_from,
            "bytes": self.bytes,
            "longest_s": round(self.longest_ns / 1e9, 6),
            "storing_s": round(self.spent_ns / 1e9, 6),
        }


def has_ended(state: State) -> bool:
    """Whether the step that saved `state` had ended."""
    ended = state["ended"]
    return all(ended) if isinstance(ended, Sequence) else bool(ended)


def components(plan: Plan) -> list[list[str]]:
    """The sources of a plan, those together that meet in some step."""
    groups: list[set[str]] = []
    for node in plan.nodes:
        if isinstance(node.spec, SourceSpec):
            groups.append({node.id})
    behind: dict[str, set[str]] = {}
    for node in plan.nodes:
        sources = {node.id} if not node.inputs else set().union(*(behind[link.node.id] for link in node.inputs))
        behind[node.id] = sources
        touching = [group for group in groups if group & sources]
        if len(touching) > 1:
            groups = [group for group in groups if group not in touching] + [set().union(*touching)]
    return [sorted(group) for group in groups]


def ask_readings(readings: Iterable[Reading]) -> Asker:
    """How sources in this process are asked."""
    by_step = {reading.node.id: reading for reading in readings}

    def ask(number: int, times: Mapping[str, int]) -> None:
        for step, time in times.items():
            if step in by_step:
                by_step[step].asked = (number, time)

    return ask
