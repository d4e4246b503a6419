"""The columns of a LOBSTER order book, and how its files are told from others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.schema import event_schema

if TYPE_CHECKING:
    from ._ticks_csv_cells import Cells, Dialect

__all__ = ["MOST_LEVELS", "Assemble", "book_schema", "levels_in", "unsound_book"]

#: The price of a level that is not there: this for asks, the negative for bids.
_EMPTY = 9_999_999_999
_UNIT = 100_000
MOST_LEVELS = 1000
_LINE = re.compile(rb"-?[0-9]{1,18}(?:,-?[0-9]{1,18}){3,}\r?$")
#: Lines that are looked at to tell a file by.
_LOOKED = 20
_SYMBOL = pa.dictionary(pa.int32(), pa.utf8())


def book_schema(levels: int, source: str) -> pa.Schema:
    """``market.levels``: a message of ``market.l3`` and the book behind it."""
    fields = [
        *(pa.field("bid_px", pa.int64()), pa.field("ask_px", pa.int64())),
        *(pa.field(name, pa.uint32()) for name in ("bid_sz", "ask_sz", "bid_ct", "ask_ct")),
    ]
    level = pa.field("item", pa.struct(fields), nullable=False)
    own = [
        *(("symbol", _SYMBOL), ("msg_type", pa.uint8()), ("side", pa.int8()), ("order_id", pa.uint64())),
        *(("price", pa.int64()), ("size", pa.uint32()), ("levels", pa.list_(level, levels))),
    ]
    return event_schema(
        [pa.field(name, kind, nullable=False) for name, kind in own],
        source=source,
        format="lobster",
        clock="exchange",
        units="prices 1e-9 USD, sizes shares",
        table="market.levels",
    )


@dataclass(frozen=True)
class Assemble:
    """From the fields of messages and of the books behind them to columns."""

    schema: pa.Schema
    messages: Dialect
    book: Dialect

    def __call__(self, messages: Cells, book: Cells, seq: npt.NDArray[np.uint64]) -> Mapping[str, Any]:
        columns = self.messages.assemble(messages)
        return {**{name: columns[name] for name in self.schema.names[:-1]}, "seq": seq, "levels": self._levels(book)}

    def _levels(self, book: Cells) -> pa.Array:
        kind, count = self.schema.field("levels").type, len(book)
        levels = int(kind.list_size)
        children: dict[str, pa.Array] = {}
        for way, dummy in (("bid", -_EMPTY), ("ask", _EMPTY)):
            prices, sizes = np.empty((count, levels), np.int64), np.empty((count, levels), np.uint32)
            for i in range(levels):
                prices[:, i] = book[f"{way}_px_{i + 1}"]
                sizes[:, i] = book[f"{way}_sz_{i + 1}"]
            empty = prices.reshape(-1) == dummy
            children[f"{way}_px"] = pa.array(prices.reshape(-1) * _UNIT, pa.int64(), mask=empty)
            children[f"{way}_sz"] = pa.array(sizes.reshape(-1), pa.uint32(), mask=empty)
            children[f"{way}_ct"] = pa.nulls(count * levels, pa.uint32())
        fields = [kind.value_type.field(i) for i in range(kind.value_type.num_fields)]
        inner = pa.StructArray.from_arrays([children[field.name] for field in fields], fields=fields)
        return pa.Array.from_buffers(kind, count, [None], children=[inner])


def unsound_book(cells: Cells) -> Mapping[str, Any]:
    """Lines of a book whose values cannot be, by what is wrong."""
    fields = [field.name for field in cells.dialect.fields]
    wrong: dict[str, Any] = {}
    for price_name, size_name in zip(fields[::2], fields[1::2], strict=True):
        price, size = cells[price_name], cells[size_name]
        empty = price == (_EMPTY if price_name.startswith("ask") else -_EMPTY)
        checks = {
            f"{price_name} does not fit 64 bits": (price > (1 << 63) // _UNIT - 1) | (price < 1 - (1 << 63) // _UNIT),
            f"{size_name} does not fit 32 bits": (size < 0) | (size >= 1 << 32),
            f"{size_name} is the size of a level that is not there": empty & (size != 0),
        }
        wrong |= {why: where for why, where in checks.items() if where.any()}
    return wrong


def levels_in(head: bytes, *, strict: bool = True) -> int:
    """How many levels the lines of an order book have that begins with `head` (unpacked); 0 if it is none.

    Two lines in three must be of as many numbers, four a level; if `strict`, also be a book: prices from the best, and the
    best bid below the best ask.
    """
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    whole = [line for line in (lines[:-1] or lines)[: 2 * _LOOKED] if line.strip()][:_LOOKED]
    found: Counter[int] = Counter(levels for line in whole if (levels := _levels_of(line, strict)))
    if not found:
        return 0
    levels, count = found.most_common(1)[0]
    return levels if 3 * count >= 2 * len(whole) and levels <= MOST_LEVELS else 0


def _levels_of(line: bytes, strict: bool) -> int:
    if _LINE.match(line) is None:
        return 0
    numbers = [int(part) for part in line.split(b",")]
    if len(numbers) % 4:
        return 0
    for start, sign in ((0, 1), (2, -1)):
        prices, sizes = numbers[start::4], numbers[start + 1 :: 4]
        there = [sign * price for price in prices if price != sign * _EMPTY]
        bare = any(size for price, size in zip(prices, sizes, strict=True) if price == sign * _EMPTY)
        if strict and (bare or min(sizes) < 0 or prices[len(there) :] != [sign * _EMPTY] * (len(prices) - len(there))):
            return 0
        if strict and any(near >= far for near, far in pairwise(there)):
            return 0
    if strict and not -_EMPTY <= numbers[2] < numbers[0] <= _EMPTY:
        return 0
    return len(numbers) // 4
