"""Order books at native speed: a hash table of orders, and sorted price levels per symbol and side.

Orders are rows of four int64 (id, price, size, what) in one open-addressing table, so that a look-up touches one cache line;
deleting moves later entries back, so the table never fills with gravestones. The levels of a book side are a sorted run
in one shared arena with the best price last, because almost everything happens there: keys are prices for bids and
negated prices for asks. A run that outgrows its place moves to the arena's end, twice as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pipeline.jit import kernel

__all__ = [
    "DONE", "DROPS", "DUPLICATE", "GROW_LEVELS", "GROW_ORDERS", "NO_EFFECT", "NO_SIDE", "ONE_SIDED", "UNKNOWN", "apply",
    "compact", "load", "rehash",
]  # fmt: skip

DONE, GROW_ORDERS, GROW_LEVELS = 0, 1, 2
# Why a row gave no feature row; indices of the drop counters.
UNKNOWN, DUPLICATE, NO_SIDE, NO_EFFECT, ONE_SIDED, DROPS = 0, 1, 2, 3, 4, 5
# Columns of an order; `what` is 0 for an empty slot, else 1 + 2 * (is bid) + 4 * locate.
_ID, _PRICE, _SIZE, _WHAT = 0, 1, 2, 3
# Columns of a book side: where its run begins, its levels, and the room it has.
_BEGIN, _COUNT, _ROOM = 0, 1, 2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _home(order_id: Any, bits: Any) -> Any:
    return np.int64((np.uint64(order_id) * _GOLDEN) >> np.uint64(64 - bits))


@kernel
def _find(orders: Any, bits: Any, order_id: Any) -> Any:
    """The slot of an order, or of the first empty one where it would go."""
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
def _has_room(sides: Any, levels: Any, side: Any, top: Any) -> Any:
    book = sides[side]
    return book[_COUNT] < book[_ROOM] or top + max(8, 2 * book[_ROOM]) <= len(levels)


@kernel
def _change(sides: Any, levels: Any, side: Any, key: Any, shares: Any, state: Any) -> None:
    """Add `shares` (negative to take away) at a level; `_has_room` must hold when adding. `state[1]` is the arena's top."""
    if shares == 0:
        return
    book = sides[side]
    begin = book[_BEGIN]
    low = begin
    high = begin + book[_COUNT]
    near = 0
    while low < high and near < 8 and levels[high - 1, 0] > key:
        high -= 1
        near += 1
    if near == 8:
        while low < high:
            middle = (low + high) >> 1
            if levels[middle, 0] > key:
                high = middle
            else:
                low = middle + 1
    at = high - 1
    end = begin + book[_COUNT]
    if at >= begin and levels[at, 0] == key:
        levels[at, 1] += shares
        if levels[at, 1] <= 0:
            for i in range(at, end - 1):
                levels[i, 0] = levels[i + 1, 0]
                levels[i, 1] = levels[i + 1, 1]
            book[_COUNT] -= 1
        return
    if shares < 0:
        return
    if book[_COUNT] == book[_ROOM]:
        room = max(8, 2 * book[_ROOM])
        moved = state[1]
        state[1] += room
        for i in range(book[_COUNT]):
            levels[moved + i, 0] = levels[begin + i, 0]
            levels[moved + i, 1] = levels[begin + i, 1]
        high += moved - begin
        end += moved - begin
        book[_BEGIN] = moved
        book[_ROOM] = room
    for i in range(end, high, -1):
        levels[i, 0] = levels[i - 1, 0]
        levels[i, 1] = levels[i - 1, 1]
    levels[high, 0] = key
    levels[high, 1] = shares
    book[_COUNT] += 1


@kernel
def apply(
    first: Any,
    ts_event: Any,
    ts_recv: Any,
    seq: Any,
    locates: Any,
    symbols: Any,
    types: Any,
    ways: Any,
    ids: Any,
    new_ids: Any,
    prices: Any,
    sizes: Any,
    flags: Any,
    orders: Any,
    sides: Any,
    levels: Any,
    trades: Any,
    state: Any,
    drops: Any,
    both: Any,
    row: Any,
    out_event: Any,
    out_recv: Any,
    out_seq: Any,
    out_symbol: Any,
    bid_px: Any,
    bid_sz: Any,
    ask_px: Any,
    ask_sz: Any,
    spread: Any,
    mid: Any,
    microprice: Any,
    imbalance: Any,
    trade_sz: Any,
    last_px: Any,
    volume: Any,
) -> Any:
    """Apply messages from `first` on and write a feature row for each from `row` on.

    `state` is (live orders, top of the arena), `trades` (shares traded, last price) per locate. Returns (why it stopped,
    message to go on with, rows written); a message that needs more room has not been applied.
    """
    bits = 0
    while (1 << bits) < len(orders):
        bits += 1
    for number in range(first, len(types)):
        kind = types[number]
        locate = np.int64(locates[number])
        traded = np.int64(0)
        price = prices[number]
        size = np.int64(sizes[number])
        order_id = np.int64(ids[number])
        if kind == 65 or kind == 70:  # A, F
            way = ways[number]
            if way == 0:
                drops[NO_SIDE] += 1
                continue
            if 2 * (state[0] + 1) > len(orders):
                return GROW_ORDERS, number, row
            side = 2 * locate + (1 if way > 0 else 0)
            if not _has_room(sides, levels, side, state[1]):
                return GROW_LEVELS, number, row
            slot = _find(orders, bits, order_id)
            if orders[slot, _WHAT] != 0:
                drops[DUPLICATE] += 1
                continue
            orders[slot, _ID] = order_id
            orders[slot, _PRICE] = price
            orders[slot, _SIZE] = size
            orders[slot, _WHAT] = 1 + 2 * side
            state[0] += 1
            _change(sides, levels, side, price if way > 0 else -price, size, state)
        elif kind == 68 or kind == 69 or kind == 88 or kind == 67 or kind == 85:  # D, E, X, C, U
            slot = _find(orders, bits, order_id)
            what = orders[slot, _WHAT]
            if what == 0 or (what >> 2) != locate:
                drops[UNKNOWN] += 1
                continue
            side = what >> 1
            key = orders[slot, _PRICE] if side & 1 else -orders[slot, _PRICE]
            left = orders[slot, _SIZE]
            if kind == 85:
                if not _has_room(sides, levels, side, state[1]):
                    return GROW_LEVELS, number, row
                new_id = np.int64(new_ids[number])
                if new_id != order_id:
                    if orders[_find(orders, bits, new_id), _WHAT] != 0:
                        drops[DUPLICATE] += 1
                        continue
                    _remove(orders, bits, slot)
                    slot = _find(orders, bits, new_id)
                _change(sides, levels, side, key, -left, state)
                orders[slot, _ID] = new_id
                orders[slot, _PRICE] = price
                orders[slot, _SIZE] = size
                orders[slot, _WHAT] = what
                _change(sides, levels, side, price if side & 1 else -price, size, state)
            else:
                if kind == 69:
                    traded = size
                    price = orders[slot, _PRICE]
                elif kind == 67 and flags[number] & 1:
                    traded = size
                gone = left if kind == 68 else min(left, size)
                _change(sides, levels, side, key, -gone, state)
                if gone == left:
                    _remove(orders, bits, slot)
                    state[0] -= 1
                else:
                    orders[slot, _SIZE] = left - gone
        elif kind == 80 or kind == 81:  # P, Q
            traded = size
        else:
            drops[NO_EFFECT] += 1
            continue
        if traded > 0:
            trades[locate, 0] += traded
            trades[locate, 1] = price
        ask = sides[2 * locate]
        bid = sides[2 * locate + 1]
        if both and (ask[_COUNT] == 0 or bid[_COUNT] == 0):
            drops[ONE_SIDED] += 1
            continue
        buy_px = buy_sz = sell_px = sell_sz = np.int64(0)
        if bid[_COUNT]:
            best = bid[_BEGIN] + bid[_COUNT] - 1
            buy_px = levels[best, 0]
            buy_sz = levels[best, 1]
        if ask[_COUNT]:
            best = ask[_BEGIN] + ask[_COUNT] - 1
            sell_px = -levels[best, 0]
            sell_sz = levels[best, 1]
        out_event[row] = ts_event[number]
        out_recv[row] = ts_recv[number]
        out_seq[row] = seq[number]
        out_symbol[row] = symbols[number]
        bid_px[row] = buy_px
        bid_sz[row] = buy_sz
        ask_px[row] = sell_px
        ask_sz[row] = sell_sz
        total = np.float64(buy_sz) + np.float64(sell_sz)
        if buy_sz > 0 and sell_sz > 0:
            spread[row] = np.float64(sell_px - buy_px) / 1e9
            mid[row] = np.float64(buy_px + sell_px) / 2e9
            weighted = np.float64(buy_px) * np.float64(sell_sz) + np.float64(sell_px) * np.float64(buy_sz)
            microprice[row] = weighted / total / 1e9
        else:
            spread[row] = 0.0
            mid[row] = np.float64(buy_px + sell_px) / 1e9
            microprice[row] = mid[row]
        imbalance[row] = (np.float64(buy_sz) - np.float64(sell_sz)) / total if total > 0 else 0.0
        trade_sz[row] = traded
        last_px[row] = trades[locate, 1]
        volume[row] = trades[locate, 0]
        row += 1
    return DONE, len(types), row


@kernel
def rehash(orders: Any, into: Any) -> None:
    """Move all orders to a larger, empty table."""
    bits = 0
    while (1 << bits) < len(into):
        bits += 1
    for i in range(len(orders)):
        if orders[i, _WHAT] != 0:
            slot = _find(into, bits, orders[i, _ID])
            for field in range(4):
                into[slot, field] = orders[i, field]


@kernel
def compact(sides: Any, levels: Any, into: Any, state: Any) -> None:
    """Lay all runs out anew in a larger arena, each with room for twice its levels."""
    top = 0
    for side in range(len(sides)):
        book = sides[side]
        if book[_ROOM] == 0:
            continue
        for i in range(book[_COUNT]):
            into[top + i, 0] = levels[book[_BEGIN] + i, 0]
            into[top + i, 1] = levels[book[_BEGIN] + i, 1]
        book[_BEGIN] = top
        book[_ROOM] = max(8, 2 * book[_COUNT])
        top += book[_ROOM]
    state[1] = top


@kernel
def load(first: Any, saved: Any, orders: Any, sides: Any, levels: Any, state: Any) -> Any:
    """Put saved orders back, from `first` on; returns the order to go on with once the arena is larger."""
    bits = 0
    while (1 << bits) < len(orders):
        bits += 1
    for number in range(first, len(saved)):
        side = saved[number, _WHAT] >> 1
        if not _has_room(sides, levels, side, state[1]):
            return number
        slot = _find(orders, bits, saved[number, _ID])
        for field in range(4):
            orders[slot, field] = saved[number, field]
        price = saved[number, _PRICE]
        _change(sides, levels, side, price if side & 1 else -price, saved[number, _SIZE], state)
        state[0] += 1
    return len(saved)
