"""Edges between processes: order of pulls, credits, what does not fit."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.clock import RealClock
from penstock.pipeline.cluster.outbox import Outbox
from penstock.pipeline.cluster.parcels import Cut, Elsewhere, opened, packed
from penstock.pipeline.cluster.puller import Puller
from penstock.pipeline.cluster.staffing import cpu_share
from penstock.pipeline.errors import RunError
from penstock.pipeline.inbox import Stopped


class Kept:
    """A receiver that keeps what comes."""

    index = 0

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []

    def push(self, batch: Any, port: int, trace: Any) -> None:
        self.got.append(("batch", batch.column(0).to_pylist()))

    def advance(self, watermark: int, port: int, trace: Any) -> None:
        self.got.append(("watermark", watermark))

    def barrier(self, number: int, port: int) -> None:
        self.got.append(("barrier", number))

    def end(self, port: int, trace: Any) -> None:
        self.got.append(("end", None))


def batch(values: list[int]) -> pa.RecordBatch:
    return pa.record_batch({"a": pa.array(values, pa.int64())})


items = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.lists(st.integers(0, 9), min_size=1, max_size=40)),
        st.tuples(st.just("watermark"), st.integers(0, 99)),
        st.tuples(st.just("barrier"), st.integers(1, 9)),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(items=items, budget=st.integers(1, 400), credit=st.integers(1, 400), most=st.integers(1, 8))
def test_everything_comes_once_and_in_order_whatever_the_credit(
    items: list[tuple[str, Any]], budget: int, credit: int, most: int
) -> None:
    stop, kept = threading.Event(), Kept()
    outbox = Outbox(budget, RealClock(), stop, items=most)

    def send() -> None:
        for what, value in items:
            payload = batch(value) if what == "batch" else value
            outbox.put(what, payload, 8 * len(value) if what == "batch" else 0, 0)
        outbox.put("end", None, 0, 0)

    sender = threading.Thread(target=send)
    sender.start()

    def pull(number: int, asked: int, patience: float) -> Any:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(outbox.pull(number, asked, patience)))
        thread.start()
        return thread, answers

    def get(called: Any) -> Any:
        thread, answers = called
        thread.join()
        return answers[0]

    Puller(pull, get, kept, 0, 0, credit, RealClock(), stop).run()
    stop.set()
    outbox.wake()
    sender.join()
    assert kept.got == [*items, ("end", None)]
    largest = max([8 * len(value) for what, value in items if what == "batch"], default=0)
    assert outbox.peak_bytes <= max(budget, largest)


def test_pulls_that_arrive_out_of_turn_are_answered_in_turn() -> None:
    outbox = Outbox(1000, RealClock(), threading.Event())
    answers: dict[int, Any] = {}
    second = threading.Thread(target=lambda: answers.update({1: outbox.pull(1, 1000, 5)}))
    second.start()
    outbox.put("watermark", 1, 0, 0)
    answers[0] = outbox.pull(0, 1000, 5)
    outbox.put("watermark", 2, 0, 0)
    second.join()
    assert [item[1] for number in (0, 1) for item in answers[number]] == [1, 2]


def test_a_full_edge_lets_go_when_the_run_is_abandoned() -> None:
    stop = threading.Event()
    outbox = Outbox(10, RealClock(), stop)
    outbox.put("batch", batch([1]), 8, 0)
    failed: list[BaseException] = []

    def send() -> None:
        try:
            outbox.put("batch", batch([2]), 8, 0)
        except Stopped as error:
            failed.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    stop.set()
    outbox.wake()
    sender.join()
    assert failed


def test_a_batch_that_no_store_could_hold_is_refused_with_what_to_do() -> None:
    outbox = Outbox(10, RealClock(), threading.Event(), largest=100)
    outbox.put("batch", batch([1]), 100, 0)
    with pytest.raises(RunError, match="form smaller batches"):
        outbox.put("batch", batch([1]), 101, 0)


def test_a_slice_travels_without_what_it_was_cut_from() -> None:
    whole = pa.record_batch({"a": np.arange(100_000), "s": pa.array(["x", None] * 50_000)})
    parcel, copied = packed(whole.slice(50_001, 10))
    assert isinstance(parcel, Cut)
    assert 0 < copied < 2000
    assert opened(parcel).equals(whole.slice(50_001, 10))
    assert packed(whole) == (whole, 0)
    assert opened(Elsewhere("there", 10, 80), lambda reference: [parcel]).equals(whole.slice(50_001, 10))


@given(cpus=st.lists(st.integers(1, 64), min_size=1, max_size=6), processes=st.integers(1, 60))
def test_shares_of_a_cpu_fit_the_nodes(cpus: list[int], processes: int) -> None:
    share = cpu_share(cpus, processes)
    assert 0 < share <= 1
    assert sum(int(count / share + 1e-9) for count in cpus) >= processes
