"""``penstock head``: the first rows, readable, exact in time, and no more read than needed."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from penstock import tensor_type
from penstock.cli import main
from penstock.pipeline.errors import GraphError
from penstock.sources._cell_text import WIDEST, cell_text
from penstock.sources.head import as_text, first_rows

NS = pa.timestamp("ns", tz="UTC")
MOMENT = 1_700_000_000_123_456_789


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.ndjson"
    path.write_text("".join(f'{{"ts_ns": {MOMENT + n}, "event": "e{n}"}}\n' for n in range(30)))
    return path


def test_rows_are_a_table_with_every_digit_of_their_times(
    events: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["head", str(events), "-n", "2"]) == 0
    told, heads, first, second, *notes = capsys.readouterr().out.splitlines()
    assert told == "events.ndjson: first 2 rows"
    assert heads.split()[:2] == ["ts_event", "seq"] and "type" in heads
    assert first.split()[:2] == ["2023-11-14T22:13:20.123456789Z", "0"] and "e0" in first
    assert second.split()[:2] == ["2023-11-14T22:13:20.123456790Z", "1"] and len(second) <= 80
    assert notes[0] == "ts_recv is the same as ts_event" and "more columns, which --json shows: " in notes[1]
    assert main(["head", str(events), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["ts_event"], row["type"]) for row in rows] == [(MOMENT + n, f"e{n}") for n in range(10)]


def test_pandas_is_not_needed(events: Path) -> None:
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from penstock.cli import main
sys.exit(main(["head", {str(events)!r}]) or main(["head", {str(events)!r}, "--json"]))
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0 and "22:13:20.123456789Z" in ended.stdout, ended.stderr


def test_no_more_is_read_than_needed(events: Path) -> None:
    with events.open("a") as file:
        file.write("broken\n")
    begun = first_rows(events, 3, block_bytes=64)
    assert (begun.rows.num_rows, begun.bad, begun.ended) == (3, 0, False)
    whole = first_rows(events, 1000, block_bytes=64)
    assert (whole.rows.num_rows, whole.bad, whole.ended) == (30, 1, True)
    assert "all 30 rows" in as_text(whole) and "1 records that do not decode" in as_text(whole)


def test_a_topic_is_asked_for_where_there_are_several(
    recordings: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    drive = str(recordings("driving/derived_drive") / "drive_mcap" / "drive_mcap.mcap")
    assert main(["head", drive]) == 1
    assert "choose one with --topic NAME; expected /camera" in capsys.readouterr().err
    assert main(["head", drive, "-n", "1", "--topic", "/camera/front/image_raw/compressed"]) == 0
    assert "data large_binary" in capsys.readouterr().out
    minute = recordings("driving/comma2k19_example1")
    assert (
        first_rows(minute, 1, topic="imu" if (minute / "processed_log" / "IMU").is_dir() else "can").rows.num_rows == 1
    )
    itch = str(recordings("market/itch50") / "ex20101224.TEST_ITCH_50.prefixed.itch")
    assert main(["head", itch, "--table", "trades", "--option", "max_orders=100000", "--date", "2010-12-24"]) == 0
    assert "2010-12-24T" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-n", "0"], "0 rows are none to show"),
        (["--option", "colour"], "--option KEY=VALUE"),
        (["--option", "colour=red"], "takes no option 'colour'"),
    ],
)
def test_what_cannot_be_is_one_line(
    events: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["head", str(events), *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("penstock: ") and told.count("\n") == 1 and expected in told


def test_wildcards_are_read_in_time_order(events: Path) -> None:
    (events.parent / "before.ndjson").write_text('{"ts_ns": 5, "event": "first"}\n')
    found = first_rows(f"{events.parent}/*.ndjson", 2)
    assert found.rows["type"].to_pylist() == ["first", "e0"]
    with pytest.raises(GraphError, match="takes no option 'topic'"):
        first_rows(events, topic="a")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (MOMENT, NS, "2023-11-14T22:13:20.123456789Z"),
        (-1, NS, "1969-12-31T23:59:59.999999999Z"),
        (1_700_000_000_123, pa.timestamp("ms"), "2023-11-14T22:13:20.123"),
        (2**62, pa.timestamp("s"), f"{2**62} s"),
        (5, pa.duration("ns"), "5 ns"),
        (None, NS, "null"),
        (bytes(57_344), pa.large_binary(), "<57,344 bytes>"),
        (b"AB", pa.binary(2), "AB"),
        (b"\x00\xff", pa.binary(), "00 ff"),
        ([1, 2, None], pa.list_(pa.int8()), "[1, 2, null]"),
        (list(range(1024)), pa.list_(pa.int64()), "[0, 1, 2, .. 1,024 in all]"),
        ([MOMENT], pa.list_(NS), "[2023-11-14T22:13:20.123456789Z]"),
        ({"at": 1, "b": b"\x01" * 20}, pa.struct([("at", NS), ("b", pa.binary())]), None),
        ([("a", 1)], pa.map_(pa.string(), pa.int8()), "[{key: a, value: 1}]"),
        (0.1, pa.float32(), "0.1"),
        (1e300, pa.float64(), "1e+300"),
        (Decimal("1.50"), pa.decimal128(9, 2), "1.50"),
        ("a\nb\x1b[31m", pa.string(), "a\\nb\\x1b[31m"),
        ("x" * 100, pa.string(), "x" * 37 + "..."),
        (dt.date(2024, 1, 2), pa.date32(), "2024-01-02"),
        (True, pa.bool_(), "True"),
    ],
)
def test_a_value_is_one_short_line(value: Any, kind: pa.DataType, text: str | None) -> None:
    told = cell_text(pa.array([value], kind)[0])
    assert told.isprintable() and len(told) <= WIDEST
    assert text is None or told == text


def test_pictures_and_codes_are_told_by_shape_and_meaning() -> None:
    kind = tensor_type(pa.uint8(), (2, 3, 1))
    storage = pa.FixedSizeListArray.from_arrays(pa.array(range(6), pa.uint8()), 6)
    assert cell_text(pa.ExtensionArray.from_storage(kind, storage)[0]) == "<uint8 2 x 3 x 1>"
    assert cell_text(pa.array(["BTC"]).dictionary_encode()[0]) == "BTC"
