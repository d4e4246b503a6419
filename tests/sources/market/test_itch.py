"""ITCH 5.0 to columns: every value against a plain reading and against other people's packages."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import itch_reference as reference
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_reference import any_message, columns, directory, message, pack, read
from penstock.demos.market_recording import write_market
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.sources.market import _itch_reader
from penstock.sources.market.itch import Itch, inspect_itch, is_itch
from penstock.sources.storage import unpack

MIDNIGHT_2019 = 1548824400 * 10**9  # 2019-01-30 00:00 in New York, UTC-5
REAL = ("ex20101224.TEST_ITCH_50", "ex20101224.TEST_ITCH_50.prefixed.itch")


def rows(spec: Itch, *, split: Any = None, position: Any = None) -> tuple[list[Any], list[Any], dict[str, int]]:
    reader = spec.open(Context("itch"), split, position)
    batches, bad, dropped = [], [], {}
    expected = None
    for block in reader.blocks():
        assert expected in (None, block.first_seq)
        expected = block.first_seq + block.records
        decoded = reader.decode(block)
        batches += decoded.batches
        bad += decoded.bad
        for reason, count in decoded.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        assert block.records == sum(b.num_rows for b in decoded.batches) + len(decoded.bad) + sum(
            decoded.dropped.values()
        )
    reader.close()
    for batch in batches:
        batch.validate(full=True)
    return columns(batches, spec.schema), bad, dropped


@pytest.fixture
def day(tmp_path: Path) -> Path:
    path = tmp_path / "01302019.NASDAQ_ITCH50"
    write_market(path, messages=20_000, symbols=5)
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_itch_reader, "MESSAGES", 701)
    monkeypatch.setattr(_itch_reader, "READ", (1 << 17) + 300)


@pytest.mark.parametrize("name", REAL)
def test_every_value_of_the_real_files_is_that_of_a_plain_reading(recordings: Callable[[str], Path], name: str) -> None:
    path = recordings("market/itch50") / name
    got, bad, dropped = rows(Itch(path))
    midnight = 1293166800 * 10**9  # 2010-12-24 00:00 in New York
    assert got == read(path.read_bytes(), midnight, prefixed="prefixed" in name)
    assert (len(got), bad) == (12_000, [])
    assert dropped == {"not in market.l3: S": 6, "not in market.l3: R": 3, "not in market.l3: H": 3}


def test_every_value_of_the_real_file_is_that_of_itchfeed(recordings: Callable[[str], Path]) -> None:
    parser = pytest.importorskip("itch.parser", reason="itchfeed is not installed").MessageParser()
    path = recordings("market/itch50") / REAL[1]
    got, _, _ = rows(Itch(path))
    expected = []
    with path.open("rb") as file:
        for seq, item in enumerate(parser.parse_file(file)):
            kind = item.message_type.decode()
            if kind in "SRH":
                continue
            way = getattr(item, "buy_sell_indicator", b"")
            expected.append(
                (
                    1293166800 * 10**9 + item.timestamp,
                    seq,
                    item.stock_locate,
                    ord(kind),
                    {b"B": 1, b"S": -1}.get(way, 0),
                    getattr(item, "order_reference_number", 0),
                    getattr(item, "new_order_reference_number", 0),
                    getattr(item, "price", 0) * 100_000,
                    getattr(item, "shares", 0)
                    or getattr(item, "executed_shares", 0)
                    or getattr(item, "cancelled_shares", 0),
                    getattr(item, "match_number", 0),
                )
            )
    assert len(expected) == 12_000
    assert [(*row[:3], *row[4:-1]) for row in got] == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(any_message(), min_size=1, max_size=12), prefixed=st.booleans(), gz=st.booleans())
def test_any_messages_decode_as_a_plain_reading_says(
    tmp_path: Path, parts: list[bytes], prefixed: bool, gz: bool
) -> None:
    data = pack(parts, prefixed)
    path = tmp_path / "20190130.itch"
    path.write_bytes(gzip.compress(data, 1) if gz else data)
    got, bad, _ = rows(Itch(path))
    assert bad == []
    assert got == read(data, MIDNIGHT_2019, prefixed=prefixed)


def test_block_size_does_not_change_rows(day: Path, small_blocks: None) -> None:
    assert rows(Itch(day))[0] == read(day.read_bytes(), MIDNIGHT_2019)


def test_a_name_given_in_mid_file_holds_from_there_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    for i in range(200):
        parts.append(message("D", i % 50, i, i))
        if i % 3 == 0:
            parts.append(directory(i % 50 + i % 2, f"S{i % 50 + i % 2}"))
    path = tmp_path / "20190130.itch"
    path.write_bytes(pack(parts))
    expected = read(path.read_bytes(), MIDNIGHT_2019)
    assert {"?2", "S2"} <= {row[3] for row in expected}
    for size in (1 << 16, 1, 7):
        monkeypatch.setattr(_itch_reader, "MESSAGES", size)
        assert rows(Itch(path))[0] == expected


def test_reading_resumes_behind_any_block(day: Path, small_blocks: None) -> None:
    spec = Itch(day)
    whole = rows(spec)[0]
    reader = spec.open(Context("itch"))
    positions = [block.after for block in reader.blocks()]
    reader.close()
    assert len(positions) > 20
    for position in positions[::5]:
        assert rows(spec, position=position)[0] == [row for row in whole if row[1] >= position["seq"]]


def test_gzip_resumes_behind_a_block(day: Path, small_blocks: None) -> None:
    packed = day.with_suffix(".gz")
    packed.write_bytes(gzip.compress(day.read_bytes(), 1))
    spec = Itch(packed)
    reader = spec.open(Context("itch"))
    positions = [block.after for block in reader.blocks()]
    reader.close()
    position = positions[len(positions) // 2]
    assert rows(spec, position=position)[0] == [row for row in rows(spec)[0] if row[1] >= position["seq"]]


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("wanted", [2, 3, 7])
def test_splits_in_order_are_the_whole(tmp_path: Path, wanted: int, prefixed: bool) -> None:
    path = tmp_path / "20190130.itch"
    write_market(path, messages=20_000, symbols=5, prefixed=prefixed)
    spec = Itch(path)
    splits = spec.splits(wanted)
    assert [split.index for split in splits] == list(range(wanted))
    parts = [rows(spec, split=split)[0] for split in splits]
    assert all(parts)
    assert [row for part in parts for row in part] == rows(spec)[0]


def test_a_split_resumes_within_its_end(day: Path, small_blocks: None) -> None:
    spec = Itch(day)
    middle = spec.splits(3)[1]
    reader = spec.open(Context("itch"), middle)
    positions = [block.after for block in reader.blocks()]
    reader.close()
    position = positions[len(positions) // 2]
    rest = [row for row in rows(spec, split=middle)[0] if row[1] >= position["seq"]]
    assert rest
    assert rows(spec, split=middle, position=position)[0] == rest


@pytest.mark.parametrize("library", ["zlib", "isal"])
def test_gzip_of_several_members_reads_as_one(day: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    if library == "zlib":
        monkeypatch.setattr(unpack, "inflater", lambda: zlib)
    else:
        pytest.importorskip("isal")
    data = day.read_bytes()
    packed = day.with_name("S013019-v50.txt.gz")
    packed.write_bytes(
        b"".join(gzip.compress(data[i : i + 100_000], 1) for i in range(0, len(data), 100_000)) + bytes(9)
    )
    spec = Itch(packed)
    assert rows(spec)[:2] == (read(data, MIDNIGHT_2019), [])
    assert len(spec.splits(4)) == 1


def test_batches_share_a_dictionary_until_it_changes(day: Path, small_blocks: None) -> None:
    reader = Itch(day).open(Context("itch"))
    blocks = list(reader.blocks())
    arrays = [d.batches[0].column("symbol").dictionary for b in blocks if (d := reader.decode(b)).batches]
    assert len(arrays) > 20
    assert len({array.buffers()[2].address for array in arrays}) == 1
    assert arrays[0].to_pylist() == ["?0", "PAAA", "PAAB", "PAAC", "PAAD", "PAAE"]


def test_a_ten_times_longer_file_needs_no_more_memory(tmp_path: Path, small_blocks: None) -> None:
    used = []
    for messages in (30_000, 300_000):
        path = tmp_path / f"20190130-{messages}.itch"
        write_market(path, messages=messages, symbols=3)
        context = Context("itch")
        reader = Itch(path).open(context)
        for block in reader.blocks():
            reader.decode(block)
        reader.close()
        used.append(context.pool.peak_bytes)
    assert used[1] <= used[0]


def test_memory_of_a_block_is_within_its_bound(day: Path) -> None:
    spec, context = Itch(day), Context("itch")
    reader = spec.open(context)
    decoded = [reader.decode(block) for block in reader.blocks()]
    assert len(decoded) == 1
    assert context.pool.peak_bytes <= 2 * spec.block_bound  # the framer already holds the next read buffer


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("01302019.NASDAQ_ITCH50.gz", date(2019, 1, 30)),
        ("S081321-v50.txt.gz", date(2021, 8, 13)),
        ("20190130.BX_ITCH_50.gz", date(2019, 1, 30)),
        ("ex20101224.TEST_ITCH_50", date(2010, 12, 24)),
        ("12302019.NASDAQ_ITCH50", date(2019, 12, 30)),
        ("2019-01-30.itch", date(2019, 1, 30)),
        ("day_2019_01_30", date(2019, 1, 30)),
    ],
)
def test_the_date_is_found_in_the_usual_names(name: str, expected: date) -> None:
    assert Itch(name).session == expected


@pytest.mark.parametrize("name", ["sample.itch", "99999999.itch", "123456789.itch", "13322019.itch"])
def test_a_name_without_a_date_asks_for_one(name: str) -> None:
    with pytest.raises(GraphError, match=r"no session date .* date='2019-01-30'"):
        Itch(name)
    assert Itch(name, date="2020-02-29").session == date(2020, 2, 29)


def test_midnight_follows_daylight_saving_time(tmp_path: Path) -> None:
    path = tmp_path / "day.itch"
    path.write_bytes(pack([message("D", 1, 0, 1)]))
    starts = {
        text: rows(Itch(path, date=text))[0][0][0] // 10**9 for text in ("2019-01-30", "2019-07-30", "2024-11-03")
    }
    assert starts == {"2019-01-30": 1548824400, "2019-07-30": 1564459200, "2024-11-03": 1730606400}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"table": "depth"}, "no table 'depth'"),
        ({"date": "30.1.2019"}, "is no date"),
        ({"date": "2019-01-30", "timezone": "Mars/Olympus"}, "no time zone"),
    ],
)
def test_wrong_arguments_are_graph_errors(arguments: dict[str, str], error: str) -> None:
    with pytest.raises(GraphError, match=error):
        Itch("day.itch", **arguments)  # type: ignore[arg-type]


def test_the_schema_is_that_of_the_formats_page() -> None:
    schema = Itch("20190130.itch").schema
    assert schema.names[:3] == ["ts_event", "ts_recv", "seq"]
    assert {field.name: str(field.type) for field in list(schema)[3:]} == {
        "locate": "uint16",
        "symbol": "dictionary<values=string, indices=int32, ordered=0>",
        "msg_type": "uint8",
        "side": "int8",
        "order_id": "uint64",
        "new_order_id": "uint64",
        "price": "int64",
        "size": "uint32",
        "match_id": "uint64",
        "flags": "uint8",
    }
    assert not any(field.nullable for field in schema)


def test_a_spec_survives_pickling() -> None:
    spec = Itch(Path("20190130.itch"))
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.name == "20190130.itch"


@pytest.mark.parametrize("name", REAL)
def test_inspect_counts_the_real_files(recordings: Callable[[str], Path], name: str) -> None:
    report = inspect_itch(recordings("market/itch50") / name)
    assert report["messages"] == 12_012
    counts = {letter: entry["messages"] for letter, entry in report["types"].items()}
    assert counts == {"S": 6, "R": 3, "H": 3, "A": 4997, "F": 3, "E": 198, "X": 45, "D": 1745, "U": 12, "P": 5000}
    assert (report["symbols"], report["bad"], report["error"]) == (3, 0, None)
    assert report["prefixed"] == ("prefixed" in name)
    assert report["time_range"]["utc"] == ["2010-12-24T08:06:42.475298710Z", "2010-12-25T00:04:58.845099321Z"]


def test_inspect_agrees_with_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "no date.itch.gz"
    written = write_market(path, messages=5000, gz=True)
    report = inspect_itch(path)
    assert {letter: entry["messages"] for letter, entry in report["types"].items()} == written["counts"]
    assert report["compression"] == "gzip"
    assert report["time_range"] == {"since_midnight_ns": [180 * 60 * 10**9, 1210 * 60 * 10**9]}


def test_is_itch_tells_formats_apart() -> None:
    parts = [message("S", 0, 1, b"O"), directory(1, "ABC"), message("D", 1, 2, 9), message("D", 1, 3, 9)]
    for prefixed in (True, False):
        head = pack(parts, prefixed)
        assert is_itch(head)
        assert is_itch(head[:30])
    for head in (
        b"",
        b"\x89MCAP0\r\n",
        b'{"a": 1}\n',
        b"PAR1" + bytes(100),
        bytes(1000),
        b"\x1f\x8b\x08 nothing",
        b"\x00",
        b"\x89PNG\r\n\x1a\n" + bytes.fromhex("000058860008000060190220000080650880000000962100 02") * 9,
        b"\xff\xd8\xff\xe0" + bytes.fromhex("00005140000514") * 40,
        b"\x89PNG\r\n\x1a\n" + bytes.fromhex("000058") * 90,
    ):
        assert not is_itch(head)
    assert is_itch(b"\xffdamage" + pack([message("D", 1, 2 + i, 9) for i in range(9)], True))


def test_importing_the_source_loads_no_compiler() -> None:
    code = "import sys; from penstock.sources.market.itch import Itch; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_opening_what_is_not_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"20190130\.itch"):
        Itch("/nowhere/20190130.itch").open(Context("itch"))


def test_the_reference_knows_every_length() -> None:
    from penstock.sources.market._itch_format import LENGTHS

    assert reference.lengths == LENGTHS
