"""Raw Binance recordings: real ones against a naive reader, positions, gaps, snapshots, recognition."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from crypto_reference import Read, best, change, lines, read, reference, same_floats, snapshot
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.market.crypto import CryptoRaw, inspect_crypto_raw, is_crypto_raw, open_crypto_raw
from penstock.sources.market.itch import is_itch
from penstock.sources.text.ndjson import is_ndjson

REAL = {"binance-usdm": ("usdm_btcusdt_20240808.gz", 93_954), "binance-spot": ("spot_btcusdt_20240808.gz", 41_249)}
TABLES = ("bbo", "trade", "agg_trade", "l2")
Recordings = Callable[[str], Path]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tape"


@pytest.fixture(scope="module", params=REAL)
def real(request: pytest.FixtureRequest, recordings: Recordings) -> tuple[str, Path, int, list[str]]:
    name, messages = REAL[request.param]
    file = recordings("market/binance_ws_raw") / name
    with gzip.open(file, "rt") as stream:
        return request.param, file, messages, stream.read().splitlines()


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_a_real_recording_is_what_a_naive_reader_finds(
    real: tuple[str, Path, int, list[str]], table: str
) -> None:
    venue, file, messages, text = real
    found = Read(CryptoRaw(file, table=table), tuples=False)
    assert found.records == messages == len(text)
    assert found.bad == []
    expected = reference(text, table)
    assert sum(batch.num_rows for batch in found.batches) == len(expected)
    assert bool(expected) == (table != "agg_trade")
    got = pa.Table.from_batches(found.batches, CryptoRaw(file, table=table).schema)
    for name, values in zip(got.schema.names, zip(*expected, strict=True), strict=False):
        column = got[name].cast(pa.int64()) if name.startswith("ts_") else got[name]
        if name == "symbol":
            column = column.cast(pa.utf8())
        assert column.combine_chunks().equals(pa.array(values, column.type)), name
        if column.type == pa.float64():
            assert not np.signbit(column.to_numpy()).any()
    metadata = CryptoRaw(file, table=table).schema.metadata
    assert metadata[b"penstock.venue"].decode() == venue
    assert metadata[b"penstock.price_scale"] == b"1e-9"


@pytest.mark.parametrize("table", TABLES)
def test_the_scanner_takes_every_message_of_a_real_recording_but_the_snapshot(
    real: tuple[str, Path, int, list[str]], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.sources.market import _crypto_binance

    taken = []

    def read_binance(message: Any, decimals: int) -> Any:
        taken.append(sorted(message)[-1])
        return original(message, decimals)

    original = _crypto_binance.read_binance
    monkeypatch.setattr(_crypto_binance, "read_binance", read_binance)
    Read(CryptoRaw(real[1], table=table), tuples=False)
    assert taken == ["lastUpdateId"]


def test_rows_are_the_same_in_one_thread_and_in_many(path: Path) -> None:
    from penstock.pipeline import read as read_stream

    path.write_bytes(lines(*(change(i, i, symbol=f"S{i % 7}") for i in range(3_000))))
    spec = CryptoRaw(path, table="l2", block_bytes=4_096)
    one = pa.Table.from_batches(read_stream(spec).iterate(runner="inline"))
    many = pa.Table.from_batches(read_stream(spec).iterate(runner="local", parallelism=4))
    assert one.num_rows == 9_000 and one.unify_dictionaries().equals(many.unify_dictionaries())


def test_a_real_recording_is_described(real: tuple[str, Path, int, list[str]]) -> None:
    venue, file, messages, text = real
    found = inspect_crypto_raw(str(file))
    assert found["venue"] == venue and found["messages"] == messages == sum(found["types"].values())
    assert found["bad"] == 0 and found["gaps"] == {} and found["out_of_order"] == 0 and found["error"] is None
    assert found["symbols"] == {"BTCUSDT": messages}
    stamps = [int(line.split(" ", 1)[0]) for line in text]
    assert (found["time"]["start_ns"], found["time"]["end_ns"]) == (stamps[0], stamps[-1])
    differences = []
    for line, stamp in zip(text, stamps, strict=True):
        message = json.loads(line.split(" ", 1)[1])
        inner = message.get("data")
        if inner is not None and ("T" in inner or "E" in inner):
            differences.append(inner.get("T", inner.get("E")) * 1_000_000 - stamp)
    assert found["clock_difference_ns"]["least"] == min(differences)
    assert found["clock_difference_ns"]["most"] == max(differences)
    assert abs(found["clock_difference_ns"]["median"] - np.median(differences)) < 1_000_000
    assert 1.215e9 < found["clock_difference_ns"]["median"] < 1.277e9


def test_rows_do_not_depend_on_block_sizes_and_every_position_resumes(
    real: tuple[str, Path, int, list[str]], tmp_path: Path
) -> None:
    _, _, _, text = real
    part = tmp_path / "part"
    part.write_text("\n".join(text[:1500]) + "\n")
    for table in ("bbo", "l2"):
        whole = Read(CryptoRaw(part, table=table))
        spec = CryptoRaw(part, table=table, block_bytes=20_000)
        pieces = Read(spec)
        assert len(pieces.after) > 10
        assert same_floats(whole.rows, pieces.rows) and whole.bad == pieces.bad
        for position, done in zip(pieces.after[::7], pieces.rows_after[::7], strict=True):
            rest = Read(spec, position)
            assert same_floats(rest.rows, pieces.rows[done:])


def test_every_block_of_a_recording_with_gaps_resumes_with_the_same_rows_and_gaps(path: Path) -> None:
    messages: list[Any] = [snapshot(10)]
    for number in range(11, 60):
        if number not in (20, 21, 40):
            messages += [change(number, number, symbol="A" if number % 2 else "B")]
    messages[5:5] = [snapshot(12)]
    path.write_bytes(lines(*messages))
    spec = CryptoRaw(path, table="l2", venue="binance-spot", symbol="A", block_bytes=300)
    whole = Read(spec)
    assert whole.gaps
    for position, done in zip(whole.after, whole.rows_after, strict=True):
        rest = Read(spec, position)
        assert same_floats(rest.rows, whole.rows[done:])
        assert rest.bad == [bad for bad in whole.bad if bad.seq is not None and bad.seq >= position["seq"]]


def test_symbols_are_numbered_by_first_appearance_and_batches_share_the_dictionary(path: Path) -> None:
    names = ["ETHUSDT", "BTCUSDT", "币安人生USDT", "ETHUSDT", "A\\u0042C", '1000PEPE"X']
    data = lines(*(json.dumps(best(i, name), ensure_ascii=False) for i, name in enumerate(names * 40)))
    found = read(path, data, block_bytes=1_000)
    assert [row[3] for row in found.rows] == names * 40
    dictionary = list(dict.fromkeys(names))
    assert found.batches[-1]["symbol"].dictionary.to_pylist() == dictionary
    for batch in found.batches:
        shown = batch["symbol"].dictionary.to_pylist()
        assert shown == dictionary[: len(shown)]
    late = [batch["symbol"].dictionary for batch in found.batches[-3:]]
    assert late[0].buffers()[2].address == late[-1].buffers()[2].address


def test_many_symbols(path: Path) -> None:
    names = [f"S{i}USDT" for i in range(3_000)]
    found = read(path, lines(*(best(i, name) for i, name in enumerate(names + names))))
    assert [row[3] for row in found.rows] == names + names
    assert found.batches[-1]["symbol"].dictionary.to_pylist() == names


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([change(1, 5), change(6, 6), change(9, 12)], "2 updates, 7 to 8, are missing"),
        ([change(1, 5, 0), change(7, 9, 5), change(14, 20, 11)], "the changes behind 9 up to 11 are missing"),
        ([snapshot(10), change(12, 14)], "1 updates, 11 to 11, are missing"),
    ],
)
def test_a_gap_is_seen_in_the_message_behind_it_and_its_rows_stay(path: Path, messages: list[Any], word: str) -> None:
    data = lines(*messages)
    found = read(path, data, table="l2", symbol="BTCUSDT")
    (gap,) = found.gaps
    assert gap.error == f"gap in depth of BTCUSDT: {word}; book is out of step until the next snapshot"
    assert gap.data == data.splitlines()[-1] and gap.seq == len(messages) - 1
    offset = data.rindex(gap.data)
    assert gap.place == f"tape, line {len(messages)}, byte {offset}"
    assert same_floats(found.rows, reference(data.decode().splitlines(), "l2"))
    assert inspect_crypto_raw(path)["gaps"] == {"BTCUSDT": 1}


def test_a_snapshot_mends_a_book_and_one_that_is_too_old_does_not(path: Path) -> None:
    gone = [change(1, 5), snapshot(3), change(6, 7), change(10, 12)]
    found = read(path, lines(*gone, snapshot(8), change(13, 14)), table="l2")
    assert [bad.error.split(":")[0] for bad in found.bad] == [
        "gap in depth of BTCUSDT",
        "snapshot of BTCUSDT is of no use",
    ]
    found = read(path, lines(*gone, snapshot(9), change(13, 14)), table="l2")
    assert [bad.error.split(":")[0] for bad in found.bad] == ["gap in depth of BTCUSDT"]


def test_books_of_several_symbols_are_told_apart(path: Path) -> None:
    found = read(
        path,
        lines(change(1, 2, symbol="A"), change(7, 8, symbol="B"), change(3, 4, symbol="A"), change(9, 9, symbol="B")),
        table="l2",
    )
    assert found.bad == []


def test_partial_books_are_snapshots_and_no_gaps(path: Path) -> None:
    futures = [{"stream": "btcusdt@depth20@100ms", "data": change(i * 10, i * 10 + 2, i * 10 - 7)} for i in range(1, 4)]
    found = read(path, lines(*futures), table="l2")
    assert found.bad == [] and len(found.rows) == 9 and all(row[10] for row in found.rows)
    spot = [{"stream": "btcusdt@depth5", "data": snapshot(i * 10)} for i in range(3)]
    found = read(path, lines(*spot), table="l2")
    assert found.bad == [] and all(row[10] and row[3] == "BTCUSDT" for row in found.rows)


def test_a_snapshot_without_a_symbol_belongs_to_the_only_book(path: Path) -> None:
    assert {row[3] for row in read(path, lines(snapshot(5), change(6, 6, symbol="ABC")), table="l2").rows} == {"ABC"}
    found = read(path, lines(change(6, 6, symbol="A"), change(6, 6, symbol="B"), snapshot(5)), table="l2")
    assert ["symbol=" in bad.error for bad in found.bad] == [True]
    found = read(path, lines(change(6, 6, symbol="A"), change(6, 6, symbol="B"), snapshot(5)), table="l2", symbol="B")
    assert [row[3] for row in found.rows][-1] == "B" and found.bad == []


def test_spot_best_prices_have_the_receive_time_and_the_schema_says_so(path: Path) -> None:
    found = read(path, lines(best(1)))
    assert found.rows[0][0] == found.rows[0][1] == 1723161255030314667
    assert CryptoRaw(path).schema.metadata[b"penstock.event_time"] == b"ts_recv"
    assert CryptoRaw(path, table="trade").schema.metadata[b"penstock.event_time"] == b"venue"


def test_aggregated_trades_and_old_spot_trades(path: Path) -> None:
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
    old = {
        "e": "trade",
        "E": 5,
        "s": "X",
        "t": 9,
        "p": "0.5",
        "q": "1e3",
        "b": 88,
        "a": 50,
        "T": 4,
        "m": True,
        "M": True,
    }
    assert [row[4:] for row in read(path, lines(agg, old), table="agg_trade").rows] == [(1_000_000, 100.0, 1, 7)]
    assert [row[4:] for row in read(path, lines(agg, old), table="trade").rows] == [(500_000_000, 1000.0, -1, 9)]


def test_microsecond_times_are_recognised(path: Path) -> None:
    found = read(
        path, lines({**best(1), "e": "bookTicker", "T": 1723161256313001, "E": 1723161256314}), venue="binance-usdm"
    )
    assert found.rows[0][0] == 1723161256313001000


@pytest.mark.parametrize(
    ("text", "decimals", "expected"),
    [
        ("0.000000001", 9, 1), ("9223372036.854775807", 9, 2**63 - 1), ("9223372036.854775808", 9, None),
        ("-1.5", 9, -1500000000),
        ("0.0000000001", 9, None), ("0.0000000001", 12, 100), ("1.10000000000000000000000", 9, 1100000000),
        ("1e3", 9, 10**12),
        ("007.5", 9, 7500000000), ("5.", 9, None), (".5", 9, None), ("", 9, None), ("0", 0, 0), ("12", 0, 12),
        ("1.5", 0, None),
        ("1e400", 9, None), ("0e999", 9, 0), ("12345678901234567890", 0, None), ("NaN", 9, None), ("1.0", 18, 10**18),
        ("10", 18, None),
    ],
)  # fmt: skip
def test_prices_are_exact_or_bad(path: Path, text: str, decimals: int, expected: int | None) -> None:
    found = read(path, lines({**best(1), "b": text, "a": "1"}), price_decimals=decimals, venue="binance-spot")
    assert [row[4] for row in found.rows] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1", 0.1), ("123456789.12345678", 123456789.12345678), ("99999999999999999999", 1e20), ("1e-7", 1e-7), ("-1", None),
     ("0.00000000", 0.0), ("-0.0", 0.0), ("9007199254740993", 9007199254740992.0),
     ("1234567890123456.789", 1234567890123456.789)],
)  # fmt: skip
def test_sizes_are_the_nearest_float(path: Path, text: str, expected: float | None) -> None:
    rows = read(path, lines({**best(1), "B": text})).rows
    assert [row[5] for row in rows] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b'{"u":1}', "receive time"), (b"12 ", "receive time"), (b"12 {", "truncated"),
        (b"99999999999999999999 {}", "receive time"),
        (b"9999999999999999999 {}", "2262"), (b"12 5", "no JSON object"), (b'12 {"e":"trade","s":"X"}', "is missing"),
        (b'12 {"e":"trade","s":"","t":1,"p":"1","q":"1","T":1,"m":true}', "no name"),
        (b'12 {"e":"trade","s":"X","t":-1,"p":"1","q":"1","T":1,"m":true}', "2**64"),
        (b'12 {"e":"trade","s":"X","t":1,"p":"1","q":"1","T":1,"m":1}', "neither true nor false"),
        (b'12 {"e":"trade","s":"X","t":1,"p":"1","q":"1","m":true}', "'T' and 'E' are missing"),
        (b'12 {"e":"depthUpdate","s":"X","U":1,"u":2,"T":1,"b":[["1"]],"a":[]}', "no level"),
        (b"\xff\xfe", "receive time"), (b'12 {"e":"\xff"}', "utf-8"), (b"12 " + b"[" * 100_000, "deep"),
    ],
)  # fmt: skip
def test_a_bad_line_costs_itself_alone(path: Path, line: bytes, word: str) -> None:
    data = lines(best(1)) + line + b"\n" + lines(best(2))
    for table in TABLES:
        found = read(path, data, table=table, venue="binance-spot")
        (bad,) = found.bad
        assert word in bad.error and "\n" not in bad.error
        assert bad.data == line and bad.seq == 1 and bad.operation == "crypto.decode"
        assert bad.place == f"tape, line 2, byte {len(lines(best(1)))}"
        assert len(found.rows) == (2 if table == "bbo" else 0)


def test_a_cut_last_line_and_a_damaged_gzip_say_so(path: Path) -> None:
    data = lines(*(best(i) for i in range(500)))
    found = read(path, data[:-20])
    assert len(found.rows) == 499 and found.bad[0].error.startswith("the recording ends inside this line")
    packed = gzip.compress(data, mtime=0)
    found = read(path, packed[: len(packed) // 2])
    assert found.bad[-1].operation == "crypto.unpack" and 0 < len(found.rows) < 500
    assert inspect_crypto_raw(path)["error"]


def test_lines_that_are_too_long_blank_lines_carriage_returns_and_a_byte_order_mark(path: Path) -> None:
    data = (
        b"\xef\xbb\xbf"
        + lines(best(1)).replace(b"\n", b"\r\n")
        + b"\n \t\r\n"
        + b"5 "
        + b"x" * 2_000
        + b"\n  "
        + lines(best(2))
    )
    found = read(path, data, max_line=500, block_bytes=256)
    assert [row[2] for row in found.rows] == [0, 2]
    (bad,) = found.bad
    assert bad.operation == "crypto.frame" and bad.place.startswith("tape, line 4,") and bad.seq == 1


def test_what_was_put_aside_can_be_tried_again(path: Path) -> None:
    found = read(path, lines(best(1)) + b"12 {\n" + lines(change(5, 6), change(9, 9)), table="l2")
    spec = CryptoRaw(path, table="l2")
    bad, gap = found.bad
    assert spec.retry(gap) is None
    again = spec.retry(bad)
    assert again is not None and [record.error for record in again.bad] and not again.batches
    good = type(bad)(bad.place, bad.operation, bad.error, lines(change(5, 6)).strip(), 7)
    again = spec.retry(good)
    assert again is not None and again.batches[0]["seq"].to_pylist() == [7, 7, 7] and not again.bad


def test_recordings_are_recognised_by_content(path: Path) -> None:
    wrapped = {
        "stream": "x@trade",
        "data": {"e": "trade", "E": 1, "T": 1, "s": "BTCUSD_PERP", "t": 1, "p": "1", "q": "1", "m": True},
    }
    cases = [
        (best(1), "binance-spot"),
        (change(1, 2), "binance-spot"),
        (change(1, 2, 0), "binance-usdm"),
        (wrapped, "binance-coinm"),
    ]
    for message, venue in cases:
        data = lines({"result": None, "id": 1}, message)
        assert is_crypto_raw(data) and not is_ndjson(data) and not is_itch(data)
        path.write_bytes(data)
        assert CryptoRaw(path).schema.metadata[b"penstock.venue"].decode() == venue
    huge = lines({"lastUpdateId": 5, "bids": [["1.5", "2"]] * 10_000, "asks": []})
    assert is_crypto_raw(huge[: 1 << 16])
    for other in (
        b"",
        b"{}\n",
        lines(best(1))[20:],
        b"123 abc\n",
        b"\0" * 100,
        b"12 {}\n",
        b"1,2,3\n",
        gzip.compress(huge),
    ):
        assert not is_crypto_raw(other)


def test_wrong_arguments_and_foreign_files_are_refused(path: Path) -> None:
    for options in (
        {"table": "l4"},
        {"venue": "ftx"},
        {"symbol": ""},
        {"price_decimals": 19},
        {"max_line": 3},
        {"block_bytes": 0},
    ):
        with pytest.raises((GraphError, ValueError)):
            CryptoRaw(path, **options)
    for data in (b"", b"\n\n", gzip.compress(b""), b"{}\n", b"\x89MCAP0\r\n" * 9):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="tape"):
            CryptoRaw(path).open(Context("x"))
        with pytest.raises(FormatError):
            inspect_crypto_raw(path)
    with pytest.raises(OSError, match="absent"):
        CryptoRaw(path.with_name("absent")).open(Context("x"))


def test_a_spec_pickles_and_opens_urls_and_packed_files(path: Path, tmp_path: Path) -> None:
    import bz2
    import lzma

    data = lines(*(best(i) for i in range(50)))
    rows = read(path, data).rows
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        assert read(path, pack(data)).rows == rows
    spec = pickle.loads(pickle.dumps(open_crypto_raw(path, table="bbo")))
    assert spec == CryptoRaw(path) and spec.name == "tape:bbo"
    assert Read(CryptoRaw(f"file://{path}")).rows == rows
    import fsspec

    with fsspec.open("memory://tape", "wb") as stream:
        stream.write(data)
    assert Read(CryptoRaw("memory://tape")).rows == rows


def test_a_message_with_more_levels_than_a_batch_holds(path: Path) -> None:
    long = change(1, 2, b=[[f"{i}", "1"] for i in range(50_000)], a=[])
    found = read(path, lines(change(0, 0), long, snapshot(5), change(3, 3)), table="l2", block_bytes=100)
    assert len(found.rows) == 3 + 50_000 + 2 + 3
    assert [row[5] for row in found.rows[3:50_003]] == [i * 10**9 for i in range(50_000)]
    assert sum(row[11] for row in found.rows) == 4


def test_schema_is_that_of_the_format_notes(path: Path) -> None:
    l2 = CryptoRaw(path, "binance-usdm", "l2").schema
    assert [(f.name, f.type) for f in l2][3:] == [
        ("symbol", pa.dictionary(pa.int32(), pa.utf8())), ("side", pa.int8()), ("price", pa.int64()), ("size", pa.float64()),
        ("first_id", pa.uint64()), ("last_id", pa.uint64()), ("prev_id", pa.uint64()), ("is_snapshot", pa.bool_()),
        ("last_in_event", pa.bool_()),
    ]  # fmt: skip
