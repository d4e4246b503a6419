"""Batches cross processes in shared memory, are read where they lie, and wait within their budgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from penstock import Flow, Report, Stream, ops, sinks
from penstock.ops import agg
from ray_runs import connection, facts
from streams import identity, recording, source

pytestmark = [pytest.mark.ray, pytest.mark.nightly]
IN_STORE = {"shared": pa.bool_(), "writable": pa.bool_(), "process": pa.int64()}


@pytest.fixture(scope="module", autouse=True)
def connected(cluster: Any) -> Iterator[Any]:
    with connection(cluster.address, __name__) as ray:
        yield ray


def shared_ranges() -> list[tuple[int, int]]:
    """Where the object store is mapped into this process."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, _, _, _, _, *path = line.split(maxsplit=5)
        if path and path[0].startswith("/dev/shm/"):
            low, high = bounds.split("-")
            found.append((int(low, 16), int(high, 16)))
    return found


def look(size: np.ndarray, price: np.ndarray) -> dict[str, np.ndarray]:
    """Whether both columns lie in the object store, whether they can be written to, and which process looked."""
    import os

    ranges = shared_ranges()
    inside = [any(low <= column.ctypes.data < high for low, high in ranges) for column in (size, price)]
    writable = size.flags.writeable or price.flags.writeable
    rows = len(size)
    return {
        "shared": np.full(rows, all(inside)),
        "writable": np.full(rows, writable),
        "process": np.full(rows, os.getpid()),
    }


def looked_at(stream: Stream, **options: Any) -> Stream:
    return stream.map(look, inputs=["size", "price"], outputs=IN_STORE, **options)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("where", ["a pool", "the next host"])
def test_a_step_in_another_process_reads_batches_in_the_mapping_of_the_object_store(where: str) -> None:
    # 20,000 rows are about a megabyte: what is small travels inside the answer of a call
    table = recording(1, 60_000)
    stream = source(table, 20_000, parallelism=1).map(identity)
    stream = looked_at(stream.batch(20_000), parallelism=2 if where == "a pool" else None)
    seen = sinks.Collect()
    report = stream.write(seen).run(runner="ray")
    out = seen.table()
    assert out.num_rows == 60_000
    assert out["writable"].to_pylist() == [False] * 60_000
    assert out["shared"].to_pylist() == [True] * 60_000
    assert np.array_equal(np.asarray(out["seq"]), np.arange(60_000))
    cluster = report["cluster"]
    assert cluster["moved_bytes"] > table.nbytes
    assert cluster["spilled_bytes"] == 0


def sliced(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """A few rows of a large buffer, which must not travel with them."""
    return [batch.slice(0, batch.num_rows // 10)]


def counted(stream: Stream) -> tuple[Report, int, int]:
    """A run on the cluster: its report, and the bytes moved and copied."""
    report = stream.write(sinks.Null()).run(runner="ray")
    return report, report["cluster"]["moved_bytes"], report["cluster"]["copied_bytes"]


def test_bytes_are_counted_wherever_they_pass_and_copied_only_where_a_batch_is_cut_from_a_larger_one() -> None:
    table = recording(2, 50_000)
    size = 50_000 * 44  # without the dictionary

    def whole() -> Stream:
        return source(table, 50_000, parallelism=1)

    _, moved, copied = counted(whole().batch(50_000).map(identity, parallelism=2))  # to the pool and from there
    assert 3 * size <= moved < 3.3 * size and copied == 0
    _, moved, _ = counted(whole().key_by("symbol", parallelism=2).window(ops.Tumbling("1s"), n=agg.count()))
    assert 2 * size <= moved < 2.3 * size
    report, moved, copied = counted(source(table, 5_000, parallelism=1).batch(25_000).flat_map(sliced))
    assert report.rows == 5_000
    assert size <= moved < 1.3 * size and 1.1 * size < copied + size / 5 < 1.5 * size


def wide(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    return [batch] * 20


@pytest.mark.parametrize("edge_bytes", [1, pytest.param("64KiB", marks=pytest.mark.nightly)])
def test_a_batch_larger_than_the_credit_of_its_edge_passes(edge_bytes: int | str) -> None:
    table = recording(3, 40_000)
    stream = source(table, 10_000, parallelism=2).flat_map(wide, parallelism=2).batch(100_000)
    flow = stream.map(identity, parallelism=2).batch(70_000).write(sinks.Null())
    report = flow.run(runner="ray", edge_bytes=edge_bytes)
    assert report.rows == 800_000
    assert facts(report) == facts(flow.run(runner="inline"))
    assert report["cluster"]["spilled_bytes"] == 0


def slow(batch: pa.RecordBatch, number: int) -> None:
    """A consumer slower than its producers."""
    for _ in range(20):
        np.sort(np.asarray(batch.column("price")))


def test_a_slow_consumer_stops_its_producers_and_nothing_spills(cluster: Any) -> None:
    table = recording(4, 13_000)

    def flow() -> Flow:
        many = source(table, 1_300, parallelism=3).flat_map(wide).flat_map(wide)
        return many.batch(50_000).write(sinks.Callback(slow, rows=50_000))

    report = flow().run(runner="ray")
    assert report.rows == 5_200_000
    rows_bytes = report["sinks"]["write"]["bytes"]
    assert rows_bytes > 220_000_000  # more than the object store of a node holds
    assert report["cluster"]["spilled_bytes"] == 0
    assert report["memory"]["peak_data_bytes"] < rows_bytes / 2
