"""A record that ends its process is found and put aside; the run goes on with the others."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from penstock import Flow, ops, read, sinks
from penstock.ops import agg
from penstock.sources import Rows
from streams import recording

pytestmark = [pytest.mark.ray, pytest.mark.nightly]

#: The rows whose processing ends the process.
POISON = (777, 1400)
ROWS = 2000


def deadly(batch: pa.RecordBatch) -> pa.RecordBatch:
    if os.environ.get("HARMLESS") is None and np.isin(np.asarray(batch.column("seq")), POISON).any():
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


def head(collect: Any) -> Flow:
    """The deadly step runs where the source is read."""
    return read(Rows(recording(0, ROWS), 100), parallelism=2).map(deadly).write(collect)


def pool(collect: Any) -> Flow:
    """It runs in a pool."""
    return read(Rows(recording(0, ROWS), 100)).batch(150).map(deadly, parallelism=2).write(collect)


def host(collect: Any) -> Flow:
    """It runs between steps that keep order."""
    stream = read(Rows(recording(0, ROWS), 100), lateness="1ms").map(deadly).key_by("symbol")
    return stream.window(ops.Tumbling("100ms"), n=agg.count()).write(collect)


@pytest.fixture(scope="module")
def connection(cluster: Any) -> Iterator[None]:
    import ray

    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("build", [pytest.param(f, marks=pytest.mark.nightly) for f in (head, pool)] + [host])
def test_a_record_that_ends_its_process_goes_to_quarantine(
    connection: None, monkeypatch: pytest.MonkeyPatch, build: Callable[[Any], Flow]
) -> None:
    collected = sinks.Collect()
    with tempfile.TemporaryDirectory() as folder:
        report = build(collected).run(
            ray="auto",
            checkpoint=Path(folder) / "checkpoints",
            checkpoint_every="200ms",
            quarantine=Path(folder) / "aside",
        )
    assert [record["seq"] for record in report["quarantine"]] == list(POISON)
    assert all(record["error"] == "ends its process" for record in report["quarantine"])
    assert 2 <= report["cluster"]["restarts"] <= 6

    monkeypatch.setenv("HARMLESS", "1")
    expected = sinks.Collect()
    build(expected).run(runner="inline")
    if build is host:
        total = sum(expected.table().column("n").to_pylist())
        assert sum(collected.table().column("n").to_pylist()) == total - len(POISON)
    else:
        rows = expected.table().to_pylist()
        assert collected.table().to_pylist() == [row for row in rows if row["seq"] not in POISON]
