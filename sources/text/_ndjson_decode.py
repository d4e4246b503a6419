"""Blocks of lines to batches: the scanner's outputs, its dictionaries, and the lines it leaves to the slow path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool, Lease
from ._line_framer import Text
from ._ndjson_kernels import (
    AT,
    DEPTH,
    DICTIONARY_FULL,
    DICTIONARY_GROWS,
    FRAME,
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
from ._ndjson_plan import Keys, Plan, address
from ._ndjson_simd import PADDING
from ._ndjson_slow import BadLine, read_line
from ._ndjson_text import FULL, GROW, TABLE, gather, hash_text, intern
from ._ndjson_values import DICTIONARY, FILL, NULLS, TARGET, TEXTS, VALID

__all__ = ["Layout", "decode_text"]

_HIGH = np.uint64(0x8080808080808080)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where scanned values go: the batches' columns, the plan, and the columns that do not come from the JSON.

    `rest` names the column of left-over text, `constants` dictionary columns with one value, `recv` whether capture time
    is read (else it is event time).
    """

    batch: ColumnLayout
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


class _Dictionary:
    """The values seen in a dictionary column of one batch: codes in order of first appearance."""

    def __init__(self, limit: int, default: str | None) -> None:
        self._kept: list[npt.NDArray[np.uint8]] = []
        self.table = np.zeros(len(TABLE), np.int64)
        self.table[5] = limit
        self._places, self._sizes = np.zeros(512, np.int64), np.zeros(512, np.int32)
        self._index()
        if default is not None:
            self.code(default)

    @property
    def count(self) -> int:
        return int(self.table[4])

    def _index(self) -> None:
        room = len(self._places)
        self._slots = np.full(2 * room, -1, np.int32)
        for code in range(self.count):
            slot = int(hash_text(int(self._places[code]), int(self._sizes[code]))) & (2 * room - 1)
            while self._slots[slot] >= 0:
                slot = (slot + 1) & (2 * room - 1)
            self._slots[slot] = code
        self.table[:4] = address(self._slots), 2 * room - 1, address(self._places), address(self._sizes)
        self.table[6] = room

    def grow(self) -> None:
        """Make room for twice as many values."""
        self._places = np.pad(self._places, (0, len(self._places)))
        self._sizes = np.pad(self._sizes, (0, len(self._sizes)))
        self._index()

    def code(self, text: str) -> int:
        """The code of a text, FULL if the index type has none left."""
        raw = text.encode()
        held = np.zeros(len(raw) + PADDING, np.uint8)
        held[: len(raw)] = np.frombuffer(raw, np.uint8)
        self._kept.append(held)
        while (code := int(intern(address(held), len(raw), address(self.table)))) == GROW:
            self.grow()
        return code

    def values(self) -> pa.Array:
        """The values in order of their codes."""
        count = self.count
        offsets = np.zeros(count + 1, np.int32)
        data = np.empty(int(self._sizes[:count].sum(dtype=np.int64)) + PADDING, np.uint8)
        gather(self._places, self._sizes, count, address(data), offsets)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[: offsets[-1]])]
        return pa.Array.from_buffers(pa.utf8(), count, buffers)


class _Rows:
    """The memory of one batch, as the scanner and the slow path fill it."""

    def __init__(self, layout: Layout, pool: BufferPool, rows: int, size: int) -> None:
        plan = layout.plan
        self.layout, self.rows = layout, rows
        self.block = layout.batch.take(pool, rows)
        self.valid = np.ones((len(plan.columns), rows), np.uint8)
        self.records = plan.records.copy()
        self.data: dict[int, Lease] = {}
        self.arrays: dict[int, npt.NDArray[Any]] = {}
        self.dictionaries: dict[int, _Dictionary] = {}
        for index, column in enumerate(plan.columns):
            record = self.records[index]
            if plan.kinds[index] == TEXTS:
                self.data[index] = pool.take(size + PADDING)
                array: npt.NDArray[Any] = self.data[index].array(np.uint8, size + PADDING)
                self.arrays[index] = offsets = np.zeros(rows + 1, np.int32)
                record[FILL // 8] = address(offsets)
            elif column.type == "bool":
                self.arrays[index] = array = np.zeros(rows, np.uint8)
            else:
                self.arrays[index] = array = self.block[column.name]
            if column.is_dictionary:
                default = None if column.default is None else str(column.default)
                self.dictionaries[index] = _Dictionary(column.limits[1] + 1, default)
                record[DICTIONARY // 8] = address(self.dictionaries[index].table)
            record[TARGET // 8], record[VALID // 8] = address(array), address(self.valid[index])
        self.rest = pool.take(size + PADDING) if layout.rest else None
        self.rest_offsets = np.zeros(rows + 1 if layout.rest else 1, np.int64)
        self.rest_target = address(self.rest.array(np.uint8, size)) if self.rest else 0

    def put(self, row: int, values: Mapping[str, Any], rest: str) -> bool:
        """Write one row of the slow path; False if a dictionary has no code left."""
        plan = self.layout.plan
        for index, column in enumerate(plan.columns):
            value: Any = values.get(column.name)
            array = self.arrays[index]
            if value is None:
                self.records[index, NULLS // 8] += 1
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
                code = self.dictionaries[index].code(value)
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
            nulls = int(self.records[index, NULLS // 8]) if column.default is None else 0
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
                dictionaries[column.name] = self.dictionaries[index].values()
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


def decode_text(text: Text, layout: Layout, pool: BufferPool) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    """The rows of some lines, in order, and the lines that are no records."""
    plan, first_seq, records = layout.plan, text.seq, text.records
    data = text.bytes
    base = address(data)
    limit = 256 if _is_utf8(data, text.size, text.lease) else 128
    state = np.zeros(STATE, np.int64)
    state[AT], state[RECORD], state[LINE], state[LEARNED] = base, first_seq, text.line, plan.static
    stack = np.zeros(DEPTH * FRAME // 8, np.int64)
    keys = Keys(plan)
    batches: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    rows = _Rows(layout, pool, records, text.size)
    while True:
        status = scan(
            base + text.size, limit, state, rows.rows, address(keys.record),
            address(plan.actions), plan.actions.shape[1], address(plan.node_columns),
            address(rows.records), len(plan.columns), plan.required, address(rows.block["seq"]),
            rows.rest_target, address(rows.rest_offsets), address(stack),
        )  # fmt: skip
        if status == SLOW:
            if not _slow_line(text, layout, rows, state, bad):
                status = DICTIONARY_FULL
        elif status == DICTIONARY_GROWS:
            rows.dictionaries[int(state[WHICH])].grow()
        elif status != DICTIONARY_FULL:
            break
        if status == DICTIONARY_FULL:
            batches.append(rows.batch(int(state[ROW])))
            rows = _Rows(layout, pool, records - int(state[RECORD]) + first_seq, text.size)
            state[ROW] = 0
    if state[ROW]:
        batches.append(rows.batch(int(state[ROW])))
    return batches, bad


def _slow_line(text: Text, layout: Layout, rows: _Rows, state: npt.NDArray[np.int64], bad: list[BadRecord]) -> bool:
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
