"""Trades joined with the book, against a book of dictionaries and against itch-book."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_reference import directory, message, order_lives, pack, read_trades
from penstock.demos.market_recording import write_market
from penstock.pipeline import read
from penstock.pipeline.context import Context
from penstock.pipeline.errors import StateLimitError
from penstock.sources.market import _itch_reader
from penstock.sources.market.itch import Itch

MIDNIGHT = 1548824400 * 10**9  # 2019-01-30 00:00 in New York, UTC-5
CHRISTMAS_EVE = 1293166800 * 10**9  # 2010-12-24 00:00 in New York
HOUR = 3600 * 10**9
ABC = b"ABC     "
REAL = "ex20101224.TEST_ITCH_50.prefixed.itch"


def trades(spec: Itch, *, position: Any = None) -> tuple[list[tuple[Any, ...]], list[Any]]:
    reader = spec.open(Context("itch"), None, position)
    rows: list[tuple[Any, ...]] = []
    bad: list[Any] = []
    for block in reader.blocks():
        decoded = reader.decode(block)
        count = 0
        for batch in decoded.batches:
            batch.validate(full=True)
            times = batch.column("ts_event").cast(pa.int64())
            assert batch.column("ts_recv").cast(pa.int64()).equals(times)
            columns = [times, *batch.columns[2:]]
            rows += zip(*(column.to_pylist() for column in columns), strict=True)
            count += batch.num_rows
        assert block.records == count + len(decoded.bad) + sum(decoded.dropped.values())
        bad += decoded.bad
    reader.close()
    return rows, bad


def order(number: int, size: int = 100, price: int = 10_000, side: bytes = b"B", locate: int = 1) -> bytes:
    return message("A", locate, HOUR, number, side, size, ABC, price)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "20190130.itch"


@pytest.fixture
def day(tmp_path: Path) -> Path:
    path = tmp_path / "01302019.NASDAQ_ITCH50"
    write_market(path, messages=20_000, symbols=5)
    return path


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=order_lives(), prefixed=st.booleans(), size=st.sampled_from([1, 3, 1 << 16]))
def test_any_order_lives_give_the_trades_of_a_plain_book(
    path: Path, parts: list[bytes], prefixed: bool, size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_itch_reader, "MESSAGES", size)
        data = pack(parts, prefixed)
        path.write_bytes(data)
        rows, bad = trades(Itch(path, table="trades"))
    expected, unknown = read_trades(data, MIDNIGHT, prefixed=prefixed)
    assert rows == expected
    assert [record.seq for record in bad] == unknown
    assert [record.data for record in bad] == [parts[number] for number in unknown]


def test_every_type_of_trade_has_its_columns(path: Path) -> None:
    parts = [
        directory(1, "ABC"),
        order(7, 300, 10_100, b"S"),
        message("E", 1, HOUR, 7, 100, 21),
        message("C", 1, HOUR, 7, 100, 22, b"N", 10_050),
        message("C", 1, HOUR, 7, 50, 23, b"Y", 10_060),
        message("U", 1, HOUR, 7, 8, 40, 10_200),
        message("E", 1, HOUR, 8, 40, 24),
        message("P", 1, HOUR, 0, b"B", 5, ABC, 10_000, 25),
        message("Q", 1, HOUR, 2**40, ABC, 10_300, 26, b"C"),
        message("B", 1, HOUR, 25),
    ]
    path.write_bytes(pack(parts))
    rows, bad = trades(Itch(path, table="trades"))
    assert bad == []
    assert [(seq, chr(kind), *rest) for _, seq, _, symbol, kind, *rest in rows if symbol == "ABC"] == [
        (2, "E", 1_010_000_000, 100, -1, 21, True, None),
        (3, "C", 1_005_000_000, 100, -1, 22, False, None),
        (4, "C", 1_006_000_000, 50, -1, 23, True, None),
        (6, "E", 1_020_000_000, 40, -1, 24, True, None),
        (7, "P", 1_000_000_000, 5, 1, 25, True, None),
        (8, "Q", 1_030_000_000, 2**40, 0, 26, True, ord("C")),
        (9, "B", None, None, 0, 25, None, None),
    ]


def test_an_execution_of_an_unknown_order_is_a_bad_record_with_its_place(path: Path) -> None:
    parts = [
        order(1),
        message("E", 1, HOUR, 2, 10, 5),  # never there
        message("D", 1, HOUR, 1),
        message("E", 1, HOUR, 1, 10, 6),  # deleted
        order(3),
        message("E", 2, HOUR, 3, 10, 7),  # of another symbol
        message("X", 1, HOUR, 3, 100),
        message("C", 1, HOUR, 3, 10, 8, b"Y", 1),  # cancelled
    ]
    path.write_bytes(pack(parts))
    spec = Itch(path, table="trades")
    rows, bad = trades(spec)
    assert rows == []
    assert [record.seq for record in bad] == [1, 3, 5, 7]
    assert [record.data for record in bad] == parts[1::2]
    assert bad[0].place == f"{path}, offset {2 + 36}"
    assert [record.operation for record in bad] == ["itch.decode order executed"] * 3 + [
        "itch.decode order executed with price"
    ]
    assert all("is not in the book" in record.error for record in bad)
    assert [spec.retry(record) for record in bad] == [None] * 4


def test_an_order_with_a_wrong_side_or_time_does_not_enter_the_book(path: Path) -> None:
    parts = [
        order(1, side=b"?"),
        message("E", 1, HOUR, 1, 10, 5),
        message("A", 1, 2**48 - 1, 2, b"B", 100, ABC, 1),
        message("E", 1, HOUR, 2, 10, 6),
        order(3),
        message("D", 1, 2**48 - 1, 3),
        message("E", 1, 2**48 - 1, 3, 10, 7),
        message("E", 1, HOUR, 3, 10, 8),
    ]
    path.write_bytes(pack(parts))
    rows, bad = trades(Itch(path, table="trades"))
    assert [row[1] for row in rows] == [7]
    assert [record.seq for record in bad] == [0, 1, 2, 3, 5, 6]
    assert "the side is b'?'" in bad[0].error
    assert "not in the book" in bad[1].error
    assert all("not within a day" in bad[i].error for i in (2, 4, 5))


def test_executions_of_the_real_file_are_those_of_a_plain_book(recordings: Callable[[str], Path]) -> None:
    path = recordings("market/itch50") / REAL
    rows, bad = trades(Itch(path, table="trades"))
    expected, unknown = read_trades(path.read_bytes(), CHRISTMAS_EVE)
    assert rows == expected
    assert [record.seq for record in bad] == unknown
    assert (len(rows), len(bad)) == (5180, 18)  # the file holds 18 executions of orders that it does not hold


def test_trades_of_the_real_file_are_those_of_itch_book(recordings: Callable[[str], Path]) -> None:
    path = recordings("market/itch50") / REAL
    theirs = itch_book_trades(path, date(2010, 12, 24))
    ours, _ = trades(Itch(path, table="trades"))
    assert [(row[0], row[1], row[2], row[4], row[5], row[6], row[8]) for row in ours] == theirs


def test_trades_of_a_generated_day_are_those_of_itch_book(day: Path) -> None:
    theirs = itch_book_trades(day, date(2019, 1, 30))
    ours, bad = trades(Itch(day, table="trades"))
    assert bad == []
    printed = [row for row in ours if row[4] != ord("C") or row[9]]  # itch-book leaves out what is not printable
    assert len(theirs) > 1000
    assert [
        (row[0], row[1], row[2], row[4], row[5] or 0, row[6] or 0, row[8]) for row in printed if row[4] != ord("B")
    ] == [row for row in theirs if row[3] != ord("B")]
    assert [row[8] for row in ours if row[4] == ord("B")] == [row[6] for row in theirs if row[3] == ord("B")]


def itch_book_trades(path: Path, session: date) -> list[tuple[Any, ...]]:
    """(ts_event, seq, locate, type, price, size, match_id), with their numbers from 1 and four decimals made ours."""
    package = pytest.importorskip("itch_book", reason="itch-book is not installed")
    with package.Feed(str(path), date=session, price_type="fixed") as feed:
        parts = [batch.trades for batch in feed.batches(tables=("messages", "trades"))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return [
        (ts, seq - 1, locate, kind[0], price * 100_000, size, match)
        for ts, seq, locate, kind, price, size, match in zip(
            *(
                columns[name].tolist()
                for name in ("ts_event", "seq", "locate", "kind", "price", "size", "match_number")
            ),
            strict=True,
        )
    ]


def test_the_book_grows_and_shrinks_as_orders_come_and_go(path: Path) -> None:
    parts = []
    ids = [(i * 0x9E3779B97F4A7C15) % 2**64 for i in range(3000)] + [i << 44 for i in range(1, 3000)]
    for number, order_id in enumerate(ids):
        parts.append(order(order_id, 100, number))
        if number % 3 == 0:
            parts.append(message("E", 1, HOUR, ids[number // 3], 1, number))
        if number % 5 == 0:
            parts.append(message("D", 1, HOUR, ids[number // 2]))
    data = pack(parts)
    path.write_bytes(data)
    rows, bad = trades(Itch(path, table="trades"))
    expected, unknown = read_trades(data, MIDNIGHT)
    assert rows == expected
    assert [record.seq for record in bad] == unknown
    assert len(rows) > 1000
    assert len(bad) > 100


def test_more_orders_than_allowed_stop_with_the_option_to_change(path: Path) -> None:
    path.write_bytes(pack([order(i) for i in range(3000)]))
    assert trades(Itch(path, table="trades", max_orders=4096)) == ([], [])
    with pytest.raises(StateLimitError, match=r"more than 2,048 orders .* max_orders"):
        trades(Itch(path, table="trades", max_orders=2048))


@pytest.mark.parametrize("gz", [False, True])
def test_reading_resumes_behind_any_block_with_the_book_as_it_was(
    day: Path, gz: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_itch_reader, "MESSAGES", 701)
    monkeypatch.setattr(_itch_reader, "READ", (1 << 17) + 300)
    path = day
    if gz:
        path = day.with_suffix(".gz")
        path.write_bytes(gzip.compress(day.read_bytes(), 1))
    spec = Itch(path, table="trades")
    whole = trades(spec)[0]
    assert whole == read_trades(day.read_bytes(), MIDNIGHT)[0]
    reader = spec.open(Context("itch"))
    positions = [block.after for block in reader.blocks()]
    reader.close()
    assert len(positions) > 20
    for position in positions[:: 8 if gz else 1]:
        rows, bad = trades(spec, position=position)
        assert rows == [row for row in whole if row[1] >= position["seq"]]
        assert bad == []


def test_trades_are_one_split(day: Path) -> None:
    assert len(Itch(day).splits(3)) == 3
    assert len(Itch(day, table="trades").splits(3)) == 1


def test_trades_are_the_same_however_many_threads_decode(day: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_itch_reader, "MESSAGES", 333)
    spec = Itch(day, table="trades")
    tables = [
        pa.Table.from_batches(read(spec).iterate(**options), spec.schema)
        for options in ({"runner": "inline"}, {"runner": "local", "parallelism": 4})
    ]
    assert tables[0].num_rows > 1000
    assert tables[0].to_pylist() == tables[1].to_pylist()
