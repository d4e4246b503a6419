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
        ends = [*COLUMNS.values(), ROW][1:]
        widths = {name: end - at for (name, at), end in zip(COLUMNS.items(), ends, strict=True)}
        absent = [field for field in schema if field.name not in COLUMNS]
        self._zero_kinds = [field.type for field in absent]
        self._nothing: pa.Buffer = pa.py_buffer(b"")
        self._zeros: tuple[int, list[pa.Array]] = (-1, [])
        #: Of each column the type, and where it begins and its width, or its place among those of zeros and 0.
        self._fields = [
            (field.type.index_type if field.name == "symbol" else field.type, COLUMNS[field.name], widths[field.name])
            if field.name in COLUMNS
            else (field.type, absent.index(field), 0)
            for field in schema
        ]
        self._symbol, self._price = schema.get_field_index("symbol"), schema.get_field_index("price")

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
        zeros, buffer, wrap = self._zero_columns(rows), lease.buffer, pa.Array.from_buffers
        arrays = [
            wrap(kind, rows, [None, buffer(at * room, width * rows)]) if width else zeros[at]
            for kind, at, width in self._fields
        ]
        arrays[self._symbol] = pa.DictionaryArray.from_arrays(arrays[self._symbol], names, safe=False)
        if present is not None:
            data = buffer(COLUMNS["price"] * room, 8 * rows)
            arrays[self._price] = wrap(pa.int64(), rows, [present, data])
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema), wrong

    def _zero_columns(self, rows: int) -> list[pa.Array]:
        """Columns that DBN has nothing for; batches share them."""
        known, columns = self._zeros
        if known != rows:
            nothing = self._nothing
            if nothing.size < 8 * rows:
                self._nothing = nothing = pa.py_buffer(bytes(16 * rows))
            columns = [pa.Array.from_buffers(kind, rows, [None, nothing]) for kind in self._zero_kinds]
            self._zeros = rows, columns
        return columns
