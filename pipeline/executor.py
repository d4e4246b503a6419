"""The contract of what consumes data: load, warm up, run on a dict of tensors, say what it is.

A `ModelSpec` is plain and pickles; `open` gives an `Executor`. Executors run fixed-size batches: the last, shorter batch
is padded by the caller, so that compiled graphs have one shape and a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .context import Context

__all__ = ["Executor", "ModelSpec", "TensorSpec"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor without its batch dimension: Arrow value type and per-row shape (``()`` for a scalar column)."""

    dtype: pa.DataType
    shape: tuple[int, ...] = ()

    @property
    def arrow(self) -> pa.DataType:
        """The column type that holds it."""
        return pa.fixed_shape_tensor(self.dtype, list(self.shape)) if self.shape else self.dtype

    @property
    def nbytes(self) -> int:
        """Bytes a row."""
        size: int = self.dtype.bit_width // 8
        for extent in self.shape:
            size *= extent
        return size


class ModelSpec(ABC):
    """Which model, how it is to run. Subclasses are frozen dataclasses that pickle; weights are loaded in `open`."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Input tensors by column name."""

    @property
    @abstractmethod
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Output tensors by the column name they get."""

    @property
    def calibration_batches(self) -> int:
        """How many batches of the user's own pipeline `open` wants for calibration and its error report; 0 for none."""
        return 0

    @abstractmethod
    def open(self, context: Context, rows: int, calibration: Sequence[Mapping[str, npt.NDArray[Any]]] = ()) -> Executor:
        """Load, quantize if asked (with `calibration`), and warm up for batches of `rows` rows."""


class Executor(ABC):
    """A loaded model on a device. `run` is called by one thread."""

    @property
    def device(self) -> str:
        """``cpu``, ``cuda:0``, ``simulator``: where `run` wants its tensors."""
        return "cpu"

    @abstractmethod
    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run one full batch: tensors of shape ``(rows, *shape)`` on `device` in, tensors on `device` out."""

    @abstractmethod
    def report(self) -> Mapping[str, Any]:
        """Plain values: device, dtype, attention backend as observed, quantization with its error against float32."""

    def fetch(self, value: Any) -> npt.NDArray[Any]:
        """An output as a numpy array on the host."""
        return np.asarray(value)

    def close(self) -> None:
        """Release the device."""
