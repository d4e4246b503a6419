"""Captures of both kinds, as tables of packets: against dpkt, and against what was written into them."""

from __future__ import annotations

import gzip
import io
import json
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import dpkt
import packets as pk
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import ethernet, ipv4, read, tcp, udp
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.network import _pcap_framer
from penstock.sources.network.pcap import Pcap, inspect_pcap, is_pcap, open_pcap

T0 = 1_548_858_600 * 10**9
NAMES = ("ts_event", "ts_recv", "seq", "src_ip", "dst_ip", "src_port", "dst_port", "vlan", "payload")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captures") / "some.pcap"


def given_back(path: Path, data: bytes, **options: Any) -> pk.Reading:
    path.write_bytes(data)
    return read(Pcap(path, **options))


def by_dpkt(data: bytes) -> list[tuple[Any, ...]]:
    """Rows of ``net.packet`` as dpkt reads them, for captures of UDP and TCP over Ethernet."""
    kind = dpkt.pcapng.Reader if data[:4] == b"\n\r\r\n" else dpkt.pcap.Reader
    rows = []
    for seq, (time, frame) in enumerate(kind(io.BytesIO(data))):
        ns = int(Decimal(str(time)) * 10**9) if not isinstance(time, float) else round(time * 10**6) * 1000
        packet = dpkt.ethernet.Ethernet(frame)
        inner = packet.data
        vlan = packet.vlan_tags[-1].id if getattr(packet, "vlan_tags", None) else 0
        source, target = (int.from_bytes(address, "big") for address in (inner.src, inner.dst))
        payload = inner.data.data
        rows.append((ns, ns, seq, source, target, inner.data.sport, inner.data.dport, vlan, bytes(payload)))
    return rows


def frames() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    payload = st.binary(max_size=200)
    port, address = st.integers(0, 65535), st.integers(0, 2**32 - 1)
    tags = st.sampled_from([[], [(0x8100, 0x2005)], [(0x88A8, 7), (0x8100, 0x0FFF)]])

    def build(
        body: bytes, ports: tuple[int, int], ends: tuple[int, int], vlans: Any, options: int, is_tcp: bool
    ) -> bytes:
        inner = tcp(body, *ports, options=b"\1" * 4 * options) if is_tcp else udp(body, *ports)
        packet = ipv4(inner, protocol=6 if is_tcp else 17, source=ends[0], target=ends[1], options=b"\1" * 4 * options)
        return ethernet(packet, tags=vlans)

    frame = st.builds(
        build, payload, st.tuples(port, port), st.tuples(address, address), tags, st.integers(0, 2), st.booleans()
    )
    return st.lists(st.tuples(st.integers(T0, T0 + 10**10).map(lambda ns: ns // 1000 * 1000), frame), max_size=20)


@given(frames(), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_pcap_of_either_byte_order_and_unit_reads_as_dpkt_reads_it(
    path: Path, captured: list[tuple[int, bytes]], big: bool, nano: bool
) -> None:
    data = pk.pcap(captured, big=big, nano=nano)
    found = given_back(path, data)
    assert found.rows(*NAMES) == by_dpkt(data)
    assert (found.bad, found.dropped, found.records) == ([], {}, len(captured))


@given(frames(), st.booleans())
@settings(max_examples=40)
def test_pcapng_of_either_byte_order_reads_as_dpkt_reads_it(
    path: Path, captured: list[tuple[int, bytes]], big: bool
) -> None:
    data = pk.section(big=big) + pk.interface(big=big)
    data += b"".join(pk.packet_block(frame, ns // 1000, big=big, comment=b"seen") for ns, frame in captured)
    found = given_back(path, data)
    assert found.rows(*NAMES) == by_dpkt(data)
    assert (found.bad, found.dropped, found.records) == ([], {}, len(captured))


def test_nanoseconds_are_kept(path: Path) -> None:
    frame = ethernet(ipv4(udp(b"x")))
    assert given_back(path, pk.pcap([(T0 + 123_456_789, frame)])).rows("ts_recv") == [T0 + 123_456_789]
    assert given_back(path, pk.pcap([(T0 + 123_456_789, frame)], nano=False)).rows("ts_recv") == [T0 + 123_456_000]
    assert given_back(path, pk.pcapng([(T0 + 123_456_789, frame)])).rows("ts_recv") == [T0 + 123_456_789]


@given(st.integers(0, 127), st.booleans(), st.integers(0, 2**64 - 1), st.sampled_from([0, 0, 1_000_000_000, -5, 2**62]))
@settings(max_examples=300)
def test_any_resolution_and_offset_of_pcapng_is_exact(
    path: Path, exponent: int, binary: bool, ticks: int, offset: int
) -> None:
    frame = ethernet(ipv4(udp(b"x")))
    data = pk.section() + pk.interface(resolution=exponent | binary << 7, offset=offset) + pk.packet_block(frame, ticks)
    unit = (2 if binary else 10) ** exponent
    ns = ticks * 10**9 // unit + offset * 10**9
    found = given_back(path, data)
    if 0 <= ns < 9_223_372_035 * 10**9:
        assert found.rows("ts_event") == [ns]
    elif not 0 <= ns < 9_223_372_036 * 10**9:
        assert found.rows("ts_event") == []
        assert [(record.operation, record.seq) for record in found.bad] == [("pcap.frame", 0)]
        assert "1970 to 2262" in found.bad[0].error


def test_sections_may_differ_in_order_and_interfaces(path: Path) -> None:
    frame, raw = ethernet(ipv4(udp(b"ether"))), ipv4(udp(b"raw"))
    data = pk.section() + pk.interface(resolution=9) + pk.interface(link=101, resolution=6, offset=100)
    data += pk.packet_block(frame, T0) + pk.packet_block(raw, T0 // 1000, which=1)
    data += pk.section(big=True) + pk.interface(link=101, resolution=3, big=True)
    data += pk.packet_block(raw, T0 // 10**6, big=True) + pk.packet_block(raw, 0, which=1, big=True)
    found = given_back(path, data)
    assert found.rows("ts_event", "payload") == [(T0, b"ether"), (T0 + 100 * 10**9, b"raw"), (T0, b"raw")]
    assert [record.error for record in found.bad] == [
        "the packet is of an interface that the section does not describe"
    ]
    assert found.bad[0].seq == 3


def test_simple_packet_blocks_have_the_time_of_the_packet_before(path: Path) -> None:
    frame = ethernet(ipv4(udp(b"simple")))
    data = pk.section() + pk.interface(snap=len(frame)) + pk.simple_block(frame) + pk.packet_block(frame, T0 // 1000)
    data += pk.simple_block(frame, full=len(frame))
    found = given_back(path, data)
    assert found.rows("ts_event", "payload") == [(0, b"simple"), (T0, b"simple"), (T0, b"simple")]


def test_blocks_without_packets_are_stepped_over_and_counted(path: Path) -> None:
    frame = ethernet(ipv4(udp(b"x")))
    data = pk.section() + pk.block(4, bytes(8)) + pk.interface() + pk.block(0xBAD, b"any") + pk.block(5, bytes(12))
    found = given_back(path, data + pk.packet_block(frame, T0 // 1000) + pk.block(0x0B16, bytes(3_000_000)))
    assert found.rows("payload") == [b"x"]
    assert found.dropped == {
        "a pcapng block without a packet: name resolution": 1,
        "a pcapng block without a packet: interface statistics": 1,
        "a pcapng block without a packet: another type": 2,
    }
    assert found.bad == []


LINKS = {
    0: struct.pack("<I", 2),
    1: bytes(12) + b"\x08\x00",
    12: b"",
    101: b"",
    108: struct.pack(">I", 2),
    113: bytes(14) + b"\x08\x00",
    228: b"",
    276: b"\x08\x00" + bytes(18),
}


@pytest.mark.parametrize("link", LINKS)
def test_link_types(path: Path, link: int) -> None:
    data = pk.pcap([(T0, LINKS[link] + ipv4(udp(b"hello", 1, 2)))], link=link)
    assert given_back(path, data).rows("src_port", "dst_port", "payload") == [(1, 2, b"hello")]


@pytest.mark.parametrize(
    ("frame", "link", "why"),
    [
        (ethernet(b"\0" * 28, kind=0x0806), 1, "neither IPv4 nor IPv6"),
        (b"\x50" + bytes(47), 101, "neither IPv4 nor IPv6"),
        (ethernet(ipv4(udp(b"x"), fragment=0x2000)), 1, "an IPv4 fragment"),
        (ethernet(ipv4(b"x" * 9, fragment=0x0010)), 1, "an IPv4 fragment"),
        (ethernet(ipv4(bytes(8), protocol=1)), 1, "neither UDP nor TCP"),
        (bytes(60), 127, "of a link type that is not read"),
    ],
)
def test_what_is_no_row_is_counted_with_its_reason(path: Path, frame: bytes, link: int, why: str) -> None:
    found = given_back(path, pk.pcap([(T0, frame), (T0, frame)], link=link))
    assert (found.table.num_rows, found.bad, found.dropped) == (0, [], {why: 2})


def test_a_fragment_flag_that_forbids_fragments_is_no_fragment(path: Path) -> None:
    assert given_back(path, pk.pcap([(T0, ethernet(ipv4(udp(b"x"), fragment=0x4000)))])).rows("payload") == [b"x"]


def test_packets_cut_by_a_snap_length_are_put_aside(path: Path) -> None:
    whole = ethernet(ipv4(udp(b"a long payload of sixty bytes" * 3)))
    head = pk.pcap([(T0, whole)], snap=64)
    for cut in (10, 20, 40, 64):
        found = given_back(path, head + pk.record(whole[:cut], T0, full=len(whole)))
        assert found.rows("seq") == [0]
        assert [(record.seq, record.operation) for record in found.bad] == [(1, "pcap.decode")]
        assert f"only {cut} of the packet's {len(whole)} bytes were captured" in found.bad[0].error
        assert found.bad[0].data == whole[:cut]
        assert found.bad[0].place == f"{path}, offset {len(head) + 16}"


@pytest.mark.parametrize(
    ("inner", "error"),
    [
        (b"\x45\0\0\x60" + ipv4(udp(b"x"))[4:], "IPv4 header"),
        (b"\x44" + ipv4(udp(b"x"))[1:], "IPv4 header"),
        (b"\x55" + ipv4(udp(b"x"))[1:], "IPv4 header"),
        (ipv4(b"\0\1\0\2\0\x20\0\0xx"), "UDP or TCP header"),
        (ipv4(b"\0\1\0\2\0\7\0\0xx"), "UDP or TCP header"),
        (ipv4(b"\0\1\0\2"), "UDP or TCP header"),
        (ipv4(bytes(20), protocol=6), "UDP or TCP header"),
        (ipv4(bytes(12) + b"\xf0" + bytes(19), protocol=6), "UDP or TCP header"),
    ],
)
def test_headers_that_do_not_fit_are_put_aside(path: Path, inner: bytes, error: str) -> None:
    found = given_back(path, pk.pcap([(T0, ethernet(inner)), (T0, ethernet(ipv4(udp(b"fine"))))]))
    assert found.rows("seq", "payload") == [(1, b"fine")]
    assert [(record.seq, error in record.error) for record in found.bad] == [(0, True)]


def test_offloaded_segments_have_no_length_of_their_own(path: Path) -> None:
    inner = ipv4(tcp(b"many segments in one"), protocol=6)
    found = given_back(path, pk.pcap([(T0, bytes(12) + b"\x08\0" + inner[:2] + b"\0\0" + inner[4:])]))
    assert found.rows("payload") == [b"many segments in one"]


def test_filters_keep_packets_from_or_to(path: Path) -> None:
    flows = [(1, 2, 10, 20), (3, 1, 20, 30), (2, 3, 30, 10)]
    captured = [
        (T0, ethernet(ipv4(udp(bytes([i]), sport, dport), source=src, target=dst)))
        for i, (src, dst, sport, dport) in enumerate(flows)
    ]
    data = pk.pcap(captured)
    assert given_back(path, data, port=20).rows("seq") == [0, 1]
    assert given_back(path, data, host="0.0.0.3").rows("seq") == [1, 2]
    found = given_back(path, data, port=30, host="0.0.0.2")
    assert found.rows("seq") == [2]
    assert found.dropped == {"of another port or host": 2}


def many(count: int = 4000) -> list[tuple[int, bytes]]:
    return [(T0 + i * 1000, ethernet(ipv4(udp(i.to_bytes(4, "big") * (i % 40), i % 50_000)))) for i in range(count)]


@pytest.mark.parametrize("make", [pk.pcap, pk.pcapng])
def test_a_reading_goes_on_behind_any_block(path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pcap_framer, "READ", 20_000)
    monkeypatch.setattr(_pcap_framer, "PACKETS", 300)
    whole = given_back(path, make(many()))
    assert len(whole.positions) > 10
    rows = whole.rows(*NAMES)
    for position in whole.positions:
        again = read(Pcap(path), json.loads(json.dumps(position)))
        assert again.rows(*NAMES) == rows[position["seq"] :]


def test_rows_do_not_depend_on_buffers_or_packing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pk.pcap(many())
    whole = given_back(path, data)
    assert whole.records == 4000
    for packed in (gzip.compress(data, 1), zstandard.compress(data)):
        assert given_back(path, packed).table.equals(whole.table)
    for size in (4096, 5001, 100_000):
        monkeypatch.setattr(_pcap_framer, "READ", size)
        assert given_back(path, data).table.equals(whole.table)


def test_a_damaged_packed_capture_says_so_and_gives_what_came_before(path: Path) -> None:
    packed = gzip.compress(pk.pcap(many()), 1)
    found = given_back(path, packed[: len(packed) // 2])
    assert 100 < found.table.num_rows < 4000
    assert found.bad[-1].operation == "pcap.read"
    assert "ends early" in found.bad[-1].error


@pytest.mark.parametrize("data", [b"", b"\xd4\xc3\xb2\xa1", b"PAR1" * 9, b"\xd4\xc3\xb2\xa1\x09\0\4\0" + bytes(16)])
def test_what_is_no_capture_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for act in (lambda: Pcap(path).open(Context("p")), lambda: inspect_pcap(str(path)), lambda: open_pcap(path)):
        with pytest.raises(FormatError, match=r"some\.pcap"):
            act()


def test_captures_are_known_by_their_first_bytes() -> None:
    assert all(is_pcap(pk.pcap([], big=big, nano=nano)) for big in (False, True) for nano in (False, True))
    assert is_pcap(pk.section()) and is_pcap(pk.section(big=True))
    assert not any(
        is_pcap(head) for head in (b"", b"\n\r\r\n", b"\n\r\r\n" + bytes(20), b"\xd4\xc3\xb2\xa1\2\0\5\0", b"{}")
    )


def test_wrong_arguments_are_refused(path: Path) -> None:
    for options in ({"port": 70_000}, {"port": -1}, {"host": "example.org"}, {"host": "1.2.3"}):
        with pytest.raises(GraphError, match=next(iter(options))):
            Pcap(path, **options)  # type: ignore[arg-type]


def test_inspect_tells_flows_and_what_they_carry(path: Path) -> None:
    captured = [(T0 + i, ethernet(ipv4(udp(pk.mold(i + 1, [b"S" + bytes(11)]))))) for i in range(3)]
    captured += [(T0 + 9, ethernet(ipv4(udp(pk.iex(1, []), target=10378))))]
    captured += [
        (T0 + 7, ethernet(ipv4(udp(pk.mold(9, [b"A" + bytes(36)]), target=9)))),
        (T0 + 8, ethernet(ipv4(udp(pk.mold(9, []), target=8)))),
    ]
    captured += [(T0 + 5, ethernet(ipv4(tcp(b"GET /", 9), protocol=6))), (T0 + 6, ethernet(bytes(40), kind=0x0806))]
    path.write_bytes(pk.pcapng(captured))
    found = inspect_pcap(str(path))
    assert found["messages"] == 8
    assert found["types"] == {
        "tcp 233.54.12.111:80": {"name": "other", "messages": 1},
        "udp 233.54.12.111:8": {"name": "MoldUDP64 without messages", "messages": 1},
        "udp 233.54.12.111:9": {"name": "MoldUDP64, not ITCH 5.0", "messages": 1},
        "udp 233.54.12.111:10378": {"name": "IEX TOPS", "messages": 1},
        "udp 233.54.12.111:26477": {"name": "ITCH 5.0 in MoldUDP64", "messages": 3},
    }
    assert found["left_out"] == {"neither IPv4 nor IPv6": 1}
    assert found["time_range"]["utc"] == ["2019-01-30T14:30:00.000000000Z", "2019-01-30T14:30:00.000000009Z"]
    assert (found["format"], found["bad"], found["error"]) == ("pcapng", 0, None)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (pk.mold(1, [b"S" + bytes(11)]), "MoldItch"),
        (pk.mold(1, [b"*" * 30]), "Pcap"),
        (pk.mold(1, [b"A" + bytes(36)]), "Pcap"),  # an add order of another exchange: a byte longer than NASDAQ's
        (pk.iex(1, [b"Q" + bytes(41)]), "Iex:bbo"),
        (pk.iex(1, [b"8" + bytes(29)], protocol=0x8004), "Iex:l2"),
        (b"anything", "Pcap"),
    ],
)
def test_a_capture_opens_as_what_it_carries(tmp_path: Path, payload: bytes, kind: str) -> None:
    path = tmp_path / "2019-01-30.pcap"
    path.write_bytes(pk.pcap([(T0, ethernet(ipv4(udp(payload))))]))
    spec: Any = open_pcap(path)
    assert type(spec).__name__ + (f":{spec.table}" if kind.startswith("Iex") else "") == kind
    assert type(open_pcap(path, port=26477)) is Pcap


def test_the_session_of_a_capture_is_the_day_of_its_first_packet_where_no_name_tells(tmp_path: Path) -> None:
    path = tmp_path / "feed.pcap"
    late = T0 + 14 * 3600 * 10**9  # 23:30 in New York, the next day in UTC
    path.write_bytes(pk.pcap([(late, ethernet(ipv4(udp(pk.mold(1, [b"S" + bytes(11)])))))]))
    assert str(open_pcap(path).session) == "2019-01-30"  # type: ignore[attr-defined]
    assert str(open_pcap(path, date="2019-01-29").session) == "2019-01-29"  # type: ignore[attr-defined]
    found = inspect_pcap(path)
    assert "msg_type uint8" in found["schema"]
    assert "others are 'status', 'noii', 'trades'" in found["hint"]
