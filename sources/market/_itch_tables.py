"""The tables of ITCH 5.0: which message types each holds, its schema, and where its columns lie in each type.

``market.l3`` and ``market.trades`` have kernels of their own. ``market.status`` and ``market.noii`` are described by
`COLUMNS`, one entry a column, and read column by column; offsets count from the type's byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ...pipeline.schema import TIMESTAMP, event_schema
from ._itch_format import LENGTHS, l3_schema

__all__ = ["COLUMNS", "LATEST", "TABLES", "Column", "table_schema", "tables_of"]

#: Message types by table. An order message is in ``l3`` and, if it reports a trade, in ``trades`` too.
TABLES: dict[str, str] = {"l3": "AFECXDUPQB", "status": "SRHYLVWKJhNO", "noii": "I", "trades": "PQBEC"}

#: No message is later than this after midnight, in ns: a day of 25 hours, when daylight saving time ends.
LATEST = 25 * 3600 * 10**9

_TEXT = pa.dictionary(pa.int32(), pa.utf8())
_LETTER, _COUNT, _PRICE = pa.uint8(), pa.uint32(), pa.int64()


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is read from `width` big-endian bytes at offset ``at[type]``; null for types that are not in `at`.

    The value is ``number * scale``, plus midnight for a time; a number above `limit` is no value of that field. Columns
    of text keep the bytes.
    """

    name: str
    kind: pa.DataType
    width: int
    at: Mapping[str, int] = field(default_factory=dict)
    scale: int = 1
    limit: int | None = None

    @property
    def is_text(self) -> bool:
        return bool(pa.types.is_dictionary(self.kind))

    @property
    def is_time(self) -> bool:
        return bool(pa.types.is_timestamp(self.kind))


def _letter(name: str, **at: int) -> Column:
    return Column(name, _LETTER, 1, at)


def _count(name: str, **at: int) -> Column:
    return Column(name, _COUNT, 4, at)


def _price(name: str, **at: int) -> Column:
    return Column(name, _PRICE, 4, at, 100_000)


def _level(name: str, **at: int) -> Column:
    """A price with eight decimals in eight bytes."""
    return Column(name, _PRICE, 8, at, 10, (2**63 - 1) // 10)


def _common(table: str) -> tuple[Column, ...]:
    types = TABLES[table]
    stock = dict.fromkeys(types, 11) | {"L": 15, "I": 28}
    return (
        Column("locate", pa.uint16(), 2, dict.fromkeys(types, 1)),
        Column("symbol", _TEXT, 8, {letter: stock[letter] for letter in types if letter not in "SVW"}),
        Column("msg_type", _LETTER, 1, dict.fromkeys(types, 0)),
        Column("tracking_number", pa.uint16(), 2, dict.fromkeys(types, 3)),
    )


#: Columns behind the three of every source.
COLUMNS: dict[str, tuple[Column, ...]] = {
    "status": (
        *_common("status"),
        _letter("event_code", S=11),
        _letter("market_category", R=19),
        _letter("financial_status", R=20),
        _count("round_lot_size", R=21),
        _letter("round_lots_only", R=25),
        _letter("issue_classification", R=26),
        Column("issue_subtype", _TEXT, 2, {"R": 27}),
        _letter("authenticity", R=29),
        _letter("short_sale_threshold", R=30),
        _letter("ipo_flag", R=31),
        _letter("luld_tier", R=32),
        _letter("etp_flag", R=33),
        _count("etp_leverage", R=34),
        _letter("inverse", R=38),
        _letter("trading_state", H=19),
        Column("reason", _TEXT, 4, {"H": 21}),
        _letter("reg_sho_action", Y=19),
        Column("mpid", _TEXT, 4, {"L": 11}),
        _letter("primary_market_maker", L=23),
        _letter("market_maker_mode", L=24),
        _letter("participant_state", L=25),
        _level("level1_price", V=11),
        _level("level2_price", V=19),
        _level("level3_price", V=27),
        _letter("breached_level", W=11),
        Column("ipo_release_time", TIMESTAMP, 4, {"K": 19}, 10**9),
        _letter("ipo_release_qualifier", K=23),
        _price("ipo_price", K=24),
        _price("collar_reference_price", J=19),
        _price("upper_collar_price", J=23, O=44),
        _price("lower_collar_price", J=27, O=40),
        _count("collar_extension", J=31),
        _letter("market_code", h=19),
        _letter("operational_halt_action", h=20),
        _letter("interest_flag", N=19),
        _letter("open_eligibility", O=19),
        _price("minimum_allowable_price", O=20),
        _price("maximum_allowable_price", O=24),
        _price("near_execution_price", O=28),
        Column("near_execution_time", TIMESTAMP, 8, {"O": 32}, 1, LATEST),
    ),
    "noii": (
        *_common("noii"),
        Column("paired_shares", pa.uint64(), 8, {"I": 11}),
        Column("imbalance_shares", pa.uint64(), 8, {"I": 19}),
        _letter("direction", I=27),
        _price("far_price", I=36),
        _price("near_price", I=40),
        _price("reference_price", I=44),
        _letter("cross_type", I=48),
        _letter("price_variation", I=49),
    ),
}


def table_schema(table: str, source: str) -> pa.Schema:
    """The schema of ``market.<table>``; a column is nullable if some type of the table lacks it."""
    if table == "l3":
        return l3_schema(source)
    if table == "trades":
        fields = [
            pa.field("locate", pa.uint16(), nullable=False),
            pa.field("symbol", _TEXT, nullable=False),
            pa.field("msg_type", pa.uint8(), nullable=False),
            pa.field("price", pa.int64()),
            pa.field("size", pa.uint64()),
            pa.field("side", pa.int8(), nullable=False),
            pa.field("match_id", pa.uint64(), nullable=False),
            pa.field("printable", pa.bool_()),
            pa.field("cross_type", pa.uint8()),
        ]
    else:
        types = len(TABLES[table])
        fields = [pa.field(column.name, column.kind, nullable=len(column.at) < types) for column in COLUMNS[table]]
    units = "price 1e-9 USD, size shares"
    return event_schema(fields, source=source, format="itch50", clock="exchange", units=units)


def tables_of(letter: str) -> list[str]:
    """The tables that hold messages of this type; none for a type that is not known."""
    return [f"market.{name}" for name, types in TABLES.items() if letter in types and letter in LENGTHS]
