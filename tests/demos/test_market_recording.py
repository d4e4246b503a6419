"""The made-up trading day is true ITCH, has full order lives, and is the same every time."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_reference import NaiveBooks, lengths, messages, read
from penstock.demos import market_recording
from penstock.demos.market_recording import symbol_name, write_market

DIGEST = "0ac266fb9c3346c7c98fb33df5733e85a4b936a5d2c38c56d8679c5e276b898a"


def check_day(data: bytes, prefixed: bool) -> Counter[str]:
    """Sound messages in order of time, orders that live and die, books that do not cross; returns messages by type."""
    counts: Counter[str] = Counter()
    clock = 0
    for body in messages(data, prefixed):
        counts[chr(body[0])] += 1
        assert len(body) == lengths[chr(body[0])]
        time = int.from_bytes(body[5:11], "big")
        assert time >= clock
        clock = time
    books = NaiveBooks()
    for row in read(data, 0, prefixed=prefixed):
        kind, order, size = chr(row[4]), row[6], row[9]
        assert not row[3].startswith("?")
        if kind in "ECX":
            assert 0 < size <= books.orders[order][3]
        if kind == "X":
            assert size < books.orders[order][3]
        top = books.apply(row)
        assert (top is None) == (kind == "B")
        if top is not None and top[1] and top[3]:
            assert top[0] < top[2]
    assert books.orders == {}
    return counts


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_day_holds_full_order_lives_and_says_what_it_holds(tmp_path: Path, prefixed: bool) -> None:
    path = tmp_path / "01302019.NASDAQ_ITCH50"
    report = write_market(path, messages=20_000, symbols=4, prefixed=prefixed)
    data = path.read_bytes()
    counts = check_day(data, prefixed)
    assert sum(counts.values()) == report["messages"] == 20_000
    assert dict(sorted(counts.items())) == report["counts"]
    assert set(counts) == set("SRHYLAFECXDUPQBI")
    assert report["bytes"] == len(data)
    assert report["orders"] == counts["A"] + counts["F"]
    assert report["symbols"] == ["PAAA", "PAAB", "PAAC", "PAAD"]
    traded = [row for row in read(data, 0, prefixed=prefixed) if chr(row[4]) in "EC"]
    assert report["shares"] == sum(row[9] for row in traded)


def test_executions_take_the_best_price_and_the_oldest_order(tmp_path: Path) -> None:
    write_market(tmp_path / "day", messages=5_000, symbols=2)
    books, seen = NaiveBooks(), 0
    for row in read((tmp_path / "day").read_bytes(), 0):
        if chr(row[4]) in "EC":
            locate, side, price, _ = books.orders[row[6]]
            same = {i: o for i, o in books.orders.items() if o[:2] == [locate, side]}
            assert price == (max if side > 0 else min)(o[2] for o in same.values())
            assert row[6] == min(i for i, o in same.items() if o[2] == price)
            seen += 1
        books.apply(row)
    assert seen > 300


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.integers(100, 900), symbols=st.integers(1, 11), seed=st.integers(0, 2**32))
def test_any_short_day_is_sound(tmp_path: Path, messages: int, symbols: int, seed: int) -> None:
    path = tmp_path / "day"
    write_market(path, messages=messages, symbols=symbols, seed=seed)
    assert sum(check_day(path.read_bytes(), True).values()) == messages


def test_the_same_arguments_give_the_same_bytes_on_any_machine(tmp_path: Path) -> None:
    path = tmp_path / "day"
    digests = []
    for arguments in ({}, {}, {"seed": 1}, {"symbols": 3}):
        write_market(path, **({"messages": 70_000, "symbols": 5} | arguments))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert digests[0] == DIGEST


def test_gzip_holds_the_same_day_and_the_same_bytes(tmp_path: Path) -> None:
    first, second, plain = tmp_path / "a.gz", tmp_path / "b.gz", tmp_path / "c"
    for path, gz in ((first, True), (second, True), (plain, False)):
        write_market(path, messages=3_000, gz=gz)
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()) == plain.read_bytes()


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(market_recording._Day, "_cross", fail)
    with pytest.raises(OSError, match="disk full"):
        write_market(tmp_path / "day", messages=3_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"messages": 69}, {"symbols": 0}, {"symbols": 10_001}])
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"messages=69 is too few: .* 70|symbols=\d+ is outside 1 to 10000"):
        write_market(tmp_path / "day", **arguments)


def test_symbol_names_are_distinct() -> None:
    assert len({symbol_name(i) for i in range(10_000)}) == 10_000
