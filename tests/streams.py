"""Small recordings and random pipelines for tests of the runners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st
from penstock import Stream, event_schema, ops, read
from penstock.ops import agg
from penstock.sources import Rows

SCHEMA = event_schema(
    [("symbol", pa.dictionary(pa.int32(), pa.utf8())), ("size", pa.int64()), ("price", pa.float64())], source="test"
)
SYMBOLS = ("AAA", "BB", "C")


def recording(seed: int, rows: int, *, gap_ns: int = 1_000_000, disorder_ns: int = 0) -> pa.Table:
    """A deterministic table of `rows` events, out of order by at most `disorder_ns`."""
    random = np.random.Generator(np.random.Philox(seed))
    times = np.cumsum(random.integers(0, 2 * gap_ns, rows)) + 1_700_000_000_000_000_000
    if disorder_ns:
        times = times - random.integers(0, disorder_ns + 1, rows)
    moments = pa.array(times).cast(SCHEMA.field(0).type)
    codes = pa.array(random.integers(0, len(SYMBOLS), rows).astype(np.int32))
    arrays = [
        moments,
        moments,
        pa.array(np.arange(rows, dtype=np.uint64)),
        pa.DictionaryArray.from_arrays(codes, pa.array(SYMBOLS)),
        pa.array(random.integers(1, 1000, rows)),
        pa.array(random.random(rows) * 100),
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def notional(price: np.ndarray, size: np.ndarray) -> np.ndarray:
    return price * size


def repeat_large(batch: pa.RecordBatch) -> pa.RecordBatch:
    times = np.where(np.asarray(batch.column("size")) > 500, 2, 1)
    return batch.take(pa.array(np.repeat(np.arange(batch.num_rows), times)))


def affordable(price: np.ndarray) -> np.ndarray:
    return price < 75


def identity(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


ROW_STEPS: dict[str, Any] = {
    "map": lambda s: s.map(identity),
    "columns": lambda s: s.map(notional, inputs=["price", "size"], outputs={"price": pa.float64()}),
    "filter": lambda s: s.filter(affordable, inputs=["price"]),
    "expression": lambda s: s.filter(pc.field("size") > 100),
    "flat_map": lambda s: s.flat_map(repeat_large),
    "parallel": lambda s: s.map(identity, parallelism=3),
    "batch": lambda s: s.batch(7),
    "aged": lambda s: s.batch(50, max_age="4ms"),
}


def pipelines(make: Any, plan: Sequence[str], ending: str, parts: int | None = None) -> Stream:
    """A stream from a drawn description: row steps on the first source, then an ending; keyed ones divided into `parts`."""
    stream: Stream = make(0)
    for word in plan:
        stream = ROW_STEPS[word](stream)
    if ending == "sync":
        return stream.sync(make(1), tolerance="3ms")
    if ending == "join":
        return stream.key_by("symbol").join_asof(make(1), tolerance="20ms")
    if ending == "merge":
        return stream.merge(make(1), make(2)).batch(11)
    if ending == "self join":
        whole = make(0)
        return whole.filter(affordable, inputs=["price"]).sync(whole.map(identity), tolerance="1ms")
    if ending == "window":
        return stream.key_by("symbol", parallelism=parts).window(
            ops.Tumbling("10ms"), n=agg.count(), total=agg.sum("price")
        )
    if ending == "sliding":
        return (
            stream.key_by("symbol", parallelism=parts)
            .window(ops.Sliding("10ms", every="5ms"), mean=agg.mean("price"))
            .batch(5)
        )
    if ending == "session":
        return stream.window(ops.Session(gap="3ms"), low=agg.min("price"), last=agg.last("size"))
    return stream


plans = st.lists(st.sampled_from(sorted(ROW_STEPS)), max_size=3)
endings = st.sampled_from(["none", "sync", "join", "merge", "self join", "window", "sliding", "session"])


def source(table: pa.Table, rows_per_batch: int, lateness_ns: int = 0, **options: Any) -> Stream:
    return read(Rows(table, rows_per_batch), lateness=lateness_ns, **options)
