"""The made-up drive: true formats, one scene for both sensors, the same bytes for the same arguments."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_files import read
from penstock.demos.drive_recording import CAMERA, CAN, IMU, RADAR, START_NS, write_drive
from penstock.sources.driving.mcap import Mcap, inspect_mcap
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

SMALL = {"seconds": 1.0, "width": 160, "height": 96}


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive.mcap"
    write_drive(path, **SMALL, seed=3)
    return path


@pytest.fixture(scope="module")
def truth(drive: Path) -> dict[str, list[Any]]:
    """All messages as rosbags deserializes them with the definitions in the file."""
    store, found = get_typestore(Stores.EMPTY), {}
    with drive.open("rb") as file:
        reader = make_reader(file)
        for kind in reader.get_summary().schemas.values():
            types = get_types_from_msg(kind.data.decode(), kind.name)
            store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
        for kind, channel, message in reader.iter_messages(log_time_order=False):
            found.setdefault(channel.topic, []).append(store.deserialize_cdr(message.data, kind.name))
    return found


def stamps(messages: list[Any]) -> list[int]:
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]


def test_counts_follow_from_the_length_and_the_rates(tmp_path: Path) -> None:
    counts = write_drive(tmp_path / "d.mcap", seconds=2.0, width=64, height=48, camera_hz=10, radar_hz=5)
    assert counts == {CAMERA: 20, RADAR: 10, IMU: 200, CAN[0]: 600, CAN[1]: 200}
    described = inspect_mcap(tmp_path / "d.mcap")
    assert {topic: info["messages"] for topic, info in described["topics"].items()} == counts
    assert (described["profile"], described["complete"]) == ("ros2", True)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path: Path, drive: Path) -> None:
    digests = []
    for i, seed in enumerate((3, 3, 4)):
        path = tmp_path / f"{i}.mcap"
        write_drive(path, **SMALL, seed=seed)
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] == hashlib.sha256(drive.read_bytes()).hexdigest()
    assert digests[0] != digests[2]


def test_a_longer_recording_begins_like_a_shorter_one(tmp_path: Path, drive: Path) -> None:
    write_drive(tmp_path / "long.mcap", **(SMALL | {"seconds": 1.4}), seed=3)
    short = [row["data"] for row in read(Mcap(drive).topic(CAMERA)).rows]
    long = [row["data"] for row in read(Mcap(tmp_path / "long.mcap").topic(CAMERA)).rows]
    assert len(long) > len(short)
    assert long[: len(short)] == short


def test_rosbags_reads_every_message_and_the_source_agrees(drive: Path, truth: dict[str, list[Any]]) -> None:
    for topic, messages in truth.items():
        got = read(Mcap(drive).topic(topic))
        assert not got.bad
        assert [row["ts_event"] for row in got.rows] == stamps(messages)
    for row, message in zip(read(Mcap(drive).topic(IMU)).rows, truth[IMU], strict=True):
        a = message.linear_acceleration
        assert row["acc"] == [a.x, a.y, a.z]
    for topic in CAN:
        for row, message in zip(read(Mcap(drive).topic(topic)).rows, truth[topic], strict=True):
            assert (row["can_id"], row["ext"], row["len"]) == (message.id, message.is_extended, message.dlc)
            assert row["data"] == message.data.tobytes()


def test_camera_and_radar_are_never_at_the_same_instant_and_jitter(truth: dict[str, list[Any]]) -> None:
    camera, radar = stamps(truth[CAMERA]), stamps(truth[RADAR])
    assert not set(camera) & set(radar)
    for times, period in ((camera, 40_000_000), (radar, 50_000_000)):
        gaps = np.diff(times)
        assert (gaps > 0).all()
        assert len(set(gaps.tolist())) > len(gaps) // 2
        assert abs(int(gaps.mean()) - period) < period // 10
    assert min(camera + radar) >= START_NS


def test_messages_are_logged_after_they_were_measured_and_in_order(drive: Path) -> None:
    for topic in (CAMERA, RADAR, IMU, *CAN):
        rows = read(Mcap(drive).topic(topic)).rows
        assert all(0 < row["ts_recv"] - row["ts_event"] < 30_000_000 for row in rows)
    with drive.open("rb") as file:
        logged = [m.log_time for _, _, m in make_reader(file).iter_messages(log_time_order=False)]
    assert logged == sorted(logged)


def test_frames_decode_and_differ(drive: Path) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    frames = [simplejpeg.decode_jpeg(row["data"], strict=True) for row in read(Mcap(drive).topic(CAMERA)).rows]
    assert {frame.shape for frame in frames} == {(96, 160, 3)}
    for before, after in pairwise(frames):
        assert (before.astype(int) - after).any()


def test_scans_have_padding_tracks_and_speeds_that_fit_the_scene(drive: Path, truth: dict[str, list[Any]]) -> None:
    assert {(m.point_step, len(m.fields)) for m in truth[RADAR]} == {(32, 8)}
    positions: dict[int, list[tuple[float, float, float]]] = {}
    for row in read(Mcap(drive).topic(RADAR)).rows:
        for point in row["points"]:
            assert None not in point.values()
            if point["flags"]:
                positions.setdefault(point["track_id"], []).append((row["ts_event"] / 1e9, point["x"], point["vr"]))
            else:
                assert -25.0 <= point["vr"] < 0
    for track in positions.values():
        times, x, speeds = (np.array(v) for v in zip(*track, strict=True))
        away = np.abs(np.diff(x)) < 60
        if away.all() and times[-1] - times[0] > 0.5:
            assert abs(np.polyfit(times - times[0], x, 1)[0] - speeds.mean()) < 1.5


def test_a_corrupt_frame_is_a_whole_message_that_is_no_picture(tmp_path: Path, drive: Path) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    path = tmp_path / "corrupt.mcap"
    write_drive(path, **SMALL, seed=3, corrupt_frame=5)
    got, good = read(Mcap(path).topic(CAMERA)), read(Mcap(drive).topic(CAMERA))
    assert not got.bad
    different = [i for i, (a, b) in enumerate(zip(got.rows, good.rows, strict=True)) if a["data"] != b["data"]]
    assert different == [5]
    assert len(got.rows[5]["data"]) == len(good.rows[5]["data"])
    with pytest.raises(ValueError):
        simplejpeg.decode_jpeg(got.rows[5]["data"])


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"camera_hz": -1}, {"width": 3}, {"corrupt_frame": 10**6}, {"radar_hz": float("nan")}]
)
def test_arguments_that_make_no_sense_are_refused_and_leave_no_file(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_drive(tmp_path / "d.mcap", **(SMALL | wrong))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("big_endian", [False, True])
def test_the_encoders_write_what_rosbags_writes(big_endian: bool) -> None:
    from penstock.demos._drive_scene import RADAR_POINT
    from penstock.demos._ros_messages import can_frame, compressed_image, imu, point_cloud

    store = get_typestore(Stores.ROS2_HUMBLE)
    points = np.zeros(3, RADAR_POINT)
    mine = {
        "sensor_msgs/msg/CompressedImage": compressed_image(5, "frame", "jpeg", b"1234567", big_endian=big_endian),
        "sensor_msgs/msg/PointCloud2": point_cloud(5, "fr", points, big_endian=big_endian),
        "sensor_msgs/msg/Imu": imu(5, "f", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), big_endian=big_endian),
    }
    for name, raw in mine.items():
        again = bytes(store.serialize_cdr(store.deserialize_cdr(raw, name), name, little_endian=not big_endian))
        assert again == raw
    assert len(can_frame(5, "can0", 1, b"12", big_endian=big_endian)) == 40


def test_reading_in_splits_gives_the_whole_drive(drive: Path) -> None:
    spec = Mcap(drive).topic(RADAR)
    whole = read(spec).rows
    assert [row for split in spec.splits(4) for row in read(spec, split=split).rows] == whole
    assert len(whole) == 20
