"""The four ROS 2 messages of a recorded drive: their definitions as a recorder stores them, and their CDR encoding."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DEFINITIONS", "Cdr", "can_frame", "compressed_image", "imu", "point_cloud"]

_RULE = "=" * 80
_HEADER = f"""{_RULE}
MSG: std_msgs/Header
# Two-integer timestamp that is expressed as seconds and nanoseconds.
builtin_interfaces/Time stamp
# Transform frame with which this data is associated.
string frame_id
{_RULE}
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""

#: Definition by message type, in the notation ``ros2msg``.
DEFINITIONS = {
    "sensor_msgs/msg/CompressedImage": f"""# This message contains a compressed image.
std_msgs/Header header
string format                # Specifies the format of the data
uint8[] data                 # Compressed image buffer
{_HEADER}""",
    "sensor_msgs/msg/PointCloud2": f"""# A collection of N-dimensional points.
std_msgs/Header header
uint32 height
uint32 width
PointField[] fields
bool    is_bigendian # Is this data bigendian?
uint32  point_step   # Length of a point in bytes
uint32  row_step     # Length of a row in bytes
uint8[] data         # Actual point data, size is (row_step*height)
bool is_dense        # True if there are no invalid points
{_HEADER}{_RULE}
MSG: sensor_msgs/PointField
uint8 INT8    = 1
uint8 UINT8   = 2
uint8 INT16   = 3
uint8 UINT16  = 4
uint8 INT32   = 5
uint8 UINT32  = 6
uint8 FLOAT32 = 7
uint8 FLOAT64 = 8
string name
uint32 offset
uint8  datatype
uint32 count
""",
    "sensor_msgs/msg/Imu": f"""# Data from an inertial measurement unit: m/s^2 and rad/s.
std_msgs/Header header
geometry_msgs/Quaternion orientation
float64[9] orientation_covariance
geometry_msgs/Vector3 angular_velocity
float64[9] angular_velocity_covariance
geometry_msgs/Vector3 linear_acceleration
float64[9] linear_acceleration_covariance
{_HEADER}{_RULE}
MSG: geometry_msgs/Quaternion
float64 x 0
float64 y 0
float64 z 0
float64 w 1
{_RULE}
MSG: geometry_msgs/Vector3
float64 x
float64 y
float64 z
""",
    "can_msgs/msg/Frame": f"""std_msgs/Header header
uint32 id
bool is_rtr
bool is_extended
bool is_error
uint8 dlc
uint8[8] data
{_HEADER}""",
}

#: PointField datatypes by numpy type.
_POINT_TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


class Cdr:
    """Writes one message: numbers aligned to their size from byte 4 on, behind the encapsulation header."""

    def __init__(self, *, big_endian: bool = False) -> None:
        self._order = ">" if big_endian else "<"
        self._out = bytearray((0, 0 if big_endian else 1, 0, 0))

    def put(self, code: str, *values: Any) -> Cdr:
        """Numbers of one `struct` code."""
        size = struct.calcsize(code)
        self._out += bytes((4 - len(self._out)) % size)
        self._out += struct.pack(f"{self._order}{len(values)}{code}", *values)
        return self

    def text(self, value: str) -> Cdr:
        """A string: length with its NUL, bytes, NUL."""
        raw = value.encode()
        self.put("I", len(raw) + 1)
        self._out += raw + b"\0"
        return self

    def raw(self, value: bytes) -> Cdr:
        """A sequence of uint8."""
        self.put("I", len(value))
        self._out += value
        return self

    def header(self, stamp: int, frame_id: str) -> Cdr:
        """std_msgs/Header; `stamp` in ns."""
        return self.put("i", stamp // 10**9).put("I", stamp % 10**9).text(frame_id)

    def done(self) -> bytes:
        """The message."""
        return bytes(self._out)


def compressed_image(stamp: int, frame_id: str, format: str, data: bytes, *, big_endian: bool = False) -> bytes:
    """sensor_msgs/msg/CompressedImage."""
    return Cdr(big_endian=big_endian).header(stamp, frame_id).text(format).raw(data).done()


def point_cloud(stamp: int, frame_id: str, points: npt.NDArray[Any], *, big_endian: bool = False) -> bytes:
    """sensor_msgs/msg/PointCloud2 with the fields of the structured array `points`, padding included.

    A 2-D array is an organised cloud. Byte order of the points is that of the first field.
    """
    cloud = np.atleast_2d(points)
    fields: Any = cloud.dtype.fields or {}
    out = Cdr(big_endian=big_endian).header(stamp, frame_id).put("I", *cloud.shape).put("I", len(fields))
    for name, (kind, offset, *_) in fields.items():
        out.text(name).put("I", offset).put("B", _POINT_TYPES[kind.str[1:]]).put("I", 1)
    swapped = any(kind.str[0] == ">" for kind, *_ in fields.values())
    step = cloud.dtype.itemsize
    out.put("?", swapped).put("I", step, step * cloud.shape[1])
    return out.raw(cloud.tobytes()).put("?", True).done()


def imu(stamp: int, frame_id: str, acc: Sequence[float], gyro: Sequence[float], *, big_endian: bool = False) -> bytes:
    """sensor_msgs/msg/Imu without an orientation estimate (its first covariance is -1, as the message asks)."""
    nothing = (0.0,) * 9
    out = Cdr(big_endian=big_endian).header(stamp, frame_id)
    out.put("d", 0.0, 0.0, 0.0, 1.0, -1.0, *nothing[1:], *gyro, *nothing, *acc, *nothing)
    return out.done()


def can_frame(
    stamp: int, frame_id: str, can_id: int, data: bytes, *, extended: bool = False, big_endian: bool = False
) -> bytes:
    """can_msgs/msg/Frame with up to 8 bytes of `data`."""
    out = Cdr(big_endian=big_endian).header(stamp, frame_id).put("I", can_id)
    return out.put("?", False, extended, False).put("B", len(data), *data.ljust(8, b"\0")).done()
