"""As-of join against an O(n*m) reference."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import (
    assert_boundaries_do_not_matter,
    assert_restorable,
    event_times,
    events,
    run_operator,
)
from penstock.ops.join import JoinAsof
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError

KEYS = ["AAPL", "MSFT", "NVDA", None]


def last_known(left: list[tuple[int, Any]], right: list[tuple[int, Any]], tolerance: int | None) -> list[int | None]:
    """Row number of the greatest (time, arrival) among the right rows of the key that are not after the left row."""
    found: list[int | None] = []
    for t, key in left:
        fits = [
            (r, row)
            for row, (r, other) in enumerate(right)
            if r <= t and None not in key and key == other and (tolerance is None or t - r <= tolerance)
        ]
        found.append(max(fits)[1] if fits else None)
    return found


def values(batch: pa.RecordBatch, by: tuple[str, ...]) -> list[tuple[int, Any]]:
    columns = [batch[name].to_pylist() for name in by]
    return [
        (t, tuple(column[row] for column in columns))
        for row, t in enumerate(batch["ts_event"].cast(pa.int64()).to_pylist())
    ]


@st.composite
def sides(draw: st.DrawFn) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Text keys under different encodings on each side, and a small integer key of different widths."""
    made = []
    for side in (0, 1):
        times = draw(event_times(most=25))
        picks = draw(st.lists(st.integers(0, len(KEYS) - 1), min_size=len(times), max_size=len(times)))
        symbol = pa.array([KEYS[pick] for pick in picks], pa.string())
        if side == draw(st.integers(0, 1)):
            symbol = symbol.dictionary_encode()
        venue = pa.array([pick % 2 for pick in picks], pa.int8() if side else pa.uint32())
        extra = {"bid": pa.array([f"b{row}" for row in range(len(times))], pa.string())} if side else {}
        made.append(events(times, symbol=symbol, venue=venue, size=pa.array(picks, pa.int32()), **extra))
    return made[0], made[1]


@settings(deadline=None)
@given(
    sides(),
    st.sampled_from([(), ("symbol",), ("venue",), ("symbol", "venue")]),
    st.none() | st.integers(0, 60),
    st.sampled_from(["left", "inner"]),
    st.data(),
)
def test_matches_are_those_of_the_definition(
    pair: tuple[pa.RecordBatch, pa.RecordBatch],
    by: tuple[str, ...],
    tolerance: int | None,
    how: str,
    data: st.DataObject,
) -> None:
    left, right = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.ops.join._LEAST_HELD", data.draw(st.sampled_from([0, 4, 4096]), label="held"))
        result = assert_boundaries_do_not_matter(JoinAsof(by, tolerance, how), left, right, data=data)
    found = last_known(values(left, by), values(right, by), tolerance)
    rows = [row for row, other in enumerate(found) if how == "left" or other is not None]
    assert result.rows["seq"].to_pylist() == rows
    assert result.rows["right_seq"].to_pylist() == [found[row] for row in rows]
    for name in ("bid", "right_size"):
        whole = right[name.removeprefix("right_")].to_pylist()
        expected = [None if (other := found[row]) is None else whole[other] for row in rows]
        assert result.rows[name].to_pylist() == expected
    lost = found.count(None)
    counted, other = (result.noted, result.dropped) if how == "left" else (result.dropped, result.noted)
    assert sum(counted.values()) == lost and not other


def test_of_equal_times_the_last_arrived_counts() -> None:
    result = run_operator(JoinAsof(), events([5, 7]), events([5, 5, 8]), sizes=1)
    assert result.rows["right_seq"].to_pylist() == [1, 1]


def test_a_right_row_out_of_order_does_not_replace_a_newer_one() -> None:
    late = [events([1000, 1000], key=["a", "b"]), events([999, 1000], first_seq=2, key=["a", "b"])]
    left = events([1000, 1000, 1001], key=["a", "b", "a"])
    for order in ("port by port", "last port first"):
        result = run_operator(JoinAsof("key"), [left], late, interleave=order)
        assert result.rows["right_seq"].to_pylist() == [0, 3, 0]


def test_a_row_waits_until_the_right_watermark_is_behind_it() -> None:
    join = JoinAsof().open(Context("join"), events([]).schema, events([]).schema)
    join.process(events([10]), 0)
    join.process(events([9]), 1)
    assert not join.advance(10, 1)
    (out,) = join.advance(11, 1)
    assert out["right_seq"].to_pylist() == [0]


def test_state_is_trimmed_to_the_last_row_of_each_key() -> None:
    context = Context("join")
    schema = events([], key=pa.array([], pa.int64())).schema
    join = JoinAsof("key").open(context, schema, schema)
    held = []
    for start in range(0, 200_000, 1_000):
        times = range(start, start + 1_000)
        rare = [10_000 + start // 1_000 % 50, *(t % 100 for t in times[1:])]
        join.process(events(times, key=rare), 1)
        join.advance(start + 1_000, 1)
        join.advance(start + 1_000, 0)
        held.append(context.metrics.state_bytes)
    assert max(held) == max(held[:50]) < 300_000
    left = events([300_000] * 150, key=[*range(100), *range(10_000, 10_050)])
    join.advance(400_000, 1)
    (out,) = join.process(left, 0)
    assert out["right_ts_event"].cast(pa.int64()).to_pylist() == [
        *range(199_900, 200_000),
        *range(150_000, 200_000, 1_000),
    ]


def test_keys_match_by_value_although_dictionaries_differ() -> None:
    left = events([10, 11], key=pa.array(["b", "a"]).dictionary_encode())
    right = events([1, 2], key=pa.array(["a", "b"], pa.large_string()))
    result = run_operator(JoinAsof(("key",)), left, right)
    assert result.rows["right_seq"].to_pylist() == [1, 0]
    assert result.rows.column_names == [*left.schema.names, "right_ts_event", "right_ts_recv", "right_seq"]


def test_it_restores_at_every_step() -> None:
    left = events([10, 20, 15, 30, 31, 50], key=["a", "b", "a", "c", "a", None])
    right = events([9, 12, 11, 20, 25, 45], key=["a", "b", "a", "a", None, "a"], text=["x", None, "y", "z", "", "w"])
    for order in ("round robin", "last port first", "port by port"):
        for tolerance in (None, 8):
            result = assert_restorable(JoinAsof("key", tolerance), left, right, sizes=2, interleave=order)
            found = last_known(values(left, ("key",)), values(right, ("key",)), tolerance)
            assert result.rows["right_seq"].to_pylist() == found


def test_what_waits_is_said_when_it_is_too_much() -> None:
    with pytest.raises(StateLimitError, match=r"'join_asof-under-test' holds .*1000 left rows that wait for the right"):
        run_operator(JoinAsof(state_limit=20_000), events(range(1000)), events([1]), interleave="port by port")


def test_arguments_and_schemas_that_cannot_work_are_refused() -> None:
    text, number = events([1], key=["a"]).schema, events([1], key=[1]).schema
    with pytest.raises(GraphError, match="'key' differs in kind; expected text, got integer"):
        JoinAsof("key").output_schema(text, number)
    with pytest.raises(GraphError, match="no key column 'sym'"):
        JoinAsof("sym").output_schema(text, text)
    with pytest.raises(GraphError, match="cannot be a key"):
        JoinAsof("key").output_schema(text, events([1], key=[1.5]).schema)
    with pytest.raises(ValueError, match="how='outer'"):
        JoinAsof(how="outer")
