"""Video against a plain decode by PyAV and OpenCV, on a real dash camera and on small files of every container."""

from __future__ import annotations

import gzip
import io
import pickle
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import penstock.sources.driving._video_decode as video_decode
import penstock.sources.driving._video_frames as video_frames
import penstock.sources.driving._video_packets as video_packets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock import sources
from penstock.pipeline.errors import FormatError, GraphError, MissingExtraError

av = pytest.importorskip("av")

from penstock.sources.driving._video_times import iso_ns, scaled_ns  # noqa: E402
from penstock.sources.driving.video import Video, inspect_video, is_video, open_video  # noqa: E402
from video_files import KINDS, SIZE, picture, plain_decode, read_video, same_rows, write_video  # noqa: E402

CREATED = 1_472_418_968 * 10**9
START = 1_700_000_000_000_000_001


@pytest.fixture(scope="module")
def dashcam(recordings: Callable[[str], Path]) -> Path:
    return recordings("driving/dashcam_h264") / "solidWhiteRight.mp4"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("video")
    return {kind: write_video(folder / f"front.{kind}", kind) for kind in KINDS}


def small_blocks(monkeypatch: pytest.MonkeyPatch, rows: int = 3) -> None:
    monkeypatch.setattr(video_frames, "BLOCK_BYTES", rows * 3 * SIZE[0] * SIZE[1])
    monkeypatch.setattr(video_packets, "_BLOCK_PACKETS", rows)
    monkeypatch.setattr(video_decode, "RUN_PACKETS", 15)


def test_every_packet_of_the_real_dash_camera_is_read(dashcam: Path) -> None:
    got = read_video(Video(dashcam))
    with av.open(str(dashcam)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert len(got.rows) == got.records == 221
    assert not got.bad
    assert [row["seq"] for row in got.rows] == list(range(221))
    assert [row["keyframe"] for row in got.rows] == [p.is_keyframe for p in packets]
    assert sum(row["keyframe"] for row in got.rows) == 8
    assert [row["pts"] for row in got.rows] == [p.pts for p in packets]
    assert [row["ts_event"] for row in got.rows] == [CREATED + p.pts * 40_000_000 for p in packets]
    assert {(r["codec"], r["width"], r["height"], r["topic"]) for r in got.rows} == {
        ("h264", 960, 540, "solidWhiteRight.mp4")
    }


def test_every_picture_of_the_real_dash_camera_is_that_of_an_independent_decode(dashcam: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    got = read_video(Video(dashcam, table="frame"))
    assert len(got.rows) == got.records == 221
    capture = cv2.VideoCapture(str(dashcam))
    for row, (pts, image) in zip(got.rows, plain_decode(dashcam), strict=True):
        assert row["pts"] == pts
        assert row["ts_event"] == CREATED + pts * 40_000_000
        assert np.array_equal(row["image"], image)
        ok, bgr = capture.read()
        assert ok
        off = np.abs(bgr[:, :, ::-1].astype(np.int16) - row["image"])
        assert off.max() <= 4  # another conversion to RGB of the same picture
    assert not capture.read()[0]


def test_packets_of_an_mp4_are_a_bare_stream_that_decodes_to_the_same_pictures(files: dict[str, Path]) -> None:
    for kind, demuxer in (("mp4", "h264"), ("mkv", "h264"), ("hevc.mp4", "hevc")):
        joined = b"".join(row["data"] for row in read_video(Video(files[kind])).rows)
        assert is_video(joined[: 1 << 16])
        bare = plain_decode(io.BytesIO(joined), format=demuxer)
        wanted = plain_decode(files[kind])
        assert len(bare) == len(wanted) == 40
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(bare, wanted, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_packets_and_pictures_in_time_order(files: dict[str, Path], kind: str) -> None:
    spec = Video(files[kind], table="frame", start=START)
    got = read_video(spec)
    wanted = plain_decode(files[kind])
    assert len(got.rows) == 40
    assert not got.bad
    assert not got.dropped
    assert all(np.array_equal(row["image"], image) for row, (_, image) in zip(got.rows, wanted, strict=True))
    assert [row["ts_event"] for row in got.rows] == [START + 40_000_000 * i for i in range(40)]
    assert [row["pts"] for row in got.rows] == [None if kind in ("h264", "hevc", "mjpeg") else pts for pts, _ in wanted]
    packets = read_video(Video(files[kind], start=START))
    assert packets.rows[0]["codec"] == {"libx264": "h264", "libx265": "h265", "mjpeg": "jpeg"}[KINDS[kind][1]]
    assert sorted(row["ts_event"] for row in packets.rows) == [row["ts_event"] for row in got.rows]


@pytest.mark.parametrize("table", ["encoded", "frame"])
@pytest.mark.parametrize("kind", KINDS)
def test_reading_goes_on_behind_every_block(
    files: dict[str, Path], kind: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_video(Video(files[kind], table=table))
    small_blocks(monkeypatch)
    cut = read_video(Video(files[kind], table=table))
    assert same_rows(cut.rows, whole.rows)
    assert len(cut.after) > 10
    for after, rows, _ in cut.after:
        assert same_rows(read_video(Video(files[kind], table=table), after).rows, whole.rows[rows:])


def test_pictures_are_scaled_by_the_decoders_scaler(files: dict[str, Path]) -> None:
    got = read_video(Video(files["mp4"], table="frame", height=24, width=30))
    with av.open(str(files["mp4"])) as container:
        wanted = [f.reformat(30, 24, "rgb24").to_ndarray() for f in container.decode(video=0)]
    assert got.rows[0]["image"].shape == (24, 30, 3)
    assert all(np.array_equal(row["image"], image) for row, image in zip(got.rows, wanted, strict=True))


def test_a_url_is_read_as_a_file_is(files: dict[str, Path]) -> None:
    for kind in ("mp4", "mkv", "ts"):
        url = f"memory://video/front.{kind}"
        fsspec.filesystem("memory").pipe(f"/video/front.{kind}", files[kind].read_bytes())
        for table in ("encoded", "frame"):
            assert same_rows(read_video(Video(url, table=table)).rows, read_video(Video(files[kind], table=table)).rows)


def test_a_packed_video_is_read_as_it_is(files: dict[str, Path], tmp_path: Path) -> None:
    packed = tmp_path / "drive.mp4.gz"
    packed.write_bytes(gzip.compress(files["mp4"].read_bytes(), 1))
    for table in ("encoded", "frame"):
        plain = read_video(Video(files["mp4"], table, topic="a"))
        assert same_rows(read_video(sources.open(packed, table=table, topic="a")).rows, plain.rows)
    assert inspect_video(packed)["messages"] == inspect_video(files["mp4"])["messages"]
    packed.write_bytes(gzip.compress(bytes(99)))
    with pytest.raises(FormatError, match=r"not a video file that is known: it begins with 00 00"):
        Video(packed).schema  # noqa: B018


def test_rows_do_not_depend_on_the_decoders_threads(files: dict[str, Path]) -> None:
    one, four = (read_video(Video(files["mp4"], table="frame", threads=n)) for n in (1, 4))
    assert same_rows(one.rows, four.rows)


def test_a_side_car_file_gives_the_times_in_display_order(files: dict[str, Path], tmp_path: Path) -> None:
    stamps = START + np.cumsum(np.arange(40) % 7 + 1) * 1_000_003
    np.save(tmp_path / "stamps.npy", stamps)
    (tmp_path / "stamps.txt").write_text("# ns\n" + "\n".join(map(str, stamps.tolist())))
    for name in ("stamps.npy", "stamps.txt"):
        frames = read_video(Video(files["mp4"], table="frame", timestamps=tmp_path / name))
        assert [row["ts_event"] for row in frames.rows] == stamps.tolist()
        packets = read_video(Video(files["mp4"], timestamps=tmp_path / name))
        by_pts = {row["pts"]: row["ts_event"] for row in frames.rows}
        assert [row["ts_event"] for row in packets.rows] == [by_pts[row["pts"]] for row in packets.rows]


def test_a_picture_without_a_side_car_stamp_is_put_aside(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("\n".join(str(i) for i in range(38)))
    got = read_video(Video(files["mp4"], table="frame", timestamps=tmp_path / "short.txt"))
    assert len(got.rows) == 38
    assert ["the side-car file holds 38" in record.error for record in got.bad] == [True, True]


@pytest.mark.parametrize("text", ["12.5", "abc", "99999999999999999999"])
def test_a_side_car_file_that_is_not_ns_is_refused_with_its_line(
    files: dict[str, Path], tmp_path: Path, text: str
) -> None:
    (tmp_path / "bad.txt").write_text(f"1\n{text}\n")
    with pytest.raises(FormatError, match="line 2"):
        Video(files["mp4"], timestamps=tmp_path / "bad.txt").open(None)  # type: ignore[arg-type]


def test_creation_time_is_the_start_where_none_is_given(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "mp4", frames=3, metadata={"creation_time": "2024-02-29T12:34:56.250000Z"})
    moment = int(datetime(2024, 2, 29, 12, 34, 56, tzinfo=UTC).timestamp()) * 10**9
    got = read_video(Video(path)).rows[0]["ts_event"]
    assert got // 10**9 * 10**9 == moment
    assert Video(path).schema.metadata[b"penstock.clock"] == b"utc"
    assert read_video(Video(path, start=5)).rows[0]["ts_event"] == 5


def test_a_rate_replaces_the_times_of_packets(files: dict[str, Path]) -> None:
    got = read_video(Video(files["h264"], table="frame", rate="30000/1001"))
    assert [row["ts_event"] for row in got.rows] == [round(Fraction(i * 1001 * 10**9, 30_000)) for i in range(40)]


@given(ticks=st.integers(-(1 << 63), 1 << 63), num=st.integers(1, 1 << 20), den=st.integers(1, 1 << 31))
def test_ticks_become_ns_as_fractions_do(ticks: int, num: int, den: int) -> None:
    exact = Fraction(ticks * num * 10**9, den)
    got = scaled_ns(ticks, Fraction(num, den))
    assert -Fraction(1, 2) < got - exact <= Fraction(1, 2)


@given(ns=st.integers(-(10**18), 4 * 10**18))
def test_iso_times_are_exact_to_the_ns(ns: int) -> None:
    moment = datetime.fromtimestamp(ns // 10**9, UTC)
    assert iso_ns(f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z") == ns
    assert iso_ns(f"{moment:%Y-%m-%d %H:%M:%S}.{ns % 10**9:09d}+00:00") == ns


def test_inspect_tells_what_the_dash_camera_holds(dashcam: Path) -> None:
    found = inspect_video(dashcam)
    assert (found["messages"], found["keyframes"], found["container"]) == (221, 8, "mp4")
    assert (found["width"], found["height"], found["problem"]) == (960, 540, None)
    assert found["topics"]["solidWhiteRight.mp4"]["type"] == "h264"
    assert found["time"]["start"] == "2016-08-28T21:16:08.000000000Z"
    assert found["time"]["seconds"] == pytest.approx(8.8)


@pytest.mark.parametrize("kind", KINDS)
def test_videos_are_recognised_by_their_first_bytes(files: dict[str, Path], kind: str) -> None:
    head = files[kind].read_bytes()[: 1 << 16]
    assert is_video(head)
    assert open_video(files[kind]).table == "encoded"
    assert open_video(files[kind], height=8, width=8).table == "frame"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x00\x00\x01\xba" + bytes(100),
        b"\x89MCAP0\r\n",
        b"\x00\x0cS" + bytes(50),
        b"\x00\x00\x00\x18ftypheic" + bytes(20),
        b'{"ts": 1}\n' * 50,
        b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(300) + b"\xff\xd9",
        b"G" * 10,
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"\x1a\x45\xdf\xa3" + bytes(80),
    ],
)
def test_other_files_are_not_claimed(head: bytes) -> None:
    assert not is_video(head)


def test_real_recordings_of_other_formats_are_not_claimed(recordings: Callable[[str], Path]) -> None:
    for folder in ("market/itch50", "market/dbn_conformance", "games/slippi_melee", "driving/rosbag1", "games"):
        for path in sorted(recordings(folder).rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    assert not is_video(file.read(1 << 16)), path


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"table": "frames"}, "choose one of"),
        ({"height": 5, "table": "frame"}, "both"),
        ({"height": 5, "width": 5}, 'table="frame"'),
        ({"height": -1, "width": 5, "table": "frame"}, "pixels"),
        ({"start": "yesterday"}, "ISO 8601"),
        ({"rate": 0}, "frames a second"),
        ({"rate": "1/0"}, "frames a second"),
        ({"threads": -1}, "threads"),
        ({"container": "wmv"}, "choose one of"),
    ],
)
def test_wrong_arguments_are_refused_with_a_way_out(options: dict[str, Any], what: str) -> None:
    with pytest.raises(GraphError, match=what):
        Video("a.mp4", **options)


def test_a_file_that_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(FormatError, match=r"a\.mp4: not a video file"):
        _ = Video(tmp_path / "a.mp4").schema


def test_without_the_library_the_error_says_what_to_install(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        _ = Video(files["mp4"]).schema


def test_a_spec_pickles(files: dict[str, Path]) -> None:
    spec = Video(files["mp4"], table="frame", height=8, width=8, rate="30000/1001")
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="this FFmpeg has no encoder of AV1")
def test_a_codec_has_its_own_name_not_that_of_a_decoder(tmp_path: Path) -> None:
    path = tmp_path / "front.mkv"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("libsvtav1", rate=10, options={"svtav1-params": "lp=1", "preset": "12"})
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0, (64, 64)), "rgb24")))
        container.mux(stream.encode(None))
    assert [row["codec"] for row in read_video(Video(path)).rows] == ["av1", "av1"]
    assert len(read_video(Video(path, table="frame")).rows) == 2
