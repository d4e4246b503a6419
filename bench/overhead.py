"""Overhead: five stages that do nothing, on batches of 1,000 rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ._ray import start_ray, stop_ray
from .harness import Case, Contender

__all__ = ["case"]

ROWS, STAGES = 1_000, 5

_RULES = (
    f"Batches of {ROWS:,} rows (48 bytes each) in memory through {STAGES} stages that return what they were given. "
    "Starting and stopping a run is inside the time, starting Ray is not. bytewax and Ray Data run with their defaults; Ray "
    "Data has all cores and fuses the five stages into one task."
)


def case(scratch: Path, *, quick: bool) -> Case:
    many, few = (2_000, 100) if quick else (40_000, 1_000)
    batches = _batches(many)
    some = batches[:few]
    contenders = [
        Contender("penstock local", lambda: penstock_stages(batches, "local"), ours=True),
        Contender("penstock inline", lambda: penstock_stages(batches, "inline"), ours=True),
        Contender("bare for loop", lambda: bare_loop(batches)),
        Contender("bytewax", lambda: with_bytewax(batches), needs=("bytewax",), install="pip install bytewax"),
        Contender("Ray Data", lambda: with_ray(some), needs=("ray", "pandas"), install="pip install 'ray[data]'"),
    ]
    return Case("overhead", f"{STAGES} no-op stages, {ROWS:,}-row batches", "batch", _RULES, contenders, close=stop_ray)


def nothing(batch: Any) -> Any:
    """A stage."""
    return batch


def penstock_stages(batches: list[pa.RecordBatch], runner: str) -> int:
    """Five maps over rows in memory; batches come out of an iterator."""
    from penstock.pipeline import read
    from penstock.sources.memory import Rows

    stream = read(Rows(tuple(batches), rows_per_batch=ROWS))
    for _ in range(STAGES):
        stream = stream.map(nothing)
    return sum(1 for _ in stream.iterate(runner=runner))


def bare_loop(batches: list[pa.RecordBatch]) -> int:
    stages = [nothing] * STAGES
    done = 0
    for batch in batches:
        for stage in stages:
            batch = stage(batch)
        done += batch.num_rows
    return done // ROWS


def with_bytewax(batches: list[pa.RecordBatch]) -> int:
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, TestingSource, run_main

    out: list[pa.RecordBatch] = []
    flow = Dataflow("stages")
    stream = op.input("in", flow, TestingSource(batches))
    for stage in range(STAGES):
        stream = op.map(f"stage{stage}", stream, nothing)
    op.output("out", stream, TestingSink(out))
    run_main(flow)
    return len(out)


def with_ray(batches: list[pa.RecordBatch]) -> int:
    data = start_ray().data.from_arrow([pa.Table.from_batches([batch]) for batch in batches])
    for _ in range(STAGES):
        data = data.map_batches(nothing, batch_size=ROWS, batch_format="pyarrow")
    return sum(1 for _ in data.iter_batches(batch_size=ROWS, batch_format="pyarrow"))


def _batches(count: int) -> list[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    time = pa.timestamp("ns", tz="UTC")
    schema = pa.schema(
        [
            pa.field("ts_event", time, nullable=False), pa.field("ts_recv", time, nullable=False),
            pa.field("seq", pa.uint64(), nullable=False), pa.field("id", pa.int64()), pa.field("price", pa.float64()),
            pa.field("size", pa.float64()),
        ]
    )  # fmt: skip
    batches = []
    for index in range(count):
        seq = np.arange(index * ROWS, (index + 1) * ROWS)
        stamp = pa.array(seq * 1_000).view(time)
        values = [
            stamp,
            stamp,
            pa.array(seq.astype("u8")),
            pa.array(seq),
            pa.array(rng.random(ROWS)),
            pa.array(rng.random(ROWS)),
        ]
        batches.append(pa.RecordBatch.from_arrays(values, schema=schema))
    return batches
