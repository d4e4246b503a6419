"""Graph building: schemas are checked end to end, errors name the stage, the place, what was expected and what came."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest
from penstock import GraphError, ops, read, sinks
from penstock.ops import agg
from penstock.pipeline.errors import PlanError
from penstock.pipeline.planning import build_plan
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


@pytest.mark.parametrize("wrong", [(0, 4), (5, 4), (1, 2, 3), (1, "many")])
def test_a_number_of_processes_between_two_others_is_checked(wrong: Any) -> None:
    with pytest.raises(GraphError, match=r"parallelism.*test_graph.py"):
        source(TABLE, 10).map(identity, parallelism=wrong)


def test_a_step_with_state_has_no_parallelism_between_two_numbers() -> None:
    with pytest.raises(GraphError, match="without state"):
        source(TABLE, 10).apply(ops.Batch(3), parallelism=(1, 4))


def test_parallelism_between_two_numbers_is_the_most_in_threads_but_no_more_than_there_are() -> None:
    flow = source(TABLE, 10).batch(5).map(identity, parallelism=(2, 6), name="decode").write(sinks.Null())
    assert [stage.workers for threads in (4, 8) for stage in build_plan(flow.graph, threads).stages[1:]] == [4, 6]


def test_on_a_cluster_such_a_step_leaves_the_processes_that_read() -> None:
    def stages(parallelism: Any) -> list[str]:
        mapped = source(TABLE, 10).map(identity, parallelism=parallelism)
        return [
            stage.name for stage in build_plan(mapped.map(identity).write(sinks.Null()).graph, 1, apart=True).stages
        ]

    assert stages(4) == ["read+map+map-2", "write"]
    assert stages((1, 4)) == ["read", "map+map-2", "write"]
