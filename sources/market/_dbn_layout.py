"""What DBN records are made of, in versions 1 to 3: record types, schemas, and the place of every field.

A layout is a numpy dtype over the bytes of one record. Older definitions, statistics, errors, system messages and symbol
mappings are shorter; they are read with their own layout and end in the columns of version 3.
Spec: databento/dbn, `record.rs` and `compat.rs`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = [
    "LATEST",
    "PRICES",
    "SCHEMAS",
    "SCHEMA_CODES",
    "SYMBOL_MAPPING",
    "TIMES",
    "UNDEF_PRICE",
    "UNDEF_TIME",
    "family_of",
    "record_layout",
    "record_sizes",
    "rtype_name",
]

#: The newest version that is read; older records come out in its columns.
LATEST = 3
UNDEF_PRICE = (1 << 63) - 1
UNDEF_TIME = (1 << 64) - 1
SYMBOL_MAPPING = 0x16

_HEAD = "length:u1 rtype:u1 publisher_id:u2 instrument_id:u4 ts_event:u8"
_TRADE = "price:i8 size:u4 action:c side:c flags:u1 depth:u1 ts_recv:u8 ts_in_delta:i4 sequence:u4"
_PAIR = "bid_px_{0:02}:i8 ask_px_{0:02}:i8 bid_sz_{0:02}:u4 ask_sz_{0:02}:u4 bid_ct_{0:02}:u4 ask_ct_{0:02}:u4"
_MERGED = "bid_px_00:i8 ask_px_00:i8 bid_sz_00:u4 ask_sz_00:u4 bid_pb_00:u2 -:2 ask_pb_00:u2 -:2"
_STRINGS_V1 = (
    "currency:4 settl_currency:4 secsubtype:6 raw_symbol:{symbol} group:21 exchange:5 asset:{asset} cfi:7 "
    "security_type:7 unit_of_measure:31 underlying:21 strike_price_currency:4"
)
_PRICES_V1 = (
    "ts_recv:u8 min_price_increment:i8 display_factor:i8 expiration:u8 activation:u8 high_limit_price:i8 "
    "low_limit_price:i8 max_price_variation:i8 -:8 unit_of_measure_qty:i8 min_price_increment_amount:i8 price_ratio:i8"
)
_NUMBERS = (
    "market_depth_implied:i4 market_depth:i4 market_segment_id:u4 max_trade_vol:u4 min_lot_size:i4 min_lot_size_block:i4 "
    "min_lot_size_round_lot:i4 min_trade_vol:u4"
)
_LAST_V1 = (
    "match_algorithm:c -:1 main_fraction:u1 price_display_format:u1 -:1 sub_fraction:u1 underlying_product:u1 "
    "security_update_action:c maturity_month:u1 maturity_day:u1 maturity_week:u1 user_defined_instrument:c "
    "contract_multiplier_unit:i1 flow_schedule_type:i1 tick_rule:u1"
)
_SHORT_V1 = "appl_id:i2 maturity_year:u2 decay_start_date:u2 channel_id:u2"

#: Fields behind the header by family, in the newest version.
_BODIES: dict[str, str] = {
    "mbo": "order_id:u8 price:i8 size:u4 flags:u1 channel_id:u1 action:c side:c ts_recv:u8 ts_in_delta:i4 sequence:u4",
    "trades": _TRADE,
    "mbp-1": f"{_TRADE} {_PAIR.format(0)}",
    "mbp-10": " ".join([_TRADE, *(_PAIR.format(level) for level in range(10))]),
    "bbo": f"price:i8 size:u4 -:1 side:c flags:u1 -:1 ts_recv:u8 -:4 sequence:u4 {_PAIR.format(0)}",
    "cmbp-1": f"price:i8 size:u4 action:c side:c flags:u1 -:1 ts_recv:u8 ts_in_delta:i4 -:4 {_MERGED}",
    "cbbo": f"price:i8 size:u4 -:1 side:c flags:u1 -:1 ts_recv:u8 -:8 {_MERGED}",
    "ohlcv": "open:i8 high:i8 low:i8 close:i8 volume:u8",
    "status": "ts_recv:u8 action:u2 reason:u2 trading_event:u2 is_trading:c is_quoting:c is_short_sell_restricted:c -:7",
    "definition": (
        "ts_recv:u8 min_price_increment:i8 display_factor:i8 expiration:u8 activation:u8 high_limit_price:i8 "
        "low_limit_price:i8 max_price_variation:i8 unit_of_measure_qty:i8 min_price_increment_amount:i8 price_ratio:i8 "
        "strike_price:i8 raw_instrument_id:u8 leg_price:i8 leg_delta:i8 inst_attrib_value:i4 underlying_id:u4 "
        f"{_NUMBERS} contract_multiplier:i4 decay_quantity:i4 original_contract_size:i4 leg_instrument_id:u4 "
        "leg_ratio_price_numerator:i4 leg_ratio_price_denominator:i4 leg_ratio_qty_numerator:i4 "
        f"leg_ratio_qty_denominator:i4 leg_underlying_id:u4 {_SHORT_V1} leg_count:u2 leg_index:u2 "
        f"{_STRINGS_V1.format(symbol=71, asset=11)} leg_raw_symbol:71 "
        "instrument_class:c match_algorithm:c main_fraction:u1 price_display_format:u1 sub_fraction:u1 "
        "underlying_product:u1 security_update_action:c maturity_month:u1 maturity_day:u1 maturity_week:u1 "
        "user_defined_instrument:c contract_multiplier_unit:i1 flow_schedule_type:i1 tick_rule:u1 "
        "leg_instrument_class:c leg_side:c -:17"
    ),
    "imbalance": (
        "ts_recv:u8 ref_price:i8 auction_time:u8 cont_book_clr_price:i8 auct_interest_clr_price:i8 ssr_filling_price:i8 "
        "ind_match_price:i8 upper_collar:i8 lower_collar:i8 paired_qty:u4 total_imbalance_qty:u4 market_imbalance_qty:u4 "
        "unpaired_qty:u4 auction_type:c side:c auction_status:u1 freeze_status:u1 num_extensions:u1 unpaired_side:c "
        "significant_imbalance:c -:1"
    ),
    "statistics": (
        "ts_recv:u8 ts_ref:u8 price:i8 quantity:i8 sequence:u4 ts_in_delta:i4 stat_type:u2 channel_id:u2 "
        "update_action:u1 stat_flags:u1 -:18"
    ),
    "error": "err:302 code:u1 is_last:u1",
    "system": "msg:303 code:u1",
    "symbol-mapping": "stype_in:u1 stype_in_symbol:71 stype_out:u1 stype_out_symbol:71 start_ts:u8 end_ts:u8",
}
_STATISTICS_V1 = (
    "ts_recv:u8 ts_ref:u8 price:i8 quantity:i4 sequence:u4 ts_in_delta:i4 stat_type:u2 channel_id:u2 "
    "update_action:u1 stat_flags:u1 -:6"
)
#: The bodies that older versions have otherwise.
_OLDER: dict[tuple[str, int], str] = {
    ("definition", 1): (
        f"{_PRICES_V1} inst_attrib_value:i4 underlying_id:u4 raw_instrument_id:u4 {_NUMBERS} -:4 contract_multiplier:i4 "
        f"decay_quantity:i4 original_contract_size:i4 -:4 -:2 {_SHORT_V1} {_STRINGS_V1.format(symbol=22, asset=7)} "
        f"instrument_class:c -:2 strike_price:i8 -:6 {_LAST_V1} -:3"
    ),
    ("definition", 2): (
        f"{_PRICES_V1} strike_price:i8 inst_attrib_value:i4 underlying_id:u4 raw_instrument_id:u4 {_NUMBERS} "
        f"contract_multiplier:i4 decay_quantity:i4 original_contract_size:i4 -:2 {_SHORT_V1} "
        f"{_STRINGS_V1.format(symbol=71, asset=7)} instrument_class:c {_LAST_V1} -:10"
    ),
    ("statistics", 1): _STATISTICS_V1,
    ("statistics", 2): _STATISTICS_V1,
    ("error", 1): "err:64",
    ("system", 1): "msg:64",
    ("symbol-mapping", 1): "stype_in_symbol:22 stype_out_symbol:22 -:4 start_ts:u8 end_ts:u8",
}

#: Fields that are fixed-point numbers of 1e-9, where the greatest int64 says "none".
PRICES = frozenset(
    [
        "price",
        "open",
        "high",
        "low",
        "close",
        "min_price_increment",
        "display_factor",
        "high_limit_price",
        "low_limit_price",
        "max_price_variation",
        "unit_of_measure_qty",
        "min_price_increment_amount",
        "price_ratio",
        "strike_price",
        "leg_price",
        "leg_delta",
        "ref_price",
        "cont_book_clr_price",
        "auct_interest_clr_price",
        "ssr_filling_price",
        "ind_match_price",
        "upper_collar",
        "lower_collar",
    ]
) | {f"{side}_px_{level:02}" for side in ("bid", "ask") for level in range(10)}
#: Fields that are ns since 1970, where the greatest uint64 says "none".
TIMES = frozenset(["expiration", "activation", "auction_time", "ts_ref", "start_ts", "end_ts", "ts_out"])

#: Record types by family.
_RTYPES: dict[int, tuple[str, str]] = {
    0x00: ("trades", "trades"),
    0x01: ("mbp-1", "mbp-1"),
    0x0A: ("mbp-10", "mbp-10"),
    0x11: ("ohlcv", "ohlcv"),
    0x12: ("status", "status"),
    0x13: ("definition", "definition"),
    0x14: ("imbalance", "imbalance"),
    0x15: ("error", "error"),
    0x16: ("symbol-mapping", "symbol-mapping"),
    0x17: ("system", "system"),
    0x18: ("statistics", "statistics"),
    0x20: ("ohlcv", "ohlcv-1s"),
    0x21: ("ohlcv", "ohlcv-1m"),
    0x22: ("ohlcv", "ohlcv-1h"),
    0x23: ("ohlcv", "ohlcv-1d"),
    0x24: ("ohlcv", "ohlcv-eod"),
    0xA0: ("mbo", "mbo"),
    0xB1: ("cmbp-1", "cmbp-1"),
    0xC0: ("cbbo", "cbbo-1s"),
    0xC1: ("cbbo", "cbbo-1m"),
    0xC2: ("cmbp-1", "tcbbo"),
    0xC3: ("bbo", "bbo-1s"),
    0xC4: ("bbo", "bbo-1m"),
}

#: Schema names in the order of their codes in the metadata.
SCHEMA_CODES: tuple[str, ...] = (
    *("mbo", "mbp-1", "mbp-10", "tbbo", "trades", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "definition"),
    *("statistics", "status", "imbalance", "ohlcv-eod", "cmbp-1", "cbbo-1s", "cbbo-1m", "tcbbo", "bbo-1s", "bbo-1m"),
)

#: Schemas that may be asked for, with the record types that belong to each.
SCHEMAS: dict[str, frozenset[int]] = {
    **{name: frozenset(code for code, (_, own) in _RTYPES.items() if own == name) for _, name in _RTYPES.values()},
    "tbbo": frozenset({0x01}),
}
for _name in [name for name in SCHEMAS if name.startswith("ohlcv-")]:
    SCHEMAS[_name] |= {0x11}  # what the first files have for all of them
SCHEMAS["ohlcv"] = frozenset({0x11, 0x20, 0x21, 0x22, 0x23, 0x24})


def family_of(schema: str) -> str:
    """The family of a schema: those of one family have the same records."""
    return _RTYPES[min(SCHEMAS[schema])][0]


def rtype_name(code: int) -> str:
    """What records of a type are called."""
    return _RTYPES[code][1] if code in _RTYPES else f"rtype 0x{code:02X}"


@cache
def record_layout(family: str, version: int, *, ts_out: bool = False) -> np.dtype[Any]:
    """The dtype of one whole record. Padding has no name; `c` fields are one ASCII byte, as uint8."""
    body = _OLDER.get((family, version), _BODIES[family])
    names, formats, offsets, at = [], [], [], 0
    for part in f"{_HEAD} {body}{' ts_out:u8' if ts_out else ''}".split():
        name, kind = part.split(":")
        dtype = np.dtype("u1" if kind == "c" else f"S{kind}" if kind.isdigit() else f"<{kind}")
        if name != "-":
            names.append(name)
            formats.append(dtype)
            offsets.append(at)
        at += dtype.itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": at})


def record_sizes(version: int, *, ts_out: bool = False) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Bytes of a record by its type, 0 for types that are not known."""
    sizes = np.zeros(256, np.int32)
    for code, (family, _) in _RTYPES.items():
        sizes[code] = record_layout(family, version, ts_out=ts_out).itemsize
    return sizes
