"""ROS 2 messages in CDR to columns: which table a message type becomes, and the decoder that fills it.

Four types have a table of their own, whatever the number of publishers or their byte order:

==================================  ==============  =======================================================
message type                        table           columns behind ts_event, ts_recv, seq
==================================  ==============  =======================================================
sensor_msgs/msg/CompressedImage     cam.encoded     topic, frame_id, codec, width, height, keyframe, data
sensor_msgs/msg/PointCloud2         radar.scan      topic, frame_id, n_points, points
sensor_msgs/msg/Imu                 imu             topic, acc, gyro
can_msgs/msg/Frame                  can.frame       bus, can_id, ext, fd, len, data
==================================  ==============  =======================================================

Any other type becomes the columns that its definition names (`rosmsg`), and a message that no definition describes
becomes ``topic, data`` with its bytes as they are (table ``raw``).
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
    "Table",
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
    """What a topic's messages become: the table's name, its schema, and what the decoder needs to know."""

    kind: str
    schema: pa.Schema
    topic: str
    tree: MessageTree | None = None

    def decoder(self) -> MessageDecoder:
        """A decoder for the table (loads the compiled kernels)."""
        if self.tree is not None:
            from ._cdr_program import ProgramDecoder

            return ProgramDecoder(self.schema, self.topic, self.tree)
        from ._cdr_tables import DECODERS

        return DECODERS[self.kind](self.schema, self.topic)


def table_for(
    topic: str, encoding: str, type_name: str, notation: str, definition: bytes, *, source: str, format: str
) -> Table:
    """The table that messages of a type become.

    `encoding` is how messages are written (``cdr``), `notation` how their `definition` is (``ros2msg``, ``ros2idl``).
    """

    def schema(kind: str, fields: Sequence[Any], units: str = "") -> pa.Schema:
        return event_schema(fields, source=source, format=format, table=kind, type=type_name, units=units)

    if encoding == "cdr":
        tree = None
        if definition.strip() and notation in ("ros2msg", "ros2idl"):
            from .rosmsg import describe_fields, parse_definition

            tree = parse_definition(type_name, notation, definition)
        fixed = _FIXED.get(type_name)
        if fixed is not None and (tree is None or describe_fields(tree) == _EXPECTED[type_name]):
            kind, fields, units = fixed
            return Table(kind, schema(kind, fields, units), topic)
        if tree is not None:
            return Table("message", schema("message", tree.columns()), topic, tree)
    return Table("raw", schema("raw", RAW), topic)


def bus_of(topic: str) -> int:
    """The bus number in a CAN topic's name (``/can0``, ``/can/bus1``, ``/can3/frames``); -1 if there is none below 256.

    >>> bus_of("/can/bus128")
    128
    """
    for part in reversed(topic.split("/")):
        if (number := re.search(r"([0-9]+)$", part)) is not None and len(number[1]) < 4 and int(number[1]) < 256:
            return int(number[1])
    return -1
