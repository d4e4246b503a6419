"""Which model to run and how: the reference models by name, and any torch module by its import path.

A `TorchModel` is a plain value that pickles. It names a factory instead of holding a module, so a graph can be sent to
another process, which then builds the module, draws or reads its weights and quantizes it there. No weights are
downloaded and no pickle is ever read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt
import pyarrow as pa

from ..pipeline.context import Context
from ..pipeline.errors import GraphError
from ..pipeline.executor import Executor, ModelSpec, TensorSpec

__all__ = ["TorchModel", "load", "torch_model"]

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")

#: Sizes of each reference model and what it is for.
_SIZES: dict[str, dict[str, int]] = {
    "market": {"length": 64, "features": 8, "width": 64, "heads": 4, "layers": 2},
    "actions": {"length": 64, "vocabulary": 256, "context": 3, "width": 64, "heads": 4, "layers": 2},
    "cnn": {"height": 224, "width": 224, "classes": 10, "channels": 128},
    "fusion": {
        "height": 224,
        "width": 224,
        "points": 64,
        "fields": 5,
        "objects": 16,
        "channels": 128,
        "heads": 4,
        "layers": 2,
    },
}

_FACTORIES = {
    "market": f"{__package__}._sequence:MarketModel",
    "actions": f"{__package__}._sequence:ActionModel",
    "cnn": f"{__package__}._cnn:CnnModel",
    "fusion": f"{__package__}._fusion:FusionModel",
}


@dataclass(frozen=True, kw_only=True)
class TorchModel(ModelSpec):
    """A torch module, how it is built and how it is to run. Made by `load` and `torch_model`, which say what fields mean."""

    label: str
    factory: str
    arguments: tuple[tuple[str, Any], ...] = ()
    tensors_in: tuple[tuple[str, TensorSpec], ...]
    tensors_out: tuple[tuple[str, TensorSpec], ...]
    quantize: Literal["int8"] | None = None
    weights: str | None = None
    seed: int | None = 0
    device: str = "auto"
    compile: bool | Literal["auto"] = "auto"
    threads: int = 1
    calibration: int = 4
    max_error: float = 0.1
    on_error_budget: Literal["raise", "float32"] = "raise"
    attention: Literal["flash", "math"] = "flash"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        def refuse(message: str, expected: object, got: object) -> None:
            raise GraphError(f"model {self.label!r}: {message}", expected=expected, got=repr(got))

        if not _FACTORY.fullmatch(self.factory):
            refuse("a factory is an import path", "'package.module:name'", self.factory)
        if not self.tensors_in or not self.tensors_out:
            refuse("a model needs at least one input and one output", "tensors by name", {})
        if self.quantize not in (None, "int8"):
            refuse("quantize", "'int8' or None", self.quantize)
        if self.compile not in (True, False, "auto"):
            refuse("compile", "True, False or 'auto'", self.compile)
        if self.on_error_budget not in ("raise", "float32"):
            refuse("on_error_budget", "'raise' or 'float32'", self.on_error_budget)
        if self.attention not in ("flash", "math"):
            refuse("attention", "'flash' or 'math'", self.attention)
        if self.dtype not in ("auto", "float32", "bfloat16"):
            refuse("dtype", "'auto', 'float32' or 'bfloat16'", self.dtype)
        if not _DEVICE.fullmatch(self.device):
            refuse("device", "'auto', 'cpu', 'cuda' or 'cuda:N'", self.device)
        if self.weights is not None and not self.weights.endswith(".safetensors"):
            refuse("weights are read from safetensors files only", "a path ending in .safetensors", self.weights)
        if self.threads < 1:
            refuse("threads", "at least 1", self.threads)
        if self.calibration < 1:
            refuse("calibration_batches", "at least 1", self.calibration)
        if not self.max_error > 0:
            refuse("max_error", "a positive relative error", self.max_error)
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            refuse("seed", "0 to 2**64 - 1, or None to keep the module's own weights", self.seed)

    @property
    def name(self) -> str:
        return self.label

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return dict(self.tensors_in)

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return dict(self.tensors_out)

    @property
    def calibration_batches(self) -> int:
        return self.calibration if self.quantize else 0

    def open(self, context: Context, rows: int, calibration: Sequence[Mapping[str, npt.NDArray[Any]]] = ()) -> Executor:
        """Build, quantize, warm up. Raises RunError if int8 misses its error budget, FormatError for bad weights."""
        from ._torch_open import open_torch

        return open_torch(self, context, rows, calibration)


def load(
    name: str,
    *,
    quantize: Literal["int8"] | None = None,
    weights: str | None = None,
    seed: int = 0,
    device: str = "auto",
    compile: bool | Literal["auto"] = "auto",
    threads: int = 1,
    calibration_batches: int = 4,
    max_error: float = 0.1,
    on_error_budget: Literal["raise", "float32"] = "raise",
    attention: Literal["flash", "math"] = "flash",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    **sizes: int,
) -> TorchModel:
    """A reference model by name, with seeded weights or those of a safetensors file.

    ========  ==================================================================  =========================================
    name      inputs                                                              outputs
    ========  ==================================================================  =========================================
    market    features float32[length, features]                                  probabilities float32[3]: down, flat, up
    actions   tokens int32[length], context float32[length, context]              next_action float32[vocabulary], value
    cnn       image uint8[height, width, 3]                                       logits float32[classes]
    fusion    image uint8[height, width, 3], radar float32[points, fields],       score float32[objects] in 0..1,
              radar_mask float32[points] (1 = a point)                            distance float32[objects] in metres
    ========  ==================================================================  =========================================

    `sizes` are the names in brackets, plus ``width`` (market, actions), ``channels`` (cnn, fusion), ``heads`` and
    ``layers``. `quantize` ``"int8"`` calibrates on `calibration_batches` batches of the pipeline: every other one
    calibrates, the rest measure the error against float32, which may not exceed `max_error` (relative L2, worst output):
    above it `on_error_budget` ``"raise"`` refuses to run and ``"float32"`` runs unquantized and says so.

    `compile` True compiles ahead of time (CPU: a C++ compiler, some 15 to 30 s once, then cached in the user's cache
    folder; CUDA: torch.compile); ``"auto"`` never compiles, so that the same run has the same kernels whatever a cache
    holds. `threads` are torch's threads for one batch on the CPU. `attention` ``"math"`` is for comparing.
    `dtype` ``"auto"`` is float32 on the CPU and bfloat16 on CUDA, whose flash kernels take half precision only.

    Raises GraphError for an unknown name, size or value.
    """
    if name not in _SIZES:
        raise GraphError("there is no such model", expected=f"one of {', '.join(sorted(_SIZES))}", got=repr(name))
    for size, value in sizes.items():
        if size not in _SIZES[name]:
            known = ", ".join(_SIZES[name])
            raise GraphError(f"model {name!r} has no such size", expected=f"one of {known}", got=repr(size))
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise GraphError(f"model {name!r}: {size}", expected="a positive integer", got=repr(value))
    full = _SIZES[name] | sizes
    _check_sizes(name, full)
    inputs, outputs = _tensors(name, full)
    return TorchModel(
        label=name,
        factory=_FACTORIES[name],
        arguments=tuple(full.items()),
        tensors_in=inputs,
        tensors_out=outputs,
        quantize=quantize,
        weights=weights,
        seed=seed,
        device=device,
        compile=compile,
        threads=threads,
        calibration=calibration_batches,
        max_error=max_error,
        on_error_budget=on_error_budget,
        attention=attention,
        dtype=dtype,
    )


def torch_model(
    factory: str,
    *,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    quantize: Literal["int8"] | None = None,
    weights: str | None = None,
    seed: int | None = None,
    device: str = "auto",
    compile: bool | Literal["auto"] = "auto",
    threads: int = 1,
    calibration_batches: int = 4,
    max_error: float = 0.1,
    on_error_budget: Literal["raise", "float32"] = "raise",
    attention: Literal["flash", "math"] = "flash",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> TorchModel:
    """Your own module: ``factory`` is ``"package.module:name"``, called with `arguments`, and gives a `torch.nn.Module`.

    Its forward takes the tensors of `inputs` by position, each ``(rows, *shape)``, and returns a tensor, a tuple in the
    order of `outputs`, or a dict by their names. It must treat rows independently (short batches are padded) and must
    not write to its inputs, which may be memory that others read. Give `weights` (safetensors) or a `seed`; with
    neither, the factory's own weights are used and should be the same at every call. `dtype`
    ``"bfloat16"`` (CUDA) converts the parameters; forward then converts what it is given. The rest is as in `load`.
    """
    return TorchModel(
        label=name or factory.rpartition(":")[2],
        factory=factory,
        arguments=tuple((arguments or {}).items()),
        tensors_in=tuple(inputs.items()),
        tensors_out=tuple(outputs.items()),
        quantize=quantize,
        weights=weights,
        seed=seed,
        device=device,
        compile=compile,
        threads=threads,
        calibration=calibration_batches,
        max_error=max_error,
        on_error_budget=on_error_budget,
        attention=attention,
        dtype=dtype,
    )


def _check_sizes(name: str, size: Mapping[str, int]) -> None:
    if name in ("cnn", "fusion") and (size["height"] % 32 or size["width"] % 32):
        raise GraphError(
            f"model {name!r}: height and width", expected="multiples of 32", got=f"{size['height']}x{size['width']}"
        )
    if "heads" in size:
        wide = size["channels"] if name == "fusion" else size["width"]
        if wide % (2 * size["heads"]):
            raise GraphError(
                f"model {name!r}: {wide} channels", expected="an even number for each of the heads", got=size["heads"]
            )


def _tensors(
    name: str, size: Mapping[str, int]
) -> tuple[tuple[tuple[str, TensorSpec], ...], tuple[tuple[str, TensorSpec], ...]]:
    real = pa.float32()
    if name == "market":
        return (
            (("features", TensorSpec(real, (size["length"], size["features"]))),),
            (("probabilities", TensorSpec(real, (3,))),),
        )
    if name == "actions":
        return (
            (
                ("tokens", TensorSpec(pa.int32(), (size["length"],))),
                ("context", TensorSpec(real, (size["length"], size["context"]))),
            ),
            (("next_action", TensorSpec(real, (size["vocabulary"],))), ("value", TensorSpec(real))),
        )
    image = ("image", TensorSpec(pa.uint8(), (size["height"], size["width"], 3)))
    if name == "cnn":
        return (image,), (("logits", TensorSpec(real, (size["classes"],))),)
    return (
        (
            image,
            ("radar", TensorSpec(real, (size["points"], size["fields"]))),
            ("radar_mask", TensorSpec(real, (size["points"],))),
        ),
        (("score", TensorSpec(real, (size["objects"],))), ("distance", TensorSpec(real, (size["objects"],)))),
    )
