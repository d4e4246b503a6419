"""Session windows against a naive model that keeps the rows of every session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, event_times, events, run_operator
from penstock.ops import aggregates as agg
from penstock.ops.window import Session, Window
from penstock.pipeline.columns import event_ns
from penstock.pipeline.context import Context
from penstock.pipeline.operator import END_OF_TIME

FEATURES = {
    "rows": agg.count(),
    "total": agg.sum("x"),
    "spread": agg.std("x"),
    "first": agg.first("i"),
    "last": agg.last("i"),
    "low": agg.min("i"),
    "high": agg.max("x"),
}


@st.composite
def plays(draw: st.DrawFn, *, disorder: int = 25) -> pa.RecordBatch:
    times = draw(event_times(most=60, spread=30, disorder=disorder))
    count = len(times)
    return events(
        times,
        player=pa.array(draw(st.lists(st.sampled_from([2, 10, -1]), min_size=count, max_size=count)), pa.int16()),
        x=pa.array(
            draw(st.lists(st.sampled_from([0.1, 0.2, 1e16, -1e16]), min_size=count, max_size=count)), pa.float64()
        ),
        i=pa.array(range(count), pa.int64()),
    )


def by_gap(batch: pa.RecordBatch, gap: int) -> list[tuple[Any, ...]]:
    """Sessions of complete data: sort each player's rows by time and cut where the gap is at least `gap`."""
    times, players = event_ns(batch).tolist(), batch["player"].to_pylist()
    out = []
    for player in set(players):
        rows = sorted((times[r], r) for r in range(len(times)) if players[r] == player)
        session: list[tuple[int, int]] = []
        for time, row in [*rows, (END_OF_TIME, -1)]:
            if session and time - session[-1][0] >= gap:
                numbers = [r for _, r in session]
                out.append(
                    (session[-1][0] + gap, session[0][0], player, len(session), numbers[0], numbers[-1], min(numbers))
                )
                session = []
            session.append((time, row))
    return sorted(out)


def plain(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    columns = [table[n].cast(pa.int64()) if pa.types.is_timestamp(table[n].type) else table[n] for n in names]
    return list(zip(*(c.to_pylist() for c in columns), strict=True))


@settings(max_examples=150, deadline=None)
@given(plays(), st.integers(1, 30), st.integers(1, 9))
def test_sessions_are_cut_at_gaps_whatever_order_rows_come_in(batch: pa.RecordBatch, gap: int, sizes: int) -> None:
    result = run_operator(Window(Session(gap), FEATURES, keys=("player",)), batch, sizes=sizes)
    got = plain(result.rows, ["window_end", "window_start", "player", "rows", "first", "last", "low"])
    assert got == by_gap(batch, gap)
    assert result.rows["seq"].to_pylist() == list(range(len(got)))
    assert result.metrics.late_rows == 0


@settings(max_examples=100, deadline=None)
@given(plays(), st.integers(1, 30), st.data())
def test_rows_do_not_depend_on_batches_watermarks_or_a_restart(
    batch: pa.RecordBatch, gap: int, data: st.DataObject
) -> None:
    keys = data.draw(st.sampled_from([(), ("player",)]))
    assert_boundaries_do_not_matter(Window(Session(gap), FEATURES, keys=keys), batch, data=data)


@settings(max_examples=25, deadline=None)
@given(plays(), st.integers(1, 30))
def test_a_snapshot_at_any_step_restores(batch: pa.RecordBatch, gap: int) -> None:
    assert_restorable(Window(Session(gap), FEATURES, keys=("player",)), batch, sizes=3)


@dataclass
class _Session:
    times: list[int] = field(default_factory=list)


@settings(max_examples=100, deadline=None)
@given(plays(disorder=40), st.integers(1, 25), st.integers(0, 50), st.integers(1, 6))
def test_a_row_is_late_only_if_it_would_open_a_session_that_is_closed(
    batch: pa.RecordBatch, gap: int, ahead: int, step: int
) -> None:
    times, players = event_ns(batch).tolist(), batch["player"].to_pylist()
    late: list[int] = []
    context = Context("plays", side=lambda _, rows: late.extend(event_ns(rows).tolist()))
    operator = Window(Session(gap), {"rows": agg.count()}, keys=("player",)).open(context, batch.schema)
    sessions: dict[int, list[_Session]] = {}
    got, expected, expected_late = [], [], []
    watermark = -(1 << 60)
    for row in range(0, len(times) + 1, step):
        operator.process(batch.slice(row, step))
        for time, player in zip(times[row : row + step], players[row : row + step], strict=True):
            own = sessions.setdefault(player, [])
            near = [s for s in own if min(s.times) - gap < time < max(s.times) + gap]
            if not near and time + gap <= watermark:
                expected_late.append(time)
                continue
            sessions[player] = [s for s in own if s not in near]
            sessions[player].append(_Session([time, *(t for s in near for t in s.times)]))
        last = row + step > len(times)
        watermark = END_OF_TIME if last else max([watermark, *(t + ahead - 30 for t in times[: row + step])])
        for out in operator.advance(watermark):
            got += plain(pa.table(out), ["window_end", "window_start", "player", "rows"])
        for player, own in sessions.items():
            closed = [s for s in own if max(s.times) + gap <= watermark]
            expected += [(max(s.times) + gap, min(s.times), player, len(s.times)) for s in closed]
            sessions[player] = [s for s in own if s not in closed]
    assert late == expected_late
    assert context.metrics.late_rows == len(late)
    assert sorted(got) == sorted(expected)


def test_a_row_exactly_one_gap_later_begins_a_new_session() -> None:
    batch = events([0, 9, 19, 28])
    result = run_operator(Window(Session(10), {"rows": agg.count()}), batch, sizes=1)
    assert plain(result.rows, ["window_start", "window_end", "rows"]) == [(0, 19, 2), (19, 38, 2)]


def test_a_row_between_two_sessions_makes_them_one() -> None:
    batch = events([0, 15, 8], x=pa.array([1.0, 2.0, 4.0]))
    values = {"rows": agg.count(), "total": agg.sum("x"), "spread": agg.std("x"), "last": agg.last("x")}
    result = run_operator(Window(Session(10), values), batch)
    (row,) = plain(result.rows, ["window_start", "window_end", "rows", "total", "last"])
    assert row == (0, 25, 3, 7.0, 2.0)
    assert result.rows["spread"][0].as_py() == pytest.approx(1.5275252316519465)


def test_many_open_sessions_grow_and_shrink_the_state() -> None:
    rows = 3_000
    batch = events([i % 1_000 * 100 + i // 1_000 for i in range(rows)], i=pa.array(range(rows)))
    result = run_operator(Window(Session(50), {"rows": agg.count(), "sum": agg.sum("i")}), batch, sizes=250)
    assert result.rows.num_rows == 1_000
    assert set(result.rows["rows"].to_pylist()) == {3}
    assert sum(result.rows["sum"].to_pylist()) == rows * (rows - 1) // 2
