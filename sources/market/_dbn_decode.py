"""From framed DBN records to a batch of one schema's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnBlock, ColumnLayout
from ...pipeline.memory import BufferPool
from . import _dbn_kernels as kernels
from ._dbn_frame_kernels import select
from ._dbn_layout import LATEST, SCHEMAS, UNDEF_PRICE, family_of, record_layout
from ._dbn_metadata import Metadata
from ._dbn_tables import Column, columns_of, levels_type, schema_of

if TYPE_CHECKING:
    from ._dbn_reader import Piece

__all__ = ["Decoder"]

_LEVELS = 10
#: Bytes of zeros that columns which DBN has nothing for share.
_ZEROS = pa.py_buffer(bytes(8 << 16))


def side_table() -> npt.NDArray[np.int8]:
    """Side by its letter: 1 bid, -1 ask, 0 none, 2 for what is no side."""
    table = np.full(256, 2, np.int8)
    table[ord("B")], table[ord("A")], table[ord("N")], table[0] = 1, -1, 0, 0
    return table


class Decoder:
    """Decodes the records of one schema; those of other types are counted. Thread-safe."""

    def __init__(self, schema: str, metadata: Metadata, source: str) -> None:
        self.schema_name, self._family = schema, family_of(schema)
        self.schema = schema_of(schema, source, ts_out=metadata.ts_out)
        self._columns = columns_of(schema, ts_out=metadata.ts_out)
        self._layout = record_layout(self._family, metadata.version, ts_out=metadata.ts_out)
        self._old = metadata.version < LATEST
        self._version = metadata.version
        self.wanted = np.zeros(256, np.bool_)
        self.wanted[sorted(SCHEMAS[schema])] = True
        self.sides = side_table()
        zero = [column.name for column in self._columns if column.kind == "zero"]
        self._blocks = ColumnLayout(self.schema, ready=zero)

    def decode(
        self, piece: Piece, first_seq: int, pool: BufferPool
    ) -> tuple[Sequence[pa.RecordBatch], npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Batches, the numbers (in the block) of records that cannot be, and how many were of other types, by type."""
        counts, odd = np.zeros(256, np.int64), np.empty(piece.count, np.uint32)
        block = self._blocks.take(pool, piece.count)
        columns: dict[str, pa.Array] = {}
        valid: dict[str, npt.NDArray[np.bool_]] = {}
        rows, wrong, symbols = self._by_column(piece, first_seq, block, pool, counts, odd, columns, valid)
        if not rows:
            return (), odd[:wrong], counts
        for column in self._columns:
            if column.kind == "zero":
                columns[column.name] = pa.Array.from_buffers(column.type, rows, [None, _ZEROS])
        batch = block.batch(rows, dictionaries={"symbol": symbols}, columns=columns, valid=valid)
        return (batch,), odd[:wrong], counts

    def _by_column(
        self,
        piece: Piece,
        first_seq: int,
        block: ColumnBlock,
        pool: BufferPool,
        counts: npt.NDArray[Any],
        odd: npt.NDArray[Any],
        made: dict[str, pa.Array],
        valid: dict[str, npt.NDArray[np.bool_]],
    ) -> tuple[int, int, pa.Array]:
        chosen, numbers = np.empty(piece.count, np.uint32), np.empty(piece.count, np.uint32)
        rows = select(piece.data, piece.offsets, piece.count, self.wanted, chosen, numbers, counts)
        fields: Any = self._layout.fields
        side = block.arrays["side"] if "side" in block.arrays else np.empty(rows, np.int8)
        rows, wrong = kernels.times(
            piece.data, chosen, numbers, rows, first_seq, _place(fields, "ts_recv"), _place(fields, "side"), self.sides,
            block["ts_event"], block["ts_recv"], block["seq"], side, odd,
        )  # fmt: skip
        for column in self._columns:
            if column.kind in ("number", "price", "time"):
                present = self._number(column, piece.data, chosen, rows, block[column.name])
                if present is not None and not present.all():
                    valid[column.name] = present
            elif column.kind == "text":
                made[column.name] = self._text(column, piece.data, chosen, rows)
            elif column.kind == "levels":
                made[column.name] = self._levels(piece.data, chosen, rows, pool)
        if self._version == 1 and self._family in ("error", "system"):
            text = "err" if self._family == "error" else "msg"
            block["code"][:rows] = [_code(self._family, value) for value in made[text].to_pylist()]
        symbols = piece.symbols.dictionary
        lookup: Any = kernels.lookup
        missing = lookup(block["instrument_id"], block["ts_recv"], rows, *piece.symbols.arrays, block["symbol"])
        if missing:
            symbols = piece.symbols.name_rest(block["symbol"][:rows], block["instrument_id"][:rows])
        return rows, wrong, symbols

    def _number(
        self,
        column: Column,
        data: npt.NDArray[np.uint8],
        chosen: npt.NDArray[np.uint32],
        rows: int,
        out: npt.NDArray[Any],
    ) -> npt.NDArray[np.bool_] | None:
        """Fill a column; gives where it has values, for prices and times."""
        fields: Any = self._layout.fields
        if column.field not in fields:
            out[:rows] = column.default
            return None if column.kind == "number" else np.zeros(rows, np.bool_)
        kind, place = fields[column.field][:2]
        if kind.itemsize == 8:
            kernels.take8(data, chosen, rows, place, out, 1, 0)
        elif kind == np.int32 and out.dtype == np.int64:  # the quantity of statistics before version 3
            short = np.empty(rows, np.int32)
            kernels.take4(data, chosen, rows, place, short, 1, 0)
            out[:rows] = short
            out[:rows][short == np.iinfo(np.int32).max] = UNDEF_PRICE
        elif kind.itemsize == 4:
            kernels.take4(data, chosen, rows, place, out, 1, 0)
        else:
            kernels.take(data, chosen, rows, place, out[:rows].view(np.uint8).reshape(rows, kind.itemsize))
        if column.kind == "number":
            return None
        present: npt.NDArray[np.bool_] = out[:rows] != UNDEF_PRICE if column.kind == "price" else out[:rows] >= 0
        return present

    def _text(self, column: Column, data: npt.NDArray[np.uint8], chosen: npt.NDArray[np.uint32], rows: int) -> pa.Array:
        fields: Any = self._layout.fields
        ends = np.zeros(rows + 1, np.int32)
        if column.field not in fields:
            return pa.Array.from_buffers(pa.utf8(), rows, [None, pa.py_buffer(ends), pa.py_buffer(b"")])
        kind, place = fields[column.field][:2]
        total = kernels.text_sizes(data, chosen, rows, place, kind.itemsize, ends)
        out = np.empty(total, np.uint8)
        kernels.texts(data, chosen, rows, place, ends, out)
        array = pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(ends), pa.py_buffer(out)])
        try:
            return array.cast(pa.utf8())
        except pa.ArrowInvalid:
            return pa.array([value.decode("utf-8", "replace") for value in array.to_pylist()], pa.utf8())

    def _levels(
        self, data: npt.NDArray[np.uint8], chosen: npt.NDArray[np.uint32], rows: int, pool: BufferPool
    ) -> pa.Array:
        kind, fields = levels_type(), self._layout.fields
        count = rows * _LEVELS
        lease = pool.take(count * sum(kind.value_type.field(i).type.bit_width // 8 for i in range(6)))
        children, at = [], 0
        places: Any = fields
        for i in range(6):
            field = kind.value_type.field(i)
            width = field.type.bit_width // 8
            out: Any = lease.array(np.int64 if width == 8 else np.uint32, count, at)
            copy = kernels.take8 if width == 8 else kernels.take4
            for level in range(_LEVELS):
                copy(data, chosen, rows, places[f"{field.name}_{level:02}"][1], out, _LEVELS, level)
            mask = None
            if width == 8 and not (present := out != UNDEF_PRICE).all():
                mask = pa.py_buffer(np.packbits(present, bitorder="little"))
            children.append(pa.Array.from_buffers(field.type, count, [mask, lease.buffer(at, count * width)]))
            at += count * width
        levels = pa.StructArray.from_arrays(children, fields=[kind.value_type.field(i) for i in range(6)])
        return pa.Array.from_buffers(kind, rows, [None], children=[levels])

    def what_is_odd(self, raw: bytes) -> str:
        """Why a record was put aside."""
        record = np.frombuffer(raw, self._layout, 1)[0]
        names = self._layout.names or ()
        if "side" in names and self.sides[int(record["side"])] == 2:
            return f"the side is {chr(int(record['side']))!r}, not A, B or N"
        return (
            f"the event time {int(record['ts_event'])} is not one that an int64 of ns holds, and nothing else tells it"
        )


def _place(fields: Any, name: str) -> int:
    return int(fields[name][1]) if name in fields and int(fields[name][0].itemsize) in (1, 8) else -1


def _code(family: str, text: str) -> int:
    """The code that version 2 gave to what an error or system message of version 1 says."""
    if family == "error":
        whole = {
            "User or API key deactivated": 2,
            "User has reached their open connection limit": 3,
            "Internal error": 6,
        }
        begins = {"Failed to resolve symbol": 4, "Slow client detected for ": 7}
        return whole.get(text) or next((code for start, code in begins.items() if text.startswith(start)), 255)
    if text == "Heartbeat":
        return 0
    ends = {
        ("End of interval for ", ""): 4,
        ("Subscription request ", " succeeded"): 1,
        ("Warning: slow reading", ""): 2,
        ("Finished ", " replay"): 3,
    }
    found = (code for (start, end), code in ends.items() if text.startswith(start) and text.endswith(end))
    return next(found, 255)
