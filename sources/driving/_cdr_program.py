"""Messages of any described type to columns, without a Python object per field.

A message tree is compiled to a short program: one instruction a field, loops for lists. An interpreter in numba runs it
twice over the messages of a block: once to check every length and count what each column needs, then, with the memory
laid out, to write. A message that fails the first run leaves no trace.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.memory import BufferPool
from ._cdr_columns import bools
from ._cdr_program_kernels import (
    BEGIN_FIXED,
    BEGIN_LIST,
    END,
    LOOP,
    STRING,
    VALUE,
    VALUES_FIXED,
    VALUES_LIST,
    fill,
    measure,
)
from ._cdr_rows import Array, bad_rows
from .cdr import Messages
from .rosmsg import FixedList, List, MessageTree, Node, Struct, Value

__all__ = ["ProgramDecoder"]

_ALIGNMENT = 64


class _Program:
    """Instructions for a tree. Value columns have a width in bytes, list columns hold offsets."""

    def __init__(self, root: Struct) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self.widths: list[int] = []
        self.lists = 0
        self.root = self._compile(root)
        self.code.append((END, 0, 0, 0))

    def _compile(self, node: Node) -> Any:
        """Emit the instructions of `node`; return what its columns are, in the shape of the tree."""
        if isinstance(node, Struct):
            return tuple(self._compile(item) for _, item in node.fields)
        if isinstance(node, Value):
            if node.kind == "string":
                columns = self._list(), self._values(1)
                self.code.append((STRING, *columns, 0))
                return columns
            column = self._values(_width(node))
            self.code.append((VALUE, self.widths[column], column, 0))
            return column
        if isinstance(node, FixedList):
            if _is_number(node.item):
                column = self._values(_width(node.item))
                self.code.append((VALUES_FIXED, self.widths[column], column, node.length))
                return column
            return self._loop((BEGIN_FIXED, node.length, 0), node.item)
        list_column = self._list()
        if _is_number(node.item):
            column = self._values(_width(node.item))
            self.code.append((VALUES_LIST, self.widths[column], column, list_column))
            return list_column, column
        return list_column, self._loop((BEGIN_LIST, list_column, 0), node.item)

    def _loop(self, begin: tuple[int, int, int], item: Node) -> Any:
        at = len(self.code)
        self.code.append((*begin, 0))
        columns = self._compile(item)
        self.code.append((LOOP, at, 0, 0))
        self.code[at] = (*begin, len(self.code))
        return columns

    def _values(self, width: int) -> int:
        self.widths.append(width)
        return len(self.widths) - 1

    def _list(self) -> int:
        self.lists += 1
        return self.lists - 1


def _is_number(node: Node) -> bool:
    return isinstance(node, Value) and node.kind != "string"


def _width(node: Node) -> int:
    return 1 if node.arrow == pa.bool_() else node.arrow.bit_width // 8


class ProgramDecoder:
    """Messages described by `tree` to one column a field."""

    def __init__(self, schema: pa.Schema, topic: str, tree: MessageTree, most: int) -> None:
        self.schema, self._tree, self._most = schema, tree, most
        self._topics = pa.array([topic], pa.utf8())
        self._head = ColumnLayout(pa.schema([schema.field(name) for name in ("ts_event", "ts_recv", "seq", "topic")]))
        program = _Program(tree.root)
        self._code = np.array(program.code, np.int64)
        self._widths = np.array(program.widths, np.int64)
        self._lists, self._columns = program.lists, program.root

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        status = np.zeros(len(starts), np.uint8)
        values, lists = np.zeros(len(self._widths), np.int64), np.zeros(self._lists, np.int64)
        measure(data, starts, lengths, log_times, self._most, self._code, status, values, lists)
        sizes = -(-values * self._widths // _ALIGNMENT) * _ALIGNMENT
        bases = np.cumsum(sizes) - sizes
        lease = pool.take(int(sizes.sum()))
        arena = lease.array(np.uint8, int(sizes.sum()))
        entries = np.cumsum(lists + 1) - (lists + 1)
        offsets = np.zeros(int((lists + 1).sum()), np.int32)
        good = np.flatnonzero(status == 0)
        fill(data, starts[good], lengths[good], self._most, self._code, bases, arena, entries, offsets)
        columns = _Columns(lease, bases, values, entries, offsets)
        count = len(good)
        block = self._head.take(pool, count)
        block["ts_recv"][:] = block["ts_event"][:] = log_times[good]
        block["seq"][:], block["topic"][:] = (good + first).astype(np.uint64), 0
        if (begins := self._tree.stamp) is not None:
            seconds, nanoseconds = self._columns[0] if begins == "time" else self._columns[0][-2]
            unsigned = self._most == 1  # ROS 1 counts seconds in 32 bits without a sign
            stamp = columns.values(seconds, np.uint32 if unsigned else np.int32).astype(
                np.int64
            ) * 10**9 + columns.values(nanoseconds, np.uint32)
            block["ts_event"][:] = np.where(stamp == 0, block["ts_recv"], stamp)
        head = block.batch(count, dictionaries={"topic": self._topics})
        fields = [
            columns.array(node, at, count) for (_, node), at in zip(self._tree.root.fields, self._columns, strict=True)
        ]
        return Messages(
            pa.RecordBatch.from_arrays([*head.columns, *fields], schema=self.schema), bad_rows(status, count)
        )


class _Columns:
    """The memory that `fill` wrote, as Arrow arrays."""

    def __init__(self, lease: Any, bases: Array, counts: Array, entries: Array, offsets: Array) -> None:
        self._lease, self._bases, self._counts, self._entries, self._offsets = lease, bases, counts, entries, offsets

    def values(self, column: int, dtype: Any) -> Array:
        return self._lease.array(dtype, int(self._counts[column]), int(self._bases[column]))  # type: ignore[no-any-return]

    def array(self, node: Node, at: Any, rows: int) -> pa.Array:
        if isinstance(node, Struct):
            children = [self.array(item, column, rows) for (_, item), column in zip(node.fields, at, strict=True)]
            return pa.Array.from_buffers(node.arrow, rows, [None], children=children)
        if isinstance(node, FixedList):
            return pa.Array.from_buffers(
                node.arrow, rows, [None], children=[self.array(node.item, at, rows * node.length)]
            )
        if isinstance(node, List):
            list_column, column = at
            offsets, total = self._list(list_column, rows)
            return pa.Array.from_buffers(
                node.arrow, rows, [None, offsets], children=[self.array(node.item, column, total)]
            )
        if node.kind == "string":
            list_column, column = at
            offsets, total = self._list(list_column, rows)
            return pa.Array.from_buffers(node.arrow, rows, [None, offsets, self._buffer(column, total)])
        if node.kind == "bool":
            return bools(self.values(at, np.uint8))
        return pa.Array.from_buffers(node.arrow, rows, [None, self._buffer(at, rows * _width(node))])

    def _list(self, column: int, rows: int) -> tuple[pa.Buffer, int]:
        start = int(self._entries[column])
        offsets = self._offsets[start : start + rows + 1]
        return pa.py_buffer(offsets), int(offsets[-1])

    def _buffer(self, column: int, nbytes: int) -> pa.Buffer:
        view: pa.Buffer = self._lease.buffer(int(self._bases[column]), nbytes)
        return view
