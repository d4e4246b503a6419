"""From a `TorchModel` to a running executor: build, quantize, compile, warm up, measure, decide, report."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import nn

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, MissingExtraError, RunError
from ._compare import Sample, measure_latency, quiet
from ._compiled import compile_ahead, inductor_cache
from ._observe import attention_in_call, attention_in_package
from ._threads import ThreadLimit
from ._torch_executor import Ordered, TorchExecutor, attention_backends
from ._weights import initialise, read_weights
from .error_report import ErrorReport, error_report

if TYPE_CHECKING:
    from .load import TorchModel

__all__ = ["build", "open_torch"]

Batch = Mapping[str, npt.NDArray[Any]]


def build(spec: TorchModel) -> nn.Module:
    """The module of `spec` in evaluation mode with its weights, float32, on the CPU."""
    path, _, attribute = spec.factory.partition(":")
    try:
        target: Any = importlib.import_module(path)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise GraphError(f"model {spec.label!r}: cannot import {spec.factory!r}: {error}") from error
    module = target(**dict(spec.arguments))
    if not isinstance(module, nn.Module):
        raise GraphError(
            f"model {spec.label!r}: {spec.factory}", expected="a torch.nn.Module", got=type(module).__name__
        )
    if spec.weights is not None:
        read_weights(module, spec.weights)
    elif spec.seed is not None:
        initialise(module, spec.seed)
    return module.eval().requires_grad_(False)


def open_torch(spec: TorchModel, context: Context, rows: int, calibration: Sequence[Batch]) -> TorchExecutor:
    """Open `spec` for batches of `rows`. See `TorchModel.open`."""
    if rows < 1:
        raise RunError(f"model {spec.label!r}: a batch needs at least one row, got {rows}")
    return _Opening(spec, context, rows, calibration).open()


@dataclass
class _Candidate:
    """An executor that may be chosen, with what the report says about it."""

    executor: TorchExecutor
    compiled: dict[str, Any]
    attention: str


class _Opening:
    def __init__(self, spec: TorchModel, context: Context, rows: int, calibration: Sequence[Batch]) -> None:
        self.spec, self.rows = spec, rows
        self.clock = context.clock
        self.device = _device(spec)
        self.dtype = _dtype(spec, self.device)
        # a call on zeros warms up where the pipeline gave no data
        self.samples = [s for batch in calibration if (s := Sample.of(batch, spec.inputs, rows)).rows]
        self.seconds: dict[str, float] = {}

    def open(self) -> TorchExecutor:
        limit = ThreadLimit(self.spec.threads)
        with limit, attention_backends(self.spec.attention, self.device), torch.no_grad():
            began = self.clock.monotonic_ns()
            module = Ordered(build(self.spec), tuple(self.spec.outputs)).to(self.device)
            self._took("load", began)
            plain = module if self.dtype == torch.float32 else copy.deepcopy(module).to(self.dtype)
            quantization: dict[str, Any] | None = None
            if self.spec.quantize is None:
                chosen = self._candidate(plain, compiling=self._compiling())
            else:
                chosen, quantization = self._quantize(module, plain)
        chosen.executor.describe(self._report(chosen, module, quantization))
        return chosen.executor

    def _report(self, chosen: _Candidate, module: nn.Module, quantization: dict[str, Any] | None) -> dict[str, Any]:
        int8 = quantization is not None and quantization["used"]
        return {
            "model": self.spec.label,
            "device": str(self.device) if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
            "dtype": "int8" if int8 else str(self.dtype).removeprefix("torch."),
            "rows": self.rows,
            "parameters": sum(p.numel() for p in module.parameters()),
            "threads": self.spec.threads,
            "attention": chosen.attention,
            "compiled": chosen.compiled,
            "quantization": quantization,
            "seconds": dict(self.seconds),
        }

    def _compiling(self) -> bool:
        return self.spec.compile is True

    def _took(self, phase: str, began: int) -> None:
        spent = (self.clock.monotonic_ns() - began) / 1e9
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + spent, 3)

    def _sample(self) -> Sample:
        return self.samples[0] if self.samples else Sample.zeros(self.spec.inputs, self.rows)

    def _executor(self, function: Any) -> TorchExecutor:
        return TorchExecutor(
            function,
            label=self.spec.label,
            inputs=self.spec.inputs,
            outputs=self.spec.outputs,
            rows=self.rows,
            device=self.device,
            threads=self.spec.threads,
            attention=self.spec.attention,
        )

    def _candidate(self, module: nn.Module, *, compiling: bool, lowered: nn.Module | None = None) -> _Candidate:
        """An executor of `module`, compiled if asked, else of `lowered` if given; warmed up, its outputs checked."""
        executor = self._executor(lowered or module)
        described: dict[str, Any] = {"mode": "int8 kernels" if lowered else "eager", "why": _why(self.spec.compile)}
        example = executor.tensors(self._sample().arrays)
        attention = ""
        if compiling and self.device.type == "cpu":
            began = self.clock.monotonic_ns()
            with quiet(), inductor_cache():
                function, package, found = compile_ahead(module, example, self.spec.threads)
            self._took("compile", began)
            executor, attention = self._executor(function), attention_in_package(package)
            described = {"mode": "ahead of time", "why": "asked for", "cached": found}
        elif compiling:
            executor = self._executor(torch.compile(module, dynamic=False))
            described = {"mode": "torch.compile", "why": "asked for"}
        began = self.clock.monotonic_ns()
        if described["mode"] == "torch.compile":
            with inductor_cache():
                executor.run(self._sample().arrays)
        executor.check(executor.run(self._sample().arrays))
        attention = attention or attention_in_call(lambda: executor.function(*example), self.device)
        self._took("warm_up", began)
        return _Candidate(executor, described, attention)

    def _quantize(self, module: nn.Module, plain: nn.Module) -> tuple[_Candidate, dict[str, Any]]:
        if not self.samples:
            raise RunError(
                f"model {self.spec.label!r}: int8 is calibrated on batches of the pipeline and there were none; "
                "the stream may be empty, else open the model with calibration data or quantize=None"
            )
        calibrating, held_out = Sample.split(self.samples)
        baseline = self._candidate(plain, compiling=False)
        began = self.clock.monotonic_ns()
        try:
            with quiet(), inductor_cache():
                variant, facts = self._variant(module, plain, baseline.executor, calibrating)
        except ImportError as error:
            raise MissingExtraError("int8 quantization", error.name or "torchao", None) from error
        self._took("quantize", began)
        reference = baseline if plain is module else self._candidate(module, compiling=False)
        errors = error_report(_fetching(reference.executor), _fetching(variant.executor), held_out)
        facts |= {
            "calibration_batches": len(calibrating),
            "held_out_rows": errors.rows,
            "error_relative_l2": {name: float(f"{value:.4g}") for name, value in errors.relative_l2.items()},
            "max_error": self.spec.max_error,
        }
        facts |= self._latency(baseline, variant)
        if errors.worst > self.spec.max_error:
            facts["warnings"].append(self._over_budget(errors))
            if self.spec.on_error_budget == "raise":
                raise RunError(facts["warnings"][-1])
            facts["used"] = False
            return baseline, facts
        return variant, facts

    def _variant(
        self, module: nn.Module, plain: nn.Module, baseline: TorchExecutor, calibrating: Sequence[Sample]
    ) -> tuple[_Candidate, dict[str, Any]]:
        import torchao  # type: ignore[import-untyped]

        from . import _int8_cpu, _int8_dynamic

        facts: dict[str, Any] = {"library": f"torchao {torchao.__version__}", "used": True}
        before = _int8_dynamic.tensor_bytes(module)
        if self.device.type == "cpu" and _int8_cpu.supported():
            inputs = [baseline.tensors(sample.arrays) for sample in calibrating]
            try:
                converted = _int8_cpu.quantize_static(module, inputs)
                lowered = None if self._compiling() else _int8_cpu.lower(converted, inputs[0])
            except Exception as error:  # torch.export may fail on any module in many ways
                raise RunError(
                    f"model {self.spec.label!r}: int8 needs a module that torch.export can trace: "
                    f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}; use quantize=None"
                ) from error
            facts["scheme"] = "static: uint8 activations per tensor, int8 weights per channel (pt2e, oneDNN)"
            facts |= {"bytes_float32": before, "bytes": _int8_cpu.constant_bytes(converted)}
            return self._candidate(converted, compiling=self._compiling(), lowered=lowered), facts
        quantized = copy.deepcopy(plain)
        layers = _int8_dynamic.quantize_linear(quantized)
        facts["scheme"] = f"dynamic: int8 activations per row, int8 weights per channel, {layers} linear layers"
        facts |= {"bytes_float32": before, "bytes": _int8_dynamic.tensor_bytes(quantized)}
        return self._candidate(quantized, compiling=self._compiling()), facts

    def _latency(self, baseline: _Candidate, variant: _Candidate) -> dict[str, Any]:
        before, after = measure_latency([baseline.executor, variant.executor], self._sample(), self.clock, self.device)
        name = str(self.dtype).removeprefix("torch.")
        ratio = round(before / after, 3) if after else None
        warnings = []
        if after > before:
            warnings.append(f"int8 is slower than {name} here: {after:.2f} ms a batch against {before:.2f} ms")
        latency = {name: round(before, 3), "int8": round(after, 3)}
        return {"latency_ms": latency, "speedup": ratio, "warnings": warnings}

    def _over_budget(self, errors: ErrorReport) -> str:
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in sorted(errors.relative_l2.items()))
        return (
            f"model {self.spec.label!r}: int8 misses its error budget: relative L2 error against float32 is {numbers}, "
            f"max_error is {self.spec.max_error:g}; raise max_error, give more calibration_batches, "
            "or use quantize=None or on_error_budget='float32'"
        )


def _fetching(executor: TorchExecutor) -> Any:
    return lambda inputs: {name: executor.fetch(value) for name, value in executor.run(inputs).items()}


def _why(compile: bool | str) -> str:
    if compile == "auto":
        return "compile='auto' never compiles: no wait at the start and the same kernels whatever a cache holds"
    return "compile=False"


def _device(spec: TorchModel) -> torch.device:
    if spec.device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device("cuda:0" if spec.device == "cuda" else spec.device)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise RunError(f"model {spec.label!r}: there is no {device} here; use device='auto' or 'cpu'")
    return device


def _dtype(spec: TorchModel, device: torch.device) -> torch.dtype:
    if spec.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if spec.dtype == "bfloat16" and device.type == "cpu":
        raise RunError(f"model {spec.label!r}: bfloat16 is slower than float32 on a CPU; use dtype='auto' or 'float32'")
    return torch.float32 if spec.dtype == "float32" else torch.bfloat16
