"""Records that go out as they are: DBN behind its header, CAN frames as candump's lines, raw cubes as datagrams."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blf_files as blf
import numpy as np
import pytest
from blf_files import container, file_head, thing
from hypothesis import given, settings
from hypothesis import strategies as st
from live_feeds import beside, follow, free_port, until_bound
from penstock import sources
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving.adc import Adc
from penstock.sources.live.adc_packets import live_adc
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.can_lines import CanLines, live_can
from penstock.sources.replay.can import can_line
from penstock.sources.replay.dbn_header import merged_header
from penstock.sources.replay.formats import playable_of
from penstock.sources.replay.serving import replay
from penstock.sources.storage.unpack import open_feed

SCHEMAS = ["mbo", "mbp-10", "ohlcv-1s", "definition", "statistics", "tbbo", "cmbp-1", "imbalance", "status"]


def content_of(path: str) -> bytes:
    feed, view = open_feed(path), memoryview(bytearray(1 << 20))
    with_all = bytes(view[: feed.fill(view)])
    feed.close()
    return with_all


def received_plainly(path: Any, **options: Any) -> bytes:
    """What a plain socket gets of a replay."""
    opened, where = threading.Event(), []

    def at(address: str) -> None:
        where.append(int(address.rpartition(":")[2]))
        opened.set()

    data = bytearray()
    with beside(lambda: replay(path, "tcp://127.0.0.1:0", speed=0, stamped=False, opened=at, **options)):
        assert opened.wait(10.0)
        with socket.create_connection(("127.0.0.1", where[0])) as sock:
            while piece := sock.recv(1 << 16):
                data += piece
    return bytes(data)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_dbn_records_are_those_of_the_file_at_their_times(recordings: Any, schema: str, version: int) -> None:
    from databento_dbn import DBNDecoder

    path = recordings("market/dbn_conformance") / f"test_data.{schema}.v{version}.dbn.zst"
    if not path.exists():
        pytest.skip(f"{path.name} is not among the recordings")
    recording = playable_of(str(path))
    messages = list(recording.messages())
    assert recording.greeting is not None
    assert recording.greeting.data + b"".join(message.data for message in messages) == content_of(str(path))
    decoder = DBNDecoder()
    decoder.write(recording.greeting.data + b"".join(message.data for message in messages))
    _, *records = decoder.decode()
    assert [message.ts_ns for message in messages] == [getattr(one, "ts_recv", one.ts_event) for one in records]


@pytest.mark.parametrize("name", ["test_data.mbo.v3.dbn.zst", "test_data.definition.v1.dbn.zst"])
def test_a_plain_socket_receives_a_stream_that_databento_decodes(recordings: Any, name: str) -> None:
    from databento_dbn import DBNDecoder

    path = recordings("market/dbn_conformance") / name
    data = received_plainly(str(path))
    assert data == content_of(str(path))
    decoder = DBNDecoder()
    decoder.write(data)
    metadata, *records = decoder.decode()
    assert str(metadata.schema) == name.split(".")[1] and len(records) == 2


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_fragment_without_a_header_gets_one(recordings: Any, version: int) -> None:
    from databento_dbn import DBNDecoder

    names = {
        1: "test_data.definition.v1.dbn.frag",
        2: "test_data.definition.v2.dbn.frag",
        3: "test_data.definition.v3.dbn.frag",
    }
    path = recordings("market/dbn_conformance") / names[version]
    recording = playable_of(str(path), format="DBN", schema="definition", version=version)
    assert recording.greeting is not None
    decoder = DBNDecoder()
    decoder.write(recording.greeting.data + b"".join(message.data for message in recording.messages()))
    metadata, *records = decoder.decode()
    assert str(metadata.schema) == "definition" and len(records) == 2


@pytest.mark.parametrize("version", [1, 2, 3])
def test_several_dbn_files_are_one_stream_behind_one_header(recordings: Any, version: int) -> None:
    from databento_dbn import DBNDecoder

    path = recordings("market/dbn_conformance") / f"test_data.mbo.v{version}.dbn.zst"
    plain = content_of(str(path))
    header = playable_of(str(path)).greeting
    assert header is not None
    made = merged_header([header.data, header.data.replace(b"ESH1", b"ESM9"), header.data])
    decoder = DBNDecoder()
    decoder.write(made + plain[len(header.data) :])
    metadata, *records = decoder.decode()
    assert sorted(metadata.symbols) == ["ESH1", "ESM9"] and sorted(metadata.mappings) == ["ESH1", "ESM9"]
    assert len(records) == 2 and metadata.limit is None
    twice = received_plainly([str(path), str(path)])
    assert len(twice) == len(header.data) + 2 * (len(plain) - len(header.data))
    with pytest.raises(FormatError, match="replay them one by one"):
        other = playable_of(str(recordings("market/dbn_conformance") / "test_data.trades.v3.dbn.zst")).greeting
        merged_header([header.data, other.data if other else b""])


frames = st.tuples(
    st.integers(0, 9 * 10**18),
    st.sampled_from([b"can0", b"vcan12", b"slcan"]),
    st.one_of(
        st.tuples(st.integers(0, 0x7FF), st.just(False)),
        st.tuples(st.integers(0, 0x1FFFFFFF), st.just(True)),
        st.tuples(st.integers(0x20000000, 0x3FFFFFFF), st.just(False)),
        st.tuples(st.integers(0x40000000, 0x400007FF), st.just(False)),
    ),
    st.binary(max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(made=st.lists(frames, min_size=1, max_size=20), fd=st.booleans())
def test_a_frame_written_as_a_line_is_read_as_the_frame(made: list[Any], fd: bool) -> None:
    lines, want = [], []
    for ts_ns, bus, (can_id, ext), data in made:
        is_fd = fd and can_id < 1 << 29
        lines.append(can_line(ts_ns, bus, can_id, ext, is_fd, data))
        stored = bytes(len(data)) if can_id >> 30 else data
        want.append((ts_ns, can_id, ext, is_fd, len(data), stored.ljust(64, b"\0")))
    session = CanLines(fd=True).open(Context("can"), "feed", None)
    framed = session.take([Arrival(7, b"\n".join(lines))], 3)
    decoded = session.decode(framed.payload, 3)
    assert not decoded.bad and framed.records == len(lines)
    (rows,) = decoded.batches
    assert rows["ts_recv"].cast("int64").to_pylist() == [7] * len(lines)
    columns = [rows["ts_event"].cast("int64"), *(rows[name] for name in ("can_id", "ext", "fd", "len", "data"))]
    assert list(zip(*(column.to_pylist() for column in columns), strict=True)) == want


LOG = b"""\
(1436509052.249713) vcan0 044#2A366C2B00000000
(1436509052.249913) can1 12345678##3112233445566778899AABBCC
nonsense

(1436509052.350013)  vcan0  044   [8]  2A 36 6C 2B 00 00 00 01
(1436509052.450013) vcan0 123#R8
(1436509052.450013123) can7 20000004#0011223344556677
"""


def served(path: Path, spec_of: Callable[[str], Any], scheme: str, **options: Any) -> Any:
    port = free_port(socket.SOCK_DGRAM) if scheme == "udp" else 0
    opened, where = threading.Event(), [f"udp://127.0.0.1:{port}"]

    def at(address: str) -> None:
        where.append(address)
        opened.set()

    def serve() -> Any:
        if port:
            until_bound(port)
        return replay(str(path), f"{scheme}://127.0.0.1:{port}", speed=20, opened=at, **options)

    with beside(serve):
        assert port or opened.wait(10.0)
        return follow(spec_of(where[-1] if not port else where[0]))


@pytest.mark.parametrize("scheme", ["tcp", "udp", "ws"])
def test_a_candump_log_gives_the_rows_of_the_file(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "drive.log"
    path.write_bytes(LOG)
    want, want_bad, _ = follow(sources.Candump(path, fd=True))
    most = 6 if scheme == "udp" else None
    got, bad, _ = served(path, lambda url: live_can(url, fd=True, reconnect="0s", most=most), scheme)
    assert got.equals(want) and got.num_rows == 5
    assert [(one.seq, one.error, one.data) for one in bad] == [(one.seq, one.error, one.data) for one in want_bad]
    sent = [message.data for message in playable_of(str(path)).messages()]
    assert sent[3] == b"(1436509052.350013) vcan0 044#2A366C2B00000001"
    assert [line for i, line in enumerate(sent) if i != 3] == [
        line for line in LOG.split(b"\n") if line and b"[" not in line
    ]


def test_an_asc_log_goes_out_as_candump_lines_at_its_date(tmp_path: Path) -> None:
    path = tmp_path / "drive.asc"
    path.write_bytes(
        b"date Wed Apr 16 09:21:13.159 am 2014\nbase hex  timestamps absolute\ninternal events logged\n"
        b"   0.015991 1  123             Rx   d 8 01 02 03 04 05 06 07 08\n"
        b"   0.018501 2  18FF1234x       Rx   d 2 AA BB\n"
        b"   1.000000 1  7FF             Rx   r\n"
    )
    sent = [message.data for message in playable_of(str(path)).messages()]
    assert sent[:2] == [b"(1397640073.174991) can1 123#0102030405060708", b"(1397640073.177501) can2 18FF1234#AABB"]
    want, _, _ = follow(sources.Asc(path))
    got, bad, _ = served(path, lambda url: live_can(url, interfaces=["can0", "can1", "can2"], reconnect="0s"), "tcp")
    assert not bad and got.drop_columns(["seq"]).equals(want.drop_columns(["seq"])) and got.num_rows == 3


def test_binary_logs_and_traces_go_out_as_candump_lines(tmp_path: Path) -> None:
    path = tmp_path / "drive.blf"
    objects = [
        thing(1, blf.can_message(1, 0x123, bytes([1, 2])), 15_991_000),
        thing(65, b"text"),
        thing(1, blf.can_message(999, 0x123, b"")),
        thing(100, blf.fd_message(2, 0x98FF1234, b"\xaa"), 18_501_001),
    ]
    path.write_bytes(file_head() + container(b"".join(objects)))
    playable = playable_of(str(path))
    want = [b"(1397640073.174991) can1 123#0102", b"(1397640073.177501001) can2 18FF1234##0AA"]
    assert [message.data for message in playable.messages()] == want
    assert playable.skipped == {"lines or objects that are no sound frames": 1}
    path = tmp_path / "drive.trc"
    path.write_text(
        ";$FILEVERSION=1.1\n;$STARTTIME=25569.0\n  1)  1000.5  Rx  0123  2  01 02\n  2)  1001  Rx  07FF  0  RTR\n"
    )
    sent = [message.data for message in playable_of(str(path)).messages()]
    assert sent == [b"(1.000500) can1 123#0102", b"(1.001000) can1 7FF#R"]


def test_a_lost_connection_of_can_lines_is_told_and_interfaces_go_on_from_a_position() -> None:
    session = CanLines().open(Context("can"), "feed", None)
    session.take([Arrival(1, b"(1.0) can5 123#")], 0)
    events = [Arrival(2, b"", 0, 0, "lost: closed"), Arrival(3, b"", 0, 0, "connected")]
    assert [bad.operation for bad in session.take(events, 1).noticed] == ["live.gap"]
    again = CanLines().open(Context("can"), "feed", session.position())
    framed = again.take([Arrival(4, b"(2.0) can6 123#"), Arrival(4, b"(2.0) can5 123#")], 1)
    assert again.decode(framed.payload, 1).batches[0]["bus"].to_pylist() == [1, 0]
    assert CanLines.described(CanLines(True, ("can0",)).describe()) == CanLines(True, ("can0",))
    with pytest.raises(GraphError, match="interfaces"):
        CanLines(interfaces=("a b",))


RADAR = {"chirps": 8, "samples": 16, "rx": 4, "frame_period": "10ms"}


def test_a_raw_cube_goes_out_as_the_card_sends_it(tmp_path: Path) -> None:
    path = tmp_path / "adc.bin"
    data = np.random.default_rng(1).integers(-(2**15), 2**15, 3 * 1024, np.int16).tobytes()
    path.write_bytes(data)
    messages = list(playable_of(str(path), format="adc", start=10**18, chirp_period=0.001, **RADAR).messages())
    assert b"".join(message.data[10:] for message in messages) == data
    done = 0
    for number, message in enumerate(messages, 1):
        assert int.from_bytes(message.data[:4], "little") == number and len(message.data) <= 1466
        assert int.from_bytes(message.data[4:10], "little") == done
        done += len(message.data) - 10
        frame, inside = divmod(done - 1, 2048)  # a byte is there once it was sampled, while the chirps of its frame run
        assert message.ts_ns == 10**18 + frame * 10_000_000 + (inside + 1) * 8_000_000 // 2048
    with pytest.raises(FormatError, match="frame_period"):
        playable_of(str(path), format="adc", chirps=1)


def test_a_live_radar_cube_gives_the_frames_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "adc.bin"
    path.write_bytes(np.arange(4 * 1024, dtype=np.int16).tobytes())
    want, _, _ = follow(Adc(path, **RADAR))
    got, bad, _ = served(
        path, lambda url: live_adc(url, start=0, reconnect="0s", **RADAR), "tcp", format="adc", **RADAR
    )
    assert not bad and got["cube"].combine_chunks().equals(want["cube"].combine_chunks())
    assert got["ts_event"].equals(want["ts_event"]) and got["frame"].to_pylist() == [0, 1, 2, 3]
