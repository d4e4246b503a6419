"""Model specifications: checked when made, plain, cheap to import."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pyarrow as pa
import pytest
from penstock.models import TensorSpec, load, torch_model
from penstock.pipeline.errors import GraphError


def test_an_unknown_model_lists_those_there_are() -> None:
    with pytest.raises(GraphError, match="actions, cnn, fusion, market"):
        load("resnet50")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"depth": 3}, "length, features"),
        ({"length": 0}, "positive integer"),
        ({"length": 8.0}, "positive integer"),
        ({"width": 60, "heads": 8}, "heads"),
        ({"quantize": "int4"}, "int8"),
        ({"device": "tpu"}, "cuda"),
        ({"weights": "model.pt"}, "safetensors"),
        ({"threads": 0}, "at least 1"),
        ({"max_error": 0.0}, "positive"),
        ({"max_error": float("nan")}, "positive"),
        ({"calibration_batches": 0}, "at least 1"),
        ({"on_error_budget": "ignore"}, "float32"),
        ({"attention": "paged"}, "flash"),
        ({"compile": "yes"}, "auto"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_allowed(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(GraphError, match=says):
        load("market", **arguments)  # type: ignore[arg-type]


def test_image_sides_are_whole_patches() -> None:
    with pytest.raises(GraphError, match="multiples of 32"):
        load("cnn", height=100)


def test_tensors_follow_the_sizes() -> None:
    model = load("fusion", height=64, width=96, points=8, fields=3, objects=4)
    assert model.inputs == {
        "image": TensorSpec(pa.uint8(), (64, 96, 3)),
        "radar": TensorSpec(pa.float32(), (8, 3)),
        "radar_mask": TensorSpec(pa.float32(), (8,)),
    }
    assert model.outputs == {"score": TensorSpec(pa.float32(), (4,)), "distance": TensorSpec(pa.float32(), (4,))}


def test_calibration_is_wanted_only_for_int8() -> None:
    assert load("market").calibration_batches == 0
    assert load("market", quantize="int8", calibration_batches=6).calibration_batches == 6


def test_a_specification_survives_pickling() -> None:
    model = load("actions", quantize="int8", vocabulary=32)
    assert pickle.loads(pickle.dumps(model)) == model
    assert hash(model) == hash(load("actions", quantize="int8", vocabulary=32))


@pytest.mark.parametrize("factory", ["torch.nn.Linear", "os;system:x", ":Linear", "torch.nn:"])
def test_a_factory_is_an_import_path(factory: str) -> None:
    tensors = {"x": TensorSpec(pa.float32(), (4,))}
    with pytest.raises(GraphError, match="import path"):
        torch_model(factory, inputs=tensors, outputs=tensors)


def test_importing_the_room_does_not_import_torch() -> None:
    code = "import sys, penstock.models; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
