"""An accelerator with a fixed service time, so that starvation can be tested anywhere.

It waits through the run's clock, so it takes no processor from the stages that feed it, and under a `SyntheticClock` a
run of hours takes none at all. Its outputs are simple functions of its inputs, so that lost or swapped rows show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import numpy_layout
from ..pipeline.context import Context
from ..pipeline.duration import Duration, nanoseconds
from ..pipeline.errors import GraphError, RunError
from ..pipeline.executor import Executor, ModelSpec, TensorSpec

__all__ = ["Simulator"]

#: Elements of a row that enter its checksum: reading whole images would take longer than a short service time.
_SAMPLED = 4096


@dataclass(frozen=True, init=False)
class Simulator(ModelSpec):
    """A model that takes `service_time` a batch and gives, for each row, a checksum of that row's inputs.

    `inputs` and `outputs` map column names to `TensorSpec`; outputs default to one float64 ``score``. Element ``j`` of
    an output row is ``c + j`` with ``c`` the sum over inputs of the mean of up to 4096 evenly spaced elements, in float64,
    then cast to the output's type (integers modulo 128). Raises GraphError for a type numpy cannot view.
    """

    service_time: int
    tensors_in: tuple[tuple[str, TensorSpec], ...]
    tensors_out: tuple[tuple[str, TensorSpec], ...]

    def __init__(
        self,
        *,
        service_time: Duration,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        if outputs is None:
            outputs = {"score": TensorSpec(pa.float64())}
        for name, spec in (*inputs.items(), *outputs.items()):
            if numpy_layout(spec.dtype) is None:
                raise GraphError(
                    f"tensor {name!r}: {spec.dtype} has no fixed-width layout; use an integer or float type"
                )
        object.__setattr__(self, "service_time", nanoseconds(service_time))
        object.__setattr__(self, "tensors_in", tuple(inputs.items()))
        object.__setattr__(self, "tensors_out", tuple(outputs.items()))

    @property
    def name(self) -> str:
        return "simulator"

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return dict(self.tensors_in)

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return dict(self.tensors_out)

    def open(self, context: Context, rows: int, calibration: Sequence[Mapping[str, npt.NDArray[Any]]] = ()) -> Executor:
        return SimulatorExecutor(self, context, rows)


class SimulatorExecutor(Executor):
    """Runs a `Simulator`; counts batches and the time it was in service."""

    def __init__(self, spec: Simulator, context: Context, rows: int) -> None:
        self._spec, self._context, self._rows = spec, context, rows
        self._batches = 0

    @property
    def device(self) -> str:
        return "simulator"

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        clock = self._context.clock
        began = clock.monotonic_ns()
        checksum = np.zeros(self._rows, np.float64)
        for name, tensor in self._spec.tensors_in:
            if name not in inputs:
                raise RunError(f"simulator: input {name!r} is missing, got {sorted(inputs)}")
            value = np.asarray(inputs[name])
            if value.shape != (self._rows, *tensor.shape):
                raise RunError(f"simulator: input {name!r} is {value.shape}, expected {(self._rows, *tensor.shape)}")
            flat = value.reshape(self._rows, -1)
            checksum += flat[:, :: -(-flat.shape[1] // _SAMPLED) or 1].mean(1, dtype=np.float64)
        outputs = {name: _spread(checksum, tensor) for name, tensor in self._spec.tensors_out}
        self._batches += 1
        clock.wait_ns(self._spec.service_time - (clock.monotonic_ns() - began), self._context.stop)
        return outputs

    def report(self) -> Mapping[str, Any]:
        return {
            "model": self._spec.name,
            "device": self.device,
            "rows": self._rows,
            "service_time_ns": self._spec.service_time,
            "batches": self._batches,
        }


def _spread(checksum: npt.NDArray[np.float64], tensor: TensorSpec) -> npt.NDArray[Any]:
    layout = numpy_layout(tensor.dtype)
    dtype = np.dtype(np.float64) if layout is None else layout[0]
    steps = np.arange(int(np.prod(tensor.shape, dtype=np.int64)), dtype=np.float64)
    values = checksum[:, None] + steps
    if dtype.kind in "iu":
        values = np.floor(values) % 128
    return values.astype(dtype).reshape(len(checksum), *tensor.shape)
