"""The columns of each DBN schema, and which field of the record each comes from.

`market.l3`, `market.bbo` and `market.trade` have the columns that every source of them has, then DBN's own. The other
schemas keep DBN's names. Characters are ASCII codes (uint8), except sides: 1 bid, -1 ask, 0 none.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from ...pipeline.schema import TIMESTAMP, event_schema
from ._dbn_layout import LATEST, PRICES, TIMES, family_of, record_layout

__all__ = ["Column", "columns_of", "levels_type", "schema_of", "table_of"]

_SYMBOL = pa.dictionary(pa.int32(), pa.utf8())
_LEVEL = (
    *(("bid_px", pa.int64()), ("ask_px", pa.int64()), ("bid_sz", pa.uint32()), ("ask_sz", pa.uint32())),
    *(("bid_ct", pa.uint32()), ("ask_ct", pa.uint32())),
)


@dataclass(frozen=True, slots=True)
class Column:
    """An output column. `field` is the record's, "" for one that is always 0; `default` is used where records lack it.

    `kind` is what it takes to make it: symbol, side, price (None where undefined), time (the same), number, zero, text or
    levels.
    """

    name: str
    type: pa.DataType
    kind: str
    field: str
    default: int = 0

    @property
    def arrow(self) -> pa.Field:
        return pa.field(self.name, self.type, nullable=self.kind in ("price", "time"))


def levels_type() -> pa.DataType:
    """Ten levels of a book, best first. Prices that are undefined are null."""
    fields = [pa.field(name, kind, nullable=name.endswith("px")) for name, kind in _LEVEL]
    return pa.list_(pa.field("item", pa.struct(fields), nullable=False), 10)


def table_of(schema: str) -> str:
    """The table that a schema's rows belong to."""
    known = {"mbo": "market.l3", "trades": "market.trade", "mbp-10": "market.levels", "ohlcv": "market.ohlcv"}
    bbo = dict.fromkeys(("mbp-1", "bbo", "cmbp-1", "cbbo"), "market.bbo")
    family = family_of(schema)
    return {**known, **bbo}.get(family, f"dbn.{family.replace('-', '_')}")


def columns_of(schema: str, *, ts_out: bool = False) -> tuple[Column, ...]:
    """The columns behind `ts_event`, `ts_recv` and `seq`."""
    family = family_of(schema)
    layout = record_layout(family, LATEST)
    found = [Column("symbol", _SYMBOL, "symbol", ""), *_shared(family)]
    if family == "mbo":
        found.insert(0, Column("locate", pa.uint16(), "zero", ""))
    taken = {column.field for column in found} | {"length", "rtype", "ts_event", "ts_recv", "side"}
    if family == "mbp-10":
        found.append(Column("levels", levels_type(), "levels", "bid_px_00"))
        taken |= {f"{name}_{level:02}" for name, _ in _LEVEL for level in range(10)}
    order = [name for name in (layout.names or ()) if name not in ("publisher_id", "instrument_id")]
    found += [
        _own(name, str(layout[name].str))
        for name in ("instrument_id", "publisher_id", *order)
        if name not in taken or (name == "side" and not any(column.kind == "side" for column in found))
    ]
    if ts_out:
        found.append(Column("ts_out", TIMESTAMP, "time", "ts_out"))
    return tuple(found)


def _shared(family: str) -> list[Column]:
    """The columns that a table has whatever its source."""
    side, action = Column("side", pa.int8(), "side", "side"), Column("msg_type", pa.uint8(), "number", "action")
    price = Column("price", pa.int64(), "price", "price")
    flags, size = Column("flags", pa.uint8(), "number", "flags"), Column("size", pa.float64(), "number", "size")
    if family == "mbo":
        return [
            *(action, side, Column("order_id", pa.uint64(), "number", "order_id")),
            Column("new_order_id", pa.uint64(), "zero", ""),
            *(price, Column("size", pa.uint32(), "number", "size"), Column("match_id", pa.uint64(), "zero", ""), flags),
        ]
    if family == "trades":
        return [price, size, side, Column("trade_id", pa.uint64(), "zero", ""), action, flags]
    if family == "mbp-10":
        return [action, side, price, Column("size", pa.uint32(), "number", "size"), flags]
    if family not in ("mbp-1", "bbo", "cmbp-1", "cbbo"):
        return []
    quote = [
        Column(f"{way}_{what}", kind, "price" if what == "px" else "number", f"{way}_{what}_00")
        for way in ("bid", "ask")
        for what, kind in (("px", pa.int64()), ("sz", pa.float64()))
    ]
    numbered = family in ("mbp-1", "bbo")
    update = Column("update_id", pa.uint64(), "number" if numbered else "zero", "sequence" if numbered else "")
    merged = not numbered
    counts = [
        Column(f"{way}_{'pb' if merged else 'ct'}", kind, "number", f"{way}_{'pb' if merged else 'ct'}_00")
        for way, kind in (
            ("bid", pa.uint16() if merged else pa.uint32()),
            ("ask", pa.uint16() if merged else pa.uint32()),
        )
    ]
    acted = [action] if family in ("mbp-1", "cmbp-1") else []
    return [*quote, update, *counts, price, size, side, *acted, flags]


_NUMBERS: dict[str, pa.DataType] = {
    "|u1": pa.uint8(),
    "|i1": pa.int8(),
    "<u2": pa.uint16(),
    "<i2": pa.int16(),
    "<u4": pa.uint32(),
    "<i4": pa.int32(),
    "<u8": pa.uint64(),
    "<i8": pa.int64(),
}
#: What version 3 has where older records have nothing, if not 0 (or none, for prices and times).
_DEFAULTS = {"leg_side": 78, "code": 255, "is_last": 255, "stype_in": 255, "stype_out": 255}


def _own(name: str, kind: str) -> Column:
    """A column as DBN has it."""
    if name in PRICES or name == "quantity":
        return Column(name, pa.int64(), "price", name)
    if name in TIMES:
        return Column(name, TIMESTAMP, "time", name)
    if name == "side":
        return Column(name, pa.int8(), "side", name)
    if kind.startswith("|S"):
        return Column(name, pa.utf8(), "text", name)
    return Column(name, _NUMBERS[kind], "number", name, _DEFAULTS.get(name, 0))


def schema_of(schema: str, source: str, *, ts_out: bool = False) -> pa.Schema:
    """The Arrow schema of a DBN schema's rows."""
    return event_schema(
        [column.arrow for column in columns_of(schema, ts_out=ts_out)],
        source=source,
        format="dbn",
        units="prices 1e-9",
        table=table_of(schema),
        dbn_schema=schema,
    )
