"""comma2k19 segments against numpy's own reader, on the real segment and on made ones with every kind of damage."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving._npy import NpyArray, npy_header
from penstock.sources.driving.comma2k19 import (
    LAYOUTS,
    Comma2k19,
    Comma2k19Table,
    inspect_comma2k19,
    is_comma2k19,
    open_comma2k19,
)
from source_reading import Whole, read_whole, resumes_at_every_block
from video_files import plain_decode, read_video, write_video

GPS_OFFSET = 315_964_800 - 18


@pytest.fixture(scope="module")
def segment(recordings: Callable[[str], Path]) -> Path:
    return recordings("driving/comma2k19_example1")


def load(segment: Path, name: str) -> np.ndarray:
    return np.load(segment / name, allow_pickle=False)


def offset_of(segment: Path) -> int:
    """Boot clock to UTC, from the first frame alone, in exact arithmetic."""
    week, tow = load(segment, "global_pose/frame_gps_times")[0]
    boot = load(segment, "global_pose/frame_times")[0]
    return (int(week) * 604_800 + GPS_OFFSET) * 10**9 + round(tow * 1e9) - round(boot * 1e9)


def test_the_boot_clock_is_set_by_the_gps_time_of_the_frames(segment: Path) -> None:
    metadata = Comma2k19(segment).table("can").schema.metadata
    offset = int(metadata[b"penstock.clock_offset_ns"])
    assert metadata[b"penstock.clock"] == b"boot+offset"
    assert metadata[b"penstock.clock_from"] == b"global_pose/frame_gps_times"
    assert abs(offset - offset_of(segment)) <= 1000
    frames = read_whole(Comma2k19(segment).table("pose")).table["ts_event"].cast("int64").to_numpy()
    gps = load(segment, "global_pose/frame_gps_times")
    utc = (gps[:, 0].astype(np.int64) * 604_800 + GPS_OFFSET) * 10**9 + np.rint(gps[:, 1] * 1e9).astype(np.int64)
    assert np.abs(frames - utc).max() <= 1000


def test_all_can_frames_are_those_of_the_arrays(segment: Path) -> None:
    spec = Comma2k19(segment).table("can")
    whole = resumes_at_every_block(Comma2k19Table(segment, "can", block_rows=50_000))
    table, parts = (
        read_whole(spec).table,
        {n: load(segment, f"processed_log/CAN/raw_can/{n}") for n in LAYOUTS["can"].parts},
    )
    assert table.equals(whole.table)
    assert table.num_rows == 135_468
    assert table["bus"].to_numpy().tolist() == parts["src"].tolist()
    assert table["can_id"].to_numpy().tolist() == parts["address"].tolist()
    raw = np.frombuffer(parts["data"].tobytes(), "S1").reshape(-1, 8)
    assert b"".join(table["data"].to_pylist()) == raw.tobytes()
    offset = int(spec.schema.metadata[b"penstock.clock_offset_ns"])
    assert table["ts_event"].cast("int64").to_pylist() == [offset + round(t * 1e9) for t in parts["t"].tolist()]
    assert table["seq"].to_pylist() == list(range(135_468))
    assert set(table["len"].to_pylist()) == {8}
    assert table["ext"].to_pylist() == (parts["address"] > 0x7FF).tolist()


def test_radar_tracks_become_scans_that_hold_each_track_once(segment: Path) -> None:
    table = resumes_at_every_block(Comma2k19Table(segment, "radar", block_rows=3000)).table
    assert table.equals(read_whole(Comma2k19(segment).table("radar")).table)
    value, t = load(segment, "processed_log/CAN/radar/value"), load(segment, "processed_log/CAN/radar/t")
    scans = table["points"].to_pylist()
    points = [point for scan in scans for point in scan]
    assert (len(scans), len(points)) == (1200, 10_100)
    assert table["n_points"].to_pylist() == [len(scan) for scan in scans]
    for name, column in (("x", 0), ("y", 1), ("vr", 2)):
        assert [p[name] for p in points] == value[:, column].astype(np.float32).tolist()
    assert [p["track_id"] for p in points] == value[:, 5].astype(int).tolist()
    assert [p["flags"] for p in points] == value[:, 6].astype(int).tolist()
    assert all(p["z"] is p["rcs"] is p["snr"] is None for p in points)
    assert all(len({p["track_id"] for p in scan}) == len(scan) for scan in scans)
    firsts = np.cumsum([0, *(len(scan) for scan in scans)])[:-1]
    offset = int(table.schema.metadata[b"penstock.clock_offset_ns"])
    assert table["ts_event"].cast("int64").to_pylist() == [offset + round(x * 1e9) for x in t[firsts].tolist()]


@pytest.mark.parametrize("table", [name for name in LAYOUTS if name not in ("can", "radar")])
def test_every_other_table_holds_the_values_of_its_arrays(segment: Path, table: str) -> None:
    layout, whole = LAYOUTS[table], read_whole(Comma2k19(segment).table(table))
    assert not whole.bad
    for column, part, first in layout.columns:
        expected = load(segment, layout.parts[part][0]).reshape(whole.table.num_rows, -1)
        got = np.array(whole.table[column].to_pylist(), np.float64).reshape(whole.table.num_rows, -1)
        assert np.array_equal(got, expected[:, first : first + got.shape[1]], equal_nan=True)
    assert whole.table.num_rows == len(load(segment, layout.parts["t"][0]))


def test_a_fix_keeps_the_time_of_the_fix_and_of_its_arrival(segment: Path) -> None:
    table = read_whole(Comma2k19(segment).table("gnss")).table
    value = load(segment, "processed_log/GNSS/live_gnss_ublox/value")
    assert table["ts_event"].cast("int64").to_pylist() == [int(ms) * 10**6 for ms in value[:, 3]]
    late = table["ts_recv"].cast("int64").to_numpy() - table["ts_event"].cast("int64").to_numpy()
    assert 0 < late.min() <= late.max() < 10**9


def test_inspect_tells_tables_and_time(segment: Path) -> None:
    assert is_comma2k19(segment)
    found = inspect_comma2k19(segment)
    assert found["topics"]["can"]["messages"] == 135_468
    assert found["topics"]["radar"]["messages"] == 10_100
    assert len(found["topics"]) == len(LAYOUTS)
    assert found["time"]["start"].startswith("2018-08-02T16:14:48")
    assert 59 < found["time"]["seconds"] < 61
    assert open_comma2k19(segment).table == "can"


def save(folder: Path, name: str, values: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, np.asarray(values))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A segment of 5 CAN frames and 4 IMU samples, its clock told by a GNSS receiver alone."""
    save(tmp_path, "processed_log/CAN/raw_can/t", [1.0, 2.0, 3.0, 4.0, 5.0])
    save(tmp_path, "processed_log/CAN/raw_can/src", [0, 1, 2, 128, 255])
    save(tmp_path, "processed_log/CAN/raw_can/address", [1, 0x7FF, 0x800, 5, 6])
    save(tmp_path, "processed_log/CAN/raw_can/data", np.array([b"a", b"", b"12345678", b"x\0y", b"z"], "S8"))
    for name in ("accelerometer", "gyro"):
        save(tmp_path, f"processed_log/IMU/{name}/t", [1.0, 2.0, 3.0, 4.0])
        save(tmp_path, f"processed_log/IMU/{name}/value", np.asfortranarray(np.arange(12.0).reshape(4, 3)))
    save(tmp_path, "processed_log/GNSS/live_gnss_ublox/t", [1.25, 2.5])
    save(tmp_path, "processed_log/GNSS/live_gnss_ublox/value", [[1, 2, 3, 1001.0, 4, 5], [1, 2, 3, 2001.0, 4, 5]])
    return tmp_path


def test_pictures_have_the_times_of_the_poses(made: Path) -> None:
    write_video(made / "video.hevc", "hevc", frames=12)
    seconds = np.arange(12) * 0.05 + 7.25
    save(made, "global_pose/frame_times", seconds)
    expected = [round(s * 1e9) + 1_001_000_000 - 1_250_000_000 for s in seconds.tolist()]
    frames = read_video(Comma2k19(made).video())
    assert [row["ts_event"] for row in frames.rows] == expected and not frames.bad
    pictures = [image for _, image in plain_decode(made / "video.hevc")]
    assert all(np.array_equal(row["image"], image) for row, image in zip(frames.rows, pictures, strict=True))
    packets = read_video(open_comma2k19(made, table="encoded"))
    assert sorted(row["ts_event"] for row in packets.rows) == expected
    assert read_video(Comma2k19(made, clock_offset_ns=5).video()).rows[0]["ts_event"] == 7_250_000_005


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_picture_whose_time_is_none_is_refused(made: Path, value: float) -> None:
    write_video(made / "video.hevc", "hevc", frames=2)
    save(made, "global_pose/frame_times", [1.0, value])
    with pytest.raises(FormatError, match=r"number 1 is .* no time in seconds"):
        Comma2k19(made).video().open(Context("x"))


def test_without_poses_the_quickest_fix_sets_the_clock(made: Path) -> None:
    metadata = Comma2k19(made).table("can").schema.metadata
    assert metadata[b"penstock.clock_offset_ns"] == str(1_001_000_000 - 1_250_000_000).encode()
    assert metadata[b"penstock.clock_from"] == b"processed_log/GNSS/live_gnss_ublox"
    assert Comma2k19(made, clock_offset_ns=7).table("can").schema.metadata[b"penstock.clock_from"] == b"given"


def test_without_any_gps_time_the_error_says_what_to_give(made: Path) -> None:
    for name in ("t", "value"):
        (made / "processed_log/GNSS/live_gnss_ublox" / name).unlink()
    with pytest.raises(FormatError, match="clock_offset_ns="):
        _ = Comma2k19(made).table("can").schema
    assert inspect_comma2k19(made)["problem"]
    assert read_whole(Comma2k19(made, clock_offset_ns=0).table("can")).table.num_rows == 5


def test_impossible_rows_are_put_aside_one_by_one(made: Path) -> None:
    save(made, "processed_log/CAN/raw_can/t", [np.nan, 2.0, 1e12, 4.0, -np.inf])
    save(made, "processed_log/CAN/raw_can/src", [0, 256, 2, -1, 255])
    whole = resumes_at_every_block(Comma2k19Table(made, "can", block_rows=2))
    assert [record.seq for record in whole.bad] == [0, 1, 2, 3, 4]
    assert whole.table.num_rows == 0
    assert "row 1" in whole.bad[1].place


def test_a_row_whose_parts_disagree_is_put_aside(made: Path) -> None:
    save(made, "processed_log/IMU/gyro/t", [1.0, 2.5, 3.0, 4.0])
    whole = read_whole(Comma2k19(made).table("imu"))
    assert [row["seq"] for row in whole.rows] == [0, 2, 3]
    assert "different times" in whole.bad[0].error


@pytest.mark.parametrize("name", ["t", "src", "data"])
def test_rows_that_one_array_lacks_are_one_bad_record_and_counted(made: Path, name: str) -> None:
    path = made / "processed_log/CAN/raw_can" / name
    path.write_bytes(path.read_bytes()[:-17])
    whole = resumes_at_every_block(Comma2k19Table(made, "can", block_rows=1))
    assert [row["seq"] for row in whole.rows] == [0, 1]
    assert len(whole.bad) == 1
    assert str(path) in whole.bad[0].place
    assert whole.dropped == {"in a damaged part of the file": 2}


def test_scans_do_not_depend_on_blocks(made: Path) -> None:
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.choice([0.001, 0.05, 0.02], 400, p=[0.7, 0.2, 0.1]))
    times[50] = np.nan
    value = rng.normal(size=(400, 7))
    value[:, 5] = np.arange(400)
    value[::37, 5] = -1
    save(made, "processed_log/CAN/radar/t", times)
    save(made, "processed_log/CAN/radar/value", value)
    wholes: list[Whole] = [resumes_at_every_block(Comma2k19Table(made, "radar", block_rows=n)) for n in (60, 128, 8192)]
    for whole in wholes[1:]:
        assert whole.table.equals(wholes[0].table)
        assert [(r.seq, r.place) for r in whole.bad] == [(r.seq, r.place) for r in wholes[0].bad]
    tracks = sum(row["n_points"] for row in wholes[0].rows)
    assert tracks + len(wholes[0].bad) == 400


def test_what_cannot_be_is_said_early(made: Path) -> None:
    with pytest.raises(GraphError, match="no table 'lidar'"):
        Comma2k19(made).table("lidar")
    save(made, "processed_log/CAN/raw_can/src", [0.0] * 5)
    with pytest.raises(FormatError, match="needs 1 integers"):
        read_whole(Comma2k19(made).table("can"))
    with pytest.raises(FormatError, match="no segment"):
        inspect_comma2k19(made / "processed_log")
    with pytest.raises(OSError, match="radar"):
        read_whole(Comma2k19(made).table("radar"))


def test_a_folder_behind_a_url_reads_the_same(made: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in sorted(made.rglob("*")):
        if path.is_file():
            memory.pipe_file(f"/segment/{path.relative_to(made)}", path.read_bytes())
    assert is_comma2k19("memory://segment")
    far, near = (read_whole(Comma2k19(place).table("can")).rows for place in ("memory://segment", made))
    assert far == near


dtypes = st.sampled_from(["<f8", ">f8", "<f4", "<i8", "<i4", "|u1", "|b1", "S3", ">u2"])


@settings(max_examples=60)
@given(data=st.data(), kind=dtypes, rows=st.integers(0, 9), width=st.integers(0, 4))
def test_rows_of_any_array_are_those_of_numpy(
    data: st.DataObject, kind: str, rows: int, width: int, tmp_path_factory: Any
) -> None:
    raw = np.frombuffer(
        data.draw(st.binary(min_size=rows * max(width, 1) * 8, max_size=rows * max(width, 1) * 8)), np.uint8
    )
    shape = (rows, width) if width else (rows,)
    item = np.dtype(kind).itemsize
    values = raw[: rows * max(width, 1) * item].copy().view(kind).reshape(shape)
    if kind == "|b1":
        values = values.view(np.uint8) % 2 == 1
    order = data.draw(st.sampled_from("CF"))
    path = tmp_path_factory.getbasetemp() / "any.npy"
    save(path.parent, path.name, np.array(values, order=order))
    array = NpyArray(path)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    got = array.read(start, stop)
    assert got.tobytes() == np.ascontiguousarray(values[start:stop].astype(np.dtype(kind).newbyteorder("="))).tobytes()
    assert array.whole == array.rows == rows
    array.close()


class Unpickled:
    """Leaves a mark if anybody unpickles it."""

    mark: list[int] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return (Unpickled.mark.append, (1,))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    with (tmp_path / "evil").open("wb") as file:
        np.save(file, np.array([Unpickled()], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="objects never"):
        NpyArray(tmp_path / "evil")
    assert not Unpickled.mark


def fuzz_npy(cases: int, path: Path) -> None:
    """Mutated .npy files: refused with an error that names the file, or read within what is there."""
    random = Random(19)
    seeds = []
    for values in (np.arange(12.0).reshape(4, 3), np.asfortranarray(np.arange(6).reshape(3, 2)), np.array([b"ab"] * 3)):
        file = io.BytesIO()
        np.save(file, values)
        seeds.append(file.getvalue())
    seeds.append(
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999, 3), }".ljust(200)
    )
    for _ in range(cases):
        content = bytearray(random.choice(seeds))
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(content) + 1)
            match random.randrange(4):
                case 0 if at < len(content):
                    content[at] ^= 1 << random.randrange(8)
                case 1:
                    del content[at:]
                case 2:
                    content[at:at] = random.choice([b"9" * 12, b"(" * 300, b"-1", b"[[", b"'O'", b"\xff"])
                case _:
                    content[8:10] = random.randrange(1 << 16).to_bytes(2, "little") if len(content) > 9 else b""
            if not content:
                content = bytearray(b"\x93")
        path.write_bytes(content)
        try:
            array = NpyArray(path)
        except FormatError as error:
            assert str(path) in str(error)
            continue
        assert array.whole * array.width * array.dtype.itemsize <= len(content)
        assert len(array.read(0, array.whole)) == array.whole
        array.close()


def test_damaged_arrays_never_crash_or_allocate_what_is_not_there(tmp_path: Path) -> None:
    fuzz_npy(300, tmp_path / "fuzz")


@pytest.mark.nightly
def test_damaged_arrays_never_crash_nightly(tmp_path: Path) -> None:
    fuzz_npy(10_000, tmp_path / "fuzz")


@given(st.binary(max_size=80))
def test_any_bytes_as_a_header_are_refused_or_understood(content: bytes) -> None:
    for head in (content, b"\x93NUMPY\x01\x00" + content):
        try:
            dtype, shape, _, offset = npy_header(head)
        except ValueError:
            continue
        assert dtype.itemsize > 0
        assert all(n >= 0 for n in shape)
        assert offset <= len(head)
