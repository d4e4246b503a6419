"""Windows divided by key: rows of all parts in the order of their ends, starts and keys, and state by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.memory import BufferPool
from ..pipeline.partition import Partitioned, interleave, partition_of, rows_in_order
from .keys import KeyIndex

__all__ = ["WindowParts"]

Ints = npt.NDArray[np.int64]
_State = Mapping[str, Any]


class WindowParts(Partitioned):
    """Windows by key columns `keys`; `span` is the array in their state that, with the key, says what a slot stands for.

    A part emits for a watermark what the undivided operator would for the part's keys, in that operator's order, so one
    sort by (end, start, key by value) puts them together. Late rows of a batch leave in the order of the batch.
    """

    def __init__(self, keys: Sequence[str], span: str, schema: pa.Schema, late: pa.Schema) -> None:
        self.columns = tuple(keys)
        self._span, self._schema, self._late = span, schema, late
        self._pool = BufferPool(32 << 20)
        self._seq = 0

    def merge(self, parts: Sequence[Sequence[pa.RecordBatch]], seq: pa.Array | None = None) -> Sequence[pa.RecordBatch]:
        emitted = [[batch for batch in part if batch.num_rows] for part in parts]
        batches = [batch for part in emitted for batch in part]
        if sum(map(bool, emitted)) > 1:
            batches = interleave(self._schema, batches, self._order(batches), self._pool)
        return [self._numbered(batch) for batch in batches]

    def merge_side(
        self, name: str, parts: Sequence[Sequence[pa.RecordBatch]], seq: pa.Array | None = None
    ) -> Sequence[pa.RecordBatch]:
        if name != "late":
            raise ValueError(f"there is no side output {name!r}")
        return rows_in_order(self._late, parts, seq, self._pool)

    def split(self, state: _State, parts: int) -> Sequence[_State]:
        self._seq = state["seq"]
        keys, windows = state["keys"]["keys"], state["windows"]
        part_of_key = partition_of(keys.columns, parts)
        out = []
        for part in range(parts):
            mine = part_of_key == part
            rows = np.flatnonzero(mine[windows["key"]])
            numbers = np.cumsum(mine) - 1
            arrays = {name: windows[name][rows] for name in windows if name not in ("key", "accumulators")}
            out.append(
                {
                    "watermark": state["watermark"],
                    "seq": 0,
                    "keys": {"keys": keys.take(pa.array(np.flatnonzero(mine)))},
                    "windows": {
                        "key": numbers[windows["key"][rows]],
                        **arrays,
                        "accumulators": [_taken(accumulator, rows) for accumulator in windows["accumulators"]],
                    },
                }
            )
        return out

    def join(self, states: Sequence[_State]) -> _State:
        watermarks = sorted({state["watermark"] for state in states})
        if len(watermarks) != 1:
            raise ValueError(f"the parts of a window have stopped at different watermarks: {watermarks}")
        index = KeyIndex([column.type for column in states[0]["keys"]["keys"].columns])
        numbers, keys = _united([state["keys"] for state in states], index)
        windows = [state["windows"] for state in states]
        slots = np.concatenate([own[part["key"]] for own, part in zip(numbers, windows, strict=True)])
        names = [name for name in windows[0] if name not in ("key", "accumulators")]
        arrays = {name: np.concatenate([part[name] for part in windows]) for name in names}
        order = np.lexsort((slots, arrays[self._span]))
        accumulators = [
            _together(parts, order) for parts in zip(*(part["accumulators"] for part in windows), strict=True)
        ]
        return {
            "watermark": watermarks[0],
            "seq": self._seq,
            "keys": keys,
            "windows": {
                "key": slots[order],
                **{name: array[order] for name, array in arrays.items()},
                "accumulators": accumulators,
            },
        }

    def _order(self, batches: Sequence[pa.RecordBatch]) -> npt.NDArray[np.intp]:
        index = KeyIndex([self._schema.field(name).type for name in self.columns])
        ids = np.concatenate([index.ids([batch.column(name) for name in self.columns]) for batch in batches])
        starts = np.concatenate([event_ns(batch, "window_start") for batch in batches])
        ends = np.concatenate([event_ns(batch) for batch in batches])
        return np.lexsort((*reversed(index.order(ids)), starts, ends))

    def _numbered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        numbers = pa.array(np.arange(self._seq, self._seq + batch.num_rows, dtype=np.uint64))
        self._seq += batch.num_rows
        place = self._schema.get_field_index("seq")
        return batch.set_column(place, self._schema.field(place), numbers)


def _united(states: Sequence[_State], index: KeyIndex) -> tuple[list[Ints], dict[str, Any]]:
    """Keys of several snapshots as one, in order of value: the new numbers of each, and the snapshot."""
    first = [index.ids(state["keys"].columns) for state in states]
    by_value = np.lexsort(tuple(reversed(index.order(np.arange(len(index), dtype=np.int64)))))
    renumbered = np.empty(len(by_value), np.int64)
    renumbered[by_value] = np.arange(len(by_value))
    keys = index.snapshot()["keys"].take(pa.array(by_value))
    return [renumbered[ids] for ids in first], {"keys": keys}


def _taken(accumulator: _State, rows: Ints) -> dict[str, Any]:
    """An accumulator's state of some slots, with the values that they refer to."""
    state = {name: array[rows] for name, array in accumulator.items() if name != "values"}
    if "values" in accumulator:
        values = accumulator["values"]["keys"]
        filled = state["n"] > 0
        used, numbers = np.unique(state["held"][filled, 0].astype(np.int64), return_inverse=True)
        state["held"][filled, 0] = numbers
        state["values"] = {"keys": values.take(pa.array(used))}
    return state


def _together(parts: Sequence[_State], order: npt.NDArray[np.intp]) -> dict[str, Any]:
    """The states of one accumulator in several parts as one, slots in `order`."""
    state = {name: [part[name] for part in parts] for name in parts[0] if name != "values"}
    values = {}
    if "values" in parts[0]:
        index = KeyIndex([parts[0]["values"]["keys"].column(0).type])
        numbers, values["values"] = _united([part["values"] for part in parts], index)
        for place, (part, own) in enumerate(zip(parts, numbers, strict=True)):
            filled = part["n"] > 0
            held = part["held"].copy()
            held[filled, 0] = own[held[filled, 0].astype(np.int64)]
            state["held"][place] = held
    return {**{name: np.concatenate(arrays)[order] for name, arrays in state.items()}, **values}
