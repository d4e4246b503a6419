"""Damaged and lying bags, ROS 1 and SQLite: what is whole is read, the rest told of, and nothing crashes or grows."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bag_oracle import write_bag1, write_bag2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap_files import Read, read, read_joined
from penstock.pipeline.errors import FormatError
from penstock.sources.driving.rosbag1 import Rosbag1, inspect_rosbag1
from penstock.sources.driving.rosbag2 import Rosbag2, inspect_rosbag2

COUNT = 12
TOPICS = ("/chatter", "/imu")
TEXTS = [f"message {i}" for i in range(COUNT)]
Scratch = Callable[[bytes], Path]


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Whole files of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    made = {f"bag {c}": write_bag1(folder / f"{c}.bag", COUNT, compression=c) for c in ("none", "bz2", "lz4")}
    plain = made["bag none"]
    at = plain.index(b"index_pos=") + 10
    made["bag unindexed"] = (plain[:at] + bytes(8) + plain[at + 8 :])[: int.from_bytes(plain[at : at + 8], "little")]
    made["db3"] = (write_bag2(folder / "b", COUNT) / "b.db3").read_bytes()
    made["db3 old"] = _without_definitions(folder / "b", folder / "old.db3")
    return made


def _without_definitions(folder: Path, target: Path) -> bytes:
    shutil.copy(folder / "b.db3", target)
    with sqlite3.connect(target) as connection:
        connection.execute("DROP TABLE message_definitions")
        connection.execute("DROP INDEX timestamp_idx")
    connection.execute("VACUUM")
    connection.close()
    return target.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """Puts bytes into a file of its own, so that nothing is remembered from another."""
    folder, made = tmp_path_factory.mktemp("hostile"), [0]

    def put(content: bytes) -> Path:
        (folder / f"{made[0]}").unlink(missing_ok=True)
        made[0] += 1
        path = folder / f"{made[0]}"
        path.write_bytes(content)
        return path

    return put


def read_or_refused(path: Path, kind: str) -> dict[str, Read]:
    """What is read by topic; nothing if an error says what is wrong with the file."""
    bag = Rosbag1(path) if kind.startswith("bag") else Rosbag2(path)
    found: dict[str, Read] = {}
    try:
        (inspect_rosbag1 if kind.startswith("bag") else inspect_rosbag2)(path)
        topics = bag.topics()
    except FormatError as error:
        assert str(path) in str(error)
        return {}
    for topic in list(topics)[:4]:
        try:
            found[topic] = (read_joined if kind.startswith("bag") else read)(bag.topic(topic))
        except FormatError as error:
            assert str(path) in str(error)
    for got in found.values():
        assert len(got.rows) + len(got.bad) + got.dropped >= got.records
        numbers = [row["seq"] for row in got.rows]
        assert numbers == sorted(set(numbers))
        assert all(str(path) in record.place and record.error for record in got.bad)
    return found


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, splice, or lie in a length."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(changed)) if changed else 0
        how = chance.randrange(5)
        if how == 0 and changed:
            changed[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            del changed[at:]
        elif how == 2:
            size = chance.randrange(1, 400)
            changed[at:at] = changed[chance.randrange(len(changed) + 1) :][:size]
        elif how == 3:
            del changed[at : at + chance.randrange(1, 60)]
        else:
            lie = chance.choice([0, 1, 0x7F, 0xFF, 1 << 16, (1 << 31) - 1, 1 << 31, chance.randrange(1 << 32)])
            form = chance.choice(["<I", ">I", "<H", ">H", "B"])
            packed = struct.pack(form, lie & ((1 << 8 * struct.calcsize(form)) - 1))
            changed[at : at + len(packed)] = packed
    return bytes(changed)


def fuzz(bags: dict[str, bytes], scratch: Scratch, cases: Iterator[int] | range) -> None:
    kinds = sorted(bags)
    for case in cases:
        chance = random.Random(case)
        kind = kinds[case % len(kinds)]
        read_or_refused(scratch(mutate(bags[kind], chance)), kind)


def test_three_hundred_mutations_are_survived(bags: dict[str, bytes], scratch: Scratch) -> None:
    fuzz(bags, scratch, range(300))


@pytest.mark.nightly
def test_twenty_thousand_mutations_are_survived(bags: dict[str, bytes], scratch: Scratch) -> None:
    fuzz(bags, scratch, range(300, 20_300))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.binary(max_size=300), kind=st.sampled_from(["bag", "db3"]))
def test_anything_behind_the_magic_is_survived(scratch: Scratch, rest: bytes, kind: str) -> None:
    magic = b"#ROSBAG V2.0\n" if kind == "bag" else b"SQLite format 3\0"
    read_or_refused(scratch(magic + rest), kind)


@pytest.mark.parametrize("kind", ["bag none", "bag lz4", "bag unindexed"])
def test_a_bag_cut_at_any_place_is_read_up_to_the_cut(kind: str, bags: dict[str, bytes], scratch: Scratch) -> None:
    whole = bags[kind]
    for end in range(0, len(whole), 127):
        found = read_or_refused(scratch(whole[:end]), kind)
        if got := found.get("/chatter"):
            texts = [row["data"] for row in got.rows]
            assert texts == TEXTS[: len(texts)]
            assert len(texts) == COUNT or got.bad, "a loss that nobody tells of"
            assert len(got.rows) + len(got.bad) + got.dropped == got.records


def test_every_byte_of_a_damaged_bag_is_in_one_piece(bags: dict[str, bytes], scratch: Scratch) -> None:
    from penstock.sources.driving._rosbag1_catalog import bag_catalog

    for case in range(60):
        content = mutate(bags["bag none"], random.Random(case))
        path = scratch(content)
        try:
            pieces = sorted(bag_catalog(str(path), 1 << 28).pieces, key=lambda piece: piece.offset)
        except FormatError:
            continue
        ends = [0, *(piece.end for piece in pieces)]
        assert all(piece.offset >= end for piece, end in zip(pieces, ends, strict=False))
        assert ends[-1] <= len(content)


def test_a_damaged_chunk_costs_itself_and_is_told_of(bags: dict[str, bytes], scratch: Scratch) -> None:
    content = bytearray(bags["bag bz2"])
    at = content.index(b"BZh", content.index(b"BZh") + 1)
    content[at + 10 : at + 14] = b"\0\0\0\0"
    got = read_or_refused(scratch(bytes(content)), "bag bz2")["/chatter"]
    lost = [record for record in got.bad if "bz2" in record.error]
    assert len(lost) == 1
    assert len(got.rows) + 1 + got.dropped == COUNT
    assert lost[0].seq not in [row["seq"] for row in got.rows]


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 32) - 1])
@pytest.mark.parametrize("kind", ["bag none", "bag bz2", "bag lz4"])
def test_a_chunk_that_lies_about_its_size_is_quarantined(
    kind: str, size: int, bags: dict[str, bytes], scratch: Scratch
) -> None:
    content = bytearray(bags[kind])
    at = content.index(b"size=") + 5
    content[at : at + 4] = struct.pack("<I", size)
    tracemalloc.start()
    got = read_or_refused(scratch(bytes(content)), kind)["/chatter"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.bad
    assert got.rows
    assert len(got.rows) + len(got.bad) + got.dropped == got.records == COUNT
    assert peak < 64 << 20


def test_a_message_with_a_wrong_length_costs_itself_alone(bags: dict[str, bytes], scratch: Scratch) -> None:
    content = bytearray(bags["bag none"])
    at = content.index(b"message 3") - 4
    del content[at + 4 : at + 6]  # two bytes of the text are gone: all that follows lies two bytes earlier
    got = read_or_refused(scratch(bytes(content)), "bag none")["/chatter"]
    assert [row["data"] for row in got.rows] == [text for text in TEXTS if text != "message 3"]
    assert any(record.operation == "rosbag1.decode" and record.seq == 3 for record in got.bad)


def _edit(content: bytes, path: Path, *statements: str) -> bytes:
    path.write_bytes(content)
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return path.read_bytes()


def test_rows_of_wrong_types_are_quarantined(bags: dict[str, bytes], scratch: Scratch, tmp_path: Path) -> None:
    content = _edit(
        bags["db3"],
        tmp_path / "a.db3",
        "UPDATE messages SET data = 'text' WHERE id = 1",
        "UPDATE messages SET data = x'00010000ffffff7f00' WHERE id = 3",
        "UPDATE messages SET timestamp = 'noon' WHERE id = 5",
        "UPDATE messages SET timestamp = -9 WHERE id = 7",
        "UPDATE messages SET topic_id = 99 WHERE id = 9",
    )
    path = scratch(content)
    got = read_or_refused(path, "db3")["/chatter"]
    assert [row["data"] for row in got.rows if row["data"]] == TEXTS[5:]
    reasons = {record.place.rpartition(" ")[2]: record.error for record in got.bad}
    assert sorted(reasons) == ["1", "3", "5", "7"]
    assert "not a blob" in reasons["1"]
    assert "past the end" in reasons["3"]
    assert "not an integer" in reasons["5"]
    assert sorted(r.seq for r in got.bad) + [row["seq"] for row in got.rows] == list(range(COUNT - 1))
    assert "1 messages are of no topic" in inspect_rosbag2(path)["problem"]


def test_a_damaged_page_costs_its_rows_and_is_told_of(tmp_path: Path, scratch: Scratch) -> None:
    file = write_bag2(tmp_path / "big", 400) / "big.db3"
    content = bytearray(file.read_bytes())
    page = int.from_bytes(content[16:18], "big")
    at = content.index(b"message 200\0") // page * page
    content[at : at + page] = bytes(page)
    got = read_or_refused(scratch(bytes(content)), "db3")["/chatter"]
    texts = [row["data"] for row in got.rows]
    assert len(texts) > 300
    assert "message 0" in texts
    assert "message 399" in texts
    assert "message 200" not in texts
    assert [record.operation for record in got.bad] == ["rosbag2.read"]
    assert "malformed" in got.bad[0].error


def test_views_and_virtual_tables_are_not_run(tmp_path: Path, scratch: Scratch, bags: dict[str, bytes]) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n"  # noqa: E501
    content = _edit(bags["db3"], tmp_path / "a.db3", "DROP TABLE messages", f"CREATE VIEW messages AS {endless}")
    with pytest.raises(FormatError, match="no table 'messages'"):
        Rosbag2(scratch(content)).topics()


def test_a_value_beyond_the_limit_is_quarantined(tmp_path: Path, scratch: Scratch, bags: dict[str, bytes]) -> None:
    content = _edit(bags["db3"], tmp_path / "a.db3", "UPDATE messages SET data = zeroblob(3000000) WHERE id = 3")
    got = read(Rosbag2(scratch(content), max_chunk_bytes=1 << 20).topic("/chatter"))
    assert [row["data"] for row in got.rows] == [text for i, text in enumerate(TEXTS) if i != 1]
    assert len(got.bad) == 1
    assert "too big" in got.bad[0].error


def test_metadata_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_bag2(tmp_path / "secret")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metadata.yaml").write_text(
        "rosbag2_bagfile_information:\n  storage_identifier: sqlite3\n  relative_file_paths: [../secret/secret.db3]\n"
    )
    with pytest.raises(FormatError, match=r"secret\.db3 is missing"):
        Rosbag2(tmp_path / "a").topics()
    for text in (
        "",
        "[1, 2",
        "a: b",
        "rosbag2_bagfile_information: 3",
        "rosbag2_bagfile_information: !!python/name:os",
    ):
        (tmp_path / "a" / "metadata.yaml").write_text(text)
        with pytest.raises(FormatError, match=r"metadata\.yaml"):
            Rosbag2(tmp_path / "a").topics()
