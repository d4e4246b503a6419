"""Vector .asc logs against python-can's reader, and every kind of line by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving.asc import Asc, inspect_asc, is_asc, open_asc
from penstock.sources.inspection import inspect, summary
from source_reading import read_whole, resumes_at_every_block

REMOTE, ERROR = 0x40000000, 0x20000000
DATE = "Wed Apr 16 09:21:13.159 am 2014"
START = 1397640073_159_000_000
HEAD = f"date {DATE}\nbase hex  timestamps absolute\ninternal events logged\n// version 8.0.0\n"


def log(path: Path, *lines: str, head: str = HEAD) -> Path:
    path.write_text(head + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.asc"


FD = "1 0 d 32 " + " ".join(f"{i:02X}" for i in range(32)) + "  130000  130  303000 0 0"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "0.015991 1  123             Rx   d 8 01 02 03 04 05 06 07 FF  Length = 237910 BitCount = 123 ID = 291",
            {"ts_event": START + 15_991_000, "bus": 1, "can_id": 0x123, "len": 8, "data": b"\1\2\3\4\5\6\7\xff"},
        ),
        ("1.0 2  1FFFFFFFx Tx d 0", {"bus": 2, "can_id": 0x1FFFFFFF, "ext": True, "len": 0}),
        ("1.0 255 7ff TxRq d 1 a", {"bus": 255, "can_id": 0x7FF, "len": 1, "data": b"\x0a".ljust(8, b"\0")}),
        ("1.0 1 10 Rx d F 1 2 3 4 5 6 7 8", {"len": 8}),
        ("1.0 1 10 Rx r", {"can_id": 0x10 | REMOTE, "len": 0}),
        ("1.0 1 10x Rx r 4", {"can_id": 0x10 | REMOTE, "ext": True, "len": 4}),
        ("1.0 1 ErrorFrame", {"can_id": ERROR, "len": 0, "bus": 1}),
        ("1.0 1  ErrorFrame  ECC: 10100010", {"can_id": ERROR}),
        (f"1.0 CANFD   1 Rx   18FF1234x  {FD}", {"fd": True, "ext": True, "can_id": 0x18FF1234, "len": 32}),
        (f"1.0 CANFD   3 Tx   123  A_Name  {FD}", {"fd": True, "bus": 3, "data": bytes(range(32)).ljust(64, b"\0")}),
        ("1.0 CANFD 1 Rx 123 0 0 1 1 7F", {"fd": True, "len": 1}),
        ("1.0 CANFD 1 Rx 123 0 0 1 1 7F 1 1 200000", {"fd": False, "len": 1}),
        ("1.0 CANFD 1 Rx 123 0 0 9 12 " + "7F " * 12 + "1 1 0", {"fd": True, "len": 12}),
        (
            "30.300981 CANFD   3 Tx     50005x  0 1 5 0  140000  73  200050 7a60 46500250",
            {"fd": False, "len": 5, "can_id": 0x50005 | REMOTE, "ext": True},
        ),
        ("1.0 CANFD 1 Rx ErrorFrame Not Acknowledge error", {"can_id": ERROR, "fd": True}),
    ],
)
def test_a_line_becomes_its_frame(path: Path, line: str, told: dict[str, Any]) -> None:
    whole = read_whole(Asc(log(path, line)))
    assert not whole.bad, whole.bad
    (row,) = whole.rows
    assert {name: row[name] for name in told} == told
    assert row["seq"] == 4
    assert whole.dropped == {"asc: header or comment": 4}


@pytest.mark.parametrize(
    "line",
    [
        "0.000000 Start of measurement",
        "1.0 1  Statistic: D 0 R 0 XD 0 XR 0 E 0 O 0 B 0.00%",
        "1.0 CAN 1 Status:chip status error active",
        "1.0 log trigger event",
        "1.0 // a comment",
        "1.0 J1939TP FEE3p 6 0 0 - Rx d 23 A0",
        "1.0 1  J1939TP FEE3p 6 0 0 - Rx d 23 A0",
    ],
)
def test_other_events_are_counted(path: Path, line: str) -> None:
    whole = read_whole(Asc(log(path, line)))
    assert whole.dropped == {"asc: event that is no CAN frame": 1, "asc: header or comment": 4}
    assert not whole.rows
    assert not whole.bad


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hello", "neither"),
        ("1.0x 1 123 Rx d 0", "neither"),
        ("1.0 0 123 Rx d 0", "channel"),
        ("1.0 256 123 Rx d 0", "channel"),
        ("1.0 1 800 Rx d 0", "identifier"),
        ("1.0 1 20000000x Rx d 0", "identifier"),
        ("1.0 1 xyz Rx d 0", "identifier"),
        ("1.0 1", "identifier"),
        ("1.0 1 123 Up d 0", "direction"),
        ("1.0 1 123 Rx", "length"),
        ("1.0 1 123 Rx q 0", "length"),
        ("1.0 1 123 Rx d", "length"),
        ("1.0 1 123 Rx d 2 00", "data"),
        ("1.0 1 123 Rx d 2 00 100", "data"),
        ("1.0 CANFD 0 Rx 123 0 0 1 1 7F", "channel"),
        ("1.0 CANFD 1 Rx 123 0 0 1 65 7F", "length"),
        ("1.0 CANFD 1 Rx 123 0 2 1 1 7F", "length"),
        ("1.0 CANFD 1 Rx 123 0 0 1 2 7F", "data"),
        ("1.0 CANFD 1 Rx 123", "length"),
    ],
)
def test_a_frame_that_cannot_be_read_is_put_aside_whole(path: Path, line: str, why: str) -> None:
    whole = read_whole(Asc(log(path, "0.5 1 1 Rx d 0", line, "1.5 1 2 Rx d 0")))
    assert [row["can_id"] for row in whole.rows] == [1, 2]
    (bad,) = whole.bad
    assert why in bad.error
    assert bad.data == line.encode()
    assert bad.seq == 5
    assert bad.place == f"{path}, byte {len(HEAD) + 15}"


def test_numbers_in_base_dec_are_decimal(path: Path) -> None:
    head = HEAD.replace("hex", "dec")
    row = read_whole(Asc(log(path, "1.0 1 291 Rx d 3 1 20 255", "1.0 1 418316032x Rx d 0", head=head))).rows[0]
    assert (row["can_id"], row["data"][:3]) == (291, bytes([1, 20, 255]))
    payload = " ".join(str(i) for i in range(64))
    for code in ("15", "f"):
        row = read_whole(Asc(log(path, f"1.0 CANFD 1 Rx 291 1 0 {code} 64 {payload}", head=head))).rows[0]
        assert (row["can_id"], row["data"]) == (291, bytes(range(64)))


def test_relative_times_add_up_over_blocks_and_bad_lines(path: Path) -> None:
    lines = [
        "0.5 Start of measurement",
        "0.25 1 1 Rx d 0",
        "bad",
        "0.125 1 zz Rx d 0",
        *(["0.001 1 2 Rx d 0"] * 20_000),
    ]
    spec = Asc(log(path, *lines, head=HEAD.replace("absolute", "relative")))
    whole = resumes_at_every_block(spec)
    assert len(whole.blocks) > 1
    times = [row["ts_event"] - START for row in whole.rows]
    assert times == [750_000_000, *(875_000_000 + 1_000_000 * (i + 1) for i in range(20_000))]
    assert spec.retry(whole.bad[0]) is None


@pytest.mark.parametrize(
    ("date", "start"),
    [
        (DATE, START),
        ("Wed Apr 16 09:21:13.159 pm 2014", START + 12 * 3600 * 10**9),
        ("Wed Apr 16 12:21:13 am 2014", START - 9 * 3600 * 10**9 - 159_000_000),
        ("Wed Apr 16 09:21:13 2014", START - 159_000_000),
        ("Mit Mrz 16 09:21:13.1 2014", 1394961673_100_000_000),
        ("Wed Apr 16 09:21:13:159000 AM 2014", START),
        ("Die Dez 16 21:21:13.123456789 2014", 1418764873_123_456_789),
    ],
)
def test_dates_are_read_in_the_ways_loggers_write_them(path: Path, date: str, start: int) -> None:
    log(path, "0.0 1 1 Rx d 0", head=HEAD.replace(DATE, date))
    assert read_whole(Asc(path)).rows[0]["ts_event"] == start


def test_a_date_that_says_it_is_utc_is(path: Path) -> None:
    log(path, "0.0 1 1 Rx d 0", head=HEAD.replace(DATE, "Wed Apr 16 09:21:13 UTC 2014"))
    assert read_whole(Asc(path, timezone="Asia/Tokyo")).rows[0]["ts_event"] == START - 159_000_000


def test_the_trigger_block_tells_the_start_where_the_measurement_starts_with_it(path: Path) -> None:
    later = "Begin Triggerblock Wed Apr 16 09:21:14.159 am 2014"
    log(path, later, "   0.000000 Start of measurement", "1.0 1 1 Rx d 0")
    assert read_whole(Asc(path)).rows[0]["ts_event"] == START + 2 * 10**9
    log(path, later, "1.0 1 1 Rx d 0", "End TriggerBlock")
    assert read_whole(Asc(path)).rows[0]["ts_event"] == START + 10**9


def test_a_log_without_a_date_counts_from_zero_or_from_what_is_given(path: Path) -> None:
    log(path, "0.5 1 1 Rx d 0", head="base hex timestamps absolute\n")
    spec = Asc(path)
    assert spec.schema.metadata[b"penstock.clock"] == b"boot+offset"
    assert read_whole(spec).rows[0]["ts_event"] == 500_000_000
    given = Asc(path, start="2014-04-16 11:21:13.159", timezone="Europe/Berlin")
    assert read_whole(given).rows[0]["ts_event"] == START + 500_000_000
    assert given.schema.metadata[b"penstock.clock"] == b"utc"
    assert "when" in inspect_asc(str(path))["problem"]


def test_the_zone_of_the_date_can_be_given(path: Path) -> None:
    log(path, "0.0 1 1 Rx d 0")
    assert read_whole(Asc(path, timezone="Europe/Berlin")).rows[0]["ts_event"] == START - 2 * 3600 * 10**9
    with pytest.raises(GraphError, match="time zone"):
        Asc(path, timezone="Mars/Olympus")


def test_fd_frames_need_room(path: Path) -> None:
    log(path, f"1.0 CANFD 1 Rx 123 {FD}", "1.0 CANFD 1 Rx 123 0 0 1 1 7F")
    assert Asc(path).schema.field("data").type.byte_width == 64
    narrow = read_whole(Asc(path, fd=False))
    assert [row["len"] for row in narrow.rows] == [1]
    assert "fd=True" in narrow.bad[0].error


messages = st.tuples(
    st.booleans(), st.integers(0, 0x1FFFFFFF), st.binary(max_size=8), st.sampled_from(["data", "remote", "fd", "error"])
)


@settings(max_examples=60)
@given(st.lists(messages, min_size=1, max_size=15))
def test_what_python_can_writes_is_read_as_python_can_reads_it(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.asc"
    with can.ASCWriter(path) as writer:
        for i, (ext, number, data, kind) in enumerate(sent):
            what = {
                "data": {"data": data},
                "remote": {"is_remote_frame": True, "dlc": len(data)},
                "fd": {"data": data + b"\1", "is_fd": True},
                "error": {"is_error_frame": True},
            }[kind]
            number = number if ext else number & 0x7FF
            writer.on_message_received(
                can.Message(timestamp=1e9 + i / 8, arbitration_id=number, is_extended_id=ext, channel=i % 3, **what)
            )
    rows = read_whole(Asc(path)).rows
    wanted = list(can.ASCReader(path, relative_timestamp=True))
    assert len(rows) == len(wanted) == len(sent)
    for i, (row, frame) in enumerate(zip(rows, wanted, strict=True)):
        assert row["ts_event"] - rows[0]["ts_event"] == i * 125_000_000
        if frame.is_error_frame:
            assert row["can_id"] == ERROR
            continue
        assert row["can_id"] == frame.arbitration_id | (REMOTE if frame.is_remote_frame else 0)
        assert (row["ext"], row["fd"], row["len"]) == (frame.is_extended_id, frame.is_fd, frame.dlc)
        assert row["data"][: row["len"]] == (bytes(frame.dlc) if frame.is_remote_frame else bytes(frame.data))
        assert row["bus"] == frame.channel + 1


def test_a_bad_line_can_be_tried_again(path: Path) -> None:
    spec = Asc(log(path, "0.5 1 1 Rx d 0", "1.0 1 zz Rx d 0"))
    (bad,) = read_whole(spec).bad
    mended = spec.retry(BadRecord(bad.place, bad.operation, bad.error, b"1.0 1 12 Rx d 0", bad.seq))
    assert mended is not None
    assert mended.batches[0].to_pylist()[0]["can_id"] == 0x12


def test_inspect_counts_frames_by_channel(path: Path) -> None:
    log(path, "0.0 Start of measurement", "0.5 1 1 Rx d 0", "1.5 2 1 Rx d 0", "1.5 2 zz", "2.5 2 1 Rx d 0")
    found = inspect_asc(str(path))
    assert {name: topic["messages"] for name, topic in found["topics"].items()} == {"channel 1": 1, "channel 2": 2}
    assert (found["messages"], found["bad"], found["problem"], found["base"]) == (9, 1, None, "hex")
    assert sum(found["other"].values()) == 5
    assert found["time"]["start_ns"] == START + 500_000_000
    assert f"read it: sources.open({str(path)!r}); ops.CanSignals" in summary(inspect(path))
    assert open_asc(path, fd=True).fd is True


def test_a_log_is_known_by_its_header() -> None:
    assert is_asc(HEAD.encode())
    assert is_asc(b"base dec  timestamps relative\r\n")
    for other in (
        b"",
        b"date Wed\n",
        b"{}",
        b"(1.0) can0 123#",
        b"hello\nbase hex timestamps absolute\n",
        b"baseball\n",
    ):
        assert not is_asc(other)


def test_what_is_no_log_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read_whole(Asc(path))
    path.write_bytes(b"hello\n")
    with pytest.raises(FormatError, match=r"no \.asc log"):
        read_whole(Asc(path))
