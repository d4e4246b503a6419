"""Rows as JSON lines: every type keeps its value, a live source gets the rows back; several files in time order."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itch_reference import message, pack
from live_feeds import beside, follow, lines_of, write_lines
from penstock import sources
from penstock.pipeline.errors import FormatError, GraphError
from penstock.pipeline.schema import EVENT_FIELDS, tensor_type
from penstock.sources.live.json_messages import live_ndjson
from penstock.sources.replay.formats import playable_of
from penstock.sources.replay.message import Message, Playable
from penstock.sources.replay.rows import json_rows
from penstock.sources.replay.serving import replay
from penstock.sources.replay.sets import together


def table_of(columns: dict[str, pa.Array], count: int) -> pa.Table:
    times = pa.array([10**18 + n for n in range(count)], pa.timestamp("ns", tz="UTC"))
    seq = pa.array(range(count), pa.uint64())
    fields = [*EVENT_FIELDS, *(pa.field(name, column.type) for name, column in columns.items())]
    return pa.table([times, times, seq, *columns.values()], schema=pa.schema(fields))


def test_every_kind_of_column_keeps_its_value() -> None:
    big = 2**64 - 1
    columns = {
        "u64": pa.array([big, None], pa.uint64()),
        "i64": pa.array([-(2**63), 3], pa.int64()),
        "f64": pa.array([0.1, float("inf")]),
        "f32": pa.array([0.1, 2.5], pa.float32()),
        "dec": pa.array([Decimal("12345678901234567890.123456789"), Decimal("-0.000000001")], pa.decimal128(38, 9)),
        "sym": pa.array(["a", 'b"\u00e9\n']).dictionary_encode(),
        "bin": pa.array([b"\x00\xff", b""]),
        "fix": pa.array([b"ab", b"cd"], pa.binary(2)),
        "flag": pa.array([True, None]),
        "day": pa.array([dt.date(2024, 2, 29), None]),
        "us": pa.array([1_700_000_000_123_456, 2], pa.timestamp("us", tz="UTC")),
        "took": pa.array([1, 2], pa.duration("ms")),
        "list": pa.array([[1.5, None], []], pa.list_(pa.float32())),
        "levels": pa.array(
            [[{"px": big, "t": "x"}], None], pa.list_(pa.struct([("px", pa.uint64()), ("t", pa.string())]))
        ),
        "none": pa.nulls(2),
    }
    cube = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    columns["cube"] = pa.ExtensionArray.from_storage(
        tensor_type(pa.int16(), (2, 2)), pa.FixedSizeListArray.from_arrays(pa.array(cube.ravel()), 4)
    )
    first, second = json_rows(table_of(columns, 2).to_batches()[0])
    assert first.startswith(b'{"ts_event":1000000000000000000,"ts_recv":1000000000000000000,"seq":0,')
    assert b'"dec":12345678901234567890.123456789' in first and b'"dec":-0.000000001' in second
    assert b'"f32":0.1,' in first and b'"f64":0.1,' in first
    one, two = json.loads(first), json.loads(second)
    assert (one["u64"], two["u64"], one["i64"], two["f64"]) == (big, None, -(2**63), None)
    assert (one["sym"], two["sym"]) == ("a", 'b"\u00e9\n')
    assert base64.b64decode(one["bin"]) == b"\x00\xff" and base64.b64decode(two["fix"]) == b"cd"
    assert (one["flag"], two["flag"], one["day"], one["us"], two["took"]) == (
        True,
        None,
        "2024-02-29",
        1_700_000_000_123_456,
        2,
    )
    assert one["list"] == [1.5, None] and one["levels"] == [{"px": big, "t": "x"}] and two["levels"] is None
    assert one["cube"] == [[0, 1], [2, 3]] and two["none"] is None


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_floats_are_read_back_to_the_bit(values: list[float]) -> None:
    columns = {"a": pa.array(values, pa.float64()), "b": pa.array(values, pa.float32())}
    rows = [json.loads(line) for line in json_rows(table_of(columns, len(values)).to_batches()[0])]
    assert [row["a"] for row in rows] == values
    assert [np.float32(row["b"]) for row in rows] == [np.float32(value) for value in values]


def served(path: Any, spec_of: Any, **options: Any) -> tuple[Any, Any, list[str]]:
    opened, where, notes = threading.Event(), [], list[str]()

    def at(address: str) -> None:
        where.append(address)
        opened.set()

    with beside(lambda: replay(path, "tcp://127.0.0.1:0", speed=0, opened=at, told=notes.append, **options)):
        assert opened.wait(20.0)
        table, bad, _ = follow(spec_of(where[0]))
    return table, bad, notes


def test_rows_of_a_table_come_back_from_a_live_source(tmp_path: Path) -> None:
    path = tmp_path / "ticks.parquet"
    rows = 200
    pq.write_table(
        pa.table(
            {
                "ts_event": pa.array(range(10**18, 10**18 + rows), pa.timestamp("ns", tz="UTC")),
                "px": pa.array(range(2**62, 2**62 + rows), pa.int64()),
                "size": pa.array(np.linspace(0, 1, rows)),
                "symbol": pa.array([f"S{n % 3}" for n in range(rows)]),
            }
        ),
        path,
        row_group_size=64,
    )
    columns = {"px": "px:int64", "size": "size:float64", "symbol": "symbol:utf8"}
    got, bad, notes = served(
        str(path), lambda url: live_ndjson(url, columns=columns, time="ts_event", time_unit="ns", reconnect="0s")
    )
    want, _, _ = follow(sources.open(path))
    assert not bad and notes == [notes[0]] and notes[0].startswith("one JSON line a row: ts_event")
    for name in ("ts_event", "ts_recv", "seq", "px", "size"):
        assert got[name].to_pylist() == want[name].to_pylist(), name
    assert got["symbol"].to_pylist() == want["symbol"].cast("string").to_pylist()


@pytest.mark.parametrize(
    ("name", "topics"),
    [("driving/comma2k19_example1", ["imu", "radar"]), ("games/osu_replays/replay.osr", None)],
)
def test_data_sets_and_replays_of_games_go_out_row_by_row(recordings: Any, name: str, topics: list[str] | None) -> None:
    path = recordings(name) if topics else recordings(str(Path(name).parent)) / Path(name).name
    recording = playable_of(str(path), **({"topic": topics} if topics else {}))
    rows = [(message.ts_ns, json.loads(message.data)) for message in recording.messages()]
    assert [time for time, _ in rows] == sorted(time for time, _ in rows) and len(rows) > 1000
    assert all(time == row["ts_recv"] for time, row in rows)
    counts = {topic: sum(row.get("topic") == topic for _, row in rows) for topic in topics or ()}
    assert counts == {topic: follow(sources.open(path, table=topic))[0].num_rows for topic in counts}
    with pytest.raises(FormatError, match="topic"):
        playable_of(str(path), topic="nothing")


def test_records_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "lines.ndjson"
    path.write_bytes(b"\n".join([*lines_of(3), b"{broken", *lines_of(2, start=3)]))
    recording = playable_of(sources.Ndjson(path, columns={"n": "n:int64"}))
    assert [json.loads(message.data)["n"] for message in recording.messages()] == list(range(5))
    assert recording.skipped == {"records that could not be read": 1}


def test_lines_that_are_no_records_shift_no_time(tmp_path: Path) -> None:
    first, second, third = lines_of(3)
    path = tmp_path / "lines.ndjson"
    path.write_bytes(b"\n".join([first, b"\x0c", second, b"x" * 500, third]))
    messages = list((recording := playable_of(str(path), max_line=200)).messages())
    times = [json.loads(line)["ts_ns"] for line in (first, second, third)]
    assert [(m.ts_ns, m.data) for m in messages] == [
        (times[0], first),
        (times[0], b"\x0c"),
        (times[1], second),
        (times[2], third),
    ]
    assert recording.skipped == {"records that could not be read": 1}


BOOK = b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","s":"BTCUSDT","u":%d}}'


@pytest.mark.parametrize(
    ("lines", "sent_of"),
    [
        (lines_of(4000), lambda line: line),
        ([b"%d " % (10**18 + n) + BOOK % n for n in range(4000)], lambda line: line.split(b" ", 1)[1]),
        ([b"(%d.%06d) can0 123#%016x" % (10**9, n, n * 7919) for n in range(4000)], lambda line: line),
    ],
    ids=["events", "crypto", "candump"],
)
def test_where_a_packed_file_of_lines_breaks_off_is_counted(tmp_path: Path, lines: list[bytes], sent_of: Any) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n", mtime=0)[:-200])
    recording = playable_of(str(path))
    sent = [message.data for message in recording.messages()]
    assert 100 < len(sent) < 4000 and sent[:-1] == [sent_of(line) for line in lines[: len(sent) - 1]]
    assert recording.skipped["records that could not be read"] == 1


def test_where_a_packed_day_of_itch_breaks_off_is_counted(tmp_path: Path) -> None:
    whole, cut = (tmp_path / f"01302019.{name}.gz" for name in ("whole", "cut"))
    content = gzip.compress(pack([message("D", 1, n * 7919, n * 104_729) for n in range(1, 4000)]), mtime=0)
    whole.write_bytes(content)
    cut.write_bytes(content[:-200])
    expected = [message.data for message in playable_of(str(whole)).messages()]
    recording = playable_of(str(cut))
    sent = [message.data for message in recording.messages()]
    assert 100 < len(sent) < len(expected) == 3999 and sent == expected[: len(sent)]
    assert recording.skipped["records that could not be read"] == 1


def test_json_arrays_go_out_as_their_elements(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_text(json.dumps([{"ts_ns": 10**18 + n, "n": n} for n in range(50)]))
    messages = list(playable_of(str(path)).messages())
    assert [json.loads(message.data)["n"] for message in messages] == list(range(50))
    assert [message.ts_ns - 10**18 for message in messages] == list(range(50))


def test_files_that_follow_or_overlap_are_one_recording_in_time_order(tmp_path: Path) -> None:
    for number, start in enumerate([60, 0, 30]):
        write_lines(tmp_path / f"{number}.ndjson", 0).write_bytes(b"\n".join(lines_of(40, start=start)))
    for path in (tmp_path, f"{tmp_path}/*.ndjson", [tmp_path / f"{n}.ndjson" for n in range(3)]):
        recording = playable_of(path)
        numbers = [json.loads(message.data)["n"] for message in recording.messages()]
        assert numbers == sorted([*range(40), *range(30, 70), *range(60, 100)])
        assert recording.note.startswith("3 files")
        assert len(list(recording.messages())) == 120  # and again
    with pytest.raises(FormatError, match="no file is called"):
        playable_of(f"{tmp_path}/*.nothing")


def test_a_file_of_a_set_is_open_only_while_its_turn_lasts() -> None:
    living: set[int] = set()
    most = 0

    def part(number: int) -> Playable:
        def messages() -> Any:
            nonlocal most
            living.add(number)
            most = max(most, len(living))
            try:
                for n in range(10):
                    yield Message(number * 10 + n, b"%d" % n)
            finally:
                living.discard(number)

        return Playable(messages)

    recording = together([part(number) for number in range(20)], [str(number) for number in range(20)])
    assert [message.ts_ns for message in recording.messages()] == list(range(200))
    assert most == 1 and not living


def test_parts_of_different_kinds_or_headers_are_refused_and_topics_keep_their_numbers() -> None:
    def lone(ts_ns: int, **options: Any) -> Playable:
        return Playable(lambda: iter([Message(ts_ns, b"x", 1)]), **options)

    with pytest.raises(FormatError, match="b is of another kind than a"):
        together([lone(1), lone(2, text=True)], ["a", "b"])
    with pytest.raises(FormatError, match="headers of their own"):
        together([lone(1, greeting=Message(0, b"1")), lone(2, greeting=Message(0, b"2"))], ["a", "b"])
    made = together([lone(1, topics={"/a": 1}), lone(2, topics={"/b": 1}), lone(3, topics={"/a": 1})], ["a", "b", "c"])
    assert made.topics == {"/a": 1, "/b": 0}
    assert [message.channel for message in made.messages()] == [1, 0, 1]


def test_options_that_a_format_does_not_take_are_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 3)
    with pytest.raises(GraphError, match="'nothing'"):
        playable_of(str(path), nothing=1)
    with pytest.raises(GraphError, match="no format 'x'"):
        playable_of(str(path), format="x")
