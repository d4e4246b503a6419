"""`Collect` and `Null`."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError
from penstock.pipeline.sink import Sink, SinkSpec
from penstock.sinks.memory import Collect, Null

SCHEMA = pa.schema([("n", pa.int64())])


def batch(*numbers: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(numbers, pa.int64())], schema=SCHEMA)


def opened(spec: SinkSpec) -> Sink:
    spec.check(SCHEMA)
    return spec.open(Context("write"), SCHEMA)


def test_collect_has_the_rows_of_the_last_run_that_committed() -> None:
    spec = Collect()
    with pytest.raises(ValueError, match="run the pipeline first"):
        spec.table()
    for rows in ([1, 2], [3]):
        sink = opened(spec)
        sink.write(batch(*rows))
        assert spec.batches == [] or spec.table().column("n").to_pylist() != rows
        sink.commit()
        assert spec.table().column("n").to_pylist() == rows
    failed = opened(spec)
    failed.write(batch(9))
    failed.abort()
    assert spec.table().column("n").to_pylist() == [3]


def test_collect_keeps_the_schema_of_a_run_without_rows() -> None:
    spec = Collect()
    opened(spec).commit()
    assert spec.table().schema == SCHEMA
    assert spec.table().num_rows == 0


def test_collect_stops_at_its_limit() -> None:
    sink = opened(Collect(max_bytes=20))
    sink.write(batch(1, 2))
    with pytest.raises(StateLimitError, match="max_bytes"):
        sink.write(batch(3))
    with pytest.raises(GraphError, match="max_bytes"):
        Collect(max_bytes=0)


def test_collect_counts_what_it_restored_against_its_limit() -> None:
    first = opened(Collect())
    first.write(batch(1, 2))
    spec = Collect(max_bytes=30)
    second = opened(spec)
    second.restore(first.snapshot())
    second.write(batch(3))
    with pytest.raises(StateLimitError):
        second.write(batch(4))
    second.commit()
    assert spec.table().column("n").to_pylist() == [1, 2, 3]


def test_a_copy_of_collect_travels_without_the_rows() -> None:
    spec = Collect(max_bytes=100)
    sink = opened(spec)
    sink.write(batch(1))
    sink.commit()
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec
    assert copy.batches == []
    assert hash(copy) == hash(spec)


def test_null_counts_and_keeps_nothing() -> None:
    sink = opened(Null())
    sink.write(batch(1, 2))
    later = opened(Null())
    later.restore(sink.snapshot())
    later.write(batch(3))
    assert later.snapshot() == {"rows": 3}
    assert Null().state_bound(SCHEMA) == 0


def test_letting_go_shows_nothing() -> None:
    spec = Collect()
    for end in ("detach", "abort"):
        sink = opened(spec)
        sink.write(batch(1))
        getattr(sink, end)()
        getattr(sink, end)()
        assert spec.batches == []
    null = opened(Null())
    null.write(batch(1))
    null.detach()
