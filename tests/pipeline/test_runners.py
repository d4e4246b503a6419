"""Both runners give the same rows and digests, at any parallelism and any upstream batch size."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock import Stream, read, sinks
from penstock.pipeline.errors import DecodeError, RunError
from penstock.sources import Rows
from streams import endings, identity, notional, pipelines, plans, recording, source


def digest(stream: Stream, runner: str, **options: object) -> tuple[int, str]:
    report = stream.write(sinks.Null()).run(runner=runner, **options)
    (sink,) = report["sinks"].values()
    return sink["rows"], sink["digest"]


@settings(max_examples=60, deadline=None)
@given(
    plan=plans,
    ending=endings,
    rows=st.integers(0, 400),
    sizes=st.lists(st.integers(1, 150), min_size=2, max_size=2),
    parallelism=st.integers(1, 4),
    disorder=st.sampled_from([0, 2_000_000]),
    edge=st.sampled_from([1, 2_000, 32 << 20]),
)
def test_rows_and_digest_do_not_depend_on_runner_parallelism_or_batch_size(
    plan: Sequence[str],
    ending: str,
    rows: int,
    sizes: Sequence[int],
    parallelism: int,
    disorder: int,
    edge: int,
) -> None:
    tables = [recording(seed, max(0, rows - 40 * seed), disorder_ns=disorder) for seed in range(3)]

    def build(size: int) -> Stream:
        return pipelines(lambda i: source(tables[i], size, disorder // 2), plan, ending)

    whole = digest(build(1_000), "inline")
    assert digest(build(sizes[0]), "inline") == whole
    assert digest(build(sizes[1]), "local", parallelism=parallelism, edge_bytes=edge) == whole


def test_a_plain_pipeline_gives_the_rows_that_numpy_gives() -> None:
    table = recording(1, 5_000)
    stream = source(table, 300).map(notional, inputs=["price", "size"], outputs={"value": pa.float64()})
    stream = stream.filter(lambda value: value > 1_000, inputs=["value"])
    out = pa.Table.from_batches(list(stream))
    value = np.asarray(table["price"]) * np.asarray(table["size"])
    assert np.array_equal(np.asarray(out["value"]), value[value > 1_000])
    assert np.array_equal(np.asarray(out["seq"]), np.flatnonzero(value > 1_000))


def test_late_rows_are_counted_and_available_and_nothing_else_is_lost() -> None:
    table = recording(3, 2_000, disorder_ns=5_000_000)
    gate = source(table, 64).watermark("1ms")
    kept, late = sinks.Collect(), sinks.Collect()
    report = (gate.write(kept) + gate.late.write(late)).run(runner="inline")
    times = np.asarray(table["ts_event"].cast(pa.int64()))
    highest = np.maximum.accumulate(np.concatenate([[times[0]], times[:-1]]))
    expected = times < highest - 1_000_000
    assert report["late_rows"] == expected.sum() > 0
    rows = {step: sink["rows"] for step, sink in report["sinks"].items()}
    assert rows == {"write": (~expected).sum(), "write-2": expected.sum()}


def test_two_sinks_of_one_stream_both_get_every_row() -> None:
    stream = source(recording(2, 1_000), 100).map(identity)
    report = (
        stream.write(sinks.Null()) + stream.filter(lambda size: size > 500, inputs=["size"]).write(sinks.Null())
    ).run()
    first, second = report["sinks"].values()
    assert first["rows"] == 1_000
    assert second["rows"] == 1_000 - report["dropped"]["filter"]["filter"]


def fails_on_seven(size: np.ndarray) -> np.ndarray:
    if np.any(size % 7 == 0):
        raise ValueError("a multiple of seven")
    return size


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_a_function_that_fails_on_some_rows_costs_those_rows(runner: str) -> None:
    table = recording(4, 600)
    stream = source(table, 50).map(fails_on_seven, inputs=["size"], outputs={"size": pa.int64()})
    report = stream.write(sinks.Null()).run(runner=runner)
    bad = int((np.asarray(table["size"]) % 7 == 0).sum())
    assert report["quarantined"] == bad > 0
    assert report.rows == 600 - bad
    assert "ValueError: a multiple of seven" in report["quarantine"][0]["error"]


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_on_error_raise_stops_at_the_first_bad_row_and_names_the_step(runner: str) -> None:
    stream = source(recording(4, 600), 50).map(
        fails_on_seven, inputs=["size"], outputs={"size": pa.int64()}, name="sevens"
    )
    with pytest.raises(DecodeError, match=r"step 'sevens'.*a multiple of seven"):
        stream.write(sinks.Null()).run(runner=runner, on_error="raise")


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_a_function_that_fails_on_every_row_fails_the_run_with_its_place(runner: str) -> None:
    def wrong(size: np.ndarray) -> np.ndarray:
        raise KeyError("typo")

    stream = source(recording(4, 100), 50).map(wrong, inputs=["size"], outputs={"size": pa.int64()})
    with pytest.raises(RunError, match=r"step 'map' \(test_runners.py:\d+\).*fails on every row: 'typo'"):
        stream.write(sinks.Null()).run(runner=runner)


def test_leaving_the_loop_stops_the_run_and_its_threads() -> None:
    before = threading.active_count()
    for number, _ in enumerate(read(Rows(recording(1, 100_000), 10)).map(identity)):
        if number == 3:
            break
    names = [t.name for t in threading.enumerate() if t.name.startswith("penstock-read")]
    assert not names
    assert threading.active_count() <= before + 1


def test_torch_tensors_share_memory_with_the_batches() -> None:
    torch = pytest.importorskip("torch")
    table = recording(1, 256)
    rows = list(source(table, 64).batch(64).to_torch(["size", "price"]))
    assert torch.cat([r["size"] for r in rows]).tolist() == table["size"].to_pylist()
    assert rows[0]["price"].dtype == torch.float64


def test_a_data_loader_around_it_needs_no_workers_and_refuses_them() -> None:
    torch = pytest.importorskip("torch")
    dataset = source(recording(1, 256), 64).batch(100).to_torch(["size"])
    loader = torch.utils.data.DataLoader(dataset, batch_size=None)
    assert [len(b["size"]) for b in loader] == [100, 100, 56]
    with pytest.raises(RuntimeError, match="num_workers=0"):
        list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1))
