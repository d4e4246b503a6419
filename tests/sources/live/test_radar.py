"""Radar packets over real UDP sockets: the rows of the recording; what is lost, late, twice or broken is told."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_feeds import beside, follow, free_port, until_bound
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.sources.driving._radar_packets import open_records
from penstock.sources.driving.adc import INTERLEAVES, Adc
from penstock.sources.driving.ars548 import Ars548
from penstock.sources.driving.srr520 import Srr520
from penstock.sources.live.adc_packets import AdcPackets, live_adc
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.radar_packets import RadarPackets, live_radar
from penstock.sources.live.session import Codec
from penstock.sources.live.stamp import pack
from penstock.sources.replay.recording import Recording
from radar_files import NEAR, OBJECTS, detection_packet, frames, object_header, scan_header

START = 1_700_000_000_000_000_000
SHAPE = {"chirps": 4, "samples": 32, "rx": 4, "frame_period": "50ms"}
FRAME = 4 * 32 * 4 * 4


def sent_to(spec_of: Any, packets: list[tuple[int, bytes]]) -> Any:
    """What a feed makes of stamped datagrams."""
    port = free_port(socket.SOCK_DGRAM)
    spec = spec_of(f"udp://127.0.0.1:{port}", len(packets))
    with beside(lambda: follow(spec)) as outcome, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        until_bound(port)
        for ts_ns, packet in packets:
            sender.sendto(pack(packet, ts_ns, 0), ("127.0.0.1", port))
    return outcome[0]


def made_by(
    codec: Codec, arrivals: list[Arrival], *, cut: int = 3
) -> tuple[pa.Table, list[Any], dict[str, int], dict[str, int]]:
    """Rows, bad records and gaps, drops and notes of a session that takes arrivals a few at a time."""
    context = Context("radar")
    session = codec.open(context, "feed", None)
    batches, bad, dropped, seq = [], [], {}, 0
    for at in [*range(0, len(arrivals), cut), None]:
        part = session.finish(seq) if at is None else session.take(arrivals[at : at + cut], seq)
        if part is None:
            continue
        decoded = session.decode(part.payload, seq)
        seq += part.records
        batches += decoded.batches
        bad += [*part.noticed, *decoded.bad]
        for counts in (part.dropped, decoded.dropped):
            for reason, count in counts.items():
                dropped[reason] = dropped.get(reason, 0) + count
    return pa.Table.from_batches(batches, codec.schema("feed")), bad, dropped, dict(context.metrics.noted)


def recorded(path: Path) -> tuple[list[tuple[int, bytes]], str, str]:
    """The packets of a bag with the time of their message, the topic and the frame id."""
    records = list(open_records(str(path), topic=None, port=0, context=Context("bag"), position={}).records())
    packets = [(record.recv_ns, packet.data) for record in records for packet in record.packets]
    return packets, records[0].topic, records[0].frame_id


def plain(table: pa.Table) -> pa.Table:
    return table.unify_dictionaries().combine_chunks().replace_schema_metadata(None)


@pytest.mark.parametrize("table", ["scan", "detections", "objects"])
def test_an_ars548_over_udp_gives_the_rows_of_the_recording(recordings: Any, table: str) -> None:
    path = recordings("driving/nebula_radar_ros2") / "ars548" / "1708578204.db3"
    packets, topic, frame_id = recorded(path)
    want, _, dropped = follow(Ars548(path, table))
    got, bad, left = sent_to(
        lambda url, most: live_radar(url, table=table, topic=topic, frame_id=frame_id, most=most), packets
    )
    assert bad == [] and left == dropped and got.num_rows == want.num_rows == 1
    assert plain(got).equals(plain(want))


@pytest.mark.parametrize("table", ["scan", "detections", "objects"])
def test_an_srr520_over_udp_gives_the_rows_of_the_recording(recordings: Any, table: str) -> None:
    path = recordings("driving/nebula_radar_ros2") / "srr520" / "1708578209.db3"
    packets, topic, frame_id = recorded(path)
    want, _, dropped = follow(Srr520(path, table))
    got, bad, left = sent_to(
        lambda url, most: live_radar(url, "srr520", table=table, topic=topic, frame_id=frame_id, most=most), packets
    )
    assert bad == [] and left == dropped and got.num_rows == want.num_rows > 0
    assert plain(got).equals(plain(want))


def counted(number: int, seconds: int) -> bytes:
    """A detection list with a counter in its end-to-end protection."""
    packet = bytearray(detection_packet([(0.1, 0.0, 10.0, 1.0, 3, 0, 7)], seconds=seconds))
    packet[28:32] = struct.pack(">I", number)
    return bytes(packet)


def test_a_counter_that_jumps_is_told_at_the_next_packet_and_a_late_or_second_one_is_known() -> None:
    order = [55, 56, 59, 57, 59, 60, 1]
    arrivals = [Arrival(START + n, counted(number, 100 + number)) for n, number in enumerate(order)]
    rows, bad, dropped, noted = made_by(RadarPackets(), arrivals, cut=1)
    assert [t.value // 10**9 - 100 for t in rows["ts_event"].to_pylist()] == [55, 56, 59, 57, 60, 1]
    assert [record.error for record in bad] == [
        "packets 57 to 58 of detections never came: their counter jumped",
        "the counter of detections began again at 1 where 61 was due",
    ]
    assert dropped == {"packets that came twice": 1}
    assert noted == {"packets that came after they were told missing": 1}
    assert rows["seq"].to_pylist() == list(range(6))


def test_without_a_counter_a_second_copy_is_known_and_the_rest_is_noted() -> None:
    packets = [detection_packet([], seconds=seconds) for seconds in (1, 2, 2, 4, 3)]
    rows, bad, dropped, noted = made_by(RadarPackets(), [Arrival(START, packet) for packet in packets])
    assert rows.num_rows == 4 and bad == [] and dropped == {"packets that came twice": 1}
    assert noted == {
        "packets without a counter: a lost one cannot be seen": 4,
        "packets that came behind later ones": 1,
    }


def near(counter: int, cycle: int) -> list[bytes]:
    """A list of near detections."""
    header = bytearray(scan_header(2, counter=counter))
    header[15:19] = struct.pack(">I", cycle)
    return frames(NEAR, bytes(header), [bytes([1, 2, 3, 4, 5, 6]), bytes(6)], counter=counter)


def test_lists_leave_in_the_order_of_their_headers_and_a_lost_frame_is_told_at_the_next_one() -> None:
    objects = frames(OBJECTS, object_header(0), [])
    packets = [*near(7, 1)[:10], *objects, *near(7, 1)[10:]]
    arrivals = [Arrival(START + n, packet) for n, packet in enumerate(packets)]
    rows, bad, dropped, _ = made_by(RadarPackets("srr520"), arrivals)
    assert rows["seq"].to_pylist() == [0] and bad == [] and dropped == {"not in radar.scan: objects": 22}
    session = RadarPackets("srr520").open(Context("radar"), "feed", None)
    told = [len(session.take([arrival], n).noticed) for n, arrival in enumerate(arrivals[:5] + arrivals[6:8])]
    assert told == [0, 0, 0, 0, 0, 1, 0]
    rows, bad, _, _ = made_by(RadarPackets("srr520"), [*arrivals[:5], *arrivals[6:]])
    assert rows.num_rows == 0
    assert [record.operation for record in bad] == ["live.gap", "srr520.decode"]


def test_frames_that_come_twice_count_once_and_whole_lists_that_are_missing_are_told() -> None:
    packets = [packet for cycle in (10, 12, 14, 20, 22) for packet in near(cycle, cycle)]
    twice = [packet for packet in packets for _ in range(2)]
    rows, bad, dropped, _ = made_by(RadarPackets("srr520"), [Arrival(START, packet) for packet in twice])
    assert rows.num_rows == 5 and dropped == {"packets that came twice": len(packets)}
    assert [record.error for record in bad] == ["2 lists of near never came: the cycle counter jumped by 6"]


def test_a_list_that_never_ends_holds_up_a_few_others_and_no_more() -> None:
    endless = frames(OBJECTS, object_header(0), [])[:3]
    packets = [
        *endless,
        *(packet for cycle in range(8) for packet in near(cycle, cycle)),
        *[endless[2]] * 2,
        endless[1],
    ]
    codec = RadarPackets("srr520")
    session = codec.open(Context("radar"), "feed", None)
    came, bad = [], []
    for number, packet in enumerate(packets):
        part = session.take([Arrival(START, packet)], number)
        decoded = session.decode(part.payload, number)
        came.append(sum(batch.num_rows for batch in decoded.batches))
        bad += decoded.bad
    assert sum(came) == 8 and came.index(5) == 3 + 5 * 52 - 1
    assert "2 of 20 elements: its rest has not come" in bad[0].error and bad[0].seq == 0
    assert [record.error for record in bad[1:]] == ["an element of objects without a header in front of it"] * 2
    many = [near(1, 1)[0], *[near(1, 1)[1]] * 3]  # copies count once; others are of no list
    assert len(made_by(codec, [Arrival(START, packet) for packet in many])[1]) == 1


def raw(count: int) -> bytes:
    rng = np.random.Generator(np.random.Philox(key=count))
    return rng.integers(0, 256, count * FRAME, dtype=np.uint8).tobytes()


def datagrams(data: bytes, *, size: int = 1456) -> list[bytes]:
    """What a DCA1000 sends of `data`."""
    return [
        struct.pack("<I", n + 1) + at.to_bytes(6, "little") + data[at : at + size]
        for n, at in enumerate(range(0, len(data), size))
    ]


def stamped(packets: list[bytes]) -> list[tuple[int, bytes]]:
    """Each at the time of the frame that it begins in."""
    return [(START + int.from_bytes(p[4:10], "little") // FRAME * 50_000_000, p) for p in packets]


@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_a_dca1000_over_udp_gives_the_rows_of_its_file(tmp_path: Path, interleave: str) -> None:
    data = raw(20)
    (tmp_path / "adc.bin").write_bytes(data)
    options = {**SHAPE, "start": START, "interleave": interleave}
    want, _, _ = follow(Adc(tmp_path / "adc.bin", **options))
    got, bad, dropped = sent_to(lambda url, most: live_adc(url, most=most, **options), stamped(datagrams(data)))
    assert bad == [] and dropped == {}
    assert plain(got).equals(plain(want)) and got.num_rows == 20


def adc_made(packets: list[bytes], **options: Any) -> Any:
    codec = AdcPackets(Adc("feed", **SHAPE, start=START), **options)
    return made_by(codec, [Arrival(ts, packet) for ts, packet in stamped(packets)])


def cubes(table: pa.Table) -> Any:
    return table["cube"].combine_chunks().to_numpy_ndarray()


def test_lost_datagrams_are_zeros_and_told_and_reordered_ones_are_put_in_place(tmp_path: Path) -> None:
    data, options = raw(20), {"reorder": 4}
    sent = datagrams(data)
    order = [*sent[:3], sent[5], sent[3], sent[4], *sent[6:8], *sent[9:16], sent[9], *sent[16:20]]
    rows, bad, dropped, noted = adc_made(order, **options)
    (tmp_path / "adc.bin").write_bytes(data[: 8 * 1456] + bytes(1456) + data[9 * 1456 : 20 * 1456])
    want, _, _ = follow(Adc(tmp_path / "adc.bin", **SHAPE, start=START))
    assert (cubes(rows) == cubes(want)).all() and rows.num_rows == want.num_rows == 14
    lost = [record for record in bad if record.operation == "adc.lost"]
    assert sum(int(record.error.split()[0]) for record in lost) == 1456 == noted["bytes that never came and are zeros"]
    assert "bytes 1408 to 2047" in lost[0].error and lost[0].place == "feed, frame 5"
    assert dropped == {"datagrams that came twice": 1}
    assert noted["datagrams that came behind later ones"] == 2
    assert "the feed ended" in bad[-1].error and bad[-1].data == data[14 * FRAME : 20 * 1456]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_happens_to_datagrams_every_byte_is_in_place_or_told(data: st.DataObject) -> None:
    content = raw(8)
    sent = datagrams(content)
    fate = data.draw(
        st.lists(st.sampled_from(["keep"] * 4 + ["drop", "twice", "late"]), min_size=len(sent), max_size=len(sent))
    )
    packets: list[bytes] = []
    late: list[bytes] = []
    for packet, what in zip(sent, fate, strict=True):
        if what == "late":
            late.append(packet)
        elif what != "drop":
            packets += [packet] * (2 if what == "twice" else 1)
        if late and data.draw(st.booleans()):
            packets.append(late.pop(0))
    packets += late
    came = set(packets)
    rows, bad, dropped, noted = adc_made(packets, reorder=64)
    whole = bytearray(len(content))
    for packet in came:
        at = int.from_bytes(packet[4:10], "little")
        whole[at : at + len(packet) - 10] = packet[10:]
    numbers = rows["frame"].to_pylist()
    assert numbers == sorted(set(numbers))
    codec = AdcPackets(Adc("feed", **SHAPE, start=START))
    again = made_by(codec, [Arrival(START, p) for p in datagrams(bytes(whole))])[0]
    assert all((cubes(rows)[i] == cubes(again)[frame]).all() for i, frame in enumerate(numbers))
    assert dropped.get("datagrams that came twice", 0) == len(packets) - len(came)
    zeros = sum(int(r.error.split()[0]) for r in bad if "are zeros" in r.error)
    assert zeros == noted.get("bytes that never came and are zeros", 0)
    ended = sum(len(r.data) > 0 for r in bad if r.operation == "adc.decode")
    assert len(numbers) + noted.get("frames that never came", 0) + ended >= max(numbers, default=-1) + 1


def test_following_begins_with_a_whole_frame_and_a_card_that_begins_again_is_told() -> None:
    sent = datagrams(raw(300))
    codec = AdcPackets(Adc("feed", **SHAPE))
    packets = [*sent[200:210], *sent[:10]]
    rows, bad, dropped, _ = made_by(codec, [Arrival(START + n, packet) for n, packet in enumerate(packets)])
    first = -(-200 * 1456 // FRAME)
    assert rows["frame"].to_pylist() == [*range(first, 210 * 1456 // FRAME), *range(10 * 1456 // FRAME)]
    assert dropped == {"bytes of frames that had left, or begun before": first * FRAME - 200 * 1456}
    assert [r.error for r in bad if r.operation == "live.gap"] == [
        "the card began again with datagram 1 where 211 was due"
    ]
    times = rows["ts_event"].cast(pa.int64()).to_pylist()
    assert abs(times[0] - START) < 50_000_000 and abs(times[-7] - START) < 50_000_000


def test_frames_of_which_nothing_came_and_a_quiet_feed_are_told_and_a_run_goes_on() -> None:
    sent = datagrams(raw(40))
    codec = AdcPackets(Adc("feed", **SHAPE, start=START), reorder=4)
    session = codec.open(Context("adc"), "feed", None)
    arrivals = [Arrival(START, packet) for packet in [*sent[:2], *sent[12:13]]]
    assert session.take(arrivals, 0).records == 2  # the first is whole; the second has waited for more than 4 datagrams
    quiet = session.idle(200_000_000, 2)
    assert quiet is not None and quiet.records == 1 and "of frames 2 to 7 no datagram came" in quiet.noticed[0].error
    position = json.loads(json.dumps(dict(session.position())))
    again = codec.open(Context("adc"), "feed", position)
    again.take([Arrival(0, b"", 0, 0, "lost: away"), Arrival(0, b"", 0, 0, "connected")], 3)
    framed = again.take([Arrival(START, packet) for packet in sent[20:30]], 3)
    assert "of frames 9 to 14 no datagram came" in framed.noticed[0].error
    rows = again.decode(framed.payload, 3).batches[0]
    assert rows["frame"].to_pylist()[0] == 15 and rows["seq"].to_pylist()[0] == 3


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_datagrams_are_rows_bad_records_or_counted(data: st.DataObject) -> None:
    damaged(data)


@pytest.mark.nightly
@settings(max_examples=10_000, deadline=None)
@given(data=st.data())
def test_damaged_datagrams_are_rows_bad_records_or_counted_for_long(data: st.DataObject) -> None:
    damaged(data)


def damaged(data: st.DataObject) -> None:
    """Datagrams with bytes changed, cut, in any order: of a packet nothing is lost that is not told or counted."""
    kind = data.draw(st.sampled_from(["ars548", "srr520", "dca1000"]))
    sound = {"ars548": ARS, "srr520": SRR, "dca1000": CARD}[kind]
    mixed = []
    for i in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=40)):
        packet = bytearray(sound[i])
        if data.draw(st.integers(0, 3)) == 0:
            packet[data.draw(st.integers(0, min(40, len(packet) - 1)))] = data.draw(st.integers(0, 255))
        if data.draw(st.integers(0, 7)) == 0:
            packet = packet[: data.draw(st.integers(0, len(packet)))]
        mixed.append(bytes(packet))
    codec = AdcPackets(Adc("feed", **SHAPE)) if kind == "dca1000" else RadarPackets(kind)
    rows, bad, dropped, _ = made_by(codec, [Arrival(START, packet) for packet in mixed])
    numbers = rows["seq"].to_pylist()
    assert len(set(numbers)) == len(numbers)
    if kind == "ars548":
        told = sum(record.operation == "ars548.decode" for record in bad)
        assert rows.num_rows + told + sum(dropped.values()) == len(mixed)


ARS = [counted(number, 100 + number) for number in range(1, 6)] + [detection_packet([])]
SRR = [packet for cycle in (1, 2) for packet in near(cycle, cycle)] + frames(OBJECTS, object_header(0), [])
CARD = datagrams(raw(8))


def test_recordings_of_radar_feeds_give_their_rows_again(tmp_path: Path) -> None:
    path = str(tmp_path / "adc.mcap")
    sent = stamped(datagrams(raw(4)))
    live, _, _ = sent_to(lambda url, most: live_adc(url, most=most, start=START, record=path, **SHAPE), sent)
    assert plain(follow(Recording(path))[0]).equals(plain(live)) and live.num_rows == 4
    path = str(tmp_path / "radar.mcap")
    packets = [(START + n, detection_packet([], seconds=n)) for n in range(3)]
    live, _, _ = sent_to(lambda url, most: live_radar(url, most=most, record=path), packets)
    assert plain(follow(Recording(path))[0]).equals(plain(live)) and live.num_rows == 3


def test_wrong_arguments_are_refused_when_the_pipeline_is_built() -> None:
    with pytest.raises(GraphError, match="no sensor"):
        RadarPackets("ars999")
    with pytest.raises(GraphError, match="no table"):
        RadarPackets(table="nope")
    with pytest.raises(GraphError, match="reorder"):
        live_adc("udp://127.0.0.1:1", reorder=-1, **SHAPE)
