"""Tardis.dev CSV files against the csv module and decimals."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import FormatError
from penstock.sources.market import _ticks_csv
from penstock.sources.market.tardis import Tardis, inspect_tardis, is_tardis, open_tardis
from ticks_reference import Refused, lines_of, price, read

TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
QUOTES = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount"
UPDATES = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
START = 1_700_000_000_000_000


def snapshot_header(depth: int) -> str:
    levels = [f"{side}[{i}].{what}" for i in range(depth) for side in ("asks", "bids") for what in ("price", "amount")]
    return ",".join(["exchange,symbol,timestamp,local_timestamp", *levels])


def naive_trade(line: str) -> dict[str, Any]:
    parts = line.split(",")
    if len(parts) != 8:
        raise Refused(line)
    exchange, symbol, stamp, local, number, side, px, amount = parts
    sides = {"buy": 1, "sell": -1, "unknown": 0}
    if side not in sides or not local or not amount:
        raise Refused(line)
    try:
        size = float(amount)
    except ValueError:
        raise Refused(line) from None
    recv = price(local, places=3)
    return {
        "ts_event": price(stamp, places=3) if stamp else recv,
        "ts_recv": recv,
        "symbol": symbol,
        "price": price(px),
        "size": size,
        "side": sides[side],
        "trade_id": int(number or 0),
        "exchange": exchange,
    }


def write_trades(count: int, *, damaged: bool = False) -> bytes:
    rng = np.random.Generator(np.random.Philox(count))
    lines = [TRADES]
    for i in range(count):
        px = f"{rng.integers(0, 10**6)}.{rng.integers(0, 10**9):0{rng.integers(1, 10)}}"
        amount = rng.choice(["0.001", "1e-7", "12", "0.1", "123456789.123456789123", "0.30000000000000004", "100.500"])
        symbol, side = rng.choice(["BTCUSDT", "ETHUSDT", "XRPUSDT"]), rng.choice(["buy", "sell", "unknown"])
        line = f"binance,{symbol},{START + i},{START + i + 7},{i},{side},{px},{amount}"
        if damaged and rng.random() < 0.05:
            line = rng.choice(
                [line + ",1", line[:-10], line.replace("binance", ""), line.replace("b", "x"), line + "x", "junk"]
            )
        lines.append(line)
        if rng.random() < 0.01:
            lines.append("")
    return "\n".join(lines).encode() + (b"\n" if count % 2 else b"")


@pytest.mark.parametrize("read_bytes", [1 << 11, 1 << 14, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_trades_are_those_of_the_naive_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int, packed: bool
) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", read_bytes)
    data = write_trades(2000, damaged=True)
    path = tmp_path / "trades.csv"
    path.write_bytes(gzip.compress(data) if packed else data)
    rows, bad, positions = read(Tardis(path))
    want, refused = [], []
    offsets = np.cumsum([0] + [len(line) + 1 for line in data.split(b"\n")])
    for seq, (number, line) in enumerate(lines_of(data)[1:]):
        try:
            row = naive_trade(line.decode())
        except Refused:
            refused.append((seq, f"{path}, line {number}, offset {offsets[number - 1]}", line))
        else:
            want.append({"seq": seq, **row})
    assert [{key: row[key] for key in want[0]} for row in rows] == want
    assert [(record.seq, record.place, record.data) for record in bad] == refused
    assert len(refused) > 20
    for position in positions[:: max(1, len(positions) // 5)]:
        rest, _, _ = read(Tardis(path), position)
        assert rest == [row for row in rows if row["seq"] >= position["seq"]]


@pytest.mark.parametrize("read_bytes", [1 << 10, 1 << 20])
def test_the_last_line_of_a_message_is_marked_whatever_the_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", read_bytes)
    rng = np.random.Generator(np.random.Philox(5))
    stamps = np.repeat(START + np.arange(200), rng.integers(1, 9, 200)).tolist()
    lines = [
        f"bitmex,XBTUSD,{t},{t},{rng.choice(['true', 'false'])},{rng.choice(['bid', 'ask'])},1.5,2" for t in stamps
    ]
    path = tmp_path / "book.csv"
    path.write_text("\n".join([UPDATES, *lines]))
    rows, bad, _ = read(Tardis(path))
    assert bad == []
    assert [row["last_in_event"] for row in rows] == [a != b for a, b in zip(stamps, [*stamps[1:], None], strict=True)]
    assert [row["is_snapshot"] for row in rows] == ["true" in line for line in lines]
    assert [row["side"] for row in rows] == [1 if "bid" in line else -1 for line in lines]


def test_times_that_were_converted_to_ns_are_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    line = "bitmex,XBTUSD,{0},{1},ccc3c1fa-212c-e8b0-1706-9b9c4f3d5ecf,sell,8531.5,2152\n"
    path.write_text(TRADES + "\n" + line.format(START, START + 7) + line.format(START * 1000, (START + 7) * 1000))
    rows, bad, _ = read(Tardis(path))
    assert not bad
    assert [(row["ts_event"], row["ts_recv"]) for row in rows] == [(START * 1000, (START + 7) * 1000)] * 2


def test_quotes_may_lack_a_side(tmp_path: Path) -> None:
    path = tmp_path / "quotes.csv"
    path.write_text(f"{QUOTES}\nderibit,BTC,{START},{START + 1},1,2.5,,\nderibit,BTC,{START},{START + 1},,,2.25,0.5\n")
    rows, bad, _ = read(Tardis(path))
    assert bad == []
    keys = ("bid_px", "bid_sz", "ask_px", "ask_sz")
    assert [[row[key] for key in keys] for row in rows] == [
        [None, None, 2_500_000_000, 1.0],
        [2_250_000_000, 0.5, None, None],
    ]


def test_a_snapshot_becomes_a_row_for_each_level_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.csv"
    first = f"okex,X,{START},{START},101,1,99,2,102,3,98,4"
    second = f"okex,X,{START + 1},{START + 1},101,1,,,,,,"
    path.write_text("\n".join([snapshot_header(2), first, second]))
    rows, _, _ = read(Tardis(path))
    keys = ("seq", "side", "price", "size", "is_snapshot", "last_in_event")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (0, 1, 99 * 10**9, 2.0, True, False),
        (0, 1, 98 * 10**9, 4.0, True, False),
        (0, -1, 101 * 10**9, 1.0, True, False),
        (0, -1, 102 * 10**9, 3.0, True, True),
        (1, -1, 101 * 10**9, 1.0, True, True),
    ]


def test_derivative_tickers_have_nulls_and_rounded_prices(tmp_path: Path) -> None:
    names = "funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,index_price,mark_price"
    path = tmp_path / "ticker.csv"
    path.write_text(
        f"exchange,symbol,timestamp,local_timestamp,{names}\nbinance,X,{START},{START},,1e-4,,7,1.0000000005,,2.0000000015\n"
    )
    rows, bad, _ = read(Tardis(path))
    assert bad == []
    assert rows[0]["funding_timestamp"] is None
    assert (rows[0]["funding_rate"], rows[0]["predicted_funding_rate"], rows[0]["open_interest"]) == (1e-4, None, 7.0)
    assert (rows[0]["last_price"], rows[0]["index_price"], rows[0]["mark_price"]) == (10**9, None, 2 * 10**9 + 2)


@settings(max_examples=300)
@given(
    st.one_of(
        st.decimals(allow_nan=False, allow_infinity=False, places=12), st.floats(allow_nan=False), st.text(max_size=12)
    )
)
def test_a_price_is_exact_or_the_line_is_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    text = str(value)
    if any(c in text for c in ',\n\r"\0') or any(ord(c) > 127 for c in text) or text.strip() != text or "_" in text:
        return
    path = tmp_path_factory.getbasetemp() / "price.csv"
    path.write_text(f"{TRADES}\nx,y,{START},{START},1,buy,{text},1\nx,y,{START},{START},1,buy,1,{text}\n")
    rows, bad, _ = read(Tardis(path))
    try:
        want: int | None = price(text) if any(c.isdigit() for c in text) else None
    except Refused:
        want = None
    assert [row["price"] for row in rows if row["seq"] == 0] == ([] if want is None else [want])
    try:
        size: float | None = float(text) if any(c.isdigit() for c in text) else None
    except ValueError:
        size = None
    found = [row["size"] for row in rows if row["seq"] == 1]
    assert found == ([] if size is None else [size])
    assert len(rows) + len(bad) == 2


def test_text_ids_are_hashed_and_numbers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text(f"{TRADES}\nx,y,{START},{START},a,buy,1,1\nx,y,{START},{START},987654321098,buy,1,1\n")
    rows, _, _ = read(Tardis(path))
    fnv = ((0xCBF29CE484222325 ^ ord("a")) * 0x100000001B3) % 2**64
    assert [row["trade_id"] for row in rows] == [fnv, 987654321098]


def test_a_line_longer_than_the_buffer_is_one_bad_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", 1 << 10)
    good = f"x,y,{START},{START},1,buy,1,1"
    path = tmp_path / "long.csv"
    path.write_text("\n".join([TRADES, good, "z" * 5000, good, good]))
    rows, bad, _ = read(Tardis(path))
    assert [row["seq"] for row in rows] == [0, 2, 3]
    assert [(record.seq, len(record.data)) for record in bad] == [(1, 1 << 10)] or "5001 bytes" in bad[0].error
    assert bad[0].place.startswith(f"{path}, line 3, offset ")


def test_a_bad_line_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "again.csv"
    path.write_text(f"{TRADES}\nx,y,{START},{START},1,buy,x,1\n")
    spec = Tardis(path)
    _, bad, _ = read(spec)
    found = spec.retry(bad[0])
    assert found is not None
    assert [(record.error, record.seq) for record in found.bad] == [("price is no number", 0)]


def test_what_is_no_tardis_file_is_refused_and_what_is_one_is_described(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for text in ("", "a,b,c\n1,2,3\n", '{"ts": 1}\n', "exchange,symbol,timestamp,local_timestamp,what\n"):
        path.write_text(text)
        assert not is_tardis(text.encode())
        with pytest.raises(FormatError, match=r"x\.csv"):
            open_tardis(path)
    path.write_bytes(write_trades(10))
    assert is_tardis(path.read_bytes())
    found = inspect_tardis(path)
    assert (found["messages"], found["bad"], list(found["types"])) == (10, 0, ["trades"])


def accounted(path: Path, data: bytes) -> None:
    """Every line of `data` is a row or a bad record, and the reader gets to its end."""
    path.write_bytes(data)
    try:
        rows, bad, positions = read(Tardis(path))
    except FormatError:
        return
    lines = lines_of(data)
    numbers = {row["seq"] for row in rows} | {record.seq for record in bad}
    header_blank = not data.split(b"\n", 1)[0].rstrip(b"\r")
    assert numbers == set(range(len(lines) - (0 if header_blank else 1)))
    if positions:
        assert data[positions[-1]["offset"] :].strip(b"\r\n") == b""


def fuzz(path: Path, cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    sound = write_trades(40)
    for _ in range(cases):
        data = bytearray(sound)
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(TRADES) + 1, len(data)))
            what = rng.integers(0, 4)
            if what == 0:
                data[at] = int(rng.integers(0, 256))
            elif what == 1:
                del data[at : at + int(rng.integers(1, 60))]
            elif what == 2:
                data[at:at] = rng.choice([b"\n", b",", b'"', b"\r\n", b"\0", b"-", b"e9", b"\xff" * 9, b"9" * 40])
            else:
                data[at:at] = data[: int(rng.integers(1, 300))]
            if len(data) < len(TRADES) + 10:
                break
        accounted(path, bytes(data))


def test_whatever_is_done_to_lines_each_is_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", 1 << 12)
    fuzz(tmp_path / "fuzz.csv", 300, 1)


@pytest.mark.nightly
def test_whatever_is_done_to_lines_each_is_accounted_for_10_000_times(tmp_path: Path) -> None:
    fuzz(tmp_path / "fuzz.csv", 10_000, 2)
