"""KITTI raw drives made in the true layout: every file a row with its bytes, its exact time, or a bad record."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock.pipeline.errors import FormatError, GraphError
from penstock.pipeline.source import Split
from penstock.sources.driving.kitti import Kitti, KittiTopic, inspect_kitti, is_kitti, open_kitti
from PIL import Image
from source_reading import read_whole, resumes_at_every_block

#: 2011-09-26 13:02:25 UTC
BASE = 1317042145


def stamps(count: int, *, first: int = 964389445) -> list[str]:
    return [f"2011-09-26 13:02:{25 + i:02d}.{first + i:09d}" for i in range(count)]


def times(count: int, *, first: int = 964389445) -> list[int]:
    return [(BASE + i) * 10**9 + first + i for i in range(count)]


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), width, np.uint8)).save(file, kind)
    return file.getvalue()


def put(folder: Path, name: str, files: dict[str, bytes], lines: list[str]) -> None:
    (folder / name / "data").mkdir(parents=True)
    (folder / name / "timestamps.txt").write_text("\n".join(lines) + "\n")
    for file, content in files.items():
        (folder / name / "data" / file).write_bytes(content)


def packet(i: int) -> list[float]:
    place, motion = [49.0 + i / 7, 8.4, 116.4, 0.02, 0.003, -1.2], [3.0 * i, -4.0, 5.0, 0.1, 0.2]
    force, turn = [0.5 * i, -0.25, 9.81, 1, 2, 3], [0.01 * i, 0.02, 0.03, 4, 5, 6]
    return [*place, *motion, *force, *turn, 0.05, 0.01, 4, 10, 4, 4, 0]


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    folder = tmp_path / "2011_09_26_drive_0001_sync"
    put(
        folder, "image_02", {f"{i:010d}.png": picture(8 + i, 4) for i in range(40)}, stamps(40 - 5) + stamps(5, first=0)
    )
    points = [np.arange(4 * n, dtype="<f4").reshape(n, 4) for n in (3, 0, 5)]
    put(folder, "velodyne_points", {f"{i:010d}.bin": p.tobytes() for i, p in enumerate(points)}, stamps(3, first=5))
    oxts = {f"{i:010d}.txt": " ".join(map(repr, packet(i))).encode() + b"\n" for i in range(4)}
    put(folder, "oxts", oxts, stamps(4, first=999999990))
    (folder / "oxts" / "dataformat.txt").write_text("lat: latitude\n")
    return folder


def test_pictures_are_the_files_themselves_in_time_order(drive: Path) -> None:
    spec = Kitti(drive).topic("image_02")
    whole = resumes_at_every_block(spec)
    assert len(whole.blocks) > 1
    assert not whole.bad
    rows = whole.rows
    wanted = sorted(zip([*times(35), *times(5, first=0)], range(40), strict=True))
    assert [row["ts_event"] for row in rows] == [time for time, _ in wanted]
    for row, (_, i) in zip(rows, wanted, strict=True):
        assert row["data"] == picture(8 + i, 4)
        assert (row["width"], row["height"], row["codec"], row["keyframe"]) == (8 + i, 4, "png", True)
        assert (row["topic"], row["frame_id"]) == ("image_02", "image_02")


def test_lidar_points_are_those_of_the_files(drive: Path) -> None:
    whole = resumes_at_every_block(Kitti(drive).topic("velodyne_points"))
    assert [row["n_points"] for row in whole.rows] == [3, 0, 5]
    assert [row["ts_event"] for row in whole.rows] == times(3, first=5)
    for row in whole.rows:
        values = [[p["x"], p["y"], p["z"], p["intensity"]] for p in row["points"]]
        assert np.array_equal(np.array(values, np.float32).reshape(-1, 4), np.arange(4 * len(values)).reshape(-1, 4))
        assert all(p["ring"] is p["dt_ns"] is None for p in row["points"])


def test_oxts_packets_become_motion_and_position(drive: Path) -> None:
    imu, gnss = (read_whole(Kitti(drive).topic(name)).rows for name in ("imu", "gnss"))
    for i, (motion, place) in enumerate(zip(imu, gnss, strict=True)):
        values = packet(i)
        assert motion["ts_event"] == place["ts_event"] == times(4, first=999999990)[i]
        assert motion["acc"] == values[11:14]
        assert motion["gyro"] == values[17:20]
        assert [place["latitude"], place["longitude"], place["altitude"]] == values[:3]
        assert place["speed"] == pytest.approx(np.hypot(3.0 * i, 4.0))
        assert place["bearing"] == pytest.approx(90 + np.degrees(1.2))


def test_the_zone_of_the_times_can_be_given(drive: Path) -> None:
    rows = read_whole(Kitti(drive, timezone="Europe/Berlin").topic("velodyne_points")).rows
    assert [row["ts_event"] + 7200 * 10**9 for row in rows] == times(3, first=5)


def broken(drive: Path, name: str, content: bytes | None) -> Any:
    path = drive / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    topic = {"image_02": "image_02", "velodyne_points": "velodyne_points", "oxts": "imu"}[name.split("/")[0]]
    whole = resumes_at_every_block(Kitti(drive).topic(topic))
    return whole, str(path)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("image_02/data/0000000001.png", None, "missing"),
        ("image_02/data/0000000001.png", b"", "nothing"),
        ("image_02/data/0000000001.png", b"GIF89a", "neither"),
        ("image_02/data/0000000001.png", picture(9, 4)[:-9], "cut"),
        ("image_02/data/0000000001.png", b"\xff\xd8\xff\xe0\x00\x10", "JPEG"),
        ("velodyne_points/data/0000000001.bin", None, "missing"),
        ("velodyne_points/data/0000000001.bin", b"12345", "whole number of points"),
        ("oxts/data/0000000001.txt", b"1 2 3", "not the 30"),
        ("oxts/data/0000000001.txt", b"x " * 30, "could not convert"),
        ("oxts/data/0000000001.txt", b"1 " * 9000, "not the 30"),
    ],
)
def test_a_missing_or_damaged_file_is_one_bad_record(drive: Path, name: str, content: bytes | None, why: str) -> None:
    whole, path = broken(drive, name, content)
    (bad,) = whole.bad
    assert bad.place == path
    assert why in bad.error
    assert len(whole.rows) == whole.records - 1
    assert bad.seq not in [row["seq"] for row in whole.rows]


def test_a_jpeg_in_a_png_folder_is_told_by_its_content(drive: Path) -> None:
    (drive / "image_02/data/0000000000.png").write_bytes(picture(30, 20, "JPEG"))
    row = next(row for row in read_whole(Kitti(drive).topic("image_02")).rows if row["codec"] == "jpeg")
    assert (row["width"], row["height"]) == (30, 20)


def test_a_file_too_large_is_not_read(drive: Path) -> None:
    whole = read_whole(KittiTopic(drive, "velodyne_points", max_file_bytes=50))
    assert [row["n_points"] for row in whole.rows] == [3, 0]
    assert "80 bytes" in whole.bad[0].error


def test_files_and_lines_without_a_partner_are_bad_records(drive: Path) -> None:
    path = drive / "velodyne_points"
    (path / "data" / "0000000009.bin").write_bytes(b"")
    (path / "data" / ".DS_Store").write_bytes(b"x")
    lines = (path / "timestamps.txt").read_text().splitlines()
    (path / "timestamps.txt").write_text("\n".join([lines[0], "2011-13-26 13:02:25.9", lines[2], lines[0], ""]))
    whole = read_whole(Kitti(drive).topic("velodyne_points"))
    assert [row["n_points"] for row in whole.rows] == [3, 5]
    told = {Path(record.place).name: record.error for record in whole.bad}
    assert sorted(told) == ["0000000001.bin", "0000000003.bin", "0000000009.bin"]
    assert "line 2 of timestamps.txt" in told["0000000001.bin"]
    assert "missing" in told["0000000003.bin"]
    assert "no line" in told["0000000009.bin"]


def test_splits_in_order_are_the_whole(drive: Path) -> None:
    spec = Kitti(drive).topic("image_02")
    parts = [read_whole(spec, split=split).rows for split in spec.splits(3)]
    assert [len(part) > 0 for part in parts] == [True] * 3
    assert [row for part in parts for row in part] == read_whole(spec).rows
    assert spec.splits(1) == (Split(0, 1),)


def test_a_position_in_a_folder_that_has_changed_is_refused(drive: Path) -> None:
    spec = Kitti(drive).topic("velodyne_points")
    with pytest.raises(FormatError, match="has it changed"):
        read_whole(spec, position={"seq": 1, "name": "velodyne_points/data/0000000007.bin"})


def test_a_folder_behind_a_url_reads_the_same(drive: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in sorted(drive.rglob("*")):
        if path.is_file():
            memory.pipe_file(f"/kitti/drive/{path.relative_to(drive)}", path.read_bytes())
    assert is_kitti("memory://kitti/drive")
    for topic in ("image_02", "velodyne_points", "gnss"):
        far, near = (read_whole(Kitti(place).topic(topic)).rows for place in ("memory://kitti/drive", drive))
        assert far == near


def test_inspect_and_open_find_what_is_there(drive: Path) -> None:
    assert is_kitti(drive)
    assert not is_kitti(drive / "oxts")
    assert Kitti(drive).topics() == {"image_02": 40, "velodyne_points": 3, "imu": 4, "gnss": 4}
    found = inspect_kitti(str(drive))
    assert {name: topic["messages"] for name, topic in found["topics"].items()} == Kitti(drive).topics()
    assert found["time"]["start_ns"] == BASE * 10**9
    assert found["problem"] is None
    assert open_kitti(drive).topic == "image_02"
    assert open_kitti(drive, topic="imu").topic == "imu"


def test_what_cannot_be_is_said(drive: Path) -> None:
    with pytest.raises(GraphError, match="no topic 'radar'"):
        Kitti(drive).topic("radar")
    with pytest.raises(FormatError, match=r"timestamps\.txt"):
        Kitti(drive).topic("image_03").items()
    with pytest.raises(FormatError, match="no KITTI raw drive"):
        inspect_kitti(str(drive / "oxts"))
    with pytest.raises(GraphError, match="max_file_bytes"):
        KittiTopic(drive, "imu", max_file_bytes=0)
