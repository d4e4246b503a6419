"""Captures of IPv6, against dpkt and against what was written into them: addresses, headers behind the first, link types."""

from __future__ import annotations

import io
import ipaddress
import struct
from pathlib import Path
from random import Random
from typing import Any

import dpkt
import packets as pk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import ethernet, ipv4, ipv6, read, tcp, udp
from penstock.pipeline.columns import as_numpy
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.sources.market.mold import MoldItch
from penstock.sources.network.pcap import Pcap, inspect_pcap, open_pcap

T0 = 1_548_858_600 * 10**9
NAMES = ("seq", "src_ip", "dst_ip", "src_port", "dst_port", "vlan", "payload", "src_ip6", "dst_ip6")
ETHER6 = 0x86DD


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captures") / "six.pcap"


def given_back(path: Path, data: bytes, **options: Any) -> pk.Reading:
    path.write_bytes(data)
    return read(Pcap(path, **options))


def by_dpkt(data: bytes) -> list[tuple[Any, ...]]:
    """Rows as dpkt reads them."""
    rows = []
    for seq, (_, frame) in enumerate(dpkt.pcap.Reader(io.BytesIO(data))):
        packet = dpkt.ethernet.Ethernet(frame)
        inner = packet.data
        vlan = packet.vlan_tags[-1].id if getattr(packet, "vlan_tags", None) else 0
        six = isinstance(inner, dpkt.ip6.IP6)
        numbers = (0, 0) if six else tuple(int.from_bytes(address, "big") for address in (inner.src, inner.dst))
        sixes = (inner.src, inner.dst) if six else (None, None)
        carried = inner.data
        rows.append((seq, *numbers, carried.sport, carried.dport, vlan, bytes(carried.data), *sixes))
    return rows


def options_header(kind: int) -> st.SearchStrategy[tuple[int, bytes]]:
    """One whose second byte is its length in 8 bytes behind the first 8."""
    return st.integers(0, 3).map(lambda words: (kind, bytes([words]) + bytes(6 + 8 * words)))


def extensions() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    routing = st.integers(0, 2).map(lambda words: (43, bytes([2 * words, 0, words]) + bytes(4 + 16 * words)))
    whole = st.integers(0, 2**32 - 1).map(lambda number: (44, b"\0\0\0" + number.to_bytes(4, "big")))
    authentication = st.integers(0, 3).map(lambda words: (51, bytes([1 + words]) + bytes(10 + 4 * words)))
    some = st.lists(st.one_of(options_header(0), options_header(60), routing, authentication), max_size=3)
    # dpkt fails on a fragment's header before another one
    return st.tuples(some, st.lists(whole, max_size=1)).map(lambda both: both[0] + both[1])


def frames() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    address, port = st.integers(0, 2**128 - 1), st.integers(0, 65535)
    tags = st.sampled_from([[], [(0x8100, 0x2005)], [(0x88A8, 7), (0x8100, 0x0FFF)]])

    def build(
        body: bytes, ports: tuple[int, int], ends: tuple[int, int], headers: Any, vlans: Any, is_tcp: bool, four: bool
    ) -> bytes:
        inner, protocol = (tcp(body, *ports), 6) if is_tcp else (udp(body, *ports), 17)
        if four:
            low = [end & 0xFFFFFFFF for end in ends]
            return ethernet(ipv4(inner, protocol=protocol, source=low[0], target=low[1]), tags=vlans)
        packet = ipv6(inner, protocol=protocol, source=ends[0], target=ends[1], headers=headers)
        return ethernet(packet, tags=vlans, kind=ETHER6)

    frame = st.builds(
        build,
        st.binary(max_size=99),
        st.tuples(port, port),
        st.tuples(address, address),
        extensions(),
        tags,
        st.booleans(),
        st.sampled_from([False, False, True]),
    )
    return st.lists(frame.map(lambda made: (T0, made)), max_size=6)


@given(frames())
@settings(max_examples=80)
def test_packets_of_both_versions_read_as_dpkt_reads_them(path: Path, captured: list[tuple[int, bytes]]) -> None:
    data = pk.pcap(captured)
    found = given_back(path, data)
    assert found.rows(*NAMES) == by_dpkt(data)
    assert (found.bad, found.dropped, found.records) == ([], {}, len(captured))


def test_the_addresses_of_either_version_are_columns_of_their_own(path: Path) -> None:
    captured = [(T0, ethernet(ipv4(udp(b"4")))), (T0, ethernet(ipv6(udp(b"6")), kind=ETHER6))]
    found = given_back(path, pk.pcap(captured))
    ours = [ipaddress.ip_address(text).packed for text in ("fe80::1", "ff0e::114")]
    assert found.rows("src_ip", "dst_ip", "src_ip6", "dst_ip6") == [(0x0A000001, 0xE9360C6F, None, None), (0, 0, *ours)]
    (batch,) = given_back(path, pk.pcap(captured[1:])).table.to_batches()
    assert as_numpy(batch.column("dst_ip6")).tobytes() == ours[1]


LINKS = {
    0: struct.pack("<I", 30),
    1: bytes(12) + b"\x86\xdd",
    12: b"",
    101: b"",
    108: struct.pack(">I", 24),
    113: bytes(14) + b"\x86\xdd",
    229: b"",
    276: b"\x86\xdd" + bytes(18),
}


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("link", LINKS)
def test_link_types(path: Path, link: int, tagged: bool) -> None:
    head = LINKS[link]
    if tagged:
        if link not in (1, 113, 276):
            return
        head = head.replace(b"\x86\xdd", b"\x81\x00") + b"\x00\x07\x86\xdd"
    found = given_back(path, pk.pcap([(T0, head + ipv6(udp(b"hello", 1, 2)))], link=link))
    assert found.rows("src_port", "dst_port", "vlan", "payload") == [(1, 2, 7 * tagged, b"hello")]


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (ipv6(udp(b"x"), headers=[(44, b"\0\0\1\0\0\0\7")]), "an IPv6 fragment"),
        (ipv6(b"x" * 16, headers=[(0, bytes(7)), (44, b"\0\0\x18\0\0\0\7")]), "an IPv6 fragment"),
        (ipv6(bytes(8), protocol=58), "neither UDP nor TCP"),
        (ipv6(b"", protocol=59), "neither UDP nor TCP"),
        (ipv6(bytes(40), protocol=50), "neither UDP nor TCP"),
        (ipv6(bytes(8), protocol=59, headers=[(60, bytes(7))]), "neither UDP nor TCP"),
        (ipv6(bytes(8), protocol=58, headers=[(44, bytes(7)), (60, bytes(7))]), "neither UDP nor TCP"),
    ],
)
def test_what_is_no_row_is_counted_with_its_reason(path: Path, packet: bytes, why: str) -> None:
    found = given_back(path, pk.pcap([(T0, ethernet(packet, kind=ETHER6))] * 2))
    assert (found.table.num_rows, found.bad, found.dropped) == (0, [], {why: 2})


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (b"\x50" + ipv6(udp(b"x"))[1:], "IPv6 header"),
        (ipv6(udp(b"x"), length=1000), "IPv6 header"),
        (ipv6(b"\x11\x09" + bytes(6), protocol=0), "IPv6 header"),
        (ipv6(b"\x11\xff\x00", protocol=60), "IPv6 header"),
        (ipv6(b"\x11\xff" + bytes(14), protocol=51), "IPv6 header"),
        (ipv6(b"\0\0" * 20, protocol=0), "IPv6 header"),
        (ipv6(b"\0\1\0\2\0\x20\0\0xx"), "UDP or TCP header"),
        (ipv6(b"\0\1\0\2\0\7\0\0xx"), "UDP or TCP header"),
        (ipv6(b"\0\1\0\2"), "UDP or TCP header"),
        (ipv6(bytes(20), protocol=6), "UDP or TCP header"),
    ],
)
def test_headers_that_do_not_fit_are_put_aside(path: Path, packet: bytes, error: str) -> None:
    fine = ethernet(ipv6(udp(b"fine")), kind=ETHER6)
    found = given_back(path, pk.pcap([(T0, ethernet(packet, kind=ETHER6)), (T0, fine)]))
    assert found.rows("seq", "payload") == [(1, b"fine")]
    assert [(record.seq, error in record.error) for record in found.bad] == [(0, True)]


@pytest.mark.parametrize("make", [lambda p: ethernet(p, kind=ETHER6), lambda p: ethernet(p)])
def test_packets_cut_by_a_snap_length_are_put_aside(path: Path, make: Any) -> None:
    six = make(b"")[12:14] == b"\x86\xdd"
    inner = udp(b"sixty bytes" * 6)
    whole = make(ipv6(inner, headers=[(0, bytes(7))]) if six else ipv4(inner))
    unsized = whole[:18] + b"\0\0" + whole[20:] if six else whole[:16] + b"\0\0" + whole[18:]
    for cut in (10, 20, 40, 57, 64, len(whole) - 1):
        for frame in (whole, unsized):  # one whose length is left to the card is no more whole
            found = given_back(path, pk.pcap([]) + pk.record(frame[:cut], T0, full=len(whole)))
            assert found.table.num_rows == 0
            (bad,) = found.bad
            assert f"only {cut} of the packet's {len(whole)} bytes were captured" in bad.error


def test_jumbograms_and_offloaded_segments_have_no_length_of_their_own(path: Path) -> None:
    inner = tcp(b"many segments in one" * 9)
    found = given_back(path, pk.pcap([(T0, ethernet(ipv6(inner, protocol=6, length=0), kind=ETHER6))]))
    assert found.rows("payload") == [b"many segments in one" * 9]
    size = 70_000
    jumbo = (0, b"\0\xc2\4" + (size + 16).to_bytes(4, "big"))
    datagram = struct.pack(">HHHH", 1, 2, 0, 0) + bytes(size)
    found = given_back(path, pk.pcap([(T0, ethernet(ipv6(datagram, headers=[jumbo], length=0), kind=ETHER6))]))
    assert found.rows("payload") == [bytes(size)]


def test_filters_keep_packets_from_or_to_an_address_of_either_version(path: Path) -> None:
    captured = [
        (T0, ethernet(ipv6(udp(b"a", 10, 20), source=1, target=2), kind=ETHER6)),
        (T0, ethernet(ipv6(udp(b"b", 20, 30), source=3, target=1), kind=ETHER6)),
        (T0, ethernet(ipv4(udp(b"c", 30, 10), source=1, target=2))),
    ]
    data = pk.pcap(captured)
    assert given_back(path, data, host="::1").rows("seq") == [0, 1]
    assert given_back(path, data, host="::3", port=20).rows("seq") == [1]
    found = given_back(path, data, host="0.0.0.1")
    assert (found.rows("seq"), found.dropped) == ([2], {"of another port or host": 2})
    for host in ("fe80::1%eth0", ":::1", "1.2.3"):
        with pytest.raises(GraphError, match="is no IP address"):
            Pcap(path, host=host)


def test_a_feed_over_ipv6_reads_as_over_ipv4(tmp_path: Path) -> None:
    messages = [b"S" + bytes(2) + bytes(2) + (10**12 + i).to_bytes(6, "big") + b"O" for i in range(9)]
    carried = [pk.mold(1 + 3 * i, messages[3 * i : 3 * i + 3]) for i in range(3)]
    tables = []
    for name, wrap in (
        ("four", lambda inner: ethernet(ipv4(udp(inner)))),
        ("six", lambda inner: ethernet(ipv6(udp(inner), headers=[(60, bytes(7))]), kind=ETHER6, tags=[(0x8100, 9)])),
    ):
        path = tmp_path / f"{name}-2019-01-30.pcap"
        path.write_bytes(pk.pcap([(T0 + i, wrap(inner)) for i, inner in enumerate(carried)]))
        assert isinstance(open_pcap(path), MoldItch)
        found = read(MoldItch(path, table="status"))
        assert (found.bad, found.dropped, found.table.num_rows) == ([], {}, 9)
        tables.append(found.table)
    assert tables[0].equals(tables[1])
    assert inspect_pcap(tmp_path / "six-2019-01-30.pcap")["types"] == {
        "udp [ff0e::114]:26477": {"name": "ITCH 5.0 in MoldUDP64", "messages": 3}
    }


def test_radar_packets_over_ipv6_read_as_over_ipv4(recordings: Any, tmp_path: Path) -> None:
    from penstock.sources.driving._radar_packets import BagPackets
    from penstock.sources.driving.ars548 import Ars548

    bag = next(recordings("driving/nebula_radar_ros2/ars548").glob("*.db3"))
    packets = [packet for one in BagPackets(str(bag), None, Context("x"), {}).records() for packet in one.packets][:20]
    tables = []
    for name, wrap in (
        ("four", lambda inner: ethernet(ipv4(udp(inner, target=42102)))),
        ("six", lambda inner: ethernet(ipv6(udp(inner, target=42102)), kind=ETHER6)),
    ):
        path = tmp_path / f"{name}.pcap"
        path.write_bytes(pk.pcap([(T0 + i, wrap(packet.data)) for i, packet in enumerate(packets)]))
        tables.append(read(Ars548(path)).table)
    assert tables[0].num_rows > 0
    assert tables[0].equals(tables[1])


def fuzz(path: Path, seeds: range) -> None:
    sound = [
        ethernet(
            ipv6(udp(bytes([i]) * i, 1000 + i), headers=[(0, bytes(7)), (43, b"\2" + bytes(22))][: i % 3]), kind=ETHER6
        )
        for i in range(12)
    ]
    for seed in seeds:
        random = Random(seed)
        made = [bytearray(frame) for frame in sound]
        for _ in range(random.randint(1, 12)):
            frame = random.choice(made)
            if len(frame) <= 12:
                continue
            at = random.randrange(12, len(frame))
            frame[at] = random.choice([0, 1, 6, 17, 43, 44, 51, 60, 255, random.randrange(256)])
            if random.random() < 0.2:
                del frame[at:]
        captured = [(T0 + i, bytes(frame)) for i, frame in enumerate(made)]
        found = given_back(path, pk.pcap(captured))
        assert found.records == 12
        assert found.table.num_rows + len(found.bad) + sum(found.dropped.values()) == 12
        for seq, payload in found.rows("seq", "payload"):
            assert payload in bytes(made[seq])


def test_damaged_packets_are_each_accounted_for(path: Path) -> None:
    fuzz(path, range(300))


@pytest.mark.nightly
def test_many_damaged_packets_are_each_accounted_for(path: Path) -> None:
    fuzz(path, range(300, 10_300))
