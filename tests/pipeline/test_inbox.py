"""Queues between threads: bounded in bytes, the input furthest behind first, no deadlock on diamonds, quick to stop."""

from __future__ import annotations

import threading

import pytest
from penstock.pipeline.clock import RealClock
from penstock.pipeline.inbox import Inbox, Stopped
from penstock.pipeline.ordered import OrderedWork


def inbox(ports: int = 1, budget: int = 100, **options: object) -> Inbox:
    return Inbox(ports, budget, RealClock(), threading.Event(), **options)  # type: ignore[arg-type]


def in_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_a_producer_waits_until_there_is_room() -> None:
    box = inbox(budget=100)
    box.put(0, "batch", "a", 60, None)
    entered = threading.Event()

    def produce() -> None:
        entered.set()
        box.put(0, "batch", "b", 60, None)

    producer = in_thread(produce)
    entered.wait()
    assert box.peak_bytes <= 100
    item = box.get()
    assert item is not None and item[2] == "a"
    producer.join(5)
    item = box.get()
    assert item is not None and item[2] == "b"
    assert box.peak_bytes <= 100


def test_an_item_larger_than_the_budget_passes_alone() -> None:
    box = inbox(budget=10)
    box.put(0, "batch", "huge", 1_000, None)
    item = box.get()
    assert item is not None and item[2] == "huge"


def test_the_input_furthest_behind_is_taken_first() -> None:
    box = inbox(2)
    for port, time in ((0, 5), (1, 3)):
        box.put(port, "watermark", time, 0, None)
        box.get()
    box.put(0, "batch", "ahead", 1, None)
    box.put(1, "batch", "behind", 1, None)
    item = box.get()
    assert item is not None and item[2] == "behind"


def test_all_ends_end_it() -> None:
    box = inbox(2)
    box.put(0, "end", None, 0, None)
    box.put(1, "end", None, 0, None)
    assert [box.get()[0], box.get()[0]] == ["end", "end"]  # type: ignore[index]
    assert box.get() is None


def test_a_full_related_input_is_taken_although_another_is_behind() -> None:
    box = inbox(2, budget=10, related=True)
    box.put(0, "watermark", 5, 0, None)
    box.get()
    box.put(0, "batch", "first", 10, None)
    producer = in_thread(lambda: box.put(0, "batch", "second", 10, None))
    item = box.get()  # input 1 is behind and empty; without the rule this would wait for ever
    assert item is not None and item[2] == "first"
    producer.join(5)
    assert not producer.is_alive()


def test_stopping_wakes_whoever_waits() -> None:
    stop = threading.Event()
    box = Inbox(1, 10, RealClock(), stop)
    seen: list[bool] = []

    def consume() -> None:
        try:
            box.get()
        except Stopped:
            seen.append(True)

    consumer = in_thread(consume)
    stop.set()
    box.wake()
    consumer.join(5)
    assert seen == [True]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_ordered_work_gives_in_the_order_it_took_and_ends_once(workers: int) -> None:
    taken = iter(range(500))
    given: list[int | None] = []
    barrier = threading.Event()

    def work(item: int) -> int:
        if item % 7 == 0:
            barrier.wait(0.0005)
        return item * item

    ordered = OrderedWork(
        lambda: next(taken, None), work, given.append, workers + 1, threading.Event(), clock=RealClock().monotonic_ns
    )
    threads = [in_thread(ordered.run) for _ in range(workers)]
    for thread in threads:
        thread.join(30)
    assert given == [n * n for n in range(500)] + [None]
