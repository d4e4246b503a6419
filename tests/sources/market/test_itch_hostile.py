"""Damaged, cut and foreign ITCH files: a bad record costs one record, with its place, and nothing is lost unseen."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_reference import columns, directory, lengths, message, pack
from penstock.demos.market_recording import write_market
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import FormatError
from penstock.sources.market import _itch_reader
from penstock.sources.market.itch import Itch, inspect_itch

HOUR = 3600 * 10**9


def read(path: Path, data: bytes | None = None) -> tuple[list[tuple[object, ...]], list[BadRecord], dict[str, int]]:
    """Rows, bad records and drops of a file; checks that every message number is accounted for."""
    if data is not None:
        path.write_bytes(data)
    spec = Itch(path, date="2019-01-30")
    reader = spec.open(Context("itch"))
    batches, bad, dropped, records = [], [], {}, 0
    for block in reader.blocks():
        assert block.first_seq == records
        records += block.records
        decoded = reader.decode(block)
        batches += decoded.batches
        bad += decoded.bad
        for reason, count in decoded.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    reader.close()
    rows = columns(batches, spec.schema)
    numbers = [row[1] for row in rows]
    assert numbers == sorted(set(numbers))
    numbered = [record for record in bad if record.seq is not None]
    assert len(rows) + len(numbered) + sum(dropped.values()) == records
    return rows, bad, dropped


def orders(count: int, first: int = 0) -> list[bytes]:
    return [message("A", 1, HOUR + i, i, b"B", 100, b"ABC     ", 10_000 + i) for i in range(first, first + count)]


def ids(rows: Sequence[tuple[object, ...]]) -> list[object]:
    return [row[6] for row in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.itch"


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_named_as_empty(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for act in (lambda: Itch(path, date="2019-01-30").open(Context("itch")), lambda: inspect_itch(path)):
        with pytest.raises(FormatError, match=r"hostile\.itch is an? empty|is empty \(0 bytes\)"):
            act()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x89MCAP0\r\n" + bytes(50), "an MCAP recording"),
        (b"PAR1" + bytes(50), "a Parquet file"),
        (b'{"ts_ns": 1}\n' * 9, "JSON"),
        (b"time,price\n1,2\n" * 9, r"text \('time,price"),
        (bytes(5000), "the bytes 00 00 00"),
        (gzip.compress(b"hello world, this is text\n" * 9, mtime=0), r"inside gzip text \('hello"),
        (b"\x00", "the bytes 00"),
    ],
)
def test_a_file_of_another_format_says_what_was_found(path: Path, data: bytes, what: str) -> None:
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"hostile\.itch is not a NASDAQ ITCH 5\.0 file: offset 0 holds {what}"):
        Itch(path, date="2019-01-30").open(Context("itch"))


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_file_cut_inside_its_last_message_loses_that_message_only(path: Path, prefixed: bool) -> None:
    parts = orders(5)
    data = pack(parts, prefixed)
    start = len(data) - len(parts[-1]) - 2
    for cut in range(start + 1, len(data)):
        rows, bad, _ = read(path, data[:cut])
        assert ids(rows) == [0, 1, 2, 3]
        if cut - start == 2 and not prefixed:
            assert bad == []  # 00 00 at the end is an end of session
            continue
        assert [(record.seq, record.data) for record in bad] == [(4, data[start:cut])]
        assert bad[0].place == f"{path}, offset {start}"
        assert "ends inside a message" in bad[0].error


@pytest.mark.parametrize("claimed", [0, 1, 19, 30, 35, 37, 40, 44, 300, 65535])
def test_a_wrong_length_prefix_costs_one_message(path: Path, claimed: int) -> None:
    parts = orders(9)
    data = bytearray(pack(parts))
    data[4 * 38 : 4 * 38 + 2] = claimed.to_bytes(2, "big")
    rows, bad, _ = read(path, bytes(data))
    assert ids(rows) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(bad) == 1
    if claimed:
        assert bad[0].place == f"{path}, offset {4 * 38}"
        assert bad[0].data == data[4 * 38 : 5 * 38]
        assert (bad[0].seq, bad[0].operation) == (4, "itch.frame")
        assert f"says {claimed}, but type 'A' has 36" in bad[0].error
    else:  # read as an end of session, after which no message begins
        assert bad[0].data == data[4 * 38 + 2 : 5 * 38]


def test_a_message_with_more_bytes_than_its_type_has_is_stepped_over(path: Path) -> None:
    parts = orders(6)
    parts[2] += b"more"
    rows, bad, _ = read(path, pack(parts))
    assert ids(rows) == [0, 1, 3, 4, 5]
    assert [(record.seq, record.data) for record in bad] == [(2, pack([parts[2]]))]


def test_unknown_types_are_skipped_by_their_length_and_counted(path: Path) -> None:
    parts = (
        orders(3) + [b"z" + bytes(20)] * 2 + orders(1, 3) + [b"\x07" + bytes(300)] + orders(2, 4) + [b"z" + bytes(10)]
    )
    rows, bad, dropped = read(path, pack(parts))
    assert ids(rows) == [0, 1, 2, 3, 4, 5]
    assert [row[1] for row in rows] == [0, 1, 2, 5, 7, 8]
    assert bad == []
    assert dropped == {"not in market.l3: z": 3, "not in market.l3: 0x07": 1}


def test_an_unknown_type_without_a_length_is_a_bad_record(path: Path) -> None:
    parts = [*orders(3), b"z" + bytes([9]) * 20, *orders(3, 3)]
    rows, bad, _ = read(path, pack(parts, prefixed=False))
    assert ids(rows) == [0, 1, 2, 3, 4, 5]
    assert [(record.seq, len(record.data)) for record in bad] == [(3, 23)]


def test_a_zero_length_ends_a_session_and_another_may_follow(path: Path) -> None:
    data = pack(orders(3)) + b"\x00\x00" + pack(orders(2, 3)) + b"\x00\x00"
    rows, bad, dropped = read(path, data)
    assert (ids(rows), bad, dropped) == ([0, 1, 2, 3, 4], [], {})
    assert [row[1] for row in rows] == [0, 1, 2, 3, 4]
    assert read(path, b"\x00\x00") == ([], [], {})


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("size", [1, 50, 5000, 300_000])
def test_reading_goes_on_behind_bytes_that_are_no_messages(path: Path, prefixed: bool, size: int) -> None:
    garbage = (b"\xfe\xdc\xba\x98" * (size // 4 + 1))[:size]
    before, after = pack(orders(5), prefixed), pack(orders(5, 5), prefixed)
    rows, bad, _ = read(path, before + garbage + after)
    assert ids(rows) == list(range(10))
    assert bad[0].place == f"{path}, offset {len(before)}"
    assert "no sound message begins here" in bad[0].error
    assert all(len(record.data) <= 1 << 16 for record in bad)
    rows, bad, _ = read(path, garbage[: min(size, 5000)] + after)
    assert ids(rows) == list(range(5, 10))


def test_what_damage_costs_does_not_depend_on_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_market(path, messages=20_000, symbols=3)
    data = bytearray(path.read_bytes())
    for offset in range(5_000, len(data) - 200, 997):
        data[offset : offset + 3] = b"\x13\x37\xff"
    expected = read(path, bytes(data))
    assert len(expected[1]) > 20
    monkeypatch.setattr(_itch_reader, "READ", (1 << 17) + 100)
    monkeypatch.setattr(_itch_reader, "MESSAGES", 333)
    assert read(path) == expected


def test_splits_and_positions_agree_on_a_damaged_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_market(path, messages=20_000, symbols=3)
    data = bytearray(path.read_bytes())
    for offset in range(5_000, len(data) - 200, 9_973):
        data[offset : offset + 30] = b"\x00\x24A" * 10
    expected = read(path, bytes(data))
    monkeypatch.setattr(_itch_reader, "MESSAGES", 1000)
    spec = Itch(path, date="2019-01-30")
    rows, bad = [], []
    for split in spec.splits(5):
        reader = spec.open(Context("itch"), split)
        for block in reader.blocks():
            decoded = reader.decode(block)
            rows += columns(decoded.batches, spec.schema)
            bad += decoded.bad
        reader.close()
    assert (rows, bad) == expected[:2]


def test_values_that_no_message_can_have_cost_that_message(path: Path) -> None:
    parts = orders(2)
    parts.append(message("A", 1, HOUR, 7, b"?", 100, b"ABC     ", 1))
    parts.append(message("D", 1, 2**48 - 1, 0))
    parts.append(message("Q", 1, HOUR, 2**32, b"ABC     ", 1, 1, b"O"))
    parts.append(message("P", 1, HOUR, 0, b" ", 5, b"ABC     ", 1, 2))
    rows, bad, _ = read(path, pack(parts))
    assert [row[1] for row in rows] == [0, 1, 5]
    assert [record.seq for record in bad] == [2, 3, 4]
    assert [record.data for record in bad] == parts[2:5]
    assert [record.place for record in bad] == [f"{path}, offset {2 * 38 + o}" for o in (0, 38, 59)]
    for record, error in zip(bad, ("side is b'?'", "not within a day", "4294967296 shares"), strict=True):
        assert error in record.error


def test_a_locate_keeps_its_first_name(path: Path) -> None:
    parts = [directory(1, "ABC"), *orders(2), directory(1, "ABC"), directory(1, "XYZ"), *orders(2, 2)]
    rows, bad, dropped = read(path, pack(parts))
    assert {row[3] for row in rows} == {"ABC"}
    assert [(record.seq, record.data) for record in bad] == [(4, pack([parts[4]]))]
    assert "second name" in bad[0].error
    assert dropped == {"not in market.l3: R": 2}


def test_odd_names_and_the_last_locate_are_kept_as_they_are(path: Path) -> None:
    parts = [directory(65535, "Z"), directory(0, "ZERO"), message("D", 65535, 0, 1), message("D", 0, 0, 2)]
    parts.insert(0, struct.pack(">cHH", b"R", 7, 0) + bytes(6) + b"A\xe9\xff    \x00" + bytes(20))
    parts.append(message("D", 7, 0, 3))
    rows, bad, _ = read(path, pack(parts))
    assert ([row[3] for row in rows], bad) == (["Z", "ZERO", "A\xe9\xff"], [])


def test_a_gzip_stream_that_ends_early_keeps_what_was_there(path: Path) -> None:
    data = pack(orders(20_000))
    packed = gzip.compress(data)
    rows, bad, _ = read(path, packed[: len(packed) // 2])
    assert ids(rows) == list(range(len(rows)))
    assert 1000 < len(rows) < 20_000
    assert "ends early" in bad[-1].error
    assert bad[-1].operation == "itch.read"
    assert "ends early" in inspect_itch(path)["error"]


def test_a_damaged_gzip_stream_keeps_what_was_before(path: Path) -> None:
    packed = bytearray(gzip.compress(pack(orders(30_000))))
    packed[len(packed) // 2 :] = bytes([255]) * (len(packed) - len(packed) // 2)
    rows, bad, _ = read(path, bytes(packed))
    assert ids(rows)[:1000] == list(range(1000))
    assert "damaged" in bad[-1].error


def test_text_behind_a_gzip_stream_is_reported(path: Path) -> None:
    rows, bad, _ = read(path, gzip.compress(pack(orders(10))) + b"signed by nobody")
    assert len(rows) == 10
    assert "damaged" in bad[-1].error or "early" in bad[-1].error


EXAMPLES = [
    directory(1, "ABC"),
    directory(2, "XYZ"),
    message("S", 0, 1, b"O"),
    message("H", 1, 2, b"ABC     ", b"T", b" ", b"    "),
    *orders(3),
    message("F", 2, HOUR, 9, b"S", 300, b"XYZ     ", 10_100, b"PSTK"),
    message("E", 1, HOUR, 1, 50, 77),
    message("C", 1, HOUR, 1, 50, 78, b"Y", 10_050),
    message("X", 1, HOUR, 2, 10),
    message("D", 1, HOUR, 2),
    message("U", 1, HOUR, 0, 256, 65_535, 10_000),
    message("P", 1, HOUR, 0, b"B", 5, b"ABC     ", 10_000, 79),
    message("Q", 1, HOUR, 5_000, b"ABC     ", 10_000, 80, b"O"),
    message("B", 1, HOUR, 79),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with some bytes changed, cut out or put in."""
    data = bytearray(pack(draw(st.lists(st.sampled_from(EXAMPLES), min_size=3, max_size=25)), draw(st.booleans())))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(["change", "cut", "insert", "end"]))
        if how == "change":
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=40))
        else:
            del data[at + 1 :]
        if not data:
            data = bytearray(b"\x00")
    return bytes(data)


def check_accounts(path: Path, data: bytes) -> None:
    """Whatever the bytes: an error, or rows and bad records that account for every byte but session ends."""
    path.write_bytes(data)
    try:
        rows, bad, dropped = read(path)
    except FormatError as error:
        assert "hostile.itch" in str(error)
        return
    known = {f"not in market.l3: {kind}": length + 2 for kind, length in lengths.items()}
    if set(dropped) <= set(known):
        spent = sum(lengths[chr(int(str(row[4])))] + 2 for row in rows)
        spent += sum(known[reason] * count for reason, count in dropped.items())
        spent += sum(len(record.data) + 2 * (record.operation != "itch.frame") for record in bad)
        left = len(data) - spent
        assert left >= 0
        assert left % 2 == 0
        assert left <= data.count(0)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged())
def test_damage_is_never_a_crash_and_every_byte_is_accounted_for(path: Path, data: bytes) -> None:
    check_accounts(path, data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(min_size=1, max_size=300), prefixed=st.booleans())
def test_any_bytes_behind_sound_messages_are_accounted_for(path: Path, tail: bytes, prefixed: bool) -> None:
    check_accounts(path, pack(orders(3), prefixed) + tail)


@pytest.mark.nightly
@settings(max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged())
def test_much_damage(path: Path, data: bytes) -> None:
    check_accounts(path, data)
