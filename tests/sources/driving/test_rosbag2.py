"""rosbag2 recordings: every message of every topic as `rosbags` reads it, from SQLite and MCAP, whole and split."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bag_oracle import EVENT_FIELDS, bag2_messages, same, write_bag2
from mcap_files import Read, read
from penstock.pipeline.errors import FormatError
from penstock.sources.driving.mcap import Mcap
from penstock.sources.driving.rosbag2 import Rosbag2, Rosbag2Topic, inspect_rosbag2, is_rosbag2, open_rosbag2

Recordings = Callable[[str], Path]

NEBULA = {
    "nebula_msgs/msg/NebulaPackets": (
        "std_msgs/Header header\nNebulaPacket[] packets\n"
        + "=" * 80
        + "\nMSG: nebula_msgs/NebulaPacket\nbuiltin_interfaces/Time stamp\nuint8[] data\n"
        + "=" * 80
        + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    )
}
#: Types of the conformance bags that `rosbags` does not ship.
EXTRA = {
    "example_interfaces/srv/AddTwoInts_Event": (
        "service_msgs/ServiceEventInfo info\nexample_interfaces/Asked[<=1] request\nexample_interfaces/Told[<=1] response\n"
        + "=" * 80
        + "\nMSG: example_interfaces/Asked\nint64 a\nint64 b\n"
        + "=" * 80
        + "\nMSG: example_interfaces/Told\nint64 sum\n"
    ),
    **NEBULA,
}
CONFORMANCE = ("sqlite3/talker.db3", "sqlite3/topics_and_services.db3", "sqlite3/wbag_0.db3", "mcap/wbag_0.mcap",
               "mcap/talker.mcap", "mcap/topics_and_services.mcap", "mcap/only_topics.mcap",
               "mcap/multiple_files_0.mcap", "mcap/multiple_files_1.mcap", "mcap/multiple_files_2.mcap")  # fmt: skip


def check_as_rosbags_reads(bag: Rosbag2, oracle: Path) -> int:
    expected = bag2_messages(oracle, EXTRA)
    assert {name: info.messages for name, info in bag.topics().items() if info.messages} == {
        topic: len(messages) for topic, messages in expected.items()
    }
    count = 0
    for topic in bag.topics():
        messages = expected.get(topic, [])
        got = read(bag.topic(topic))
        assert not got.bad
        assert [row["ts_recv"] for row in got.rows] == [time for time, _ in messages]
        assert [row["seq"] for row in got.rows] == list(range(len(messages)))
        for row, (_, fields) in zip(got.rows, messages, strict=True):
            assert same({k: v for k, v in row.items() if k not in EVENT_FIELDS}, fields)
        count += len(messages)
    return count


@pytest.mark.parametrize("name", CONFORMANCE)
def test_every_message_of_the_conformance_bags_is_as_rosbags_reads_it(name: str, recordings: Recordings) -> None:
    path = recordings("driving/rosbag2_conformance") / name
    described = inspect_rosbag2(path)
    assert check_as_rosbags_reads(Rosbag2(path), path) == described["messages"]
    assert not described["undescribed"]
    assert described["problem"] is None


def test_arrays_and_basic_types_are_as_rosbags_reads_them(recordings: Recordings) -> None:
    path = recordings("driving/rosbag2_conformance") / "mcap/cdr_test_0.mcap"
    texts = {
        "test_msgs/msg/BasicTypes": definition(path, "test_msgs/msg/BasicTypes"),
        "test_msgs/msg/Arrays": definition(path, "test_msgs/msg/Arrays"),
    }
    expected = bag2_messages(path, texts)
    for topic, messages in expected.items():
        got = read(Rosbag2(path).topic(topic))
        for row, (time, fields) in zip(got.rows, messages, strict=True):
            assert row["ts_recv"] == time
            ours = {k: signed(v) if k.startswith("byte") else v for k, v in row.items() if k not in EVENT_FIELDS}
            assert same(ours, {k: signed(v) if k.startswith("byte") else v for k, v in fields.items()})
    assert sum(map(len, expected.values())) == 7


def signed(value: Any) -> Any:
    """`rosbags` reads a ROS 2 byte as int8; it is an octet."""
    return [signed(item) for item in value] if isinstance(value, list) else (value + 128) % 256 - 128


def definition(path: Path, name: str) -> str:
    from mcap.reader import make_reader

    with path.open("rb") as stream:
        schemas = make_reader(stream).get_summary().schemas.values()  # type: ignore[union-attr]
        return next(schema.data.decode() for schema in schemas if schema.name == name)


@pytest.mark.parametrize("name", ["ars548", "srr520"])
def test_the_radar_packets_are_as_rosbags_reads_them(name: str, recordings: Recordings) -> None:
    folder = recordings("driving/nebula_radar_ros2") / name
    (file,) = folder.glob("*.db3")
    assert inspect_rosbag2(folder)["undescribed"] == ["nebula_msgs/msg/NebulaPackets"]
    assert check_as_rosbags_reads(Rosbag2(folder, definitions=NEBULA), file) in (2, 4)
    (topic,) = Rosbag2(folder).topics()
    with sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True) as connection:
        stored = connection.execute("SELECT timestamp, data FROM messages ORDER BY timestamp, id").fetchall()
    raw = read(Rosbag2(folder).topic(topic))
    assert [(row["ts_recv"], row["data"]) for row in raw.rows] == stored


def test_a_folder_of_mcap_files_reads_as_its_file_does(recordings: Recordings) -> None:
    folder = recordings("driving/derived_drive") / "drive_mcap"
    whole, single = Rosbag2(folder), Mcap(folder / "drive_mcap.mcap")
    assert whole.topics() == single.topics()
    assert read(whole.topic("/imu")).rows == read(single.topic("/imu")).rows


def split_mcap(recordings: Recordings, tmp_path: Path) -> Path:
    folder = tmp_path / "split"
    folder.mkdir()
    for file in (recordings("driving/rosbag2_conformance") / "mcap").glob("multiple_files_*.mcap"):
        shutil.copy(file, folder)
    return folder


def test_split_mcap_files_are_one_source_in_order(recordings: Recordings, tmp_path: Path) -> None:
    folder = split_mcap(recordings, tmp_path)
    spec = Rosbag2(folder).topic("/chatter")
    got = read(spec)
    times = [row["ts_recv"] for row in got.rows]
    assert len(times) == 1324 + 1324 + 529
    assert times == sorted(times)
    assert [row["seq"] for row in got.rows] == list(range(len(times)))
    check_resume_and_splits(spec, got)


def check_resume_and_splits(spec: Rosbag2Topic, whole: Read) -> None:
    for position in whole.positions:
        assert read(spec, position=position).rows == whole.rows[position["seq"] :]
    splits = spec.splits(3)
    assert [row for split in splits for row in read(spec, split=split).rows] == whole.rows
    assert read(spec, order=range(len(whole.positions) - 1, -1, -1)).rows == whole.rows
    if len(whole.positions) > 1:
        with pytest.raises(FormatError, match="has a file changed"):
            read(spec, position={**whole.positions[-1], "seq": whole.positions[-1]["seq"] - 1})


def split_sqlite(tmp_path: Path, *, metadata: bool = True) -> Path:
    """Three files of 12 texts each, whose numbers sort otherwise as text."""
    folder = tmp_path / "drive"
    folder.mkdir()
    names = []
    for k, number in enumerate((8, 9, 10)):
        write_bag2(tmp_path / f"part{k}")
        names.append(f"drive_{number}.db3")
        shutil.copy(tmp_path / f"part{k}" / f"part{k}.db3", folder / names[-1])
        with sqlite3.connect(folder / names[-1]) as connection:
            connection.execute("UPDATE messages SET timestamp = timestamp + ?", [k * 1000])
    if metadata:
        listed = "".join(f"    - drive/{name}\n" for name in names)
        (folder / "metadata.yaml").write_text(
            "rosbag2_bagfile_information:\n  version: 4\n  storage_identifier: sqlite3\n  relative_file_paths:\n"
            + listed
        )
    return folder


@pytest.mark.parametrize("metadata", [True, False])
def test_split_sqlite_files_are_one_source_in_order(tmp_path: Path, metadata: bool) -> None:
    spec = Rosbag2(split_sqlite(tmp_path, metadata=metadata)).topic("/chatter")
    got = read(spec)
    assert [row["data"] for row in got.rows] == [f"message {i}" for i in range(12)] * 3
    assert [row["seq"] for row in got.rows] == list(range(36))
    times = [row["ts_recv"] for row in got.rows]
    assert times == sorted(times)
    check_resume_and_splits(spec, got)


def test_rows_come_in_order_of_time_and_id_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.sources.driving import _rosbag2_sqlite

    file = write_bag2(tmp_path / "a", count=50) / "a.db3"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE messages SET timestamp = (id * 7919) % 13")
        expected = connection.execute(
            "SELECT timestamp, data FROM messages WHERE topic_id = 1 ORDER BY timestamp, id"
        ).fetchall()
    monkeypatch.setattr(_rosbag2_sqlite, "_ROWS", 7)
    spec = Rosbag2(file).topic("/chatter")
    got = read(spec)
    assert [(row["ts_recv"], row["data"].encode()) for row in got.rows] == [(t, d[8:-1]) for t, d in expected]
    assert len(got.positions) == 8
    check_resume_and_splits(spec, got)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("compression", ["none", "file", "message", "storage"])
def test_every_way_of_compressing_reads_the_same(tmp_path: Path, storage: str, compression: str) -> None:
    if (storage, compression) == ("sqlite3", "storage"):
        pytest.skip("SQLite storage has no compression of its own")
    if (storage, compression) == ("mcap", "message"):
        with pytest.raises(FormatError, match="compressed one by one"):
            Rosbag2(write_bag2(tmp_path / "packed", storage=storage, compression=compression)).topics()
        return
    plain = Rosbag2(write_bag2(tmp_path / "plain"))
    packed = Rosbag2(write_bag2(tmp_path / "packed", storage=storage, compression=compression))
    for topic in ("/chatter", "/imu"):
        assert read(packed.topic(topic)).rows == read(plain.topic(topic)).rows
    check_resume_and_splits(packed.topic("/imu"), read(packed.topic("/imu")))


def test_a_bag_without_definitions_is_described_by_type_name(tmp_path: Path) -> None:
    new, old = write_bag2(tmp_path / "new"), write_bag2(tmp_path / "old", version=8)
    with sqlite3.connect(old / "old.db3") as connection:
        connection.execute("DROP TABLE message_definitions")
    assert read(Rosbag2(old).topic("/imu")).rows == read(Rosbag2(new).topic("/imu")).rows
    assert Rosbag2(old).topic("/chatter").schema.names[-1] == "data"


def test_a_log_beside_the_file_is_read_with_it(tmp_path: Path) -> None:
    file = write_bag2(tmp_path / "a") / "a.db3"
    writer = sqlite3.connect(file)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    with writer:
        writer.execute("INSERT INTO messages SELECT id + 1000, topic_id, timestamp + 1000, data FROM messages")
    assert (tmp_path / "a" / "a.db3-wal").stat().st_size
    assert len(read(Rosbag2(file).topic("/chatter")).rows) == 24
    writer.close()


def test_a_url_is_copied_and_the_copy_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import tempfile

    import fsspec
    from penstock.sources.driving import _mcap_local, _rosbag2_sqlite

    file = write_bag2(tmp_path / "a") / "a.db3"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    fsspec.filesystem("memory").pipe("/bags/a.db3", file.read_bytes())
    rows = read(Rosbag2("memory://bags/a.db3").topic("/imu")).rows
    assert rows == read(Rosbag2(file).topic("/imu")).rows
    assert len(list(temporary.iterdir())) == 1
    _rosbag2_sqlite._database.cache_clear()
    _mcap_local._copy.cache_clear()
    gc.collect()
    assert not list(temporary.iterdir())


def test_a_folder_at_a_url_is_read_by_its_metadata(tmp_path: Path) -> None:
    import fsspec

    folder = split_sqlite(tmp_path)
    for file in folder.iterdir():
        fsspec.filesystem("memory").pipe(f"/drive/{file.name}", file.read_bytes())
    got = read(Rosbag2("memory://drive/metadata.yaml").topic("/imu"))
    assert got.rows == read(Rosbag2(folder / "metadata.yaml").topic("/imu")).rows
    assert len(got.rows) == 36


def test_a_pipeline_reads_a_bag_with_any_parallelism(tmp_path: Path) -> None:
    from penstock import read as stream

    spec = Rosbag2(split_sqlite(tmp_path)).topic("/imu")
    tables = [list(stream(spec).iterate(runner="local", parallelism=n)) for n in (1, 3)]
    assert sum(batch.num_rows for batch in tables[0]) == 36
    first, second = ([row for batch in batches for row in batch.to_pylist()] for batches in tables)
    assert first == second


def test_specs_pickle_and_say_what_there_is(tmp_path: Path) -> None:
    folder = write_bag2(tmp_path / "a")
    bag = open_rosbag2(folder, definitions={"x/msg/Y": "int8 a"})
    assert isinstance(bag, Rosbag2)
    spec = open_rosbag2(folder, topic="/imu")
    assert isinstance(spec, Rosbag2Topic)
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(FormatError, match="did you mean '/imu'"):
        bag.topic("/imv")


def test_sqlite_files_that_are_no_bags_are_refused(tmp_path: Path) -> None:
    file = write_bag2(tmp_path / "a") / "a.db3"
    assert is_rosbag2(file.read_bytes()[:100])
    assert is_rosbag2(file.read_bytes()[:100], file)
    other = tmp_path / "other.db3"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE messages(a)")
    assert not is_rosbag2(other.read_bytes()[:100], other)
    with pytest.raises(FormatError, match="no table 'messages' with the columns"):
        Rosbag2(other).topics()
    (tmp_path / "text.db3").write_text("hello")
    with pytest.raises(FormatError, match="not a SQLite file"):
        Rosbag2(tmp_path / "text.db3").topics()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"no metadata\.yaml"):
        Rosbag2(tmp_path / "empty").topics()


def test_a_file_that_the_metadata_lists_and_is_missing_is_named(tmp_path: Path) -> None:
    folder = split_sqlite(tmp_path)
    (folder / "drive_9.db3").unlink()
    with pytest.raises(FormatError, match=r"drive_9\.db3 is missing"):
        Rosbag2(folder).topics()
