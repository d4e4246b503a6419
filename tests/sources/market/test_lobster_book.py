"""LOBSTER order books against the csv module: each line the book behind the message of the same line."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from penstock import sources
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.market import _lobster_book, _ticks_csv
from penstock.sources.market._lobster_levels import levels_in
from penstock.sources.market.lobster import Lobster, inspect_lobster, is_lobster, open_lobster
from ticks_reference import lines_of, plain, price, read

BOOK = "AAPL_2012-06-21_34200000_57600000_orderbook_5.csv"
MESSAGES = BOOK.replace("orderbook", "message")
MIDNIGHT = int(dt.datetime(2012, 6, 21, tzinfo=ZoneInfo("America/New_York")).timestamp()) * 10**9
DUMMY = 9_999_999_999


def write(folder: Path, count: int, *, levels: int = 5, seed: int = 1) -> tuple[list[str], list[str]]:
    """A pair of files: books whose far levels are not always there."""
    rng = np.random.Generator(np.random.Philox(seed))
    messages, book = [], []
    for i in range(count):
        kind, side = rng.integers(1, 8), rng.choice([-1, 1])
        messages.append(
            f"{34200 + i}.{i:09},{kind},{rng.integers(0, 2**40)},{rng.integers(0, 999)},{5 * 10**6 + i},{side}"
        )
        asks = 5_853_300 + np.cumsum(rng.integers(1, 9, levels)) * 100
        bids = 5_853_300 - np.cumsum(rng.integers(1, 9, levels)) * 100
        depth = rng.integers(0, levels + 1, 2)
        parts: list[int] = []
        for level in range(levels):
            parts += [asks[level], rng.integers(1, 2**32)] if level < depth[0] else [DUMMY, 0]
            parts += [bids[level], rng.integers(1, 2**32)] if level < depth[1] else [-DUMMY, 0]
        book.append(",".join(map(str, parts)))
    (folder / MESSAGES).write_text("\n".join(messages) + "\n")
    (folder / BOOK).write_text("\n".join(book) + "\n")
    return messages, book


def naive(seq: int, message: str, line: str) -> dict[str, Any]:
    time, kind, order, size, px, side = next(csv.reader([message]))
    numbers = [int(text) for text in next(csv.reader([line]))]
    levels = []
    for ask, ask_size, bid, bid_size in zip(*(numbers[i::4] for i in range(4)), strict=True):
        levels.append(
            {
                "bid_px": None if bid == -DUMMY else bid * 100_000,
                "ask_px": None if ask == DUMMY else ask * 100_000,
                "bid_sz": None if bid == -DUMMY else bid_size,
                "ask_sz": None if ask == DUMMY else ask_size,
                "bid_ct": None,
                "ask_ct": None,
            }
        )
    ns = MIDNIGHT + price(time)
    return {
        "ts_event": ns,
        "ts_recv": ns,
        "seq": seq,
        "symbol": "AAPL",
        "msg_type": b"AXDEPQH"[int(kind) - 1],
        "side": int(side),
        "order_id": int(order),
        "price": int(px) * 100_000,
        "size": int(size),
        "levels": levels,
    }


@pytest.mark.parametrize(("read_bytes", "numbers"), [(1 << 11, 40), (1 << 20, 1 << 20)])
def test_books_are_those_of_the_naive_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int, numbers: int
) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", read_bytes)
    monkeypatch.setattr(_lobster_book, "_NUMBERS", numbers)
    messages, book = write(tmp_path, 80)
    spec = Lobster(tmp_path / BOOK)
    want = [naive(seq, *lines) for seq, lines in enumerate(zip(messages, book, strict=True))]
    rows, bad, positions = read(spec)
    assert (rows, bad) == (want, [])
    assert len(positions) == 1 if numbers > 40 else len(positions) >= 40
    for position in positions[:: max(1, len(positions) // 8)]:
        assert read(spec, position)[0] == want[position["seq"] :]


def test_either_file_names_the_pair_and_packed_ones_are_read(tmp_path: Path) -> None:
    write(tmp_path, 20)
    want, _, _ = read(Lobster(tmp_path / BOOK))
    assert read(Lobster(tmp_path / MESSAGES, table="levels"))[0] == want
    for name in (BOOK, MESSAGES):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes(), mtime=0))
    assert read(Lobster(tmp_path / f"{BOOK}.gz"))[0] == want
    (tmp_path / BOOK).rename(tmp_path / "b.csv")
    assert read(Lobster(tmp_path / "b.csv", messages=tmp_path / MESSAGES, symbol="AAPL"))[0] == want
    assert Lobster(tmp_path / MESSAGES).table == "l3"


def test_a_book_alone_is_recognised_by_its_content(tmp_path: Path) -> None:
    write(tmp_path, 50)
    assert is_lobster((tmp_path / BOOK).read_bytes())
    assert sources.open(tmp_path / BOOK) == Lobster(tmp_path / BOOK)
    assert sources.open(tmp_path / MESSAGES) == Lobster(tmp_path / MESSAGES, table="l3")
    found = sources.inspect(tmp_path / BOOK)
    assert (found["format"], found["messages"], found["problem"]) == ("LOBSTER", 50, None)
    assert "levels fixed_size_list" in found["schema"]
    (tmp_path / BOOK).rename(tmp_path / "x.csv")
    with pytest.raises(FormatError, match=r"x.csv is an order book of LOBSTER, .* messages="):
        sources.open(tmp_path / "x.csv")
    again = sources.open(tmp_path / "x.csv", messages=tmp_path / MESSAGES)
    assert (again.table, len(read(again)[0])) == ("levels", 50)


@pytest.mark.parametrize(
    ("head", "levels"),
    [
        (b"101,5,100,7\n" * 3, 1),
        (b"101,5,100,7,102,1,99,1\r\n" * 3, 2),
        (b"101,5,100,7,9999999999,0,-9999999999,0\n", 2),
        (b"9999999999,0,-9999999999,0\n", 1),
        (b"101,5,100,7\n" * 2 + b"junk\n", 1),
        (b"101,5,100,7,101,1,99,1\n", 0),  # the second ask is no worse than the first
        (b"101,5,100,7,9999999999,4,99,1\n", 0),
        (b"9999999999,0,100,7,103,4,99,1\n", 0),
        (b"100,5,101,7\n", 0),
        (b"101,5,100,7,102\n", 0),
        (b"1,2.5,0,4\n", 0),
        (b"", 0),
        (b"\n\n", 0),
    ],
)
def test_a_book_is_told_by_the_order_of_its_prices(head: bytes, levels: int) -> None:
    assert levels_in(head) == levels


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("101,5,100", "the line does not have 4 fields"),
        ("101,5,100,7,8", "the line does not have 4 fields"),
        ("101,,100,7", "ask_sz_1 is empty"),
        ("101,5,1e2x,7", "bid_px_1 is no number"),
        ("101,-5,100,7", "ask_sz_1 does not fit 32 bits"),
        ("101,5,100,4294967296", "bid_sz_1 does not fit 32 bits"),
        ("92233720368548,5,100,7", "ask_px_1 does not fit 64 bits"),
        ("9999999999,5,100,7", "ask_sz_1 is the size of a level that is not there"),
    ],
)
def test_a_line_that_cannot_be_is_a_bad_record_with_its_message(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / MESSAGES).write_text("1.5,1,1,1,1,1\n2.5,3,4,5,6,1\n3.5,1,1,1,1,-1\n")
    (tmp_path / BOOK).write_text(f"101,5,100,7\n{line}\n101,5,100,7\n")
    spec = Lobster(tmp_path / BOOK)
    rows, (bad,), _ = read(spec)
    assert [row["seq"] for row in rows] == [0, 2]
    assert (bad.seq, bad.error, bad.data) == (1, f"book: {why}", f"2.5,3,4,5,6,1\n{line}".encode())
    assert bad.place == f"{spec.messages}, line 2, offset 14 and {spec.path}, line 2, offset 12"
    again = spec.retry(bad)
    assert again is not None
    assert [record.error for record in again.bad] == [bad.error]
    mended = spec.retry(BadRecord(bad.place, bad.operation, bad.error, b"2.5,3,4,5,6,1\n101,5,100,7", 1))
    assert mended is not None
    assert plain(mended.batches[0]) == [naive(1, "2.5,3,4,5,6,1", "101,5,100,7")]


def test_a_bad_message_takes_its_book_along(tmp_path: Path) -> None:
    (tmp_path / MESSAGES).write_text("1.5,1,1,1,1,1\n2.5,9,4,5,6,1\n3.5,1,1,1,1,-1\n")
    (tmp_path / BOOK).write_text("101,5,100,7\n102,5\n101,5,100,7\n")
    rows, (bad,), _ = read(Lobster(tmp_path / BOOK))
    assert [row["seq"] for row in rows] == [0, 2]
    assert bad.error == "messages: the type is not 1 to 7; book: the line does not have 4 fields"


def everything(
    spec: Lobster, position: Any = None
) -> tuple[list[dict[str, Any]], list[BadRecord], Counter[str], int, Any]:
    reader = spec.open(Context("book"), None, position)
    rows, bad, dropped, records, after = [], [], Counter[str](), 0, []
    for block in reader.blocks():
        decoded = reader.decode(block)
        rows += [row for batch in decoded.batches for row in plain(batch)]
        bad += decoded.bad
        dropped.update(decoded.dropped)
        records += block.records
        after.append((json.loads(json.dumps(block.after)), len(rows), len(bad), sum(dropped.values())))
    reader.close()
    return rows, bad, dropped, records, after


@pytest.mark.parametrize("short", [BOOK, MESSAGES])
@pytest.mark.parametrize("read_bytes", [1 << 10, 1 << 20])
def test_a_file_that_ends_before_the_other_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: str, read_bytes: int
) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", read_bytes)
    lines = write(tmp_path, 60)[short == BOOK]
    (tmp_path / short).write_text("\n".join(lines[:40]))
    spec = Lobster(tmp_path / BOOK)
    rows, (bad,), dropped, records, positions = everything(spec)
    longer = spec.messages if short == BOOK else spec.path
    assert ([row["seq"] for row in rows], records) == (list(range(40)), 60)
    assert dropped == {"no line in the other file": 20}
    assert f"{tmp_path / short}, ends before line 41: " in bad.error
    assert bad.place.startswith(f"{longer}, line 41, offset ")
    assert (bad.operation, bad.seq) == ("lobster.pair", None)
    for position, some, told, left in positions:
        rest = everything(spec, position)
        assert (rest[0], len(rest[1]), sum(rest[2].values())) == (rows[some:], 1 - told, 20 - left)
    found = inspect_lobster(tmp_path / BOOK)
    assert (found["messages"], found["bad"], found["left_out"]) == (60, 0, dropped)
    assert "ends before line 41" in found["error"]


def test_a_blank_line_shifts_no_book_to_another_message(tmp_path: Path) -> None:
    messages, book = write(tmp_path, 9)
    (tmp_path / BOOK).write_text("\n".join([*book[:4], "", *book[5:]]))
    spec = Lobster(tmp_path / BOOK)
    rows, (bad,), _ = read(spec)
    assert rows == [naive(i, messages[i], book[i]) for i in range(9) if i != 4]
    assert (bad.seq, bad.error, bad.data) == (4, "book: the line is blank", f"{messages[4]}\n".encode())
    assert bad.place.startswith(f"{spec.messages}, line 5, ")
    assert spec.retry(bad).bad[0].error == bad.error  # type: ignore[union-attr]


def test_a_line_longer_than_the_buffer_costs_its_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ticks_csv, "READ", 1 << 10)
    messages, book = write(tmp_path, 30)
    (tmp_path / BOOK).write_text("\n".join([*book[:4], "7" * 3000, *book[5:]]))
    spec = Lobster(tmp_path / BOOK)
    rows, (bad,), positions = read(spec)
    assert rows == [naive(i, messages[i], book[i]) for i in range(30) if i != 4]
    assert (bad.seq, bad.operation) == (4, "lobster.frame")
    assert "book: a line of 3001 bytes" in bad.error
    assert spec.retry(bad) is None
    for position in positions:
        assert read(spec, position)[0] == [row for row in rows if row["seq"] >= position["seq"]]


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no table 'l2'; choose l3 or levels"):
        Lobster(MESSAGES, table="l2")
    with pytest.raises(GraphError, match="messages="):
        Lobster("2012-06-21.csv", table="levels")
    with pytest.raises(GraphError, match="goes with an order book"):
        Lobster(MESSAGES, table="l3", messages=MESSAGES)
    write(tmp_path, 3)
    with pytest.raises(FormatError, match="is no LOBSTER order book"):
        _ = Lobster(tmp_path / MESSAGES, messages=tmp_path / MESSAGES).schema
    (tmp_path / MESSAGES).write_text("a,b\n")
    with pytest.raises(FormatError, match="is no LOBSTER message file: name it with"):
        Lobster(tmp_path / BOOK).open(Context("x"))
    (tmp_path / MESSAGES).unlink()
    with pytest.raises(FormatError, match=r"message_5.csv, where the times .* is not there"):
        Lobster(tmp_path / BOOK).open(Context("x"))
    (tmp_path / MESSAGES).write_text("")
    with pytest.raises(FormatError, match=r"message_5.csv is empty"):
        Lobster(tmp_path / BOOK).open(Context("x"))
    with pytest.raises(FormatError, match="no LOBSTER file"):
        open_lobster(__file__)


def test_a_cut_packed_file_is_told_and_costs_only_what_is_behind(tmp_path: Path) -> None:
    messages, book = write(tmp_path, 300)
    whole = gzip.compress("\n".join(book).encode(), mtime=0)
    (tmp_path / BOOK).write_bytes(whole[: len(whole) // 2])
    rows, bad, dropped, records, _ = everything(Lobster(tmp_path / BOOK))
    assert rows == [naive(i, messages[i], book[i]) for i in range(len(rows))]
    assert 50 < len(rows) < 299
    assert records == 300
    assert any("gzip stream ends early" in record.error for record in bad)
    assert any("ends before line" in record.error for record in bad)
    assert len(rows) + sum(record.seq is not None for record in bad) + sum(dropped.values()) == 300


def fuzz(folder: Path, cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    write(folder, 16, levels=2)
    sound = {name: (folder / name).read_bytes() for name in (BOOK, MESSAGES)}
    for case in range(cases):
        data = {name: bytearray(content) for name, content in sound.items()}
        for _ in range(rng.integers(1, 5)):
            one = data[rng.choice([BOOK, MESSAGES])]
            at = int(rng.integers(0, max(1, len(one))))
            one[at : at + int(rng.integers(0, 60))] = rng.choice(
                [rng.bytes(9), b"\n", b",", b"-", b"1" * 30, b"\n\n\n"]
            )
        for name, content in data.items():
            (folder / name).write_bytes(bytes(content).replace(b"\0", b"0"))
        spec = Lobster(folder / BOOK)
        try:
            rows, bad, dropped, records, positions = everything(spec)
        except FormatError as error:
            assert "is no LOBSTER" in str(error)
            continue
        lines = {name: dict(lines_of((folder / name).read_bytes())) for name in (BOOK, MESSAGES)}
        numbers = sorted({*lines[BOOK], *lines[MESSAGES]})
        paired = min(max(found) for found in lines.values())
        assert records == len(numbers)
        assert sum(dropped.values()) == sum(number > paired for number in numbers)
        seqs = sorted([row["seq"] for row in rows] + [record.seq for record in bad if record.seq is not None])
        assert seqs == list(range(records - sum(dropped.values())))
        for row in rows:
            number = numbers[row["seq"]]
            want = naive(row["seq"], lines[MESSAGES][number].decode(), lines[BOOK][number].decode())
            assert row == want
        if case % 4 == 0:
            position, some, *_ = positions[int(rng.integers(0, len(positions)))]
            assert everything(spec, position)[0] == rows[some:]


def test_whatever_is_done_to_two_files_each_line_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lobster_book, "_NUMBERS", 80)
    fuzz(tmp_path, 150, 1)
    monkeypatch.setattr(_ticks_csv, "READ", 1 << 8)
    fuzz(tmp_path, 150, 2)


@pytest.mark.nightly
def test_whatever_is_done_to_two_files_each_line_is_accounted_for_10_000_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lobster_book, "_NUMBERS", 80)
    fuzz(tmp_path, 5_000, 3)
    monkeypatch.setattr(_ticks_csv, "READ", 1 << 8)
    fuzz(tmp_path, 5_000, 4)
