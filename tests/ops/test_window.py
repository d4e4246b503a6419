"""Tumbling and sliding windows against a naive model, pyarrow and polars."""

from __future__ import annotations

import gzip
import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import (
    assert_boundaries_do_not_matter,
    assert_restorable,
    digest,
    event_times,
    events,
    run_operator,
)
from penstock.ops import agg
from penstock.ops.window import Session, Sliding, Tumbling, Window
from penstock.pipeline.columns import event_ns
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError
from penstock.pipeline.operator import END_OF_TIME
from penstock.pipeline.stream import read
from penstock.sources.memory import Rows

ALL = {
    "rows": agg.count(),
    "present": agg.count("x"),
    "size": agg.sum("i"),
    "total": agg.sum("x"),
    "mean": agg.mean("x"),
    "spread": agg.std("x"),
    "low": agg.min("x"),
    "high": agg.max("i"),
    "open": agg.first("i"),
    "close": agg.last("x"),
    "name": agg.last("key"),
}
SPANS = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 50)).map(
    lambda t: (max(t[0], t[1]), min(t[0], t[1]), t[2])
)
VALUES = st.sampled_from([None, 0.1, 0.2, 0.3, 1e16, -1e16, 3.0, -0.0])


@st.composite
def streams(draw: st.DrawFn, *, start: int = 0) -> pa.RecordBatch:
    times = [t + start for t in draw(event_times(most=50))]
    count = len(times)
    received = [t + draw(st.integers(0, 9)) for t in times]
    keys = draw(st.lists(st.sampled_from(["b", "a", "ä", None]), min_size=count, max_size=count))
    return events(
        times,
        ts_recv=received,
        key=pa.array(keys, pa.utf8()).dictionary_encode(),
        flag=pa.array([bool(t & 1) for t in received], pa.bool_()),
        x=pa.array(draw(st.lists(VALUES, min_size=count, max_size=count)), pa.float64()),
        i=pa.array(draw(st.lists(st.integers(-5, 5), min_size=count, max_size=count)), pa.int32()),
    )


def naive(batch: pa.RecordBatch, size: int, every: int, offset: int) -> list[tuple[Any, ...]]:
    """Every window by the definition; floats add up in row order within panes, panes in order of time."""
    times = event_ns(batch).tolist()
    received = event_ns(batch, "ts_recv").tolist()
    keys, xs, sizes = (batch[name].to_pylist() for name in ("key", "x", "i"))
    windows: dict[tuple[int, bool, bytes], list[int]] = {}
    for row, time in enumerate(times):
        start = (time - offset) // every * every + offset
        while start + size > time:
            key = keys[row]
            windows.setdefault((start, key is None, (key or "").encode()), []).append(row)
            start -= every
    out = []
    for (start, null, key), rows in sorted(windows.items()):
        steps = [k * every for k in range(size // every + 2)]
        cuts = sorted({start + step for step in steps} | {start + size - step for step in steps})
        total, count = 0.0, 0
        for pane in range(len(cuts) - 1):
            part = [xs[r] for r in rows if cuts[pane] <= times[r] < cuts[pane + 1] and xs[r] is not None]
            subtotal = 0.0
            for x in part:
                subtotal += x
            if any(cuts[pane] <= times[r] < cuts[pane + 1] for r in rows):
                total += subtotal
            count += len(part)
        present = [xs[r] for r in rows if xs[r] is not None]
        by_time = sorted(rows, key=lambda r: (times[r], r))
        out.append(
            (
                start + size,
                max(received[r] for r in rows),
                None if null else key.decode(),
                start,
                len(rows),
                len(present),
                sum(sizes[r] for r in rows),
                total if count else None,
                total / count if count else None,
                min(present) if present else None,
                max(sizes[r] for r in rows),
                sizes[by_time[0]],
                next((xs[r] for r in reversed(by_time) if xs[r] is not None), None),
            )
        )
    return out


def plain(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    columns = [table[n].cast(pa.int64()) if pa.types.is_timestamp(table[n].type) else table[n] for n in names]
    return list(zip(*(c.to_pylist() for c in columns), strict=True))


NAMES = [
    "ts_event", "ts_recv", "key", "window_start", "rows", "present", "size", "total", "mean", "low", "high", "open", "close",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(streams(start=-1_050), SPANS)
def test_windows_are_those_of_the_definition_in_order_bit_for_bit(
    batch: pa.RecordBatch, span: tuple[int, int, int]
) -> None:
    size, every, offset = span
    assigner = Tumbling(size, offset=offset) if size == every else Sliding(size, every, offset=offset)
    result = run_operator(Window(assigner, ALL, keys=("key",)), batch, sizes=7)
    expected = naive(batch, size, every, offset)
    got = plain(result.rows, NAMES)
    assert [repr(row) for row in got] == [repr(row) for row in expected]
    assert result.rows["window_end"].equals(result.rows["ts_event"])
    assert result.rows["seq"].to_pylist() == list(range(len(expected)))
    assert result.rows["name"].to_pylist() == result.rows["key"].to_pylist()
    assert result.metrics.late_rows == 0


@settings(max_examples=100, deadline=None)
@given(streams(), SPANS, st.data())
def test_rows_do_not_depend_on_batches_watermarks_or_a_restart(
    batch: pa.RecordBatch, span: tuple[int, int, int], data: st.DataObject
) -> None:
    size, every, offset = span
    spec = Window(Sliding(size, every, offset), ALL, keys=data.draw(st.sampled_from([(), ("key",), ("flag", "key")])))
    assert_boundaries_do_not_matter(spec, batch, data=data)


@settings(max_examples=25, deadline=None)
@given(streams(), SPANS)
def test_a_snapshot_at_any_step_restores(batch: pa.RecordBatch, span: tuple[int, int, int]) -> None:
    size, every, offset = span
    assert_restorable(Window(Sliding(size, every, offset), ALL, keys=("flag", "key")), batch, sizes=4)


@settings(max_examples=100, deadline=None)
@given(streams(), SPANS, st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 60))
def test_late_rows_leave_on_the_side_and_only_when_every_window_is_closed(
    batch: pa.RecordBatch, span: tuple[int, int, int], cuts: list[int], ahead: int
) -> None:
    size, every, offset = span
    times, sizes = event_ns(batch).tolist(), batch["i"].to_pylist()
    context, late = _listening()
    operator = Window(Sliding(size, every, offset), {"size": agg.sum("i")}).open(context, batch.schema)
    open_windows: dict[int, int] = {}
    expected: list[tuple[int, int]] = []
    expected_late: list[int] = []
    got: list[pa.RecordBatch] = []
    row, watermark = 0, -(1 << 60)
    for step in range(len(times) + 1):
        part = batch.slice(row, cuts[step % len(cuts)])
        operator.process(part)
        for time, number in zip(times[row : row + part.num_rows], sizes[row : row + part.num_rows], strict=True):
            start, hit = (time - offset) // every * every + offset, False
            while start + size > time:
                if start + size > watermark:
                    open_windows[start] = open_windows.get(start, 0) + number
                    hit = True
                start -= every
            if not hit:
                expected_late.append(time)
        row += part.num_rows
        watermark = END_OF_TIME if row == len(times) else max([watermark, *(t + ahead - 20 for t in times[:row])])
        got += operator.advance(watermark)
        for start in sorted(s for s in open_windows if s + size <= watermark):
            expected.append((start + size, open_windows.pop(start)))
        if row == len(times):
            break
    assert [pair for b in got for pair in zip(event_ns(b).tolist(), b["size"].to_pylist(), strict=True)] == expected
    assert [t for b in late for t in event_ns(b).tolist()] == expected_late
    assert context.metrics.late_rows == len(expected_late)


def _listening() -> tuple[Context, list[pa.RecordBatch]]:
    late: list[pa.RecordBatch] = []

    def side(name: str, rows: pa.RecordBatch) -> None:
        assert name == "late"
        late.append(rows)

    return Context("per second", side=side), late


def _market(rows: int = 20_000) -> pa.RecordBatch:
    rng = np.random.Generator(np.random.Philox(7))
    times = np.cumsum(rng.integers(0, 2_000_000, rows)) - 5_000_000_000
    symbols = pa.array([f"S{i}" for i in range(50)])
    return events(
        times,
        symbol=pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 50, rows), pa.int32()), symbols),
        account=pa.array(rng.integers(0, 40, rows)),
        size=pa.array(rng.integers(0, 1_000, rows), pa.uint32()),
        price=pa.array(rng.random(rows)),
    )


def test_tumbling_sums_agree_with_pyarrow_group_by() -> None:
    batch = _market()
    width = 1_000_000_000
    spec = Window(
        Tumbling("1s"),
        {"n": agg.count(), "volume": agg.sum("size"), "high": agg.max("price"), "sd": agg.std("price")},
        keys=("account", "symbol"),
    )
    got = run_operator(spec, batch, sizes=1_000).rows
    window = pa.array(event_ns(batch) // width * width)
    table = pa.table({"window_start": window, **{n: batch[n] for n in ("account", "size", "price")}})
    table = table.append_column("symbol", batch["symbol"].cast(pa.utf8()))
    oracle = table.group_by(["window_start", "account", "symbol"]).aggregate(
        [
            ("size", "count"),
            ("size", "sum"),
            ("price", "max"),
            ("price", "stddev", pc.VarianceOptions(ddof=1)),
        ]
    )
    oracle = oracle.sort_by([(n, "ascending") for n in ("window_start", "account", "symbol")])
    assert got.num_rows == oracle.num_rows > 10_000
    assert got["window_start"].cast(pa.int64()).to_pylist() == oracle["window_start"].to_pylist()
    same = {"account": "account", "symbol": "symbol", "n": "size_count", "volume": "size_sum", "high": "price_max"}
    for name, theirs in same.items():
        assert got[name].to_pylist() == oracle[theirs].to_pylist(), name
    several = np.array(oracle["size_count"]) > 1
    np.testing.assert_allclose(
        np.array(got["sd"].to_numpy())[several], np.array(oracle["price_stddev"])[several], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("size", "every"), [("1s", "1s"), ("10s", "1s"), ("2500ms", "1s")])
def test_sliding_counts_and_sums_agree_with_polars(size: str, every: str) -> None:
    pl = pytest.importorskip("polars")
    batch = _market(5_000)
    spec = Window(Sliding(size, every), {"n": agg.count(), "volume": agg.sum("size")}, keys=("symbol",))
    got = run_operator(spec, batch, sizes=300).rows
    frame = pl.DataFrame(
        {"t": event_ns(batch), "symbol": batch["symbol"].cast(pa.utf8()).to_pylist(), "size": batch["size"].to_numpy()}
    ).with_columns(pl.from_epoch("t", time_unit="ns"))
    oracle = (
        frame.group_by_dynamic("t", every=every, period=size, group_by="symbol", start_by="window", closed="left")
        .agg(pl.len().alias("n"), pl.col("size").cast(pl.Int64).sum().alias("volume"))
        .with_columns(pl.col("t").dt.epoch("ns"))
    )
    expected = {(t, symbol): (n, volume) for t, symbol, n, volume in oracle.select("t", "symbol", "n", "volume").rows()}
    ours = plain(got, ["window_start", "symbol", "n", "volume"])
    mine = {(t, symbol): (n, volume) for t, symbol, n, volume in ours}
    assert len(mine) == len(ours)
    # polars begins at the first window that holds the first row's slide; windows that begin earlier are ours alone
    begins = {symbol: min(t for t, s in expected if s == symbol) for _, symbol in expected}
    assert {k: v for k, v in mine.items() if k[0] >= begins[k[1]]} == expected


def test_real_ticks_give_the_volume_of_each_second(recordings: Any) -> None:
    path = recordings("market/binance_ws_raw")
    file = next(f for f in sorted(path.iterdir()) if f.name.endswith(".gz"))
    times, sizes = [], []
    with gzip.open(file, "rt") as lines:
        for line in lines:
            text = line.split(" ", 1)[1]
            if '"e":"aggTrade"' in text or '"e":"trade"' in text:
                message = json.loads(text)
                message = message.get("data", message)
                times.append(int(message["T"]) * 1_000_000)
                sizes.append(float(message["q"]))
            if len(times) == 5_000:
                break
    if not times:
        pytest.skip("the recording holds no trades")
    batch = events(times, q=pa.array(sizes))
    got = run_operator(Window(Tumbling("1s"), {"volume": agg.sum("q")}), batch, sizes=777).rows
    expected: dict[int, float] = {}
    for time, size in zip(times, sizes, strict=True):
        second = time // 10**9
        expected[second] = expected.get(second, 0.0) + size
    assert got["volume"].to_pylist() == [expected[s] for s in sorted(expected)]


def test_growth_release_and_reuse_of_slots_keep_every_count() -> None:
    rng = np.random.Generator(np.random.Philox(5))
    times = np.sort(rng.integers(-500_000, 500_000, 60_000))
    batch = events(times, key=pa.array(rng.integers(0, 3_000, 60_000)))
    spec = Window(Sliding(7_000, 3_000), {"n": agg.count()}, keys=("key",))
    fine = run_operator(spec, batch, sizes=500)
    coarse = run_operator(spec, batch, watermarks="at the end")
    assert fine.digest == coarse.digest
    whole, rest = divmod(7_000, 3_000)
    in_three = int(np.count_nonzero(times % 3_000 < rest))
    assert sum(fine.rows["n"].to_pylist()) == whole * 60_000 + in_three
    assert fine.metrics.state_bytes < coarse.metrics.state_bytes


def test_output_schema_keeps_key_types_and_says_what_can_be_null() -> None:
    batch = _market(10)
    schema = Window(
        Tumbling("1s"), {"n": agg.count(), "m": agg.mean("price")}, keys=("symbol", "account")
    ).output_schema(batch.schema)
    assert schema.names == ["ts_event", "ts_recv", "seq", "symbol", "account", "window_start", "window_end", "n", "m"]
    assert schema.field("symbol").type == pa.dictionary(pa.int32(), pa.utf8())
    assert [f.name for f in schema if f.nullable] == ["symbol", "account", "m"]


def test_too_much_state_is_an_error_that_names_the_step_and_the_fix() -> None:
    rows = 20_000
    batch = events(list(range(rows)), key=pa.array(range(rows)))
    spec = Window(Tumbling("1s"), {"n": agg.count()}, keys=("key",), state_limit=200_000)
    assert spec.state_bound(batch.schema) == 200_000
    operator = spec.open(Context("per player"), batch.schema)
    with pytest.raises(StateLimitError, match=r"'per player'.*state_limit=200000.*raise state_limit"):
        operator.process(batch)


def test_keys_that_come_and_go_fit_a_small_limit() -> None:
    spec = Window(Tumbling(100), {"n": agg.count()}, keys=("key", "game"), state_limit=400_000)
    context = Context("per player")
    total, peak = 0, 0
    empty = events([], key=pa.array([], pa.utf8()), game=pa.array([], pa.int64()))
    operator = spec.open(context, empty.schema)
    for start in range(0, 60_000, 300):
        numbers = range(start, start + 300)
        batch = events(
            list(numbers), key=pa.array([f"player {i}" for i in numbers]), game=pa.array([i % 7 for i in numbers])
        )
        operator.process(batch)
        for out in operator.advance(start + 300):
            assert [k for k in out["key"].to_pylist() if not k.startswith("player")] == []
            total += sum(out["n"].to_pylist())
        peak = max(peak, context.metrics.state_bytes)
    assert total == 60_000
    assert 0 < peak <= 400_000


def test_rows_at_the_ends_of_time_are_counted_not_wrapped() -> None:
    batch = events([-(2**63), 5, 2**63 - 1])
    result = run_operator(Window(Sliding("10s", "3s"), {"n": agg.count()}), batch, gates=0, watermarks="at the end")
    assert result.dropped == {"ts_event out of range": 2}
    assert result.rows["n"].to_pylist() == [1, 1, 1, 1]


def test_an_empty_stream_gives_no_rows() -> None:
    empty = events([], x=pa.array([], pa.int64()))
    result = run_operator(Window(Sliding("2s", "1s"), {"n": agg.count()}, keys=("x",)), empty)
    assert result.rows.num_rows == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tumbling("0s"), "longer than nothing"),
        (lambda: Tumbling("1 fortnight"), r"Tumbling\(size='1 fortnight'\)"),
        (lambda: Sliding("1s", every="2s"), "skip the rows between"),
        (lambda: Session(0), "longer than nothing"),
        (lambda: Window("1s", {"n": agg.count()}), "Tumbling, Sliding or Session"),
        (lambda: Window(Tumbling("1s"), {}), "something to compute"),
        (lambda: Window(Tumbling("1s"), {"n": "count"}), r"agg\.sum\('size'\)"),
        (lambda: Window(Tumbling("1s"), {"seq": agg.count()}), "two output columns would be called 'seq'"),
        (lambda: Window(Tumbling("1s"), {"k": agg.count()}, keys=("k",)), "'k'"),
        (lambda: Window(Tumbling("1s"), {"n": agg.count()}, state_limit=0), "state_limit"),
    ],
)
def test_wrong_arguments_say_what_to_write_instead(make: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        make()


def test_wrong_columns_are_refused_when_the_graph_is_built() -> None:
    batch = events([0], price=pa.array([1.0]))
    with pytest.raises(GraphError, match=r"no key column 'symbol'.*price"):
        Window(Tumbling("1s"), {"n": agg.count()}, keys=("symbol",)).output_schema(batch.schema)
    with pytest.raises(GraphError, match="'price' cannot be a key"):
        Window(Tumbling("1s"), {"n": agg.count()}, keys=("price",)).output_schema(batch.schema)
    with pytest.raises(GraphError, match="column 0 must be 'ts_event'"):
        Window(Tumbling("1s"), {"n": agg.count()}).output_schema(pa.schema([("x", pa.int64())]))


def test_a_window_is_a_plain_value_that_pickles() -> None:
    spec = Window(Sliding("10s", every="1s"), {"v": agg.sum("size")}, keys=("symbol",))
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_key_by_and_window_are_words_of_the_language(runner: str) -> None:
    batch = _market(3_000)
    values = {"volume": agg.sum("size")}
    stream = read(Rows(batch, rows_per_batch=100)).key_by("symbol").window(Tumbling("1s"), values)
    got = pa.Table.from_batches(list(stream.iterate(runner=runner)), stream.schema)
    expected = run_operator(Window(Tumbling("1s"), values, keys=("symbol",)), batch)
    assert digest(got) == expected.digest
