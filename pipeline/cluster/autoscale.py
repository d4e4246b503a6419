"""How many processes a stateless stage should have: decided from what was observed, without a clock and without Ray.

A stage is the bottleneck when its processes are occupied, the queue in front of it does not shrink, and what comes behind
it takes what it gives. More processes are then a trial: newcomers get time to start, and if calls are not done faster by a
fair part of what was hoped for, they go again and are not asked for until some time has passed. A stage whose processes
would not be too busy with fewer of them gives some up, but only after a longer while, and only so many that it would not
want them back at once: the share at which it grows and the share it shrinks to lie apart.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Decision", "Load", "Observation", "Rules", "Scaler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A stage at `time_ns`; `calls_done` and `busy_ns` (occupied processes, times ns) count from the stage's start.

    `queue_items` and `queue_bytes` wait in front of it; `downstream_full` says that what it gives is not taken.
    """

    time_ns: int
    workers: int
    queue_items: int
    queue_bytes: int
    calls_done: int
    busy_ns: int
    downstream_full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When to change. Shares are between 0 and 1, `*_after`, `ramp` and `judge` are observations.

    More after `up_after` in a row with processes `up_busy` occupied; fewer after `down_after` in a row that so many
    fewer would have met at `down_busy`. After a change `ramp` observations are passed over and `judge` looked at. A trial
    has to bring `worth` of the growth in calls a second that the growth in processes promises; if not, `hold_s` seconds
    pass until the next, twice as many each time. Newcomers have `join_s` seconds to come.
    """

    up_busy: float = 0.85
    down_busy: float = 0.65
    up_after: int = 3
    down_after: int = 15
    ramp: int = 2
    judge: int = 3
    worth: float = 0.3
    hold_s: float = 60.0
    join_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.down_busy < self.up_busy <= 1:
            raise ValueError(f"need 0 < down_busy < up_busy <= 1, got {self.down_busy} and {self.up_busy}")
        if min(self.up_after, self.down_after, self.judge) < 1 or self.ramp < 0:
            raise ValueError("up_after, down_after and judge must be at least 1, ramp at least 0")
        if not 0 < self.worth <= 1 or min(self.hold_s, self.join_s) < 0:
            raise ValueError("worth must be above 0 and at most 1, hold_s and join_s at least 0")


@dataclass(frozen=True, slots=True)
class Decision:
    """From `before` to `after` processes, and the evidence as a sentence."""

    time_ns: int
    before: int
    after: int
    why: str


@dataclass(frozen=True, slots=True)
class Load:
    """What happened between two observations: calls a second, the occupied share of the processes, and the end's queue."""

    workers: int
    rate: float
    busy: float
    queue: int
    downstream_full: bool

    @classmethod
    def between(cls, first: Observation, second: Observation) -> Load:
        """`second` must be later than `first`."""
        elapsed = second.time_ns - first.time_ns
        busy = (second.busy_ns - first.busy_ns) / (elapsed * max(1, second.workers))
        rate = (second.calls_done - first.calls_done) / (elapsed / 1e9)
        return cls(second.workers, rate, min(1.0, busy), second.queue_items, second.downstream_full)


@dataclass(frozen=True, slots=True)
class _Trial:
    before: int
    rate: float
    queue: int


class Scaler:
    """Between `low` and `high` processes; `decide` is given an observation about once a second.

    A decision counts as carried out when an observation shows so many workers. Until then nothing is decided.
    """

    def __init__(self, low: int, high: int, rules: Rules | None = None) -> None:
        if not 1 <= low <= high:
            raise ValueError(f"need 1 <= low <= high, got {low} and {high}")
        self.low, self.high, self.rules = low, high, rules or Rules()
        self._longest = max(self.rules.up_after, self.rules.down_after, self.rules.judge)
        self._held_until_ns, self._held_above, self._hold_s = 0, high, self.rules.hold_s
        self.begin(low)

    def begin(self, workers: int) -> None:
        """The stage begins (again) with `workers`; what was learnt from trials stays."""
        self._wanted = workers
        self._decided_ns = 0
        self._last: Observation | None = None
        self._trial: _Trial | None = None
        self._pass_over = 0
        self._recent: deque[Load] = deque(maxlen=self._longest)

    def decide(self, seen: Observation) -> Decision | None:
        """What to change, if anything."""
        last, self._last = self._last, seen
        if last is None or seen.time_ns <= last.time_ns:
            return None
        if seen.workers != self._wanted:
            return self._await(seen)
        if last.workers != seen.workers or self._pass_over:
            self._pass_over = max(0, self._pass_over - 1)
            return None
        self._recent.append(Load.between(last, seen))
        if self._trial is not None:
            return self._judge(seen.time_ns, self._trial)
        return self._grow(seen.time_ns) or self._shrink(seen.time_ns)

    def _await(self, seen: Observation) -> Decision | None:
        """Newcomers are awaited, but not for ever."""
        waited = (seen.time_ns - self._decided_ns) / 1e9
        if waited <= self.rules.join_s:
            return None
        missing, wanted = self._wanted - seen.workers, self._wanted
        self._hold(seen.time_ns, seen.workers)
        why = f"{missing} of {wanted} processes were not there after {waited:.0f} s: the cluster has no room for them"
        return self._change(seen.time_ns, seen.workers, why)

    def _grow(self, now: int) -> Decision | None:
        rules, workers = self.rules, self._wanted
        loads = self._latest(rules.up_after)
        limit = self._held_above if now < self._held_until_ns else self.high
        if loads is None or workers >= min(limit, self.high):
            return None
        if any(load.busy < rules.up_busy or load.downstream_full or not load.queue for load in loads):
            return None
        first, end = loads[0].queue, loads[-1].queue
        if end < first - max(2, first // 20):
            return None  # the queue is being worked off
        after = min(workers + max(1, workers // 2), limit, self.high)
        rate = _mean([load.rate for load in loads])
        self._trial = _Trial(workers, rate, end)
        busy = _mean([load.busy for load in loads])
        return self._change(
            now, after, f"{end} items wait (before: {first}) and {workers} processes are {busy:.0%} occupied, "
            f"{rate:.1f} calls/s"
        )  # fmt: skip

    def _judge(self, now: int, trial: _Trial) -> Decision | None:
        """Whether the newcomers were worth it."""
        loads = self._latest(self.rules.judge)
        if loads is None:
            return None
        self._trial = None
        rate, busy = _mean([load.rate for load in loads]), _mean([load.busy for load in loads])
        hoped, queue = self._wanted / trial.before - 1, loads[-1].queue
        relieved = busy < self.rules.up_busy and queue <= max(2 * self._wanted, trial.queue // 2)
        if relieved or rate >= trial.rate * (1 + self.rules.worth * hoped):
            self._hold_s = self.rules.hold_s
            return None
        self._hold(now, trial.before)
        behind = "; what comes behind is full" if any(load.downstream_full for load in loads) else ""
        return self._change(
            now, trial.before, f"{rate:.1f} calls/s with {self._wanted} processes, {trial.rate:.1f} with {trial.before}, "
            f"and {queue} items still wait: more did not help{behind}"
        )  # fmt: skip

    def _shrink(self, now: int) -> Decision | None:
        workers = self._wanted
        loads = self._latest(self.rules.down_after)
        if loads is None or workers <= self.low:
            return None
        busiest = max(load.busy for load in loads)
        enough = max(self.low, math.ceil(round(busiest * workers / self.rules.down_busy, 6)), workers - workers // 2)
        enough = max(enough, 1)
        if enough >= workers:
            return None
        cause = "what comes behind is full" if loads[-1].downstream_full else f"{loads[-1].queue} items wait"
        return self._change(
            now, enough, f"{workers} processes were at most {busiest:.0%} occupied in {len(loads)} observations, {cause}"
        )  # fmt: skip

    def _latest(self, count: int) -> Sequence[Load] | None:
        return list(self._recent)[-count:] if len(self._recent) >= count else None

    def _hold(self, now: int, above: int) -> None:
        self._held_above, self._held_until_ns = above, now + int(self._hold_s * 1e9)
        self._hold_s = min(2 * self._hold_s, 16 * self.rules.hold_s)

    def _change(self, now: int, after: int, why: str) -> Decision:
        decision = Decision(now, self._wanted, after, why)
        self._wanted, self._decided_ns, self._pass_over = after, now, self.rules.ramp
        self._recent.clear()
        if after <= decision.before:
            self._trial = None
        return decision


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
