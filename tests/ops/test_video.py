"""Video in rows against a plain decode of the file by PyAV: every frame, pixel for pixel, with the times of its row."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

av = pytest.importorskip("av")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mcap.writer import Writer  # noqa: E402
from operator_harness import Result, assert_boundaries_do_not_matter, assert_restorable, run_operator  # noqa: E402
from penstock.ops._video_units import content_of, guessed_codec  # noqa: E402
from penstock.ops.video import DecodeVideo  # noqa: E402
from penstock.pipeline._nal import numbering_of, slice_of  # noqa: E402
from penstock.pipeline.context import Context  # noqa: E402
from penstock.pipeline.errors import GraphError, StateLimitError  # noqa: E402
from penstock.pipeline.operator import END_OF_TIME, NO_TIME  # noqa: E402
from penstock.pipeline.schema import difference  # noqa: E402
from penstock.pipeline.source import SourceSpec  # noqa: E402
from penstock.sources.driving.mcap import Mcap  # noqa: E402
from penstock.sources.driving.video import Video  # noqa: E402
from video_files import KINDS, SIZE, picture, plain, plain_decode, read_video, write_video  # noqa: E402

#: A reference picture in the middle of each file's second group, with all that follows hanging on it.
FRAMES, GOP = 24, 8


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("video")
    return {kind: write_video(folder / f"front.{kind}", kind, frames=FRAMES, gop=GOP) for kind in KINDS}


def rows_of(spec: SourceSpec) -> pa.RecordBatch:
    """All rows of a source as one batch."""
    reader = spec.open(Context("read"))
    try:
        batches = [batch for block in reader.blocks() for batch in reader.decode(block).batches]
    finally:
        reader.close()
    (whole,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return whole


def without(batch: pa.RecordBatch, *rows: int) -> pa.RecordBatch:
    return batch.take(pa.array([i for i in range(batch.num_rows) if i not in rows]))


def frames_of(result: Result) -> list[dict[str, Any]]:
    return [row for batch in result.batches for row in plain(batch)]


def decode(**options: Any) -> DecodeVideo:
    return DecodeVideo(*SIZE, **options)


def accounted(batch: pa.RecordBatch, result: Result) -> bool:
    return batch.num_rows == result.rows.num_rows + len(result.bad) + sum(result.dropped.values())


def encoded(codec: str, params: str, *, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> pa.RecordBatch:
    """Units of a generated stream as rows, in the order of decoding, with the time of their picture."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = size
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
    context.options = {f"{codec[3:]}-params": params, "preset": "veryfast"}
    units = []
    for number in range(frames):
        frame = av.VideoFrame.from_ndarray(picture(number, size), "rgb24").reformat(format="yuv420p")
        frame.pts = number
        units += [(packet.pts, bytes(packet)) for packet in context.encode(frame)]
    units += [(packet.pts, bytes(packet)) for packet in context.encode(None)]
    times = pa.array([pts * 40_000_000 for pts, _ in units]).cast(pa.timestamp("ns", "UTC"))
    columns = {
        "ts_event": times,
        "ts_recv": times,
        "seq": pa.array(range(len(units)), pa.uint64()),
        "format": pa.array([{"libx264": "h264", "libx265": "hevc"}[codec]] * len(units)),
        "data": pa.array([data for _, data in units], pa.large_binary()),
    }
    return pa.record_batch(columns)


def test_the_real_dash_camera_gives_what_its_file_gives(recordings: Callable[[str], Path]) -> None:
    path = recordings("driving/dashcam_h264") / "solidWhiteRight.mp4"
    got = run_operator(DecodeVideo(540, 960), rows_of(Video(path)))
    assert not got.bad
    assert not got.dropped
    assert got.rows.num_rows == 221
    frames = (row for batch in got.batches for row in plain(batch))
    with av.open(str(path)) as container:
        for row, frame in zip(frames, container.decode(video=0), strict=True):
            assert row["pts"] == frame.pts
            assert row["ts_event"] == 1_472_418_968 * 10**9 + frame.pts * 40_000_000
            assert np.array_equal(row["image"], frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_codec_give_the_frames_that_the_file_gives(files: dict[str, Path], kind: str) -> None:
    rows = rows_of(Video(files[kind]))
    got = run_operator(decode(), rows, sizes=7)
    frames = frames_of(got)
    wanted = read_video(Video(files[kind], table="frame")).rows
    times = dict(zip(rows.column("seq").to_pylist(), (value.value for value in rows.column("ts_event")), strict=True))
    assert {row["seq"]: row["ts_event"] for row in frames} == times
    named = ["topic", "frame_id", "pts"] + ([] if kind in ("h264", "hevc") else ["ts_event", "ts_recv"])
    for row, other in zip(frames, wanted, strict=True):  # packets of a bare stream have no times to be shown at
        assert np.array_equal(row["image"], other["image"])
        assert all(row[name] == other[name] for name in named)
    for (_, image), row in zip(plain_decode(files[kind]), frames, strict=True):
        assert np.array_equal(row["image"], image)
    assert difference(decode().output_schema(rows.schema), got.rows.schema) is None


@pytest.mark.parametrize("kind", ["mp4", "hevc.mp4", "avi"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_frames_do_not_depend_on_batches_watermarks_or_a_restart(
    files: dict[str, Path], kind: str, data: st.DataObject
) -> None:
    assert_boundaries_do_not_matter(decode(), rows_of(Video(files[kind])), data=data)


@pytest.mark.parametrize("kind", ["mp4", "hevc", "mjpeg"])
def test_a_resumed_run_gives_no_frame_twice_also_behind_damage(files: dict[str, Path], kind: str) -> None:
    rows = without(rows_of(Video(files[kind])), 0, 12)
    undisturbed = assert_restorable(decode(), rows, sizes=1)
    assert accounted(rows, undisturbed)


def test_state_begins_at_the_last_key_frame(files: dict[str, Path]) -> None:
    for kind in ("mp4", "hevc.mp4"):
        rows = rows_of(Video(files[kind]))
        operator = decode().open(Context("test"), rows.schema)
        sizes = []
        for start in range(rows.num_rows):
            operator.process(rows.slice(start, 1))
            (stream,) = operator.snapshot()["streams"]
            sizes.append(len(stream["kept"]))
        operator.close()
        assert sizes[-1] <= GOP + 4
        assert max(sizes) <= GOP + 8  # an open group begins when its key frame has been shown


def test_streams_are_told_apart_and_leave_in_the_order_of_rows(files: dict[str, Path]) -> None:
    specs = [Video(files[kind], topic=kind) for kind in ("mp4", "hevc.mp4", "mjpeg")]
    tables = [pa.Table.from_batches([rows_of(spec)]) for spec in specs]
    both = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries().combine_chunks()
    order = np.argsort(np.concatenate([np.arange(FRAMES) + 0.1 * i for i in range(3)]), kind="stable")
    (mixed,) = both.take(pa.array(order)).combine_chunks().to_batches()
    got = assert_restorable(decode(), mixed, sizes=5)
    assert got.rows.num_rows == 3 * FRAMES
    frames = frames_of(got)
    for spec, kind in zip(specs, ("mp4", "hevc.mp4", "mjpeg"), strict=True):
        mine = [row for row in frames if row["topic"] == kind]
        for row, other in zip(mine, read_video(Video(spec.path, table="frame")).rows, strict=True):
            assert np.array_equal(row["image"], other["image"])
    parallel = run_operator(decode(), mixed, sizes=9, parallelism=3)
    assert parallel.digest == got.digest
    with pytest.raises(StateLimitError, match="max_streams=2"):
        run_operator(decode(max_streams=2), mixed)


def test_the_watermark_waits_for_frames_that_the_decoder_holds(files: dict[str, Path]) -> None:
    rows = rows_of(Video(files["mp4"]))
    operator = decode().open(Context("test"), rows.schema)
    assert operator.watermark() == NO_TIME
    given: set[int] = set()
    for start in range(rows.num_rows):
        given |= {row["ts_event"] for batch in operator.process(rows.slice(start, 1)) for row in plain(batch)}
        operator.advance(END_OF_TIME - 1)
        seen = {rows.column("ts_event")[i].value for i in range(start + 1)}
        assert operator.watermark() == min([*(seen - given), END_OF_TIME - 1])
    operator.advance(END_OF_TIME)
    assert operator.watermark() == END_OF_TIME


@pytest.mark.parametrize("kind", ["mp4", "hevc.mp4"])
@pytest.mark.parametrize("missing", [0, 3, 9, 10, 12, 15])
def test_a_missing_row_costs_what_hangs_on_it_and_no_frame_is_painted_over(
    files: dict[str, Path], kind: str, missing: int
) -> None:
    rows = without(rows_of(Video(files[kind])), missing)
    got = run_operator(decode(), rows)
    wanted = {row["ts_event"]: row for row in read_video(Video(files[kind], table="frame")).rows}
    assert accounted(rows, got)
    assert got.rows.num_rows >= FRAMES - GOP - 4
    frames = frames_of(got)
    assert all(np.array_equal(row["image"], wanted[row["ts_event"]]["image"]) for row in frames)
    times = [row["ts_event"] for row in frames]
    assert times == sorted(times)


def test_a_stream_that_begins_in_a_group_waits_for_its_first_key_frame(files: dict[str, Path]) -> None:
    rows = rows_of(Video(files["mp4"])).slice(3)
    got = run_operator(decode(), rows)
    first = rows.column("keyframe").to_pylist().index(True)
    assert got.dropped == {"units in front of the first key frame": first}
    assert got.rows.num_rows == rows.num_rows - first


def damaged(rows: pa.RecordBatch, number: int) -> pa.RecordBatch:
    data = rows.column("data").to_pylist()
    data[number] = data[number][:12] + bytes(byte ^ 0x5A for byte in data[number][12:])
    return rows.set_column(
        rows.schema.get_field_index("data"), rows.schema.field("data"), pa.array(data, pa.large_binary())
    )


@pytest.mark.parametrize("kind", ["mp4", "hevc.mp4", "mjpeg"])
def test_a_damaged_unit_is_put_aside_with_its_place(files: dict[str, Path], kind: str) -> None:
    rows = damaged(rows_of(Video(files[kind])), 13)
    got = assert_restorable(decode(), rows, sizes=5)
    assert accounted(rows, got)
    assert [record.seq for record in got.bad] == [13]
    assert got.bad[0].place == f"front.{kind}, topic front.{kind}, seq 13"
    assert got.bad[0].operation == "video.decode"
    assert got.bad[0].data == rows.column("data")[13].as_py()
    wanted = {row["ts_event"]: row for row in read_video(Video(files[kind], table="frame")).rows}
    frames = frames_of(got)
    assert all(np.array_equal(row["image"], wanted[row["ts_event"]]["image"]) for row in frames)
    assert frames[-1]["ts_event"] == max(wanted)
    if kind != "mjpeg":
        assert {"units between a damaged one and the next key frame"} <= got.dropped.keys()


def test_a_jpeg_that_was_put_aside_can_be_tried_again(files: dict[str, Path]) -> None:
    rows = rows_of(Video(files["mjpeg"]))
    (bad,) = run_operator(decode(), damaged(rows, 5)).bad
    mended = type(bad)(bad.place, bad.operation, bad.error, rows.column("data")[5].as_py(), bad.seq)
    row = decode().retry_row(mended, rows.schema)
    assert row is not None
    operator = decode().open(Context("again"), rows.schema)
    (batch,) = operator.process(row)
    assert np.array_equal(plain(run_operator(decode(), rows).batches[0])[5]["image"], plain(batch)[0]["image"])
    assert batch.column("seq").to_pylist() == [5]


@pytest.mark.parametrize(
    ("wrong", "why"), [(b"", "0 bytes"), (None, "null"), (b"\1\2\3\4\5\6", "start code"), (b"\0\0\1", "start code")]
)
def test_what_is_no_unit_is_put_aside(files: dict[str, Path], wrong: bytes | None, why: str) -> None:
    rows = rows_of(Video(files["mp4"]))
    data = rows.column("data").to_pylist()
    data[4] = wrong
    rows = rows.set_column(rows.schema.get_field_index("data"), "data", pa.array(data, pa.large_binary()))
    got = run_operator(decode(), rows)
    assert [why in record.error for record in got.bad] == [True]
    assert accounted(rows, got)


def test_another_codec_is_named() -> None:
    rows = encoded("libx264", "keyint=8", frames=2).set_column(3, "format", pa.array(["vp9", "vp9"]))
    got = run_operator(decode(), rows)
    assert ["vp9" in record.error for record in got.bad] == [True, True]


def test_the_first_bytes_tell_the_codec_where_no_column_does(files: dict[str, Path]) -> None:
    for kind in ("mp4", "hevc", "mjpeg"):
        rows = rows_of(Video(files[kind]))
        named = run_operator(decode(), rows)
        told = run_operator(decode(), rows.drop_columns(["codec"]))
        assert told.rows.drop_columns(["codec"] if "codec" in told.rows.column_names else []).equals(
            named.rows.drop_columns(["codec"])
        )
    assert guessed_codec(b"RIFF") is None


def test_parameter_sets_in_rows_of_their_own_serve_the_key_frames_behind() -> None:
    rows = encoded("libx264", "keyint=8:scenecut=0:bframes=0:annexb=1:repeat-headers=1")
    split: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        content = content_of(row["data"], "h264")
        if content.sets:
            if not split:
                split.append({**row, "data": content.sets})
            row["data"] = row["data"].replace(content.sets, b"").replace(content.sets[1:], b"")
        split.append(row)
    assert not any(content_of(row["data"], "h264").sets for row in split[1:])
    apart = pa.RecordBatch.from_pylist(split, schema=rows.schema)
    got = run_operator(decode(), apart, sizes=1, snapshot=True)
    assert got.dropped == {"units of parameters without a picture": 1}
    assert got.rows.column("image").equals(run_operator(decode(), rows).rows.column("image"))


def test_a_stream_without_parameter_sets_says_so() -> None:
    rows = encoded("libx264", "keyint=8:scenecut=0:bframes=0:annexb=1:repeat-headers=0")
    data = [unit.replace(content_of(unit, "h264").sets, b"") for unit in rows.column("data").to_pylist()]
    rows = rows.set_column(rows.schema.get_field_index("data"), "data", pa.array(data, pa.large_binary()))
    got = run_operator(decode(), rows)
    assert accounted(rows, got)
    assert {record.error.partition(" (")[0] for record in got.bad} == {"a key frame without parameter sets"}


@pytest.mark.parametrize(
    ("codec", "params"),
    [
        ("libx265", "keyint=12:bframes=4:b-pyramid=1:open-gop=1:log-level=none:pools=none:repeat-headers=1"),
        ("libx264", "keyint=16:bframes=8:b-pyramid=normal:b-adapt=2:ref=6:annexb=1:repeat-headers=1"),
        ("libx264", "keyint=12:interlaced=1:bframes=2:annexb=1:repeat-headers=1"),
        ("libx264", "keyint=12:slices=4:bframes=2:annexb=1:repeat-headers=1"),
        ("libx264", "keyint=250:intra-refresh=1:bframes=0:annexb=1:repeat-headers=1"),
    ],
)
def test_streams_of_many_kinds_equal_a_plain_decode(codec: str, params: str) -> None:
    rows = encoded(codec, params, frames=40)
    got = assert_restorable(decode(), rows, sizes=7)
    bare = io.BytesIO(b"".join(rows.column("data").to_pylist()))
    wanted = plain_decode(bare, format="h264" if codec == "libx264" else "hevc")
    frames = frames_of(got)
    assert [row["ts_event"] for row in frames] == [number * 40_000_000 for number in range(40)]
    for row, (_, image) in zip(frames, wanted, strict=True):
        assert np.array_equal(row["image"], image)
    late = run_operator(decode(), rows.slice(9), sizes=7)
    assert accounted(rows.slice(9), late)
    by_time = {row["ts_event"]: row["image"] for row in frames}
    assert all(np.array_equal(row["image"], by_time[row["ts_event"]]) for row in frames_of(late))


def test_open_groups_of_h264_are_begun_anew_where_state_would_grow() -> None:
    rows = encoded("libx264", "keyint=8:open-gop=1:scenecut=0:bframes=2:b-adapt=0:annexb=1:repeat-headers=1", frames=48)
    entries = [content_of(data, "h264").entry for data in rows.column("data").to_pylist()]
    assert entries.count("closed") == 1
    assert entries.count("open") > 3
    whole = run_operator(decode(), rows)
    assert whole.rows.num_rows == 48
    wanted = {row["ts_event"]: row["image"] for row in frames_of(whole)}
    size = sum(len(data) for data in rows.column("data").to_pylist())
    small = assert_restorable(decode(stream_limit=size * 3 // 4), rows, sizes=7)
    assert set(small.dropped) == {"units that lead a key frame at which decoding began"}
    assert accounted(rows, small)
    assert all(np.array_equal(row["image"], wanted[row["ts_event"]]) for row in frames_of(small))
    with pytest.raises(StateLimitError, match=f"stream_limit={size // 9}"):
        run_operator(decode(stream_limit=size // 9), rows)
    late = run_operator(decode(), rows.slice(2))
    assert accounted(rows.slice(2), late)
    assert late.rows.num_rows > 36
    assert all(np.array_equal(row["image"], wanted[row["ts_event"]]) for row in frames_of(late))


def ros_video(rows: pa.RecordBatch, path: Path, schema: str) -> Mcap:
    """Rows as ROS 2 messages: sensor_msgs/CompressedImage (format in front of the data) or foxglove's CompressedVideo."""

    def text(value: bytes, at: int) -> bytes:
        value += b"\0"
        return struct.pack("<I", len(value)) + value + bytes(-(at + 4 + len(value)) % 4)

    foxglove = schema.startswith("foxglove")
    definition = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n" if foxglove else ""
    out = io.BytesIO()
    writer = Writer(out, chunk_size=4096)
    writer.start(profile="ros2", library="test")
    kind = writer.register_schema(schema, "ros2msg", definition.encode())
    channel = writer.register_channel("/front", "cdr", kind)
    for row in range(rows.num_rows):
        time, data = rows.column("ts_event")[row].value + 10**9, rows.column("data")[row].as_py()
        name = rows.column("format")[row].as_py().encode()
        head = struct.pack("<II", time // 10**9, time % 10**9) + text(b"cam", 8)
        body = head + (b"" if foxglove else text(name, len(head))) + struct.pack("<I", len(data)) + data
        if foxglove:
            body += bytes(-len(body) % 4) + struct.pack("<I", len(name) + 1) + name + b"\0"
        writer.add_message(channel, time + 5, b"\0\1\0\0" + body, time, row)
    writer.finish()
    path.write_bytes(out.getvalue())
    return Mcap(path)


@pytest.mark.parametrize("schema", ["foxglove_msgs/msg/CompressedVideo", "sensor_msgs/msg/CompressedImage"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_video_in_messages_gives_frames_with_the_times_of_the_messages(tmp_path: Path, schema: str, codec: str) -> None:
    quiet = "keyint=8:bframes=0:repeat-headers=1:annexb=1" + (
        ":log-level=none:pools=none" if codec == "libx265" else ""
    )
    rows = encoded(codec, quiet, frames=12)
    messages = rows_of(ros_video(rows, tmp_path / "a.mcap", schema).topic("/front"))
    got = run_operator(decode(), messages, sizes=5)
    bare = io.BytesIO(b"".join(rows.column("data").to_pylist()))
    wanted = plain_decode(bare, format={"libx264": "h264", "libx265": "hevc"}[codec])
    frames = frames_of(got)
    assert len(frames) == 12
    for number, (row, (_, image)) in enumerate(zip(frames, wanted, strict=True)):
        assert np.array_equal(row["image"], image)
        assert row["ts_recv"] == number * 40_000_000 + 10**9 + 5
        assert row["ts_event"] == messages.column("ts_event")[number].value
        assert row["frame_id"] == "cam"


def test_protobuf_messages_of_foxglove_give_frames_with_their_own_time(tmp_path: Path) -> None:
    from google.protobuf import descriptor_pb2, message_factory, timestamp_pb2

    file = descriptor_pb2.FileDescriptorProto(name="v.proto", package="foxglove", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    kind, video = descriptor_pb2.FieldDescriptorProto, file.message_type.add(name="CompressedVideo")
    video.field.add(name="timestamp", number=1, type=kind.TYPE_MESSAGE, label=1, type_name=".google.protobuf.Timestamp")
    for number, (name, type_) in enumerate(
        [("frame_id", kind.TYPE_STRING), ("data", kind.TYPE_BYTES), ("format", kind.TYPE_STRING)], 2
    ):
        video.field.add(name=name, number=number, type=type_, label=1)
    files = descriptor_pb2.FileDescriptorSet(file=[file])
    timestamp_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    make = message_factory.GetMessages(list(reversed(files.file)))["foxglove.CompressedVideo"]
    rows = encoded("libx264", "keyint=8:bframes=0:repeat-headers=1:annexb=1", frames=12)
    out = io.BytesIO()
    writer = Writer(out)
    writer.start(profile="", library="test")
    schema = writer.register_schema("foxglove.CompressedVideo", "protobuf", files.SerializeToString())
    channel = writer.register_channel("/front", "protobuf", schema)
    for number, data in enumerate(rows.column("data").to_pylist()):
        message = make(frame_id="cam", data=data, format="h264")
        message.timestamp.seconds, message.timestamp.nanos = 100 + number, 7
        writer.add_message(channel, 10**12 + number, message.SerializeToString(), 10**12 + number, number)
    writer.finish()
    (tmp_path / "a.mcap").write_bytes(out.getvalue())
    got = run_operator(decode(), rows_of(Mcap(tmp_path / "a.mcap").topic("/front")), sizes=5)
    assert [row["ts_event"] for row in frames_of(got)] == [(100 + number) * 10**9 + 7 for number in range(12)]
    assert got.rows.column("image").equals(run_operator(decode(), rows).rows.column("image"))


def test_frames_are_scaled_normalised_and_laid_out_as_asked(files: dict[str, Path]) -> None:
    rows = rows_of(Video(files["mp4"]))
    with av.open(str(files["mp4"])) as container:
        wanted = [frame.reformat(30, 20, "rgb24").to_ndarray() for frame in container.decode(video=0)]

    def images(**options: Any) -> np.ndarray:
        column = run_operator(DecodeVideo(20, 30, **options), rows).rows.column("image")
        return column.combine_chunks().to_numpy_ndarray()

    plain_pixels = images()
    assert np.array_equal(plain_pixels, np.stack(wanted))
    assert np.array_equal(images(layout="chw"), plain_pixels.transpose(0, 3, 1, 2))
    mean, std = (0.5, 0.25, 0.1), (0.5, 0.2, 2.0)
    exact = (plain_pixels / 255 - mean) / std
    assert np.allclose(images(dtype="float32", mean=mean, std=std), exact, atol=1e-5)
    planar = images(dtype="float32", layout="chw", mean=mean, std=std)
    assert np.allclose(planar, exact.transpose(0, 3, 1, 2), atol=1e-5)


def test_encoded_rows_are_kept_where_asked(files: dict[str, Path]) -> None:
    rows = rows_of(Video(files["mp4"]))
    got = run_operator(decode(drop_encoded=False), rows, sizes=3)
    by_seq = dict(zip(rows.column("seq").to_pylist(), rows.column("data").to_pylist(), strict=True))
    assert [by_seq[row["seq"]] for row in frames_of(got)] == got.rows.column("data").to_pylist()


def test_pictures_beyond_the_limit_are_refused(files: dict[str, Path]) -> None:
    for kind in ("mp4", "hevc.mp4", "mjpeg"):
        rows = rows_of(Video(files[kind]))
        got = run_operator(decode(max_pixels=SIZE[0] * SIZE[1] - 1), rows)
        assert got.rows.num_rows == 0
        assert got.bad
        assert accounted(rows, got)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"column": "picture"}, "no column 'picture'"),
        ({"column": "seq"}, "does not hold encoded video"),
        ({"codec": "width"}, "does not hold codec names"),
        ({"key": "camera"}, "tells streams apart"),
        ({"output": "width"}, "already a column"),
        ({"dtype": "int8"}, "dtype is not known"),
        ({"mean": (0, 0, 0)}, "float32"),
        ({"dtype": "float32", "std": (1, 0, 1)}, "above 0"),
        ({"max_streams": 0}, "positive"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_graph_is_built(
    files: dict[str, Path], options: dict[str, Any], what: str
) -> None:
    with pytest.raises(GraphError, match=what):
        decode(**options).output_schema(Video(files["mp4"]).schema)


def test_a_spec_pickles() -> None:
    spec = decode(dtype="float32", mean=[0, 0, 0])
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_pictures_are_numbered_as_their_parameter_sets_say(files: dict[str, Path]) -> None:
    data = rows_of(Video(files["mp4"])).column("data").to_pylist()
    contents = [content_of(unit, "h264") for unit in data]
    numbering = numbering_of(contents[0].sets)
    assert numbering is not None
    heads = [slice_of(content.slice, numbering) for content in contents]
    before = 0
    for head in heads:
        assert head is not None
        assert head.number in ((0,) if head.idr else (before, before + 1))
        before = head.number if head.reference else before
    assert slice_of(contents[0].slice[:2], numbering) is None
    assert numbering_of(b"") is None
    assert numbering_of(contents[0].sets[:9]) is None
