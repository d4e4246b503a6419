"""Damaged, cut and lying captures: a bad packet costs itself, and every byte is accounted for."""

from __future__ import annotations

from pathlib import Path
from random import Random

import packets as pk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import Reading, ethernet, ipv4, mutated, read, udp
from penstock.pipeline.errors import FormatError
from penstock.pipeline.memory import BufferPool
from penstock.sources.network import _pcap_kernels
from penstock.sources.network._pcap_format import read_header
from penstock.sources.network._pcap_framer import PacketFramer
from penstock.sources.network.pcap import Pcap, inspect_pcap, open_pcap
from penstock.sources.storage.unpack import BytesFeed

T0 = 1_548_858_600 * 10**9


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "2019-01-30.pcap"


def frame(number: int) -> bytes:
    return ethernet(ipv4(udp(number.to_bytes(4, "big") * (1 + number % 30), 1000 + number)), tags=[(0x8100, 3)])


def plain(count: int, *, ng: bool = False, big: bool = False) -> bytes:
    captured = [(T0 + i * 1000, frame(i)) for i in range(count)]
    return pk.pcapng(captured, big=big) if ng else pk.pcap(captured, big=big)


def whole(path: Path, data: bytes) -> Reading:
    """What `data` gives; checks that every packet and every byte is accounted for."""
    path.write_bytes(data)
    found = read(Pcap(path))
    blocks = sum(count for why, count in found.dropped.items() if why.startswith("a pcapng block"))
    numbered = [record.seq for record in found.bad if record.seq is not None]
    assert numbered == sorted(set(numbered))
    assert found.table.num_rows + len(numbered) + sum(found.dropped.values()) - blocks == found.records
    assert not found.positions or found.positions[-1]["offset"] <= len(data)
    tiles(data)
    return found


def tiles(data: bytes) -> None:
    """Packets and bad stretches of a pcap file lie side by side from its header to its end; those of pcapng in order."""
    header = read_header(data[: 1 << 16], "some file")
    framer = PacketFramer(BytesFeed(data), header, BufferPool(), {})
    at = header.size
    for piece in framer.pieces():
        stretches = [(where, size) for _, where, size, _ in piece.bad.tolist()]
        head = 16 if header.container == "pcap" else 0
        sound = piece.sizes[: piece.count] >= 0
        for where, size in zip(
            piece.ats[: piece.count][sound].tolist(), piece.sizes[: piece.count][sound].tolist(), strict=True
        ):
            stretches.append((where - head, size + head))
        for where, size in sorted(stretches):
            assert piece.base + where == at if head else piece.base + where >= at
            at = piece.base + where + size
    assert framer.offset == len(data)
    assert at == len(data) if header.container == "pcap" else at <= len(data)


@pytest.mark.parametrize("ng", [False, True])
def test_a_capture_cut_inside_its_last_packet_loses_that_packet_only(path: Path, ng: bool) -> None:
    data = plain(4, ng=ng)
    start = len(plain(3, ng=ng))
    for cut in range(start + 1, len(data)):
        found = whole(path, data[:cut])
        assert found.rows("seq") == [0, 1, 2]
        assert [(record.seq, record.operation, record.data) for record in found.bad] == [
            (3, "pcap.frame", data[start:cut])
        ]
        assert found.bad[0].place == f"{path}, offset {start}"
        assert "ends inside a packet" in found.bad[0].error


@pytest.mark.parametrize("claimed", [0, 1, 40, 100, 5000, 0x3FFFF, 0x40001, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("big", [False, True])
def test_a_wrong_captured_length_costs_one_packet(path: Path, claimed: int, big: bool) -> None:
    data = bytearray(plain(30, big=big))
    start = len(plain(9))
    data[start + 8 : start + 12] = claimed.to_bytes(4, "big" if big else "little")
    found = whole(path, bytes(data))
    assert found.rows("src_port") == [1000 + i for i in range(30) if i != 9]
    assert {record.seq for record in found.bad} == {9}
    assert found.bad[0].place.startswith(f"{path}, offset {start}")


@pytest.mark.parametrize("claimed", [0, 4, 12, 33, 64, 5000, 0x3FFFFC, 0x400004, 0x7FFFFFFC, 0xFFFFFFFF])
@pytest.mark.parametrize("big", [False, True])
def test_a_wrong_block_length_costs_one_packet(path: Path, claimed: int, big: bool) -> None:
    data = bytearray(plain(30, ng=True, big=big))
    start = len(plain(9, ng=True))
    data[start + 4 : start + 8] = claimed.to_bytes(4, "big" if big else "little")
    found = whole(path, bytes(data))
    assert found.rows("src_port") == [1000 + i for i in range(30) if i != 9]
    assert [(record.seq, record.place) for record in found.bad] == [(9, f"{path}, offset {start}")]


def test_a_captured_length_beyond_its_block_costs_one_packet(path: Path) -> None:
    data = bytearray(plain(5, ng=True))
    start = len(plain(2, ng=True))
    data[start + 20 : start + 24] = (1 << 20).to_bytes(4, "little")
    found = whole(path, bytes(data))
    assert found.rows("seq") == [0, 1, 3, 4]
    assert "cannot hold" in found.bad[0].error


@given(st.binary(min_size=1, max_size=300), st.integers(1, 28), st.booleans())
@settings(max_examples=60)
def test_bytes_between_packets_are_put_aside(path: Path, junk: bytes, at: int, ng: bool) -> None:
    data, start = plain(30, ng=ng), len(plain(at, ng=ng))
    found = whole(path, data[:start] + junk + data[start:])
    assert set(found.rows("src_port")) >= {1000 + i for i in range(30)} - {at - 1, at, at + 1}


def test_a_long_stretch_of_zeros_is_put_aside_in_bounded_records(path: Path) -> None:
    for ng in (False, True):
        data, start = plain(30, ng=ng), len(plain(9, ng=ng))
        found = whole(path, data[:start] + bytes(300_001) + data[start:])
        assert found.rows("src_port") == [1000 + i for i in range(30)]
        assert all(len(record.data) <= _pcap_kernels.LOOKAHEAD for record in found.bad)
        assert sum(len(record.data) for record in found.bad) == 300_001


def test_more_interfaces_than_are_kept_are_counted(path: Path) -> None:
    data = pk.section() + pk.interface(resolution=9) * 5000 + pk.packet_block(frame(1), T0, which=4095)
    found = whole(path, data + pk.packet_block(frame(2), T0, which=4096))
    assert found.rows("src_port") == [1001]
    assert found.dropped == {"a pcapng block without a packet: another type": 904}
    assert "does not describe" in found.bad[0].error


def test_malformed_interface_options_are_left_alone(path: Path) -> None:
    for options in (b"\x09\0\xff\xff", b"\x09\0\x02\0\x06\x06\0\0", b"\x0e\0\x04\0\1\2\3\4", b"\1\0"):
        data = pk.section() + pk.block(1, b"\1\0\0\0\0\0\0\0" + options) + pk.packet_block(frame(1), T0 // 1000)
        assert whole(path, data).rows("ts_event") == [T0]


def fuzz(path: Path, seeds: range) -> None:
    """Damage sound captures; what is still one is read whole, whatever it says."""
    for seed in seeds:
        random = Random(seed)
        data = mutated(plain(12, ng=bool(seed & 1), big=bool(seed & 2)), random)
        path.write_bytes(data)
        try:
            read_header(data[: 1 << 16], "some file")
        except FormatError:
            with pytest.raises(FormatError):
                Pcap(path).open(None)  # type: ignore[arg-type]
            continue
        found = whole(path, data)
        if seed % 10 == 0:
            assert inspect_pcap(str(path))["messages"] == found.records
            open_pcap(path)


def test_damaged_captures(path: Path) -> None:
    fuzz(path, range(300))


@pytest.mark.nightly
def test_many_damaged_captures(path: Path) -> None:
    fuzz(path, range(300, 10_300))
