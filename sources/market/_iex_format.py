"""What IEX TOPS and DEEP messages are made of, and the tables they go to.

Everything is little-endian. Each message begins with type (1), a letter or flags (1) and ns since the epoch (8); all but
system events then have the symbol (8). Specs: IEX TOPS 1.66, IEX DEEP 1.08, IEX Transport 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ...pipeline.schema import TIMESTAMP, event_schema

__all__ = ["COLUMNS", "LENGTHS", "MOST_PRICE", "NAMES", "PRICES", "TABLES", "TEXT", "Column", "table_schema"]

_TYPES: dict[str, tuple[int, str]] = {
    "S": (10, "system event"),
    "D": (31, "security directory"),
    "H": (22, "trading status"),
    "I": (18, "retail liquidity indicator"),
    "O": (18, "operational halt status"),
    "P": (19, "short sale price test status"),
    "E": (18, "security event"),
    "X": (26, "official price"),
    "A": (80, "auction information"),
    "Q": (42, "quote update"),
    "T": (38, "trade report"),
    "B": (38, "trade break"),
    "8": (30, "price level update, buy"),
    "5": (30, "price level update, sell"),
}
#: Least bytes of a message by type, and what it is called. Longer ones are read as far as they are known.
LENGTHS: dict[str, int] = {letter: length for letter, (length, _) in _TYPES.items()}
NAMES: dict[str, str] = {letter: name for letter, (_, name) in _TYPES.items()}
TABLES: dict[str, str] = {"bbo": "Q", "trade": "TB", "l2": "85", "status": "SDHIOPEXA"}
#: Where prices of eight bytes lie, by type.
PRICES: dict[str, tuple[int, ...]] = {
    "Q": (22, 30),
    "T": (22,),
    "B": (22,),
    "8": (22,),
    "5": (22,),
    "D": (22,),
    "X": (18,),
    "A": (22, 30, 48, 56, 64, 72),
}
#: The greatest price, in 1e-4 USD, that fits a column of 1e-9 USD.
MOST_PRICE = (2**63 - 1) // 100_000
TEXT = pa.dictionary(pa.int32(), pa.utf8())


@dataclass(frozen=True, slots=True)
class Column:
    """A column read from `width` bytes at ``at[type]``, times `scale`; null for the types of its table not in `at`.

    A `ready` column is not read from messages.
    """

    name: str
    kind: pa.DataType
    width: int = 0
    at: Mapping[str, int] = field(default_factory=dict)
    scale: int = 1

    @property
    def ready(self) -> bool:
        return self.width == 0


def _price(name: str, **at: int) -> Column:
    return Column(name, pa.int64(), 8, at, 100_000)


def _size(name: str, **at: int) -> Column:
    return Column(name, pa.float64(), 4, at)


_SYMBOL = Column("symbol", TEXT)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "bbo": (
        _SYMBOL,
        _price("bid_px", Q=22),
        _size("bid_sz", Q=18),
        _price("ask_px", Q=30),
        _size("ask_sz", Q=38),
        Column("update_id", pa.uint64()),
    ),
    "trade": (
        _SYMBOL,
        _price("price", T=22, B=22),
        _size("size", T=18, B=18),
        Column("side", pa.int8()),
        Column("trade_id", pa.uint64(), 8, {"T": 30, "B": 30}),
    ),
    "l2": (
        _SYMBOL,
        Column("side", pa.int8()),
        Column("price", pa.int64(), 8, {"8": 22, "5": 22}, 100_000),
        Column("size", pa.float64(), 4, {"8": 18, "5": 18}),
        Column("first_id", pa.uint64()),
        Column("last_id", pa.uint64()),
        Column("prev_id", pa.uint64()),
        Column("is_snapshot", pa.bool_()),
        Column("last_in_event", pa.bool_()),
    ),
    "status": (
        _SYMBOL,
        Column("msg_type", pa.uint8(), 1, dict.fromkeys(TABLES["status"], 0)),
        Column("code", pa.uint8(), 1, dict.fromkeys(TABLES["status"], 1)),
        Column("reason", TEXT, 4, {"H": 18}),
        Column("detail", pa.uint8(), 1, {"P": 18}),
        Column("round_lot_size", pa.uint32(), 4, {"D": 18}),
        Column("price", pa.int64(), 8, {"D": 22, "X": 18}, 100_000),
        Column("luld_tier", pa.uint8(), 1, {"D": 30}),
        Column("paired_shares", pa.uint32(), 4, {"A": 18}),
        _price("reference_price", A=22),
        _price("indicative_clearing_price", A=30),
        Column("imbalance_shares", pa.uint32(), 4, {"A": 38}),
        Column("imbalance_side", pa.uint8(), 1, {"A": 42}),
        Column("extension_number", pa.uint8(), 1, {"A": 43}),
        Column("scheduled_auction_time", TIMESTAMP, 4, {"A": 44}, 10**9),
        _price("auction_book_clearing_price", A=48),
        _price("collar_reference_price", A=56),
        _price("lower_collar_price", A=64),
        _price("upper_collar_price", A=72),
    ),
}


def table_schema(table: str, source: str) -> pa.Schema:
    """The schema of ``market.<table>``; a column is nullable if some type of the table lacks it."""
    letters = TABLES[table]
    fields = []
    for column in COLUMNS[table]:
        lacking = not column.ready and any(letter not in column.at for letter in letters)
        fields.append(pa.field(column.name, column.kind, nullable=lacking or (column is _SYMBOL and table == "status")))
    return event_schema(fields, source=source, format="iex", clock="utc", units="price 1e-9 USD, size shares")
