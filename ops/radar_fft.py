"""From a raw radar cube to a range-Doppler map: two Fourier transforms a frame, windows before, magnitude behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, MissingExtraError
from ..pipeline.operator import Operator, OperatorSpec
from ..pipeline.schema import tensor_type
from ._tensor_memory import TensorMemory

__all__ = ["RangeDoppler", "doppler_axis", "range_axis"]

_BACKENDS = ("auto", "numpy", "torch")
_WINDOWS = ("hann", "none")
_LIGHT = 299_792_458.0
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RangeDoppler(OperatorSpec):
    """Magnitude of the range-Doppler map of every receiver.

    In: rows with `column`, int16 ``[chirps, samples, rx, 2]`` (I, Q). Out: the same rows with `output` as the last column,
    float32 ``[range, doppler, rx]``: the discrete Fourier transform over samples and over chirps, not scaled; Doppler is
    shifted so that index ``doppler // 2`` is standing still. `window` ``hann`` weighs samples and chirps (periodic Hann),
    ``none`` does not. With `tx` transmitters that take turns chirp by chirp (TDM-MIMO) there are ``chirps / tx`` Doppler
    bins and ``rx * tx`` channels, the receivers of the first transmitter first. `range_bins` keeps the nearest ones.

    `backend` ``auto`` takes torch where it is installed (some three times as fast on one core) and numpy else; they agree
    to float32 rounding, so name one where results must be the same bytes on machines that differ in this.
    Raises GraphError for a column that is missing or holds no cubes; MissingExtraError for ``torch`` without it.
    """

    _: KW_ONLY
    window: str = "hann"
    tx: int = 1
    range_bins: int | None = None
    column: str = "cube"
    output: str = "range_doppler"
    drop_cube: bool = True
    backend: str = "auto"

    kind: ClassVar[str] = "range_doppler"
    stateless: ClassVar[bool] = True
    deferrable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.window not in _WINDOWS:
            raise GraphError(f"no window {self.window!r}; choose one of {', '.join(_WINDOWS)}")
        if self.backend not in _BACKENDS:
            raise GraphError(f"no backend {self.backend!r}; choose one of {', '.join(_BACKENDS)}")
        if self.tx <= 0 or (self.range_bins is not None and self.range_bins <= 0):
            raise GraphError("tx and range_bins must be positive", got=(self.tx, self.range_bins))

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        schema = inputs[0]
        index = schema.get_field_index(self.column)
        expected = "fixed_shape_tensor<int16>[chirps, samples, rx, 2]"
        if index < 0:
            raise GraphError(f"no column {self.column!r} of radar cubes", expected=expected, got=schema.names)
        tensor = self.tensor(schema.field(index).type)
        if self.drop_cube:
            schema = schema.remove(index)
        if self.output in schema.names:
            raise GraphError(f"there is already a column {self.output!r}: choose another name for the new one")
        return schema.append(pa.field(self.output, tensor, nullable=False))

    def tensor(self, cube: pa.DataType) -> pa.FixedShapeTensorType:
        """Type of the output column for a column of type `cube`. Raises GraphError if it does not hold cubes."""
        shape = list(cube.shape) if isinstance(cube, pa.FixedShapeTensorType) else []
        fits = len(shape) == 4 and shape[3] == 2 and isinstance(cube, pa.FixedShapeTensorType)
        if not fits or cube.value_type != pa.int16():
            expected = "fixed_shape_tensor<int16>[chirps, samples, rx, 2]"
            raise GraphError(f"column {self.column!r} does not hold radar cubes", expected=expected, got=cube)
        chirps, samples, rx, _ = shape
        if chirps % self.tx:
            raise GraphError(f"{chirps} chirps of {self.tx} transmitters in turn are not whole turns")
        bins = samples if self.range_bins is None else self.range_bins
        if bins > samples:
            raise GraphError(f"range_bins is at most the number of samples, {samples}", got=bins)
        return tensor_type(pa.float32(), (bins, chirps // self.tx, rx * self.tx))

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        backend = self.backend
        if backend == "auto":
            backend = "torch" if find_spec("torch") is not None else "numpy"
        if backend == "torch" and find_spec("torch") is None:
            raise MissingExtraError("RangeDoppler with backend='torch'", "torch", "torch")
        return _Maps(
            self, context, inputs[0], self.output_schema(*inputs), _with_torch if backend == "torch" else _with_numpy
        )


class _Maps(Operator):
    def __init__(
        self,
        spec: RangeDoppler,
        context: Context,
        given: pa.Schema,
        schema: pa.Schema,
        transform: Callable[[Array, Array, Array], None],
    ) -> None:
        self._spec, self._context, self._schema, self._transform = spec, context, schema, transform
        chirps, samples, _, _ = given.field(spec.column).type.shape
        self._tensor: pa.FixedShapeTensorType = schema.field(spec.output).type
        self._weights = _weights(spec.window, chirps // spec.tx, samples)

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        spec, rows = self._spec, batch.num_rows
        column = batch.column(spec.column)
        present = column.is_valid().to_numpy(zero_copy_only=False)
        cubes = _cubes(column)
        memory = TensorMemory(self._context, spec.output, self._tensor, rows)

        def work(start: int, stop: int) -> None:
            for row in range(start, stop):
                if not present[row]:
                    memory.rows[row] = 0
                    continue
                chirps, samples, rx, _ = cubes.shape[1:]
                turns = cubes[row].reshape(chirps // spec.tx, spec.tx, samples, rx, 2)
                self._transform(turns, self._weights, memory.rows[row])

        self._context.map_rows(work, rows)
        kept = [batch.column(name) for name in self._schema.names[:-1]]
        return (pa.RecordBatch.from_arrays([*kept, memory.column(rows)], schema=self._schema),)


def _cubes(column: pa.Array) -> Array:
    """A view of all rows, null ones too (whatever they hold)."""
    storage, shape = column.storage, tuple(column.type.shape)
    width, values = storage.type.list_size, storage.values
    data = values.buffers()[1]
    if not len(column) or data is None:
        return np.empty((len(column), *shape), np.int16)
    start = values.offset + storage.offset * width
    return np.frombuffer(data, np.int16, len(column) * width, 2 * start).reshape(len(column), *shape)


@lru_cache(maxsize=16)
def _weights(window: str, chirps: int, samples: int) -> Array:
    """What to multiply a frame by, float32 ``[chirps, samples]``."""
    if window == "none":
        return np.ones((chirps, samples), np.float32)
    slow, fast = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) if n > 1 else np.ones(1) for n in (chirps, samples))
    weights: Array = np.outer(slow, fast).astype(np.float32)
    weights.flags.writeable = False
    return weights


def _with_numpy(turns: Array, weights: Array, out: Array) -> None:
    """`turns` int16 ``[chirps, tx, samples, rx, 2]`` to `out` float32 ``[range, chirps, tx * rx]``."""
    bins = out.shape[0]
    for t in range(turns.shape[1]):
        part = turns[:, t].astype(np.float32).view(np.complex64)[..., 0]
        part *= weights[:, :, None]
        spectrum = np.fft.fft(np.fft.fft(part, axis=1)[:, :bins], axis=0)
        rx = part.shape[2]
        shifted = np.fft.fftshift(spectrum, axes=0)
        np.abs(shifted.transpose(1, 0, 2), out=out[:, :, t * rx : (t + 1) * rx])


def _with_torch(turns: Array, weights: Array, out: Array) -> None:
    """The same with torch."""
    import torch

    bins = out.shape[0]
    target, factor = torch.from_numpy(out), torch.tensor(weights)[:, :, None]
    for t in range(turns.shape[1]):
        part = torch.view_as_complex(torch.from_numpy(turns[:, t].astype(np.float32))) * factor
        spectrum = torch.fft.fft(torch.fft.fft(part, dim=1)[:, :bins], dim=0)
        rx = part.shape[2]
        shifted = torch.fft.fftshift(spectrum, dim=0).permute(1, 0, 2)
        target[:, :, t * rx : (t + 1) * rx] = shifted.abs()


def range_axis(samples: int, *, sample_rate: float, slope: float) -> Array:
    """The distance of every range bin in m, float64 `[samples]`, for a `slope` in Hz/s and a `sample_rate` in Hz."""
    return np.arange(samples) * (sample_rate / samples) * _LIGHT / (2 * slope)


def doppler_axis(chirps: int, *, chirp_period: float, frequency: float, tx: int = 1) -> Array:
    """The radial speed of every Doppler bin in m/s, float64 ``[chirps // tx]``, positive away.

    `chirp_period` in s is from chirp to chirp, `frequency` in Hz that of the carrier (the middle of the chirp).
    """
    bins = chirps // tx
    steps = np.arange(bins) - bins // 2
    return steps / (bins * tx * chirp_period) * _LIGHT / (2 * frequency)
