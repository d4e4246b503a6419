"""The trading hours of a made-up day, message by message."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pipeline.jit import kernel

__all__ = ["trade"]

_TICK = 100  # one cent, in units of 0.0001 USD
_PRICE, _LIVE, _MATCH = 0, 1, 2
_ID, _AT, _SIZE, _BUY = 0, 1, 2, 3


@kernel
def _put(out: Any, at: Any, value: Any, size: Any) -> Any:
    """Write `value` big-endian into `size` bytes; returns where the next field begins."""
    for i in range(size):
        out[at + size - 1 - i] = (value >> (8 * i)) & 255
    return at + size


@kernel
def _head(out: Any, at: Any, prefix: Any, kind: Any, locate: Any, time: Any) -> Any:
    at = _put(out, at, prefix, 2)
    at = _put(out, at, kind, 1)
    at = _put(out, at, locate, 2)
    at = _put(out, at, 0, 2)
    return _put(out, at, time, 6)


@kernel
def _name(out: Any, at: Any, index: Any) -> Any:
    out[at] = 80
    out[at + 1] = 65 + index // 676 % 26
    out[at + 2] = 65 + index // 26 % 26
    out[at + 3] = 65 + index % 26
    for i in range(4, 8):
        out[at + i] = 32
    return at + 8


@kernel
def _best(orders: Any, count: Any, buy: Any) -> Any:
    """The order first in price and time on a side, or -1."""
    found = -1
    for i in range(count):
        if orders[i, _BUY] != buy:
            continue
        if found < 0:
            found = i
            continue
        better = orders[i, _AT] - orders[found, _AT]
        if not buy:
            better = -better
        if better > 0 or (better == 0 and orders[i, _ID] < orders[found, _ID]):
            found = i
    return found


@kernel
def _quote(orders: Any, count: Any, buy: Any, middle: Any, away: Any) -> Any:
    """A price on the `buy` side, `away` ticks from `middle`, that does not meet the other side."""
    other = _best(orders, count, 1 - buy)
    price = middle - away * _TICK if buy else middle + away * _TICK
    if other >= 0:
        price = min(price, orders[other, _AT] - _TICK) if buy else max(price, orders[other, _AT] + _TICK)
    return max(_TICK, price)


@kernel
def trade(
    out: Any,
    part: Any,
    first: Any,
    total: Any,
    begin: Any,
    end: Any,
    left: Any,
    random: Any,
    prefixed: Any,
    books: Any,
    orders: Any,
    counters: Any,
    tallies: Any,
) -> Any:
    """Write messages `first` to ``first + part`` of the `total` between `begin` and `end`; returns the bytes written.

    `left` messages remain in the day, counted from `first`: no more orders are alive than can still be deleted.
    `counters` are the next order id, the next match id, live orders, shares executed, orders added.
    """
    symbols = len(books)
    most = orders.shape[1]
    gap = (end - begin) // total
    at = 0
    for number in range(part):
        one = np.int64(random[4 * number] >> np.uint64(1))
        two = np.int64(random[4 * number + 1] >> np.uint64(1))
        three = np.int64(random[4 * number + 2] >> np.uint64(1))
        four = np.int64(random[4 * number + 3] >> np.uint64(1))
        time = begin + (first + number) * gap + one % max(1, gap)
        symbol: Any = min((one >> 20) % symbols, (one >> 40) % symbols)
        remaining = left - number
        live = counters[2]
        act: Any = two % 1000
        if live >= remaining:
            act = 999
            while books[symbol, _LIVE] == 0:
                symbol = (symbol + 1) % symbols
        book = books[symbol]
        own = orders[symbol]
        count = book[_LIVE]
        if live < remaining and count == 0:
            act = 0
        adding = act < 460
        if adding and count == most:
            act = 999
        if adding and live + 2 > remaining:
            act = 994
        if (three >> 40) % 8 == 0:
            step = (((three >> 44) & 1) * 2 - 1) * _TICK
            if 20 * _TICK < book[_PRICE] + step < 190_000_000:
                book[_PRICE] += step
        picked = four % max(1, count)
        buy = (three >> 50) & 1
        away = 1 + min(three & 15, (three >> 4) & 15)
        locate = symbol + 1
        if act < 460:  # A, F
            named = act < 30
            size: Any = 100 * (1 + four % 20)
            price = _quote(own, count, buy, book[_PRICE], away)
            own[count, _ID] = counters[0]
            own[count, _AT] = price
            own[count, _SIZE] = size
            own[count, _BUY] = buy
            book[_LIVE] += 1
            counters[2] += 1
            counters[4] += 1
            kind = 70 if named else 65
            at = _head(out, at, (40 if named else 36) if prefixed else 0, kind, locate, time)
            at = _put(out, at, counters[0], 8)
            at = _put(out, at, 66 if buy else 83, 1)
            at = _put(out, at, size, 4)
            at = _name(out, at, symbol)
            at = _put(out, at, price, 4)
            if named:
                at = _put(out, at, 0x5053544B, 4)
            counters[0] += 1
        elif act < 560:  # E, C: the side that the price has left behind, if any, else either
            bid = _best(own, count, 1)
            ask = _best(own, count, 0)
            picked = bid if buy else ask
            if bid >= 0 and own[bid, _AT] >= book[_PRICE]:
                picked = bid
            elif ask >= 0 and own[ask, _AT] <= book[_PRICE]:
                picked = ask
            elif picked < 0:
                picked = max(bid, ask)
            size = min(own[picked, _SIZE], 100 * (1 + four % 10))
            kind = 69 if act < 545 else 67
            at = _head(out, at, (31 if kind == 69 else 36) if prefixed else 0, kind, locate, time)
            at = _put(out, at, own[picked, _ID], 8)
            at = _put(out, at, size, 4)
            at = _put(out, at, counters[1], 8)
            if kind == 67:
                better = -50 if own[picked, _BUY] else 50
                at = _put(out, at, 78 if (four >> 30) % 4 == 0 else 89, 1)
                at = _put(out, at, own[picked, _AT] - better, 4)
            book[_MATCH] = counters[1]
            counters[1] += 1
            counters[3] += size
            own[picked, _SIZE] -= size
        elif act < 600 and own[picked, _SIZE] > 100:  # X
            kind = 88
            size = 100 * (1 + four % (own[picked, _SIZE] // 100 - 1)) if own[picked, _SIZE] >= 200 else 1
            at = _head(out, at, 23 if prefixed else 0, kind, locate, time)
            at = _put(out, at, own[picked, _ID], 8)
            at = _put(out, at, size, 4)
            own[picked, _SIZE] -= size
        elif act < 670:  # U
            kind = 85
            way = own[picked, _BUY]
            size = 100 * (1 + (four >> 20) % 20)
            price = _quote(own, count, way, book[_PRICE], away)
            at = _head(out, at, 35 if prefixed else 0, kind, locate, time)
            at = _put(out, at, own[picked, _ID], 8)
            at = _put(out, at, counters[0], 8)
            at = _put(out, at, size, 4)
            at = _put(out, at, price, 4)
            own[picked, _ID] = counters[0]
            own[picked, _AT] = price
            own[picked, _SIZE] = size
            counters[0] += 1
        elif 980 <= act < 995:  # P
            kind = 80
            at = _head(out, at, 44 if prefixed else 0, kind, locate, time)
            at = _put(out, at, 0, 8)
            at = _put(out, at, 66, 1)
            at = _put(out, at, 1 + four % 500, 4)
            at = _name(out, at, symbol)
            at = _put(out, at, book[_PRICE] + (three >> 30) % 100, 4)
            at = _put(out, at, counters[1], 8)
            book[_MATCH] = counters[1]
            counters[1] += 1
        elif 995 <= act < 998:  # I
            kind = 73
            at = _head(out, at, 50 if prefixed else 0, kind, locate, time)
            at = _put(out, at, four % 100_000, 8)
            at = _put(out, at, four % 7_000, 8)
            at = _put(out, at, 66 if buy else 83, 1)
            at = _name(out, at, symbol)
            for _ in range(3):
                at = _put(out, at, book[_PRICE], 4)
            at = _put(out, at, 67, 1)
            at = _put(out, at, 76, 1)
        elif act == 998 and book[_MATCH] > 0:  # B
            kind = 66
            at = _head(out, at, 19 if prefixed else 0, kind, locate, time)
            at = _put(out, at, book[_MATCH], 8)
            book[_MATCH] = 0
        else:  # D
            kind = 68
            at = _head(out, at, 19 if prefixed else 0, kind, locate, time)
            at = _put(out, at, own[picked, _ID], 8)
            own[picked, _SIZE] = 0
        tallies[kind] += 1
        if picked < count and own[picked, _SIZE] == 0:
            last = count - 1
            for field in range(4):
                own[picked, field] = own[last, field]
            own[last, _SIZE] = 0
            book[_LIVE] = last
            counters[2] -= 1
    return at
