"""LOBSTER message files against the csv module and decimals."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.market import _ticks_csv
from penstock.sources.market.itch import Itch
from penstock.sources.market.lobster import Lobster, inspect_lobster, is_lobster, open_lobster
from ticks_reference import lines_of, price, read

NAME = "AAPL_2012-06-21_34200000_57600000_message_10.csv"
MIDNIGHT = int(dt.datetime(2012, 6, 21, tzinfo=ZoneInfo("America/New_York")).timestamp()) * 10**9


def write(path: Path, count: int, seed: int = 1) -> list[str]:
    rng = np.random.Generator(np.random.Philox(seed))
    lines = []
    for _ in range(count):
        fraction = f"{rng.integers(0, 10**9):09}".rstrip("0")
        time = f"{rng.integers(0, 86_400)}" + (f".{fraction}" if fraction else "")
        kind, side = rng.integers(1, 8), rng.choice([-1, 1])
        lines.append(f"{time},{kind},{rng.integers(0, 2**40)},{rng.integers(0, 10**6)},{rng.integers(1, 10**8)},{side}")
    path.write_text("\n".join(lines))
    return lines


def naive(seq: int, line: str) -> dict[str, Any]:
    time, kind, order, size, px, side = line.split(",")
    ns = MIDNIGHT + price(time)
    return {
        "ts_event": ns,
        "ts_recv": ns,
        "seq": seq,
        "locate": 0,
        "symbol": "AAPL",
        "msg_type": b"AXDEPQH"[int(kind) - 1],
        "side": int(side),
        "order_id": int(order),
        "new_order_id": 0,
        "price": int(px) * 100_000,
        "size": int(size),
        "match_id": 0,
        "flags": 0,
    }


@pytest.mark.parametrize("read_bytes", [1 << 10, 1 << 20])
def test_messages_are_those_of_the_naive_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", read_bytes)
    path = tmp_path / NAME
    want = [naive(seq, line) for seq, line in enumerate(write(path, 1500))]
    rows, bad, positions = read(Lobster(path))
    assert (rows, bad) == (want, [])
    for position in positions:
        assert read(Lobster(path), position)[0] == want[position["seq"] :]


def test_the_columns_are_those_of_itch() -> None:
    itch = Itch("x.itch", date="2012-06-21").schema
    assert Lobster(NAME).schema.equals(itch)


@settings(max_examples=100)
@given(st.integers(0, 86_399), st.integers(0, 10**9 - 1))
def test_seconds_are_exact_to_the_nanosecond(tmp_path_factory: pytest.TempPathFactory, second: int, nanos: int) -> None:
    path = tmp_path_factory.getbasetemp() / NAME
    path.write_text(f"{second}.{nanos:09},1,2,3,4,1\n")
    rows, _, _ = read(Lobster(path))
    assert rows[0]["ts_event"] == MIDNIGHT + second * 10**9 + nanos


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1.5,8,1,1,1,1", "the type is not 1 to 7"),
        ("1.5,0,1,1,1,1", "the type is not 1 to 7"),
        ("1.5,1,1,1,1,0", "the direction is not 1 or -1"),
        ("1.5,1,-1,1,1,1", "the order id is negative"),
        ("1.5,6,-2,1,1,1", "the order id is negative"),
        ("1.5,1,1,4294967296,1,1", "the size does not fit 32 bits"),
        ("1.5,1,1,1,92233720368548,1", "the price does not fit 64 bits"),
        ("99999.5,1,1,1,1,1", "the time is not within a day"),
        ("1.1234567891,1,1,1,1,1", "time has more than 9 decimals"),
        ("1.5,1,1,1,1", "the line does not have 6 fields"),
        ("1.5,1,1,1,1,1,1", "the line does not have 6 fields"),
        ("1.5,1,,1,1,1", "order_id is empty"),
        ("1.5,a,1,1,1,1", "type is no number"),
        ("nan,1,1,1,1,1", "time is no number"),
    ],
)
def test_a_line_that_cannot_be_is_a_bad_record(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / NAME
    path.write_text(f"1.5,1,1,1,1,1\n{line}\n2.5,1,1,1,1,-1\n")
    spec = Lobster(path)
    rows, bad, _ = read(spec)
    assert [row["seq"] for row in rows] == [0, 2]
    assert [(record.seq, record.error, record.data) for record in bad] == [(1, why, line.encode())]
    assert bad[0].place == f"{path}, line 2, offset 14"
    again = spec.retry(bad[0])
    assert again is not None
    assert [record.error for record in again.bad] == [why]


def test_crosses_and_halts_have_no_order(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("34200.5,6,-1,29264,5853300,-1\n34713.685155243,7,-1,0,-1,-1\n34813.5,7,0,0,1,-1\n")
    assert is_lobster(path.read_bytes())
    rows, bad, _ = read(Lobster(path))
    assert not bad
    assert [(row["msg_type"], row["order_id"], row["price"]) for row in rows] == [
        (ord("Q"), 0, 585_330_000_000),
        (ord("H"), 0, -100_000),
        (ord("H"), 0, 100_000),
    ]


def test_date_and_symbol_come_from_the_name_or_the_user(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="date="):
        Lobster(tmp_path / "messages.csv")
    path = tmp_path / "messages.csv"
    path.write_text("1.5,1,1,1,1,1\n")
    rows, _, _ = read(Lobster(path, date="2012-06-21", symbol="MSFT"))
    assert (rows[0]["symbol"], rows[0]["ts_event"]) == ("MSFT", MIDNIGHT + 1_500_000_000)


def test_files_are_recognised_and_described(tmp_path: Path) -> None:
    path = tmp_path / NAME
    write(path, 50)
    assert is_lobster(path.read_bytes())
    assert inspect_lobster(path)["messages"] == 50
    for data in (b"", b"1,42000.01,0.5,1,1700000000000,true\n", b"a,b\n", b"\x00" * 99):
        path.write_bytes(data)
        assert not is_lobster(data)
        with pytest.raises(FormatError, match="no LOBSTER"):
            open_lobster(path)


def fuzz(path: Path, cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    write(path, 30)
    sound = path.read_bytes()
    for _ in range(cases):
        data = bytearray(sound)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(0, len(data)))
            data[at : at + int(rng.integers(0, 30))] = rng.choice([rng.bytes(9), b"\n", b",", b"-", b"1" * 30])
        path.write_bytes(bytes(data).replace(b"\0", b"0"))
        rows, bad, _ = read(Lobster(path))
        found = sorted([row["seq"] for row in rows] + [record.seq for record in bad if record.seq is not None])
        assert found == list(range(len(lines_of(path.read_bytes()))))


def test_whatever_is_done_to_lines_each_is_accounted_for(tmp_path: Path) -> None:
    fuzz(tmp_path / NAME, 200, 1)


@pytest.mark.nightly
def test_whatever_is_done_to_lines_each_is_accounted_for_10_000_times(tmp_path: Path) -> None:
    fuzz(tmp_path / NAME, 10_000, 2)
