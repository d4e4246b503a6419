"""The side tables of ITCH 5.0, status and imbalance: every field of every type against plain readings."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_reference import any_message, directory, lengths, message, pack, read_status
from penstock.demos.market_recording import write_market
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.pipeline.memory import BufferPool
from penstock.pipeline.schema import check_event_schema
from penstock.sources.market import _itch_reader
from penstock.sources.market._itch_tables import TABLES, tables_of
from penstock.sources.market.itch import Itch, inspect_itch, open_itch

MIDNIGHT = 1548824400 * 10**9  # 2019-01-30 00:00 in New York, UTC-5
HOUR = 3600 * 10**9
STATUS, NOII = TABLES["status"], TABLES["noii"]
ABC = b"ABC     "
POOL = BufferPool()
EVERY_STATUS = [
    message("S", 0, HOUR, b"O"),
    directory(1, "ABC", HOUR),
    message("H", 1, HOUR, ABC, b"T", b" ", b"LUDP"),
    message("Y", 1, HOUR, ABC, b"1"),
    message("L", 1, HOUR, b"MPID", ABC, b"Y", b"N", b"A"),
    message("V", 0, HOUR, 2 * 10**11, 3 * 10**11, (2**63 - 1) // 10),
    message("W", 0, HOUR, b"2"),
    message("K", 1, HOUR, ABC, 34_200, b"A", 12_345),
    message("J", 1, HOUR, ABC, 10_000, 11_000, 9_000, 3),
    message("h", 1, HOUR, ABC, b"Q", b"H"),
    message("N", 1, HOUR, ABC, b"B"),
    message("O", 1, HOUR, ABC, b"Y", 1, 2**32 - 1, 3, 9 * HOUR, 4, 5),
]
IMBALANCE = message("I", 1, HOUR, 2**64 - 1, 2**63, b"P", ABC, 1, 2, 2**32 - 1, b"A", b"L")


def table_of(
    spec: Itch, *, split: Any = None, position: Any = None
) -> tuple[list[dict[str, Any]], list[Any], dict[str, int]]:
    """Rows with the columns that are not null, bad records, drops; each record of a block must be one of them."""
    reader = spec.open(Context("itch", pool=POOL), split, position)
    rows: list[dict[str, Any]] = []
    bad: list[Any] = []
    dropped: dict[str, int] = {}
    for block in reader.blocks():
        decoded = reader.decode(block)
        count = sum(batch.num_rows for batch in decoded.batches)
        numbered = [record for record in decoded.bad if record.seq is not None]
        assert block.records == count + len(numbered) + sum(decoded.dropped.values())
        rows += plain(decoded.batches, spec.schema)
        bad += decoded.bad
        for reason, number in decoded.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + number
    reader.close()
    return rows, bad, dropped


def plain(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> list[dict[str, Any]]:
    rows = []
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(schema, check_metadata=True)
        for index, field in enumerate(schema):
            assert field.nullable or batch.column(index).null_count == 0
            if pa.types.is_timestamp(field.type):
                batch = batch.set_column(index, field.name, batch.column(index).cast(pa.int64()))
        for row in batch.to_pylist():
            assert row.pop("ts_recv") == row["ts_event"]
            rows.append({name: value for name, value in row.items() if value is not None})
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "20190130.itch"


@pytest.fixture
def day(tmp_path: Path) -> Path:
    path = tmp_path / "01302019.NASDAQ_ITCH50"
    write_market(path, messages=20_000, symbols=5)
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_itch_reader, "MESSAGES", 701)
    monkeypatch.setattr(_itch_reader, "READ", (1 << 17) + 300)


def test_every_status_message_gives_every_field_it_has(path: Path) -> None:
    path.write_bytes(pack(EVERY_STATUS))
    rows, bad, dropped = table_of(Itch(path, table="status"))
    assert (bad, dropped) == ([], {})
    assert rows == read_status(path.read_bytes(), MIDNIGHT, STATUS)
    by_type = {chr(row["msg_type"]): row for row in rows}
    assert by_type["R"]["issue_subtype"] == "Z"
    assert (by_type["H"]["reason"], by_type["H"]["trading_state"]) == ("LUDP", ord("T"))
    assert by_type["L"]["mpid"] == "MPID"
    assert by_type["V"]["level1_price"] == 2000 * 10**9
    assert by_type["K"]["ipo_release_time"] == MIDNIGHT + 34_200 * 10**9
    assert by_type["O"]["near_execution_time"] == MIDNIGHT + 9 * HOUR
    assert "symbol" not in by_type["S"]
    assert all(row["symbol"] == "ABC" for kind, row in by_type.items() if kind not in "SVW")


@pytest.mark.parametrize("name", ["ex20101224.TEST_ITCH_50", "ex20101224.TEST_ITCH_50.prefixed.itch"])
def test_status_of_the_real_files_is_that_of_a_plain_reading(recordings: Callable[[str], Path], name: str) -> None:
    path = recordings("market/itch50") / name
    rows, bad, dropped = table_of(Itch(path, table="status"))
    midnight = 1293166800 * 10**9  # 2010-12-24 00:00 in New York
    assert rows == read_status(path.read_bytes(), midnight, STATUS, prefixed="prefixed" in name)
    assert (len(rows), bad, sum(dropped.values())) == (12, [], 12_000)
    assert {row["symbol"] for row in rows if "symbol" in row} == {"ALC", "BOB", "CHAR"}


def test_an_imbalance_message_gives_every_field(path: Path) -> None:
    path.write_bytes(pack([IMBALANCE]))
    rows, bad, _ = table_of(Itch(path, table="noii"))
    assert bad == []
    assert rows == [
        {
            "ts_event": MIDNIGHT + HOUR,
            "seq": 0,
            "locate": 1,
            "symbol": "ABC",
            "msg_type": ord("I"),
            "tracking_number": 0,
            "paired_shares": 2**64 - 1,
            "imbalance_shares": 2**63,
            "direction": ord("P"),
            "far_price": 100_000,
            "near_price": 200_000,
            "reference_price": (2**32 - 1) * 100_000,
            "cross_type": ord("A"),
            "price_variation": ord("L"),
        }
    ]


def test_every_type_of_the_specification_is_in_a_table() -> None:
    assert {letter for letter in lengths if tables_of(letter)} == set(lengths)
    assert tables_of("E") == ["market.l3", "market.trades"]
    assert tables_of("O") == ["market.status"]
    assert tables_of("z") == []


@pytest.mark.parametrize("table", TABLES)
def test_schemas_start_with_the_event_columns_and_say_what_may_be_null(table: str) -> None:
    schema = Itch("20190130.itch", table=table).schema
    assert check_event_schema(schema) is None
    always = {"ts_event", "ts_recv", "seq", "locate", "msg_type"}
    assert not any(schema.field(name).nullable for name in always)
    if table in ("l3", "noii"):
        assert not any(field.nullable for field in schema)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(any_message("SRHYLWKJhNI" + "AE"), min_size=1, max_size=15), prefixed=st.booleans(), gz=st.booleans()
)
def test_any_messages_decode_as_a_plain_reading_says(path: Path, parts: list[bytes], prefixed: bool, gz: bool) -> None:
    data = pack(parts, prefixed)
    path.write_bytes(gzip.compress(data, 1) if gz else data)
    for table, kinds in (("status", STATUS), ("noii", NOII)):
        rows, bad, dropped = table_of(Itch(path, table=table))
        assert bad == []
        assert rows == read_status(data, MIDNIGHT, kinds, prefixed=prefixed)
        assert sum(dropped.values()) == len(parts) - len(rows)


def test_every_field_is_that_of_itchfeed(path: Path) -> None:
    package = pytest.importorskip("itch.messages", reason="itchfeed is not installed")
    parts = [*EVERY_STATUS, IMBALANCE]
    path.write_bytes(pack(parts))
    rows = table_of(Itch(path, table="status"))[0] + table_of(Itch(path, table="noii"))[0]
    names = {
        "event_code": "event_code",
        "reason": "reason",
        "mpid": "mpid",
        "near_execution_price": "near_execution_price",
        "minimum_allowable_price": "minimum_allowable_price",
        "paired_shares": "paired_shares",
        "imbalance_shares": "imbalance_shares",
        "direction": "imbalance_direction",
        "far_price": "far_price",
        "near_price": "near_price",
        "reference_price": "current_reference_price",
        "price_variation": "variation_indicator",
        "trading_state": "trading_state",
        "market_category": "market_category",
        "round_lot_size": "round_lot_size",
        "etp_leverage": "etp_leverage_factor",
        "market_code": "market_code",
        "interest_flag": "interest_flag",
        "open_eligibility": "open_eligibility_status",
        "breached_level": "breached_level",
        "level1_price": "level1_price",
        "level3_price": "level3_price",
        "ipo_price": "ipo_price",
        "collar_extension": "auction_collar_extention",
        "upper_collar_price": "upper_auction_collar_price",
    }
    seen = set()
    for raw, row in zip(parts, rows, strict=True):
        item = package.messages[raw[:1]](raw)
        assert MIDNIGHT + item.timestamp == row["ts_event"]
        for name, theirs in names.items():
            if name not in row or not hasattr(item, theirs):
                continue
            value = getattr(item, theirs)
            if name.endswith("_price"):
                value *= 10 if name.startswith("level") else 100_000
            elif isinstance(value, bytes):
                value = value.decode() if isinstance(row[name], str) else value[0]
            assert row[name] == value, name
            seen.add(name)
    assert seen == set(names)


def test_the_symbol_is_that_of_the_message_whatever_the_directory_says(path: Path) -> None:
    parts = [
        message("Y", 7, 1, b"LATE    ", b"1"),
        directory(7, "LATE"),
        message("Y", 7, 2, b"LATE    ", b"1"),
        message("Y", 7, 3, b"OTHER\0\0\0", b"1"),
        message("Y", 65535, 4, b"A\xe9      ", b"1"),
        message("Y", 8, 5, b"\0" * 8, b"1"),
    ]
    path.write_bytes(pack(parts))
    rows, bad, _ = table_of(Itch(path, table="status"))
    assert bad == []
    assert [row["symbol"] for row in rows] == ["LATE", "LATE", "LATE", "OTHER", "A\xe9", ""]


@pytest.mark.parametrize("table", ["status", "noii"])
def test_blocks_positions_and_splits_do_not_change_rows(day: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Itch(day, table=table)
    expected = read_status(day.read_bytes(), MIDNIGHT, TABLES[table])
    assert len(expected) > 20
    assert table_of(spec)[0] == expected
    parts = [table_of(spec, split=split)[0] for split in spec.splits(3)]
    assert len(parts) == 3
    assert [row for part in parts for row in part] == expected
    monkeypatch.setattr(_itch_reader, "MESSAGES", 701)
    reader = spec.open(Context("itch"))
    positions = [block.after for block in reader.blocks()]
    reader.close()
    assert len(positions) > 20
    assert table_of(spec)[0] == expected
    for position in positions[::6]:
        assert table_of(spec, position=position)[0] == [row for row in expected if row["seq"] >= position["seq"]]


def test_tables_together_hold_every_message(day: Path) -> None:
    taken: dict[int, int] = {}
    for table in TABLES:
        reader = Itch(day, table=table).open(Context("itch"))
        for block in reader.blocks():
            for batch in reader.decode(block).batches:
                for seq in batch.column("seq").to_pylist():
                    taken[seq] = taken.get(seq, 0) + 1
        reader.close()
    report = inspect_itch(day)
    assert sorted(taken) == list(range(report["messages"]))
    trades = sum(1 for count in taken.values() if count == 2)
    assert report["tables"]["market.trades"] == trades
    assert sum(report["tables"].values()) == report["messages"] + trades


def test_inspect_counts_messages_by_table(path: Path) -> None:
    path.write_bytes(pack([*EVERY_STATUS, IMBALANCE, message("D", 1, HOUR, 1), message("B", 1, HOUR, 1)]))
    assert inspect_itch(path)["tables"] == {
        "market.l3": 2,
        "market.status": 12,
        "market.noii": 1,
        "market.trades": 1,
    }


def test_values_that_no_field_can_have_cost_that_message(path: Path) -> None:
    parts = [
        EVERY_STATUS[0],
        message("V", 0, HOUR, 1, 2**64 - 1, 1),
        message("O", 1, HOUR, ABC, b"Y", 1, 2, 3, 2**63, 4, 5),
        message("S", 0, 2**48 - 1, b"C"),
        message("V", 0, HOUR, 2**64 - 1, 2**64 - 1, 1),
        EVERY_STATUS[5],
    ]
    path.write_bytes(pack(parts))
    rows, bad, _ = table_of(Itch(path, table="status"))
    assert [row["seq"] for row in rows] == [0, 5]
    assert [(record.seq, record.data) for record in bad] == list(enumerate(parts))[1:5]
    assert [record.error.split(",")[0] for record in bad] == [
        "level2_price is 18446744073709551615",
        "near_execution_time is 9223372036854775808",
        f"a time of {2**48 - 1} ns is not within a day",
        "level1_price is 18446744073709551615",
    ]
    assert bad[0].place == f"{path}, offset {2 + 12}"
    spec = Itch(path, table="status")
    for record in bad:
        again = spec.retry(record)
        assert again is not None
        assert [wrong.error for wrong in again.bad] == [record.error]


def test_unknown_types_are_skipped_by_their_length_and_counted(path: Path) -> None:
    path.write_bytes(pack([EVERY_STATUS[0], b"z" + bytes(20), EVERY_STATUS[6], b"\x07" + bytes(30)]))
    rows, bad, dropped = table_of(Itch(path, table="status"))
    assert [row["seq"] for row in rows] == [0, 2]
    assert (bad, dropped) == ([], {"not in market.status: z": 1, "not in market.status: 0x07": 1})


def test_open_itch_takes_the_options_of_the_source(path: Path) -> None:
    assert open_itch(path) == Itch(path)
    spec = open_itch(path, table="noii", date="2020-02-29")
    assert spec == Itch(path, table="noii", date="2020-02-29")
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.name == "20190130.itch:noii"
    with pytest.raises(GraphError, match="choose one of l3, status, noii, trades"):
        open_itch(path, table="depth")
    with pytest.raises(GraphError, match="max_orders=0"):
        open_itch(path, max_orders=0)
