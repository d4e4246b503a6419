"""BLF logs against python-can's reader, and by hand what python-can does not write."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import blf_files as blf
import can
import pytest
from blf_files import container, file_head, thing
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving.blf import Blf, inspect_blf, is_blf, open_blf
from penstock.sources.inspection import inspect, summary
from source_reading import read_whole, resumes_at_every_block

REMOTE, ERROR, WIDE = 0x40000000, 0x20000000, 0x80000000
START = 1397640073_159_000_000
ONE = thing(1, blf.can_message(1, 0x123, b"\1\2\3"), 1000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.blf"


def log(path: Path, *objects: bytes, packed: bool = True, head: bytes | None = None) -> Path:
    path.write_bytes((file_head() if head is None else head) + container(b"".join(objects), packed=packed))
    return path


LONG = bytes(range(64))


#: Objects, and what their rows have.
SOUND: list[tuple[bytes, dict[str, Any]]] = [
    (ONE, {"ts_event": START + 1000, "bus": 1, "can_id": 0x123, "len": 3, "data": b"\1\2\3".ljust(8, b"\0")}),
    (thing(1, blf.can_message(2, 5, b""), 7, flags=1), {"ts_event": START + 70_000, "bus": 2, "len": 0}),
    (thing(1, blf.can_message(0, 5 | WIDE, b"x")), {"bus": 0, "can_id": 5, "ext": True}),
    (thing(1, blf.can_message(255, 0x7FF, b"12345678", code=15)), {"bus": 255, "len": 8, "data": b"12345678"}),
    (thing(1, blf.can_message(1, 0x1FFFFFFF | WIDE, b"", flags=0x80, code=4)), {"can_id": 0x5FFFFFFF, "len": 4}),
    (thing(86, blf.can_message(1, 9, b"abc") + bytes(8), 5, version=2), {"can_id": 9, "data": b"abc" + bytes(5)}),
    (thing(1, blf.can_message(1, 9, b"abc"), 5, head=40), {"can_id": 9, "ts_event": START + 5}),
    (thing(1, blf.can_message(1, 9, b"abc"), 5, version=3), {"can_id": 9, "ts_event": START + 5}),
    (thing(100, blf.fd_message(3, 7, LONG)), {"bus": 3, "fd": True, "len": 64, "data": LONG}),
    (thing(100, blf.fd_message(3, 7 | WIDE, b"ab", fd=0)), {"fd": False, "ext": True, "len": 2}),
    (thing(100, blf.fd_message(3, 7, b"", fd=0, flags=0x80, code=5)), {"can_id": 7 | REMOTE, "len": 5}),
    (thing(101, blf.fd_64(4, 7, LONG[:12])), {"bus": 4, "fd": True, "len": 12, "data": LONG[:12].ljust(64, b"\0")}),
    (thing(101, blf.fd_64(4, 7, b"ab", flags=0x10, code=2)), {"can_id": 7 | REMOTE, "fd": False, "data": bytes(64)}),
    (thing(101, blf.fd_64(4, 7, b"abcd", valid=20)), {"len": 20, "data": b"abcd".ljust(64, b"\0")}),
    (thing(101, blf.fd_64(4, 7, b"abcdEXTRA", valid=20, more=76)), {"len": 20, "data": b"abcd".ljust(64, b"\0")}),
    (thing(101, blf.fd_64(4, 7, b"abcd", more=1)), {"len": 4, "data": bytes(64)}),
    (thing(2, blf.error(5), 6), {"bus": 5, "can_id": ERROR, "len": 0, "fd": False, "ts_event": START + 6}),
    (thing(73, blf.error_ext(5, 7 | WIDE, b"abc")), {"can_id": ERROR, "ext": False, "len": 0, "data": bytes(8)}),
    (thing(104, blf.fd_error_64(6, b"abc")), {"bus": 6, "can_id": ERROR, "fd": True, "len": 0}),
]
#: Objects, and what is wrong with them.
UNSOUND: list[tuple[bytes, str]] = [
    (thing(1, blf.can_message(256, 5, b"")), "channel"),
    (thing(1, blf.can_message(1, 0x800, b"")), "identifier"),
    (thing(1, blf.can_message(1, 0x20000000 | WIDE, b"")), "identifier"),
    (thing(1, blf.can_message(1, 0x20000000, b"")), "identifier"),
    (thing(1, blf.can_message(1, 5, b"12345678")[:12]), "data"),
    (thing(1, blf.can_message(1, 5, b"")[:6]), "too short"),
    (thing(1, b""), "too short"),
    (thing(2, b""), "too short"),
    (thing(1, blf.can_message(1, 5, b""), flags=0), "10 us"),
    (thing(1, blf.can_message(1, 5, b""), flags=3), "10 us"),
    (thing(1, blf.can_message(1, 5, b""), 2**63), "beyond"),
    (thing(1, blf.can_message(1, 5, b""), 2**60, flags=1), "beyond"),
    (thing(1, blf.can_message(1, 5, b""), 9_200_000_000 * 10**9), "beyond"),
    (thing(100, blf.fd_message(1, 5, LONG)[:83]), "data"),
    (thing(100, blf.fd_message(1, 5, LONG)[:19]), "too short"),
    (thing(101, blf.fd_64(1, 5, b"")[:39]), "too short"),
    (thing(101, blf.fd_64(1, 5, b"a", valid=65)), "length"),
    (container(ONE, pad=b""), "inside a container"),
]


def numbered(cases: list[Any]) -> list[str]:
    return [str(i) for i in range(len(cases))]


@pytest.mark.parametrize(("given", "told"), SOUND, ids=numbered(SOUND))
@pytest.mark.parametrize("packed", [True, False])
def test_an_object_becomes_its_frame(path: Path, given: bytes, told: dict[str, Any], packed: bool) -> None:
    whole = read_whole(Blf(log(path, ONE, given, bytes(len(given) % 4), ONE, packed=packed)))
    assert not whole.bad, whole.bad
    assert [row["can_id"] for row in whole.rows[::2]] == [0x123, 0x123]
    row = whole.rows[1]
    assert {name: row[name] for name in told if name != "data"} == {n: v for n, v in told.items() if n != "data"}
    assert row["data"] == told.get("data", row["data"]).ljust(len(row["data"]), b"\0")
    assert row["seq"] == 1 and row["ts_recv"] == row["ts_event"]


@pytest.mark.parametrize(("given", "why"), UNSOUND, ids=numbered(UNSOUND))
def test_an_object_that_cannot_be_read_is_put_aside_whole(path: Path, given: bytes, why: str) -> None:
    spec = Blf(log(path, ONE, given, ONE))
    whole = read_whole(spec)
    assert [row["seq"] for row in whole.rows] == [0, 2]
    (bad,) = whole.bad
    assert why in bad.error
    assert (bad.data, bad.seq, bad.operation) == (given, 1, "blf.decode")
    assert bad.place == f"{path}, byte 144, {len(ONE)} bytes into its content"
    again = spec.retry(bad)
    assert again is None or again.bad[0].error == bad.error


def test_a_mended_object_can_be_tried_again(path: Path) -> None:
    spec = Blf(log(path, ONE, thing(1, blf.can_message(999, 5, b""))))
    (bad,) = read_whole(spec).bad
    mended = spec.retry(BadRecord(bad.place, bad.operation, bad.error, ONE, bad.seq))
    assert mended is not None
    assert mended.batches[0].to_pylist()[0]["can_id"] == 0x123
    assert spec.retry(BadRecord(bad.place, "blf.frame", bad.error, ONE, 1)) is None


def test_other_objects_are_counted_by_type(path: Path) -> None:
    others = [thing(kind, b"x" * 20) for kind in (65, 65, 71, 11, 115, 160, 70000)]
    whole = read_whole(Blf(log(path, ONE, *others, ONE)))
    assert whole.dropped == {
        "blf: text (object type 65)": 2,
        "blf: Ethernet (object type 71)": 1,
        "blf: LIN (object type 11)": 1,
        "blf: restore points (object type 115)": 1,
        "blf: unknown (object type 160)": 1,
        "blf: unknown (object type 255 or more)": 1,
    }
    assert not whole.bad
    assert [row["seq"] for row in whole.rows] == [0, 8]


@pytest.mark.parametrize("pad", [lambda size: 0, lambda size: size % 4, lambda size: -size % 4])
def test_objects_are_padded_as_loggers_do(path: Path, pad: Any) -> None:
    objects = [thing(65, b"x" * size) for size in range(40)]
    padded = [each + bytes(pad(len(each))) for each in objects]
    whole = resumes_at_every_block(Blf(log(path, *padded, ONE)))
    assert (sum(whole.dropped.values()), len(whole.rows), whole.bad) == (40, 1, [])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("size", [1, 7, 16, 31, 50, 1000])
def test_objects_may_span_containers(path: Path, size: int, packed: bool) -> None:
    content = b"".join(thing(1, blf.can_message(1, i, bytes([i])), i) for i in range(40))
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    path.write_bytes(file_head() + b"".join(container(piece, packed=packed) for piece in pieces))
    whole = resumes_at_every_block(Blf(path))
    assert [row["can_id"] for row in whole.rows] == list(range(40))
    assert not whole.bad


def test_objects_may_stand_outside_of_containers_and_a_file_may_have_no_head(path: Path) -> None:
    path.write_bytes(file_head() + ONE + ONE + container(ONE + ONE) + ONE)
    assert len(resumes_at_every_block(Blf(path)).rows) == 5
    path.write_bytes(container(ONE) + container(ONE))
    spec = Blf(path)
    assert spec.schema.metadata[b"penstock.clock"] == b"boot+offset"
    assert [row["ts_event"] for row in read_whole(spec).rows] == [1000, 1000]


def test_the_start_is_a_local_time_that_can_be_told(path: Path) -> None:
    log(path, ONE)
    assert read_whole(Blf(path, timezone="Europe/Berlin")).rows[0]["ts_event"] == START - 2 * 3600 * 10**9 + 1000
    assert read_whole(Blf(path, start="1970-01-01 00:00:01")).rows[0]["ts_event"] == 10**9 + 1000
    with pytest.raises(GraphError, match="time zone"):
        Blf(path, timezone="Mars/Olympus")
    with pytest.raises(ValueError, match="no time like"):
        Blf(path, start="yesterday")
    for start in ((0,) * 8, (2014, 13, 0, 1, 0, 0, 0, 0), (9999, 1, 0, 1, 0, 0, 0, 0), (2014, 1, 0, 1, 0, 0, 0, 2000)):
        log(path, ONE, head=file_head(start))
        assert read_whole(Blf(path)).rows[0]["ts_event"] == 1000
        assert "when" in inspect_blf(path)["problem"]


def test_fd_frames_need_room(path: Path) -> None:
    log(path, thing(100, blf.fd_message(1, 5, LONG)), ONE)
    assert Blf(path).schema.field("data").type.byte_width == 64
    for at in range(1, 60):
        fd = ONE + thing(100, blf.fd_message(3, 7, LONG))
        path.write_bytes(file_head() + container(fd[:at]) + container(fd[at:]))
        assert Blf(path).schema.field("data").type.byte_width == 64
    log(path, thing(100, blf.fd_message(1, 5, LONG)), ONE)
    narrow = read_whole(Blf(path, fd=False))
    assert [row["len"] for row in narrow.rows] == [3]
    assert "fd=True" in narrow.bad[0].error
    log(path, ONE)
    assert Blf(path).schema.field("data").type.byte_width == 8


def test_a_head_that_lies_about_its_size_loses_nothing(path: Path) -> None:
    for size in (145, 100, 72, 5000, 65535):
        path.write_bytes(file_head()[:4] + size.to_bytes(4, "little") + file_head()[8:] + container(ONE))
        assert len(read_whole(Blf(path)).rows) == 1


messages = st.tuples(
    st.booleans(), st.integers(0, 0x1FFFFFFF), st.binary(max_size=8), st.sampled_from(["data", "remote", "fd", "error"])
)


@settings(max_examples=60)
@given(sent=st.lists(messages, min_size=1, max_size=30), size=st.integers(130, 700), level=st.sampled_from([0, 1, -1]))
def test_what_python_can_writes_is_read_as_python_can_reads_it(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Any], size: int, level: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.blf"
    with can.BLFWriter(path, compression_level=level, max_container_size=size) as writer:
        for i, (ext, number, data, kind) in enumerate(sent):
            what: dict[str, Any] = {
                "data": {"data": data},
                "remote": {"is_remote_frame": True, "dlc": len(data)},
                "fd": {"data": data * 8, "is_fd": True},
                "error": {"is_error_frame": True},
            }[kind]
            number = number if ext else number & 0x7FF
            writer.on_message_received(
                can.Message(timestamp=1e9 + i / 8, arbitration_id=number, is_extended_id=ext, channel=i % 3, **what)
            )
            if i % 5 == 4:
                writer.log_event("an event")
    whole = resumes_at_every_block(Blf(path))
    rows, wanted = whole.rows, list(can.BLFReader(path))
    assert not whole.bad
    assert sum(whole.dropped.values()) == len(sent) // 5
    assert len(rows) == len(wanted) == len(sent)
    for i, (row, frame) in enumerate(zip(rows, wanted, strict=True)):
        assert (row["ts_event"], frame.timestamp) == (10**18 + i * 125_000_000, 1e9 + i / 8)
        assert row["bus"] == frame.channel + 1
        if frame.is_error_frame:
            assert row["can_id"] == ERROR
            continue
        assert row["can_id"] == frame.arbitration_id | (REMOTE if frame.is_remote_frame else 0)
        assert (row["ext"], row["fd"]) == (frame.is_extended_id, frame.is_fd)
        assert row["len"] == (frame.dlc if frame.is_remote_frame else len(frame.data))
        assert row["data"][: row["len"]] == (bytes(frame.dlc) if frame.is_remote_frame else bytes(frame.data))


def test_many_blocks_are_gone_on_from_and_read_packed(path: Path) -> None:
    content = b"".join(thing(1, blf.can_message(1, i % 2048, i.to_bytes(4, "big")), i) for i in range(30_000))
    size = 100_003
    pieces = [container(content[at : at + size]) for at in range(0, len(content), size)]
    path.write_bytes(file_head() + b"".join(pieces))
    whole = resumes_at_every_block(Blf(path))
    assert len(whole.blocks) > 1
    assert whole.table["seq"].to_pylist() == list(range(30_000))
    assert [data[:4] for data in whole.table["data"].to_pylist()] == [i.to_bytes(4, "big") for i in range(30_000)]
    packed = path.with_suffix(".blf.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1, mtime=0))
    assert read_whole(Blf(packed)).table.equals(whole.table)
    packed.write_bytes(packed.read_bytes()[:-2000])
    cut = read_whole(Blf(packed))
    assert 0 < cut.table.num_rows < 30_000
    assert cut.bad[-1].operation == "blf.unpack"


def test_signals_of_a_dbc_are_those_of_the_same_frames_in_a_candump_log(path: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from penstock import ops, read, sources

    dbc = 'VERSION ""\nBS_:\nBU_: A\nBO_ 291 Wheels: 8 A\n SG_ Speed : 0|16@1+ (0.5,-3) [0|0] "m/s" A\n'
    objects, lines = [], []
    for i in range(20):
        data = (i * 1000).to_bytes(2, "little") + bytes(6)
        number = 291 if i % 3 else 292
        objects.append(thing(1, blf.can_message(1, number, data), i * 1000))
        lines.append(f"(1397640073.159{i:03d}) can1 {number:03X}#{data.hex()}")
    log(path, *objects)
    dump = tmp_path / "x.log"
    dump.write_text("\n".join(lines) + "\n")
    tables = [
        pa.Table.from_batches(list(read(spec).apply(ops.CanSignals(dbc, "Wheels"))))
        for spec in (sources.open(path), sources.open(dump))
    ]
    assert tables[0].num_rows == 13
    assert tables[0].to_pydict() == tables[1].to_pydict()


def test_inspect_counts_frames_by_channel(path: Path) -> None:
    others = [thing(1, blf.can_message(2, 5, b""), i) for i in range(3)]
    log(path, ONE, *others, thing(1, b""), thing(65, b"abcd"))
    found = inspect_blf(path)
    assert {name: topic["messages"] for name, topic in found["topics"].items()} == {"channel 1": 1, "channel 2": 3}
    assert (found["messages"], found["bad"], found["problem"]) == (6, 1, None)
    assert found["other"] == {"blf: text (object type 65)": 1}
    assert found["time"]["start_ns"] == START
    told = inspect(path)
    assert told["format"] == "Vector BLF"
    assert f"read it: sources.open({str(path)!r}); ops.CanSignals" in summary(told)
    assert open_blf(path, fd=True).fd is True


def test_a_log_is_known_by_its_first_bytes() -> None:
    assert is_blf(file_head())
    assert is_blf(container(ONE))
    for other in (b"", b"LOG", b"LOGGER started\n", ONE, b"LOBJ", file_head(size=144).replace(b"\x90", b"\x40")):
        assert not is_blf(other)


def test_what_is_no_log_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read_whole(Blf(path))
    path.write_bytes(b"hello\n")
    with pytest.raises(FormatError, match="no BLF log"):
        read_whole(Blf(path))
    path.write_bytes(file_head()[:70])
    with pytest.raises(FormatError, match="cut inside the head"):
        read_whole(Blf(path))
    path.write_bytes(file_head())
    assert read_whole(Blf(path)).rows == []
