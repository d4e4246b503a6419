"""Which process runs what, without starting any."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from penstock import Flow, models, ops, read, sinks
from penstock.models import TensorSpec
from penstock.ops import agg
from penstock.pipeline.cluster.layout import DRIVER, Layout, edges, lay_out
from penstock.pipeline.cluster.opening import Opening
from penstock.pipeline.cluster.staffing import Cluster, budgets_of, seats
from penstock.pipeline.errors import PlanError
from penstock.pipeline.options import RunOptions
from penstock.pipeline.planning import build_plan
from penstock.sources import Rows
from streams import identity, recording

CLUSTER = Cluster({"CPU": 16.0}, [8.0, 8.0], 1 << 30)


def laid_out(flow: Flow, readers: int = 2, *, paced: bool = False, **resources: float) -> Layout:
    return lay_out(build_plan(flow.graph, 1, apart=True), readers, {"CPU": 16.0, **resources}, paced=paced)


def where(layout: Layout) -> dict[str, list[str]]:
    return {host.name: [node.id for stage in host.stages for node in stage.nodes] for host in layout.hosts}


def rows(seed: int = 0, **options: Any) -> Any:
    return read(Rows(recording(seed, 100), 10), **options)


def inferring(**options: Any) -> Flow:
    one = rows().map(ops.RollingSequence(columns=("price", "size"), length=4, every=1, key="symbol"))
    model = models.load("market", features=2, length=4)
    return one.batch(8).infer(model, **options).write(sinks.Null())


MODEL = models.Simulator(service_time=0, inputs={"price": TensorSpec(pa.float64())})


def test_sinks_are_in_the_driver_and_serial_steps_share_a_host() -> None:
    stream = rows(0).sync(rows(1), tolerance="1ms").key_by("symbol").window(ops.Tumbling("1s"), n=agg.count())
    placed = where(laid_out(stream.write(sinks.Null())))
    assert placed["driver"] == ["write"]
    (other,) = [nodes for name, nodes in placed.items() if name != "driver"]
    assert set(other) == {"read", "read-2", "read.watermark", "read-2.watermark", "sync", "window"}


def test_what_has_no_serial_step_is_put_in_order_by_the_driver() -> None:
    layout = laid_out(rows().map(identity).write(sinks.Null()))
    assert [host.index for host in layout.hosts] == [DRIVER]
    assert [(node.id, count) for node, count in layout.readers.items()] == [("read", 2)]
    assert edges(layout) == []


def test_independent_pipelines_have_hosts_of_their_own() -> None:
    flow = rows(0).batch(5).write(sinks.Null()) + rows(1).batch(5).write(sinks.Null())
    assert len(laid_out(flow).hosts) == 3


def test_sources_that_are_replayed_at_a_speed_share_a_host_and_so_a_schedule() -> None:
    flow = rows(0).batch(5).write(sinks.Null()) + rows(1).write(sinks.Null())
    layout = laid_out(flow, paced=True)
    reading = [node for node in layout.plan.nodes if node.id in ("read", "read-2")]
    assert len({layout.host_of(node).index for node in reading}) == 1
    assert all(layout.host_of(producer).index != DRIVER for producer, _, _ in edges(layout))
    one = laid_out(rows().map(identity).write(sinks.Null()), paced=True)
    assert [host.index for host in one.hosts] == [DRIVER]


def test_the_model_has_a_host_with_the_gpu_where_there_is_one() -> None:
    layout = laid_out(inferring(), GPU=2.0)
    model = next(host for host in layout.hosts if host.name == "infer")
    assert [node.id for stage in model.stages for node in stage.nodes][-1] == "infer"
    assert model.resources == {"GPU": 1.0}
    assert next(h for h in laid_out(inferring()).hosts if h.name == "infer").resources == {}


def test_a_part_of_a_gpu_is_enough_where_the_user_says_so() -> None:
    layout = laid_out(inferring(resources={"GPU": 0.5}), GPU=1.0)
    (seat,) = [s for s in seats(layout, CLUSTER) if s.options.get("num_gpus")]
    assert seat.options["num_gpus"] == 0.5


def test_a_cluster_without_what_a_step_needs_is_refused_with_its_name_and_place() -> None:
    with pytest.raises(PlanError, match=r"step 'infer' \(.*test_layout.py:\d+\) needs 1 of 'GPU', the cluster has 0"):
        laid_out(inferring(resources={"GPU": 1}))


def test_a_step_with_resources_has_a_process_of_its_own() -> None:
    stream = rows().batch(5).apply(ops.Batch(7), resources={"CPU": 2})
    layout = laid_out(stream.write(sinks.Null()))
    assert any(host.resources == {"CPU": 2} for host in layout.hosts)
    assert any(s.options["num_cpus"] == 2 and not s.flexible for s in seats(layout, CLUSTER))


def test_keyed_steps_and_pools_have_the_processes_that_were_asked_for() -> None:
    stream = rows(parallelism=3).key_by("symbol", parallelism=4).window(ops.Tumbling("1s"), n=agg.count())
    layout = laid_out(stream.map(identity, parallelism=2).write(sinks.Null()))
    found: dict[str, int] = {}
    for seat in seats(layout, CLUSTER):
        found[seat.kind] = found.get(seat.kind, 0) + 1
    assert found == {"reader": 3, "part": 4, "pool": 2, "host": 1}


def test_all_edges_together_fit_the_object_store() -> None:
    layout = laid_out(rows(parallelism=8).batch(5).map(identity, parallelism=8).write(sinks.Null()))
    small = Cluster({"CPU": 16.0}, [8.0, 8.0], 50 << 20)
    budgets = budgets_of(layout, small, RunOptions())
    assert 8 * budgets["read"] + 16 * budgets["read"] < 0.5 * small.store_bytes
    with pytest.raises(PlanError, match=r"share .* of object store"):
        budgets_of(layout, Cluster({"CPU": 16.0}, [16.0], 1 << 20), RunOptions())


def test_schemas_do_not_depend_on_the_layout() -> None:
    flow = rows().batch(5).map(identity, parallelism=2).write(sinks.Null())
    apart, together = build_plan(flow.graph, 1, apart=True), build_plan(flow.graph, 4)
    assert [(n.id, n.schema) for n in apart.nodes] == [(n.id, n.schema) for n in together.nodes]
    assert all(isinstance(n.schema, pa.Schema) for n in apart.nodes)


def test_a_host_has_its_role_behind_those_who_serve_it_and_begins_behind_those_it_pulls_from() -> None:
    stream = rows().apply(ops.Batch(7), resources={"CPU": 1}, name="order").batch(8)
    layout = laid_out(stream.infer(MODEL).write(sinks.Null()))
    everyone = seats(layout, CLUSTER)
    names = {seat: layout.hosts[int(seat.serves)].name for seat in everyone if seat.kind == "host"}
    opening = Opening(layout, everyone)
    first = opening.to_brief()
    assert sorted(names.get(seat, seat.kind) for seat in first) == ["infer", "reader", "reader"]
    assert opening.to_brief() == [] and opening.to_start() == []
    opening.briefed |= {seat for seat in first if seat.kind == "reader"}
    (order,) = opening.to_brief()
    assert names[order] == "order" and opening.to_start() == []
    opening.briefed.add(order)
    assert opening.to_start() == [order]  # while the model is being loaded
    opening.briefed |= set(first)
    assert [names[seat] for seat in opening.to_start()] == ["infer"] and opening.to_start() == []


def test_light_steps_that_only_a_model_reads_need_no_process_of_their_own() -> None:
    table = recording(0, 100).append_column("data", pa.array([b""] * 100, pa.large_binary()))
    stream = read(Rows(table, 10)).map(ops.DecodeImage(8, 8)).batch(8)
    model = models.Simulator(service_time=0, inputs={"image": TensorSpec(pa.uint8(), (8, 8, 3))})
    layout = laid_out(stream.infer(model).write(sinks.Null()))
    assert where(layout) == {"driver": ["write"], "infer": ["read", "batch", "decode_image", "prefetch", "infer"]}
