"""ITCH in MoldUDP64 from captures: the same table as the file gives, whatever the lines lost, doubled or mixed up."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import packets as pk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itch_reference import any_message, directory, message, messages, pack
from packets import ethernet, ipv4, read, udp
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.market.itch import Itch
from penstock.sources.market.mold import MoldItch
from penstock.sources.network import _pcap_framer

T0 = 1_548_858_600 * 10**9
DAY = "2019-01-30"
LOST = "lost before the capture: messages missing"
AGAIN = "messages that came before, on another line or twice"
Packet = tuple[int, bytes]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mold") / "feed.pcap"


def packed(
    parts: Sequence[bytes], sizes: Sequence[int], *, first: int = 1, session: bytes = b"000000001A"
) -> list[bytes]:
    """`parts` in MoldUDP64 packets of `sizes` messages, over and over."""
    made, at = [], 0
    while at < len(parts):
        size = sizes[len(made) % len(sizes)]
        made.append(pk.mold(first + at, parts[at : at + size], session=session))
        at += size
    return made


def on_line(payload: bytes, line: int = 0) -> bytes:
    return ethernet(ipv4(udp(payload, 4000, 26477 + line), target=0xE9360C6F + line))


def capture(payloads: Sequence[bytes], line: int = 0, start: int = T0) -> list[Packet]:
    return [(start + 1000 * i, on_line(payload, line)) for i, payload in enumerate(payloads)]


def from_capture(path: Path, captured: Sequence[Packet], *, make: Any = pk.pcap, **options: Any) -> pk.Reading:
    path.write_bytes(make(captured))
    return read(MoldItch(path, date=DAY, **options))


def from_file(path: Path, parts: Sequence[bytes], table: str = "l3") -> pk.Reading:
    file = path.with_suffix(".itch")
    file.write_bytes(pack(parts))
    return read(Itch(file, date=DAY, table=table))


def same(found: pk.Reading, whole: pk.Reading) -> bool:
    """Whether all but `ts_recv` is the same, byte for byte."""
    left, right = (
        reading.table.drop_columns(["ts_recv"]).unify_dictionaries().combine_chunks() for reading in (found, whole)
    )
    return bool(left.equals(right))


def orders(count: int) -> list[bytes]:
    made = [directory(1, "ABC"), directory(2, "XYZ")]
    made += [message("A", 1 + i % 2, i, i, b"B", 100, b"ABC     ", 10_000 + i) for i in range(count - 2)]
    return made


@given(
    st.lists(any_message(), min_size=1, max_size=40), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans()
)
@settings(max_examples=60)
def test_a_capture_gives_the_table_of_the_file(path: Path, parts: list[bytes], sizes: list[int], ng: bool) -> None:
    captured = capture(packed(parts, sizes))
    found, whole = from_capture(path, captured, make=pk.pcapng if ng else pk.pcap), from_file(path, parts)
    assert same(found, whole)
    assert (found.dropped, found.records) == (whole.dropped, whole.records)
    assert [record.seq for record in found.bad] == [record.seq for record in whole.bad]


@pytest.mark.parametrize("table", ["l3", "status", "noii", "trades"])
def test_a_recorded_day_gives_the_tables_of_the_file(path: Path, recordings: Callable[[str], Path], table: str) -> None:
    file = next(recordings("market/itch50").glob("*.prefixed.itch"))
    parts = list(messages(file.read_bytes(), True))
    whole = read(Itch(file, date=DAY, table=table))
    payloads = packed(parts, [30, 1, 7])
    random = Random(1)
    arrivals = []
    for at, payload in enumerate(payloads):
        without = random.choice("ab  ") if at else ""
        arrivals += [(at + random.random() * 4 * (at > 0), line, payload) for line in "ab" if line != without]
    arrivals.sort(key=lambda arrival: arrival[0])
    captured = [(T0 + i * 1000, on_line(payload, "ab".index(line))) for i, (_, line, payload) in enumerate(arrivals)]
    found = from_capture(path, captured, table=table, ports=(26477, 26478))
    assert same(found, whole)
    assert [(r.seq, r.error, r.data) for r in found.bad] == [(r.seq, r.error, r.data) for r in whole.bad]
    assert found.dropped.pop(AGAIN) > 5000
    assert found.dropped == whole.dropped
    assert found.table.num_rows or table == "noii"


def test_rows_have_the_time_at_which_their_packet_was_captured(path: Path) -> None:
    found = from_capture(path, capture(packed(orders(8), [4])))
    assert found.rows("seq", "ts_recv") == [(n, T0 + (1000 if n > 3 else 0)) for n in range(2, 8)]
    assert found.rows("ts_event") != found.rows("ts_recv")


def test_of_two_copies_the_first_counts(path: Path) -> None:
    payloads = packed(orders(8), [4])
    slow = capture(payloads, line=1, start=T0 + 300)
    found = from_capture(path, sorted([*capture(payloads), *slow]))
    assert found.rows("ts_recv")[0] == T0
    assert found.dropped[AGAIN] == 8


def test_a_gap_is_one_bad_record_and_marks_the_next_row(path: Path) -> None:
    parts = orders(40)
    payloads = packed(parts, [4])
    found = from_capture(path, capture([p for i, p in enumerate(payloads) if i not in (3, 4, 7)]))
    assert found.records == 40
    assert found.dropped[LOST] == 12
    assert [(r.operation, r.seq, r.error.split(" of")[0]) for r in found.bad] == [
        ("mold.sequence", 12, "gap: messages 13..20"),
        ("mold.sequence", 28, "gap: messages 29..32"),
    ]
    at = 24 + sum(16 + len(on_line(payload)) for payload in payloads[:3]) + 16 + 42
    assert found.bad[0].place == f"{path}, offset {at}"
    assert [seq for seq, flags in found.rows("seq", "flags") if flags & 4] == [20, 32]
    rest = [row for row in from_file(path, parts).rows("seq", "order_id", "flags") if row[0] not in range(12, 20)]
    rest = [row for row in rest if row[0] not in range(28, 32)]
    assert [(seq, order, flags & 3) for seq, order, flags in found.rows("seq", "order_id", "flags")] == rest


def test_a_gap_is_marked_on_the_first_row_even_if_that_comes_later(path: Path) -> None:
    parts = [*orders(4), *[message("S", 0, 5, b"Q")] * 8, *orders(6)[2:]]
    payloads = packed(parts, [2])
    found = from_capture(path, capture([p for i, p in enumerate(payloads) if i != 2]))
    assert [seq for seq, flags in found.rows("seq", "flags") if flags & 4] == [12]


def test_a_gap_that_the_other_line_fills_in_time_leaves_no_trace(path: Path) -> None:
    parts = orders(60)
    payloads = packed(parts, [2])
    line_a = [(i, payload) for i, payload in enumerate(payloads) if i % 5 != 3]
    line_b = [(i + 6, payload) for i, payload in enumerate(payloads) if i % 5 != 1 or i == 0]
    arrivals = sorted(line_a + line_b, key=lambda arrival: arrival[0])
    captured = capture([payload for _, payload in arrivals])
    found = from_capture(path, captured, reorder=20)
    assert same(found, from_file(path, parts))
    assert (found.bad, LOST in found.dropped) == ([], False)
    short = from_capture(path, captured, reorder=2)
    assert short.dropped[LOST] > 0
    assert short.dropped["messages that came after they were reported missing"] == short.dropped[LOST]


def test_a_gap_may_be_waited_for_by_time(path: Path) -> None:
    payloads = packed(orders(40), [2])
    late = [*payloads[:5], *payloads[6:12], payloads[5], *payloads[12:]]
    assert from_capture(path, capture(late), wait="6us").dropped.get(LOST) == 2
    assert from_capture(path, capture(late), wait="7us").bad == []


def test_a_heartbeat_or_the_end_of_the_session_shows_what_is_missing_at_the_end(path: Path) -> None:
    for count in (0, 0xFFFF):
        payloads = [*packed(orders(4), [2]), pk.mold(9, [], count=count)]
        found = from_capture(path, capture(payloads))
        assert [record.error.split(" of")[0] for record in found.bad] == ["gap: messages 5..8"]
        assert (found.dropped[LOST], found.records) == (4, 8)


def test_what_is_missing_before_the_capture_is_told_if_the_first_number_is_known(path: Path) -> None:
    captured = capture(packed(orders(6), [2], first=101))
    assert from_capture(path, captured).bad == []
    found = from_capture(path, captured, first=1)
    assert [record.error.split(" of")[0] for record in found.bad] == ["gap: messages 1..100"]
    assert found.rows("seq", "flags") == [(102, 4), (103, 0), (104, 0), (105, 0)]


def test_sessions_have_symbols_and_numbers_of_their_own(path: Path) -> None:
    first = [directory(1, "AAA"), *orders(6)[2:]]
    second = [directory(1, "BBB"), *orders(6)[2:]]
    mixed = []
    for a, b in zip(packed(first, [2]), packed(second, [2], first=500, session=b"000000002B"), strict=True):
        mixed += [a, b]
    found = from_capture(path, capture(mixed))
    assert found.bad == []
    held = [("AAA", part) for part in first[:2]] + [("BBB", part) for part in second[:2]]
    held += [("AAA", part) for part in first[2:4]] + [("BBB", part) for part in second[2:4]]
    expected = [
        (seq, symbol if part[2] == 1 else "?2", int.from_bytes(part[11:19], "big"))
        for seq, (symbol, part) in enumerate(held)
        if part[:1] == b"A"
    ]
    assert found.rows("seq", "symbol", "order_id")[: len(expected)] == expected
    assert found.table.num_rows == 8


def test_gaps_and_bad_messages_of_one_session_among_those_of_another_keep_their_places(path: Path) -> None:
    mine, others = packed(orders(40), [2]), packed(orders(40), [2], session=b"000000002B")
    mine[10] = pk.mold(21, [orders(40)[20][:-1], orders(40)[21]])
    mixed = [payload for at, pair in enumerate(zip(mine, others, strict=True)) for payload in pair[at in (5, 12) :]]
    found = from_capture(path, capture(mixed), reorder=3)
    assert [record.operation for record in found.bad] == ["mold.sequence", "mold.sequence", "itch.message"]
    (bad,) = [record for record in found.bad if record.operation == "itch.message"]
    assert path.read_bytes()[int(bad.place.split()[-1]) :].startswith(orders(40)[20][:-1])
    rows = found.rows("seq", "order_id", "flags")
    assert bad.seq not in [seq for seq, _, _ in rows]
    assert [order for _, order, flags in rows if flags & 4] == [10, 24]
    assert sorted(order for _, order, _ in rows) == sorted([*range(38), *(set(range(38)) - {8, 9, 22, 23, 18})])


def test_other_packets_are_dropped_or_bad_depending_on_what_is_known(path: Path) -> None:
    captured = [*capture(packed(orders(4), [2])), (T0, on_line(b"not of the feed")), (T0, on_line(b"nor this", 9))]
    captured.append((T0, on_line(pk.mold(1, [], count=3), 0)))  # a request has a count and no messages
    found = from_capture(path, captured)
    assert (found.table.num_rows, found.bad, found.dropped["not of the protocol that is read"]) == (2, [], 3)
    found = from_capture(path, captured, ports=26477)
    assert (found.table.num_rows, found.dropped["not of the protocol that is read"]) == (2, 1)
    assert ["is not MoldUDP64" in record.error for record in found.bad] == [True, True]


def test_messages_of_a_wrong_length_cost_themselves(path: Path) -> None:
    parts = orders(6)
    damaged = [*parts[:3], parts[3][:-1], b"", *parts[4:]]
    found = from_capture(path, capture(packed(damaged, [3])))
    assert found.rows("seq") == [2, 5, 6]
    assert [(record.seq, record.operation) for record in found.bad] == [(3, "itch.message"), (4, "itch.message")]


@pytest.mark.parametrize("table", ["l3", "trades"])
def test_a_reading_goes_on_behind_any_block(path: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pcap_framer, "READ", 8192)
    parts = orders(600)
    parts += [message("E", 1, 700 + i, 2 * i, 10, i) for i in range(100, 200)]
    captured = capture([p for i, p in enumerate(packed(parts, [5, 2])) if i % 23 != 9])
    whole = from_capture(path, captured, table=table, reorder=8)
    assert len(whole.positions) > 5
    names = list(whole.table.column_names)
    for position in whole.positions:
        again = read(MoldItch(path, date=DAY, table=table, reorder=8), json.loads(json.dumps(position)))
        count = again.table.num_rows
        assert again.rows(*names) == whole.rows(*names)[whole.table.num_rows - count :]
        assert count < whole.table.num_rows or table == "trades"


def test_rows_do_not_depend_on_buffers_or_packing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = capture([p for i, p in enumerate(packed(orders(900), [5, 2])) if i % 23 != 9])
    whole = from_capture(path, captured, reorder=40)
    path.write_bytes(gzip.compress(path.read_bytes()))
    for size in (4096, 30_000):
        monkeypatch.setattr(_pcap_framer, "READ", size)
        again = read(MoldItch(path, date=DAY, reorder=40))
        assert same(again, whole)
        assert again.rows("ts_recv") == whole.rows("ts_recv")
        assert [record.error for record in again.bad] == [record.error for record in whole.bad]
        assert again.dropped == whole.dropped


def test_wrong_arguments_are_refused(path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"table": "l9"},
        {"ports": (0,)},
        {"ports": "x"},
        {"reorder": 0},
        {"first": -1},
        {"wait": "soon"},
        {"timezone": "Mars/Olympus"},
    ]
    for options in wrong:
        with pytest.raises(GraphError):
            MoldItch(path, **{"date": DAY, **options})
    with pytest.raises(GraphError, match="no session date"):
        MoldItch(path)


def test_what_is_no_capture_is_refused(path: Path) -> None:
    path.write_bytes(pack(orders(4)))
    with pytest.raises(FormatError, match="no packet capture"):
        read(MoldItch(path, date=DAY))
