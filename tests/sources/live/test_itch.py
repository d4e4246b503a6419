"""Live ITCH over MoldUDP64: drops, doubles, reordering, delays on either line; the rows of the file, or a told gap."""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itch_reference import message
from live_feeds import beside, follow, free_port, until_bound
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import GraphError
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.itch_packets import MoldPackets, live_itch
from penstock.sources.live.stamp import pack as stamped
from penstock.sources.market.itch import Itch
from penstock.sources.replay.formats import playable_of

DATE = "2019-01-30"
ORDERS = [message("D", 1, 1_000 + n, 100 + n) for n in range(60)]


def packets(messages: list[bytes], size: int = 1, *, end: bool = True, session: bytes = b"SESSION001") -> list[bytes]:
    """MoldUDP64 packets of `size` messages each."""
    made = []
    for at in range(0, len(messages), size):
        part = messages[at : at + size]
        body = b"".join(len(m).to_bytes(2, "big") + m for m in part)
        made.append(session + struct.pack(">QH", at + 1, len(part)) + body)
    return made + ([session + struct.pack(">QH", len(messages) + 1, 0xFFFF)] if end else [])


def followed(
    arrivals: list[Arrival], *, cut: int = 7, **options: Any
) -> tuple[list[dict[str, Any]], list[BadRecord], dict[str, int], bool]:
    """What a session makes of arrivals, taken a few at a time."""
    session = MoldPackets(date=DATE, **options).open(Context("itch"), "udp://test", None)
    rows: list[dict[str, Any]] = []
    bad: list[BadRecord] = []
    dropped: dict[str, int] = {}
    seq = 0
    framed = [session.take(arrivals[at : at + cut], seq) for at in range(0, len(arrivals), cut)]
    ended = session.ended
    framed += [last for last in [session.finish(seq)] if last is not None]
    for part in framed:
        decoded = session.decode(part.payload, seq)
        seq += part.records
        rows += [row for batch in decoded.batches for row in batch.to_pylist()]
        bad += [*part.noticed, *decoded.bad]
        for reason, count in decoded.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return rows, bad, dropped, ended


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["order_id"] for row in rows]


faults = st.lists(st.sampled_from(["keep", "keep", "keep", "drop", "double", "late"]), min_size=60, max_size=60)


@settings(max_examples=120, deadline=None)
@given(line_a=faults, line_b=faults, size=st.integers(1, 5), cut=st.integers(1, 30), data=st.data())
def test_whatever_happens_on_two_lines_rows_are_in_sequence_and_what_came_on_neither_is_told(
    line_a: list[str], line_b: list[str], size: int, cut: int, data: st.DataObject
) -> None:
    sent = packets(ORDERS, size, end=False)
    arrivals: list[Arrival] = []
    delayed: list[Arrival] = []
    came: set[int] = set()
    for n, packet in enumerate(sent):
        for line, what in enumerate((line_a[n], line_b[n])):
            arrival = Arrival(1_000_000 + n, packet, line)
            if what == "drop":
                continue
            came.add(n)
            if what == "late":
                delayed.append(arrival)
            else:
                arrivals += [arrival] * (2 if what == "double" else 1)
        if delayed and data.draw(st.booleans()):
            arrivals.append(delayed.pop())
    arrivals += delayed
    rows, bad, dropped, _ = followed(arrivals, cut=cut)
    there = [n for packet in sorted(came) for n in range(packet * size, min(60, packet * size + size))]
    first, last = (there[0], there[-1]) if there else (0, -1)
    # a packet from before the first one that arrived is late, not missing
    kept = ids(rows)
    assert kept == sorted(kept) and len(set(kept)) == len(kept)
    missing = [n for n in range(first, last + 1) if n not in there]
    told = sum(_span(record.error) for record in bad if record.operation == "mold.sequence")
    late = dropped.get("messages that came after they were reported missing", 0)
    assert set(kept) <= {100 + n for n in there}
    if kept:
        expected = [100 + n for n in there if n >= kept[0] - 100]
        assert kept == expected
        assert told == len([n for n in missing if n >= kept[0] - 100]) and late == 0
    marked = [row["order_id"] - 100 for row in rows if row["flags"] & 4]
    assert marked == [n for n in there if n - 1 in missing and kept and n > kept[0] - 100]


def _span(error: str) -> int:
    numbers = error.partition("message")[2].lstrip("s ").split(" of ")[0].split("..")
    return int(numbers[-1]) - int(numbers[0]) + 1


def test_a_gap_is_seen_at_the_next_packet_and_waits_to_be_filled() -> None:
    sent = packets(ORDERS[:6], end=False)
    session = MoldPackets(date=DATE).open(Context("itch"), "udp://test", None)
    taken = [session.take([Arrival(n, sent[n])], 0).records for n in (0, 1, 3, 4)]
    assert taken == [1, 1, 0, 0]
    assert session.take([Arrival(9, sent[2], 1)], 2).records == 3


def test_a_gap_that_is_not_filled_in_time_is_given_up_while_the_feed_is_quiet() -> None:
    sent = packets(ORDERS[:4], end=False)
    session = MoldPackets(date=DATE, wait="5ms").open(Context("itch"), "udp://test", None)
    session.take([Arrival(10**9, sent[0]), Arrival(10**9, sent[3])], 0)
    early = session.idle(4_000_000, 1)
    assert early is not None and early.records == 0
    late = session.idle(6_000_000, 1)
    assert late is not None and late.records == 3  # two lost, one row
    decoded = session.decode(late.payload, 1)
    assert [record.operation for record in decoded.bad] == ["mold.sequence"]
    assert decoded.batches[0]["flags"].to_pylist() == [4]
    assert decoded.batches[0]["seq"].to_pylist() == [3]


def test_the_end_of_the_session_ends_the_feed_once_nothing_waits() -> None:
    sent = packets(ORDERS[:5])
    assert followed([Arrival(n, packet) for n, packet in enumerate(sent)])[3]
    session = MoldPackets(date=DATE).open(Context("itch"), "udp://test", None)
    session.take([Arrival(n, packet) for n, packet in enumerate(sent) if n != 2], 0)
    assert not session.ended
    session.take([Arrival(9, sent[2], 1)], 2)
    assert session.ended


def test_a_datagram_that_is_no_packet_is_a_bad_record_with_its_bytes() -> None:
    rows, bad, _, _ = followed([Arrival(0, packets(ORDERS[:1])[0]), Arrival(1, b"something else"), Arrival(2, b"")])
    assert len(rows) == 1
    assert len(bad) == 2 and all("MoldUDP64" in record.error for record in bad)
    assert bad[0].data.endswith(b"something else")


def test_a_run_that_goes_on_tells_what_it_missed_and_knows_its_symbols() -> None:
    named = message("R", 7, 1, b"ABCD    ", b"Q", b"N", 100, b"N", b"C", b"Z ", b"P", b"N", b"N", b"1", b"N", 0, b"N")
    orders = [named, *(message("D", 7, 1_000 + n, n) for n in range(9))]
    sent = packets(orders, end=False)
    codec = MoldPackets(date=DATE)
    first = codec.open(Context("itch"), "udp://test", None)
    before = first.take([Arrival(n, sent[n]) for n in range(4)], 0)
    position = json.loads(json.dumps(first.position()))
    again = codec.open(Context("itch"), "udp://test", position)
    framed = again.take([Arrival(8, sent[7])], before.records)
    last = again.finish(before.records)
    assert framed.records == 0 and last is not None
    decoded = again.decode(last.payload, before.records)
    assert [_span(record.error) for record in decoded.bad] == [3]
    assert decoded.batches[0]["symbol"].to_pylist() == ["ABCD"]
    assert decoded.batches[0]["seq"].to_pylist() == [7]


def test_the_feed_of_a_real_file_on_two_lossy_lines_gives_the_rows_of_the_file(recordings: Any) -> None:
    path = recordings("market/itch50") / "ex20101224.TEST_ITCH_50.prefixed.itch"
    recording = playable_of(str(path), date="2010-12-24")
    assert recording.datagrams is not None
    sent = list(recording.datagrams(recording.messages()))
    ports = [free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)]
    spec = live_itch(tuple(f"udp://127.0.0.1:{port}" for port in ports), date="2010-12-24", wait="24h")
    context = Context("itch")
    reader = spec.open(context)
    batches: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    progress, taken = threading.Condition(), [0]

    def receive() -> None:
        try:
            for block in reader.blocks():
                decoded = reader.decode(block)
                batches.extend(decoded.batches)
                bad.extend(decoded.bad)
                with progress:
                    taken[0] = block.first_seq + block.records
                    progress.notify_all()
        finally:
            with progress:
                taken[0] = 1 << 60
                progress.notify_all()

    with beside(receive), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in ports:
            until_bound(port)
        for number, packet in enumerate(sent):
            first, count = struct.unpack_from(">QH", packet.data, 10)
            with progress:  # what the receiver has not taken fits the socket's buffer
                assert progress.wait_for(lambda first=first: taken[0] >= first - 200, 20)
            for line, port in enumerate(ports):
                if number % 3 != line or count == 0xFFFF:  # each line misses every third packet, never the same one
                    sender.sendto(stamped(packet.data, packet.ts_ns, 0), ("127.0.0.1", port))
    reader.close()
    want, _, _ = follow(Itch(path, date="2010-12-24"))
    got = pa.Table.from_batches(batches, schema=spec.schema)
    assert bad == []
    assert got.drop(["seq"]).to_pylist() == want.drop(["seq"]).to_pylist()


HOUR_NS = 3600 * 10**9
NEW_YORK_NS = 1_293_166_800 * 10**9  # midnight of 2010-12-24 in New York


def day_of(recv_ns: int, time_ns: int, position: Any = None, session: bytes = b"A         ") -> tuple[int, Any]:
    """``ts_event`` of one message received then, and the position behind it."""
    made = MoldPackets().open(Context("itch"), "udp://test", position)
    framed = made.take([Arrival(recv_ns, packets([message("D", 1, time_ns, 1)], end=False, session=session)[0])], 0)
    (batch,) = made.decode(framed.payload, 0).batches
    return batch["ts_event"].cast("int64").to_pylist()[0], json.loads(json.dumps(made.position()))


@pytest.mark.parametrize(
    ("recv", "time", "day"),
    [
        (10 * HOUR_NS, 10 * HOUR_NS, 0),  # as it comes
        (20 * HOUR_NS, 4 * HOUR_NS, 0),  # a plain replay, at another time of the day
        (1 * HOUR_NS, 20 * HOUR_NS, 0),
        (24 * HOUR_NS + 50, 24 * HOUR_NS - 9, 0),  # it took over midnight to come
        (24 * HOUR_NS - 1000, 5, 1),  # the host's clock is behind
        (25 * HOUR_NS, 1 * HOUR_NS, 1),
    ],
)
def test_without_a_date_it_is_the_day_on_which_the_first_message_was_received(recv: int, time: int, day: int) -> None:
    assert day_of(NEW_YORK_NS + recv, time)[0] == NEW_YORK_NS + day * 24 * HOUR_NS + time


def test_the_date_of_a_session_stays_over_midnight_and_checkpoints_and_the_next_session_has_its_own() -> None:
    morning, position = day_of(NEW_YORK_NS + 9 * HOUR_NS, 9 * HOUR_NS)
    assert morning == NEW_YORK_NS + 9 * HOUR_NS
    late = NEW_YORK_NS + 26 * HOUR_NS
    assert day_of(late, 2 * HOUR_NS, {**position, "expected": 1})[0] == NEW_YORK_NS + 2 * HOUR_NS
    assert day_of(late, 2 * HOUR_NS, {**position, "expected": 1}, b"B         ")[0] == late
    before = {key: value for key, value in position.items() if key != "dates"}  # a checkpoint of an earlier version
    assert day_of(late, 2 * HOUR_NS, {**before, "expected": 1})[0] == late


def test_wrong_options_are_refused_when_the_pipeline_is_built() -> None:
    with pytest.raises(GraphError, match="no table"):
        live_itch("udp://127.0.0.1:1", table="nope")
