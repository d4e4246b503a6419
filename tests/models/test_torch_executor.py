"""The torch executor: what goes in and out, threads, weights, other processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from penstock.models import ModelSpec, TensorSpec, load, torch_model
from penstock.models._torch_executor import tensor_of
from penstock.models._torch_open import build
from penstock.models._weights import write_weights
from penstock.pipeline.columns import as_numpy
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError, RunError

MARKET = {"length": 16, "features": 4}
ROWS = 6


def _features(seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    return {"features": np.random.default_rng(seed).standard_normal((ROWS, 16, 4), np.float32)}


def _outputs(spec: ModelSpec, inputs: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    executor = spec.open(Context("infer"), ROWS)
    try:
        return {name: executor.fetch(value) for name, value in executor.run(inputs).items()}
    finally:
        executor.close()


def test_outputs_are_those_of_the_module() -> None:
    spec = load("market", seed=3, **MARKET)
    inputs = _features()
    expected = build(spec)(torch.from_numpy(inputs["features"])).numpy()
    np.testing.assert_allclose(_outputs(spec, inputs)["probabilities"], expected, rtol=1e-5, atol=1e-7)


def test_tensors_are_taken_as_well_as_arrays() -> None:
    spec, inputs = load("market", **MARKET), _features()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    np.testing.assert_array_equal(_outputs(spec, tensors)["probabilities"], _outputs(spec, inputs)["probabilities"])


def test_numpy_becomes_a_tensor_without_a_copy_even_from_read_only_arrow_memory() -> None:
    column = as_numpy(pa.array([float(i) for i in range(12)], pa.float32()))
    column.setflags(write=False)
    assert tensor_of(column).data_ptr() == column.ctypes.data
    owned = np.arange(12, dtype=np.int32)
    assert tensor_of(owned[2:]).data_ptr() == owned.ctypes.data + 8
    np.testing.assert_array_equal(tensor_of(owned[::-1]).numpy(), owned[::-1])


def test_the_report_says_what_ran() -> None:
    executor = load("market", **MARKET).open(Context("infer"), ROWS)
    report = executor.report()
    assert executor.device == "cpu"
    assert {key: report[key] for key in ("model", "device", "dtype", "rows", "threads", "attention")} == {
        "model": "market",
        "device": "cpu",
        "dtype": "float32",
        "rows": ROWS,
        "threads": 1,
        "attention": "flash",
    }
    assert report["parameters"] == sum(p.numel() for p in build(load("market", **MARKET)).parameters())
    assert report["compiled"]["mode"] == "eager"
    assert report["quantization"] is None


def test_the_attention_in_the_report_is_observed() -> None:
    assert load("market", attention="math", **MARKET).open(Context("infer"), ROWS).report()["attention"] == "math"
    cnn = load("cnn", height=32, width=32, channels=16).open(Context("infer"), 2)
    assert cnn.report()["attention"] == "none"


def test_flash_and_math_agree_through_the_executor() -> None:
    inputs = _features()
    flash = _outputs(load("market", **MARKET), inputs)["probabilities"]
    math = _outputs(load("market", attention="math", **MARKET), inputs)["probabilities"]
    assert np.linalg.norm(flash - math) / np.linalg.norm(math) < 1e-5


def test_rows_do_not_depend_on_their_neighbours() -> None:
    executor = load("market", **MARKET).open(Context("infer"), ROWS)
    inputs = _features()
    padded = {"features": inputs["features"].copy()}
    padded["features"][4:] = 1e6
    whole = executor.fetch(executor.run(inputs)["probabilities"])
    np.testing.assert_array_equal(executor.fetch(executor.run(padded)["probabilities"])[:4], whole[:4])


def test_any_thread_gets_the_same_bytes_and_keeps_its_own_thread_count() -> None:
    executor = load("cnn", height=64, width=64, threads=2).open(Context("infer"), 4)
    image = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    before = torch.get_num_threads()
    results: list[npt.NDArray[Any]] = [executor.fetch(executor.run({"image": image})["logits"])]
    counts: list[tuple[int, int]] = []

    def elsewhere() -> None:
        torch.set_num_threads(1)
        start = torch.get_num_threads()
        results.append(executor.fetch(executor.run({"image": image})["logits"]))
        counts.append((start, torch.get_num_threads()))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])
    assert counts == [(1, 1)]
    results.append(executor.fetch(executor.run({"image": image})["logits"]))
    assert torch.get_num_threads() == before
    np.testing.assert_array_equal(results[0], results[2])


def test_wrong_inputs_are_errors_that_say_which() -> None:
    executor = load("market", **MARKET).open(Context("infer"), ROWS)
    with pytest.raises(RunError, match=r"'features' is missing, got \['prices'\]"):
        executor.run({"prices": np.zeros(3)})
    with pytest.raises(RunError, match=r"'features' is torch.float32 \(5, 16, 4\), expected .*\(6, 16, 4\)"):
        executor.run({"features": np.zeros((5, 16, 4), np.float32)})
    with pytest.raises(RunError, match=r"torch.float64"):
        executor.run({"features": np.zeros((6, 16, 4))})
    executor.close()
    with pytest.raises(RunError, match="closed"):
        executor.run(_features())


def test_weights_survive_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "market.safetensors"
    write_weights(build(load("market", seed=11, **MARKET)), path)
    inputs = _features()
    loaded = _outputs(load("market", weights=str(path), **MARKET), inputs)["probabilities"]
    np.testing.assert_array_equal(loaded, _outputs(load("market", seed=11, **MARKET), inputs)["probabilities"])
    assert not np.array_equal(loaded, _outputs(load("market", **MARKET), inputs)["probabilities"])


def test_weights_that_do_not_fit_are_errors_that_name_the_tensor(tmp_path: Path) -> None:
    path = tmp_path / "market.safetensors"
    write_weights(build(load("market", **MARKET)), path)
    with pytest.raises(FormatError, match=r"embed.weight.* is \(64, 4\), the model wants \(64, 5\)"):
        load("market", weights=str(path), length=16, features=5).open(Context("infer"), ROWS)
    with pytest.raises(FormatError, match=r"blocks.2.*missing"):
        load("market", weights=str(path), layers=3, **MARKET).open(Context("infer"), ROWS)
    with pytest.raises(FormatError, match=r"blocks.1.*not part of the model"):
        load("market", weights=str(path), layers=1, **MARKET).open(Context("infer"), ROWS)


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "market.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="not a safetensors file"):
        load("market", weights=str(path), **MARKET).open(Context("infer"), ROWS)


def test_a_missing_weights_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"absent.safetensors: no such file"):
        load("market", weights=str(tmp_path / "absent.safetensors"), **MARKET).open(Context("infer"), ROWS)


_CHILD = """
import pickle, sys
from penstock.pipeline.context import Context
spec, inputs = pickle.load(sys.stdin.buffer)
executor = spec.open(Context("infer"), len(inputs["tokens"]))
pickle.dump({k: executor.fetch(v) for k, v in executor.run(inputs).items()}, sys.stdout.buffer)
"""


def test_a_specification_shipped_to_a_fresh_process_gives_the_same_bytes() -> None:
    spec, inputs = load("actions", length=8, vocabulary=16, seed=2), _actions()
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], input=pickle.dumps((spec, inputs)), stdout=subprocess.PIPE, check=True
    )
    answer, own = pickle.loads(child.stdout), _outputs(spec, inputs)
    assert own.keys() == answer.keys() == {"next_action", "value"}
    for name, value in own.items():
        np.testing.assert_array_equal(answer[name], value)


def _actions() -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "tokens": rng.integers(0, 16, (ROWS, 8), np.int32),
        "context": rng.standard_normal((ROWS, 8, 3), np.float32),
    }


_LINEAR: dict[str, Any] = {
    "inputs": {"x": TensorSpec(pa.float32(), (4,))},
    "outputs": {"y": TensorSpec(pa.float32(), (2,))},
    "arguments": {"in_features": 4, "out_features": 2},
}


def test_any_module_runs_by_its_import_path() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    spec = torch_model("torch.nn:Linear", seed=1, **_LINEAR)
    weight = build(spec).weight.numpy()
    np.testing.assert_allclose(_outputs(spec, {"x": x})["y"], x @ weight.T, rtol=1e-6)


def test_a_module_may_return_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"unused": x, "double": x * 2, "sum": x.sum(-1)}

    module = ModuleType("users_module")
    module.Two = Two  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_module", module)
    spec = torch_model(
        "users_module:Two",
        inputs={"x": TensorSpec(pa.float32(), (4,))},
        outputs={"sum": TensorSpec(pa.float32()), "double": TensorSpec(pa.float32(), (4,))},
    )
    got = _outputs(spec, {"x": np.ones((ROWS, 4), np.float32)})
    np.testing.assert_array_equal(got["sum"], np.full(ROWS, 4.0))
    np.testing.assert_array_equal(got["double"], np.full((ROWS, 4), 2.0))


def test_outputs_other_than_declared_are_found_when_opened() -> None:
    wrong = {**_LINEAR, "outputs": {"y": TensorSpec(pa.float32(), (3,))}}
    with pytest.raises(RunError, match=r"'y' is torch.float32 \(6, 2\), declared as torch.float32 \(6, 3\)"):
        torch_model("torch.nn:Linear", **wrong).open(Context("infer"), ROWS)
    with pytest.raises(RunError, match=r"returned 1 outputs, declared are 2"):
        both = {"y": TensorSpec(pa.float32(), (2,)), "z": TensorSpec(pa.float32(), (2,))}
        torch_model("torch.nn:Linear", **{**_LINEAR, "outputs": both}).open(Context("infer"), ROWS)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("no_such_module:x", "cannot import"),
        ("torch.nn:Nothing", "cannot import"),
        ("builtins:dict", "torch.nn.Module"),
    ],
)
def test_a_factory_that_gives_no_module_is_an_error(factory: str, says: str) -> None:
    spec = torch_model(factory, inputs=_LINEAR["inputs"], outputs=_LINEAR["outputs"])
    with pytest.raises(GraphError, match=says):
        spec.open(Context("infer"), ROWS)


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RunError, match="no cuda:63 here"):
        load("market", device="cuda:63", **MARKET).open(Context("infer"), ROWS)


@pytest.mark.gpu
def test_cuda_runs_bfloat16_flash_on_the_current_stream_close_to_float32() -> None:
    inputs = _features()
    expected = _outputs(load("market", device="cpu", **MARKET), inputs)["probabilities"]
    executor = load("market", device="cuda", **MARKET).open(Context("infer"), ROWS)
    assert executor.report()["attention"] == "flash"
    assert executor.report()["dtype"] == "bfloat16"
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        on_device = {name: torch.from_numpy(array).cuda(non_blocking=True) for name, array in inputs.items()}
        got = executor.run(on_device)["probabilities"]
        assert got.is_cuda
        result = executor.fetch(got)
    assert np.linalg.norm(result - expected) / np.linalg.norm(expected) < 0.05
