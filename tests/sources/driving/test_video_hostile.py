"""Damaged video: packets are read, put aside or counted, none twice, and what is not damaged comes out as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock.pipeline.errors import FormatError

pytest.importorskip("av")

from penstock.sources.driving.video import Video, inspect_video, is_video
from video_files import KINDS, Read, read_video, same_rows, write_video

TABLES = ("encoded", "frame")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("video")
    return {kind: write_video(folder / f"a.{kind}", kind, frames=24, gop=8).read_bytes() for kind in KINDS}


def accounted(found: Read) -> bool:
    return len(found.rows) + len(found.bad) + sum(found.dropped.values()) == found.records


def check(path: Path, container: str, *, threads: bool = False) -> None:
    """Read both tables; refusing the file whole is fine, everything else must add up."""
    counts = []
    for table in TABLES:
        try:
            found = read_video(Video(path, table=table, container=container, threads=1))
        except FormatError:
            return
        assert accounted(found), (table, found.dropped, found.records)
        seqs = [row["seq"] for row in found.rows] + [record.seq for record in found.bad]
        assert len(set(seqs)) == len(seqs)
        assert all(0 <= seq < found.records for seq in seqs)
        counts.append(found.records)
        if threads and table == "frame":
            again = read_video(Video(path, table=table, container=container, threads=3))
            assert same_rows(again.rows, found.rows)
            assert again.dropped == found.dropped
            assert [r.place for r in again.bad] == [r.place for r in found.bad]
    assert counts[0] == counts[1]


def mutated(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    out = bytearray(data)
    kind = int(rng.integers(5))
    at = int(rng.integers(len(out)))
    if kind == 0:
        for _ in range(int(rng.integers(1, 9))):
            out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        other = others[int(rng.integers(len(others)))]
        start = int(rng.integers(len(other)))
        out[at : at + 64] = other[start : start + int(rng.integers(1, 512))]
    elif kind == 3:
        width = int(rng.choice([2, 4, 8]))
        out[at : at + width] = rng.choice([b"\xff" * width, b"\0" * width, b"\x7f" + b"\xff" * (width - 1)])
    else:
        del out[at : at + int(rng.integers(1, 300))]
    return bytes(out)


def fuzz(originals: dict[str, bytes], folder: Path, cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    kinds = list(KINDS)
    for case in range(cases):
        kind = kinds[case % len(kinds)]
        data = mutated(originals[kind], rng, list(originals.values()))
        is_video(data[: 1 << 16])
        path = folder / "case"
        path.write_bytes(data)
        container = {"hevc.mp4": "mp4", "mkv": "matroska", "ts": "mpegts", "hevc": "h265"}.get(kind, kind)
        try:
            check(path, container, threads=case % 16 < 8 and case % 32 < 16)
        except BaseException as error:
            error.add_note(f"case {case} of seed {seed}, {kind}")
            raise


def test_damaged_files_are_accounted_for(originals: dict[str, bytes], tmp_path: Path) -> None:
    fuzz(originals, tmp_path, 300, 1)


@pytest.mark.nightly
def test_many_damaged_files_are_accounted_for(originals: dict[str, bytes], tmp_path: Path) -> None:
    fuzz(originals, tmp_path, 10_000, 2)


def damage_packet(path: Path, number: int) -> tuple[Path, Read]:
    """`path` with the payload of one packet overwritten, and what the frames of the undamaged file are."""
    import av

    good = read_video(Video(path, table="frame"))
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][number]
        pos, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[pos + 7 : pos + size] = bytes(b ^ 0x5A for b in data[pos + 7 : pos + size])
    path.write_bytes(data)
    return path, good


@pytest.mark.parametrize("kind", ["mp4", "hevc.mp4", "mkv"])
def test_a_damaged_packet_costs_what_hangs_on_it(tmp_path: Path, kind: str) -> None:
    path, good = damage_packet(write_video(tmp_path / f"a.{kind}", kind, frames=40, gop=10), 12)
    got = read_video(Video(path, table="frame"))
    assert accounted(got)
    assert len(got.bad) == 1
    assert "packet 12, byte" in got.bad[0].place
    assert got.bad[0].data
    assert sum(got.dropped.values()) > 0
    by_time = {row["ts_event"]: row for row in good.rows}
    assert all(np.array_equal(row["image"], by_time[row["ts_event"]]["image"]) for row in got.rows)
    assert got.rows[-1]["ts_event"] == good.rows[-1]["ts_event"]
    assert {row["ts_event"] for row in good.rows[:9]} <= {row["ts_event"] for row in got.rows}


@pytest.mark.parametrize("kind", ["mp4", "hevc.mp4", "mkv", "ts", "avi"])
def test_reading_a_damaged_file_goes_on_behind_every_block(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import penstock.sources.driving._video_decode as video_decode
    import penstock.sources.driving._video_frames as video_frames

    monkeypatch.setattr(video_decode, "RUN_PACKETS", 15)
    path = write_video(tmp_path / f"a.{kind}", kind, frames=40, gop=10)
    data = bytearray(path.read_bytes())
    for place in (0.45, 0.6):
        at = int(len(data) * place)
        data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    monkeypatch.setattr(video_frames, "_BLOCK_RECORDS", 2)
    whole = read_video(Video(path, table="frame"))
    assert accounted(whole)
    for after, rows, bad in whole.after:
        rest = read_video(Video(path, table="frame"), after)
        assert same_rows(rest.rows, whole.rows[rows:])
        assert [r.place for r in rest.bad] == [r.place for r in whole.bad[bad:]]
        assert rest.records == whole.records - after["seq"]


def test_a_cut_mp4_gives_what_is_there_and_says_what_is_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "mp4", frames=40, gop=10)
    whole = {table: read_video(Video(path, table=table)) for table in TABLES}
    path.write_bytes(path.read_bytes()[:-1500])
    for table in TABLES:
        got = read_video(Video(path, table=table))
        assert accounted(got)
        assert got.records == 40
        assert 5 < len(got.rows) < 40
        assert got.bad
        times = {row["ts_event"]: row for row in whole[table].rows}
        assert all(row["pts"] == times[row["ts_event"]]["pts"] for row in got.rows)
    assert inspect_video(path)["problem"]


def test_an_mp4_whose_index_is_missing_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", "mkv")
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\0\0\1\0mdat" + bytes(200))
    with pytest.raises(FormatError, match="index"):
        _ = Video(tmp_path / "a.mp4").schema
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FormatError):
        read_video(Video(path))


def test_pictures_beyond_the_limit_are_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import penstock.sources.driving._video_demux as video_demux

    path = write_video(tmp_path / "a.avi", "avi", frames=2)
    monkeypatch.setattr(video_demux, "PIXELS_LIMIT", 64 * 48 - 1)
    with pytest.raises(FormatError, match="64 x 48 pixels"):
        read_video(Video(path, table="frame"))


@pytest.mark.parametrize("position", [{"packet": -1}, {"packet": "3"}, {"packet": 0, "last": "x"}, {"seq": 1.5}])
def test_a_position_that_is_none_is_refused(tmp_path: Path, position: dict[str, Any]) -> None:
    path = write_video(tmp_path / "a.mp4", "mp4", frames=3)
    with pytest.raises(FormatError, match="a position of a video"):
        read_video(Video(path, table="frame"), position)
