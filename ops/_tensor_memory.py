"""Memory for a tensor column that an operator computes: a slot of the last hop if the planner lends one, else the pool.

A deferrable operator may be run right before the accelerator. The planner then sets ``context.allocate(name, kind, rows)``,
which returns memory inside the slot, an object with the two methods of a `Lease` (``array(dtype, shape, offset)`` and
``buffer(offset, nbytes)``, offset 0 being the column's first row), or None when the column does not go into the slot.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import numpy_layout
from ..pipeline.context import Context

__all__ = ["TensorMemory"]


class _Memory(Protocol):
    def array(self, dtype: npt.DTypeLike, shape: Any, offset: int = 0) -> npt.NDArray[Any]: ...

    def buffer(self, offset: int, nbytes: int) -> pa.Buffer: ...


class TensorMemory:
    """Room for `rows` rows of the ``fixed_shape_tensor`` type `kind`.

    `rows` is the writable array ``(rows, *shape)``; `column` closes it and gives the first `count` rows as an Arrow
    array over the same memory. The array must not be used after the object is gone.
    """

    __slots__ = ("_kind", "_memory", "_row_bytes", "rows")

    def __init__(self, context: Context, name: str, kind: pa.FixedShapeTensorType, rows: int) -> None:
        layout = numpy_layout(kind)
        if layout is None:
            raise TypeError(f"{kind} has no fixed-width layout")
        dtype, shape = layout
        self._kind = kind
        self._row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        lent: _Memory | None = context.allocate(name, kind, rows) if context.allocate is not None else None
        self._memory: _Memory = lent if lent is not None else context.pool.take(rows * self._row_bytes)
        self.rows: npt.NDArray[Any] = self._memory.array(dtype, (rows, *shape), 0)

    def column(self, count: int) -> pa.Array:
        """The first `count` rows as an array of the tensor type, without a copy."""
        storage = self._kind.storage_type
        width = storage.list_size
        data = self._memory.buffer(0, count * self._row_bytes)
        values = pa.Array.from_buffers(storage.value_type, count * width, [None, data])
        lists = pa.Array.from_buffers(storage, count, [None], children=[values])
        return pa.ExtensionArray.from_storage(self._kind, lists)
