"""IEX TOPS and DEEP from captures: every message type against what was written from the specification."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import packets as pk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import ethernet, ipv4, read, udp
from penstock.pipeline.errors import GraphError
from penstock.sources.market import _iex_kernels
from penstock.sources.market.iex import Iex
from penstock.sources.network import _pcap_framer

T0 = 1_517_065_200 * 10**9
LOST = "lost before the capture: messages missing"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("iex") / "feed.pcap"


def _head(kind: bytes, flag: int | bytes, ns: int, symbol: str | None) -> bytes:
    byte = flag if isinstance(flag, bytes) else bytes([flag])
    return kind + byte + struct.pack("<q", ns) + (b"" if symbol is None else symbol.ljust(8).encode())


def quote(symbol: str, bid: tuple[int, int], ask: tuple[int, int], ns: int = T0, flags: int = 0) -> bytes:
    """Sides are (size, price)."""
    return _head(b"Q", flags, ns, symbol) + struct.pack("<Iqq", bid[0], bid[1], ask[1]) + struct.pack("<I", ask[0])


def trade(symbol: str, size: int, price: int, number: int, *, broken: bool = False, ns: int = T0) -> bytes:
    return _head(b"B" if broken else b"T", 0x40, ns, symbol) + struct.pack("<Iqq", size, price, number)


def level(symbol: str, side: int, size: int, price: int, *, last: bool = True, ns: int = T0) -> bytes:
    return _head(b"8" if side > 0 else b"5", int(last), ns, symbol) + struct.pack("<Iq", size, price)


def capture(segments: Sequence[bytes], port: int = 10378) -> bytes:
    return pk.pcap([(T0 + 1000 * i, ethernet(ipv4(udp(segment, target=port)))) for i, segment in enumerate(segments)])


def given_back(path: Path, segments: Sequence[bytes], **options: Any) -> pk.Reading:
    path.write_bytes(capture(segments))
    return read(Iex(path, **options))


def segments(parts: Sequence[bytes], size: int, **options: Any) -> list[bytes]:
    return [pk.iex(1 + at, parts[at : at + size], **options) for at in range(0, len(parts), size)]


SYMBOLS = st.sampled_from(["A", "ZVZZT", "BRK.A", "ABCDEFGH"])
U32, PRICE, TIME = st.integers(0, 2**32 - 1), st.integers(0, 9 * 10**13), st.integers(0, 2**63 - 1)
SIDE = st.tuples(U32, PRICE)


@given(st.lists(st.tuples(SYMBOLS, SIDE, SIDE, TIME), max_size=30), st.integers(1, 7))
@settings(max_examples=60)
def test_quotes(path: Path, quotes: list[Any], size: int) -> None:
    found = given_back(path, segments([quote(*row) for row in quotes], size))
    rows = [
        (ns, symbol, bid[1] * 100_000, float(bid[0]), ask[1] * 100_000, float(ask[0]), i + 1, i)
        for i, (symbol, bid, ask, ns) in enumerate(quotes)
    ]
    names = ("ts_event", "symbol", "bid_px", "bid_sz", "ask_px", "ask_sz", "update_id", "seq")
    assert found.rows(*names) == rows
    assert found.rows("ts_recv") == [T0 + 1000 * (i // size) for i in range(len(quotes))]
    assert (found.bad, found.dropped) == ([], {})


@given(st.lists(st.tuples(SYMBOLS, U32, PRICE, st.integers(0, 2**63 - 1), st.booleans()), max_size=20))
@settings(max_examples=40)
def test_trades_and_their_breaks(path: Path, trades: list[Any]) -> None:
    parts = [trade(*row[:4], broken=row[4]) for row in trades]
    found = given_back(path, segments(parts, 3), table="trade")
    assert found.rows("symbol", "price", "size", "side", "trade_id") == [
        (symbol, price * 100_000, float(-size if broken else size), 0, number)
        for symbol, size, price, number, broken in trades
    ]


def test_reserved_bytes_behind_a_message_are_left_alone(path: Path) -> None:
    found = given_back(path, segments([trade("A", 1, 2, 3) + bytes(4)], 1), table="trade")  # as in TOPS 1.5
    assert found.rows("price", "trade_id") == [(200_000, 3)]


@given(st.lists(st.tuples(SYMBOLS, st.sampled_from([1, -1]), U32, PRICE, st.booleans()), max_size=20))
@settings(max_examples=40)
def test_price_levels(path: Path, levels: list[Any]) -> None:
    parts = [level(*row[:4], last=row[4]) for row in levels]
    found = given_back(path, segments(parts, 4, protocol=0x8004), table="l2")
    names = ("symbol", "side", "price", "size", "first_id", "last_id", "prev_id", "is_snapshot", "last_in_event")
    assert found.rows(*names) == [
        (symbol, side, price * 100_000, float(size), i + 1, i + 1, i, False, last)
        for i, (symbol, side, size, price, last) in enumerate(levels)
    ]


def test_status_messages(path: Path) -> None:
    auction = struct.pack("<IqqIcBI4q", 1, 20_000, 30_000, 4, b"B", 5, 6, 70_000, 80_000, 90_000, 100_000)
    parts = [
        _head(b"S", b"O", 1, None),
        _head(b"D", 0x80, 2, "ZIEXT") + struct.pack("<IqB", 100, 10_000, 1),
        _head(b"H", b"H", 3, "ZIEXT") + b"T1  ",
        _head(b"I", b"A", 4, "ZIEXT"),
        _head(b"O", b"N", 5, "ZIEXT"),
        _head(b"P", 1, 6, "ZIEXT") + b"A",
        _head(b"E", b"C", 7, "ZIEXT"),
        _head(b"X", b"Q", 8, "ZIEXT") + struct.pack("<q", 123_400),
        _head(b"A", b"C", 9, "ZXIET") + auction,
        quote("ZIEXT", (1, 1), (1, 2)),
    ]
    found = given_back(path, segments(parts, 4), table="status")
    assert found.dropped == {"not in market.status: Q": 1}
    rows = found.table.drop_columns(["ts_event", "ts_recv", "seq", "scheduled_auction_time"]).to_pylist()
    assert [chr(row.pop("msg_type")) for row in rows] == list("SDHIOPEXA")
    assert found.rows("ts_event") == list(range(1, 10))
    assert found.rows("scheduled_auction_time") == [None] * 8 + [6 * 10**9]
    held = [{name: value for name, value in row.items() if value is not None} for row in rows]
    px = 100_000
    assert held == [
        {"code": ord("O")},
        {"symbol": "ZIEXT", "code": 0x80, "round_lot_size": 100, "price": 10_000 * px, "luld_tier": 1},
        {"symbol": "ZIEXT", "code": ord("H"), "reason": "T1"},
        {"symbol": "ZIEXT", "code": ord("A")},
        {"symbol": "ZIEXT", "code": ord("N")},
        {"symbol": "ZIEXT", "code": 1, "detail": ord("A")},
        {"symbol": "ZIEXT", "code": ord("C")},
        {"symbol": "ZIEXT", "code": ord("Q"), "price": 123_400 * px},
        {
            "symbol": "ZXIET",
            "code": ord("C"),
            "paired_shares": 1,
            "reference_price": 20_000 * px,
            "indicative_clearing_price": 30_000 * px,
            "imbalance_shares": 4,
            "imbalance_side": ord("B"),
            "extension_number": 5,
            "auction_book_clearing_price": 70_000 * px,
            "collar_reference_price": 80_000 * px,
            "lower_collar_price": 90_000 * px,
            "upper_collar_price": 100_000 * px,
        },
    ]


def test_a_gap_is_told_and_shows_in_the_numbers(path: Path) -> None:
    parts = [level("A", 1, i, i) for i in range(12)]
    some = segments(parts, 2, protocol=0x8004)
    found = given_back(path, [*some[:2], *some[3:], some[0], pk.iex(15, [], protocol=0x8004)], table="l2")
    assert [(record.operation, record.error.split(" of")[0]) for record in found.bad] == [
        ("iex.sequence", "gap: messages 5..6"),
        ("iex.sequence", "gap: messages 13..14"),
    ]
    assert found.dropped[LOST] == 4
    assert found.rows("first_id", "prev_id")[3:6] == [(4, 3), (7, 4), (8, 7)]
    assert found.rows("seq") == [0, 1, 2, 3, *range(6, 12)]
    assert found.records == 14


def test_one_of_two_feeds_in_a_capture_may_be_kept(path: Path) -> None:
    both = []
    for i in range(3):
        both += [pk.iex(1 + i, [trade("A", i, 1, i)]), pk.iex(1 + i, [trade("A", i, 1, i)], protocol=0x8004)]
    assert given_back(path, both, table="trade").table.num_rows == 6
    for feed in ("tops", "deep"):
        found = given_back(path, both, table="trade", feed=feed)
        assert found.rows("trade_id") == [0, 1, 2]
        assert found.dropped == {"not of the protocol that is read": 3}


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (quote("A", (1, 1), (1, 2))[:-1], "has 41 bytes, but type 'Q' (quote update) has 42"),
        (b"Q", "has 1 bytes"),
        (quote("A", (1, 1), (1, 2), ns=-1), "before 1970"),
        (quote("A", (1, 92_233_720_368_548), (1, 2)), "does not fit 64 bits"),
        (quote("A", (1, 1), (1, -92_233_720_368_548)), "does not fit 64 bits"),
    ],
)
def test_a_bad_message_costs_itself(path: Path, part: bytes, error: str) -> None:
    fine = quote("A", (1, 1), (1, 2))
    found = given_back(path, segments([fine, fine, part, fine], 3))
    assert found.rows("seq") == [0, 1, 3]
    (record,) = found.bad
    assert (record.seq, record.operation, record.data) == (2, "iex.decode quote update", part)
    assert error in record.error
    content = path.read_bytes()
    assert content[int(record.place.split()[-1]) :].startswith(part)


def test_unknown_and_empty_messages_are_counted(path: Path) -> None:
    found = given_back(path, segments([b"", b"z123", b"\xff", quote("A", (1, 1), (1, 2))], 4))
    assert found.rows("seq") == [3]
    assert found.dropped == {f"not in market.bbo: {kind}": 1 for kind in ("0x00", "z", "0xff")}


def test_symbols_beyond_those_told_apart_are_bad(path: Path) -> None:
    count = _iex_kernels.MOST_SYMBOLS + 3
    parts = [quote(f"S{i:07d}", (1, 1), (1, 2)) for i in range(count)]
    found = given_back(path, segments(parts, 200))
    assert found.table.num_rows == _iex_kernels.MOST_SYMBOLS
    assert found.rows("symbol")[::1000] == [f"S{i:07d}" for i in range(0, _iex_kernels.MOST_SYMBOLS, 1000)]
    assert [record.seq for record in found.bad] == [count - 3, count - 2, count - 1]


@pytest.mark.parametrize("table", ["bbo", "trade", "status"])
def test_a_reading_goes_on_behind_any_block(path: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pcap_framer, "READ", 8192)
    parts: list[bytes] = []
    for i in range(300):
        parts += [quote(f"S{i % 50}", (i, i), (i, i)), trade(f"T{i % 20}", i, i, i), _head(b"O", b"N", i, f"S{i % 7}")]
    some = [segment for i, segment in enumerate(segments(parts, 4)) if i % 31 != 8]
    whole = given_back(path, some, table=table, reorder=8)
    assert len(whole.positions) > 4
    names = whole.table.column_names
    for position in whole.positions:
        again = read(Iex(path, table=table, reorder=8), json.loads(json.dumps(position)))
        assert again.table.num_rows < whole.table.num_rows
        assert again.rows(*names) == whole.rows(*names)[whole.table.num_rows - again.table.num_rows :]


def test_wrong_arguments_are_refused(path: Path) -> None:
    for options in ({"table": "l3"}, {"feed": "DEEP"}, {"ports": (70_000,)}, {"reorder": 0}, {"first": -2}):
        with pytest.raises(GraphError):
            Iex(path, **options)  # type: ignore[arg-type]
