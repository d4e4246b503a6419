"""Damaged and lying MCAP files: every message is read or accounted for, and nothing crashes, hangs or grows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap_files import CAN_TOPIC, SHAPES, TEXT_TOPIC, Read, read, read_joined, write_file
from penstock.pipeline.errors import FormatError
from penstock.sources.driving.mcap import Mcap, inspect_mcap

COUNT = 12
FILES = {shape: write_file(COUNT, **options) for shape, options in SHAPES.items()}
Shapes = st.sampled_from(sorted(FILES))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    """Puts bytes into a file of its own, so that nothing is remembered from another."""
    folder, made = tmp_path_factory.mktemp("hostile"), [0]

    def put(content: bytes) -> Path:
        if made[0]:
            (folder / f"{made[0] - 1}.mcap").unlink(missing_ok=True)
        path = folder / f"{made[0]}.mcap"
        made[0] += 1
        path.write_bytes(content)
        return path

    return put


def read_or_refused(path: Path, topic: str) -> Read | None:
    """What is read, or None for an error that says what is wrong with the file."""
    try:
        inspect_mcap(path)
        return read_joined(Mcap(path).topic(topic))
    except FormatError as error:
        assert str(path) in str(error)
        return None


def check_prefix(got: Read | None, content: bytes, whole: bytes, topic: str) -> None:
    if got is None:
        return
    texts = [row["data"] for row in got.rows]
    if topic == TEXT_TOPIC:
        assert texts == [f"message {i}" for i in range(len(texts))]
    else:
        assert [row["can_id"] for row in got.rows] == list(range(len(got.rows)))
    assert len(got.rows) + len(got.bad) + got.dropped == got.records
    if len(got.rows) < COUNT:
        assert got.bad, "a loss that nobody tells of"
        assert all("byte" in record.place or "offset" in record.place for record in got.bad)


@pytest.mark.parametrize("shape", ["zstd", "loose", "no summary"])
def test_a_file_cut_at_any_place_is_read_up_to_the_cut(shape: str, scratch: Callable[[bytes], Path]) -> None:
    whole = FILES[shape]
    for end in range(0, len(whole), 7):
        got = read_or_refused(scratch(whole[:end]), CAN_TOPIC)
        check_prefix(got, whole[:end], whole, CAN_TOPIC)


def test_a_cut_recording_keeps_every_whole_chunk(scratch: Callable[[bytes], Path]) -> None:
    whole = FILES["plain"]
    for unit in _units(scratch(whole)):
        end, kept = unit.piece.end, unit.first_seq + unit.records
        got = read(Mcap(scratch(whole[: end + 5])).topic(CAN_TOPIC))
        assert [row["seq"] for row in got.rows] == list(range(kept))
        assert len(got.bad) == 1
        assert got.bad[0].data == whole[end : end + 5]
        assert f"byte {end}" in got.bad[0].place


def _units(path: Path) -> list:
    from penstock.sources.driving._mcap_contents import topic_contents

    return list(topic_contents(path, CAN_TOPIC, 1 << 28).units)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), shape=Shapes, topic=st.sampled_from([CAN_TOPIC, TEXT_TOPIC]))
def test_no_flipped_byte_loses_a_message_without_a_word(
    data: st.DataObject, shape: str, topic: str, scratch: Callable[[bytes], Path]
) -> None:
    content = bytearray(FILES[shape])
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    got = read_or_refused(scratch(bytes(content)), topic)
    if got is None:
        return
    assert got.rows or got.bad
    assert len(got.rows) + len(got.bad) + got.dropped >= got.records
    if len(got.rows) < COUNT:
        # Without statistics nothing contradicts a record that became one of another kind or channel.
        assert got.bad or shape in ("no summary", "no statistics")


def test_messages_of_a_channel_that_lost_its_record_are_told(scratch: Callable[[bytes], Path]) -> None:
    content = bytearray(FILES["loose"])
    record = struct.pack("<HHI", 2, 2, len(TEXT_TOPIC)) + TEXT_TOPIC.encode()
    content[content.index(record)] = 3
    path = scratch(bytes(content))
    told = f"{COUNT} messages are of channels that no channel record describes: 2"
    assert inspect_mcap(path)["problem"] == told
    [bad] = read(Mcap(path).topic(TEXT_TOPIC)).bad
    assert told in bad.error


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), shape=Shapes)
def test_any_garbage_in_any_place_ends_in_rows_quarantine_or_a_clear_error(
    data: st.DataObject, shape: str, scratch: Callable[[bytes], Path]
) -> None:
    content = bytearray(FILES[shape])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, len(content) - 1))
        size = data.draw(st.sampled_from([1, 2, 4, 8, 40]))
        filler = data.draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x01"])) * size
        content[at : at + size] = filler
    read_or_refused(scratch(bytes(content)), CAN_TOPIC)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_random_records_behind_the_magic_are_survived(scratch: Callable[[bytes], Path], rest: bytes) -> None:
    read_or_refused(scratch(b"\x89MCAP0\r\n" + rest), "/any")


def test_a_wrong_crc_quarantines_the_chunk_and_reads_the_others(scratch: Callable[[bytes], Path]) -> None:
    content = bytearray(FILES["plain"])
    path = scratch(bytes(content))
    unit = _units(path)[1]
    content[unit.piece.end - 3] ^= 0x55
    got = read(Mcap(scratch(bytes(content))).topic(CAN_TOPIC))
    lost = range(unit.first_seq, unit.first_seq + unit.messages)
    assert [row["seq"] for row in got.rows] == [i for i in range(COUNT) if i not in lost]
    assert len(got.bad) == 1
    assert "CRC" in got.bad[0].error
    assert got.bad[0].place.endswith(f"byte {unit.piece.offset} ({unit.piece.length} bytes)")
    assert got.bad[0].data == bytes(content[unit.piece.offset : unit.piece.end])
    assert got.dropped == len(lost) - 1


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("shape", ["zstd", "lz4", "plain"])
def test_a_chunk_that_lies_about_its_unpacked_size_is_quarantined(
    shape: str, size: int, scratch: Callable[[bytes], Path]
) -> None:
    content = bytearray(write_file(COUNT, enable_crcs=False, **SHAPES[shape]))
    unit = _units(scratch(bytes(content)))[0]
    true = struct.unpack_from("<Q", content, unit.piece.offset + 25)[0]
    for at in _places(bytes(content), struct.pack("<Q", true)):
        content[at : at + 8] = struct.pack("<Q", size)
    got = read(Mcap(scratch(bytes(content))).topic(CAN_TOPIC))
    assert got.bad
    assert unit.first_seq not in [row["seq"] for row in got.rows]
    assert len(got.rows) + len(got.bad) + got.dropped == got.records == COUNT


def _places(content: bytes, pattern: bytes) -> list[int]:
    found, at = [], content.find(pattern)
    while at >= 0:
        found.append(at)
        at = content.find(pattern, at + 1)
    return found


@pytest.mark.parametrize("declared", [0, 1, 100, (1 << 31) - 1, 1 << 62])
def test_a_zstd_frame_that_declares_another_size_is_quarantined(
    declared: int, scratch: Callable[[bytes], Path]
) -> None:
    import zstandard

    packed = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(bytes(range(256)) * 300))
    assert zstandard.get_frame_parameters(packed).content_size == 76_800
    body = struct.pack("<QQQI", 0, 9, min(declared, 1 << 27), 0) + struct.pack("<I", 4) + b"zstd"
    body += struct.pack("<Q", len(packed)) + packed
    content = b"\x89MCAP0\r\n" + b"\x01" + struct.pack("<Q", 8) + bytes(8)
    content += b"\x06" + struct.pack("<Q", len(body)) + body + b"\x0f" + struct.pack("<Q", 4) + bytes(4)
    described = inspect_mcap(scratch(content))
    assert "unpacks to" in described["problem"]
    assert not described["complete"]


def test_a_message_index_that_lies_is_not_believed(scratch: Callable[[bytes], Path]) -> None:
    content = bytearray(FILES["plain"])
    unit = _units(scratch(bytes(content)))[0]
    place = unit.piece.indexes[1]
    assert content[place] == 7
    content[place + 9] = 2  # an index of another channel
    got = read(Mcap(scratch(bytes(content))).topic(CAN_TOPIC))
    assert [row["can_id"] for row in got.rows] == list(range(COUNT))


def test_a_summary_with_a_wrong_crc_is_not_believed(scratch: Callable[[bytes], Path]) -> None:
    content = bytearray(FILES["zstd"])
    start = struct.unpack_from("<Q", content, len(content) - 28)[0]
    content[content.index(b"/chatter", start)] = ord("X")
    assert sorted(Mcap(scratch(bytes(content))).topics()) == [CAN_TOPIC, TEXT_TOPIC]


def test_a_chunk_index_with_overlapping_chunks_is_not_believed(scratch: Callable[[bytes], Path]) -> None:
    content = bytearray(FILES["plain"])
    start = struct.unpack_from("<Q", content, len(content) - 28)[0]
    units = _units(scratch(bytes(content)))
    first, second = (struct.pack("<Q", unit.piece.offset) for unit in units[:2])
    at = content.index(second, start)
    content[at : at + 8] = first
    end = len(content) - 12
    content[end : end + 4] = struct.pack("<I", zlib.crc32(bytes(content[start:end])))
    path = scratch(bytes(content))
    assert not inspect_mcap(path)["indexed"]
    assert [row["can_id"] for row in read(Mcap(path).topic(CAN_TOPIC)).rows] == list(range(COUNT))


def test_a_broken_message_costs_itself_alone(scratch: Callable[[bytes], Path]) -> None:
    content = bytearray(write_file(COUNT, enable_crcs=False, **SHAPES["plain"]))
    at = content.index(b"can3\0", content.index(b"can3\0") + 1) - 4
    content[at : at + 4] = b"\xff\xff\xff\x7f"  # the frame_id's length
    got = read(Mcap(scratch(bytes(content))).topic(CAN_TOPIC))
    assert [row["seq"] for row in got.rows] == [i for i in range(COUNT) if i != 1]
    (record,) = got.bad
    assert record.seq == 1
    assert "goes past the end" in record.error
    assert "chunk at byte" in record.place
    assert len(record.data) == 40


def test_zeros_behind_a_cut_end_the_reading(scratch: Callable[[bytes], Path]) -> None:
    whole = FILES["loose"]
    units = _units(scratch(whole))
    got = read(Mcap(scratch(whole[: units[-1].piece.end] + bytes(100_000))).topic(CAN_TOPIC))
    assert len(got.rows) == COUNT
    assert len(got.bad) == 1
    assert "zero bytes" in got.bad[0].error


@pytest.mark.nightly
@pytest.mark.parametrize("shape", SHAPES)
def test_every_flip_of_every_byte_is_survived(shape: str, scratch: Callable[[bytes], Path]) -> None:
    for at in range(8, len(FILES[shape])):
        for change in (0x01, 0x80, 0xFF):
            content = bytearray(FILES[shape])
            content[at] ^= change
            for topic in (CAN_TOPIC, TEXT_TOPIC):
                read_or_refused(scratch(bytes(content)), topic)
