"""Pictures that are missing in the middle of video: told as `ops.DecodeVideo` tells them, and never painted over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

av = pytest.importorskip("av")

import penstock.sources.driving._video_decode as video_decode  # noqa: E402
import penstock.sources.driving._video_frames as video_frames  # noqa: E402
from operator_harness import run_operator  # noqa: E402
from penstock.ops.video import DecodeVideo  # noqa: E402
from penstock.pipeline._nal import nal_units, slice_of  # noqa: E402
from penstock.pipeline.context import Context  # noqa: E402
from penstock.sources.driving.video import Video, inspect_video  # noqa: E402
from video_files import SIZE, Read, plain, read_video, same_rows, write_video  # noqa: E402

FRAMES, GOP = 24, 8
MUXERS = {"h264": "h264", "mp4": "mp4", "mkv": "matroska", "ts": "mpegts"}
TOLD = "reference pictures in front of it are missing: its number is "


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("video")
    return {kind: write_video(folder / f"front.{kind}", kind, frames=FRAMES, gop=GOP) for kind in (*MUXERS, "hevc")}


def units_of(path: Path) -> list[bytes]:
    """Access units in the order of the file, in Annex-B."""
    return [row["data"] for row in read_video(Video(path)).rows]


def without(path: Path, number: int, made: Path) -> Path:
    """A copy of a video without one access unit, as if it never arrived."""
    kind = path.name.partition(".")[2]
    if kind in ("h264", "hevc"):
        made.write_bytes(b"".join(unit for i, unit in enumerate(units_of(path)) if i != number))
        return made
    with av.open(str(path)) as source, av.open(str(made), "w", format=MUXERS[kind]) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for packet in packets[:number] + packets[number + 1 :]:
            packet.stream = stream
            target.mux(packet)
    return made


def header(unit: bytes) -> tuple[bool, bool]:
    """Whether a picture is a reference, and whether it is one at which everything begins anew."""
    first = next(unit[at:] for at, _ in nal_units(unit) if unit[at] & 31 in (1, 5))
    head = slice_of(first, None)
    assert head is not None
    return head.reference, head.idr


def by_operator(path: Path, **options: Any) -> tuple[list[np.ndarray], list[str], int]:
    """Pictures, errors and drops of `ops.DecodeVideo` on the packets of the file."""
    reader = Video(path).open(Context("read"))
    batches = [batch for block in reader.blocks() for batch in reader.decode(block).batches]
    reader.close()
    (rows,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    got = run_operator(DecodeVideo(*SIZE, **options), rows)
    images = [row["image"] for batch in got.batches for row in plain(batch)]
    return images, [record.error for record in got.bad], sum(got.dropped.values())


def accounted(found: Read) -> bool:
    return len(found.rows) + len(found.bad) + sum(found.dropped.values()) == found.records


@pytest.mark.parametrize("kind", MUXERS)
def test_a_missing_access_unit_costs_what_hangs_on_it_and_is_told(
    files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    originals = [row["image"] for row in read_video(Video(files[kind], table="frame")).rows]
    heads = [header(unit) for unit in units_of(files[kind])]
    told = 0
    for number in range(1, FRAMES - 1, 1 if kind == "h264" else 3):
        path = without(files[kind], number, tmp_path / f"gap.{kind}")
        found = read_video(Video(path, table="frame", height=SIZE[0], width=SIZE[1], threads=1))
        images, errors, dropped = by_operator(path)
        assert accounted(found)
        assert found.records == FRAMES - 1
        assert [record.error for record in found.bad] == errors
        assert sum(found.dropped.values()) == dropped
        assert len(found.rows) == len(images)
        assert all(np.array_equal(row["image"], image) for row, image in zip(found.rows, images, strict=True))
        assert all(any(np.array_equal(row["image"], image) for image in originals) for row in found.rows)
        (reference, begins), (_, next_begins) = heads[number], heads[number + 1]
        if reference and not begins and not next_begins:
            (bad,) = found.bad
            assert bad.error.startswith(TOLD)
            assert (bad.seq, bad.operation) == (number, "video.decode")
            assert f"{path}, packet {number}" in bad.place
            assert f"packet {number}: {TOLD}" in inspect_video(path)["problem"]
            told += 1
        elif not begins:
            assert not found.bad
            assert len(found.rows) == FRAMES - 1
            assert inspect_video(path)["complete"]
    assert told >= (6 if kind == "h264" else 2)


def test_whatever_the_threads_and_blocks_a_gap_gives_the_same(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_decode, "RUN_PACKETS", 5)
    heads = [header(unit) for unit in units_of(files["h264"])]
    number = next(i for i, head in enumerate(heads[:-1]) if i > GOP and head == (True, False) and not heads[i + 1][1])
    path = without(files["h264"], number, tmp_path / "gap.h264")
    whole = read_video(Video(path, table="frame", threads=1))
    monkeypatch.setattr(video_frames, "BLOCK_BYTES", 2 * 3 * SIZE[0] * SIZE[1])
    for threads in (1, 3):
        spec = Video(path, table="frame", threads=threads)
        found = read_video(spec)
        assert same_rows(found.rows, whole.rows)
        assert (found.dropped, [r.error for r in found.bad]) == (whole.dropped, [r.error for r in whole.bad])
        for after, rows, bad in found.after:
            rest = read_video(spec, after)
            assert same_rows(rest.rows, whole.rows[rows:])
            assert len(rest.bad) == len(whole.bad) - bad
    again = Video(path, table="frame").retry(whole.bad[0])
    assert again is not None
    assert [record.error for record in again.bad] == [whole.bad[0].error]


def test_who_wants_it_has_gaps_painted_over(files: dict[str, Path], tmp_path: Path) -> None:
    heads = [header(unit) for unit in units_of(files["mp4"])]
    number = next(i for i, head in enumerate(heads) if i and head == (True, False))
    path = without(files["mp4"], number, tmp_path / "gap.mp4")
    found = read_video(Video(path, table="frame", conceal=True))
    assert (len(found.rows), found.bad, found.dropped) == (FRAMES - 1, [], {})


@pytest.mark.parametrize("kind", ["hevc"])
def test_h265_does_not_decode_what_needs_a_missing_picture(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    originals = [row["image"] for row in read_video(Video(files[kind], table="frame")).rows]
    bad = 0
    for number in range(1, FRAMES - 1):
        path = without(files[kind], number, tmp_path / f"gap.{kind}")
        found = read_video(Video(path, table="frame", threads=1))
        assert accounted(found)
        assert all(any(np.array_equal(row["image"], image) for image in originals) for row in found.rows)
        bad += len(found.bad)
    assert bad >= 6


@pytest.mark.parametrize("name", ["solidWhiteRight.mp4"])
def test_the_real_dash_camera_has_no_gap(recordings: Callable[[str], Path], name: str) -> None:
    found = inspect_video(recordings("driving/dashcam_h264") / name)
    assert (found["messages"], found["complete"], found["problem"]) == (221, True, None)


def open_stream(path: Path) -> Path:
    """H.264 whose key pictures but the first do not begin anew, with B pictures that are references."""
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"x264-params": "keyint=8:min-keyint=8:open-gop=1:bframes=3:b-pyramid=normal:scenecut=0"}
        for number in range(48):
            image = np.roll(np.arange(SIZE[0] * SIZE[1] * 3, dtype=np.uint32) * 7 % 251, number * 99).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image.reshape(*SIZE, 3), "rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def test_open_groups_have_no_gap_and_one_cut_at_a_key_picture_begins_there(tmp_path: Path) -> None:
    path = open_stream(tmp_path / "open.h264")
    whole = read_video(Video(path, table="frame"))
    assert (len(whole.rows), whole.bad) == (48, [])
    units = units_of(path)
    heads = [header(unit) for unit in units]
    assert sum(idr for _, idr in heads) == 1
    keys = [i for i, row in enumerate(read_video(Video(path)).rows) if row["keyframe"]]
    assert len(keys) > 3
    sets = units[0][: next(at - 3 for at, _ in nal_units(units[0]) if units[0][at] & 31 not in (7, 8, 9))]
    leading = range(keys[1] + 1, keys[1] + 4)
    cut = [unit for i, unit in enumerate(units) if i >= keys[1] and i not in leading]
    (tmp_path / "cut.h264").write_bytes(sets + b"".join(cut))
    assert inspect_video(tmp_path / "cut.h264")["complete"]
