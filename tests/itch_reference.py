"""A slow, plain reading of ITCH 5.0 and of order books, to compare the fast ones with, and a writer of single messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

__all__ = ["NaiveBooks", "columns", "lengths", "message", "messages", "pack", "read", "read_status", "read_trades"]

_FIELDS = {
    "S": "c",
    "R": "8scc I c c 2s c c c c c I c",
    "H": "8s c c 4s",
    "Y": "8s c",
    "L": "4s 8s c c c",
    "V": "QQQ",
    "W": "c",
    "K": "8s I c I",
    "J": "8s I I I I",
    "h": "8s c c",
    "A": "Q c I 8s I",
    "F": "Q c I 8s I 4s",
    "E": "Q I Q",
    "C": "Q I Q c I",
    "X": "Q I",
    "D": "Q",
    "U": "Q Q I I",
    "P": "Q c I 8s I Q",
    "Q": "Q 8s I Q c",
    "B": "Q",
    "I": "Q Q c 8s I I I c c",
    "N": "8s c",
    "O": "8s c I I I Q I I",
}
_FORMATS = {kind: struct.Struct(">" + fields.replace(" ", "")) for kind, fields in _FIELDS.items()}
lengths = {kind: 11 + fields.size for kind, fields in _FORMATS.items()}
NAMES = (
    "seq",
    "locate",
    "symbol",
    "msg_type",
    "side",
    "order_id",
    "new_order_id",
    "price",
    "size",
    "match_id",
    "flags",
)


def message(kind: str, locate: int, time: int, *fields: Any) -> bytes:
    """One message without what stands in front of it; `fields` as in the specification."""
    return struct.pack(">cHH", kind.encode(), locate, 0) + time.to_bytes(6, "big") + _FORMATS[kind].pack(*fields)


def directory(locate: int, name: str, time: int = 0) -> bytes:
    fields = (b"Q", b"N", 100, b"N", b"C", b"Z ", b"P", b"N", b"N", b"1", b"N", 0, b"N")
    return message("R", locate, time, name.ljust(8).encode(), *fields)


def pack(parts: Sequence[bytes], prefixed: bool = True) -> bytes:
    """A file of `parts`."""
    return b"".join((len(part) if prefixed else 0).to_bytes(2, "big") + part for part in parts)


def messages(data: bytes, prefixed: bool) -> Iterator[bytes]:
    """The messages of a sound file."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        if not prefixed:
            length = lengths[chr(data[at + 2])]
        if length:
            yield data[at + 2 : at + 2 + length]
        at += 2 + length


def read(data: bytes, midnight: int, *, prefixed: bool = True) -> list[tuple[Any, ...]]:
    """``market.l3`` rows as (ts_event, *NAMES) of a sound file."""
    symbols: dict[int, str] = {}
    rows = []
    for seq, body in enumerate(messages(data, prefixed)):
        kind = chr(body[0])
        locate, _ = struct.unpack(">HH", body[1:5])
        if kind not in _FORMATS:
            continue
        fields = _FORMATS[kind].unpack(body[11:])
        side = order = new = price = size = match = flags = 0
        if kind == "R":
            symbols.setdefault(locate, fields[0].decode("latin-1").rstrip(" \0"))
        if kind in "AF":
            order, way, size, _, price = fields[:5]
            side, flags = {b"B": 1, b"S": -1}[way], 2 * (kind == "F")
        elif kind == "E":
            (order, size, match), flags = fields, 1
        elif kind == "C":
            order, size, match, printable, price = fields
            flags = int(printable == b"Y")
        elif kind == "X":
            order, size = fields
        elif kind == "D":
            (order,) = fields
        elif kind == "U":
            order, new, size, price = fields
        elif kind == "P":
            order, way, size, _, price, match = fields
            side, flags = {b"B": 1, b"S": -1}.get(way, 0), 1
        elif kind == "Q":
            (size, _, price, match, _), flags = fields, 1
        elif kind == "B":
            (match,) = fields
        else:
            continue
        symbol = symbols.get(locate, f"?{locate}")
        ts = midnight + int.from_bytes(body[5:11], "big")
        rows.append((ts, seq, locate, symbol, ord(kind), side, order, new, price * 100_000, size, match, flags))
    return rows


def columns(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> list[tuple[Any, ...]]:
    """The rows of batches in the form of `read`."""
    table = pa.Table.from_batches(batches, schema)
    times = table["ts_event"].cast(pa.int64()).to_pylist()
    if times != table["ts_recv"].cast(pa.int64()).to_pylist():
        raise AssertionError("ts_recv differs from ts_event")
    return list(zip(times, *(table[name].to_pylist() for name in NAMES), strict=True))


# Names of a type's fields in order of the specification; "" for one that has no column.
_STATUS = {
    "S": "event_code",
    "R": "symbol market_category financial_status round_lot_size round_lots_only issue_classification issue_subtype "
    "authenticity short_sale_threshold ipo_flag luld_tier etp_flag etp_leverage inverse",
    "H": "symbol trading_state - reason",
    "Y": "symbol reg_sho_action",
    "L": "mpid symbol primary_market_maker market_maker_mode participant_state",
    "V": "level1_price level2_price level3_price",
    "W": "breached_level",
    "K": "symbol ipo_release_time ipo_release_qualifier ipo_price",
    "J": "symbol collar_reference_price upper_collar_price lower_collar_price collar_extension",
    "h": "symbol market_code operational_halt_action",
    "N": "symbol interest_flag",
    "O": "symbol open_eligibility minimum_allowable_price maximum_allowable_price near_execution_price "
    "near_execution_time lower_collar_price upper_collar_price",
    "I": "paired_shares imbalance_shares direction symbol far_price near_price reference_price cross_type price_variation",
}
LATEST = 25 * 3600 * 10**9


def read_status(data: bytes, midnight: int, kinds: str, *, prefixed: bool = True) -> list[dict[str, Any]]:
    """Rows of messages of `kinds` with the values that they have, of a sound file: ``market.status`` or ``market.noii``."""
    rows = []
    for seq, body in enumerate(messages(data, prefixed)):
        kind = chr(body[0])
        if kind not in kinds:
            continue
        locate, tracking = struct.unpack(">HH", body[1:5])
        row: dict[str, Any] = {"seq": seq, "locate": locate, "msg_type": body[0], "tracking_number": tracking}
        row["ts_event"] = midnight + int.from_bytes(body[5:11], "big")
        for name, value in zip(_STATUS[kind].split(), _FORMATS[kind].unpack(body[11:]), strict=True):
            if name in ("symbol", "mpid", "reason", "issue_subtype"):
                row[name] = value.decode("latin-1").rstrip(" \0")
            elif name == "ipo_release_time":
                row[name] = midnight + value * 10**9
            elif name == "near_execution_time":
                row[name] = midnight + value
            elif name.endswith("_price"):
                row[name] = value * (10 if name.startswith("level") else 100_000)
            elif name != "-":
                row[name] = value[0] if isinstance(value, bytes) else value
        rows.append(row)
    return rows


def read_trades(data: bytes, midnight: int, *, prefixed: bool = True) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Rows of ``market.trades`` as (ts_event, seq, locate, symbol, msg_type, price, size, side, match_id, printable,
    cross_type) of a sound file, and the numbers of the executions whose order is not in the book."""
    symbols: dict[int, str] = {}
    orders: dict[int, tuple[int, int, int, int]] = {}
    rows: list[tuple[Any, ...]] = []
    unknown = []
    for seq, body in enumerate(messages(data, prefixed)):
        kind = chr(body[0])
        if kind not in "RAFECXDUPQB":
            continue
        locate = int.from_bytes(body[1:3], "big")
        fields = _FORMATS[kind].unpack(body[11:])
        event = (midnight + int.from_bytes(body[5:11], "big"), seq, locate, symbols.get(locate, f"?{locate}"), body[0])
        if kind == "R":
            symbols.setdefault(locate, fields[0].decode("latin-1").rstrip(" \0"))
        elif kind in "AF":
            order, way, size, _, price = fields[:5]
            orders.setdefault(order, (locate, 1 if way == b"B" else -1, price, size))
        elif kind == "P":
            _, way, size, _, price, match = fields
            rows.append((*event, price * 100_000, size, {b"B": 1, b"S": -1}.get(way, 0), match, True, None))
        elif kind == "Q":
            size, _, price, match, cross = fields
            rows.append((*event, price * 100_000, size, 0, match, True, cross[0]))
        elif kind == "B":
            rows.append((*event, None, None, 0, fields[0], None, None))
        else:
            held = orders.get(fields[0])
            if held is None or held[0] != locate:
                if kind in "EC":
                    unknown.append(seq)
                continue
            if kind == "E":
                rows.append((*event, held[2] * 100_000, fields[1], held[1], fields[2], True, None))
            elif kind == "C":
                _, size, match, printable, price = fields
                rows.append((*event, price * 100_000, size, held[1], match, printable == b"Y", None))
            if kind == "U":
                order, new, size, price = fields
                if new == order or new not in orders:
                    del orders[order]
                    orders[new] = (locate, held[1], price, size)
            elif kind == "D" or fields[1] >= held[3]:
                del orders[fields[0]]
            else:
                orders[fields[0]] = (*held[:3], held[3] - fields[1])
    return rows, unknown


class NaiveBooks:
    """Books as dictionaries; `apply` a row of `read` and get the top of its book, or None where it has no effect."""

    def __init__(self) -> None:
        self.orders: dict[int, list[int]] = {}
        self.levels: dict[tuple[int, int], dict[int, int]] = {}
        self.volume: dict[int, int] = {}
        self.last: dict[int, int] = {}

    def _level(self, locate: int, side: int, price: int, change: int) -> None:
        levels = self.levels.setdefault((locate, side), {})
        levels[price] = levels.get(price, 0) + change
        if levels[price] == 0:
            del levels[price]

    def apply(self, row: tuple[Any, ...]) -> tuple[int, ...] | None:
        _, _, locate, _, code, side, order, new, price, size, _, flags = row
        kind, traded = chr(code), 0
        if kind in "AF":
            if order in self.orders:
                return None
            self.orders[order] = [locate, side, price, size]
            self._level(locate, side, price, size)
        elif kind in "ECXDU":
            held = self.orders.get(order)
            if held is None or held[0] != locate:
                return None
            if kind == "U":
                if new in self.orders and new != order:
                    return None
                del self.orders[order]
                self._level(*held[:3], -held[3])
                self.orders[new] = [locate, held[1], price, size]
                self._level(locate, held[1], price, size)
            else:
                if kind == "E" or (kind == "C" and flags & 1):
                    traded = size
                    price = held[2] if kind == "E" else price
                gone = held[3] if kind == "D" else min(size, held[3])
                held[3] -= gone
                self._level(*held[:3], -gone)
                if held[3] == 0:
                    del self.orders[order]
        elif kind in "PQ":
            traded = size
        else:
            return None
        if traded:
            self.volume[locate] = self.volume.get(locate, 0) + traded
            self.last[locate] = price
        top: list[int] = []
        for way, best in ((1, max), (-1, min)):
            levels = self.levels.get((locate, way), {})
            at = best(levels) if levels else 0
            top += [at, levels.get(at, 0)]
        return (*top, traded, self.last.get(locate, 0), self.volume.get(locate, 0))


def _values(kind: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """Any values for the fields of a message type; sides are B or S, and shares fit 32 bits."""
    fields: list[st.SearchStrategy[Any]] = []
    for token in _FIELDS[kind].replace("scc", "s c c").split():
        if token == "c":
            fields.append(st.sampled_from([b"B", b"S"]) if kind in "AFP" else st.sampled_from([b"Y", b"N", b" "]))
        elif token.endswith("s"):
            fields.append(st.just(b"ABCD    "[: int(token[:-1])]))
        else:
            for letter in token:
                top = 2**64 - 1 if letter == "Q" and kind != "Q" else 2**32 - 1
                fields.append(st.integers(0, top))
    return st.tuples(*fields)


def any_message(kinds: str = "".join(_FIELDS)) -> st.SearchStrategy[bytes]:
    """Any sound message of `kinds`, on locates 0 to 5 or the last one."""

    def build(kind: str) -> st.SearchStrategy[bytes]:
        locate = st.integers(0, 5) | st.just(65535)
        time = st.integers(0, 86_400 * 10**9)
        if kind == "R":
            return st.builds(lambda where, when: directory(where, f"SYM{where}", when), locate, time)
        return st.builds(lambda where, when, fields: message(kind, where, when, *fields), locate, time, _values(kind))

    return st.sampled_from(list(kinds)).flatmap(build)


def order_lives(most: int = 60) -> st.SearchStrategy[list[bytes]]:
    """Messages of a few orders on a few symbols, in any order and mostly such that they meet an order in the book."""
    ids = st.sampled_from([0, 1, 2, 3, 4, 5, 2**63, 2**64 - 1, 4096, 8192])
    sizes, prices = st.sampled_from([0, 1, 50, 100, 2**32 - 1]), st.integers(0, 2**32 - 1)

    def build(kind: str, order: int, new: int, size: int, price: int, where: int) -> bytes:
        locate = 1 + order % 2 if where else 3
        side, stock = b"BS"[order // 2 % 2 :][:1], b"ABC     "
        if kind == "R":
            return directory(locate, f"SYM{locate}")
        fields = {
            "A": (order, side, size, stock, price),
            "F": (order, side, size, stock, price, b"MPID"),
            "E": (order, size, price),
            "C": (order, size, price, b"YN"[new % 2 :][:1], price // 2),
            "X": (order, size),
            "D": (order,),
            "U": (order, new, size, price),
            "P": (0, b"BS "[new % 3 :][:1], size, stock, price, new),
            "Q": (size << 8, stock, price, new, b"O"),
            "B": (new,),
        }
        return message(kind, locate, price, *fields[kind])

    kinds = st.sampled_from(list("AAAAFEEEEECCCXXDUUUPQBR"))
    one = st.builds(build, kinds, ids, ids, sizes, prices, st.integers(0, 15))
    return st.lists(one, min_size=1, max_size=most)
