"""MCAP payloads other than ROS 2's CDR: JSON, protobuf, ROS 1, OMG IDL, and bytes that nothing describes; raw iteration."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bag_oracle import bag1_messages, imu, same, write_bag1
from google.protobuf import descriptor_pb2, duration_pb2, timestamp_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer
from mcap_files import SHAPES, read, write_file
from penstock.sources.driving.mcap import Mcap, McapTopic, inspect_mcap, open_mcap
from penstock.sources.driving.rosbag1 import Rosbag1
from rosbags.typesys import Stores, get_typestore

TIMESTAMP = pa.timestamp("ns", tz="UTC")


def write(
    path: Path, encoding: str, name: str, notation: str, definition: bytes, payloads: Sequence[bytes]
) -> McapTopic:
    out = io.BytesIO()
    writer = Writer(out, chunk_size=200)
    writer.start(profile="", library="test")
    kind = writer.register_schema(name, notation, definition)
    channel = writer.register_channel("/t", encoding, kind)
    for i, payload in enumerate(payloads):
        writer.add_message(channel, 1000 + i, payload, 1000 + i, i)
    writer.finish()
    path.write_bytes(out.getvalue())
    return Mcap(path).topic("/t")


JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "timestamp": {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}},
        "speed": {"type": "number"},
        "gear": {"type": ["integer", "null"]},
        "name": {"type": "string"},
        "on": {"type": "boolean"},
        "seq": {"type": "integer"},
        "wheels": {"type": "array"},
    },
}


def test_json_is_its_text_and_a_column_for_each_scalar(tmp_path: Path) -> None:
    values: list[Any] = [
        {"timestamp": {"sec": 5, "nsec": 7}, "speed": 1.5, "gear": 3, "name": "ä", "on": True, "seq": 9, "wheels": [1]},
        {"speed": 2, "gear": None, "other": {"deep": [1, 2]}},
    ]
    payloads = [json.dumps(v, ensure_ascii=False).encode() for v in values]
    spec = write(tmp_path / "a", "json", "Car", "jsonschema", json.dumps(JSON_SCHEMA).encode(), payloads)
    got = read(spec)
    assert spec.schema.names[3:] == ["topic", "json", "speed", "gear", "name", "on", "seq_"]
    assert [row["json"] for row in got.rows] == [payload.decode() for payload in payloads]
    assert [(r["speed"], r["gear"], r["name"], r["on"], r["seq_"]) for r in got.rows] == [
        (1.5, 3, "ä", True, 9),
        (2.0, None, None, None, None),
    ]
    assert [row["ts_event"] for row in got.rows] == [5_000_000_007, 1001]
    assert [row["ts_recv"] for row in got.rows] == [1000, 1001]


def test_bad_json_costs_itself(tmp_path: Path) -> None:
    payloads = [b'{"gear": 1}', b'{"gear": "x"}', b"[1]", b'{"gear": 99999999999999999999}', b'{"name": "\xff"}', b"",
                b"[" * 100_000, b'{"timestamp": {"sec": 99999999999999, "nsec": 0}}', b'{"gear": 2}']  # fmt: skip
    spec = write(tmp_path / "a", "json", "Car", "jsonschema", json.dumps(JSON_SCHEMA).encode(), payloads)
    got = read(spec)
    assert [row["gear"] for row in got.rows] == [1, 2]
    assert [record.seq for record in got.bad] == list(range(1, 8))
    assert [record.data for record in got.bad] == payloads[1:-1]
    assert all(record.operation == "mcap.decode" and record.error.startswith("JSON: ") for record in got.bad)


@pytest.mark.parametrize(
    "definition", [b"", b"{", b"[]", b'{"properties": 3}', b'{"properties": {"a": {"$ref": "#"}}}']
)
def test_json_without_a_usable_schema_is_its_text(definition: bytes, tmp_path: Path) -> None:
    spec = write(tmp_path / "a", "json", "Car", "jsonschema", definition, [b'{"a": 1}'])
    assert spec.schema.names[3:] == ["topic", "json"]
    assert [row["json"] for row in read(spec).rows] == ['{"a": 1}']


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """car.Car, in an order in which a file comes before what it needs."""
    file = descriptor_pb2.FileDescriptorProto(name="car.proto", package="car", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/duration.proto"])
    kind = descriptor_pb2.FieldDescriptorProto
    car = file.message_type.add(name="Car")
    wheel = file.message_type.add(name="Wheel")
    fields = (
        ("timestamp", 1, kind.TYPE_MESSAGE, 1, ".google.protobuf.Timestamp"),
        ("name", 2, kind.TYPE_STRING, 1, ""),
        ("speed", 3, kind.TYPE_DOUBLE, 1, ""),
        ("id", 4, kind.TYPE_UINT64, 1, ""),
        ("picture", 5, kind.TYPE_BYTES, 1, ""),
        ("wheels", 6, kind.TYPE_MESSAGE, 3, ".car.Wheel"),
        ("spare", 7, kind.TYPE_MESSAGE, 1, ".car.Wheel"),
        ("counts", 8, kind.TYPE_INT32, 3, ""),
        ("age", 9, kind.TYPE_MESSAGE, 1, ".google.protobuf.Duration"),
        ("trailer", 10, kind.TYPE_MESSAGE, 1, ".car.Car"),
        ("topic", 11, kind.TYPE_BOOL, 1, ""),
    )
    for name, number, type_, label, type_name in fields:
        car.field.add(name=name, number=number, type=type_, label=label, type_name=type_name or None)
    wheel.field.add(name="radius", number=1, type=kind.TYPE_FLOAT, label=1)
    entry = car.nested_type.add(name="TagsEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
    entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=kind.TYPE_INT64, label=1)
    car.field.add(name="tags", number=12, type=kind.TYPE_MESSAGE, label=3, type_name=".car.Car.TagsEntry")
    out = descriptor_pb2.FileDescriptorSet()
    out.file.append(file)
    for needed in (timestamp_pb2, duration_pb2):
        needed.DESCRIPTOR.CopyToProto(out.file.add())
    return out


def car_class() -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessages(list(reversed(descriptors().file)))["car.Car"]


def test_protobuf_is_a_column_for_each_field(tmp_path: Path) -> None:
    make = car_class()
    full = make(name="a", speed=1.5, id=(1 << 64) - 1, picture=b"\xff\0", counts=[-1, 2], topic=True)
    full.timestamp.seconds, full.timestamp.nanos = 5, 7
    full.age.seconds = -3
    full.wheels.add(radius=0.5)
    full.spare.radius = 0.25
    full.trailer.name = "behind"
    full.tags["x"], full.tags["a"] = 1, 2
    payloads = [full.SerializeToString(), make().SerializeToString(), b"\x08", full.SerializeToString()[:8]]
    spec = write(tmp_path / "a", "protobuf", "car.Car", "protobuf", descriptors().SerializeToString(), payloads)
    got = read(spec)
    assert spec.schema.field("timestamp").type == TIMESTAMP
    first, empty = got.rows
    assert first["ts_event"] == 5_000_000_007
    assert (first["name"], first["speed"], first["id"]) == ("a", 1.5, (1 << 64) - 1)
    assert (first["picture"], first["counts"], first["topic_"]) == (b"\xff\0", [-1, 2], True)
    assert (first["wheels"], first["spare"]) == ([{"radius": 0.5}], {"radius": 0.25})
    assert first["tags"] == [{"key": "a", "value": 2}, {"key": "x", "value": 1}]
    assert first["age"].total_seconds() == -3
    assert make.FromString(first["trailer"]).name == "behind"
    assert (empty["ts_event"], empty["name"], empty["spare"], empty["wheels"]) == (1001, "", None, [])
    assert [record.seq for record in got.bad] == [2, 3]
    assert all("protobuf" in record.error for record in got.bad)


@pytest.mark.parametrize(
    "definition", [b"", b"\xff", b"\n\x02\n\0", descriptor_pb2.FileDescriptorSet().SerializeToString()]
)
def test_protobuf_that_nothing_describes_is_bytes(definition: bytes, tmp_path: Path) -> None:
    spec = write(tmp_path / "a", "protobuf", "car.Car", "protobuf", definition, [b"\x08\1"])
    assert spec.schema.names[3:] == ["topic", "data"]
    assert spec.schema.field("data").type == pa.large_binary()
    assert [row["data"] for row in read(spec).rows] == [b"\x08\1"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=60), which=st.sampled_from(["json", "protobuf", "ros1"]))
def test_any_payload_is_a_row_or_bad(payload: bytes, which: str) -> None:
    from penstock.pipeline.memory import BufferPool
    from penstock.sources.driving.cdr import table_for

    definitions = {
        "json": ("jsonschema", json.dumps(JSON_SCHEMA).encode()),
        "protobuf": ("protobuf", descriptors().SerializeToString()),
        "ros1": ("ros1msg", b"Header header\nstring[] names\nEmpty[] none\nduration d\nbyte b\nuint8[3] three"),
    }
    table = table_for("/t", which, "car.Car", *definitions[which], source="", format="mcap")
    data, one = np.frombuffer(payload + bytes(8), np.uint8), np.ones(1, np.int64)
    found = table.decoder()(data, one - 1, one * len(payload), one, 0, BufferPool())
    found.batch.validate(full=True)
    assert found.batch.num_rows + len(found.bad) == 1


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["jsonschema", "protobuf", "ros1msg", "omgidl", "ros2idl"]))
def test_any_definition_gives_a_table(definition: bytes, notation: str) -> None:
    from penstock.sources.driving.cdr import table_for

    encoding = {"jsonschema": "json", "protobuf": "protobuf", "ros1msg": "ros1"}.get(notation, "cdr")
    table = table_for("/t", encoding, "a/B", notation, definition, source="", format="mcap")
    assert table.schema.names[:4] == ["ts_event", "ts_recv", "seq", "topic"]


def test_ros1_messages_in_mcap_are_as_in_a_bag(tmp_path: Path) -> None:
    from rosbags.rosbag1 import Reader

    write_bag1(tmp_path / "a.bag")
    with Reader(tmp_path / "a.bag") as reader:
        for connection in reader.connections:
            payloads = [bytes(raw) for _, _, raw in reader.messages([connection])]
            name, text = connection.msgtype.replace("/msg/", "/"), connection.msgdef.data.encode()
            rows = read(write(tmp_path / "a.mcap", "ros1", name, "ros1msg", text, payloads)).rows
            expected = read(Rosbag1(tmp_path / "a.bag").topic(connection.topic)).rows
            skip = ("ts_recv", "topic", "ts_event")
            assert [{k: v for k, v in r.items() if k not in skip} for r in rows] == [
                {k: v for k, v in r.items() if k not in skip} for r in expected
            ]


ROS1 = get_typestore(Stores.ROS1_NOETIC)


def ros1_topic(path: Path, kind: str, messages: Sequence[Any]) -> McapTopic:
    text, _ = ROS1.generate_msgdef(kind, ros_version=1)
    payloads = [bytes(ROS1.serialize_ros1(message, kind)) for message in messages]
    return write(path, "ros1", kind.replace("/msg/", "/"), "ros1msg", text.encode(), payloads)


def header(number: int) -> Any:
    time = ROS1.types["builtin_interfaces/msg/Time"](sec=7, nanosec=number)
    return ROS1.types["std_msgs/msg/Header"](seq=number, stamp=time, frame_id="f" * (number % 4))


def test_ros1_pictures_become_the_table_of_pictures(tmp_path: Path) -> None:
    make = ROS1.types["sensor_msgs/msg/CompressedImage"]
    data = [np.arange(n, dtype=np.uint8) for n in (0, 5, 9)]
    spec = ros1_topic(
        tmp_path / "a",
        "sensor_msgs/msg/CompressedImage",
        [make(header=header(i), format="jpeg", data=d) for i, d in enumerate(data)],
    )
    got = read(spec)
    assert spec.schema.metadata[b"penstock.table"] == b"cam.encoded"
    assert [row["data"] for row in got.rows] == [d.tobytes() for d in data]
    assert [row["frame_id"] for row in got.rows] == ["", "f", "ff"]
    assert [row["ts_event"] for row in got.rows] == [7_000_000_000, 7_000_000_001, 7_000_000_002]


def test_ros1_point_clouds_become_radar_scans(tmp_path: Path) -> None:
    make, field = ROS1.types["sensor_msgs/msg/PointCloud2"], ROS1.types["sensor_msgs/msg/PointField"]
    fields = [field(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate(("x", "y", "doppler"))]
    clouds, values = [], []
    for i in range(4):
        points = np.arange(3 * i, dtype=np.float32).reshape(-1, 3)
        values.append(points)
        data = np.frombuffer(points.tobytes(), np.uint8)
        clouds.append(make(header=header(i), height=1, width=i, fields=fields, is_bigendian=False, point_step=12,
                           row_step=12 * i, data=data, is_dense=True))  # fmt: skip
    got = read(ros1_topic(tmp_path / "a", "sensor_msgs/msg/PointCloud2", clouds))
    assert not got.bad
    for row, points in zip(got.rows, values, strict=True):
        assert [(p["x"], p["y"], p["vr"]) for p in row["points"]] == [tuple(p) for p in points.tolist()]
        assert all(p["snr"] is None for p in row["points"])


def test_ros1_can_frames_become_the_table_of_can_frames(tmp_path: Path) -> None:
    text = b"Header header\nuint32 id\nbool is_rtr\nbool is_extended\nbool is_error\nuint8 dlc\nuint8[8] data\n"
    text += b"=" * 80 + b"\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n"
    payloads = [
        struct.pack("<IIII4sI???B8s", i, 7, i, 4, b"can2", 100 + i, False, True, False, 8, bytes(range(i, i + 8)))
        for i in range(3)
    ]
    got = read(write(tmp_path / "a", "ros1", "can_msgs/Frame", "ros1msg", text, payloads))
    assert [(r["bus"], r["can_id"], r["ext"], r["len"], r["data"]) for r in got.rows] == [
        (2, 100 + i, True, 8, bytes(range(i, i + 8))) for i in range(3)
    ]
    assert [row["ts_event"] for row in got.rows] == [7_000_000_000 + i for i in range(3)]


def test_a_ros1_message_with_a_byte_too_much_is_bad(tmp_path: Path) -> None:
    text, _ = ROS1.generate_msgdef("sensor_msgs/msg/Imu", ros_version=1)
    payload = bytes(ROS1.serialize_ros1(imu(3, seq=True), "sensor_msgs/msg/Imu"))
    payloads = [payload, payload + b"\0", payload[:-1]]
    got = read(write(tmp_path / "a", "ros1", "sensor_msgs/Imu", "ros1msg", text.encode(), payloads))
    assert len(got.rows) == 1
    assert [record.error for record in got.bad] == [
        "bytes are left over behind the last field",
        "the message ends inside a field",
    ]


def test_an_empty_ros1_message_is_a_row(tmp_path: Path) -> None:
    spec = write(tmp_path / "a", "ros1", "std_msgs/Empty", "ros1msg", b"# nothing\n", [b"", b"x"])
    got = read(spec)
    assert spec.schema.names == ["ts_event", "ts_recv", "seq", "topic"]
    assert [row["seq"] for row in got.rows] == [0]
    assert [record.error for record in got.bad] == ["bytes are left over behind the last field"]


def test_omg_idl_is_decoded(tmp_path: Path) -> None:
    idl = b"module car { struct Car { double speed; sequence<long> counts; string name; }; };"
    payload = b"\0\1\0\0" + np.array([1.5]).tobytes() + np.array([2, 7, -8, 3], "<i4").tobytes() + b"ab\0"
    spec = write(tmp_path / "a", "cdr", "car::Car", "omgidl", idl, [payload])
    (row,) = read(spec).rows
    assert (row["speed"], row["counts"], row["name"]) == (1.5, [7, -8], "ab")


def test_open_gives_the_file_or_a_topic(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(write_file())
    assert isinstance(open_mcap(tmp_path / "a.mcap"), Mcap)
    assert isinstance(open_mcap(tmp_path / "a.mcap", topic="/chatter"), McapTopic)


@pytest.mark.parametrize("shape", SHAPES)
def test_raw_messages_are_those_that_mcap_gives(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(write_file(**SHAPES[shape]))
    with path.open("rb") as stream:
        expected = [
            (message.log_time, message.publish_time, channel.topic, message.data)
            for _, channel, message in make_reader(stream).iter_messages(log_time_order=False)
        ]
    got, each = [], []
    for block in Mcap(path).messages():
        each += [(time, channel.topic, payload) for channel, time, payload in block.each() if channel is not None]
        assert (block.log_time.dtype, block.channel.dtype) == (np.int64, np.uint16)
        for i in range(len(block)):
            topic = block.channels[int(block.channel[i])].topic
            got.append((int(block.log_time[i]), int(block.publish_time[i]), topic, block.payload(i)))
    assert got == expected
    assert each == [(time, topic, payload) for time, _, topic, payload in expected]


def test_raw_iteration_tells_of_what_it_cannot_read(tmp_path: Path) -> None:
    whole = write_file(**SHAPES["zstd"])
    path = tmp_path / "a.mcap"
    path.write_bytes(whole[: len(whole) // 2])
    blocks = list(Mcap(path).messages())
    assert sum(map(len, blocks)) > 0
    assert any(block.error for block in blocks)
    assert inspect_mcap(path)["messages"] == sum(map(len, blocks))


def test_the_oracle_of_this_file_is_not_our_own(tmp_path: Path) -> None:
    """Every field of an IMU sample through the general decoder, as `rosbags` gives it."""
    write_bag1(tmp_path / "a.bag", 3)
    expected = bag1_messages(tmp_path / "a.bag")["/imu"]
    text, _ = ROS1.generate_msgdef("sensor_msgs/msg/Imu", ros_version=1)
    payloads = [bytes(ROS1.serialize_ros1(imu(i, seq=True), "sensor_msgs/msg/Imu")) for i in range(3)]
    rows = read(write(tmp_path / "b", "ros1", "other_msgs/Imu", "ros1msg", text.encode(), payloads)).rows
    for row, (_, fields) in zip(rows, expected, strict=True):
        assert same({k: v for k, v in row.items() if k not in ("ts_event", "ts_recv", "seq", "topic")}, fields)
