"""CDR to columns against rosbags' own serializer, in both byte orders, and against broken messages."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mcap_files import plain_rows
from penstock.pipeline.memory import BufferPool
from penstock.sources.driving.cdr import Messages, Table, bus_of, table_for
from penstock.sources.driving.rosmsg import parse_definition
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
FRAME = "can_msgs/msg/Frame"
FRAME_TEXT = (
    "std_msgs/Header header\nuint32 id\nbool is_rtr\nbool is_extended\nbool is_error\nuint8 dlc\nuint8[8] data\n"
)
STORE.register(get_types_from_msg(FRAME_TEXT, FRAME))
POOL = BufferPool()
FRAME_IDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=9)
QUICK = settings(max_examples=60, deadline=None)
STAMPS = st.tuples(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 999_999_999))


def table(type_name: str, topic: str = "/t", definition: bytes = b"", encoding: str = "cdr") -> Table:
    return table_for(topic, encoding, type_name, "ros2msg", definition, source="s", format="mcap")


def decode(what: Table, messages: list[bytes], *, gap: int = 3, first: int = 0) -> Messages:
    """The messages in one buffer, at odd places, as in a chunk."""
    data = b"".join(bytes(gap) + message for message in messages) + bytes(gap)
    lengths = np.array([len(m) for m in messages], np.int64)
    starts = np.cumsum(lengths + gap) - lengths
    times = np.arange(len(messages), dtype=np.int64) + 10**9
    out = what.decoder()(np.frombuffer(bytearray(data), np.uint8), starts, lengths, times, first, POOL)
    out.batch.validate(full=True)
    assert out.batch.schema.equals(what.schema, check_metadata=True)
    return out


def ros(type_name: str, /, **fields: Any) -> Any:
    return STORE.types[type_name](**fields)


def header(stamp: tuple[int, int], frame_id: str) -> Any:
    time = ros("builtin_interfaces/msg/Time", sec=stamp[0], nanosec=stamp[1])
    return ros("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def write(message: Any, little: bool) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__, little_endian=little))


def event_time(stamp: tuple[int, int], row: int) -> int:
    return stamp[0] * 10**9 + stamp[1] or 10**9 + row


@QUICK
@given(st.lists(st.tuples(STAMPS, FRAME_IDS, st.binary(max_size=40), st.booleans()), min_size=1, max_size=6))
def test_images_are_what_rosbags_wrote(images: list[Any]) -> None:
    messages = [
        write(
            ros(
                "sensor_msgs/msg/CompressedImage",
                header=header(stamp, frame_id),
                format="rgb8; png compressed bgr8",
                data=np.frombuffer(data, np.uint8),
            ),
            little,
        )
        for stamp, frame_id, data, little in images
    ]
    out = decode(table("sensor_msgs/msg/CompressedImage"), messages, first=7)
    assert not out.bad
    for i, (row, (stamp, frame_id, data, _)) in enumerate(zip(plain_rows(out.batch), images, strict=True)):
        assert row["ts_event"] == event_time(stamp, i)
        assert (row["ts_recv"], row["seq"]) == (10**9 + i, 7 + i)
        assert (row["frame_id"], row["data"], row["topic"]) == (frame_id, data, "/t")
        if data[:2] != b"\xff\xd8":
            assert row["codec"] == "png"
    assert out.copied == sum(len(data) for _, _, data, _ in images)


@QUICK
@given(
    st.lists(
        st.tuples(
            STAMPS, FRAME_IDS, st.lists(st.floats(width=64, allow_nan=False), min_size=6, max_size=6), st.booleans()
        ),
        min_size=1,
        max_size=5,
    )
)
def test_imu_samples_are_what_rosbags_wrote(samples: list[Any]) -> None:
    def vector(values: list[float]) -> Any:
        return ros("geometry_msgs/msg/Vector3", x=values[0], y=values[1], z=values[2])

    nine = np.arange(9.0)
    messages = [
        write(
            ros(
                "sensor_msgs/msg/Imu",
                header=header(stamp, frame_id),
                orientation=ros("geometry_msgs/msg/Quaternion", x=1.0, y=2.0, z=3.0, w=4.0),
                orientation_covariance=nine,
                angular_velocity=vector(v[:3]),
                angular_velocity_covariance=nine,
                linear_acceleration=vector(v[3:]),
                linear_acceleration_covariance=nine,
            ),
            little,
        )
        for stamp, frame_id, v, little in samples
    ]
    out = decode(table("sensor_msgs/msg/Imu"), messages)
    assert not out.bad
    for i, (row, (stamp, _, v, _)) in enumerate(zip(plain_rows(out.batch), samples, strict=True)):
        assert row["ts_event"] == event_time(stamp, i)
        assert (row["gyro"], row["acc"]) == (v[:3], v[3:])


@QUICK
@given(
    st.lists(
        st.tuples(
            STAMPS, FRAME_IDS, st.integers(0, (1 << 29) - 1), st.tuples(*[st.booleans()] * 4), st.integers(0, 15),
            st.binary(min_size=8, max_size=8),
        ),
        min_size=1,
        max_size=8,
    )
)  # fmt: skip
def test_can_frames_are_what_rosbags_wrote(frames: list[Any]) -> None:
    messages = [
        write(
            ros(
                FRAME,
                header=header(stamp, frame_id),
                id=can_id,
                is_rtr=rtr,
                is_extended=extended,
                is_error=error,
                dlc=size,
                data=np.frombuffer(data, np.uint8),
            ),
            little,
        )
        for stamp, frame_id, can_id, (rtr, extended, error, little), size, data in frames
    ]
    out = decode(table(FRAME, "/can4"), messages)
    assert not out.bad
    for row, (_, _, can_id, (rtr, extended, error, _), size, data) in zip(plain_rows(out.batch), frames, strict=True):
        assert row["can_id"] == can_id | rtr << 30 | error << 29
        assert (row["ext"], row["fd"], row["len"], row["data"]) == (extended, False, min(size, 8), data)
        assert row["bus"] == 4


@pytest.mark.parametrize(
    ("topic", "bus"),
    [("/can0", 0), ("/can/bus128", 128), ("/can3/frames", 3), ("/can", -1), ("/can999", -1), ("/from_can_bus_7", 7)],
)
def test_the_bus_is_the_number_in_the_topic(topic: str, bus: int) -> None:
    assert bus_of(topic) == bus


def test_the_bus_is_the_number_in_the_frame_id_where_the_topic_has_none() -> None:
    message = ros(
        FRAME, header=header((1, 0), "can12"), id=1, is_rtr=False, is_extended=False, is_error=False, dlc=0,
        data=np.zeros(8, np.uint8),
    )  # fmt: skip
    assert plain_rows(decode(table(FRAME, "/from_bus"), [write(message, True)]).batch)[0]["bus"] == 12


POINT_TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]
SOURCES = {
    "x": "x",
    "Y": "y",
    "z": "z",
    "doppler": "vr",
    "RCS": "rcs",
    "snr_db": "snr",
    "id": "track_id",
    "flags": "flags",
}


@st.composite
def clouds(draw: st.DrawFn) -> tuple[np.ndarray, bool, int]:
    """A structured array of any field order, types, padding and byte order, its shape 2-D, and padding between rows."""
    names = draw(st.lists(st.sampled_from([*SOURCES, "ring", "intensity"]), min_size=1, unique=True))
    assume(any(name in SOURCES for name in names))
    order = draw(st.sampled_from("<>"))
    formats, offsets, at = [], [], draw(st.integers(0, 3))
    for _ in names:
        kind = draw(st.sampled_from(POINT_TYPES))
        formats.append(order + kind)
        offsets.append(at)
        at += int(kind[1]) + draw(st.integers(0, 3))
    layout = np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": at + draw(st.integers(0, 4))}
    )
    rows, width = draw(st.integers(0, 3)), draw(st.integers(0, 5))
    raw = draw(st.binary(min_size=rows * width * layout.itemsize, max_size=rows * width * layout.itemsize))
    return np.frombuffer(raw, layout).reshape(rows, width), draw(st.booleans()), draw(st.integers(0, 7))


def cloud_message(points: np.ndarray, little: bool, row_padding: int) -> Any:
    fields = [
        ros(
            "sensor_msgs/msg/PointField",
            name=name,
            offset=offset,
            datatype=POINT_TYPES.index(kind.str[1:]) + 1,
            count=1,
        )
        for name, (kind, offset) in points.dtype.fields.items()
    ]
    rows, width = points.shape
    step = points.dtype.itemsize
    data = b"".join(points[r].tobytes() + bytes(row_padding) for r in range(rows))
    big = any(kind.str[0] == ">" for kind, _ in points.dtype.fields.values())
    cloud = ros(
        "sensor_msgs/msg/PointCloud2", header=header((3, 4), "radar"), height=rows, width=width, fields=fields,
        is_bigendian=big, point_step=step, row_step=step * width + row_padding, data=np.frombuffer(data, np.uint8),
        is_dense=True,
    )  # fmt: skip
    return write(cloud, little)


@settings(QUICK, max_examples=150)
@given(st.lists(clouds(), min_size=1, max_size=3))
def test_points_of_any_layout_are_what_numpy_reads(drawn: list[Any]) -> None:
    out = decode(table("sensor_msgs/msg/PointCloud2"), [cloud_message(*one) for one in drawn])
    assert not out.bad
    for row, (points, _, _) in zip(plain_rows(out.batch), drawn, strict=True):
        flat = points.reshape(-1)
        assert row["n_points"] == len(row["points"]) == len(flat)
        for name, column in SOURCES.items():
            got = [point[column] for point in row["points"]]
            if name not in points.dtype.names:
                assert got == [None] * len(flat)
                continue
            values = [float(v) for v in flat[name]]
            if column in ("track_id", "flags"):
                top = (1 << 32) - 1 if column == "track_id" else (1 << 16) - 1
                assert got == [int(v) if 0 <= v <= top and v == int(v) else None for v in values]
            else:
                with np.errstate(over="ignore"):
                    np.testing.assert_array_equal(np.array(got, np.float32), np.array(values).astype(np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cloud_of_many_points_in_rows_is_what_numpy_reads(order: str) -> None:
    kinds = {"x": "f4", "y": "f8", "z": "i2", "rcs": "f4", "track_id": "u4", "flags": "u1"}
    layout = np.dtype([(name, order + kind) for name, kind in kinds.items()])
    raw = np.random.Generator(np.random.Philox(4)).integers(0, 100, (2, 700, layout.itemsize), np.uint8)
    points = raw.view(layout)[..., 0]
    (row,) = plain_rows(decode(table("sensor_msgs/msg/PointCloud2"), [cloud_message(points, True, 3)]).batch)
    assert row["n_points"] == 1400
    for name in layout.names:
        got = np.array([point[name] for point in row["points"]], np.float32)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(got, points[name].reshape(-1).astype(np.float32))
    assert {point["vr"] for point in row["points"]} == {None}


def test_a_decoder_keeps_nothing_of_the_block_before() -> None:
    """Names, codecs and layouts are remembered from block to block: each block must have its own."""
    clouds, pictures = (
        table("sensor_msgs/msg/PointCloud2").decoder(),
        table("sensor_msgs/msg/CompressedImage").decoder(),
    )
    for frame_id, format, field in [("a", "jpeg", "x"), ("b", "tiff", "y"), ("a", "h264", "snr"), ("a", "jpeg", "x")]:
        points = np.full((1, 2), 3, np.dtype([(field, "<f4")]))
        cloud = cloud_message(points, True, 0)
        picture = ros(
            "sensor_msgs/msg/CompressedImage",
            header=header((1, 0), frame_id),
            format=format,
            data=np.zeros(3, np.uint8),
        )
        one = (np.zeros(1, np.int64), np.ones(1, np.int64))
        rows = []
        for decoder, message in ((clouds, cloud), (pictures, write(picture, True))):
            data = np.frombuffer(bytearray(message), np.uint8)
            rows += plain_rows(decoder(data, one[0], one[1] * len(message), one[1], 0, POOL).batch)
        assert [{k for k, v in point.items() if v == 3.0} for point in rows[0]["points"]] == [{field}] * 2
        assert (rows[1]["frame_id"], rows[1]["codec"]) == (frame_id, format)


def test_messages_of_one_block_may_differ_in_names_and_layouts() -> None:
    clouds = [cloud_message(np.full((1, 1), 2, np.dtype([(f, "<f4")])), True, 0) for f in ("x", "x", "y", "x")]
    broken = bytearray(clouds[1])
    broken[broken.index(b"radar")] = 0xFF
    out = decode(table("sensor_msgs/msg/PointCloud2"), [*clouds, bytes(broken), clouds[2]])
    assert [i for i, _ in out.bad] == [4]
    rows = plain_rows(out.batch)
    assert [row["seq"] for row in rows] == [0, 1, 2, 3, 5]
    assert [row["points"][0]["y"] for row in rows] == [None, None, 2.0, None, 2.0]
    assert [row["points"][0]["x"] for row in rows] == [2.0, 2.0, None, 2.0, None]


def test_points_that_do_not_fit_their_bytes_are_refused() -> None:
    points = np.zeros((2, 3), np.dtype([("x", "<f4"), ("y", "<f4")]))
    good = bytearray(cloud_message(points, True, 0))
    what = table("sensor_msgs/msg/PointCloud2")
    height = 4 + 8 + 4 + 8  # behind stamp and frame_id "radar"
    assert struct.unpack_from("<II", good, height) == (2, 3)
    for rows, width in [(3, 3), (2, 4), (1 << 31, 1 << 31), (0xFFFFFFFF, 1), (1, 0xFFFFFFFF)]:
        bad = bytearray(good)
        struct.pack_into("<II", bad, height, rows, width)
        out = decode(what, [bytes(good), bytes(bad)])
        assert [i for i, _ in out.bad] == [1]
        assert "do not fit" in out.bad[0][1]
        assert out.batch.num_rows == 1


def test_a_point_field_outside_the_point_is_refused() -> None:
    points = np.zeros((1, 2), np.dtype([("x", "<f4"), ("y", "<f4")]))
    message = bytearray(cloud_message(points, True, 0))
    at = message.index(b"y\0") + 4
    struct.pack_into("<I", message, at, 5)
    assert "point_step" in decode(table("sensor_msgs/msg/PointCloud2"), [bytes(message)]).bad[0][1]


def sample(type_name: str) -> bytes:
    if type_name == "sensor_msgs/msg/PointCloud2":
        return cloud_message(np.ones((1, 2), np.dtype([("x", "<f4"), ("vr", "<f4")])), True, 0)
    if type_name == "sensor_msgs/msg/CompressedImage":
        fields = {"format": "jpeg", "data": np.arange(50, dtype=np.uint8)}
    elif type_name == FRAME:
        flags = dict.fromkeys(("is_rtr", "is_extended", "is_error"), False)
        fields = {"id": 5, "dlc": 8, "data": np.arange(8, dtype=np.uint8), **flags}
    else:
        vector, nine = ros("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0), np.zeros(9)
        fields = {
            "orientation": ros("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            "angular_velocity": vector,
            "linear_acceleration": vector,
            **dict.fromkeys(
                ("orientation_covariance", "angular_velocity_covariance", "linear_acceleration_covariance"), nine
            ),
        }
    return write(ros(type_name, header=header((1, 2), "sensor"), **fields), True)


FAST = ["sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/Imu", FRAME]


@pytest.mark.parametrize("type_name", FAST)
def test_a_message_cut_or_lengthened_anywhere_is_refused_and_its_neighbours_read(type_name: str) -> None:
    good = sample(type_name)
    for wrong in [*(good[:end] for end in range(len(good))), good + bytes(8)]:
        out = decode(table(type_name), [good, wrong, good], gap=0)
        assert [i for i, _ in out.bad] == [1]
        assert [row["seq"] for row in plain_rows(out.batch)] == [0, 2]


@pytest.mark.parametrize("type_name", [*FAST, "message"])
@QUICK
@given(data=st.data())
def test_changed_bytes_are_rows_or_bad_and_never_more(type_name: str, data: st.DataObject) -> None:
    what = LOG_TABLE if type_name == "message" else table(type_name)
    message = bytearray(LOG_MESSAGE if type_name == "message" else sample(type_name))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    out = decode(what, [bytes(message)] * 2)
    assert out.batch.num_rows + len(out.bad) == 2


def test_other_encapsulations_are_refused() -> None:
    for kind in (b"\0\2", b"\0\x0a", b"\1\0"):
        out = decode(table("sensor_msgs/msg/Imu"), [kind + sample("sensor_msgs/msg/Imu")[2:]])
        assert "not plain CDR" in out.bad[0][1]


def test_a_frame_id_that_is_no_text_is_refused() -> None:
    message = bytearray(sample("sensor_msgs/msg/CompressedImage"))
    message[message.index(b"sensor")] = 0xFF
    assert "UTF-8" in decode(table("sensor_msgs/msg/CompressedImage"), [bytes(message)]).bad[0][1]


def picture(format: str, data: bytes) -> dict[str, Any]:
    message = ros(
        "sensor_msgs/msg/CompressedImage", header=header((1, 0), "c"), format=format, data=np.frombuffer(data, np.uint8)
    )
    return plain_rows(decode(table("sensor_msgs/msg/CompressedImage"), [write(message, True)]).batch)[0]


@pytest.mark.parametrize("shape", [(48, 64), (17, 33), (480, 640)])
def test_the_size_of_a_picture_is_what_its_head_says(shape: tuple[int, int]) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    image = np.zeros((*shape, 3), np.uint8)
    jpeg = picture("bgr8; jpeg compressed bgr8", simplejpeg.encode_jpeg(image))
    assert (jpeg["codec"], jpeg["width"], jpeg["height"], jpeg["keyframe"]) == ("jpeg", shape[1], shape[0], True)
    cv2 = pytest.importorskip("cv2")
    png = picture("", cv2.imencode(".png", image)[1].tobytes())
    assert (png["codec"], png["width"], png["height"]) == ("png", shape[1], shape[0])


@pytest.mark.parametrize(
    ("format", "nal", "codec", "key"),
    [
        ("h264", [0x67, 0x68, 0x65], "h264", True),
        ("h264", [0x67, 0x41], "h264", False),
        ("hevc", [0x40, 0x26], "h265", True),
        ("h265", [0x02], "h265", False),
        ("tiff", [0x02], "tiff", True),
    ],
)
def test_key_frames_of_video_are_told_from_their_first_slice(
    format: str, nal: list[int], codec: str, key: bool
) -> None:
    stream = b"".join(b"\0\0\0\1" + bytes([kind]) + b"\x11\x22" for kind in nal)
    row = picture(format, stream)
    assert (row["codec"], row["keyframe"], row["width"], row["height"]) == (codec, key, None, None)


LOG_TEXT = """std_msgs/Header header
string[] names
float64[3] fixed
Inner[] inner
Inner[2] pair
bool flag
uint8[] blob
int16 seq
================================================================================
MSG: test_msgs/Inner
int8 small
float64 wide
string[2] words
bool[] flags
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
LOG_TYPE = "test_msgs/msg/Log"
STORE.register({k: v for k, v in get_types_from_msg(LOG_TEXT, LOG_TYPE).items() if k.startswith("test_msgs")})
LOG_TABLE = table(LOG_TYPE, definition=LOG_TEXT.encode())
WORDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6)
INNER = st.fixed_dictionaries(
    {
        "small": st.integers(-128, 127),
        "wide": st.floats(allow_nan=False),
        "words": st.lists(WORDS, min_size=2, max_size=2),
        "flags": st.lists(st.booleans(), max_size=4),
    }
)
LOGS = st.fixed_dictionaries(
    {
        "stamp": STAMPS,
        "frame_id": WORDS,
        "names": st.lists(WORDS, max_size=4),
        "fixed": st.lists(st.floats(allow_nan=False), min_size=3, max_size=3),
        "inner": st.lists(INNER, max_size=3),
        "pair": st.lists(INNER, min_size=2, max_size=2),
        "flag": st.booleans(),
        "blob": st.binary(max_size=9),
        "seq": st.integers(-(1 << 15), (1 << 15) - 1),
        "little": st.booleans(),
    }
)


def log_message(log: dict[str, Any]) -> bytes:
    def inner(value: dict[str, Any]) -> Any:
        return ros("test_msgs/msg/Inner", **(value | {"flags": np.array(value["flags"], np.bool_)}))

    message = ros(
        LOG_TYPE, header=header(log["stamp"], log["frame_id"]), names=log["names"], fixed=np.array(log["fixed"]),
        inner=[inner(value) for value in log["inner"]], pair=[inner(value) for value in log["pair"]],
        flag=log["flag"], blob=np.frombuffer(log["blob"], np.uint8), seq=log["seq"],
    )  # fmt: skip
    return write(message, log["little"])


LOG_MESSAGE = log_message(
    {
        "stamp": (1, 2), "frame_id": "f", "names": ["a", "bc"], "fixed": [1.0, 2.0, 3.0], "flag": True,
        "inner": [{"small": 1, "wide": 2.0, "words": ["x", "yz"], "flags": [True, False]}],
        "pair": [{"small": 1, "wide": 2.0, "words": ["x", "yz"], "flags": []}] * 2,
        "blob": b"123", "seq": 5, "little": True,
    }
)  # fmt: skip


@QUICK
@given(st.lists(LOGS, min_size=1, max_size=4))
def test_a_type_known_by_its_definition_alone_is_what_rosbags_wrote(logs: list[dict[str, Any]]) -> None:
    out = decode(LOG_TABLE, [log_message(log) for log in logs])
    assert not out.bad
    for i, (row, log) in enumerate(zip(plain_rows(out.batch), logs, strict=True)):
        assert row["ts_event"] == event_time(log["stamp"], i)
        assert row["seq"] == i
        assert row["seq_"] == log["seq"]
        assert row["header"] == {
            "stamp": {"sec": log["stamp"][0], "nanosec": log["stamp"][1]},
            "frame_id": log["frame_id"],
        }
        for name in ("names", "fixed", "inner", "pair", "flag"):
            assert row[name] == log[name]
        assert row["blob"] == list(log["blob"])


@pytest.mark.parametrize(("name", "counts"), [("timestamp", True), ("stamp", True), ("received", False)])
def test_a_time_in_front_is_the_event_time_where_its_name_says_so(name: str, counts: bool) -> None:
    kind = f"test_msgs/msg/Video{name.title()}"
    text = f"builtin_interfaces/Time {name}\nstring frame_id\nuint8[] data\nstring format\n"
    STORE.register({k: v for k, v in get_types_from_msg(text, kind).items() if k == kind})
    fields = {"frame_id": "cam", "data": np.frombuffer(b"12", np.uint8), "format": "h264"}
    times = [(7, 8), (0, 0), (-3, 999_999_999)]
    messages = [
        write(ros(kind, **{name: ros("builtin_interfaces/msg/Time", sec=sec, nanosec=rest)}, **fields), True)
        for sec, rest in times
    ]
    rows = plain_rows(decode(table(kind, definition=text.encode()), messages).batch)
    assert [row["ts_event"] for row in rows] == [
        event_time(time, i) if counts else 10**9 + i for i, time in enumerate(times)
    ]
    assert [row[name] for row in rows] == [{"sec": sec, "nanosec": rest} for sec, rest in times]


def test_a_known_type_with_another_definition_takes_the_general_path() -> None:
    changed = table(FRAME, definition=b"std_msgs/Header header\nuint32 id\nuint8[64] data\n" + HEADER_TEXT)
    assert changed.kind == "message"
    assert changed.schema.field("data").type == pa.list_(pa.uint8(), 64)
    assert table(FRAME, definition=FRAME_TEXT.encode() + HEADER_TEXT).kind == "can.frame"


HEADER_TEXT = LOG_TEXT[LOG_TEXT.index("=" * 80 + "\nMSG: std_msgs/Header") :].encode()


@pytest.mark.parametrize(
    "text",
    [
        "wstring text\n",
        "int64 a\n---\nint64 b\n",
        "Self again\n" + "=" * 80 + "\nMSG: a/Self\nSelf again\n",
        "uint8[99999999999] x\n",
        "int32[0] x\n",
        "not a definition at all",
        "int32 x\nint32 x\n",
        "\xff\xfe",
        "int32 x\n" * 60_000,
    ],
)
def test_a_definition_that_describes_nothing_leaves_the_bytes(text: str) -> None:
    raw = table("a/msg/B", definition=text.encode("latin-1"))
    assert raw.kind == "raw"
    assert [row["data"] for row in plain_rows(decode(raw, [b"\0\1\0\0abc", b""]).batch)] == [b"\0\1\0\0abc", b""]


def test_a_definition_that_multiplies_is_refused() -> None:
    deep = "".join(
        f"{'=' * 80 + chr(10) + f'MSG: a/T{i}' + chr(10) if i else ''}" + "".join(f"T{i + 1} f{j}\n" for j in range(9))
        for i in range(12)
    )
    deep += "=" * 80 + "\nMSG: a/T12\nint8 x\n"
    assert parse_definition("a/msg/T0", "ros2msg", deep.encode()) is None


def test_code_in_a_definition_is_not_run(tmp_path: Any) -> None:
    proof = tmp_path / "ran"
    name = f"a/msg/B: pass\n__import__('pathlib').Path({str(proof)!r}).touch()\nclass C"
    decode(table(name, definition=b"int32 x\n"), [b"\0\1\0\0\1\0\0\0"])
    assert not proof.exists()


def test_other_encodings_stay_bytes() -> None:
    assert table("foxglove.PointCloud", encoding="protobuf", definition=b"\x01").kind == "raw"


def test_messages_beyond_what_a_calendar_holds_are_refused() -> None:
    out = table("x/msg/Y", encoding="json").decoder()(
        np.zeros(9, np.uint8), np.array([0]), np.array([3]), np.array([-5]), 0, POOL
    )
    assert re.search("2262", out.bad[0][1])
