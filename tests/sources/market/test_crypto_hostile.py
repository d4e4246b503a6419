"""The scanner and the general path give the same rows for any line; damaged recordings lose nothing unseen."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from crypto_reference import best, change, lines, read, rows_of, same_floats, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.pipeline.memory import BufferPool
from penstock.sources.market._crypto_binance import read_binance
from penstock.sources.market._crypto_decode import Layout, LineDecoder, Made
from penstock.sources.market._crypto_tables import TABLES, crypto_schema
from penstock.sources.market.crypto import CryptoRaw, inspect_crypto_raw, is_crypto_raw
from penstock.sources.text._line_framer import text_of

POOL = BufferPool()


def refuse(message: Any, decimals: int) -> Any:
    raise AssertionError(f"the general path was asked for {message}")


def decode(data: bytes, table: str, *, fast: bool, general: Any = read_binance) -> Made:
    """Lines through a decoder, with or without the scanner."""
    schema = crypto_schema(table, "tape", "binance-usdm", 9)
    layout = Layout(general, fast, table, schema, 9, None, "FIRST", "tape")
    records = sum(1 for line in data.split(b"\n") if line.strip(b" \t\r"))
    return LineDecoder(layout, POOL).decode(text_of(data, POOL, offset=1000, line=7, seq=30, records=records))


def check_equal(data: bytes) -> None:
    for table in TABLES:
        one, other = (decode(data, table, fast=fast) for fast in (True, False))
        assert same_floats(rows_of(one.batches), rows_of(other.batches)), table
        assert one.bad == other.bad and one.dropped == other.dropped
        names = [[batch["symbol"].dictionary.to_pylist() for batch in made.batches[-1:]] for made in (one, other)]
        assert names[0] == names[1]


digits = st.from_regex(r"[0-9]{0,12}(\.[0-9]{0,10})?", fullmatch=True)
decimals = st.one_of(
    st.decimals(0, 10**6, places=4).map(str),
    st.decimals(0, 10**6, places=8).map(str),
    digits,
    st.sampled_from(
        ["", "-1.5", "1e5", "0", "00.10", "1.", ".1", "9223372036.854775808", "99999999999999999999", "NaN", "1,5"]
    ),
)
numbers = st.one_of(
    st.integers(0, 10**13), st.sampled_from([0, 10**15, 2**63, 2**64, -1, 1.5, "7", None, True, 10**30])
)
names = st.sampled_from(["BTCUSDT", "ETHUSDT", "", "币安", 'A"B', "A\\B", "x" * 64, "x" * 65, "\u0001"])
level_lists = st.lists(
    st.lists(decimals, min_size=2, max_size=2) | st.just(["1"]) | st.just(["1", "2", "3"]), max_size=4
)
odd = st.one_of(numbers, decimals, names, st.booleans(), st.just([]), st.just({}), level_lists)
extra = st.dictionaries(
    st.sampled_from(
        ["X", "M", "nq", "ps", "st", "f", "l", "e", "pu", "T", "E", "weird", "data", "stream", "symbol", "\\", ""]
    ),
    odd,
    max_size=3,
)


@st.composite
def messages(draw: st.DrawFn) -> Any:
    kind = draw(
        st.sampled_from(["bookTicker", "best", "trade", "aggTrade", "depthUpdate", "depthUpdate", "snapshot", "kline"])
    )
    message: dict[str, Any] = {"e": kind, "E": draw(numbers), "T": draw(numbers), "s": draw(names)}
    if kind in ("bookTicker", "best"):
        message |= {
            "u": draw(numbers),
            "b": draw(decimals),
            "B": draw(decimals),
            "a": draw(decimals),
            "A": draw(decimals),
        }
        if kind == "best":
            del message["e"]
    elif kind in ("trade", "aggTrade"):
        message |= {
            "t": draw(numbers),
            "a": draw(numbers),
            "p": draw(decimals),
            "q": draw(decimals),
            "m": draw(st.booleans()),
        }
    elif kind == "depthUpdate":
        first = draw(st.integers(0, 50))
        message |= {"U": first, "u": first + draw(st.integers(0, 5)), "b": draw(level_lists), "a": draw(level_lists)}
        if draw(st.booleans()):
            message["pu"] = draw(st.integers(0, 55))
    elif kind == "snapshot":
        message = {"lastUpdateId": draw(st.integers(0, 60)), "bids": draw(level_lists), "asks": draw(level_lists)}
    for key in draw(st.sets(st.sampled_from(sorted(message)), max_size=1)) if draw(st.integers(0, 5)) == 0 else ():
        del message[key]
    if draw(st.integers(0, 4)) == 0:
        message |= draw(extra)
    if draw(st.integers(0, 3)) == 0:
        message = dict(draw(st.permutations(list(message.items()))))
    if draw(st.booleans()):
        return {
            "stream": draw(st.sampled_from(["btcusdt@depth@100ms", "x@depth20", "x", "a\\b", "@depth5@0ms"])),
            "data": message,
        }
    return message


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    parts = []
    for message in draw(st.lists(messages(), min_size=1, max_size=6)):
        how = draw(st.integers(0, 9))
        text = json.dumps(message, separators=(", ", ": ") if how == 0 else (",", ":"), ensure_ascii=how != 1)
        if how == 2 and len(text) > 4:  # the same key twice
            text = text[:-1] + "," + text[1:]
        stamp = draw(
            st.sampled_from(["1723161255030314667", "1723161255030314668", "9223372036854775808", "12", " 5", "x"])
        )
        gap = draw(st.sampled_from([" ", " ", " ", "  ", "\t", ""]))
        tail = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", " \n", "\n\n", "\n \n", "x\n", "}\n"]))
        parts.append(f"{stamp}{gap}{text}{tail}".encode())
    data = b"".join(parts)
    return data[: -draw(st.integers(0, 3))] if draw(st.integers(0, 9)) == 0 and len(data) > 5 else data


@settings(max_examples=120)
@given(texts())
def test_the_scanner_and_the_general_path_give_the_same_rows(data: bytes) -> None:
    check_equal(data)


def test_messages_with_new_keys_in_any_order_stay_with_the_scanner() -> None:
    more = {"newKey": "text", "x": 5, "nq": "1.5", "flag": True, "rpi": False}
    data = lines({**more, **best(1)}, {**best(2), **more}, dict(reversed(list(best(3).items()))))
    assert len(rows_of(decode(data, "bbo", fast=True, general=refuse).batches)) == 3
    data = lines({**more, **change(1, 2)}, {"stream": "x@depth@100ms", "data": {**change(3, 4, 2), **more}})
    assert len(rows_of(decode(data, "l2", fast=True, general=refuse).batches)) == 6


@pytest.mark.nightly
@settings(max_examples=10_000)
@given(texts())
def test_the_scanner_and_the_general_path_give_the_same_rows_at_length(data: bytes) -> None:
    check_equal(data)


def sample() -> bytes:
    wrapped = {
        "stream": "btcusdt@trade",
        "data": {"e": "trade", "E": 9, "T": 8, "s": "BTCUSDT", "t": 1, "p": "1.5", "q": "2", "m": True},
    }
    agg = {
        "e": "aggTrade",
        "E": 5,
        "s": "X",
        "a": 7,
        "p": "0.001",
        "q": "100",
        "f": 1,
        "l": 2,
        "T": 4,
        "m": False,
        "M": True,
    }
    depth = {"stream": "btcusdt@depth@0ms", "data": change(7, 9, 6)}
    return lines(
        best(1), change(1, 5, 0), snapshot(3), wrapped, change(6, 6, 5), agg, depth, {"result": None, "id": 1}, best(2)
    )


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, splice, repeat, or lie in a number."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        kind = chance.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[at : at + chance.randint(1, 40)]
        elif kind == 2:
            start = chance.randrange(len(data))
            found[at:at] = data[start : start + chance.randint(1, 200)]
        elif kind == 3:
            found[at:at] = chance.choice(
                [b"\n", b'"', b"\\", b"\0", b"[[[[", b"}}", b"9" * 30, b"\xff\xfe", b"-", b"e9"]
            )
        elif kind == 4:
            del found[at:]
        else:
            place = found.find(chance.choice(b"0123456789"), at)
            if place >= 0:
                found[place : place + 1] = str(chance.randrange(10**12)).encode()
    return bytes(found)


def attack(path: Path, seeds: range) -> None:
    data = sample()
    for seed in seeds:
        broken = mutate(data, random.Random(seed))
        check_equal(broken)
        path.write_bytes(broken)
        is_crypto_raw(broken)
        table = list(TABLES)[seed % 4]
        try:
            small = read(path, venue="binance-usdm", table=table, block_bytes=64 + seed % 500, max_line=400)
            whole = read(path, venue="binance-usdm", table=table, max_line=400)
        except FormatError:
            assert not broken.strip()
            continue
        assert small.records == whole.records and same_floats(small.rows, whole.rows) and small.bad == whole.bad
        text = broken.removeprefix(b"\xef\xbb\xbf")
        assert whole.records == sum(1 for line in text.split(b"\n") if line.strip(b" \t\r"))
        for record in whole.bad:
            place = int(record.place.rsplit("byte ", 1)[1])
            assert broken[place : place + len(record.data)] == record.data
            assert CryptoRaw(path, "binance-usdm", table).retry(record) is None or record.operation == "crypto.decode"
        try:
            inspect_crypto_raw(path)
        except FormatError:
            assert not is_crypto_raw(broken)


def test_damaged_recordings_lose_nothing_unseen(tmp_path: Path) -> None:
    attack(tmp_path / "tape", range(300))


@pytest.mark.nightly
def test_damaged_recordings_lose_nothing_unseen_at_length(tmp_path: Path) -> None:
    attack(tmp_path / "tape", range(300, 10_300))


def test_a_hostile_number_of_symbols_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.sources.market import _crypto_rows

    monkeypatch.setattr(_crypto_rows, "MOST_SYMBOLS", 100)
    found = read(tmp_path / "tape", lines(*(best(i, f"S{i}") for i in range(120)), best(1, "S5")))
    assert len(found.rows) == 101 and len(found.bad) == 20 and "at most" in found.bad[0].error


def test_reading_takes_no_more_memory_than_the_bound_says(tmp_path: Path) -> None:
    path = tmp_path / "tape"
    path.write_bytes(lines(*(change(i, i, b=[["1", "1"]] * 2_000, a=[]) for i in range(1, 40))))
    spec = CryptoRaw(path, table="l2", block_bytes=1 << 16, max_line=1 << 17)
    reader = spec.open(Context("x"))
    for block in reader.blocks():
        assert block.nbytes + sum(batch.nbytes for batch in reader.decode(block).batches) <= spec.block_bound
