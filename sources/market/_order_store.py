"""Live orders of an ITCH feed, to tell what an execution was executed against.

An execution names an order, not its price and side, so messages are applied in order and each E and C gets those of the
order it meets. Orders are rows of four 64-bit integers in one open-addressing table, so that a look-up touches one cache
line; deleting moves later entries back, so the table never fills with gravestones, and it is at most half full.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import StateLimitError
from ...pipeline.jit import kernel
from ._itch_kernels import _u16, _u32, _u64

__all__ = ["OrderStore"]

_ID, _PRICE, _SIZE, _WHAT = 0, 1, 2, 3  # `_WHAT` is 0 for an empty slot, else 1 + 2 * (is bid) + 4 * locate
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LEAST = 1 << 12


class OrderStore:
    """Orders that rest in the book; at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._orders: npt.NDArray[np.uint64] = np.zeros((_LEAST, 4), np.uint64)
        self._live = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self._live[0])

    @property
    def nbytes(self) -> int:
        """Bytes that the table takes."""
        return self._orders.nbytes

    def apply(
        self,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.uint32],
        count: int,
        latest: int,
        price: npt.NDArray[np.uint32],
        side: npt.NDArray[np.int8],
    ) -> int:
        """Apply `count` messages; `price` and `side` get those of the order that each E and C in turn was executed
        against, side 0 if there is no such order. Returns how many E and C there were.

        Messages that no book can have are passed over: a side other than B or S, a time beyond `latest`, an order id that
        is already there, a locate other than the order's. Raises StateLimitError if more than `most` orders rest.
        """
        number = executions = 0
        while True:
            number, executions = _apply(
                data, offsets, number, count, latest, self._orders, self._live, price, side, executions
            )
            if number == count:
                return int(executions)
            if self._live[0] >= self._most:
                raise StateLimitError(
                    f"more than {self._most:,} orders rest in the book: the feed is damaged, or give a larger max_orders"
                )
            larger = np.zeros((2 * len(self._orders), 4), np.uint64)
            _move(self._orders, larger)
            self._orders = larger


@kernel
def _home(order_id: Any, bits: Any) -> Any:
    return np.int64((order_id * _GOLDEN) >> np.uint64(64 - bits))


@kernel
def _find(orders: Any, bits: Any, order_id: Any) -> Any:
    """The slot of an order, or the empty one where it would go."""
    mask = len(orders) - 1
    slot = _home(order_id, bits)
    while orders[slot, _WHAT] != 0 and orders[slot, _ID] != order_id:
        slot = (slot + 1) & mask
    return slot


@kernel
def _remove(orders: Any, bits: Any, slot: Any) -> None:
    mask = len(orders) - 1
    hole = slot
    there = (slot + 1) & mask
    while orders[there, _WHAT] != 0:
        home = _home(orders[there, _ID], bits)
        if ((there - home) & mask) >= ((there - hole) & mask):
            for field in range(4):
                orders[hole, field] = orders[there, field]
            hole = there
        there = (there + 1) & mask
    orders[hole, _WHAT] = 0


@kernel
def _put(orders: Any, slot: Any, order_id: Any, price: Any, size: Any, what: Any) -> None:
    orders[slot, _ID] = order_id
    orders[slot, _PRICE] = price
    orders[slot, _SIZE] = size
    orders[slot, _WHAT] = what


@kernel
def _bits(orders: Any) -> Any:
    bits = 0
    while (1 << bits) < len(orders):
        bits += 1
    return bits


@kernel
def _move(orders: Any, into: Any) -> None:
    bits = _bits(into)
    for i in range(len(orders)):
        if orders[i, _WHAT] != 0:
            slot = _find(into, bits, orders[i, _ID])
            for field in range(4):
                into[slot, field] = orders[i, field]


@kernel
def _apply(
    data: Any,
    offsets: Any,
    first: Any,
    count: Any,
    latest: Any,
    orders: Any,
    live: Any,
    price: Any,
    side: Any,
    executions: Any,
) -> Any:
    """Apply messages from `first` on. Returns (message to go on with once the table is larger, executions met)."""
    bits = _bits(orders)
    for number in range(first, count):
        at = np.int64(offsets[number])
        kind = data[at]
        added = kind == 65 or kind == 70  # A, F
        executed = kind == 69 or kind == 67  # E, C
        if not (added or executed or kind == 88 or kind == 68 or kind == 85):  # X, D, U
            continue
        sound = np.int64(_u64(data, at + 3) & np.uint64(0xFFFFFFFFFFFF)) <= latest
        order_id = _u64(data, at + 11)
        locate = np.uint64(_u16(data, at + 1))
        if added:
            way = data[at + 19]
            if not sound or (way != 66 and way != 83):
                continue
            if 2 * (live[0] + 1) > len(orders):
                return number, executions
            slot = _find(orders, bits, order_id)
            if orders[slot, _WHAT] == 0:
                what = np.uint64(1) + np.uint64(2 if way == 66 else 0) + np.uint64(4) * locate
                _put(orders, slot, order_id, np.uint64(_u32(data, at + 32)), np.uint64(_u32(data, at + 20)), what)
                live[0] += 1
            continue
        slot = _find(orders, bits, order_id)
        what = orders[slot, _WHAT]
        known = sound and what != 0 and (what >> np.uint64(2)) == locate
        if executed:
            price[executions] = np.uint32(orders[slot, _PRICE]) if known else np.uint32(0)
            side[executions] = (np.int8(1) if what & np.uint64(2) else np.int8(-1)) if known else np.int8(0)
            executions += 1
        if not known:
            continue
        if kind == 85:
            new_id = _u64(data, at + 19)
            if new_id != order_id:
                if orders[_find(orders, bits, new_id), _WHAT] != 0:
                    continue
                _remove(orders, bits, slot)
                slot = _find(orders, bits, new_id)
            _put(orders, slot, new_id, np.uint64(_u32(data, at + 31)), np.uint64(_u32(data, at + 27)), what)
            continue
        left = orders[slot, _SIZE]
        gone = left if kind == 68 else np.uint64(_u32(data, at + 19))
        if gone >= left:
            _remove(orders, bits, slot)
            live[0] -= 1
        else:
            orders[slot, _SIZE] = left - gone
    return count, executions
