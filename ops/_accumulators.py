"""The state behind each aggregate: arrays with one row a slot, of which zeros mean empty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.errors import RunError
from . import _aggregate_kernels as kernels
from ._inputs import NO_MASK, SIGN, Inputs, plain_type
from .keys import KeyIndex

__all__ = ["Accumulator", "Count", "Edge", "Extreme", "FloatSum", "IntSum", "Spread", "UnsignedSum"]

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


class Accumulator(ABC):
    """State of one aggregate for all slots. Subclasses say which arrays they keep and how rows enter them."""

    def __init__(self, **layout: tuple[npt.DTypeLike, tuple[int, ...]]) -> None:
        self.layout: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {"n": (np.int64, ()), **layout}
        self.arrays: dict[str, Array] = {}
        self.resize(0)

    @property
    def slot_bytes(self) -> int:
        """Bytes a slot."""
        return sum(a.dtype.itemsize * int(np.prod(a.shape[1:])) for a in self.arrays.values())

    @property
    def shared_bytes(self) -> int:
        """Bytes held beside the slots."""
        return 0

    def resize(self, capacity: int) -> None:
        """Make room for `capacity` slots; what there is stays."""
        for name, (dtype, shape) in self.layout.items():
            grown = np.zeros((capacity, *shape), dtype)
            if name in self.arrays:
                grown[: len(self.arrays[name])] = self.arrays[name]
            self.arrays[name] = grown

    def clear(self, slots: Ints) -> None:
        """Make `slots` empty."""
        for array in self.arrays.values():
            array[slots] = 0

    def like(self, capacity: int) -> Self:
        """An empty accumulator of the same aggregate with `capacity` slots."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.arrays = {}
        other.resize(capacity)
        return other

    def save(self, slots: Ints) -> dict[str, Any]:
        """The contents of `slots`, in their order."""
        return {name: array[slots] for name, array in self.arrays.items()}

    def load(self, state: Mapping[str, Any], slots: Ints) -> None:
        """Put what `save` gave into `slots`."""
        for name, array in self.arrays.items():
            array[slots] = state[name]

    @abstractmethod
    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        """Let rows ``begin:end`` of the batch enter their slots, in order."""

    @abstractmethod
    def fold(self, sources: Ints, targets: Ints, into: Self) -> None:
        """Add slot ``sources[i]`` to slot ``targets[i]`` of `into`, in order."""

    @abstractmethod
    def result(self, slots: Ints) -> pa.Array:
        """The aggregate of each of `slots`."""


class Count(Accumulator):
    def __init__(self, column: str | None) -> None:
        super().__init__()
        self.column = column

    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        valid = NO_MASK if self.column is None else inputs.valid(self.column)
        kernels.add_count(slots, begin, end, valid, self.arrays["n"])

    def fold(self, sources: Ints, targets: Ints, into: Self) -> None:
        np.add.at(into.arrays["n"], targets, self.arrays["n"][sources])

    def result(self, slots: Ints) -> pa.Array:
        return pa.array(self.arrays["n"][slots].astype(np.uint64))


class IntSum(Accumulator):
    def __init__(self, column: str, step: str) -> None:
        super().__init__(total=(np.int64, ()))
        self.column, self.step = column, step

    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        values, valid = inputs.ints(self.column), inputs.valid(self.column)
        if kernels.add_int_sum(slots, begin, end, values, valid, self.arrays["n"], self.arrays["total"]) >= 0:
            raise self._overflow()

    def fold(self, sources: Ints, targets: Ints, into: Self) -> None:
        own, to = self.arrays, into.arrays
        if kernels.fold_int_sum(sources, targets, own["n"], own["total"], to["n"], to["total"]) >= 0:
            raise self._overflow()

    def result(self, slots: Ints) -> pa.Array:
        return pa.array(self.arrays["total"][slots], mask=self.arrays["n"][slots] == 0)

    def _overflow(self) -> RunError:
        return RunError(
            f"step {self.step!r}: the sum of {self.column!r} in one window does not fit int64; "
            "cast the column to float64 before the window"
        )


class UnsignedSum(IntSum):
    """The sum of uint64 values: one above the largest int64 is an overflow by itself."""

    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        values, valid = inputs.ints(self.column)[begin:end], inputs.valid(self.column)
        counted = slots[begin:end] >= 0
        if bool(np.any((values < 0) & counted & (valid[begin:end] if valid.size else True))):
            raise self._overflow()
        super().add(slots, begin, end, inputs)


class FloatSum(Accumulator):
    """The sum in float64, or the mean."""

    def __init__(self, column: str, *, mean: bool) -> None:
        super().__init__(total=(np.float64, ()))
        self.column, self.mean = column, mean

    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        values, valid = inputs.floats(self.column), inputs.valid(self.column)
        kernels.add_float_sum(slots, begin, end, values, valid, self.arrays["n"], self.arrays["total"])

    def fold(self, sources: Ints, targets: Ints, into: Self) -> None:
        own, to = self.arrays, into.arrays
        kernels.fold_float_sum(sources, targets, own["n"], own["total"], to["n"], to["total"])

    def result(self, slots: Ints) -> pa.Array:
        n, total = self.arrays["n"][slots], self.arrays["total"][slots]
        return pa.array(total / np.maximum(n, 1) if self.mean else total, mask=n == 0)


class Spread(Accumulator):
    """The sample standard deviation."""

    def __init__(self, column: str) -> None:
        super().__init__(mean=(np.float64, ()), spread=(np.float64, ()))
        self.column = column

    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        values, valid = inputs.floats(self.column), inputs.valid(self.column)
        own = self.arrays
        kernels.add_spread(slots, begin, end, values, valid, own["n"], own["mean"], own["spread"])

    def fold(self, sources: Ints, targets: Ints, into: Self) -> None:
        own, to = self.arrays, into.arrays
        kernels.fold_spread(sources, targets, own["n"], own["mean"], own["spread"], to["n"], to["mean"], to["spread"])

    def result(self, slots: Ints) -> pa.Array:
        n, spread = self.arrays["n"][slots], self.arrays["spread"][slots]
        return pa.array(np.sqrt(spread / np.maximum(n - 1, 1)), mask=n < 2)


class Extreme(Accumulator):
    """The smallest or largest value."""

    def __init__(self, column: str, kind: pa.DataType, *, largest: bool) -> None:
        self.floating: bool = pa.types.is_floating(kind)
        super().__init__(best=(np.float64 if self.floating else np.int64, ()))
        self.column, self.kind, self.largest = column, kind, largest

    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        valid, n, best = inputs.valid(self.column), self.arrays["n"], self.arrays["best"]
        if self.floating:
            values = inputs.floats(self.column)
            kernels.add_float_extreme(slots, begin, end, values, valid, n, best, self.largest)
        else:
            values = inputs.ordered(self.column)
            kernels.add_int_extreme(slots, begin, end, values, valid, n, best, self.largest)

    def fold(self, sources: Ints, targets: Ints, into: Self) -> None:
        own, to = self.arrays, into.arrays
        fold = kernels.fold_float_extreme if self.floating else kernels.fold_int_extreme
        fold(sources, targets, own["n"], own["best"], to["n"], to["best"], self.largest)

    def result(self, slots: Ints) -> pa.Array:
        best, empty = self.arrays["best"][slots], self.arrays["n"][slots] == 0
        if pa.types.is_uint64(self.kind):
            return pa.array(best.view(np.uint64) ^ SIGN, mask=empty)
        plain = plain_type(self.kind)
        return _dressed(pa.array(best.astype(plain.to_pandas_dtype()), plain, mask=empty), self.kind)


class Edge(Accumulator):
    """The value at the earliest or latest time; dictionary values are kept as numbers of an index."""

    def __init__(self, column: str, kind: pa.DataType, *, width: int, latest: bool) -> None:
        super().__init__(when=(np.int64, ()), held=(np.uint64, (-(-width // 8),)))
        self.column, self.kind, self.width, self.latest = column, kind, width, latest
        self.index = KeyIndex([kind]) if pa.types.is_dictionary(kind) else None

    @property
    def shared_bytes(self) -> int:
        return 0 if self.index is None else self.index.nbytes

    def add(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        words = inputs.words(self.column) if self.index is None else inputs.numbers(self.column, self.index)
        own, valid = self.arrays, inputs.valid(self.column)
        kernels.add_edge(slots, begin, end, inputs.times, words, valid, own["n"], own["when"], own["held"], self.latest)

    def fold(self, sources: Ints, targets: Ints, into: Self) -> None:
        own, to = self.arrays, into.arrays
        kernels.fold_edge(
            sources, targets, own["n"], own["when"], own["held"], to["n"], to["when"], to["held"], self.latest
        )

    def result(self, slots: Ints) -> pa.Array:
        held, empty = self.arrays["held"][slots], self.arrays["n"][slots] == 0
        if self.index is not None:
            numbers = held.view(np.int64).reshape(-1)
            if empty.any():
                numbers = np.where(empty, self.index.ids([pa.nulls(1, self.kind)])[0], numbers)
            return self.index.arrays(numbers)[0]
        data = pa.py_buffer(np.ascontiguousarray(held.view(np.uint8)[:, : self.width]))
        mask = pa.py_buffer(np.packbits(~empty, bitorder="little")) if empty.any() else None
        return _from_bytes(self.kind, len(slots), mask, data)

    def save(self, slots: Ints) -> dict[str, Any]:
        state = super().save(slots)
        return state if self.index is None else {**state, "values": self.index.snapshot()}

    def load(self, state: Mapping[str, Any], slots: Ints) -> None:
        super().load(state, slots)
        if self.index is not None:
            self.index.restore(state["values"])


def _dressed(plain: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(kind):
        return plain.cast(pa.bool_())
    return plain.view(kind) if pa.types.is_temporal(kind) else plain


def _from_bytes(kind: pa.DataType, rows: int, mask: pa.Buffer | None, data: pa.Buffer) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _from_bytes(kind.storage_type, rows, mask, data))
    if pa.types.is_fixed_size_list(kind):
        values = _from_bytes(kind.value_type, rows * kind.list_size, None, data)
        return pa.Array.from_buffers(kind, rows, [mask], children=[values])
    if pa.types.is_boolean(kind):
        return _from_bytes(pa.uint8(), rows, mask, data).cast(kind)
    return pa.Array.from_buffers(kind, rows, [mask, data])
