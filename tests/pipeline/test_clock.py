"""Clocks: a wait ends when its time has come or the run is stopped, on every clock."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.pipeline.clock import Clock, ManualClock, RealClock, SyntheticClock

HOUR = 3600 * 10**9


@pytest.mark.parametrize("clock", [RealClock(), ManualClock(), SyntheticClock()])
def test_every_clock_keeps_the_contract(clock: object) -> None:
    assert isinstance(clock, Clock)


@pytest.mark.parametrize("clock", [RealClock(), ManualClock(), SyntheticClock()])
def test_a_stopped_wait_says_so_at_once(clock: Clock) -> None:
    stop = threading.Event()
    stop.set()
    assert clock.wait_ns(HOUR, stop) is True


@pytest.mark.parametrize("clock", [RealClock(), ManualClock(5), SyntheticClock()])
@pytest.mark.parametrize("duration", [0, -5])
def test_a_wait_for_nothing_ends(clock: Clock, duration: int) -> None:
    assert clock.wait_ns(duration, threading.Event()) is False


@pytest.mark.parametrize("clock", [RealClock(), ManualClock()])
def test_a_wait_ends_when_it_is_stopped_from_elsewhere(clock: Clock) -> None:
    stop, results = threading.Event(), []
    waiter = threading.Thread(target=lambda: results.append(clock.wait_ns(HOUR, stop)))
    waiter.start()
    stop.set()
    waiter.join(30)
    assert results == [True]


def test_the_real_clock_tells_utc_and_never_goes_back() -> None:
    clock = RealClock()
    before, told, after = time.time_ns(), clock.now_ns(), time.time_ns()
    assert before <= told <= after
    readings = [clock.monotonic_ns() for _ in range(1000)]
    assert readings == sorted(readings)


@pytest.mark.parametrize(("speed", "expected"), [(1.0, 2.0), (4.0, 0.5), (0.5, 4.0)])
def test_speed_divides_waits(speed: float, expected: float) -> None:
    class Recorder(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    waits: list[float | None] = []
    RealClock(speed).wait_ns(2 * 10**9, Recorder())
    assert waits == [expected]


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_speed_must_be_positive(speed: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        RealClock(speed)


def test_a_manual_wait_ends_when_the_clock_has_moved_far_enough_and_not_before() -> None:
    clock, stop = ManualClock(100), threading.Event()
    begun, ended = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert clock.wait_ns(10, stop) is False
        ended.set()

    waiter = threading.Thread(target=wait)
    with clock._moved:  # the waiter cannot read the time before this is released
        waiter.start()
        begun.wait()
    for _ in range(9):
        clock.advance(1)
        assert not ended.is_set() or clock.now_ns() >= 110
    while waiter.is_alive():
        clock.advance(1)
        waiter.join(0.01)
    assert ended.is_set()
    assert clock.now_ns() >= 110


@given(st.lists(st.integers(0, 10**12)))
def test_a_manual_clock_adds_up_what_it_is_advanced(steps: list[int]) -> None:
    clock = ManualClock(7)
    for step in steps:
        clock.advance(step)
    assert clock.now_ns() == clock.monotonic_ns() == 7 + sum(steps)


def test_a_manual_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        ManualClock().advance(-1)


@given(st.lists(st.integers(-5, 10**12)))
def test_a_synthetic_clock_jumps_over_every_wait(waits: list[int]) -> None:
    clock, stop = SyntheticClock(3), threading.Event()
    assert not any(clock.wait_ns(wait, stop) for wait in waits)
    assert clock.now_ns() == clock.monotonic_ns() == 3 + sum(max(0, wait) for wait in waits)


def test_waits_of_many_threads_on_a_synthetic_clock_all_count() -> None:
    clock, stop = SyntheticClock(), threading.Event()
    threads = [threading.Thread(target=lambda: [clock.wait_ns(1, stop) for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now_ns() == 8000
