"""Recorded messages to columns: which table a message type becomes, and the decoder that fills it.

Four types have a table of their own, whatever the number of publishers or their byte order:

==================================  ==============  =======================================================
message type                        table           columns behind ts_event, ts_recv, seq
==================================  ==============  =======================================================
sensor_msgs/msg/CompressedImage     cam.encoded     topic, frame_id, codec, width, height, keyframe, data
sensor_msgs/msg/PointCloud2         radar.scan      topic, frame_id, n_points, points
sensor_msgs/msg/Imu                 imu             topic, acc, gyro
can_msgs/msg/Frame                  can.frame       bus, can_id, ext, fd, len, data
==================================  ==============  =======================================================

ROS 1 messages (encoding ``ros1``) give the same tables. Any other type becomes the columns that its definition names
(`rosmsg`); JSON becomes its text and a column for each top-level scalar (`_cdr_json`), protobuf a column for each field
(`_cdr_protobuf`). A message that no definition describes becomes ``topic, data`` with its bytes as they are (table
``raw``): ``data`` is ``large_binary``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt
import pyarrow as pa

from ...pipeline.memory import BufferPool
from ...pipeline.schema import event_schema

if TYPE_CHECKING:
    from .rosmsg import MessageTree

__all__ = [
    "CAM_ENCODED",
    "CAN_FRAME",
    "IMU",
    "POINT",
    "RADAR_SCAN",
    "RAW",
    "MessageDecoder",
    "Messages",
    "PayloadPlan",
    "Table",
    "ros2_name",
    "table_for",
]

_NAME = pa.dictionary(pa.int16(), pa.utf8())

#: Columns of `cam.encoded`. `width`, `height` in pixels, null where the picture's head does not say.
CAM_ENCODED = (
    ("topic", _NAME),
    ("frame_id", _NAME),
    ("codec", pa.dictionary(pa.int8(), pa.utf8())),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("keyframe", pa.bool_()),
    ("data", pa.large_binary()),
)

#: A radar point: metres (x forward, y left, z up), m/s (positive: away), dBsm, dB; null where the sensor has none.
POINT = pa.struct(
    [
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("z", pa.float32()),
        ("vr", pa.float32()),
        ("rcs", pa.float32()),
        ("snr", pa.float32()),
        ("track_id", pa.uint32()),
        ("flags", pa.uint16()),
    ]
)

#: Columns of `radar.scan`.
RADAR_SCAN = (("topic", _NAME), ("frame_id", _NAME), ("n_points", pa.uint32()), ("points", pa.list_(POINT)))

#: Columns of `imu`: m/s2 and rad/s, axes x, y, z.
IMU = (("topic", _NAME), ("acc", pa.list_(pa.float64(), 3)), ("gyro", pa.list_(pa.float64(), 3)))

#: Columns of `can.frame`. Bit 30 of `can_id` marks a remote frame and bit 29 an error frame, as in SocketCAN.
CAN_FRAME = (
    ("bus", pa.uint8()),
    ("can_id", pa.uint32()),
    ("ext", pa.bool_()),
    ("fd", pa.bool_()),
    ("len", pa.uint8()),
    ("data", pa.binary(8)),
)

#: Columns of `raw`: the message as it was recorded.
RAW = (("topic", _NAME), ("data", pa.large_binary()))

_FIXED = {
    "sensor_msgs/msg/CompressedImage": ("cam.encoded", CAM_ENCODED, "px"),
    "sensor_msgs/msg/PointCloud2": ("radar.scan", RADAR_SCAN, "m, m/s, dBsm, dB"),
    "sensor_msgs/msg/Imu": ("imu", IMU, "m/s2, rad/s"),
    "can_msgs/msg/Frame": ("can.frame", CAN_FRAME, ""),
}

_HEADER, _VECTOR = "int32 uint32 string", "float64 float64 float64"
#: The fields the decoders of the four types rely on; a type of the same name with others takes the general path.
_EXPECTED = {
    "sensor_msgs/msg/CompressedImage": f"{_HEADER} string uint8[]",
    "sensor_msgs/msg/PointCloud2": (
        f"{_HEADER} uint32 uint32 (string uint32 uint8 uint32)[] bool uint32 uint32 uint8[] bool"
    ),
    "sensor_msgs/msg/Imu": (
        f"{_HEADER} float64 float64 float64 float64 float64[9] {_VECTOR} float64[9] {_VECTOR} float64[9]"
    ),
    "can_msgs/msg/Frame": f"{_HEADER} uint32 bool bool bool uint8 uint8[8]",
}


@dataclass(frozen=True, slots=True)
class Messages:
    """Decoded messages: one batch, and ``(position among the messages, what was wrong)`` for each that was not.

    `copied` are payload bytes that were moved as they are.
    """

    batch: pa.RecordBatch
    bad: Sequence[tuple[int, str]]
    copied: int = 0


class MessageDecoder(Protocol):
    """Bytes to columns. Thread-safe."""

    def __call__(
        self,
        data: npt.NDArray[Any],
        starts: npt.NDArray[Any],
        lengths: npt.NDArray[Any],
        log_times: npt.NDArray[Any],
        first: int,
        pool: BufferPool,
    ) -> Messages:
        """Messages at ``data[starts[i]:starts[i]+lengths[i]]``, numbered from `first`; rows keep their numbers."""
        ...


@dataclass(frozen=True)
class Table:
    """What a topic's messages become: the table's name, its schema, and what the decoder needs to know.

    `most` is the largest alignment: 8 in CDR, 1 in ROS 1. `plan` is what JSON and protobuf messages decode by.
    """

    kind: str
    schema: pa.Schema
    topic: str
    tree: MessageTree | None = None
    most: int = 8
    plan: PayloadPlan | None = None

    def decoder(self) -> MessageDecoder:
        """A decoder for the table (loads the compiled kernels)."""
        if self.plan is not None:
            return self.plan.decoder(self.schema, self.topic)
        if self.tree is not None:
            from ._cdr_program import ProgramDecoder

            return ProgramDecoder(self.schema, self.topic, self.tree, self.most)
        from ._cdr_tables import DECODERS

        return DECODERS[self.kind](self.schema, self.topic, self.most)


class PayloadPlan(Protocol):
    """How messages of a notation other than ROS's become columns."""

    @property
    def columns(self) -> Sequence[tuple[str, pa.DataType]]:
        """The columns behind the event columns, ``topic`` first."""
        ...

    def decoder(self, schema: pa.Schema, topic: str) -> MessageDecoder:
        """A decoder that fills them."""
        ...


def table_for(
    topic: str, encoding: str, type_name: str, notation: str, definition: bytes, *, source: str, format: str
) -> Table:
    """The table that messages of a type become.

    `encoding` is how messages are written (``cdr``, ``ros1``, ``json``, ``protobuf``), `notation` how their `definition`
    is (``ros2msg``, ``ros2idl``, ``omgidl``, ``ros1msg``, ``jsonschema``, ``protobuf``). What is not described, or
    not known here, is table ``raw``.
    """

    def schema(kind: str, fields: Sequence[Any], units: str = "") -> pa.Schema:
        return event_schema(fields, source=source, format=format, table=kind, type=type_name, units=units)

    if encoding in _NOTATIONS:
        tree = None
        if definition.strip() and notation in _NOTATIONS[encoding]:
            from .rosmsg import describe_fields, parse_definition

            tree = parse_definition(ros2_name(type_name), notation, definition)
        most = 1 if encoding == "ros1" else 8
        fixed = _FIXED.get(ros2_name(type_name))
        if fixed is not None and tree is not None:
            header = _HEADER if encoding == "cdr" else f"uint32 uint32 {_HEADER.partition(' ')[2]}"
            expected = _EXPECTED[ros2_name(type_name)].replace(_HEADER, header, 1)
            fixed = fixed if describe_fields(tree) == expected else None
        if fixed is not None:
            kind, fields, units = fixed
            return Table(kind, schema(kind, fields, units), topic, most=most)
        if tree is not None:
            return Table("message", schema("message", tree.columns()), topic, tree, most)
    plan = _payload_plan(encoding, type_name, notation, definition)
    if plan is not None:
        return Table("message", schema("message", plan.columns), topic, plan=plan)
    return Table("raw", schema("raw", RAW), topic)


#: The notations of definitions that describe messages of an encoding.
_NOTATIONS = {"cdr": ("ros2msg", "ros2idl", "omgidl"), "ros1": ("ros1msg",)}


def _payload_plan(encoding: str, type_name: str, notation: str, definition: bytes) -> PayloadPlan | None:
    if encoding == "json":
        from ._cdr_json import json_plan

        return json_plan(notation, definition)
    if encoding == "protobuf" and notation == "protobuf":
        from ._cdr_protobuf import protobuf_plan

        return protobuf_plan(type_name, definition)
    return None


def ros2_name(type_name: str) -> str:
    """A ROS message type as ROS 2 writes it.

    >>> ros2_name("sensor_msgs/Imu")
    'sensor_msgs/msg/Imu'
    """
    package, slash, name = type_name.rpartition("/")
    return f"{package}/msg/{name}" if slash and "/" not in package else type_name


def bus_of(topic: str) -> int:
    """The bus number in a CAN topic's name (``/can0``, ``/can/bus1``, ``/can3/frames``); -1 if there is none below 256.

    >>> bus_of("/can/bus128")
    128
    """
    for part in reversed(topic.split("/")):
        if (number := re.search(r"([0-9]+)$", part)) is not None and len(number[1]) < 4 and int(number[1]) < 256:
            return int(number[1])
    return -1
