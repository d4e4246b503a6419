"""Parquet and IPC files of ticks against what was written: times, fixed-point prices, positions, splits, damage."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.market import _parquet_ticks_reader
from penstock.sources.market.parquet_ticks import (
    ParquetTicks,
    inspect_parquet_ticks,
    is_parquet_ticks,
    open_parquet_ticks,
)
from ticks_reference import read

START = 1_700_000_000_000_000_000
UNDEFINED = {8: (1 << 63) - 1, 16: (1 << 127) - 1}

Writer = Callable[[pa.Table, Path], None]


def as_parquet(table: pa.Table, path: Path) -> None:
    parquet.write_table(table, path, row_group_size=300)


def as_feather(table: pa.Table, path: Path) -> None:
    feather.write_feather(table, path, chunksize=300, compression="zstd")


def fixed(values: list[int | None], width: int) -> pa.Array:
    raw = [None if value is None else value.to_bytes(width, "little", signed=True) for value in values]
    return pa.array(raw, pa.binary(width))


def catalog(count: int, width: int, places: int) -> tuple[pa.Table, list[int]]:
    """Trades as nautilus_trader's catalog has them, and their prices in 1e-9."""
    rng = np.random.Generator(np.random.Philox(count))
    prices = [int(p) for p in rng.integers(-(10**12), 10**12, count)]
    unit = 10 ** (places - 9)
    table = pa.table(
        {
            "price": fixed([p * unit for p in prices], width),
            "size": fixed([int(i) * 10**places // 8 for i in range(count)], width),
            "aggressor_side": pa.array(rng.integers(0, 3, count), pa.uint8()),
            "trade_id": pa.array([f"T{i}" for i in range(count)]),
            "ts_event": pa.array(START + np.arange(count), pa.uint64()),
            "ts_init": pa.array(START + np.arange(count) + 5, pa.uint64()),
        }
    )
    return table.replace_schema_metadata({"instrument_id": "ETHUSDT.BINANCE", "price_precision": "2"}), prices


@pytest.mark.parametrize("write", [as_parquet, as_feather])
@pytest.mark.parametrize(("width", "places"), [(8, 9), (16, 16)])
def test_a_catalog_comes_out_with_prices_of_1e_9(tmp_path: Path, write: Writer, width: int, places: int) -> None:
    table, prices = catalog(1000, width, places)
    path = tmp_path / "catalog"
    write(table, path)
    assert is_parquet_ticks(path.read_bytes()[:64])
    spec = open_parquet_ticks(path)
    rows, bad, _ = read(spec)
    assert bad == []
    assert [row["price"] for row in rows] == prices
    assert [row["size"] for row in rows] == [(i * 10**places // 8) / 10**places for i in range(1000)]
    assert {row["symbol"] for row in rows} == {"ETHUSDT.BINANCE"}
    assert [(row["ts_event"], row["ts_recv"], row["seq"]) for row in rows] == [
        (START + i, START + i + 5, i) for i in range(1000)
    ]
    assert [row["trade_id"] for row in rows] == table["trade_id"].to_pylist()
    assert spec.schema.names[:4] == ["ts_event", "ts_recv", "seq", "symbol"]
    found = inspect_parquet_ticks(path)
    assert (found["messages"], found["bad"], found["groups"]) == (1000, 0, 4)


@settings(max_examples=100)
@given(
    st.lists(st.one_of(st.none(), st.integers(-(1 << 127), (1 << 127) - 1), st.integers(-(10**20), 10**20)), min_size=1)
)
def test_a_price_is_exact_or_the_row_is_refused(
    tmp_path_factory: pytest.TempPathFactory, values: list[int | None]
) -> None:
    path = tmp_path_factory.getbasetemp() / "prices.parquet"
    times = pa.array(range(len(values)), pa.int64())
    parquet.write_table(pa.table({"ts_event": times, "px": fixed(values, 16)}), path)
    rows, bad, _ = read(ParquetTicks(path))
    want, refused = {}, []
    for seq, value in enumerate(values):
        exact = None if value is None or value == UNDEFINED[16] else Decimal(value).scaleb(-7)
        if exact is None:
            want[seq] = None
        elif value is not None and value % 10**7 == 0 and abs(value // 10**7) < 1 << 63:
            want[seq] = value // 10**7
        else:
            refused.append(seq)
    assert {row["seq"]: row["px"] for row in rows} == want
    assert [record.seq for record in bad] == refused


@pytest.mark.parametrize(
    ("kind", "unit", "scale"),
    [
        (pa.timestamp("ms"), None, 10**6),
        (pa.timestamp("us", "Europe/Berlin"), None, 10**3),
        (pa.int64(), None, 1),
        (pa.int64(), "us", 10**3),
        (pa.uint64(), "ms", 10**6),
        (pa.int32(), "s", 10**9),
        (pa.date32(), None, 86_400 * 10**9),
    ],
)
def test_times_of_every_kind_become_nanoseconds(
    tmp_path: Path, kind: pa.DataType, unit: str | None, scale: int
) -> None:
    path = tmp_path / "x.parquet"
    values = [0, 1, 19_000]
    days = pa.array(values, pa.int32())
    times = days.cast(kind) if pa.types.is_date(kind) else days.cast(pa.int64()).cast(kind)
    parquet.write_table(pa.table({"t": times, "v": [1, 2, 3]}), path)
    rows, bad, _ = read(ParquetTicks(path, time="t", unit=unit))
    assert bad == []
    assert [(row["ts_event"], row["ts_recv"], row["v"]) for row in rows] == [
        (v * scale, v * scale, i + 1) for i, v in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("times", "ns"),
    [
        (["2024-01-02T03:04:05.123456789", "2024-01-02 03:04:05", "soon", None], [123_456_789, 0, None, None]),
        (
            ["2024-01-02T03:04:05Z", "2024-01-02T04:04:05.5+01:00", "", "2024-01-02T03:04:06Z"],
            [0, 5 * 10**8, None, 10**9],
        ),
    ],
)
def test_text_with_times_is_read_or_the_row_is_bad(
    tmp_path: Path, times: list[str | None], ns: list[int | None]
) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"Time": times}), path)
    rows, bad, _ = read(open_parquet_ticks(path))
    start = 1_704_164_645 * 10**9
    assert [row["ts_event"] for row in rows] == [start + rest for rest in ns if rest is not None]
    assert [record.seq for record in bad] == [i for i, rest in enumerate(ns) if rest is None]


@pytest.mark.parametrize(
    ("values", "kind", "ns"),
    [
        ([1_700_000_000], pa.int32(), START),
        ([1_700_000_000_123], pa.int64(), START + 123 * 10**6),
        ([None, 1_700_000_000_123_456], pa.uint64(), START + 123_456_000),
        ([START + 7], pa.int64(), START + 7),
        ([34_200_017_459_617], pa.int64(), 34_200_017_459_617),
        ([1_700_000_000.25], pa.float64(), START + 25 * 10**7),
        ([float("nan"), None, 1_700_000_000_000.5], pa.float64(), START + 500_000),
    ],
)
def test_the_unit_of_times_that_are_numbers_is_told_by_their_size(
    tmp_path: Path, values: list[Any], kind: pa.DataType, ns: int
) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"Timestamp": pa.array(values, kind)}), path)
    if values[0] != values[0]:  # the first value is none: its unit has to be said
        assert [row["ts_event"] for row in read(ParquetTicks(path, time="Timestamp", unit="ms"))[0]] == [ns]
        return
    rows, bad, _ = read(open_parquet_ticks(path))
    assert [row["ts_event"] for row in rows] == [ns]
    assert len(bad) == len(values) - 1


def test_times_of_int96_that_ns_do_not_hold_are_none(tmp_path: Path) -> None:
    path = tmp_path / "spark.parquet"
    times = pa.array([1_700_000_000_123_456, 253_402_225_200_000_000, None, -1], pa.timestamp("us"))
    never = pa.array([253_402_225_200_000_000, 1_700_000_000_123_456, None, 0], pa.timestamp("us"))
    parquet.write_table(pa.table({"ts": times, "expiry": never}), path, use_deprecated_int96_timestamps=True)
    rows, bad, _ = read(open_parquet_ticks(path))
    assert [row["ts_event"] for row in rows] == [1_700_000_000_123_456_000, -1000]
    assert [record.seq for record in bad] == [1, 2]
    assert rows[0]["expiry"] is None and rows[1]["expiry"] is not None


def test_a_file_without_a_time_is_described_and_one_with_plain_names_too(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"id": [1, 2], "note": ["a", "b"]}), path)
    found = inspect_parquet_ticks(path)
    assert (found["messages"], found["time_column"], found["schema"]) == (2, None, "id int64, note string")
    assert found["options"] == "time='COLUMN'"
    parquet.write_table(pa.table({"ts": pa.array([START, START]), "symbol": ["A", "B"]}), path)
    found = inspect_parquet_ticks(path)
    assert (found["messages"], found["symbols"], found["time_column"]) == (2, 2, "ts")


def test_rows_without_a_time_are_bad_records(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    times = pa.array([1, None, (1 << 64) - 1, 4], pa.uint64())
    parquet.write_table(pa.table({"ts_event": times, "v": ["a", "b", "c", "d"]}), path)
    rows, bad, _ = read(ParquetTicks(path))
    assert [(row["seq"], row["v"]) for row in rows] == [(0, "a"), (3, "d")]
    assert [(record.seq, record.place) for record in bad] == [(1, f"{path}, row 1"), (2, f"{path}, row 2")]
    assert b"'v': 'b'" in bad[0].data


@pytest.mark.parametrize("write", [as_parquet, as_feather])
def test_positions_and_splits_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Writer
) -> None:
    monkeypatch.setattr(_parquet_ticks_reader, "ROWS", 128)
    table, _ = catalog(1000, 8, 9)
    path = tmp_path / "catalog"
    write(table, path)
    spec = ParquetTicks(path)
    whole, _, positions = read(spec)
    assert len(positions) > 8
    for position in positions:
        assert read(spec, position)[0] == whole[position["seq"] :]
    for wanted in (1, 2, 3, 9):
        splits = spec.splits(wanted)
        assert len(splits) <= wanted
        assert [row for split in splits for row in read(spec, split=split)[0]] == whole


def test_columns_are_chosen_and_wrong_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"t": pa.array([1, 2]), "a": [[1.5], [2.5]], "b": ["x", "y"]}), path)
    rows, _, _ = read(ParquetTicks(path, time="t", columns=["b"]))
    assert [sorted(row) for row in rows] == [["b", "seq", "ts_event", "ts_recv"]] * 2
    for options in ({}, {"time": "t", "recv": "r"}, {"time": "t", "columns": ["c"]}, {"time": "a"}):
        with pytest.raises(GraphError, match=r"x\.parquet"):
            _ = ParquetTicks(path, **options).schema  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="unit"):
        ParquetTicks(path, unit="minutes")
    with pytest.raises(FormatError, match="time='ts'"):
        open_parquet_ticks(path)


def test_a_capture_time_of_the_same_kind_is_kept_and_columns_that_come_twice_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    times = pa.array([START, START + 1])
    parquet.write_table(pa.table({"timestamp": times, "ts_recv": pa.array([START + 5, START + 6]), "v": [1, 2]}), path)
    assert [(row["ts_event"], row["ts_recv"]) for row in read(open_parquet_ticks(path))[0]] == [
        (START, START + 5),
        (START + 1, START + 6),
    ]
    parquet.write_table(pa.table([times, times, times], ["ts", "a", "a"]), path)
    with pytest.raises(GraphError, match=r"x\.parquet has two columns 'a'"):
        open_parquet_ticks(path)


def test_other_files_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data, why in (
        (b"", "is empty"),
        (b"FEA1" + bytes(50), "version 1"),
        (b"abc,def\n", "neither"),
        (b"PAR1" + bytes(50), "begins like Parquet"),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=why):
            open_parquet_ticks(path)


def test_a_column_whose_name_is_not_utf_8_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x"
    as_feather(pa.table({"ts_event": [1], "an_odd_name": [2]}), path)
    path.write_bytes(path.read_bytes().replace(b"an_odd_name", b"an_\xd4\x31d_name"))
    with pytest.raises(FormatError, match="begins like Arrow IPC but"):
        open_parquet_ticks(path)


def damaged(path: Path, cases: int, seed: int, write: Writer) -> None:
    """Whatever is done to a file, it is refused or every row is there, in quarantine, or in a group that is."""
    rng = np.random.Generator(np.random.Philox(seed))
    table, _ = catalog(900, 8, 9)
    write(table, path)
    sound = path.read_bytes()
    for _ in range(cases):
        data = bytearray(sound)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, len(data)))
            data[at : at + 4] = rng.bytes(int(rng.integers(0, 9)))
        path.write_bytes(data)
        try:
            spec: Any = ParquetTicks(path)
            _ = spec.schema
        except (FormatError, GraphError):
            continue
        rows, bad, _ = read(spec)
        numbers = [row["seq"] for row in rows]
        assert numbers == sorted(set(numbers))
        assert len(numbers) + len(bad) > 0


@pytest.mark.parametrize("write", [as_parquet, as_feather])
def test_damaged_files_do_no_harm(tmp_path: Path, write: Writer) -> None:
    damaged(tmp_path / "x", 100, 1, write)


@pytest.mark.nightly
@pytest.mark.parametrize("write", [as_parquet, as_feather])
def test_damaged_files_do_no_harm_5_000_times(tmp_path: Path, write: Writer) -> None:
    damaged(tmp_path / "x", 5_000, 2, write)
