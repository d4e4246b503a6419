"""A list of columns as the tables that the scanner walks: keys, what each means at each place, and where values go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._ndjson_simd import PADDING
from ._ndjson_spec import TIME_UNITS, Column
from ._ndjson_text import hash_text

__all__ = ["INTEGER", "TEXT", "Plan", "address"]

#: Kinds of columns as the scanner knows them.
INTEGER, REAL, NUMBER_TIME, BOOLEAN, DICTIONARY, TEXT, TEXT_TIME = range(7)
#: Keys not named in a path that one scan may learn, so that it can guess what follows them.
_LEARN = 192


def address(array: npt.NDArray[Any]) -> int:
    """Where an array's first element lies."""
    return int(array.__array_interface__["data"][0])


class Plan:
    """The tables of a scan. Read-only after construction: `fresh_keys` gives the part that one scan changes."""

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
        self._places = np.zeros(total, np.int64)
        self._places[: self.static] = address(self._text) + starts[:-1]
        self._sizes = np.zeros(total, np.int32)
        self._sizes[: self.static] = [len(text) for text in texts]
        slots = 1 << (2 * total).bit_length()
        self._slots = np.full(slots, -1, np.int32)
        for index, text in enumerate(texts):
            slot = int(hash_text(int(self._places[index]), len(text))) & (slots - 1)
            while self._slots[slot] >= 0:
                slot = (slot + 1) & (slots - 1)
            self._slots[slot] = index

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
        count = len(self.columns)
        self.kinds = np.array([_kind(column) for column in self.columns], np.int64)
        self.widths = np.array([column.width for column in self.columns], np.int64)
        integers = [column.limits if column.is_integer else (0, 0) for column in self.columns]
        self.most = np.array([high for _, high in integers], np.uint64)
        self.least = np.array([-low for low, _ in integers], np.uint64)
        self.units = np.array([TIME_UNITS[column.unit or "ns"] for column in self.columns], np.int64)
        self.epochs = np.array([column.epoch_ns for column in self.columns], np.int64)
        self.required = sum(1 << index for index, column in enumerate(self.columns) if column.required)
        self.fill = np.array([_fill(column) for column in self.columns], np.int64)
        self.dictionaries = [index for index, column in enumerate(self.columns) if column.is_dictionary]
        self.dict_of = np.full(count, -1, np.int64)
        self.dict_of[self.dictionaries] = np.arange(len(self.dictionaries))
        limits = [self.columns[index].limits[1] + 1 for index in self.dictionaries]
        self.dict_limits = np.array([*limits, 0], np.int64)

    def fresh_keys(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Slots, places, sizes and followers of keys, for one scan to change."""
        follow = np.full(self._sizes.size + 1, -1, np.int32)
        return self._slots.copy(), self._places.copy(), self._sizes.copy(), follow


def _kind(column: Column) -> int:
    if column.unit is not None:
        return TEXT_TIME if column.unit == "iso" else NUMBER_TIME
    if column.is_integer:
        return INTEGER
    if column.is_float:
        return REAL
    return {"bool": BOOLEAN, "utf8": TEXT}.get(column.type, DICTIONARY)


def _fill(column: Column) -> int:
    """The bits that stand in the column where there is no value."""
    if column.default is None or column.is_dictionary or column.type == "utf8":
        return 0
    if column.is_float:
        kind = np.dtype(column.type)
        return int(np.array([column.default], kind).view(f"i{kind.itemsize}")[0])
    bits = int(column.default)
    return bits - (1 << 64) if bits >= 1 << 63 else bits
