"""Radar tensors against plain Python, on sliced batches, nulls and hostile numbers."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, events, run_operator
from penstock.ops.radar import PadRadar, RasterRadar
from penstock.pipeline.errors import GraphError

FIELDS = ("x", "y", "z", "vr", "rcs")
POINT = pa.struct(
    [
        *((name, pa.float32()) for name in ("x", "y", "z", "vr", "rcs", "snr")),
        ("track_id", pa.uint32()),
        ("flags", pa.uint16()),
    ]
)
POINTS = pa.list_(POINT)

coordinate = st.one_of(
    st.none(), st.floats(-120, 120, width=32), st.sampled_from([0.0, 50.0, 100.0, -50.0, math.nan, math.inf, -math.inf])
)
point = st.one_of(st.none(), st.fixed_dictionaries(dict.fromkeys(FIELDS, coordinate)))
scans = st.lists(st.one_of(st.none(), st.lists(point, max_size=12)), max_size=8)


def batch_of(rows: list[Any], kind: pa.DataType = POINTS) -> pa.RecordBatch:
    label = pa.array([str(i) for i in range(len(rows))], pa.utf8())
    return events([10 * i for i in range(len(rows))], points=pa.array(rows, kind), label=label)


def number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(np.float32(value))


def placed(scan: list[Any] | None) -> list[dict[str, float | None]]:
    """The points of a scan that have a position, missing values as None."""
    points = [{name: number(value) for name, value in p.items()} for p in scan or [] if p is not None]
    return [p for p in points if p["x"] is not None and p["y"] is not None]


def naive_grid(scan: list[Any] | None, spec: RasterRadar) -> tuple[np.ndarray, int]:
    grid, outside = np.zeros((3, spec.height, spec.width), np.float64), 0
    cells: dict[tuple[int, int], list[dict[str, float | None]]] = {}
    (x0, x1), (y0, y1) = spec.x_range, spec.y_range
    for p in placed(scan):
        if not (x0 <= p["x"] < x1 and y0 <= p["y"] < y1):
            outside += 1
            continue
        row = min(int((p["x"] - x0) * (spec.height / (x1 - x0))), spec.height - 1)
        column = min(int((p["y"] - y0) * (spec.width / (y1 - y0))), spec.width - 1)
        cells.setdefault((row, column), []).append(p)
    for cell, points in cells.items():
        speeds = [p["vr"] for p in points if p["vr"] is not None]
        echoes = [p["rcs"] for p in points if p["rcs"] is not None]
        grid[(0, *cell)] = len(points)
        grid[(1, *cell)] = sum(speeds) / len(speeds) if speeds else 0
        grid[(2, *cell)] = max(echoes, default=0)
    return grid, outside


@settings(max_examples=100, deadline=None)
@given(rows=scans, shape=st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_grid_equals_plain_python(rows: list[Any], shape: tuple[int, int]) -> None:
    spec = RasterRadar(*shape)
    result = run_operator(spec, batch_of(rows))
    wanted = [naive_grid(row, spec) for row in rows]
    got = result.rows["radar"].combine_chunks().to_numpy_ndarray() if rows else np.empty((0, 3, *shape))
    np.testing.assert_allclose(got, np.array([g for g, _ in wanted]).reshape(got.shape), rtol=1e-5, atol=1e-4)
    given_points = sum(len(row or []) for row in rows)
    assert result.noted.get("radar points outside the grid", 0) == sum(outside for _, outside in wanted)
    assert result.noted.get("radar points without a position", 0) == given_points - sum(len(placed(r)) for r in rows)


@settings(max_examples=100, deadline=None)
@given(rows=scans, most=st.integers(1, 9))
def test_tokens_are_the_nearest_points_in_order(rows: list[Any], most: int) -> None:
    spec = PadRadar(most)
    result = run_operator(spec, batch_of(rows))
    over = 0
    for index, row in enumerate(rows):
        points = sorted(placed(row), key=lambda p: p["x"] ** 2 + p["y"] ** 2 + (p["z"] or 0.0) ** 2)
        over += max(0, len(points) - most)
        tokens = np.array(result.rows["radar"][index].as_py(), np.float32).reshape(most, 5)
        mask = np.array(result.rows["radar_mask"][index].as_py(), np.float32)
        kept = points[:most]
        assert mask.tolist() == [1.0] * len(kept) + [0.0] * (most - len(kept))
        wanted = np.zeros((most, 5), np.float32)
        for k, p in enumerate(kept):
            wanted[k] = [np.float32(p[n] or 0) / np.float32(s) for n, s in zip(FIELDS, spec.scale, strict=True)]
        np.testing.assert_array_equal(tokens, wanted)
    assert result.noted.get("radar points beyond max_points", 0) == over


@settings(max_examples=40, deadline=None)
@given(rows=scans, data=st.data(), spec=st.sampled_from([RasterRadar(5, 6), PadRadar(3)]))
def test_rows_do_not_depend_on_batches(rows: list[Any], data: st.DataObject, spec: RasterRadar | PadRadar) -> None:
    assert_boundaries_do_not_matter(spec, batch_of(rows), data=data, schemas=[batch_of([]).schema], parallelism=2)


@pytest.mark.parametrize("spec", [RasterRadar(5, 6), PadRadar(3)])
def test_threads_change_nothing(spec: RasterRadar | PadRadar) -> None:
    rng = np.random.default_rng(1)
    rows = [
        [dict(zip("xy", rng.uniform(-60, 120, 2), strict=True)) for _ in range(rng.integers(9))] for _ in range(300)
    ]
    assert run_operator(spec, batch_of(rows)).digest == run_operator(spec, batch_of(rows), parallelism=4).digest
    assert_restorable(spec, batch_of(rows[:20]), sizes=3)


@pytest.mark.parametrize("spec", [RasterRadar(4, 4), PadRadar(2)])
def test_a_slice_in_the_middle_reads_its_own_points(spec: RasterRadar | PadRadar) -> None:
    rows = [[{"x": float(i), "y": 0.0, "vr": float(i)}] * (i + 1) for i in range(6)]
    rows[2] = None
    batch = batch_of(rows)
    whole = run_operator(spec, batch).rows
    part = run_operator(spec, batch.slice(2, 3)).rows
    assert part["radar"].to_pylist() == whole["radar"][2:5].to_pylist()
    assert part["label"].to_pylist() == ["2", "3", "4"]


def test_points_under_a_null_scan_or_null_point_are_not_read() -> None:
    x = pa.array([1, 2, 3, 4], pa.float32())
    struct = pa.StructArray.from_arrays([x] * 5, names=list(FIELDS), mask=pa.array([False, True, False, False]))
    hidden = pa.ListArray.from_arrays(pa.array([0, 3, 4], pa.int32()), struct, mask=pa.array([False, True]))
    result = run_operator(PadRadar(4), events([0, 1], points=hidden))
    assert np.array(result.rows["radar_mask"].to_pylist()).sum(axis=1).tolist() == [2, 0]


def test_wide_floats_and_large_lists_are_accepted() -> None:
    kind = pa.large_list(pa.struct([(name, pa.float64()) for name in ("x", "y", "z", "vr", "rcs")]))
    rows = [[{"x": 1.5, "y": 2.5, "z": None, "vr": 1.0, "rcs": -7.0}]]
    result = run_operator(RasterRadar(10, 10), batch_of(rows, kind))
    grid = np.array(result.rows["radar"][0].as_py()).reshape(3, 10, 10)
    assert grid[:, 0, 5].tolist() == [1.0, 1.0, -7.0]


def test_memory_given_by_the_runner_is_written_in_place() -> None:
    from penstock.pipeline.context import Context
    from penstock.pipeline.memory import BufferPool

    pool, asked = BufferPool(), []

    def allocate(name: str, kind: pa.DataType, rows: int) -> Any:
        lease = pool.take(rows * 64 * 4 * 5)
        asked.append((name, rows, lease))
        return lease

    context = Context("radar")
    context.allocate = allocate
    batch = batch_of([[{"x": 1.0, "y": 0.0, "vr": 3.0}], []])
    (out,) = PadRadar(8, scale=(1, 1, 1, 1, 1)).open(context, batch.schema).process(batch)
    assert [(name, rows) for name, rows, _ in asked] == [("radar", 2), ("radar_mask", 2)]
    assert asked[0][2].array(np.float32, 5).tolist() == out["radar"][0].as_py()[:5] == [1.0, 0.0, 0.0, 3.0, 0.0]
    assert context.pool.leased_bytes == 0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RasterRadar(0, 4), "positive size"),
        (lambda: RasterRadar(4, 4, x_range=(5, 5)), "x_range"),
        (lambda: RasterRadar(4, 4, y_range=(0, math.inf)), "y_range"),
        (lambda: PadRadar(0), "max_points"),
        (lambda: PadRadar(4, scale=(1, 1, 0, 1, 1)), "scale"),
        (lambda: PadRadar(4, column="no").output_schema(batch_of([]).schema), "no column 'no'"),
        (lambda: PadRadar(4, column="label").output_schema(batch_of([]).schema), "does not hold radar points"),
        (lambda: RasterRadar(4, 4, output="label").output_schema(batch_of([]).schema), "already a column 'label'"),
    ],
)
def test_what_does_not_fit_is_said_when_built(make: Any, told: str) -> None:
    with pytest.raises(GraphError, match=told):
        make()


@pytest.mark.parametrize("spec", [RasterRadar(4, 5), PadRadar(3, drop_points=False)])
def test_specs_pickle_and_keep_the_other_columns(spec: RasterRadar | PadRadar) -> None:
    assert pickle.loads(pickle.dumps(spec)) == spec
    schema = spec.output_schema(batch_of([]).schema)
    assert schema.names[:3] == ["ts_event", "ts_recv", "seq"]
    assert ("points" in schema.names) is not spec.drop_points
    assert "label" in schema.names
