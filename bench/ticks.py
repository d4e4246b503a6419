"""Ticks: a NASDAQ ITCH 5.0 file to Arrow columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from struct import Struct
from typing import Any

import pyarrow as pa

from .harness import Case, Contender
from .recordings import market

__all__ = ["case"]

_RULES = (
    "Order and trade messages (A F E C X D U P Q B) of a file in the page cache, to Arrow columns of time, locate, type, "
    "side, order ids, price, size and match id; the rate counts all messages of the file. Contenders that make a Python "
    "object a message get a shorter file with the same messages. itch-book also builds the book (it cannot be told not to) "
    "and gives orders and trades as two tables."
)
_SESSION = date(2019, 1, 30)
_SCHEMA = pa.schema(
    [
        ("ts", pa.int64()), ("locate", pa.uint16()), ("type", pa.uint8()), ("side", pa.int8()), ("order_id", pa.uint64()),
        ("new_order_id", pa.uint64()), ("price", pa.int64()), ("size", pa.uint32()), ("match_id", pa.uint64()),
    ]
)  # fmt: skip

Row = tuple[int, int, int, int, int, int, int, int, int]


def case(scratch: Path, *, quick: bool) -> Case:
    long, short = (400_000, 50_000) if quick else (8_000_000, 400_000)
    file, messages = market(scratch, long, "long")
    part, few = market(scratch, short, "short")
    contenders = [
        Contender("penstock, one thread", lambda: penstock_ticks(file, messages, threads=1), ours=True),
        Contender("penstock, all cores", lambda: penstock_ticks(file, messages, threads=None), ours=True),
        Contender(
            "itch-book (C++)", lambda: itch_book(file, messages), needs=("itch_book",), install="pip install itch-book"
        ),
        Contender("itchcpp (C++)", lambda: itchcpp(part, few), needs=("itchcpp",)),
        Contender("itchfeed", lambda: itchfeed(part, few), needs=("itch",), install="pip install itchfeed"),
        Contender("struct", lambda: with_struct(part, few)),
    ]
    return Case("ticks", "ITCH 5.0 file to Arrow", "message", _RULES, contenders)


def penstock_ticks(file: Path, messages: int, *, threads: int | None) -> int:
    """The whole file through the source, batch by batch."""
    from penstock.pipeline import read
    from penstock.sources.market.itch import Itch

    rows = 0
    options: dict[str, Any] = {"runner": "inline"} if threads == 1 else {"runner": "local", "parallelism": threads}
    for batch in read(Itch(file, date=_SESSION)).iterate(**options):
        rows += batch.num_rows
    return _whole(rows, messages)


def itch_book(file: Path, messages: int) -> int:
    import itch_book as package

    with package.Feed(str(file), date=_SESSION, price_type="fixed") as feed:
        for batch in feed.batches(tables=("messages", "trades")):
            for columns in (batch.messages, batch.trades):
                pa.table({name: pa.array(_arrow(values)) for name, values in columns.items()})
        return _whole(feed.stats["messages"] if feed.stats else 0, messages)


def _arrow(values: Any) -> Any:
    return values.view("u1") if values.dtype.kind == "S" and values.dtype.itemsize == 1 else values


def itchcpp(file: Path, messages: int) -> int:
    from itchcpp import MessageParser

    with file.open("rb") as stream:
        return _whole(_objects(MessageParser().parse_file(stream)), messages)


def itchfeed(file: Path, messages: int) -> int:
    from itch.parser import MessageParser

    with file.open("rb") as stream:
        return _whole(_objects(MessageParser().parse_file(stream)), messages)


def _objects(found: Iterable[Any]) -> int:
    """Message objects of itchfeed's interface (which itchcpp shares) to Arrow."""
    rows: list[Row] = []
    for m in found:
        kind = m.message_type
        if kind in b"AF":
            side = 1 if m.buy_sell_indicator == b"B" else -1
            rest = (side, m.order_reference_number, 0, m.price * 100_000, m.shares, 0)
        elif kind == b"E":
            rest = (0, m.order_reference_number, 0, 0, m.executed_shares, m.match_number)
        elif kind == b"C":
            rest = (0, m.order_reference_number, 0, m.execution_price * 100_000, m.executed_shares, m.match_number)
        elif kind == b"X":
            rest = (0, m.order_reference_number, 0, 0, m.cancelled_shares, 0)
        elif kind == b"D":
            rest = (0, m.order_reference_number, 0, 0, 0, 0)
        elif kind == b"U":
            rest = (0, m.order_reference_number, m.new_order_reference_number, m.price * 100_000, m.shares, 0)
        elif kind == b"P":
            side = 1 if m.buy_sell_indicator == b"B" else -1
            rest = (side, m.order_reference_number, 0, m.price * 100_000, m.shares, m.match_number)
        elif kind == b"Q":
            rest = (0, 0, 0, m.cross_price * 100_000, m.shares, m.match_number)
        elif kind == b"B":
            rest = (0, 0, 0, 0, 0, m.match_number)
        else:
            continue
        rows.append((m.timestamp, m.stock_locate, kind[0], *rest))
    return _table(rows)


def with_struct(file: Path, messages: int) -> int:
    """The message layouts in the standard library's terms."""
    data = file.read_bytes()
    rows: list[Row] = []
    at, end = 0, len(data)
    decoders = _DECODERS
    while at + 2 < end:
        size = data[at] << 8 | data[at + 1]
        decode = decoders.get(data[at + 2])
        if decode is not None:
            rows.append(decode(data, at + 3))
        at += 2 + size
    return _whole(_table(rows), messages)


def _table(rows: list[Row]) -> int:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    return int(pa.table(arrays, schema=_SCHEMA).num_rows)


def _decoders() -> dict[int, Callable[[bytes, int], Row]]:
    head = ">HxxHI"
    order, executed, priced = Struct(head + "QcI8sI"), Struct(head + "QIQ"), Struct(head + "QIQcI")
    cancel, delete, replace = Struct(head + "QI"), Struct(head + "Q"), Struct(head + "QQII")
    trade, cross, broken = Struct(head + "QcI8sIQ"), Struct(head + "Q8sIQc"), Struct(head + "Q")

    def add(kind: int) -> Callable[[bytes, int], Row]:
        def decode(data: bytes, at: int) -> Row:
            locate, high, low, ref, side, size, _, price = order.unpack_from(data, at)
            return high << 32 | low, locate, kind, 1 if side == b"B" else -1, ref, 0, price * 100_000, size, 0

        return decode

    def e(data: bytes, at: int) -> Row:
        locate, high, low, ref, size, match = executed.unpack_from(data, at)
        return high << 32 | low, locate, 69, 0, ref, 0, 0, size, match

    def c(data: bytes, at: int) -> Row:
        locate, high, low, ref, size, match, _, price = priced.unpack_from(data, at)
        return high << 32 | low, locate, 67, 0, ref, 0, price * 100_000, size, match

    def x(data: bytes, at: int) -> Row:
        locate, high, low, ref, size = cancel.unpack_from(data, at)
        return high << 32 | low, locate, 88, 0, ref, 0, 0, size, 0

    def d(data: bytes, at: int) -> Row:
        locate, high, low, ref = delete.unpack_from(data, at)
        return high << 32 | low, locate, 68, 0, ref, 0, 0, 0, 0

    def u(data: bytes, at: int) -> Row:
        locate, high, low, ref, new, size, price = replace.unpack_from(data, at)
        return high << 32 | low, locate, 85, 0, ref, new, price * 100_000, size, 0

    def p(data: bytes, at: int) -> Row:
        locate, high, low, ref, side, size, _, price, match = trade.unpack_from(data, at)
        return high << 32 | low, locate, 80, 1 if side == b"B" else -1, ref, 0, price * 100_000, size, match

    def q(data: bytes, at: int) -> Row:
        locate, high, low, size, _, price, match, _ = cross.unpack_from(data, at)
        return high << 32 | low, locate, 81, 0, 0, 0, price * 100_000, size, match

    def b(data: bytes, at: int) -> Row:
        locate, high, low, match = broken.unpack_from(data, at)
        return high << 32 | low, locate, 66, 0, 0, 0, 0, 0, match

    return {65: add(65), 70: add(70), 69: e, 67: c, 88: x, 68: d, 85: u, 80: p, 81: q, 66: b}


_DECODERS = _decoders()


def _whole(rows: int, messages: int) -> int:
    """`messages`, if most of them became rows (the rest are of other types)."""
    if not 0.9 * messages <= rows <= messages:
        raise ValueError(f"{rows} rows from {messages} messages: part of the file was skipped")
    return messages
