"""The number of processes of a stage follows its queue: on simulated queues, and on a cluster."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.cluster.autoscale import Decision, Load, Observation, Rules, Scaler

TICK_S = 0.02


@dataclass
class Queue:
    """A stage with one queue and deterministic service (M/D/n where arrivals are random), observed once a second."""

    scaler: Scaler
    service_s: float
    arrivals: Callable[[float], float]
    seed: int = 0
    join_s: float = 1.5
    #: Calls a second that all processes together cannot exceed, as where they share a disk.
    ceiling: float = float("inf")
    #: Items a second that what comes behind takes; None: all.
    drain: float | None = None
    room: int = 64
    changes: list[Decision] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> list[Decision]:
        """The decisions; `sizes` has the number of processes at every observation."""
        random = np.random.Generator(np.random.Philox(self.seed))
        left: list[float] = [0.0] * self.scaler.low
        coming: deque[float] = deque()
        wanted = self.scaler.low
        queue, done, busy_ns, given, allowed = 0, 0, 0.0, 0.0, 0.0
        observed = 0.0
        for step in range(int(seconds / TICK_S)):
            now = step * TICK_S
            queue += int(random.poisson(self.arrivals(now) * TICK_S))
            queue = min(queue, self.room)  # the source waits while the queue is full
            while coming and coming[0] <= now:
                coming.popleft()
                left.append(0.0)
            if self.drain is not None:
                given = max(0.0, given - self.drain * TICK_S)
            allowed = min(allowed + self.ceiling * TICK_S, 5.0)
            for place, remaining in enumerate(left):
                if remaining <= 0 and queue and given < 8:
                    queue -= 1
                    remaining = self.service_s
                if remaining > 0:
                    busy_ns += TICK_S * 1e9
                    if remaining > TICK_S:
                        remaining -= TICK_S
                    elif allowed >= 1:
                        remaining, done, allowed = 0.0, done + 1, allowed - 1
                        given += self.drain is not None
                left[place] = remaining
            if now - observed >= 1:
                observed = now
                self.sizes.append(len(left))
                decision = self.scaler.decide(
                    Observation(
                        time_ns=int(now * 1e9),
                        workers=len(left),
                        queue_items=queue,
                        queue_bytes=queue << 20,
                        calls_done=done,
                        busy_ns=int(busy_ns),
                        downstream_full=self.drain is not None and given >= 8,
                    )
                )
                if decision is not None:
                    assert decision.before == wanted
                    wanted = decision.after
                    self.changes.append(decision)
                    coming.extend([now + self.join_s] * (wanted - len(left) - len(coming)))
                    while len(left) > wanted:
                        left.pop()
        return self.changes


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(0, 9),
    st.floats(0.04, 1.5),
    st.lists(st.floats(0, 60), min_size=1, max_size=4),
    st.integers(0, 5),
    st.floats(0, 3),
)
def test_whatever_arrives_the_size_stays_between_its_limits(
    low: int, more: int, service: float, rates: Sequence[float], seed: int, join: float
) -> None:
    queue = Queue(
        Scaler(low, low + more), service, lambda now: rates[int(now // 20) % len(rates)], seed=seed, join_s=join
    )
    changes = queue.run(80)
    assert all(low <= change.after <= low + more and change.after != change.before for change in changes)
    assert all(low <= size <= low + more for size in queue.sizes)
    assert all(change.why for change in changes)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 0.5), st.floats(1.2, 9.0), st.integers(0, 100))
def test_a_constant_load_is_met_without_waste_and_without_flapping(service: float, offered: float, seed: int) -> None:
    queue = Queue(Scaler(1, 16), service, lambda now: offered / service, seed=seed)
    changes = queue.run(150)
    assert all(offered * 0.95 <= size <= offered / 0.5 + 2 for size in queue.sizes[-20:])
    assert len(changes) <= 10
    assert len([change for change in changes if change.time_ns > 75e9]) <= 3
    turns = sum((b.after > b.before) != (a.after > a.before) for a, b in itertools.pairwise(changes))
    assert turns <= 4


def test_a_source_that_never_waits_takes_all_there_is() -> None:
    queue = Queue(Scaler(1, 8), 0.2, lambda now: 1_000)
    changes = queue.run(60)
    assert queue.sizes[-1] == 8
    assert [change.after for change in changes] == [2, 3, 4, 6, 8]
    assert "occupied" in changes[0].why


def test_after_a_burst_it_goes_down_to_its_floor_again() -> None:
    queue = Queue(Scaler(2, 12), 0.25, lambda now: 30.0 if now < 60 else 0.5)
    queue.run(200)
    assert max(queue.sizes) >= 7
    assert queue.sizes[-1] == 2


def test_more_that_does_not_help_is_taken_back_and_not_tried_again_for_a_while() -> None:
    queue = Queue(Scaler(1, 8), 0.1, lambda now: 1_000, ceiling=20)
    changes = queue.run(75)
    assert [(change.before, change.after) for change in changes] == [(1, 2), (2, 3), (3, 2)]
    assert "did not help" in changes[-1].why
    first = changes[-1].time_ns / 1e9
    later = Queue(Scaler(1, 8), 0.1, lambda now: 1_000, ceiling=20)
    tries = [c.time_ns / 1e9 for c in later.run(400) if (c.before, c.after) == (2, 3)]
    assert all(b - a >= 60 for a, b in itertools.pairwise(tries))
    assert tries[1] >= first + 60 and tries[2] - tries[1] > tries[1] - tries[0]


def test_it_does_not_grow_while_what_comes_behind_is_the_limit() -> None:
    queue = Queue(Scaler(2, 8), 0.1, lambda now: 1_000, drain=10)
    assert queue.run(60) == []
    assert set(queue.sizes) == {2}


def test_when_what_comes_behind_becomes_the_limit_it_goes_down() -> None:
    scaler = Scaler(1, 8)
    queue = Queue(scaler, 0.2, lambda now: 1_000)
    queue.run(60)
    seen = [
        Observation(
            time_ns=(1000 + i) * 10**9, workers=8, queue_items=64, queue_bytes=0, calls_done=10_000 + 5 * i,
            busy_ns=10**13 + i * 10**9, downstream_full=True,
        )
        for i in range(20)
    ]  # fmt: skip
    scaler.begin(8)
    decisions = [decision for one in seen if (decision := scaler.decide(one))]
    assert [(d.before, d.after) for d in decisions] == [(8, 4)]
    assert "behind is full" in decisions[0].why


def busy_forever(second: int, workers: int) -> Observation:
    return Observation(
        time_ns=second * 10**9, workers=workers, queue_items=50, queue_bytes=0, calls_done=5 * workers * second,
        busy_ns=workers * second * 10**9,
    )  # fmt: skip


def test_nothing_is_judged_until_newcomers_take_part() -> None:
    scaler = Scaler(1, 8)
    decisions = [(second, d) for second in range(25) if (d := scaler.decide(busy_forever(second, 1)))]
    assert [(second, d.after) for second, d in decisions] == [(3, 2)]


def test_newcomers_that_never_come_are_given_up() -> None:
    scaler = Scaler(1, 8, Rules(join_s=10))
    decisions = [(second, d) for second in range(60) if (d := scaler.decide(busy_forever(second, 1)))]
    assert [(second, d.before, d.after) for second, d in decisions] == [(3, 1, 2), (14, 2, 1)]
    assert "no room" in decisions[1][1].why


def test_after_going_back_the_counts_begin_anew() -> None:
    scaler = Scaler(1, 8)
    for second in range(3):
        assert scaler.decide(busy_forever(second + 100, 1)) is None
    scaler.begin(1)
    assert [scaler.decide(busy_forever(second, 1)) for second in range(103, 106)] == [None] * 3


def test_a_queue_that_is_being_worked_off_needs_nobody_more() -> None:
    scaler = Scaler(1, 8)
    for second in range(20):
        seen = Observation(
            time_ns=second * 10**9, workers=1, queue_items=500 - 20 * second, queue_bytes=0, calls_done=30 * second,
            busy_ns=second * 10**9,
        )  # fmt: skip
        assert scaler.decide(seen) is None


@pytest.mark.parametrize("limits", [(0, 3), (4, 3)])
def test_limits_must_be_limits(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="low <= high"):
        Scaler(*limits)


@pytest.mark.parametrize("wrong", [{"down_busy": 0.9}, {"up_after": 0}, {"worth": 0.0}, {"hold_s": -1.0}])
def test_rules_must_make_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Rules(**wrong)  # type: ignore[arg-type]


def test_a_load_is_what_happened_between_two_observations() -> None:
    load = Load.between(busy_forever(4, 2), busy_forever(6, 2))
    assert (load.rate, load.busy, load.queue) == (10.0, 1.0, 50)
