"""Tables out of arrays that lie in files of their own: blocks of rows, read and put together where decoding runs.

Framing reads nothing but the times of radar tracks, which say where a scan ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnBlock, ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.reread import picked
from ._dataset_clock import fix_times, stamps
from ._dataset_tables import one_name, points_column
from ._npy import NpyArray
from .cdr import POINT

if TYPE_CHECKING:
    from .comma2k19 import Layout

__all__ = ["ArraysReader"]

#: Tracks further apart than this (s) belong to two scans; so do those after as many.
_SCAN_GAP = 0.020
_MOST_TRACKS = 4096

Columns = Mapping[str, npt.NDArray[Any]]


class ArraysReader(SourceReader):
    """The open arrays of one table. `parts` gives path and width by name."""

    def __init__(
        self,
        table: str,
        layout: Layout,
        parts: Mapping[str, tuple[str, int]],
        schema: pa.Schema,
        offset: int,
        block_rows: int,
        context: Context,
        position: Position | None,
    ) -> None:
        self._table, self._layout, self._columns, self._offset = table, layout, ColumnLayout(schema), offset
        self._block_rows, self._pool = block_rows, context.pool
        self._arrays: dict[str, NpyArray] = {}
        try:
            for name, (path, width) in parts.items():
                self._arrays[name] = NpyArray(path)
                self._check(name, width)
        except BaseException:
            self.close()
            raise
        self.rows = min(array.whole for array in self._arrays.values())
        start = dict(position or {})
        self._row, self._seq = int(start.get("row", 0)), int(start.get("seq", 0))
        if not 0 <= self._row <= self._claimed():
            raise FormatError(
                f"{self._arrays['t'].path}: row {self._row} to go on from is not there; have the files changed?"
            )

    def _check(self, name: str, width: int) -> None:
        array = self._arrays[name]
        wanted = "iu" if name in ("src", "address") else "S" if name == "data" else "f"
        if array.dtype.kind not in wanted or array.width != width or (name == "data" and array.dtype.itemsize > 8):
            kinds = {"iu": "integers", "S": "byte strings of up to 8", "f": "floating-point numbers"}
            raise FormatError(
                f"{array.path} holds rows of {array.width} {array.dtype}; table {self._table!r} needs {width} "
                f"{kinds[wanted]}"
            )

    def _claimed(self) -> int:
        return max(array.rows for array in self._arrays.values())

    def close(self) -> None:
        for array in self._arrays.values():
            array.close()

    def blocks(self) -> Iterator[Block]:
        index = 0
        while self._row < self.rows:
            start = self._row
            stop, records = self._cut(start)
            first = self._seq
            self._row, self._seq = stop, self._seq + len(records)
            yield Block(index, first, len(records), self._nbytes(start, stop), self._after(), (start, stop, records))
            index += 1
        if self._row < self._claimed():
            first, self._row, self._seq = self._seq, self._claimed(), self._seq + 1
            yield Block(index, first, 1, 0, self._after(), None)

    def _after(self) -> Position:
        return {"row": self._row, "seq": self._seq}

    def _nbytes(self, start: int, stop: int) -> int:
        return sum(a.width * a.dtype.itemsize for a in self._arrays.values()) * (stop - start)

    def _cut(self, start: int) -> tuple[int, npt.NDArray[np.int64]]:
        """Where the block from row `start` ends, and the first row of each of its records."""
        if self._table != "radar":
            stop = min(self.rows, start + self._block_rows)
            return stop, np.arange(start, stop)
        stop = min(self.rows, start + self._block_rows + _MOST_TRACKS)
        times = self._arrays["t"].read(start, stop)[:, 0]
        with np.errstate(invalid="ignore"):
            same = np.abs(np.diff(times)) <= _SCAN_GAP
        firsts = np.concatenate([[0], np.flatnonzero(~same) + 1, [len(times)]])
        cut = [np.arange(a, b, _MOST_TRACKS) for a, b in pairwise(firsts.tolist())]
        scans: npt.NDArray[np.int64] = np.concatenate(cut)
        if stop == self.rows and len(times) <= self._block_rows:
            return stop, scans + start
        inside = scans[scans <= self._block_rows]
        if len(inside) < 2:  # one scan of more tracks than a block has rows: up to where the next one begins
            inside = np.append(scans, len(times))[:2]
        return start + int(inside[-1]), inside[:-1] + start

    def reread(self, row: int, seq: int) -> Decoded | None:
        """What row `row` of the arrays is now, numbered `seq`; None if there is no such row."""
        for block in self.blocks():
            if block.payload is not None and block.payload[0] <= row < block.payload[1]:
                number = block.first_seq + int(np.searchsorted(block.payload[2], row, "right")) - 1
                return picked(self.decode(block), {number: seq})
        return None

    def decode(self, block: Block) -> Decoded:
        if block.payload is None:
            return self._missing(block.first_seq)
        start, stop, records = block.payload
        arrays = {name: array.read(start, stop) for name, array in self._arrays.items()}
        times, sound = stamps(arrays["t"][:, 0], self._offset)
        if self._table == "radar":
            return self._scans(block, arrays, times, sound, records - start)
        error = np.where(sound, 0, 1)
        if self._table == "can":
            src, address = arrays["src"][:, 0].astype(np.int64), arrays["address"][:, 0].astype(np.int64)
            error[(src < 0) | (src > 255) | (address < 0) | (address > 0x1FFFFFFF)] = 2
        elif self._table == "imu":
            error[arrays["t"][:, 0] != arrays["t2"][:, 0]] = 3
        received = times
        if self._layout.kind == "gnss":
            times, known = fix_times(arrays["value"][:, 3])
            error[~known] = 4
        good = np.flatnonzero(error == 0)
        out = self._columns.take(self._pool, len(good))
        out["ts_event"][:], out["ts_recv"][:] = times[good], received[good]
        out["seq"][:] = (good + block.first_seq).astype(np.uint64)
        batch = self._frames(out, arrays, good) if self._table == "can" else self._values(out, arrays, good)
        bad = [self._bad(block, arrays, start, int(i), int(error[i])) for i in np.flatnonzero(error)]
        return Decoded([batch] if len(good) else [], bad)

    def _frames(self, out: ColumnBlock, arrays: Columns, good: npt.NDArray[np.int64]) -> pa.RecordBatch:
        rows, address, data = len(good), arrays["address"][good, 0], arrays["data"]
        out["bus"][:], out["can_id"][:], out["len"][:], out["data"][:] = arrays["src"][good, 0], address, 8, 0
        out["data"][:, : data.shape[1]] = data[good]
        flags = {"ext": pa.array(address > 0x7FF), "fd": pa.array(np.zeros(rows, np.bool_))}
        return out.batch(rows, columns=flags)

    def _values(self, out: ColumnBlock, arrays: Columns, good: npt.NDArray[np.int64]) -> pa.RecordBatch:
        for column, part, first in self._layout.columns:
            target, values = out[column], arrays[part][good].astype(np.float64, copy=False)
            target[:] = values[:, first] if target.ndim == 1 else values[:, first : first + target.shape[1]]
        return out.batch(len(good), columns={"topic": one_name(self._table, len(good))})

    def _scans(
        self, block: Block, arrays: Columns, times: npt.NDArray[Any], sound: npt.NDArray[Any], first: npt.NDArray[Any]
    ) -> Decoded:
        value = arrays["value"]
        with np.errstate(invalid="ignore"):
            sound = sound & (value[:, 5] >= 0) & (value[:, 5] < 1 << 32)
        scan = np.zeros(len(value), np.int64)
        scan[first[1:]] = 1
        scan = np.cumsum(scan)
        counts = np.bincount(scan[sound], minlength=len(first))
        kept = np.flatnonzero(counts)
        lead = np.full(len(first), len(value))
        np.minimum.at(lead, scan[sound], np.flatnonzero(sound))
        tracks = value[sound]
        fields = {
            "x": tracks[:, 0],
            "y": tracks[:, 1],
            "vr": tracks[:, 2],
            "track_id": tracks[:, 5],
            "flags": (tracks[:, 6] == 1).astype(np.uint16),
        }
        rows = len(kept)
        out = self._columns.take(self._pool, rows)
        out["ts_event"][:] = out["ts_recv"][:] = times[lead[kept]]
        out["seq"][:] = (kept + block.first_seq).astype(np.uint64)
        out["n_points"][:] = counts[kept]
        columns = {name: one_name(self._table, rows) for name in ("topic", "frame_id")}
        columns["points"] = points_column(POINT, counts[kept], fields, len(tracks))
        start = block.payload[0]
        bad = []
        for i in np.flatnonzero(~sound).tolist():
            record = self._bad(block, arrays, start, i, 5)
            bad.append(
                BadRecord(record.place, record.operation, record.error, record.data, block.first_seq + int(scan[i]))
            )
        return Decoded([out.batch(rows, columns=columns)] if rows else [], bad)

    def _bad(self, block: Block, arrays: Columns, start: int, i: int, error: int) -> BadRecord:
        reasons = (
            "",
            f"its time is {arrays['t'][i, 0]} s",
            "its bus is not from 0 to 255 or its address has more than 29 bits",
            "the accelerometer and the gyro have different times here; read their tables one by one",
            "it has no time of the fix",
            "its time or its address is not a number that can be",
        )
        data = b"".join(values[i].tobytes() for values in arrays.values())
        where = f"{self._arrays['t'].path}, row {start + i}"
        return BadRecord(where, "comma2k19.decode", reasons[error], data, block.first_seq + i)

    def _missing(self, seq: int) -> Decoded:
        short = [a for a in self._arrays.values() if a.whole == self.rows]
        told = ", ".join(f"{a.path} holds {a.whole} of {a.rows}" for a in short)
        error = f"rows {self.rows} to {self._claimed() - 1} are not in all arrays of the table: {told}"
        missing = self._claimed() - self.rows
        dropped = {"in a damaged part of the file": missing - 1} if missing > 1 else {}
        return Decoded((), [BadRecord(short[0].path, "comma2k19.read", error, b"", seq)], dropped)
