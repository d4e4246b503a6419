"""Range-Doppler maps against a transform in float64, and targets whose range and speed are known."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, events, run_operator
from penstock.ops.radar_fft import RangeDoppler, doppler_axis, range_axis
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, MissingExtraError
from penstock.pipeline.memory import BufferPool

BACKENDS = ("numpy", "torch")


def need(backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")


def batch_of(cubes: np.ndarray, *, mask: list[bool] | None = None) -> pa.RecordBatch:
    kind = pa.fixed_shape_tensor(pa.int16(), list(cubes.shape[1:]))
    nulls = pa.array(mask) if mask is not None else None
    storage = pa.FixedSizeListArray.from_arrays(pa.array(cubes.ravel()), int(np.prod(cubes.shape[1:])), mask=nulls)
    column = pa.ExtensionArray.from_storage(kind, storage)
    return events([10 * i for i in range(len(cubes))], cube=column, label=[str(i) for i in range(len(cubes))])


def random_cubes(rows: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(-2048, 2048, (rows, *shape, 2), dtype=np.int16)


def naive(cube: np.ndarray, spec: RangeDoppler) -> np.ndarray:
    """The map in float64, one receiver of one transmitter at a time, by the definition of the transform."""
    chirps, samples, rx, _ = cube.shape
    turns, channels = chirps // spec.tx, []
    slow, fast = (np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (turns, samples))
    for t in range(spec.tx):
        for r in range(rx):
            part = cube[t :: spec.tx, :, r, 0] + 1j * cube[t :: spec.tx, :, r, 1].astype(np.float64)
            if spec.window == "hann":
                weights = [np.sin(np.pi * np.arange(n) / n) ** 2 if n > 1 else np.ones(1) for n in (turns, samples)]
                part = part * weights[0][:, None] * weights[1]
            found = slow @ part @ fast.T
            channels.append(np.abs(np.roll(found, turns // 2, axis=0)).T)
    return np.stack(channels, -1)[: spec.range_bins]


def maps(table: pa.Table, name: str = "range_doppler") -> np.ndarray:
    return table[name].combine_chunks().to_numpy_ndarray()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", ["hann", "none"])
@settings(max_examples=12, deadline=None)
@given(turns=st.integers(1, 9), samples=st.integers(1, 17), rx=st.integers(1, 4), tx=st.integers(1, 3), data=st.data())
def test_maps_equal_the_transform_in_float64(
    backend: str, window: str, turns: int, samples: int, rx: int, tx: int, data: st.DataObject
) -> None:
    need(backend)
    bins = data.draw(st.none() | st.integers(1, samples))
    spec = RangeDoppler(backend=backend, window=window, tx=tx, range_bins=bins)
    cubes = random_cubes(2, (turns * tx, samples, rx), samples)
    got = maps(run_operator(spec, batch_of(cubes)).rows)
    wanted = np.stack([naive(cube, spec) for cube in cubes])
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-6 * max(1.0, float(wanted.max())))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_frame_equals_numpy_in_float64(backend: str) -> None:
    need(backend)
    cubes = random_cubes(1, (128, 256, 4))
    got = maps(run_operator(RangeDoppler(backend=backend, window="none"), batch_of(cubes)).rows)[0]
    signal = cubes[0, ..., 0] + 1j * cubes[0, ..., 1].astype(np.float64)
    wanted = np.abs(np.fft.fftshift(np.fft.fft2(signal, axes=(0, 1)), axes=0)).transpose(1, 0, 2)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * wanted.max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tx", [1, 2])
def test_a_target_is_found_at_its_range_and_speed(backend: str, tx: int) -> None:
    need(backend)
    chirps, samples, rx = 64 * tx, 128, 2
    rate, slope, period, carrier = 10e6, 60e12, 60e-6, 77e9
    axis = range_axis(samples, sample_rate=rate, slope=slope)
    speeds = doppler_axis(chirps, chirp_period=period, frequency=carrier, tx=tx)
    light = 299_792_458.0
    for distance, speed in ((10.0, 0.0), (5.5, 6.0), (14.0, -3.7)):
        n, c = np.arange(samples), np.arange(chirps)
        beat = 2 * np.pi * (slope * 2 * distance / light) * n / rate
        turn = 4 * np.pi * carrier * speed * period / light * c
        tone = 900 * np.exp(1j * (beat + turn[:, None]))
        cube = np.repeat(np.stack([tone.real, tone.imag], -1)[:, :, None, :], rx, axis=2).round().astype(np.int16)
        got = maps(run_operator(RangeDoppler(backend=backend, tx=tx), batch_of(cube[None])).rows)[0]
        for channel in range(rx * tx):
            r, d = np.unravel_index(got[..., channel].argmax(), got.shape[:2])
            assert abs(axis[r] - distance) <= axis[1] / 2 + 1e-9
            assert abs(speeds[d] - speed) <= (speeds[1] - speeds[0]) / 2 + 1e-9
    assert speeds[len(speeds) // 2] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_neither_batches_nor_threads_nor_restarts_matter(backend: str) -> None:
    need(backend)
    spec, batch = RangeDoppler(backend=backend), batch_of(random_cubes(9, (4, 8, 2)))
    assert run_operator(spec, batch).digest == run_operator(spec, batch, parallelism=4).digest
    assert_restorable(spec, batch, sizes=2)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 6), data=st.data())
def test_rows_do_not_depend_on_batches(rows: int, data: st.DataObject) -> None:
    batch = batch_of(random_cubes(rows, (4, 6, 2)))
    spec = RangeDoppler(backend="numpy", drop_cube=False)
    assert_boundaries_do_not_matter(spec, batch, data=data, schemas=[batch.schema], parallelism=2)


def test_a_slice_in_the_middle_reads_its_own_cubes_and_nulls_are_zero() -> None:
    cubes = random_cubes(6, (4, 6, 2))
    whole = maps(run_operator(RangeDoppler(), batch_of(cubes)).rows)
    batch = batch_of(cubes, mask=[False, False, False, True, False, False]).slice(2, 3)
    part = run_operator(RangeDoppler(), batch).rows
    got = maps(part)
    assert (got[[0, 2]] == whole[[2, 4]]).all()
    assert not got[1].any()
    assert part["label"].to_pylist() == ["2", "3", "4"]


def test_memory_given_by_the_runner_is_written_in_place() -> None:
    pool, asked = BufferPool(), []

    def allocate(name: str, kind: pa.DataType, rows: int) -> Any:
        lease = pool.take(rows * 6 * 4 * 2 * 4)
        asked.append((name, rows, lease))
        return lease

    context = Context("fft")
    context.allocate = allocate
    batch = batch_of(random_cubes(2, (4, 6, 2)))
    (out,) = RangeDoppler().open(context, batch.schema).process(batch)
    assert [(name, rows) for name, rows, _ in asked] == [("range_doppler", 2)]
    got = out["range_doppler"].to_numpy_ndarray()
    assert asked[0][2].array(np.float32, 96).tolist() == got.ravel().tolist()
    assert context.pool.leased_bytes == 0


def test_without_torch_numpy_is_taken_and_torch_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import penstock.ops.radar_fft as radar_fft

    monkeypatch.setattr(radar_fft, "find_spec", lambda name: None)
    batch = batch_of(random_cubes(1, (4, 6, 2)))
    got = run_operator(RangeDoppler(), batch)
    assert got.digest == run_operator(RangeDoppler(backend="numpy"), batch).digest
    with pytest.raises(MissingExtraError, match="pip install"):
        RangeDoppler(backend="torch").open(Context("x"), batch.schema)


SCHEMA = batch_of(random_cubes(0, (4, 6, 2))).schema


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RangeDoppler(window="flat"), "no window"),
        (lambda: RangeDoppler(backend="scipy"), "no backend"),
        (lambda: RangeDoppler(tx=0), "positive"),
        (lambda: RangeDoppler(range_bins=0), "positive"),
        (
            lambda: RangeDoppler(column="no").output_schema(SCHEMA),
            "no column 'no'",
        ),
        (
            lambda: RangeDoppler(column="label").output_schema(SCHEMA),
            "does not hold",
        ),
        (
            lambda: RangeDoppler(output="label").output_schema(SCHEMA),
            "already a column",
        ),
        (lambda: RangeDoppler(tx=3).output_schema(SCHEMA), "whole turns"),
        (lambda: RangeDoppler(range_bins=7).output_schema(SCHEMA), "at most"),
    ],
)
def test_what_does_not_fit_is_said_when_built(make: Any, told: str) -> None:
    with pytest.raises(GraphError, match=told):
        make()


def test_specs_pickle_and_keep_the_other_columns() -> None:
    spec = RangeDoppler(tx=2, drop_cube=False)
    assert pickle.loads(pickle.dumps(spec)) == spec
    schema = spec.output_schema(SCHEMA)
    assert schema.names == ["ts_event", "ts_recv", "seq", "cube", "label", "range_doppler"]
    assert schema.field("range_doppler").type == pa.fixed_shape_tensor(pa.float32(), [6, 2, 4])
