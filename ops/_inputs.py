"""The columns of a batch as kernels want them: a few number types, read-only, nulls beside the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import as_numpy, event_ns
from .keys import KeyIndex

__all__ = ["NO_MASK", "SIGN", "Inputs", "plain_type"]

Array = npt.NDArray[Any]

#: The validity of a column without nulls.
NO_MASK = np.frombuffer(b"", np.bool_)
#: Turned over, unsigned numbers sort as signed ones.
SIGN = np.uint64(1 << 63)


class Inputs:
    """The columns of one batch as the kernels want them, each converted once."""

    __slots__ = ("_batch", "_made", "times")

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._made: dict[tuple[object, str], Array] = {}
        self.times = event_ns(batch)

    def valid(self, name: str) -> Array:
        """True where `name` is not null; empty if nothing is null."""

        def make(column: pa.Array) -> Array:
            if not column.null_count:
                return NO_MASK
            return np.array(column.is_valid().to_numpy(zero_copy_only=False))

        return self._once("valid", name, make)

    def ints(self, name: str) -> Array:
        """int64; unsigned 64-bit values keep their bits."""

        def make(column: pa.Array) -> Array:
            values = _values(column)
            return values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64, copy=False)

        return self._once("ints", name, make)

    def ordered(self, name: str) -> Array:
        """int64 in the order of the values, also for unsigned 64-bit ones."""

        def make(column: pa.Array) -> Array:
            values = _values(column)
            if values.dtype == np.uint64:
                return (values ^ SIGN).view(np.int64)
            return values.astype(np.int64, copy=False)

        return self._once("ordered", name, make)

    def floats(self, name: str) -> Array:
        """float64."""
        return self._once("floats", name, lambda column: _values(column).astype(np.float64, copy=False))

    def words(self, name: str) -> Array:
        """The bytes of each row in 64-bit words, ``(rows, words)``, padded with zeros."""

        def make(column: pa.Array) -> Array:
            values = _values(column)
            rows = values.reshape(len(values), int(np.prod(values.shape[1:])))
            width = rows.shape[1] * rows.itemsize
            padded = np.zeros((len(rows), -(-width // 8) * 8), np.uint8)
            padded[:, :width] = np.ascontiguousarray(rows).view(np.uint8)
            return padded.view(np.uint64)

        return self._once("words", name, make)

    def numbers(self, name: str, index: KeyIndex) -> Array:
        """Dictionary values as their number in `index`, as words ``(rows, 1)``."""
        return self._once(index, name, lambda column: index.ids([column]).view(np.uint64).reshape(-1, 1))

    def _once(self, form: object, name: str, make: Callable[[pa.Array], Array]) -> Array:
        made = self._made.get((form, name))
        if made is None:
            made = make(self._batch.column(name)).view()
            made.flags.writeable = False
            self._made[form, name] = made
        return made


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The number type that holds the bits of `kind`."""
    if pa.types.is_temporal(kind):
        return pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.uint8() if pa.types.is_boolean(kind) else kind


def _values(column: pa.Array) -> Array:
    """A numpy view of a fixed-width column; zeros where it is null."""
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_temporal(kind):
        column = column.view(plain_type(kind))
    if not column.null_count:
        return as_numpy(column)
    present = as_numpy(column.drop_null())
    values = np.zeros((len(column), *present.shape[1:]), present.dtype)
    values[column.is_valid().to_numpy(zero_copy_only=False)] = present
    return values
