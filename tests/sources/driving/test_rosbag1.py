"""ROS 1 bags: every message of every topic as `rosbags` reads it, in every compression, with and without an index."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from bag_oracle import EVENT_FIELDS, bag1_messages, same, write_bag1
from mcap_files import read, read_joined, together
from penstock.pipeline.errors import FormatError
from penstock.sources.driving.rosbag1 import Rosbag1, Rosbag1Topic, inspect_rosbag1, is_rosbag1, open_rosbag1

Recordings = Callable[[str], Path]
WHOLE = ["example-bz2.bag", "example-lz4.bag", "example-unsorted-chunks.bag", "no-messages.bag"]


def check_as_rosbags_reads(path: Path) -> int:
    """Every field of every message but those of fixed tables, which have columns of their own."""
    expected = bag1_messages(path)
    bag = Rosbag1(path)
    assert sorted(bag.topics()) == sorted(expected)
    count = 0
    for topic, messages in expected.items():
        got = read(bag.topic(topic))
        assert not got.bad
        assert [row["ts_recv"] for row in got.rows] == [time for time, _ in messages]
        assert [row["seq"] for row in got.rows] == list(range(len(messages)))
        for row, (_, fields) in zip(got.rows, messages, strict=True):
            assert same({k: v for k, v in row.items() if k not in EVENT_FIELDS}, fields)
        count += len(messages)
    return count


@pytest.mark.parametrize("name", WHOLE)
def test_every_message_of_a_real_bag_is_as_rosbags_reads_it(name: str, recordings: Recordings) -> None:
    path = recordings("driving/rosbag1") / name
    assert check_as_rosbags_reads(path) == inspect_rosbag1(path)["messages"]


def test_a_bag_whose_texts_were_shortened_gives_all_that_is_whole(recordings: Recordings) -> None:
    """Fifty bytes are missing from it: ten messages, and with them the places of all that follows, the index too."""
    folder = recordings("driving/rosbag1")
    damaged, whole = Rosbag1(folder / "example.bag"), Rosbag1(folder / "example-lz4.bag")
    assert {t: i.messages for t, i in damaged.topics().items()} == {t: i.messages for t, i in whole.topics().items()}
    for topic in whole.topics():
        got, expected = read(damaged.topic(topic)), read(whole.topic(topic))
        assert got.bad
        if topic == "/rosout":
            decode = [record for record in got.bad if record.operation == "rosbag1.decode"]
            assert [record.seq for record in decode] == list(range(10))
            assert not got.rows
        else:
            assert got.rows == expected.rows


def test_unsorted_chunks_are_read_in_time_order(recordings: Recordings) -> None:
    got = read(Rosbag1(recordings("driving/rosbag1") / "example-unsorted-chunks.bag").topic("foo"))
    assert [row["ts_recv"] for row in got.rows] == [10**9, 2 * 10**9, 3 * 10**9]
    assert [row["seq"] for row in got.rows] == [0, 1, 2]


@pytest.mark.parametrize("compression", ["none", "bz2", "lz4"])
@pytest.mark.parametrize("index", [True, False])
def test_a_written_bag_is_read_with_and_without_its_index(compression: str, index: bool, tmp_path: Path) -> None:
    content = write_bag1(tmp_path / "a.bag", compression=compression)
    expected = bag1_messages(tmp_path / "a.bag")
    if not index:
        at = content.index(b"index_pos=") + 10
        start = int.from_bytes(content[at : at + 8], "little")
        (tmp_path / "a.bag").write_bytes((content[:at] + bytes(8) + content[at + 8 :])[:start])
    bag = Rosbag1(tmp_path / "a.bag")
    assert inspect_rosbag1(bag.path)["indexed"] == index
    with together(0):
        texts, samples = read(bag.topic("/chatter")), read(bag.topic("/imu"))
    assert [row["data"] for row in texts.rows] == [fields["data"] for _, fields in expected["/chatter"]]
    assert len(texts.positions) > 2
    for row, (time, fields) in zip(samples.rows, expected["/imu"], strict=True):
        assert row["ts_recv"] == time
        assert row["ts_event"] == 5_000_000_000 + fields["header"]["stamp"]["nanosec"]
        assert row["acc"] == list(fields["linear_acceleration"].values())
        assert row["gyro"] == list(fields["angular_velocity"].values())
    assert [record.error for record in texts.bad] == ([] if index else [inspect_rosbag1(bag.path)["problem"]])


def test_every_position_resumes_with_the_rest(tmp_path: Path) -> None:
    write_bag1(tmp_path / "a.bag", compression="lz4")
    spec = Rosbag1(tmp_path / "a.bag").topic("/imu")
    read_joined(spec)
    for nbytes in (0, 1000):
        with together(nbytes):
            whole = read(spec)
        assert len(whole.positions) > 1
        for position in whole.positions:
            assert read(spec, position=position).rows == whole.rows[position["seq"] :]
    with pytest.raises(FormatError, match="has the file changed"):
        read(spec, position={"offset": 1, "seq": 7})


def test_splits_are_the_whole_and_blocks_decode_in_any_order(tmp_path: Path) -> None:
    write_bag1(tmp_path / "a.bag", count=40)
    spec = Rosbag1(tmp_path / "a.bag").topic("/chatter")
    splits = spec.splits(3)
    assert len(splits) == 3
    with together(0):
        whole = read(spec)
        assert len(whole.positions) > 4
        assert read(spec, order=range(len(whole.positions) - 1, -1, -1)).rows == whole.rows
    assert [row for split in splits for row in read(spec, split=split).rows] == whole.rows


def test_specs_pickle_and_the_container_names_its_topics(tmp_path: Path) -> None:
    write_bag1(tmp_path / "a.bag")
    bag = open_rosbag1(tmp_path / "a.bag")
    assert isinstance(bag, Rosbag1)
    spec = open_rosbag1(tmp_path / "a.bag", topic="/imu", lateness="1s")
    assert isinstance(spec, Rosbag1Topic)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.lateness_ns == 10**9
    with pytest.raises(FormatError, match=r"no topic '/imv'; did you mean '/imu'\?.*/chatter, /imu"):
        bag.topic("/imv")


def test_a_compressed_bag_is_read_from_a_copy(tmp_path: Path) -> None:
    import gzip

    content = write_bag1(tmp_path / "a.bag")
    (tmp_path / "a.bag.gz").write_bytes(gzip.compress(content))
    rows = read(Rosbag1(tmp_path / "a.bag.gz").topic("/imu")).rows
    assert rows == read(Rosbag1(tmp_path / "a.bag").topic("/imu")).rows


def test_a_url_is_read_by_ranges(tmp_path: Path) -> None:
    import fsspec

    content = write_bag1(tmp_path / "a.bag")
    fsspec.filesystem("memory").pipe("/bags/a.bag", content)
    assert (
        read(Rosbag1("memory://bags/a.bag").topic("/imu")).rows == read(Rosbag1(tmp_path / "a.bag").topic("/imu")).rows
    )


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    assert is_rosbag1(b"#ROSBAG V2.0\n....")
    assert not is_rosbag1(b"#ROSBAG V1.2\n....")
    for content, what in (
        (b"", "is empty"),
        (b"#ROSBAG V1.2\nxx", "format V1.2"),
        (b"\x89MCAP0\r\n", "not a ROS 1 bag"),
    ):
        (tmp_path / "a.bag").write_bytes(content)
        with pytest.raises(FormatError, match=what):
            Rosbag1(tmp_path / "a.bag").topics()
