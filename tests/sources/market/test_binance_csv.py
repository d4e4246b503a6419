"""Binance Vision CSV files of each kind, with and without header, against the csv module and decimals."""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import FormatError
from penstock.sources.market import _ticks_csv
from penstock.sources.market.binance_csv import BinanceCsv, inspect_binance_csv, is_binance_csv, open_binance_csv
from ticks_reference import lines_of, price, read

MS = 1_700_000_000_123
KINDS: dict[str, tuple[str, list[str]]] = {
    "spot trades": ("", ["7,42000.01000000,0.50000000,21000.00500000,{t},True,True"]),
    "futures trades": ("id,price,qty,quote_qty,time,is_buyer_maker", ["7,42000.01,0.5,21000.005,{t},true"]),
    "futures trades, no header": ("", ["7,42000.01,0.5,21000.005,{t},true"]),
    "spot aggTrades": ("", ["7,42000.01,0.5,1,2,{t},True,True"]),
    "futures aggTrades": (
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
        ["7,42000.01,0.5,1,2,{t},true"],
    ),
    "futures aggTrades, no header": ("", ["7,42000.01,0.5,1,2,{t},true"]),
}
UNITS = {"ms": (MS, MS * 10**6), "us": (MS * 1000 + 5, (MS * 1000 + 5) * 1000), "s": (MS // 1000, MS // 1000 * 10**9)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS)
def test_trades_of_every_year_and_market_are_the_same_rows(tmp_path: Path, kind: str, unit: str) -> None:
    header, lines = KINDS[kind]
    stamp, ns = UNITS[unit]
    path = tmp_path / "BTCUSDT-trades-2024-01-01.csv"
    text = "\n".join([*([header] if header else []), *(line.format(t=stamp) for line in lines)]) + "\n"
    path.write_text(text)
    assert is_binance_csv(text.encode())
    rows, bad, _ = read(open_binance_csv(path))
    assert bad == []
    assert rows == [
        {
            "ts_event": ns,
            "ts_recv": ns,
            "seq": 0,
            "symbol": "BTCUSDT",
            "price": 42_000_010_000_000,
            "size": 0.5,
            "side": -1,
            "trade_id": 7,
        }
    ]
    assert inspect_binance_csv(path)["messages"] == 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore",
        "open_time,open,high,low,close,volume,close_time,quote_asset_volume,number_of_trades,"
        "taker_buy_base_asset_volume,taker_buy_quote_asset_volume,ignore",
    ],
)
def test_klines_open_and_close(tmp_path: Path, header: str) -> None:
    line = f"{MS},0.00002853,0.00002854,0.00002851,-0.5,36304.2,{MS + 59_999},1.03547608,79,19523.0,0.55694227,0"
    text = "\n".join([*([header] if header else []), line, line.replace(str(MS), f"{MS}x")]) + "\n"
    path = tmp_path / "ADABTC-1m-2021-11-27.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ADABTC-1m-2021-11-27.csv", text)
    assert is_binance_csv(text.encode())
    rows, bad, _ = read(open_binance_csv(path))
    assert [record.seq for record in bad] == [1]
    assert rows == [
        {
            "ts_event": MS * 10**6,
            "ts_recv": (MS + 59_999) * 10**6,
            "seq": 0,
            "symbol": "ADABTC",
            "open": 28_530,
            "high": 28_540,
            "low": 28_510,
            "close": -500_000_000,
            "volume": 36304.2,
            "count": 79,
            "quote_volume": 1.03547608,
            "taker_volume": 19523.0,
            "taker_quote_volume": 0.55694227,
        }
    ]
    assert inspect_binance_csv(path)["types"] == {"klines": {"messages": 1}}


@pytest.mark.parametrize("header", [True, False])
def test_best_quotes_have_both_clocks(tmp_path: Path, header: bool) -> None:
    names = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
    path = tmp_path / "ETHUSDT-bookTicker-2024-01-01.csv"
    path.write_text((names if header else "") + f"9,1.5,2,1.6,3,{MS},{MS + 4}\n")
    rows, _, _ = read(BinanceCsv(path, symbol="ETH"))
    assert rows == [
        {
            "ts_event": MS * 10**6,
            "ts_recv": (MS + 4) * 10**6,
            "seq": 0,
            "symbol": "ETH",
            "update_id": 9,
            "bid_px": 1_500_000_000,
            "bid_sz": 2.0,
            "ask_px": 1_600_000_000,
            "ask_sz": 3.0,
        }
    ]


def test_book_updates_are_marked_where_an_event_ends(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT_T_DEPTH.csv"
    head = "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu\n"
    parts = [("10", "11", "b", "set", 9), ("10", "11", "a", "set", 9), ("12", "12", "a", "snap", 11)]
    path.write_text(head + "".join(f"BTCUSDT,{MS},{a},{b},{s},{u},1.5,2,{p}\n" for a, b, s, u, p in parts))
    rows, bad, _ = read(BinanceCsv(path))
    assert bad == []
    keys = ("side", "first_id", "last_id", "prev_id", "is_snapshot", "last_in_event", "symbol")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (1, 10, 11, 9, False, False, "BTCUSDT"),
        (-1, 10, 11, 9, False, True, "BTCUSDT"),
        (-1, 12, 12, 11, True, True, "BTCUSDT"),
    ]


@settings(max_examples=100)
@given(st.datetimes(dt.datetime(1701, 1, 1), dt.datetime(2261, 1, 1)))
def test_dates_of_depth_percentages_are_those_of_datetime(
    tmp_path_factory: pytest.TempPathFactory, when: dt.datetime
) -> None:
    path = tmp_path_factory.getbasetemp() / "BTCUSDT-bookDepth.csv"
    path.write_text(f"timestamp,percentage,depth,notional\n{when.isoformat(' ')},-5,1.5,2e9\n")
    rows, bad, _ = read(BinanceCsv(path))
    assert bad == []
    since = when - dt.datetime(1970, 1, 1)
    ns = ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000
    assert rows == [
        {
            "ts_event": ns,
            "ts_recv": ns,
            "seq": 0,
            "symbol": "BTCUSDT",
            "percentage": -5.0,
            "depth": 1.5,
            "notional": 2e9,
        }
    ]


@pytest.mark.parametrize(
    "when", ["2023-02-29 00:00:00", "2023-13-01 00:00:00", "2023-01-01 24:00:00", "2023-01-01", "x"]
)
def test_days_that_are_not_are_bad_records(tmp_path: Path, when: str) -> None:
    path = tmp_path / "BTCUSDT-bookDepth.csv"
    path.write_text(f"timestamp,percentage,depth,notional\n{when},-5,1.5,2\n")
    rows, bad, _ = read(BinanceCsv(path))
    assert (rows, [record.error for record in bad]) == ([], ["day is no date and time"])


@pytest.mark.parametrize("read_bytes", [1 << 11, 1 << 20])
def test_many_lines_are_those_of_the_naive_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", read_bytes)
    rng = np.random.Generator(np.random.Philox(1))
    lines = []
    for i in range(3000):
        px, qty = f"{rng.integers(1, 10**5)}.{rng.integers(0, 10**8):08}", f"{rng.random() * 10:.8f}"
        lines.append(f"{i},{px},{qty},1,{MS + i},{rng.choice(['True', 'False'])},True")
    lines[100] = lines[100].replace("True", "Yes").replace("False", "Yes")
    lines[200] = "garbage"
    path = tmp_path / "BTCUSDT-trades.csv"
    path.write_text("\r\n".join(lines))
    rows, bad, positions = read(BinanceCsv(path))
    want: list[dict[str, Any]] = []
    for seq, (_, line) in enumerate(lines_of(path.read_bytes())):
        if seq in (100, 200):
            continue
        number, px, qty, _, stamp, maker, _ = next(csv.reader(io.StringIO(line.decode())))
        ns = int(stamp) * 10**6
        want.append(
            {
                "ts_event": ns,
                "ts_recv": ns,
                "seq": seq,
                "symbol": "BTCUSDT",
                "price": price(px),
                "size": float(qty),
                "side": -1 if maker == "True" else 1,
                "trade_id": int(number),
            }
        )
    assert rows == want
    assert [(record.seq, record.error) for record in bad] == [
        (100, "maker is none of the words it can be"),
        (200, "id is no number"),
    ]
    for position in positions:
        assert read(BinanceCsv(path), position)[0] == [row for row in want if row["seq"] >= position["seq"]]


def test_files_that_hold_something_else_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    others = [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(60), "begins like a zip archive but does not unpack"),
        (b"a,b,c\n", "none of Binance's"),
        (b"34200.017459617,5,0,1,2238200,-1\n", "none of Binance's"),
        (b'{"e":"trade"}\n', "none of Binance's"),
    ]
    for data, why in others:
        path.write_bytes(data)
        assert not is_binance_csv(data)
        with pytest.raises(FormatError, match=why):
            open_binance_csv(path)


def fuzz(path: Path, cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    header, lines = KINDS["futures aggTrades"]
    sound = "\n".join([header, *(lines[0].format(t=MS + i) for i in range(30))]).encode()
    for _ in range(cases):
        data = bytearray(sound)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(len(header) + 1, len(data)))
            if rng.random() < 0.5:
                data[at] = int(rng.integers(0, 256))
            else:
                data[at : at + int(rng.integers(0, 50))] = rng.bytes(int(rng.integers(0, 20)))
        path.write_bytes(data)
        rows, bad, _ = read(BinanceCsv(path))
        found = sorted([row["seq"] for row in rows] + [record.seq for record in bad if record.seq is not None])
        assert found == list(range(len(lines_of(bytes(data))) - 1))


def test_whatever_is_done_to_lines_each_is_accounted_for(tmp_path: Path) -> None:
    fuzz(tmp_path / "BTCUSDT.csv", 200, 1)


@pytest.mark.nightly
def test_whatever_is_done_to_lines_each_is_accounted_for_10_000_times(tmp_path: Path) -> None:
    fuzz(tmp_path / "BTCUSDT.csv", 10_000, 2)
