"""From framed DBN records to a batch of order records, the schema that has most of them by far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.memory import BufferPool
from ._dbn_layout import UNDEF_PRICE
from ._dbn_order_kernels import COLUMNS, ROW, orders

if TYPE_CHECKING:
    from ._dbn_reader import Piece

__all__ = ["Orders"]


class Orders:
    """Decodes order records to `schema`, ``market.l3``. Thread-safe.

    All columns of a batch lie in one lease whose layout follows from the number of rows, so that little is done a batch.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._zeros: tuple[int, dict[str, pa.Array]] = (-1, {})
        self._fields = [(field.name, field.type, COLUMNS.get(field.name, -1)) for field in schema]
        ends = [*COLUMNS.values(), ROW][1:]
        self._widths = {name: end - at for (name, at), end in zip(COLUMNS.items(), ends, strict=True)}

    def decode(
        self,
        piece: Piece,
        first_seq: int,
        pool: BufferPool,
        wanted: npt.NDArray[np.bool_],
        sides: npt.NDArray[np.int8],
        odd: npt.NDArray[np.uint32],
        counts: npt.NDArray[np.int64],
    ) -> tuple[pa.RecordBatch | None, int]:
        """A batch, if there are rows, and how many numbers of odd records are in `odd`."""
        room = -(-piece.count // 64) * 64
        lease = pool.take(room * ROW)
        out: Any = lease.array(np.uint8, room * ROW)
        found, kernel = np.zeros(4, np.int64), orders
        seq = np.uint64(first_seq)
        symbols = piece.symbols.arrays
        kernel(piece.data, piece.offsets, piece.count, wanted, seq, sides, symbols, out, room, odd, counts, found)
        rows, wrong, priceless, nameless = found.tolist()
        if not rows:
            return None, wrong

        def column(name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
            return lease.array(dtype, rows, COLUMNS[name] * room)

        present, names = None, piece.symbols.dictionary
        if priceless:
            mask = column("price", np.int64) != UNDEF_PRICE
            present = pa.py_buffer(np.packbits(mask, bitorder="little"))
        if nameless:
            ids: Any = column("instrument_id", np.uint32)
            names = piece.symbols.name_rest(column("symbol", np.int32), ids)
        arrays, zeros = [], self._zero_columns(rows)
        for name, kind, at in self._fields:
            if at < 0:
                arrays.append(zeros[name])
                continue
            data = lease.buffer(at * room, self._widths[name] * rows)
            if name == "symbol":
                indices = pa.Array.from_buffers(kind.index_type, rows, [None, data])
                arrays.append(pa.DictionaryArray.from_arrays(indices, names, safe=False))
            else:
                arrays.append(pa.Array.from_buffers(kind, rows, [present if name == "price" else None, data]))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema), wrong

    def _zero_columns(self, rows: int) -> dict[str, pa.Array]:
        """Columns that DBN has nothing for; batches share them."""
        known, columns = self._zeros
        if known < rows:
            zeros = pa.py_buffer(bytes(8 * rows))
            columns = {
                name: pa.Array.from_buffers(kind, rows, [None, zeros]) for name, kind, at in self._fields if at < 0
            }
            self._zeros = rows, columns
            return columns
        return columns if known == rows else {name: column.slice(0, rows) for name, column in columns.items()}
