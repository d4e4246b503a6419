"""candump logs against python-can's reader, and every kind of line by itself."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving.candump import Candump, inspect_candump, is_candump, open_candump
from source_reading import read_whole, resumes_at_every_block

REMOTE, ERROR = 0x40000000, 0x20000000


def log(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def one(path: Path, line: str, **options: Any) -> dict[str, Any]:
    whole = read_whole(Candump(log(path, line), **options))
    assert not whole.bad, whole.bad
    (row,) = whole.rows
    return row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.log"


FIRST = "(1436509052.249713) vcan0 044#2A366C2B00000000"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (FIRST, {"ts_event": 1436509052249713000, "can_id": 0x44, "len": 8, "data": bytes.fromhex("2A366C2B00000000")}),
        ("(0.0) a 7FF#", {"ts_event": 0, "can_id": 0x7FF, "len": 0, "ext": False}),
        ("(1.000000001) a 000007FF#11", {"ts_event": 1_000_000_001, "can_id": 0x7FF, "ext": True, "len": 1}),
        ("(1.5) a 1FFFFFFF#11.22.33", {"can_id": 0x1FFFFFFF, "ext": True, "len": 3, "ts_event": 1_500_000_000}),
        ("(1.0) a 123#R", {"can_id": 0x123 | REMOTE, "len": 0, "data": bytes(8)}),
        ("(1.0) a 123#R5", {"can_id": 0x123 | REMOTE, "len": 5, "data": bytes(8)}),
        ("(1.0) a 123#1122334455667788_E", {"len": 8, "data": bytes.fromhex("1122334455667788")}),
        ("(1.0) a 20000004#0004000000000000", {"can_id": ERROR | 4, "ext": False, "len": 8}),
        ("(1.0) a 123#11 R", {"len": 1}),
        ("(1.0) a 123#11 T", {"len": 1}),
        ("(1.0) a 123##011", {"fd": True, "len": 1, "data": b"\x11".ljust(64, b"\0")}),
        ("(1.0) a 123##5" + "AB" * 64, {"fd": True, "len": 64, "data": b"\xab" * 64}),
        ("(1.0)  can0  123   [2]  11 22", {"len": 2, "fd": False, "data": b"\x11\x22".ljust(8, b"\0")}),
        ("(1.0)  can0  123   [2]  11 22   '.\"'", {"len": 2}),
        ("(1.0)  can0  123  [02]  11 22", {"len": 2, "fd": True}),
        ("(1.0)  can0  123   [0]  remote request", {"len": 0, "can_id": 0x123 | REMOTE}),
        ("(1.0)  can0  20000004   [8]  00 04 00 00 00 00 00 00   ERRORFRAME", {"can_id": ERROR | 4, "len": 8}),
        ("\t(1.0)\tcan0\t123#11  \r", {"len": 1}),
        ("(1.0)  can0  RX - -  123   [2]  11 22", {"can_id": 0x123, "len": 2, "fd": False}),
        ("(1.0)  can0  TX B E  12345678  [02]  11 22", {"can_id": 0x12345678, "ext": True, "len": 2, "fd": True}),
    ],
)
def test_a_line_becomes_its_frame(path: Path, line: str, told: dict[str, Any]) -> None:
    row = one(path, line)
    assert {name: row[name] for name in told} == told
    assert row["ts_recv"] == row["ts_event"]
    assert row["bus"] == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("garbage", "time"),
        ("(1) a 123#11", "time"),
        ("(1.0123456789) a 123#11", "time"),
        ("(9999999999.0) a 123#11", "time"),
        ("(-1.0) a 123#11", "time"),
        ("(1.0)a 123#11", "interface"),
        ("(1.0) abcdefghijklmnop 123#11", "interface"),
        ("(1.0) a", "interface"),
        ("(1.0) a 12#11", "identifier"),
        ("(1.0) a 800#11", "identifier"),
        ("(1.0) a 40000000#11", "identifier"),
        ("(1.0) a 123456789#11", "identifier"),
        ("(1.0) a 123", "identifier"),
        ("(1.0) a 123 11", "identifier"),
        ("(1.0) a RX", "identifier"),
        ("(1.0) a RX - - 12", "identifier"),
        ("(1.0) a 123#1", "hexadecimal"),
        ("(1.0) a 123#1G", "hexadecimal"),
        ("(1.0) a 123#11 22", "behind"),
        ("(1.0) a 123#" + "11" * 9, "more than 8"),
        ("(1.0) a 123##", "hexadecimal"),
        ("(1.0) a 123   [9]  11", "more than 8"),
        ("(1.0) a 123   [2]  11", "hexadecimal"),
        ("(1.0) a 123   [1]  11 22", "hexadecimal"),
        ("(1.0) a 123   [1  11", "hexadecimal"),
        ("(1.0) a 123#11" + " " * 2000 + "x", "too long"),
    ],
)
def test_a_line_that_is_no_frame_is_put_aside_whole(path: Path, line: str, why: str) -> None:
    whole = read_whole(Candump(log(path, FIRST, "", line, FIRST), fd=False))
    assert [row["seq"] for row in whole.rows] == [0, 2]
    (bad,) = whole.bad
    assert why in bad.error
    assert bad.data == line.encode()
    assert bad.seq == 1
    assert bad.place == f"{path}, byte {len(FIRST) + 2}"
    assert bad.operation == "candump.decode"


def test_fd_frames_need_room(path: Path) -> None:
    log(path, FIRST, "(1.0) a 123##0" + "11" * 8, "(1.0) a 123##0" + "11" * 12)
    assert Candump(path).schema.field("data").type.byte_width == 64
    assert len(read_whole(Candump(path)).rows) == 3
    narrow = read_whole(Candump(path, fd=False))
    assert [row["len"] for row in narrow.rows] == [8, 8]
    assert "fd=True" in narrow.bad[0].error


def test_buses_are_numbered_as_interfaces_appear_and_named_in_the_schema(path: Path) -> None:
    names = ["vcan0", "can1", "vcan0", "x", "can1"]
    spec = Candump(log(path, *(f"({i}.0) {name} 123#" for i, name in enumerate(names))))
    assert [row["bus"] for row in read_whole(spec).rows] == [0, 1, 0, 2, 1]
    assert spec.schema.metadata[b"penstock.interfaces"] == b"vcan0,can1,x"
    chosen = Candump(path, interfaces=["x", "y"])
    assert [row["bus"] for row in read_whole(chosen).rows] == [2, 3, 2, 0, 3]
    assert chosen.schema.metadata[b"penstock.interfaces"] == b"x,y,vcan0,can1"


def test_the_257th_interface_is_put_aside(path: Path) -> None:
    spec = Candump(log(path, *(f"({i}.0) i{i} 123#" for i in range(258)), "(5.0) i7 123#"))
    whole = read_whole(spec)
    assert [row["bus"] for row in whole.rows] == [*range(256), 7]
    assert [record.seq for record in whole.bad] == [256, 257]


def test_reading_goes_on_behind_every_block_with_the_same_buses(path: Path) -> None:
    lines = [f"({i}.5) can{i * i % 7} {i % 2048:03X}#{i:04X}" for i in range(40_000)]
    lines[7] = "x" * 300_000  # longer than any buffer
    lines[20_000] = "bad line"
    lines[-1] = "y" * 70_000
    whole = resumes_at_every_block(Candump(log(path, *lines)))
    assert len(whole.blocks) > 4
    assert whole.records == 40_000
    assert [record.seq for record in whole.bad] == [7, 20_000, 39_999]
    assert all(row["can_id"] == row["seq"] % 2048 for row in whole.rows)
    order = list(dict.fromkeys(i * i % 7 for i in range(40_000) if i not in (7, 20_000, 39_999)))
    assert [row["bus"] for row in whole.rows[:50]] == [order.index(row["seq"] ** 2 % 7) for row in whole.rows[:50]]


def test_a_packed_log_reads_the_same_and_a_cut_one_says_where(path: Path) -> None:
    lines = [f"({i}.25) can0 123#{i:08X}" for i in range(5000)]
    plain = read_whole(Candump(log(path, *lines))).table
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_whole(Candump(packed)).table.to_pydict() == plain.to_pydict()
    packed.write_bytes(packed.read_bytes()[:-2000])
    cut = read_whole(Candump(packed))
    assert "gzip" in cut.bad[-1].error
    assert 0 < len(cut.rows) < 5000


messages = st.builds(
    lambda ext, number, data, kind, dlc: (ext, number if ext else number & 0x7FF, data, kind, dlc),
    st.booleans(),
    st.integers(0, 0x1FFFFFFF),
    st.binary(max_size=8),
    st.sampled_from(["data", "data", "remote", "fd"]),
    st.integers(0, 8),
)


@settings(max_examples=60)
@given(st.lists(messages, min_size=1, max_size=20))
def test_what_python_can_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, sent: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "written.log"
    frames = []
    for i, (ext, number, data, kind, dlc) in enumerate(sent):
        what = {"is_remote_frame": True, "dlc": dlc} if kind == "remote" else {"data": data, "is_fd": kind == "fd"}
        frames.append(
            can.Message(timestamp=100 + i / 8, arbitration_id=number, is_extended_id=ext, channel=f"can{i % 3}", **what)
        )
    with can.CanutilsLogWriter(path) as writer:
        for frame in frames:
            writer.on_message_received(frame)
    rows = read_whole(Candump(path)).rows
    assert len(rows) == len(frames)
    for row, frame, read in zip(rows, frames, can.CanutilsLogReader(path), strict=True):
        assert row["ts_event"] == int(frame.timestamp * 8) * 125_000_000
        assert row["can_id"] == read.arbitration_id | (REMOTE if read.is_remote_frame else 0)
        assert (row["ext"], row["fd"], row["len"]) == (read.is_extended_id, read.is_fd, read.dlc)
        assert row["data"][: row["len"]] == (bytes(read.dlc) if read.is_remote_frame else bytes(read.data))
        assert row["bus"] == int(read.channel[3:])


@settings(max_examples=100)
@given(st.integers(0, 9_199_999_999), st.text("0123456789", min_size=1, max_size=9))
def test_times_are_exact_to_the_last_digit(tmp_path_factory: pytest.TempPathFactory, whole: int, part: str) -> None:
    row = one(tmp_path_factory.getbasetemp() / "time.log", f"({whole}.{part}) can0 123#")
    assert row["ts_event"] == whole * 10**9 + int(part.ljust(9, "0"))


def test_a_bad_line_can_be_tried_again(path: Path) -> None:
    spec = Candump(log(path, FIRST, "(1.0) b 12#"), fd=True)
    (bad,) = read_whole(spec).bad
    again = spec.retry(bad)
    assert again is not None
    assert again.bad[0].error == bad.error
    mended = spec.retry(BadRecord(bad.place, bad.operation, bad.error, b"(1.0) b 012#AA", bad.seq))
    assert mended is not None
    (row,) = mended.batches[0].to_pylist()
    assert (row["seq"], row["can_id"], row["len"]) == (1, 0x12, 1)


def test_inspect_counts_frames_by_interface(path: Path) -> None:
    log(path, FIRST, "(1436509053.5) can1 044#", "", "bad", "(1436509054.5) can1 044#")
    found = inspect_candump(str(path))
    assert {name: topic["messages"] for name, topic in found["topics"].items()} == {"vcan0": 1, "can1": 2}
    assert (found["messages"], found["bad"], found["problem"]) == (4, 1, None)
    assert found["time"]["start"] == "2015-07-10T06:17:32.249713000Z"
    assert open_candump(path, fd=True).fd is True


def test_a_log_is_known_by_its_first_line() -> None:
    assert is_candump(FIRST.encode())
    assert is_candump(b"\n\n (1.5)  can0  044   [8]  2A 36")
    assert is_candump(b"(1.5)  can0  RX - -  044   [8]  2A 36")
    for other in (b"", b"(1.5) can0", b"{}", b"date Wed", b"S\0\0", b"0.0 1 123 Rx d 0", b"(a) b 123#"):
        assert not is_candump(other)


def test_what_is_no_log_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read_whole(Candump(path))
    path.write_bytes(b"hello\n")
    with pytest.raises(FormatError, match="no candump log"):
        read_whole(Candump(path))
    with pytest.raises(GraphError, match="interfaces"):
        Candump(path, interfaces=["a", "a"])
