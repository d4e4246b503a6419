"""MCAP topics against the `mcap` package and `rosbags`, on real recordings and on small files of every shape."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap_files import CAN_TOPIC, SHAPES, TEXT_TOPIC, plain_rows, read, read_joined, together, write_file
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.sources.driving.mcap import Mcap, McapTopic, inspect_mcap, is_mcap
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

Recordings = Callable[[str], Path]
CAMERA, RADAR = "/camera/front/image_raw/compressed", "/radar/front/points"
CONFORMANCE = (
    "cdr_test_0",
    "multiple_files_0",
    "multiple_files_1",
    "multiple_files_2",
    "only_topics",
    "talker",
    "topics_and_services",
    "wbag_0",
)


@pytest.fixture(scope="module")
def drive(recordings: Recordings) -> Path:
    return recordings("driving/derived_drive") / "drive_mcap" / "drive_mcap.mcap"


@pytest.fixture(scope="module")
def truth(drive: Path) -> dict[str, list[tuple[int, Any]]]:
    """Every message of the real drive as rosbags deserializes it, by topic."""
    store = get_typestore(Stores.EMPTY)
    found: dict[str, list[tuple[int, Any]]] = {}
    with drive.open("rb") as file:
        reader = make_reader(file)
        for kind in reader.get_summary().schemas.values():
            types = get_types_from_msg(kind.data.decode(), kind.name)
            store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
        for kind, channel, message in reader.iter_messages(log_time_order=False):
            value = store.deserialize_cdr(message.data, kind.name)
            found.setdefault(channel.topic, []).append((message.log_time, value))
    return found


def check_times(rows: list[dict[str, Any]], messages: list[tuple[int, Any]]) -> None:
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in messages]
    assert [row["ts_event"] for row in rows] == stamps
    assert [row["ts_recv"] for row in rows] == [log_time for log_time, _ in messages]
    assert [row["seq"] for row in rows] == list(range(len(messages)))


def test_every_camera_frame_of_the_real_drive_is_read_byte_for_byte(drive: Path, truth: Any) -> None:
    got = read(Mcap(drive).topic(CAMERA))
    assert len(got.rows) == 221
    assert not got.bad
    check_times(got.rows, truth[CAMERA])
    for row, (_, message) in zip(got.rows, truth[CAMERA], strict=True):
        assert row["data"] == message.data.tobytes()
        assert (row["frame_id"], row["topic"]) == (message.header.frame_id, CAMERA)
        assert (row["codec"], row["width"], row["height"], row["keyframe"]) == ("jpeg", 960, 540, True)


def test_every_radar_point_of_the_real_drive_is_read(drive: Path, truth: Any) -> None:
    got = read(Mcap(drive).topic(RADAR))
    assert len(got.rows) == 177
    check_times(got.rows, truth[RADAR])
    for row, (_, message) in zip(got.rows, truth[RADAR], strict=True):
        names, offsets = [f.name for f in message.fields], [f.offset for f in message.fields]
        layout = np.dtype(
            {"names": names, "formats": ["<f4"] * len(names), "offsets": offsets, "itemsize": message.point_step}
        )
        points = message.data.view(layout)
        assert row["n_points"] == len(points) == message.width
        for name in ("x", "y", "z", "vr"):
            assert [p[name] for p in row["points"]] == points[name].tolist()
        assert [p["track_id"] for p in row["points"]] == points["track_id"].astype(int).tolist()
        assert all(p[name] is None for p in row["points"] for name in ("rcs", "snr", "flags"))


def test_every_imu_sample_and_can_frame_of_the_real_drive_is_read(drive: Path, truth: Any) -> None:
    imu = read(Mcap(drive).topic("/imu"))
    assert len(imu.rows) == 922
    check_times(imu.rows, truth["/imu"])
    for row, (_, m) in zip(imu.rows, truth["/imu"], strict=True):
        acc, gyro = m.linear_acceleration, m.angular_velocity
        assert row["acc"] == [acc.x, acc.y, acc.z]
        assert row["gyro"] == [gyro.x, gyro.y, gyro.z]
    frames = 0
    for bus in (0, 1, 128, 129):
        topic = f"/can/bus{bus}"
        got = read(Mcap(drive).topic(topic))
        check_times(got.rows, truth[topic])
        frames += len(got.rows)
        for row, (_, m) in zip(got.rows, truth[topic], strict=True):
            assert (row["bus"], row["can_id"], row["ext"], row["fd"]) == (bus, m.id, m.is_extended, False)
            assert (row["len"], row["data"]) == (m.dlc, m.data.tobytes())
    assert frames == 19_977


@pytest.mark.parametrize("name", CONFORMANCE)
def test_every_conformance_file_is_read_completely(recordings: Recordings, name: str) -> None:
    path = recordings("driving/rosbag2_conformance") / "mcap" / f"{name}.mcap"
    with path.open("rb") as file:
        messages = [(c.topic, m.log_time, m.data) for _, c, m in make_reader(file).iter_messages(log_time_order=False)]
    topics = Mcap(path).topics()
    assert {topic: info.messages for topic, info in topics.items() if info.messages} == {
        topic: sum(t == topic for t, _, _ in messages) for topic in {t for t, _, _ in messages}
    }
    for topic in topics:
        got = read(Mcap(path).topic(topic))
        assert not got.bad
        assert [row["ts_recv"] for row in got.rows] == [log for t, log, _ in messages if t == topic]


def test_inspect_agrees_with_the_mcap_package(drive: Path) -> None:
    got = inspect_mcap(drive)
    with drive.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert got["messages"] == summary.statistics.message_count == 21_297
    counts = {c.topic: summary.statistics.channel_message_counts[c.id] for c in summary.channels.values()}
    assert {topic: info["messages"] for topic, info in got["topics"].items()} == counts
    assert got["topics"][CAMERA]["type"] == "sensor_msgs/msg/CompressedImage"
    assert got["topics"][CAMERA]["table"] == "cam.encoded"
    assert got["time"]["start_ns"] == summary.statistics.message_start_time
    assert got["time"]["end_ns"] == summary.statistics.message_end_time
    assert got["time"]["start"] == "2018-08-02T16:14:48.310930432Z"
    assert (got["format"], got["indexed"], got["complete"], got["problem"]) == ("mcap", True, True, None)
    json.dumps(got)


def test_the_walk_of_a_real_file_finds_what_its_summary_says(drive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    whole = drive.read_bytes()
    cut.write_bytes(whole[: -len(whole) // 400])
    got, full = inspect_mcap(cut), inspect_mcap(drive)
    assert not got["indexed"]
    counted = read(Mcap(cut).topic("/can/bus1"))
    assert len(counted.rows) == got["topics"]["/can/bus1"]["messages"] <= full["topics"]["/can/bus1"]["messages"]
    assert counted.rows == read(Mcap(drive).topic("/can/bus1")).rows[: len(counted.rows)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_of_any_shape_gives_the_same_rows(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "some.mcap"
    path.write_bytes(write_file(24, attachment=True, **SHAPES[shape]))
    frames, texts = read(Mcap(path).topic(CAN_TOPIC)), read(Mcap(path).topic(TEXT_TOPIC))
    assert not frames.bad and not texts.bad
    assert [row["can_id"] for row in frames.rows] == list(range(24))
    assert [row["data"] for row in frames.rows] == [(7 * i).to_bytes(8, "little") for i in range(24)]
    assert [row["ts_event"] for row in frames.rows] == [5_000_000_000 + i for i in range(24)]
    assert {row["bus"] for row in frames.rows} == {3}
    assert [row["data"] for row in texts.rows] == [f"message {i}" for i in range(24)]
    assert [row["ts_event"] for row in texts.rows] == [row["ts_recv"] for row in texts.rows]
    assert [row["seq"] for row in texts.rows] == list(range(24))
    described = inspect_mcap(path)
    assert described["messages"] == 48
    assert (described["time"]["start_ns"], described["time"]["end_ns"]) == (1000, 1235)


def lengthened(data: bytes) -> bytes:
    """The same file with three unknown bytes behind what a message index is known to hold, as the format allows."""
    out, moved, at = bytearray(data[:8]), {}, 8
    while at < len(data) - 8:
        op, length = struct.unpack_from("<BQ", data, at)
        body = bytearray(data[at + 9 : at + 9 + length])
        moved[at] = len(out)
        if op == 0x07:  # message index
            body += b"\1\xff\xff"
        elif op == 0x08:  # chunk index
            (size,) = struct.unpack_from("<I", body, 32)
            for place in range(36, 36 + size, 10):
                channel, index = struct.unpack_from("<HQ", body, place)
                struct.pack_into("<HQ", body, place, channel, moved[index])
            (index_length,) = struct.unpack_from("<Q", body, 36 + size)
            struct.pack_into("<Q", body, 36 + size, index_length + 3 * size // 10)
            struct.pack_into("<Q", body, 16, moved[struct.unpack_from("<Q", body, 16)[0]])
        elif op == 0x02:  # footer
            struct.pack_into("<QQI", body, 0, moved[struct.unpack_from("<Q", body)[0]], 0, 0)
        out += struct.pack("<BQ", op, len(body)) + body
        at += 9 + length
    return bytes(out + data[-8:])


@pytest.mark.parametrize("summary", [True, False])
def test_fields_that_are_not_known_yet_are_passed_over(summary: bool, tmp_path: Path) -> None:
    path = tmp_path / "newer.mcap"
    data = lengthened(write_file(24, attachment=True))
    path.write_bytes(data if summary else data[:-8])
    described = inspect_mcap(path)
    assert (described["messages"], described["indexed"]) == (48, summary)
    frames = read(Mcap(path).topic(CAN_TOPIC))
    assert [row["can_id"] for row in frames.rows] == list(range(24))
    assert not frames.bad
    assert described["problem"] is None or not summary


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> McapTopic:
    path = tmp_path_factory.mktemp("mcap") / "chunked.mcap"
    path.write_bytes(write_file(60))
    return Mcap(path).topic(CAN_TOPIC)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_blocks_decoded_in_any_order_give_the_serial_rows(chunked: McapTopic, data: st.DataObject) -> None:
    with together(0):
        serial = read(chunked)
        order = data.draw(st.permutations(range(len(serial.positions))))
        assert read(chunked, order=order).rows == serial.rows


def test_blocks_decoded_by_several_threads_at_once_give_the_serial_rows(drive: Path) -> None:
    spec = Mcap(drive).topic(CAMERA)
    reader = spec.open(Context("test"))
    with ThreadPoolExecutor(4) as workers:
        decoded = list(workers.map(reader.decode, list(reader.blocks()) * 3))
    rows = [row for d in decoded for batch in d.batches for row in plain_rows(batch)]
    reader.close()
    assert rows == read(spec).rows * 3


@pytest.mark.parametrize("nbytes", [0, 1000, 4 << 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_reading_on_from_every_position_gives_the_tail(shape: str, nbytes: int, tmp_path: Path) -> None:
    path = tmp_path / "some.mcap"
    path.write_bytes(write_file(24, **SHAPES[shape]))
    spec = Mcap(path).topic(CAN_TOPIC)
    with together(nbytes):
        whole = read(spec)
    for position in whole.positions:
        position = json.loads(json.dumps(position))
        rest = [row for row in whole.rows if row["seq"] >= position["seq"]]
        assert read(spec, position=position).rows == rest
        with together(700):
            assert read(spec, position=position).rows == rest


def test_messages_of_several_chunks_are_one_block(chunked: McapTopic) -> None:
    with together(0):
        alone = read(chunked)
    whole = read_joined(chunked)
    assert len(alone.positions) > 3
    assert len(whole.positions) == 1
    reader = chunked.open(Context("test"))
    [block] = reader.blocks()
    [batch] = reader.decode(block).batches
    reader.close()
    assert batch.num_rows == len(alone.rows)
    few = read(chunked, position=alone.positions[1])
    assert few.rows == alone.rows[alone.positions[1]["seq"] :]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40))
def test_splits_in_order_are_the_whole(chunked: McapTopic, wanted: int) -> None:
    splits = chunked.splits(wanted)
    assert 1 <= len(splits) <= wanted
    assert [split.index for split in splits] == list(range(len(splits)))
    rows = [row for split in splits for row in read(chunked, split=split).rows]
    assert rows == read(chunked).rows


def test_a_split_resumes_from_its_own_positions(chunked: McapTopic) -> None:
    for split in chunked.splits(3):
        with together(1000):
            part = read(chunked, split=split)
        for position in part.positions:
            rest = read(chunked, split=split, position=position)
            assert rest.rows == [row for row in part.rows if row["seq"] >= position["seq"]]


def test_a_position_of_another_recording_is_refused(chunked: McapTopic) -> None:
    with pytest.raises(FormatError, match="changed since the checkpoint"):
        read(chunked, position={"offset": 3, "seq": 5})


def test_two_publishers_on_one_topic_are_one_source(tmp_path: Path) -> None:
    from mcap.writer import Writer
    from mcap_files import can_message

    out = io.BytesIO()
    writer = Writer(out, chunk_size=200)
    writer.start(profile="ros2", library="test")
    kind = writer.register_schema("can_msgs/msg/Frame", "ros2msg", b"")
    channels = [writer.register_channel("/can0", "cdr", kind) for _ in range(2)]
    for i in range(20):
        writer.add_message(channels[i % 3 == 0], 1000 + i, can_message(i), 1000 + i)
    writer.finish()
    path = tmp_path / "two.mcap"
    path.write_bytes(out.getvalue())
    assert [row["can_id"] for row in read(Mcap(path).topic("/can0")).rows] == list(range(20))


def test_an_unknown_topic_is_an_error_that_lists_the_topics(chunked: McapTopic) -> None:
    with pytest.raises(FormatError, match=r"did you mean '/can/bus3'\?.*/can/bus3, /chatter"):
        Mcap(chunked.path).topic("/can/bus")


def test_topics_give_type_and_count(chunked: McapTopic) -> None:
    topics = Mcap(chunked.path).topics()
    assert {t: (i.type, i.messages) for t, i in topics.items()} == {
        CAN_TOPIC: ("can_msgs/msg/Frame", 60),
        TEXT_TOPIC: ("std_msgs/msg/String", 60),
    }


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n and more", b"{}\n"])
def test_a_file_of_another_format_is_refused_with_what_was_found(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "not.mcap"
    path.write_bytes(content)
    assert not is_mcap(content)
    for ask in (lambda: Mcap(path).topics(), lambda: Mcap(path).topic("/x"), lambda: inspect_mcap(path)):
        with pytest.raises(FormatError, match="not an MCAP file"):
            ask()


def test_a_chunk_larger_than_allowed_goes_to_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "big.mcap"
    path.write_bytes(write_file(200, chunk_size=4096))
    got = read(Mcap(path, max_chunk_bytes=3000).topic(CAN_TOPIC))
    assert got.bad and "max_chunk_bytes=3000" in got.bad[0].error
    assert len(got.rows) + len(got.bad) + got.dropped == got.records == 200


@pytest.mark.parametrize("limit", [0, -1, 2 << 30])
def test_a_limit_that_makes_no_sense_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="max_chunk_bytes"):
        Mcap("x.mcap", max_chunk_bytes=limit)


def test_the_source_pickles_and_bounds_its_blocks(chunked: McapTopic) -> None:
    again = pickle.loads(pickle.dumps(chunked))
    assert again == chunked
    assert again.name == "chunked.mcap:/can/bus3"
    assert again.lateness_ns == 100_000_000
    assert read(again).rows == read(chunked).rows
    assert chunked.block_bound >= 1 << 20


def test_what_is_copied_is_counted(drive: Path) -> None:
    context = Context("test")
    reader = Mcap(drive).topic(CAMERA).open(context)
    moved = sum(len(row["data"]) for b in reader.blocks() for x in reader.decode(b).batches for row in plain_rows(x))
    reader.close()
    assert context.metrics.bytes_copied == moved


def test_importing_the_source_loads_no_compiler_and_no_codec() -> None:
    code = (
        "import sys, penstock.sources.driving.mcap, penstock.sources.driving.cdr\n"
        "print([m for m in ('numba', 'zstandard', 'lz4', 'rosbags', 'mcap') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
