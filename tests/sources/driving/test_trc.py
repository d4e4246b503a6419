"""PEAK's traces against python-can's reader, and every version and kind of line by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving.trc import Trc, inspect_trc, is_trc, open_trc
from penstock.sources.formats import format_of
from penstock.sources.inspection import inspect, summary
from source_reading import read_whole, resumes_at_every_block

REMOTE, ERROR = 0x40000000, 0x20000000
#: 24.03.2003 12:52:32.484, as PEAK writes it: a day count with ten decimals.
DAYS, START = "37704.5364870833", 1048510352_483_997_000
V10 = """\
;##########################################################################
;   C:\\TraceFile.trc
;
;    CAN activities recorded by PCAN Explorer
;    Start time: 11.09.2002 16:00:20.682
;    PCAN-Net: PCI1
;
;----+-   ---+---  ----+---  +  -+ -- -- ...
"""
V11 = f";$FILEVERSION=1.1\n;$STARTTIME={DAYS}\n;\n;---+--   ----+----  --+--  ----+---  +  -+ -- --\n"
V12 = V11.replace("1.1", "1.2", 1).replace(DAYS, DAYS + ";")
V13 = V11.replace("1.1", "1.3", 1)
V20 = f";$FILEVERSION=2.0\n;$STARTTIME={DAYS}\n;$COLUMNS=N,O,T,I,d,l,D\n;\n"
V21 = f";$FILEVERSION=2.1 \n;$STARTTIME={DAYS} \n;$COLUMNS=N,O,T,B,I,d,R,L,D \n;\n"
LONG = "01 02 03 04 05 06 07 08 09 0A 0B 0C"


def log(path: Path, *lines: str, head: str = V21, newline: str = "\n") -> Path:
    path.write_bytes((head + "\n".join(lines) + "\n").replace("\n", newline).encode("latin-1"))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.trc"


SOUND = [
    (V10, "     1)      1841      0001  8  00 00 00 00 00 00 00 FF ", {"can_id": 1, "len": 8, "bus": 1}),
    (V10, "     2)      1842      0008  4  ERROR 00 19 08 08", {"can_id": ERROR, "len": 0}),
    (V10, "     4)      1844      0100  3  RTR", {"can_id": 0x100 | REMOTE, "len": 3}),
    (V10, "123456)1844  00000100  0", {"can_id": 0x100, "ext": True, "len": 0}),
    (V11, "     1)      1059.9  Rx         0300  7  00 00 00 00 04 00 00", {"can_id": 0x300, "len": 7}),
    (V11, "     6)      1349.2  Error      0008  4  00 19 08 08", {"can_id": ERROR, "len": 0}),
    (V11, "     7)      1352.7  Rx         0100  3  RTR", {"can_id": 0x100 | REMOTE, "len": 3}),
    (
        V12,
        "     2)      1283.231  4  Tx     18EFC034  2  aB Cd",
        {"bus": 4, "ext": True, "can_id": 0x18EFC034, "len": 2},
    ),
    (V12, "     6)      1349.222  1  Error      0008  4  00 19 08 08", {"can_id": ERROR}),
    (V13, "     1)      1059.900 255  Rx    0300 -  7    00 00 00 00 04 00 00", {"bus": 255, "len": 7}),
    (V13, "     6)      1349.222 2  Error     0008 -  4    00 19 08 08", {"bus": 2, "can_id": ERROR}),
    (V13, "     7)      1352.743 1  Rx        0100 -  3    RTR", {"can_id": 0x100 | REMOTE}),
    (V20, "      5      1334.416 FD     0500 Tx 12 " + LONG, {"fd": True, "len": 12, "can_id": 0x500}),
    (V20, "      6      1334.522 ER          Rx    04 00 02 00 00", {"can_id": ERROR, "bus": 1}),
    (V20, "     10      1336.543 RR     0100 Rx 3 ", {"can_id": 0x100 | REMOTE, "len": 3}),
    (V20, "      1      0.0 DT 18EFC034 Tx 8  01 02 03 04 05 06 07 08", {"ext": True, "fd": False}),
    (V21, "      1      1059.900 DT 1      0300 Rx -  7    00 00 00 00 04 00 00 ", {"bus": 1, "len": 7}),
    (V21, "      5      1334.416 FD 2      0500 Tx -  9    " + LONG, {"fd": True, "len": 12, "bus": 2}),
    (V21, "      5      1334.416 FB 2      0500 Tx -  15    " + "FB " * 64, {"fd": True, "len": 64}),
    (V21, "      5      1334.416 FE 2      0500 Tx -  13    " + "FE " * 32, {"fd": True, "len": 32}),
    (V21, "      5      1334.416 BI 2      0500 Tx -  10    " + "00 " * 16, {"fd": True, "len": 16}),
    (V21, "      5      1334.416 DT 2      0500 Tx -  15    " + "00 " * 8, {"fd": False, "len": 8}),
    (V21, "      6      1334.222 ER 3         - Rx -  5    04 00 02 00 00 ", {"bus": 3, "can_id": ERROR, "len": 0}),
    (V21, "     13      1336.543 RR 1      0100 Rx -  3 ", {"can_id": 0x100 | REMOTE, "len": 3}),
    (V21.replace("N,O", "O, X"), "1336.543 ? DT 1 0100 Rx - 1 07", {"can_id": 0x100, "len": 1}),
]


@pytest.mark.parametrize(("head", "line", "told"), SOUND, ids=[str(i) for i in range(len(SOUND))])
def test_a_line_becomes_its_frame(path: Path, head: str, line: str, told: dict[str, Any]) -> None:
    for newline in ("\n", "\r\n"):
        whole = read_whole(Trc(log(path, line, head=head, newline=newline)))
        assert not whole.bad, whole.bad
        (row,) = whole.rows
        assert {name: row[name] for name in told} == told
        assert row["seq"] == head.count("\n") == whole.dropped["trc: comment"]
        if row["can_id"] < ERROR and row["len"]:
            numbers = [word for word in line.split() if len(word) == 2][-row["len"] :]
            assert row["data"][: row["len"]] == bytes.fromhex("".join(numbers))


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (V10, "     3)      1843  FFFFFFFF  4  00 00 00 04 -- -- -- --  BUSLIGHT"),
        (V11, "     5)      1346.8  Warng  FFFFFFFF  4  00 00 00 04  BUSLIGHT"),
        (V13, "     5)      1346.834 1  Warng FFFFFFFF -  4    00 00 00 04  BUSLIGHT"),
        (V20, "      7      1334.531 ST          Rx    00 00 00 08"),
        (V20, "      8      1334.643 EC          Rx    02 02"),
        (V21, "      7      1334.224 EV 1  User-defined event for bus 1"),
        (V21, "      8      1334.225 EV -  User-defined event for all busses"),
        (V21, "      9      1334.231 ST 1         - Rx -  4    00 00 00 08"),
    ],
)
def test_other_events_are_counted(path: Path, head: str, line: str) -> None:
    whole = read_whole(Trc(log(path, line, head=head)))
    assert whole.dropped == {"trc: event that is no CAN frame": 1, "trc: comment": head.count("\n")}
    assert not whole.rows and not whole.bad


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hello", "number of a message"),
        ("1x 1.0 DT 1 0300 Rx - 0", "number of a message"),
        ("1", "milliseconds"),
        ("1 x DT 1 0300 Rx - 0", "milliseconds"),
        ("1 -1.0 DT 1 0300 Rx - 0", "milliseconds"),
        ("1 1.0000000001 DT 1 0300 Rx - 0", "milliseconds"),
        ("1 9200000000000.0 DT 1 0300 Rx - 0", "beyond"),
        ("1 99999999999999999999 DT 1 0300 Rx - 0", "beyond"),
        ("1 9199999999999.0 DT 1 0300 Rx - 0", "beyond"),
        ("1 1.0 XY 1 0300 Rx - 0", "type"),
        ("1 1.0 DTX 1 0300 Rx - 0", "type"),
        ("1 1.0 DT 0 0300 Rx - 0", "bus"),
        ("1 1.0 DT 256 0300 Rx - 0", "bus"),
        ("1 1.0 DT - 0300 Rx - 0", "bus"),
        ("1 1.0 ER - - Rx - 0", "bus"),
        ("1 1.0 DT 1 0800 Rx - 0", "identifier"),
        ("1 1.0 DT 1 20000000 Rx - 0", "identifier"),
        ("1 1.0 DT 1 - Rx - 0", "identifier"),
        ("1 1.0 DT 1 000000300 Rx - 0", "identifier"),
        ("1 1.0 DT 1 0300 Up - 0", "direction"),
        ("1 1.0 DT 1 0300 Rx -", "length"),
        ("1 1.0 DT 1 0300 Rx - 16", "length"),
        ("1 1.0 DT 1 0300 Rx - 1785", "length"),
        ("1 1.0 FD 1 0300 Rx - 16 " + "00 " * 15 + "00", "length"),
        ("1 1.0 DT 1 0300 Rx - 2 00", "data"),
        ("1 1.0 DT 1 0300 Rx - 2 00 0G", "data"),
        ("1 1.0 DT 1 0300 Rx - 2 00 000", "data"),
        ("1 1.0 DT 1 0300 Rx - 2 00 00 00", "data"),
    ],
)
def test_a_line_that_cannot_be_read_is_put_aside_whole(path: Path, line: str, why: str) -> None:
    sound = "1 0.5 DT 1 0001 Rx - 0"
    spec = Trc(log(path, sound, line, sound))
    whole = read_whole(spec)
    assert [row["can_id"] for row in whole.rows] == [1, 1]
    (bad,) = whole.bad
    assert why in bad.error
    assert (bad.data, bad.seq, bad.operation) == (line.encode(), 5, "trc.decode")
    assert bad.place == f"{path}, byte {len(V21) + len(sound) + 1}"
    again = spec.retry(bad)
    assert again is not None and again.bad[0].error == bad.error
    mended = spec.retry(BadRecord(bad.place, bad.operation, bad.error, sound.encode(), bad.seq))
    assert mended is not None and mended.batches[0].to_pylist()[0]["can_id"] == 1


@pytest.mark.parametrize(
    ("offset", "ns"), [("1059.9", 1_059_900_000), ("0.123456", 123_456), ("0.123456789", 123_456), ("7,5", 7_500_000)]
)
def test_times_are_milliseconds_since_the_start(path: Path, offset: str, ns: int) -> None:
    log(path, f"1 {offset} DT 1 0300 Rx - 0")
    assert read_whole(Trc(path)).rows[0]["ts_event"] == START + ns
    assert read_whole(Trc(path, start="1970-01-01 00:00:01")).rows[0]["ts_event"] == 10**9 + ns


@pytest.mark.parametrize(
    ("days", "start"),
    [
        (DAYS, START),
        ("44548.6028595139", 1639837687_062_001_000),  # of which PEAK's own converter says 14:28:07.062.001
        ("43008.920986006946", 1506809173_191_000_000),
        ("25569", 0),
        ("25569,5", 43200 * 10**9),
    ],
)
def test_the_start_is_a_day_count_read_to_the_microsecond(path: Path, days: str, start: int) -> None:
    log(path, "1 0.0 DT 1 0300 Rx - 0", head=V21.replace(DAYS, days))
    assert read_whole(Trc(path)).rows[0]["ts_event"] == start


def test_the_zone_of_the_start_can_be_given(path: Path) -> None:
    log(path, "1 0.0 DT 1 0300 Rx - 0")
    assert read_whole(Trc(path, timezone="Europe/Berlin")).rows[0]["ts_event"] == START - 3600 * 10**9
    with pytest.raises(GraphError, match="time zone"):
        Trc(path, timezone="Mars/Olympus")


@pytest.mark.parametrize(
    ("told", "start"),
    [
        ("11.09.2002 16:00:20.682", 1031760020_682_000_000),
        ("11-09-2002 16:00:20.682.1", 1031760020_682_100_000),
        ("2002-09-11 16:00:20.682001", 1031760020_682_001_000),
        ("2002-09-11 16:00:20+00:00", 1031760020_000_000_000),
        ("9/11/2002 4:00:20 PM", None),
        ("31.02.2002 16:00:20.682", None),
    ],
)
def test_version_1_0_says_in_a_comment_when_it_began(path: Path, told: str, start: int | None) -> None:
    log(path, "  1)  1  0300  0", head=V10.replace("11.09.2002 16:00:20.682", told))
    spec = Trc(path, timezone="UTC" if start is None or "+" not in told else "Asia/Tokyo")
    assert read_whole(spec).rows[0]["ts_event"] == (start or 0) + 1_000_000
    clock = b"utc" if start is not None else b"boot+offset"
    assert spec.schema.metadata[b"penstock.clock"] == clock
    assert (inspect_trc(path)["problem"] is None) == (start is not None)


@pytest.mark.parametrize("days", ["0", "x", "365.5", "9999999.5", "999999.5", ""])
def test_a_start_that_is_none_counts_from_zero(path: Path, days: str) -> None:
    log(path, "1 1.0 DT 1 0300 Rx - 0", head=V21.replace(DAYS, days))
    assert read_whole(Trc(path)).rows[0]["ts_event"] == 1_000_000
    assert "when" in inspect_trc(path)["problem"]


def test_fd_frames_need_room(path: Path) -> None:
    log(path, f"1 1.0 FD 1 0300 Rx - 9 {LONG}", "1 1.0 DT 1 0300 Rx - 1 FD")
    assert Trc(path).schema.field("data").type.byte_width == 64
    narrow = read_whole(Trc(path, fd=False))
    assert [row["len"] for row in narrow.rows] == [1]
    assert "fd=True" in narrow.bad[0].error
    log(path, "1 1.0 DT 1 0300 Rx - 3 FD FB FE")
    assert Trc(path).schema.field("data").type.byte_width == 8


def test_versions_without_known_columns_are_refused(path: Path) -> None:
    log(path, "1 1.0", head=V11.replace("1.1", "1.7", 1))
    with pytest.raises(FormatError, match=r"'1.7' and has no \$COLUMNS"):
        read_whole(Trc(path))
    log(path, "1 1.0", head=V21.replace("O,", ""))
    with pytest.raises(FormatError, match=r"needs O \(time\)"):
        read_whole(Trc(path))


messages = st.tuples(st.booleans(), st.integers(0, 0x1FFFFFFF), st.binary(max_size=8))


@settings(max_examples=60)
@given(sent=st.lists(messages, min_size=1, max_size=15), old=st.booleans())
def test_what_python_can_writes_is_read_as_python_can_reads_it(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Any], old: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.trc"
    with can.TRCWriter(path) as writer:
        if old:
            writer.file_version = can.io.trc.TRCFileVersion.V1_0
        for i, (ext, number, data) in enumerate(sent):
            number = number if ext else number & 0x7FF
            writer.on_message_received(
                can.Message(timestamp=1e9 + i / 8, arbitration_id=number, is_extended_id=ext, channel=i % 3, data=data)
            )
    whole = read_whole(Trc(path))
    wanted = list(can.TRCReader(path))
    assert len(whole.rows) == len(wanted) == len(sent)
    assert not whole.bad
    for i, (row, frame) in enumerate(zip(whole.rows, wanted, strict=True)):
        assert row["ts_event"] == 10**18 + i * 125_000_000
        assert (row["can_id"], row["ext"]) == (frame.arbitration_id, frame.is_extended_id)
        assert row["data"][: row["len"]] == bytes(frame.data)
        assert row["bus"] == frame.channel


def test_many_blocks_are_gone_on_from(path: Path) -> None:
    lines = [f"{i} {i}.5 DT {i % 9 + 1} {i % 2048:04X} Rx - 2 {i % 256:02X} 00" for i in range(20_000)]
    lines[7_000] = "broken"
    whole = resumes_at_every_block(Trc(log(path, *lines, head=V21)))
    assert len(whole.blocks) > 1
    assert (len(whole.rows), len(whole.bad)) == (19_999, 1)


def test_inspect_counts_frames_by_bus(path: Path) -> None:
    log(path, *(f"{i} {i}.0 DT {i // 2 + 1} 0300 Rx - 0" for i in range(3)), "4 4.0 EV - hello", "broken")
    found = inspect_trc(path)
    assert {name: topic["messages"] for name, topic in found["topics"].items()} == {"bus 1": 2, "bus 2": 1}
    assert (found["version"], found["messages"], found["bad"], found["problem"]) == ("2.1", 9, 1, None)
    assert found["time"]["start_ns"] == START
    assert f"read it: sources.open({str(path)!r}); ops.CanSignals" in summary(inspect(path))
    assert open_trc(path, fd=True).fd is True


def test_a_trace_is_known_by_its_header(path: Path) -> None:
    for head in (V11, V13, V20, V21, "\r\n" + V21, V10):
        assert is_trc(head.encode())
        assert format_of(log(path, "", head=head)).name == "PEAK TRC"
    plain = V10.replace("PCAN-Net", "Net")
    assert not is_trc(plain.encode())
    assert is_trc(plain.encode() + b"     1)      1841      0001  8  00 00 00 00 00 00 00 00")
    lin = V11 + ";   Checksum Type description:\n     1)     756186   Sub   02  2  -- --  00  EH  SR/TO\n"
    for other in (b"", b"; a comment\n; another\n", b"{}", b"1) 2", b";;; ini\n[x]\na=1\n", lin.encode()):
        assert not is_trc(other)
    with pytest.raises(FormatError, match="a trace of PEAK that is none of CAN"):
        format_of(log(path, head=lin))


def test_what_is_no_trace_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read_whole(Trc(path))
    path.write_bytes(b"hello\n")
    with pytest.raises(FormatError, match="no CAN trace"):
        read_whole(Trc(path))
