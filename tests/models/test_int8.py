"""Quantization: how far from float32, how much smaller, and what happens over the error budget."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from penstock.models import TorchModel, load
from penstock.models import _int8_cpu as int8_cpu
from penstock.models._compare import Sample, quiet
from penstock.models._int8_dynamic import quantize_linear
from penstock.models._torch_executor import TorchExecutor
from penstock.models._torch_open import build
from penstock.pipeline.clock import SyntheticClock
from penstock.pipeline.context import Context
from penstock.pipeline.errors import RunError

ROWS = 8
Batch = dict[str, npt.NDArray[Any]]

x86 = pytest.mark.skipif(not int8_cpu.supported(), reason="static int8 needs oneDNN's x86 kernels")

SPECS = {
    "market": load("market", quantize="int8", length=16),
    "actions": load("actions", quantize="int8", length=16, vocabulary=32),
    "cnn": load("cnn", quantize="int8", height=64, width=64),
    "fusion": load("fusion", quantize="int8", height=64, width=64, points=16),
}


def _batch(spec: TorchModel, seed: int, rows: int = ROWS) -> Batch:
    """Inputs shaped like those of the demos: prices that drift, sparse actions, scenes with edges, radar in metres."""
    rng = np.random.default_rng(seed)
    made: Batch = {}
    for name, tensor in spec.inputs.items():
        shape = (rows, *tensor.shape)
        if name == "image":
            coarse = rng.integers(0, 256, (rows, shape[1] // 16, shape[2] // 16, 3)).repeat(16, 1).repeat(16, 2)
            made[name] = np.clip(coarse + rng.normal(0, 12, shape), 0, 255).astype(np.uint8)
        elif name == "tokens":
            made[name] = rng.integers(1, 32, shape, np.int32)
            made[name][0, :10] = 0
        elif name == "radar":
            made[name] = (rng.standard_normal(shape) * [50, 20, 2, 10, 15]).astype(np.float32)
        elif name == "radar_mask":
            made[name] = (np.arange(shape[1]) < rng.integers(0, shape[1] + 1, (rows, 1))).astype(np.float32)
        else:
            made[name] = (100 + rng.standard_normal(shape).cumsum(1) * 0.01).astype(np.float32)
    return made


class Opened(NamedTuple):
    spec: TorchModel
    int8: TorchExecutor
    float32: TorchExecutor


@pytest.fixture(scope="module", params=sorted(SPECS))
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    spec = SPECS[request.param]
    int8 = spec.open(Context("infer"), ROWS, [_batch(spec, seed) for seed in range(4)])
    plain = dataclasses.replace(spec, quantize=None).open(Context("infer"), ROWS)
    assert isinstance(int8, TorchExecutor) and isinstance(plain, TorchExecutor)
    yield Opened(spec, int8, plain)
    int8.close()
    plain.close()


def _run(executor: TorchExecutor, batch: Batch) -> Batch:
    return {name: executor.fetch(value) for name, value in executor.run(batch).items()}


@x86
def test_int8_stays_near_float32_on_batches_it_never_saw(opened: Opened) -> None:
    batches = [_batch(opened.spec, seed) for seed in (50, 51, 52)]
    for name in opened.spec.outputs:
        one = np.concatenate([_run(opened.float32, b)[name] for b in batches]).astype(np.float64)
        two = np.concatenate([_run(opened.int8, b)[name] for b in batches]).astype(np.float64)
        error = np.linalg.norm(two - one) / np.linalg.norm(one)
        assert 0 < error < 0.1, name  # exactly zero would mean that nothing was quantized


@x86
def test_the_reported_error_is_that_of_the_held_out_batches(opened: Opened) -> None:
    facts = opened.int8.report()["quantization"]
    assert facts["calibration_batches"] == 2
    assert facts["held_out_rows"] == 2 * ROWS
    held_out = [_batch(opened.spec, seed) for seed in (1, 3)]
    for name, reported in facts["error_relative_l2"].items():
        one = np.concatenate([_run(opened.float32, b)[name] for b in held_out]).astype(np.float64)
        two = np.concatenate([_run(opened.int8, b)[name] for b in held_out]).astype(np.float64)
        assert reported == pytest.approx(np.linalg.norm(two - one) / np.linalg.norm(one), rel=1e-3)


@x86
def test_the_report_names_library_scheme_sizes_and_attention(opened: Opened) -> None:
    report = opened.int8.report()
    facts = report["quantization"]
    assert report["dtype"] == "int8"
    assert report["attention"] == ("none" if opened.spec.label == "cnn" else "flash")
    assert facts["library"].startswith("torchao ")
    assert "static" in facts["scheme"]
    assert facts["bytes_float32"] >= 4 * report["parameters"]
    assert facts["bytes"] < facts["bytes_float32"] / 2
    assert set(facts["latency_ms"]) == {"float32", "int8"}
    slower = facts["latency_ms"]["int8"] > facts["latency_ms"]["float32"]
    assert any("slower" in warning for warning in facts["warnings"]) == slower


@x86
def test_padding_rows_leave_real_rows_as_they_are(opened: Opened) -> None:
    batch, other = _batch(opened.spec, 60), _batch(opened.spec, 61)
    padded = {name: np.concatenate([batch[name][:5], other[name][5:]]) for name in batch}
    whole, cut = _run(opened.int8, batch), _run(opened.int8, padded)
    for name in whole:
        np.testing.assert_array_equal(cut[name][:5], whole[name][:5])


@x86
def test_every_linear_and_convolution_becomes_an_int8_kernel(opened: Opened) -> None:
    graph = opened.int8.function.graph  # type: ignore[attr-defined]
    targets = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert not [t for t in targets if t.startswith(("aten.addmm", "aten.mm", "aten.linear", "aten.conv"))]
    layers = [m for m in build(opened.spec).modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    heads = 1 if opened.spec.label == "actions" else 0  # an output of one column may stay outside
    assert len([t for t in targets if t.startswith("onednn.q")]) >= len(layers) - heads


@x86
def test_lowered_kernels_agree_with_torchaos_own_interpretation() -> None:
    spec = SPECS["fusion"]
    module = build(spec)
    calibration = [tuple(torch.from_numpy(a) for a in _batch(spec, seed).values()) for seed in range(2)]
    with torch.no_grad(), quiet():
        converted = int8_cpu.quantize_static(module, calibration)
        lowered = int8_cpu.lower(converted, calibration[0])
        inputs = tuple(torch.from_numpy(a) for a in _batch(spec, 9).values())
        for one, two in zip(lowered(*inputs), converted(*inputs), strict=True):
            assert float((one - two).norm() / two.norm()) < 0.02


@x86
def test_images_reach_the_first_kernel_as_bytes() -> None:
    executor = SPECS["cnn"].open(Context("infer"), 2, [_batch(SPECS["cnn"], 0, 2), _batch(SPECS["cnn"], 1, 2)])
    assert isinstance(executor, TorchExecutor)
    first = next(n for n in executor.function.graph.nodes if "qconv" in str(n.target))  # type: ignore[attr-defined]
    assert first.args[0].meta["val"].dtype is torch.uint8
    assert first.args[1:3] == (1.0, 0)
    assert "_to_copy" not in str([n.target for n in executor.function.graph.nodes])  # type: ignore[attr-defined]


SMALL = load("market", quantize="int8", length=8, width=32, layers=1)


@x86
def test_quantizing_twice_gives_the_same_bytes() -> None:
    batches = [_batch(SMALL, seed) for seed in range(2)]
    executors = [SMALL.open(Context("infer"), ROWS, batches) for _ in range(2)]
    one, two = (_run(e, batches[0]) for e in executors)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one["probabilities"], two["probabilities"])


@x86
def test_over_the_error_budget_it_refuses_with_the_numbers() -> None:
    spec = dataclasses.replace(SMALL, max_error=1e-6)
    with pytest.raises(RunError, match=r"probabilities 0\.0\d+, max_error is 1e-06; raise max_error"):
        spec.open(Context("infer"), ROWS, [_batch(spec, 0), _batch(spec, 1)])


@x86
def test_over_the_error_budget_it_runs_float32_if_asked() -> None:
    spec = dataclasses.replace(SMALL, max_error=1e-6, on_error_budget="float32")
    executor = spec.open(Context("infer"), ROWS, [_batch(spec, 0), _batch(spec, 1)])
    report = executor.report()
    assert report["dtype"] == "float32"
    assert report["quantization"]["used"] is False
    assert "misses its error budget" in report["quantization"]["warnings"][-1]
    plain = dataclasses.replace(spec, quantize=None).open(Context("infer"), ROWS)
    batch = _batch(spec, 5)
    np.testing.assert_array_equal(
        _run(executor, batch)["probabilities"],  # type: ignore[arg-type]
        _run(plain, batch)["probabilities"],  # type: ignore[arg-type]
    )


@x86
def test_it_opens_under_a_clock_that_stands_still_and_with_one_short_batch() -> None:
    executor = SMALL.open(Context("infer", clock=SyntheticClock()), ROWS, [_batch(SMALL, 0, rows=3)])
    facts = executor.report()["quantization"]
    assert facts["speedup"] is None
    assert facts["held_out_rows"] == 2


@pytest.mark.parametrize("batches", [[], [{"features": np.empty((0, 8, 8), np.float32)}]])
def test_nothing_to_calibrate_on_is_an_error(batches: list[Batch]) -> None:
    with pytest.raises(RunError, match="there were none"):
        SMALL.open(Context("infer"), ROWS, batches)


def test_dynamic_int8_of_linear_layers_stays_near_float32() -> None:
    """The path taken on CUDA and on other processors, on this one."""
    module = build(load("market", length=16, features=16))
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((ROWS, 16, 16), np.float32))
    with torch.no_grad(), quiet():
        expected = module(features)
        quantized = copy.deepcopy(module)
        assert quantize_linear(quantized) == 9  # all but the head, whose three outputs no int8 kernel takes
        error = float((quantized(features) - expected).norm() / expected.norm())
        alone = quantized(torch.cat((features[:4], features[:4] * 50)))
        torch.testing.assert_close(alone[:4], quantized(features)[:4])
    assert 0 < error < 0.05


def test_samples_repeat_short_batches_and_cut_long_ones() -> None:
    spec = SMALL
    short, full, long = (Sample.of(_batch(spec, 0, rows=n), spec.inputs, ROWS) for n in (3, ROWS, 11))
    assert [s.rows for s in (short, full, long)] == [3, ROWS, ROWS]
    np.testing.assert_array_equal(short.arrays["features"][3:6], short.arrays["features"][:3])
    assert len(long.arrays["features"]) == ROWS
    calibrating, held_out = Sample.split([short])
    assert (calibrating[0].rows, held_out[0].rows) == (1, 2)
    np.testing.assert_array_equal(held_out[0].arrays["features"][:2], short.arrays["features"][1:3])


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(SPECS))
def test_cuda_int8_stays_near_float32(name: str) -> None:
    spec = dataclasses.replace(SPECS[name], device="cuda")
    report = spec.open(Context("infer"), 32, [_batch(spec, seed, rows=32) for seed in range(4)]).report()
    assert set(report["quantization"]["latency_ms"]) == {"bfloat16", "int8"}
    assert max(report["quantization"]["error_relative_l2"].values()) < 0.1
    assert report["attention"] == ("none" if name == "cnn" else "flash")
