"""Blocks of lines to batches: the scanner's outputs, its dictionaries, and the lines it leaves to the slow path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import ColumnBlock
from ..pipeline.context import BadRecord
from ..pipeline.memory import BufferPool, Lease
from ._ndjson_kernels import (
    AT,
    DEPTH,
    DICTIONARY_FULL,
    DICTIONARY_GROWS,
    LEARNED,
    LINE,
    LINE_END,
    RECORD,
    ROW,
    SLOW,
    STATE,
    WHICH,
    scan,
)
from ._ndjson_plan import TEXT, Plan, address
from ._ndjson_simd import PADDING
from ._ndjson_slow import BadLine, read_line
from ._ndjson_text import FULL, GROW, gather, hash_text, intern

__all__ = ["Layout", "Text", "decode_text"]

_HIGH = np.uint64(0x8080808080808080)


@dataclass(frozen=True, slots=True)
class Text:
    """Whole lines of a file: `size` bytes at the start of a block of memory, zeros behind them.

    `offset` and `line` say where the first stands in the file (line numbers begin at 1). Only at the end of the file may
    the newline be missing.
    """

    lease: Lease
    size: int
    offset: int
    line: int

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        return self.lease.array(np.uint8, self.size)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where scanned values go: the batch schema, the plan, and the columns that do not come from the JSON.

    `rest` names the column of left-over text, `constants` dictionary columns with one value, `recv` whether capture time
    is read (else it is event time).
    """

    schema: pa.Schema
    plan: Plan
    rest: str | None
    constants: Mapping[str, str]
    recv: bool
    file: str


def _is_utf8(data: npt.NDArray[np.uint8], size: int, lease: Lease) -> bool:
    words = data[: size - size % 8].view(np.uint64)
    if not (np.bitwise_or.reduce(words) & _HIGH) and not (data[size - size % 8 :] & 0x80).any():
        return True
    offsets = pa.py_buffer(np.array([0, size], np.int64))
    try:
        pa.Array.from_buffers(pa.large_utf8(), 1, [None, offsets, lease.buffer(0, size)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


class _Dictionaries:
    """The values seen in each dictionary column of one batch: codes in order of first appearance."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._kept: list[npt.NDArray[np.uint8]] = []
        count = len(plan.dictionaries)
        self.counts = np.zeros(count + 1, np.int64)
        self.places = np.zeros((count, 512), np.int64)
        self.sizes = np.zeros((count, 512), np.int32)
        self.slots = np.full((count, 1024), -1, np.int32)
        for which, index in enumerate(plan.dictionaries):
            default = plan.columns[index].default
            if default is not None:
                self.code(which, str(default))

    def grow(self) -> None:
        self.places = np.pad(self.places, ((0, 0), (0, self.places.shape[1])))
        self.sizes = np.pad(self.sizes, ((0, 0), (0, self.sizes.shape[1])))
        wide = self.slots.shape[1] * 2
        self.slots = np.full((len(self.slots), wide), -1, np.int32)
        for which in range(len(self.slots)):
            for code in range(int(self.counts[which])):
                slot = int(hash_text(self.places[which, code], self.sizes[which, code])) & (wide - 1)
                while self.slots[which, slot] >= 0:
                    slot = (slot + 1) & (wide - 1)
                self.slots[which, slot] = code

    def code(self, which: int, text: str) -> int:
        """The code of a text, FULL if the index type has none left."""
        raw = text.encode()
        held = np.zeros(len(raw) + PADDING, np.uint8)
        held[: len(raw)] = np.frombuffer(raw, np.uint8)
        self._kept.append(held)
        while True:
            limit = self.plan.dict_limits[which]
            tables = self.slots[which], self.places[which], self.sizes[which], self.counts[which:]
            code = int(intern(address(held), len(raw), *tables, limit))
            if code != GROW:
                return code
            self.grow()

    def values(self, which: int) -> pa.Array:
        count = int(self.counts[which])
        if count == 0:
            return pa.array([], pa.utf8())
        offsets = np.zeros(count + 1, np.int32)
        data = np.empty(int(self.sizes[which, :count].sum(dtype=np.int64)) + PADDING, np.uint8)
        gather(self.places[which], self.sizes[which], count, address(data), offsets)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[: offsets[-1]])]
        return pa.Array.from_buffers(pa.utf8(), count, buffers)


class _Rows:
    """The memory of one batch, as the scanner and the slow path fill it."""

    def __init__(self, layout: Layout, pool: BufferPool, rows: int, size: int) -> None:
        plan = layout.plan
        self.layout, self.rows = layout, rows
        self.block = ColumnBlock(pool, layout.schema, rows)
        self.dictionaries = _Dictionaries(plan)
        self.valid = np.ones((len(plan.columns), rows), np.uint8)
        self.nulls = np.zeros(len(plan.columns), np.int64)
        self.targets = np.zeros(len(plan.columns), np.int64)
        self.extras = plan.fill.copy()
        self.data: dict[int, Lease] = {}
        self.arrays: dict[int, npt.NDArray[Any]] = {}
        for index, column in enumerate(plan.columns):
            if plan.kinds[index] == TEXT:
                self.data[index] = pool.take(size + PADDING)
                array: npt.NDArray[Any] = self.data[index].array(np.uint8, size + PADDING)
                self.arrays[index] = offsets = np.zeros(rows + 1, np.int32)
                self.extras[index] = address(offsets)
            elif column.type == "bool":
                self.arrays[index] = array = np.zeros(rows, np.uint8)
            else:
                self.arrays[index] = array = self.block[column.name]
            self.targets[index] = address(array)
        self.rest = pool.take(size + PADDING) if layout.rest else None
        self.rest_offsets = np.zeros(rows + 1 if layout.rest else 1, np.int64)
        self.rest_target = address(self.rest.array(np.uint8, size)) if self.rest else 0

    def put(self, row: int, values: Mapping[str, Any], rest: str) -> bool:
        """Write one row of the slow path; False if a dictionary has no code left."""
        plan = self.layout.plan
        for index, column in enumerate(plan.columns):
            value = values.get(column.name)
            array = self.arrays[index]
            if value is None:
                self.nulls[index] += 1
                self.valid[index, row] = 0
                value = column.default if column.default is not None else "" if index in self.data else 0
                if column.is_dictionary:
                    array[row] = 0
                    continue
            if index in self.data:
                raw = value.encode()
                start = int(array[row])
                array[row + 1] = start + len(raw)
                self.data[index].array(np.uint8, len(raw), start)[:] = np.frombuffer(raw, np.uint8)
            elif column.is_dictionary:
                code = self.dictionaries.code(int(plan.dict_of[index]), value)
                if code == FULL:
                    return False
                array[row] = code
            else:
                array[row] = value
        if self.rest is not None:
            raw = rest.encode()
            start = int(self.rest_offsets[row])
            self.rest_offsets[row + 1] = start + len(raw)
            self.rest.array(np.uint8, len(raw), start)[:] = np.frombuffer(raw, np.uint8)
        return True

    def batch(self, rows: int) -> pa.RecordBatch:
        plan = self.layout.plan
        valid, columns, dictionaries = {}, {}, {}
        for index, column in enumerate(plan.columns):
            nulls = int(self.nulls[index]) if column.default is None else 0
            present = self.valid[index].view(np.bool_)
            mask = pa.py_buffer(np.packbits(present[:rows], bitorder="little")) if nulls else None
            if index in self.data:
                offsets = self.arrays[index]
                buffers = [mask, pa.py_buffer(offsets[: rows + 1]), self.data[index].buffer(0, int(offsets[rows]))]
                columns[column.name] = pa.Array.from_buffers(pa.utf8(), rows, buffers)
            elif column.type == "bool":
                bits = pa.py_buffer(np.packbits(self.arrays[index][:rows], bitorder="little"))
                columns[column.name] = pa.Array.from_buffers(pa.bool_(), rows, [mask, bits])
            elif nulls:
                valid[column.name] = present
            if column.is_dictionary:
                dictionaries[column.name] = self.dictionaries.values(int(plan.dict_of[index]))
        for name, value in self.layout.constants.items():
            self.block[name][:rows] = 0
            dictionaries[name] = pa.array([value], pa.utf8())
        if not self.layout.recv:
            self.block["ts_recv"][:rows] = self.block["ts_event"][:rows]
        if self.rest is not None and self.layout.rest is not None:
            used = self.rest.buffer(0, int(self.rest_offsets[rows]))
            buffers = [None, pa.py_buffer(self.rest_offsets[: rows + 1]), used]
            columns[self.layout.rest] = pa.Array.from_buffers(pa.large_utf8(), rows, buffers)
        return self.block.batch(rows, dictionaries=dictionaries, columns=columns, valid=valid)


def decode_text(
    text: Text, layout: Layout, pool: BufferPool, first_seq: int, records: int
) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    """The rows of some lines, in order, and the lines that are no records."""
    plan = layout.plan
    data = text.bytes
    base = address(data)
    limit = 256 if _is_utf8(data, text.size, text.lease) else 128
    state = np.zeros(STATE, np.int64)
    state[AT], state[RECORD], state[LINE], state[LEARNED] = base, first_seq, text.line, plan.static
    stack = np.zeros((5, DEPTH), np.int64)
    keys = plan.fresh_keys()
    batches: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    rows = _Rows(layout, pool, records, text.size)
    while True:
        own = rows.dictionaries
        status = scan(
            base + text.size, limit, state, rows.rows, *keys, 1, plan.actions, plan.node_columns,
            plan.kinds, plan.widths, rows.targets, rows.extras, plan.most, plan.least, plan.units, plan.epochs,
            plan.required, rows.valid, rows.nulls, plan.dict_of, own.slots, own.places, own.sizes, own.counts,
            plan.dict_limits, rows.block["seq"].view(np.int64), rows.rest_target, rows.rest_offsets, stack,
        )  # fmt: skip
        if status == SLOW:
            if not _slow_line(text, layout, rows, state, bad):
                status = DICTIONARY_FULL
        elif status == DICTIONARY_GROWS:
            own.grow()
        elif status != DICTIONARY_FULL:
            break
        if status == DICTIONARY_FULL:
            batches.append(rows.batch(int(state[ROW])))
            rows = _Rows(layout, pool, records - int(state[RECORD]) + first_seq, text.size)
            state[ROW] = 0
    if state[ROW]:
        batches.append(rows.batch(int(state[ROW])))
    return batches, bad


def _slow_line(
    text: Text, layout: Layout, rows: _Rows, state: npt.NDArray[np.int64], bad: list[BadRecord]
) -> bool:
    """Decode the line at which the scan stopped and step over it; False if the batch must be closed first."""
    plan, base = layout.plan, address(text.bytes)
    start, stop = int(state[AT]) - base, int(state[LINE_END]) - base
    line = text.bytes[start:stop].tobytes()
    try:
        values, rest = read_line(line, plan.columns, rest=plan.rest, drop=plan.drop)
    except BadLine as error:
        cut = stop == text.size
        why = f"the file ends inside this line: {error}" if cut else str(error)
        place = f"{layout.file}, line {int(state[LINE])}, byte {text.offset + start}"
        bad.append(BadRecord(place, "ndjson.decode", why, line, int(state[RECORD])))
    else:
        row = int(state[ROW])
        if not rows.put(row, values, rest):
            return False
        rows.block["seq"][row] = state[RECORD]
        state[ROW] += 1
    state[RECORD] += 1
    if stop < text.size:
        stop += 1
        state[LINE] += 1
    state[AT] = base + stop
    return True
