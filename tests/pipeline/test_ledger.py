"""The starvation ledger: every wait is charged, completely, to the step that the awaited item was with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from penstock.pipeline.ledger import PACE, Histogram, Ledger, Trace, birth

STEPS = ["read", "decode", "batch", "infer"]
CAUSES = ["source", "decode", "batch fill", "compute"]


def charged(start: int, end: int, trace: Trace | None) -> dict[tuple[str, str], float]:
    ledger = Ledger(STEPS, CAUSES)
    ledger.charge_wait(start, end, trace, 3)
    assert ledger.total_ns == end - start
    return {(row["step"], row["cause"]): row["ms"] * 1e6 for row in ledger.rows()}


def test_time_at_work_is_charged_to_the_step_at_work() -> None:
    trace: Trace = ((None, 0, 0, 1_000_000, 0, "source"), 1, 1_000_000, 9_000_000, 0, "")
    assert charged(0, 9_000_000, trace) == {("read", "source"): 1_000_000, ("decode", "decode"): 8_000_000}


def test_time_in_a_queue_is_charged_to_the_step_that_was_not_ready() -> None:
    trace: Trace = ((None, 0, 0, 1_000_000, 0, "source"), 1, 5_000_000, 6_000_000, 0, "")
    assert charged(2_000_000, 6_000_000, trace) == {("decode", "decode"): 4_000_000}


def test_time_before_the_item_existed_is_charged_to_its_source() -> None:
    trace: Trace = (None, 0, 4_000_000, 5_000_000, 0, "decode")
    assert charged(1_000_000, 5_000_000, trace) == {("read", "source"): 3_000_000, ("read", "decode"): 1_000_000}


def test_a_source_keeping_its_pace_while_rows_wait_in_a_batch_is_batch_fill() -> None:
    trace: Trace = ((None, 0, 1_000_000, 9_000_000, 0, PACE), 2, 9_000_000, 9_500_000, 3_000_000, "")
    assert charged(1_000_000, 9_500_000, trace) == {
        ("batch", "batch fill"): 6_000_000 + 500_000,
        ("read", "source"): 2_000_000,
    }


def test_a_hand_over_to_the_model_is_transfer() -> None:
    trace: Trace = (None, 0, 0, 1_000_000, 0, "")
    assert charged(1_000_000, 3_000_000, trace) == {("infer", "transfer"): 2_000_000}


@given(
    spans=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=6),
    start=st.integers(0, 300),
    length=st.integers(0, 300),
)
def test_every_nanosecond_is_charged_once(spans: list[tuple[int, int, int, bool]], start: int, length: int) -> None:
    trace, now = None, 0
    for step, gap, work, held in spans:
        trace = (trace, step, now + gap, now + gap + work, now if held else 0, PACE if step == 0 else "")
        now += gap + work
    ledger = Ledger(STEPS, CAUSES)
    ledger.charge_wait(start, start + length, trace, 3)
    assert ledger.total_ns == length


def test_an_item_is_born_when_its_source_began_or_let_it_go() -> None:
    read: Trace = (None, 0, 7, 9, 0, "source")
    assert birth((read, 1, 9, 12, 0, "")) == 7
    assert birth((None, 0, 7, 9, 0, PACE)) == 9
    assert birth(None) == 0


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentiles_are_within_two_percent(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    ordered = sorted(values)
    rank = min(len(values) - 1, max(0, -int(-share * len(values) // 1) - 1))
    got = histogram.percentile(share)
    low, high = ordered[max(0, rank - 1)], ordered[min(len(values) - 1, rank + 1)]
    assert low * 0.97 <= got <= high * 1.03 + 1
