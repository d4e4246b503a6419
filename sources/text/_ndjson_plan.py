"""A list of columns as the tables that the scanner walks: keys, what each means at each place, and where values go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._ndjson_kernels import KEYS
from ._ndjson_simd import PADDING
from ._ndjson_spec import TIME_UNITS, Column
from ._ndjson_text import hash_text
from ._ndjson_values import (
    CODES,
    COLUMN,
    EPOCH,
    FILL,
    FLAGS,
    FLOATS,
    INTEGERS,
    KIND,
    LEAST,
    MOST,
    TEXT_TIMES,
    TEXTS,
    TIMES,
    UNIT,
    WIDTH,
)

__all__ = ["Keys", "Plan", "address"]

#: Keys not named in a path that one scan may learn, so that it can guess what follows them.
_LEARN = 192


def address(array: npt.NDArray[Any]) -> int:
    """Where an array's first element lies."""
    return int(array.__array_interface__["data"][0])


class Plan:
    """The tables of a scan. Read-only after construction: one scan changes copies (`Keys`, `records`)."""

    def __init__(self, columns: Sequence[Column], *, rest: bool, drop: Collection[str]) -> None:
        self.columns = tuple(columns)
        self.rest = rest
        self.drop = frozenset(drop) if rest else frozenset()
        keys = sorted({part for column in columns for part in column.path} | self.drop)
        ids = {key: index for index, key in enumerate(keys)}
        self._place_keys(keys)
        self._number_paths(ids)
        self._describe_columns()

    def _place_keys(self, keys: Sequence[str]) -> None:
        texts = [key.encode() for key in keys]
        starts = np.cumsum([0, *(len(text) for text in texts)])
        self._text = np.zeros(int(starts[-1]) + PADDING, np.uint8)
        self._text[: starts[-1]] = np.frombuffer(b"".join(texts), np.uint8)
        self.static = len(texts)
        total = self.static + _LEARN
        self.places = np.zeros(total, np.int64)
        self.places[: self.static] = address(self._text) + starts[:-1]
        self.sizes = np.zeros(total, np.int32)
        self.sizes[: self.static] = [len(text) for text in texts]
        slots = 1 << (2 * total).bit_length()
        self.slots = np.full(slots, -1, np.int32)
        for index, text in enumerate(texts):
            slot = int(hash_text(int(self.places[index]), len(text))) & (slots - 1)
            while self.slots[slot] >= 0:
                slot = (slot + 1) & (slots - 1)
            self.slots[slot] = index

    def _number_paths(self, ids: dict[str, int]) -> None:
        nodes: dict[tuple[str, ...], int] = {(): 1}
        for column in self.columns:
            for size in range(1, len(column.path)):
                nodes.setdefault(column.path[:size], len(nodes) + 1)
        # node 0 is any object that no path enters, the last node one that is cut out whole
        self.actions = np.zeros((len(nodes) + 2, self.static + _LEARN + 1), np.int16)
        self.node_columns = np.zeros(len(nodes) + 2, np.int64)
        for key in self.drop:
            self.actions[:-1, ids[key]] = -1
        for path, node in nodes.items():
            if path:
                self.actions[nodes[path[:-1]], ids[path[-1]]] = -2 - node
        for index, column in enumerate(self.columns):
            self.actions[nodes[column.path[:-1]], ids[column.path[-1]]] = index + 1
            for size in range(len(column.path)):
                self.node_columns[nodes[column.path[:size]]] |= 1 << index

    def _describe_columns(self) -> None:
        self.kinds = [_kind(column) for column in self.columns]
        self.required = sum(1 << index for index, column in enumerate(self.columns) if column.required)
        self.records = np.zeros((len(self.columns), COLUMN // 8), np.int64)
        for record, kind, column in zip(self.records, self.kinds, self.columns, strict=True):
            low, high = column.limits if column.is_integer else (0, 0)
            record[KIND // 8], record[WIDTH // 8], record[FILL // 8] = kind, column.width, _fill(column)
            record[MOST // 8], record[LEAST // 8] = _as_int64(high), _as_int64(-low)
            record[UNIT // 8], record[EPOCH // 8] = TIME_UNITS[column.unit or "ns"], column.epoch_ns


class Keys:
    """The table of keys of one scan: those of the plan, and those it learns on the way."""

    def __init__(self, plan: Plan) -> None:
        self._slots, self._places, self._sizes = plan.slots.copy(), plan.places.copy(), plan.sizes.copy()
        self._follow = np.full(len(plan.sizes) + 1, -1, np.int32)
        self.record = np.zeros(len(KEYS), np.int64)
        self.record[:] = (
            address(self._slots),
            len(self._slots) - 1,
            address(self._places),
            address(self._sizes),
            address(self._follow),
            len(plan.sizes),
            len(plan.actions) - 1,
        )


def _as_int64(value: int) -> int:
    """The int64 with the bits of a uint64."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _kind(column: Column) -> int:
    if column.unit is not None:
        return TEXT_TIMES if column.unit == "iso" else TIMES
    if column.is_integer:
        return INTEGERS
    if column.is_float:
        return FLOATS
    return {"bool": FLAGS, "utf8": TEXTS}.get(column.type, CODES)


def _fill(column: Column) -> int:
    """The bits that stand in the column where there is no value."""
    if column.default is None or column.is_dictionary or column.type == "utf8":
        return 0
    if column.is_float:
        kind = np.dtype(column.type)
        return int(np.array([column.default], kind).view(f"i{kind.itemsize}")[0])
    return _as_int64(int(column.default))
