"""The torch executor: one model on one device, for batches of one fixed size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..pipeline.columns import numpy_layout
from ..pipeline.errors import RunError
from ..pipeline.executor import Executor, TensorSpec
from ._threads import ThreadLimit

__all__ = ["TorchExecutor", "attention_backends", "tensor_of"]


class _Alias:
    """Presents the memory of a read-only array as writable, because torch has no read-only tensors."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        described = dict(array.__array_interface__)
        described["data"] = (described["data"][0], False)
        self.__array_interface__ = described


def tensor_of(array: npt.NDArray[Any]) -> Tensor:
    """A CPU tensor over the memory of `array`, without a copy; it must not be written to."""
    if any(step < 0 for step in array.strides) or not array.dtype.isnative:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Alias(array)))


def attention_backends(attention: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The attention backends in the order of preference; torch keeps this setting for the whole process.

    On the CPU flash is torch's first choice anyway, so only ``"math"`` has to touch the setting.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if attention == "math":
        return sdpa_kernel(SDPBackend.MATH)
    if device.type == "cpu":
        return contextlib.nullcontext()
    order = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(order, set_priority=True)


class Ordered(nn.Module):
    """Gives the outputs of `module` as a tuple in the order of `names`, whether it returns one, several or a dict."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        result = self.module(*inputs)
        if isinstance(result, Mapping):
            return tuple(result[name] for name in self.names)
        return (result,) if isinstance(result, Tensor) else tuple(result)


class TorchExecutor(Executor):
    """Runs a function of tensors under a fixed number of threads and attention backend.

    On CUDA it launches on the caller's current stream and does not wait: tensors already on the device stay there and
    `fetch` is what synchronises. Numpy arrays are taken too, without a copy on the CPU.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *,
        label: str,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        rows: int,
        device: torch.device,
        threads: int,
        attention: str,
    ) -> None:
        self.function = function
        self._label, self._device, self._rows, self._attention = label, device, rows, attention
        self._limit = ThreadLimit(threads) if device.type == "cpu" else contextlib.nullcontext()
        self._inputs = {name: _expected(spec, rows) for name, spec in inputs.items()}
        self._outputs = {name: _expected(spec, rows) for name, spec in outputs.items()}
        self._report: Mapping[str, Any] = {}

    @property
    def device(self) -> str:
        return str(self._device)

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        tensors = self.tensors(inputs)
        with self._limit, attention_backends(self._attention, self._device), torch.inference_mode():
            outputs = self.function(*tensors)
        if len(outputs) != len(self._outputs):
            raise RunError(
                f"model {self._label!r}: forward returned {len(outputs)} outputs, declared are {len(self._outputs)}"
            )
        return dict(zip(self._outputs, outputs, strict=True))

    def tensors(self, inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """`inputs` in the model's order, on its device. Raises RunError for one that is missing or misshapen."""
        ready = []
        for name, (dtype, shape) in self._inputs.items():
            if name not in inputs:
                raise RunError(f"model {self._label!r}: input {name!r} is missing, got {sorted(inputs)}")
            value = inputs[name]
            tensor = value if isinstance(value, Tensor) else tensor_of(np.asarray(value))
            if tensor.dtype != dtype or tensor.shape != shape:
                raise RunError(
                    f"model {self._label!r}: input {name!r} is {tensor.dtype} {tuple(tensor.shape)}, "
                    f"expected {dtype} {shape}; batches are {self._rows} rows, short ones padded"
                )
            ready.append(tensor if tensor.device == self._device else tensor.to(self._device))
        return tuple(ready)

    def check(self, outputs: Mapping[str, Tensor]) -> None:
        """Raises RunError if `outputs` are not what the specification says."""
        for name, (dtype, shape) in self._outputs.items():
            got = outputs[name]
            if got.dtype != dtype or got.shape != shape:
                raise RunError(
                    f"model {self._label!r}: output {name!r} is {got.dtype} {tuple(got.shape)}, declared as {dtype} {shape}"
                )

    def describe(self, report: Mapping[str, Any]) -> None:
        """Set what `report` returns."""
        self._report = report

    def report(self) -> Mapping[str, Any]:
        return self._report

    def fetch(self, value: Any) -> npt.NDArray[Any]:
        return value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)

    def close(self) -> None:
        self.function = _closed


def _closed(*inputs: Tensor) -> tuple[Tensor, ...]:
    raise RunError("this executor is closed")


def _expected(spec: TensorSpec, rows: int) -> tuple[torch.dtype, tuple[int, ...]]:
    layout = numpy_layout(spec.dtype)
    if layout is None:
        raise RunError(f"a tensor of {spec.dtype} is not supported; use an integer or float type")
    return torch.from_numpy(np.empty(0, layout[0])).dtype, (rows, *spec.shape)
