"""Ahead-of-time compilation: close to eager, kept in the user's cache, found again by content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from penstock.models import TensorSpec, TorchModel, load, torch_model
from penstock.models._cache import cache_folder
from penstock.models._compiled import package_key
from penstock.models._torch_open import build
from penstock.pipeline.context import Context
from penstock.pipeline.errors import PlanError

compiler = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    return tmp_path / "cache"


def _linear(seed: int = 0, **more: Any) -> TorchModel:
    tensors = {"x": TensorSpec(pa.float32(), (4,))}
    return torch_model(
        "torch.nn:Linear",
        inputs=tensors,
        outputs=tensors,
        arguments={"in_features": 4, "out_features": 4},
        seed=seed,
        compile=True,
        **more,
    )


@compiler
@pytest.mark.nightly
def test_a_compiled_model_is_found_again(cache: Path) -> None:
    x = {"x": np.random.default_rng(0).standard_normal((5, 4), np.float32)}
    first = _linear().open(Context("infer"), 5)
    assert first.report()["compiled"] == {"mode": "ahead of time", "why": "asked for", "cached": False}
    expected = x["x"] @ build(_linear()).weight.numpy().T
    np.testing.assert_allclose(first.fetch(first.run(x)["x"]), expected, rtol=1e-5, atol=1e-6)
    again = _linear().open(Context("infer"), 5)
    assert again.report()["compiled"]["cached"] is True
    np.testing.assert_array_equal(again.fetch(again.run(x)["x"]), first.fetch(first.run(x)["x"]))
    assert len(list((cache / "compiled").glob("*.pt2"))) == 1
    assert any((cache / "inductor").iterdir())


def test_the_key_of_a_package_follows_weights_shapes_and_threads() -> None:
    x = torch.zeros(5, 4)
    with torch.no_grad():
        exported = {seed: torch.export.export(build(_linear(seed)), (x,)) for seed in (0, 1)}
        again = torch.export.export(build(_linear(0)), (x,))
        longer = torch.export.export(build(_linear(0)), (torch.zeros(6, 4),))
    first = package_key(exported[0], 1)
    assert package_key(again, 1) == first
    assert len({first, package_key(exported[1], 1), package_key(longer, 1), package_key(again, 2)}) == 4


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PlanError, match=r"C\+\+ compiler"):
        _linear().open(Context("infer"), 5)


def test_a_cache_that_others_may_write_to_is_refused(cache: Path) -> None:
    folder = cache_folder("compiled")
    assert folder == cache / "compiled"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(PlanError, match="others may write"):
        cache_folder("compiled")


def test_the_cache_follows_the_platforms_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PENSTOCK_CACHE_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("compiled") == tmp_path / "xdg" / "penstock" / "compiled"


@compiler
@pytest.mark.nightly
@pytest.mark.parametrize("name", ["market", "actions", "cnn", "fusion"])
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_full_size_models_compile_and_stay_near_float32(name: str, quantize: Any) -> None:
    spec = load(name, quantize=quantize, compile=True)
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(2):
        batch: dict[str, Any] = {}
        for column, tensor in spec.inputs.items():
            shape = (32, *tensor.shape)
            real = tensor.dtype == pa.float32()
            batch[column] = rng.standard_normal(shape, np.float32) if real else rng.integers(0, 255, shape)
            batch[column] = batch[column].astype(tensor.dtype.to_pandas_dtype())
        batches.append(batch)
    executor = spec.open(Context("infer"), 32, batches)
    eager = load(name).open(Context("infer"), 32)
    assert executor.report()["attention"] == ("none" if name == "cnn" else "flash")
    got, expected = executor.run(batches[1]), eager.run(batches[1])
    for column in expected:
        one, two = executor.fetch(got[column]), eager.fetch(expected[column])
        assert np.linalg.norm(one - two) / np.linalg.norm(two) < (0.1 if quantize else 2e-3)
