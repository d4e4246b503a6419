"""Graph building: schemas are checked end to end, errors name the stage, the place, what was expected and what came."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest
from penstock import GraphError, ops, read, sinks
from penstock.ops import agg
from penstock.pipeline.errors import PlanError
from penstock.sources import Rows
from streams import SCHEMA, identity, recording, source

TABLE = recording(0, 100)


def test_ids_are_the_same_each_time_and_follow_names() -> None:
    def build() -> list[str]:
        a = source(TABLE, 10).map(identity).map(identity, name="second")
        return [name for name, _ in a.sync(source(TABLE, 10), tolerance="1s").write(sinks.Null()).graph]

    assert build() == build() == ["read", "map", "second", "read-2", "sync", "write"]


def test_a_name_used_twice_is_refused() -> None:
    with pytest.raises(GraphError, match="'twice' is used twice"):
        _ = source(TABLE, 10).map(identity, name="twice").map(identity, name="twice").write(sinks.Null()).graph


def test_a_wrong_column_names_stage_place_expected_and_got() -> None:
    with pytest.raises(GraphError) as caught:
        source(TABLE, 10).map(identity, inputs=["prize"], outputs={"x": pa.int64()})
    assert caught.value.stage == "map"
    assert caught.value.where is not None and caught.value.where.startswith("test_graph.py:")
    assert "prize" in str(caught.value) and "price" in str(caught.value)


def test_a_map_that_drops_the_event_columns_is_refused() -> None:
    with pytest.raises(GraphError, match="column 0 must be 'ts_event'"):
        source(TABLE, 10).map(lambda batch: batch.select(["price"]))


def test_a_map_that_fails_on_no_rows_says_so_with_the_function() -> None:
    with pytest.raises(GraphError, match=r"<lambda> \(test_graph.py:\d+\) failed on an empty batch"):
        source(TABLE, 10).map(lambda batch: batch.column("price")[0])


def test_streams_with_other_schemas_do_not_merge() -> None:
    other = source(TABLE, 10).map(identity, inputs=["price"], outputs={"more": pa.float64()})
    with pytest.raises(GraphError, match="merge"):
        source(TABLE, 10).merge(other)


def test_infer_without_batch_says_what_to_write() -> None:
    from penstock import models

    with pytest.raises(GraphError, match=r"put \.batch\(rows\) before it"):
        model = models.Simulator(service_time="1ms", inputs={"price": models.TensorSpec(pa.float64())})
        source(TABLE, 10).infer(model)


def test_a_source_without_event_columns_is_refused() -> None:
    with pytest.raises(Exception, match="ts_event"):
        Rows(pa.table({"x": [1]}))


def test_a_step_does_not_change_the_stream_it_came_from() -> None:
    stream = source(TABLE, 10)
    stream.map(identity, inputs=["price"], outputs={"double": pa.float64()})
    assert stream.schema == SCHEMA


def test_keys_reach_the_window_and_end_with_their_column() -> None:
    stream = source(TABLE, 10).key_by("symbol").window(ops.Tumbling("1s"), n=agg.count())
    assert stream.keys == ("symbol",)
    assert stream.schema.names == ["ts_event", "ts_recv", "seq", "symbol", "window_start", "window_end", "n"]


def test_a_flow_survives_pickling() -> None:
    flow = source(TABLE, 10).map(identity).batch(7).write(sinks.Null())
    again = pickle.loads(pickle.dumps(flow))
    assert [name for name, _ in again.graph] == [name for name, _ in flow.graph]
    assert again.run(runner="inline").digests == flow.run(runner="local").digests


def test_a_plan_over_budget_is_refused_naming_the_step() -> None:
    flow = source(TABLE, 10).sync(source(TABLE, 10), tolerance="1s", name="pairing").write(sinks.Null())
    with pytest.raises(PlanError, match=r"'pairing'.*64 MiB"):
        flow.run(memory="40MiB")


def test_explain_names_steps_threads_memory_and_copies() -> None:
    text = source(TABLE, 10).map(identity).batch(7).write(sinks.Null()).explain(parallelism=3)
    for expected in ("3 threads", "batch <- map", "memory: at most", "copies once", "symbol dict<string>"):
        assert expected in text
    mermaid = read(Rows(TABLE)).map(identity).write(sinks.Null()).explain("mermaid")
    assert mermaid.startswith("flowchart LR") and "-->" in mermaid
