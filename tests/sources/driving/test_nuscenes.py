"""nuScenes folders made in the true layout: cameras, radar .pcd of 43-byte points, lidar, and the tables that list them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving._dataset_json import objects
from penstock.sources.driving._pcd import pcd_header, pcd_points
from penstock.sources.driving.nuscenes import (
    NuScenes,
    NuScenesChannel,
    inspect_nuscenes,
    is_nuscenes,
    open_nuscenes,
)
from source_reading import read_whole, resumes_at_every_block

LOG = "n015-2018-07-24-11-22-45+0800"
START = 1532402927612460
RADAR = np.dtype(
    [(n, "<f4") for n in ("x", "y", "z")]
    + [("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4")]
    + [(n, "<f4") for n in ("vx", "vy", "vx_comp", "vy_comp")]
    + [
        (n, "i1")
        for n in ("is_quality_valid", "ambig_state", "x_rms", "y_rms", "invalid_state", "pdh0", "vx_rms", "vy_rms")
    ]
)
FIELDS = " ".join(RADAR.names or ())


def pcd(points: np.ndarray) -> bytes:
    head = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
        f"FIELDS {FIELDS}\nSIZE 4 4 4 1 2 4 4 4 4 4 1 1 1 1 1 1 1 1\nTYPE F F F I I F F F F F I I I I I I I I\n"
        f"COUNT {'1 ' * 18}\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA binary\n"
    )
    return head.encode() + points.tobytes()


def echoes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.zeros(count, RADAR)
    for name in RADAR.names or ():
        points[name] = rng.normal(size=count) * 20 if RADAR[name].kind == "f" else rng.integers(0, 8, count)
    points["id"] = np.arange(count)
    return points


def jpeg(width: int, height: int) -> bytes:
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return b"\xff\xd8\xff\xe0\x00\x04\x00\x00\xff\xc0\x00\x0b\x08" + size + b"\x01\x11\x00\xff\xda\x00\x00\xff\xd9"


def name_of(channel: str, us: int, ending: str, *, key: bool, log: str = LOG) -> str:
    return f"{'samples' if key else 'sweeps'}/{channel}/{log}__{channel}__{us}{ending}"


def put(root: Path, name: str, content: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """40 pictures, 5 radar and 3 lidar scans; every other file is a key frame; a table that lists one picture more."""
    entries = []
    for i in range(40):
        name = name_of("CAM_FRONT", START + 100 * i, ".jpg", key=i % 2 == 0)
        put(tmp_path, name, jpeg(1600, 900 + i))
        entries.append((name, START + 100 * i))
    for i in range(5):
        put(tmp_path, name_of("RADAR_FRONT", START + 77 * i, ".pcd", key=i % 2 == 0), pcd(echoes(i * 3, i)))
    for i in range(3):
        points = np.arange(5 * (i + 1), dtype="<f4").reshape(-1, 5)
        put(tmp_path, name_of("LIDAR_TOP", START + 50 * i, ".pcd.bin", key=i % 2 == 0), points.tobytes())
    entries.append((name_of("CAM_FRONT", START + 4050, ".jpg", key=False), START + 4050))
    entries.append((name_of("CAM_BACK", START, ".jpg", key=True), START))
    table = [
        {
            "token": f"{i:x}",
            "timestamp": us + 1,
            "fileformat": "jpg",
            "is_key_frame": False,
            "height": 900,
            "filename": name,
        }
        for i, (name, us) in enumerate(reversed(entries))
    ]
    put(tmp_path, "v1.0-mini/sample_data.json", json.dumps(table, indent=0).encode())
    return tmp_path


def test_key_frames_and_sweeps_are_one_stream_of_pictures(root: Path) -> None:
    whole = resumes_at_every_block(NuScenes(root).channel("CAM_FRONT"))
    assert len(whole.blocks) > 1
    assert not whole.bad
    assert [row["ts_event"] for row in whole.rows] == [(START + 100 * i) * 1000 for i in range(40)]
    assert [row["data"] for row in whole.rows] == [jpeg(1600, 900 + i) for i in range(40)]
    assert [(row["width"], row["height"]) for row in whole.rows] == [(1600, 900 + i) for i in range(40)]
    assert {row["codec"] for row in whole.rows} == {"jpeg"}


def test_radar_points_are_those_of_the_files(root: Path) -> None:
    rows = resumes_at_every_block(NuScenes(root).channel("RADAR_FRONT")).rows
    assert [row["n_points"] for row in rows] == [0, 3, 6, 9, 12]
    for i, row in enumerate(rows):
        for got, point in zip(row["points"], echoes(i * 3, i), strict=True):
            x, y = float(point["x"]), float(point["y"])
            away = (float(point["vx"]) * x + float(point["vy"]) * y) / np.hypot(x, y)
            assert (got["x"], got["y"], got["z"], got["rcs"]) == tuple(point[n] for n in ("x", "y", "z", "rcs"))
            assert got["vr"] == pytest.approx(away, rel=1e-6)
            assert got["track_id"] == point["id"]
            assert got["snr"] is None
            flags = int(point["dyn_prop"]) | int(point["ambig_state"]) << 3 | int(point["invalid_state"]) << 6
            assert got["flags"] == flags | (int(point["is_quality_valid"]) & 1) << 11


def test_lidar_points_have_their_ring(root: Path) -> None:
    rows = resumes_at_every_block(NuScenes(root).channel("LIDAR_TOP")).rows
    for i, row in enumerate(rows):
        values = [[p["x"], p["y"], p["z"], p["intensity"], p["ring"]] for p in row["points"]]
        assert np.array(values).ravel().tolist() == list(range(5 * (i + 1)))
        assert all(p["dt_ns"] is None for p in row["points"])


def test_the_tables_tell_times_and_what_is_missing(root: Path) -> None:
    whole = resumes_at_every_block(NuScenes(root, index="tables").channel("CAM_FRONT"))
    assert [row["ts_event"] for row in whole.rows] == [(START + 100 * i + 1) * 1000 for i in range(40)]
    (bad,) = whole.bad
    assert bad.error == "the file is missing"
    assert bad.seq == 40
    assert bad.place.endswith(f"__{START + 4050}.jpg")


def test_files_of_one_log_can_be_taken(root: Path) -> None:
    put(root, name_of("CAM_FRONT", START + 5, ".jpg", key=True, log="n008-2018-08-01"), jpeg(10, 10))
    assert len(read_whole(NuScenes(root).channel("CAM_FRONT")).rows) == 41
    assert len(read_whole(NuScenes(root).channel("CAM_FRONT", log=LOG)).rows) == 40
    with pytest.raises(FormatError, match="of log 'n999'"):
        read_whole(NuScenes(root).channel("CAM_FRONT", log="n999"))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("samples/CAM_FRONT/picture.jpg", jpeg(3, 3), "tells no time"),
        (name_of("CAM_FRONT", START, ".txt", key=True), b"", "ends with .jpg"),
        (name_of("CAM_FRONT", START + 1, ".jpg", key=True), b"\xff\xd8\xff\xd9", "does not tell its size"),
        (name_of("RADAR_FRONT", START + 1, ".pcd", key=True), b"", "no DATA line"),
        (name_of("RADAR_FRONT", START + 1, ".pcd", key=True), pcd(echoes(3, 1))[:-1], "cut"),
        (name_of("RADAR_FRONT", START + 1, ".pcd", key=True), pcd(echoes(3, 1)) + b"x", "behind"),
        (
            name_of("RADAR_FRONT", START + 1, ".pcd", key=True),
            pcd(echoes(3, 1)).replace(b"rcs", b"abc"),
            "no single rcs",
        ),
        (
            name_of("RADAR_FRONT", START + 1, ".pcd", key=True),
            pcd(echoes(3, 1)).replace(b"binary", b"ascii"),
            "'ascii'",
        ),
        (
            name_of("RADAR_FRONT", START + 1, ".pcd", key=True),
            pcd(echoes(3, 1)).replace(b"WIDTH 3", b"WIDTH 4"),
            "agree",
        ),
        (name_of("LIDAR_TOP", START + 1, ".pcd.bin", key=True), b"1234", "whole number of points"),
    ],
)
def test_a_damaged_or_untimed_file_is_one_bad_record(root: Path, name: str, content: bytes, why: str) -> None:
    put(root, name, content)
    whole = resumes_at_every_block(NuScenes(root).channel(name.split("/")[1]))
    (bad,) = whole.bad
    assert why in bad.error
    assert bad.place == str(root / name)
    assert len(whole.rows) == whole.records - 1


def test_a_point_at_the_sensor_has_no_radial_speed(root: Path) -> None:
    points = np.zeros(1, RADAR)
    points["vx"] = 3
    put(root, name_of("RADAR_BACK", START, ".pcd", key=True), pcd(points))
    (row,) = read_whole(NuScenes(root).channel("RADAR_BACK")).rows
    assert np.isnan(row["points"][0]["vr"])


def test_a_scan_whose_first_point_is_not_a_number_is_empty(root: Path) -> None:
    points = np.zeros(1, RADAR)
    points["x"] = np.nan
    put(root, name_of("RADAR_BACK", START, ".pcd", key=True), pcd(points))
    (row,) = read_whole(NuScenes(root).channel("RADAR_BACK")).rows
    assert (row["n_points"], row["points"]) == (0, [])


def test_inspect_and_open_find_what_is_there(root: Path) -> None:
    assert is_nuscenes(root)
    assert not is_nuscenes(root / "samples")
    assert not is_nuscenes(root / "nowhere")
    assert NuScenes(root).channels() == ["CAM_FRONT", "LIDAR_TOP", "RADAR_FRONT"]
    found = inspect_nuscenes(str(root))
    assert {name: topic["messages"] for name, topic in found["topics"].items()} == {
        "CAM_FRONT": 40,
        "LIDAR_TOP": 3,
        "RADAR_FRONT": 5,
    }
    assert found["time"]["start_ns"] == START * 1000
    assert open_nuscenes(root).channel == "CAM_FRONT"
    assert open_nuscenes(root, channel="LIDAR_TOP", index="files").channel == "LIDAR_TOP"


def test_a_folder_behind_a_url_reads_the_same(root: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in sorted(root.rglob("*")):
        if path.is_file():
            memory.pipe_file(f"/nuscenes/{path.relative_to(root)}", path.read_bytes())
    assert is_nuscenes("memory://nuscenes")
    for index in ("files", "tables"):
        far, near = (
            read_whole(NuScenes(place, index=index).channel("CAM_FRONT")).rows for place in ("memory://nuscenes", root)
        )
        assert far == near


def test_what_cannot_be_is_said(root: Path) -> None:
    with pytest.raises(GraphError, match="CAM_, RADAR_ or LIDAR_"):
        NuScenes(root).channel("../CAM_FRONT")
    with pytest.raises(GraphError, match="index"):
        NuScenes(root, index="guess")
    with pytest.raises(FormatError, match="no files of CAM_BACK"):
        read_whole(NuScenes(root).channel("CAM_BACK"))
    with pytest.raises(FormatError, match="no nuScenes folder"):
        inspect_nuscenes(str(root / "samples"))
    with pytest.raises(GraphError, match="max_file_bytes"):
        NuScenesChannel(root, "CAM_FRONT", max_file_bytes=-1)


flat = st.dictionaries(
    st.text(max_size=8), st.none() | st.integers() | st.text(max_size=20) | st.booleans(), max_size=5
)


@settings(max_examples=60)
@given(st.lists(flat, max_size=30), st.sampled_from([None, 0, 2]), st.integers(20, 400))
def test_tables_are_read_piece_by_piece(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, piece: int
) -> None:
    from penstock.sources.driving import _dataset_json

    path = tmp_path_factory.getbasetemp() / "table.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=len(values) % 2 == 0), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dataset_json, "_READ", piece)
        assert list(objects(str(path))) == values


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[", b"[{}", b"[1]", b'[{"a": ', b"[{}, x]", b"[\xff]", b"[[[[[[", b"]"]
)
def test_what_is_no_list_of_objects_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"t\.json"):
        list(objects(str(tmp_path / "t.json")))


def fuzz_pcd(cases: int) -> None:
    """Mutated .pcd files: refused with a sentence, or as many points as bytes allow."""
    random = Random(43)
    seed = pcd(echoes(4, 4))
    words = [b"0", b"-1", b"99999999", b"DATA", b"F", b"8", b"\n", b"SIZE 4\n", b"\xff", b"COUNT 4096\n", b"#", b"1e9"]
    for _ in range(cases):
        content = bytearray(seed)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(min(len(content), 420) + 1)
            match random.randrange(4):
                case 0 if at < len(content):
                    content[at] ^= 1 << random.randrange(8)
                case 1:
                    del content[at : at + random.randrange(1, 12)]
                case 2:
                    content[at:at] = random.choice(words)
                case _:
                    del content[random.randrange(len(content) + 1) :]
        try:
            points = pcd_points(bytes(content))
        except ValueError as error:
            assert str(error)
            continue
        assert points.nbytes <= len(content)
        assert pcd_header(bytes(content)).points == len(points)


def test_damaged_point_clouds_never_crash() -> None:
    fuzz_pcd(300)


@pytest.mark.nightly
def test_damaged_point_clouds_never_crash_nightly() -> None:
    fuzz_pcd(10_000)
