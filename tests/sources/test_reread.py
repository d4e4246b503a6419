"""Records put aside are read again where they stand: a damaged copy of a recording, mended, gives the rows it lacked."""

from __future__ import annotations

import io
import lzma
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import packets as pk
import pyarrow as pa
import pytest
from itch_reference import directory, message
from packets import ethernet, ipv4, udp
from penstock.pipeline.context import BadRecord
from penstock.pipeline.source import SourceSpec
from penstock.sources.driving.comma2k19 import Comma2k19Table
from penstock.sources.driving.kitti import KittiTopic
from penstock.sources.driving.nuscenes import NuScenesChannel
from penstock.sources.games.osu import Osr
from penstock.sources.games.slippi import Slippi
from penstock.sources.market.iex import Iex
from penstock.sources.market.mold import MoldItch
from penstock.sources.network.pcap import Pcap
from penstock.sources.storage.reread import rest_of_place
from PIL import Image
from slippi_naive import PRE, Game, write_container
from source_reading import read_whole

START = 1_700_000_000 * 10**9


def plain(batch: pa.RecordBatch) -> dict[str, Any]:
    (row,) = pa.Table.from_batches([batch]).drop_columns(["ts_event", "ts_recv"]).to_pylist()
    return {**row, "times": [batch.column(name).cast(pa.int64())[0].as_py() for name in ("ts_event", "ts_recv")]}


def rows_of(spec: SourceSpec) -> list[dict[str, Any]]:
    return [plain(part) for batch in read_whole(spec).table.to_batches() for part in single(batch)]


def single(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    return [batch.slice(row, 1) for row in range(batch.num_rows)]


def mended(spec: SourceSpec, whole: list[dict[str, Any]], mend: Callable[[], Any]) -> BadRecord:
    """`spec` is damaged in one place: before `mend` that record is bad again, after it the row that was missing comes."""
    (bad,) = read_whole(spec).bad
    numbered = replace(bad, seq=(bad.seq or 0) + 1000)  # as one of several parts of a recording has it
    damaged = rows_of(spec)
    (missing,) = [row for row in whole if without_seq(row) not in map(without_seq, damaged)]
    again = spec.retry(numbered)
    assert again is not None
    assert not again.batches
    assert [record.error for record in again.bad] == [bad.error]
    mend()
    found = spec.retry(numbered)
    assert found is not None
    assert not found.bad
    (batch,) = found.batches
    assert batch.schema.equals(spec.schema, check_metadata=True)
    assert plain(batch) == {**missing, "seq": numbered.seq}
    assert spec.retry(replace(bad, place=f"/elsewhere{bad.place}")) is None
    return bad


def without_seq(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seq"}


def picture(width: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, width, 3), width, np.uint8)).save(file, kind)
    return file.getvalue()


def damaging(path: Path, damage: Callable[[bytes], bytes]) -> Callable[[], Any]:
    """Damages a file; what comes back mends it."""
    content = path.read_bytes()
    path.write_bytes(damage(content))
    return lambda: path.write_bytes(content)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9]])
def test_a_picture_of_a_kitti_folder(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = tmp_path / "image_02"
    (folder / "data").mkdir(parents=True)
    lines = [f"2011-09-26 13:02:{i:02d}.000000001" for i in range(40)]
    (folder / "timestamps.txt").write_text("\n".join(lines) + "\n")
    for i in range(40):
        (folder / "data" / f"{i:010d}.png").write_bytes(picture(8 + i, "PNG"))
    spec = KittiTopic(tmp_path, "image_02")
    whole = rows_of(spec)
    mended(spec, whole, damaging(folder / "data" / "0000000035.png", damage))


def test_a_picture_of_a_nuscenes_folder(tmp_path: Path) -> None:
    folder = tmp_path / "samples" / "CAM_FRONT"
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"n015-log__CAM_FRONT__{1_532_402_927_612_460 + i}.jpg").write_bytes(picture(8 + i, "JPEG"))
    spec = NuScenesChannel(tmp_path, "CAM_FRONT")
    whole = rows_of(spec)
    mended(spec, whole, damaging(sorted(folder.iterdir())[3], lambda data: b"GIF89a"))


def test_a_row_of_the_arrays_of_comma2k19(tmp_path: Path) -> None:
    folder = tmp_path / "processed_log" / "CAN" / "raw_can"
    folder.mkdir(parents=True)
    arrays = {
        "t": np.arange(9.0),
        "src": np.arange(9),
        "address": np.arange(9) + 5,
        "data": np.array([b"12345678"] * 9),
    }

    def save() -> None:
        for name, values in arrays.items():
            with (folder / name).open("wb") as file:
                np.save(file, values)

    save()
    spec = Comma2k19Table(tmp_path, "can", clock_offset_ns=START, block_rows=4)
    whole = rows_of(spec)
    arrays["src"] = np.where(np.arange(9) == 6, 256, np.arange(9))
    save()
    arrays["src"] = np.arange(9)
    mended(spec, whole, save)


def test_a_track_of_a_radar_of_comma2k19_comes_back_with_its_scan(tmp_path: Path) -> None:
    folder = tmp_path / "processed_log" / "CAN" / "radar"
    folder.mkdir(parents=True)
    value = np.zeros((12, 7))
    value[:, 5] = np.arange(12)

    def save(values: np.ndarray) -> None:
        for name, array in (("t", np.repeat(np.arange(4.0), 3)), ("value", values)):
            with (folder / name).open("wb") as file:
                np.save(file, array)

    damaged = value.copy()
    damaged[7, 5] = -1
    save(damaged)
    spec = Comma2k19Table(tmp_path, "radar", clock_offset_ns=START)
    (bad,) = read_whole(spec).bad
    save(value)
    found = spec.retry(bad)
    assert found is not None
    assert [plain(batch) for batch in found.batches] == [rows_of(spec)[2]]


def osr(frames: str) -> bytes:
    def text(value: bytes) -> bytes:
        return b"\x0b" + bytes([len(value)]) + value

    head = struct.pack("<Bi", 0, 20210101) + text(b"0123456789abcdef" * 2) + text(b"x") + text(b"f" * 32)
    head += struct.pack("<6Hih?i", 1, 2, 3, 4, 5, 6, 7, 8, True, 0) + text(b"0|1,")
    body = lzma.compress(frames.encode(), format=lzma.FORMAT_ALONE)
    return head + struct.pack("<qi", 637_450_560_000_000_000, len(body)) + body + struct.pack("<q", 5)


def test_a_frame_of_an_osu_replay_has_its_time_from_all_before(tmp_path: Path) -> None:
    path, moves = tmp_path / "play.osr", [f"{w}|{w * 1.5}|{300 - w / 7}|{w % 32}," for w in range(1, 400)]
    path.write_bytes(osr("".join(moves)))
    whole = rows_of(Osr(path))
    damaged = [*moves[:200], "201|x|3|4,", *moves[201:]]
    mend = damaging(path, lambda data: osr("".join(damaged)))
    bad = mended(Osr(path), whole, mend)
    shifted = replace(bad, place=bad.place.replace("byte ", "byte 1"))
    assert Osr(path).retry(shifted) is None


@pytest.mark.parametrize("table", ["input", "state"])
def test_an_event_of_a_slippi_replay(tmp_path: Path, table: str) -> None:
    made, path = Game((3, 9)), tmp_path / "game.slp"
    frames = [made.frame(number) for number in range(-123, -83)]
    events = made.head + b"".join(frames) + made.end()
    path.write_bytes(write_container(events))
    spec = Slippi(path, table, start_at=START)
    whole = rows_of(spec)
    code = PRE if table == "input" else 0x38
    at = 15 + len(made.head) + 20 * len(frames[0])
    data = path.read_bytes()
    at = data.index(struct.pack(">Bi", code, -103), at)
    mended(spec, whole, damaging(path, lambda data: data[: at + 5] + b"\x09" + data[at + 6 :]))


@pytest.mark.parametrize("make", [pk.pcap, pk.pcapng])
def test_a_packet_of_a_capture(tmp_path: Path, make: Callable[..., bytes]) -> None:
    path = tmp_path / "a.pcap"
    frames = [(START + i, ethernet(ipv4(udp(b"payload %d" % i)))) for i in range(30)]
    path.write_bytes(make(frames))
    whole = rows_of(Pcap(path))
    at = path.read_bytes().index(b"payload 17") - 28
    mended(Pcap(path), whole, damaging(path, lambda data: data[:at] + b"\x44" + data[at + 1 :]))


def test_a_record_header_of_a_capture(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pk.pcap([(START + i, ethernet(ipv4(udp(b"payload %d" % i)))) for i in range(30)]))
    whole = rows_of(Pcap(path))
    at = path.read_bytes().index(b"payload 17") - 28 - 14 - 8
    mend = damaging(path, lambda data: data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
    (bad,) = [record for record in read_whole(Pcap(path)).bad if record.operation == "pcap.frame"]
    mend()
    found = Pcap(path).retry(bad)
    assert found is not None
    assert [plain(batch) for batch in found.batches] == [whole[17]]


def feed(payloads: list[bytes], port: int) -> bytes:
    return pk.pcap(
        [(START + 1000 * i, ethernet(ipv4(udp(payload, target=port)))) for i, payload in enumerate(payloads)]
    )


def quotes(count: int) -> list[bytes]:
    head = [b"Q\0" + struct.pack("<q", START + i) + b"ABC     " for i in range(count)]
    return [part + struct.pack("<Iqq", 5, i, i + 1) + struct.pack("<I", 6) for i, part in enumerate(head)]


def orders(count: int) -> list[bytes]:
    made = [directory(1, "ABC")]
    return made + [message("A", 1, i, i, b"B", 100, b"ABC     ", 10_000 + i) for i in range(count - 1)]


@pytest.mark.parametrize("kind", ["iex", "mold"])
def test_a_gap_and_a_message_of_a_numbered_feed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "feed.pcap"
    parts, make = (quotes(40), pk.iex) if kind == "iex" else (orders(40), pk.mold)
    spec: SourceSpec = Iex(path, reorder=2) if kind == "iex" else MoldItch(path, date="2019-01-30", reorder=2)
    whole_file = feed([make(1 + at, parts[at : at + 4]) for at in range(0, 40, 4)], 26477)
    path.write_bytes(whole_file)
    whole = rows_of(spec)

    path.write_bytes(feed([make(1 + at, parts[at : at + 4]) for at in range(0, 40, 4) if at not in (12, 16)], 26477))
    (gap,) = read_whole(spec).bad
    still = spec.retry(gap)
    assert still is not None
    assert [record.error for record in still.bad] == [gap.error]
    path.write_bytes(whole_file)
    found = spec.retry(replace(gap, seq=(gap.seq or 0) + 1000))
    assert found is not None
    missing = [{**row, "seq": row["seq"] + 1000} for row in whole if 12 <= row["seq"] < 20]
    assert [plain(row) for batch in found.batches for row in single(batch)] == missing

    short = [part[:-1] if number == 22 else part for number, part in enumerate(parts)]
    path.write_bytes(feed([make(1 + at, short[at : at + 4]) for at in range(0, 40, 4)], 26477))
    (bad,) = read_whole(spec).bad
    assert bad.seq == 22
    still = spec.retry(bad)
    assert still is not None
    assert [record.error for record in still.bad] == [bad.error]
    path.write_bytes(whole_file)
    found = spec.retry(bad)
    assert found is not None
    assert [plain(batch) for batch in found.batches] == [row for row in whole if row["seq"] == 22]
    assert spec.retry(replace(bad, place="/elsewhere/feed.pcap, offset 24")) is None


@pytest.mark.parametrize("table", ["encoded", "frame"])
def test_a_packet_of_a_video(tmp_path: Path, table: str) -> None:
    av = pytest.importorskip("av")
    from penstock.sources.driving.video import Video
    from video_files import plain as rows
    from video_files import read_video, same_rows, write_video

    path = write_video(tmp_path / "a.mp4", "mp4", frames=24, gop=8)
    spec = Video(path, table=table, start=START)
    whole = read_video(spec).rows
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][13]
    at, size, pts = packet.pos, packet.size, packet.pts

    def damage(data: bytes) -> bytes:
        if table == "encoded":  # a length that goes past the end of the packet
            return data[:at] + b"\x7f" + data[at + 1 :]
        return data[: at + 7] + bytes(byte ^ 0x5A for byte in data[at + 7 : at + size]) + data[at + size :]

    mend = damaging(path, damage)
    (bad,) = read_video(spec).bad
    still = spec.retry(bad)
    assert still is not None
    assert [record.place for record in still.bad] == [bad.place]
    mend()
    found = spec.retry(replace(bad, seq=77))
    assert found is not None
    (missing,) = [row for row in whole if row["pts"] == pts]
    assert same_rows([row for batch in found.batches for row in rows(batch)], [{**missing, "seq": 77}])
    assert spec.retry(replace(bad, place="/elsewhere/a.mp4, packet 13")) is None


def test_a_place_belongs_to_one_recording() -> None:
    record = BadRecord("/a/b.pcap, offset 3", "x", "y", b"")
    assert rest_of_place(record, "/a/b.pcap") == "offset 3"
    assert rest_of_place(replace(record, place="/a/b.pcap"), "/a/b.pcap") == ""
    assert rest_of_place(record, "/a/b") is None
    assert rest_of_place(record, "/a") is None
