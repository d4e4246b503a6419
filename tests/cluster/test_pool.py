"""A pool gives each process at most two calls, and can be made larger and smaller while calls are under way."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from penstock.pipeline.cluster.pool import Computed, RemotePool
from penstock.pipeline.inbox import Stopped
from penstock.pipeline.reading import Head, Work

BATCH = pa.record_batch({"x": [1]})


@dataclass(eq=False)
class Worker:
    """Answers when told to."""

    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    calls: int = 0

    def run(self, batch: Any) -> tuple[Any, Any]:
        self.calls += 1
        return self, None


class Now:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def answer(worker: Any) -> Computed:
    assert worker.gate.acquire(timeout=20)
    return Computed()


class Calls:
    """A pool of fake workers and the calls made to it."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.now, self.stop = Now(), threading.Event()
        self.pool = RemotePool(workers, answer, self.now, self.stop)
        self.threads = ThreadPoolExecutor(16)
        self.under_way: list[Any] = []

    def make(self, count: int) -> None:
        head = Head([])
        head.cells = [type("Cell", (), {"index": 0})()]  # type: ignore[list-item]
        self.under_way += [self.threads.submit(self.pool.work, head, BATCH, Work()) for _ in range(count)]

    def until(self, done: int, waiting: int) -> None:
        """Until so many calls are done and so many wait for a process."""
        settled = threading.Event()
        for _ in range(2000):
            load = self.pool.load
            if (load.calls_done, load.waiting) == (done, waiting):
                return
            settled.wait(0.005)
        raise AssertionError(f"{self.pool.load}")

    def end(self) -> None:
        assert not wait(self.under_way, 20).not_done
        self.threads.shutdown()


def test_a_process_has_two_calls_at_most_and_others_wait() -> None:
    one = Worker()
    calls = Calls([one])
    calls.make(5)
    calls.until(done=0, waiting=3)
    assert one.calls == 2
    one.gate.release()
    calls.until(done=1, waiting=2)
    for _ in range(4):
        one.gate.release()
    calls.end()
    assert one.calls == 5


def test_newcomers_take_what_waits() -> None:
    one, two = Worker(), Worker()
    calls = Calls([one])
    calls.make(4)
    calls.until(done=0, waiting=2)
    assert calls.pool.resize([one, two]) == 0
    calls.until(done=0, waiting=0)
    assert (one.calls, two.calls, calls.pool.load.workers) == (2, 2, 2)
    for worker in (one, one, two, two):
        worker.gate.release()
    calls.end()


def test_one_that_leaves_ends_its_calls_and_gets_no_more() -> None:
    one, two = Worker(), Worker()
    calls = Calls([one, two])
    calls.make(4)
    calls.until(done=0, waiting=0)
    assert calls.pool.resize([one]) == 2
    two.gate.release()
    calls.until(done=1, waiting=0)
    assert calls.pool.resize([one]) == 1
    two.gate.release()
    calls.until(done=2, waiting=0)
    assert calls.pool.resize([one]) == 0
    calls.make(1)
    for _ in range(3):
        one.gate.release()
    calls.end()
    assert (one.calls, two.calls) == (3, 2)


def test_the_time_that_processes_have_calls_is_counted() -> None:
    one, two = Worker(), Worker()
    calls = Calls([one, two])
    calls.now.ns = 100
    calls.make(1)
    for _ in range(2000):
        if one.calls:
            break
        threading.Event().wait(0.005)
    calls.now.ns = 175
    assert calls.pool.load.occupied_ns == 75
    one.gate.release()
    calls.end()
    calls.now.ns = 500
    assert calls.pool.load.occupied_ns == 75


def test_who_waits_for_a_process_hears_of_the_end() -> None:
    one = Worker()
    calls = Calls([one])
    calls.make(3)
    calls.until(done=0, waiting=1)
    calls.stop.set()
    (first,), _ = wait(calls.under_way, 20, return_when=FIRST_COMPLETED)
    assert isinstance(first.exception(), Stopped)
    one.gate.release()
    one.gate.release()
    calls.end()
