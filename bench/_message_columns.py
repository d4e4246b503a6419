"""Columns of the objects that rosbags makes of messages, in the way of a user who knows numpy and pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["COLUMNS"]

_TIME = pa.timestamp("ns", "UTC")


def _can(messages: Sequence[Any]) -> pa.RecordBatch:
    ids = [m.id | m.is_rtr << 30 | m.is_error << 29 for m in messages]
    data = np.concatenate([m.data for m in messages])
    return pa.record_batch(
        {
            "ts_event": _stamps(messages),
            "can_id": pa.array(ids, pa.uint32()),
            "ext": pa.array([m.is_extended for m in messages], pa.bool_()),
            "len": pa.array([min(m.dlc, 8) for m in messages], pa.uint8()),
            "data": pa.Array.from_buffers(pa.binary(8), len(messages), [None, pa.py_buffer(data)]),
        }
    )


def _imu(messages: Sequence[Any]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "ts_event": _stamps(messages),
            "acc": _vectors([m.linear_acceleration for m in messages]),
            "gyro": _vectors([m.angular_velocity for m in messages]),
        }
    )


def _images(messages: Sequence[Any]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "ts_event": _stamps(messages),
            "frame_id": pa.array([m.header.frame_id for m in messages], pa.utf8()),
            "data": pa.array([m.data.data for m in messages], pa.large_binary()),
        }
    )


def _clouds(messages: Sequence[Any]) -> pa.RecordBatch:
    from penstock.sources.driving.cdr import POINT

    fields = messages[0].fields
    layout = np.dtype(
        {
            "names": [field.name for field in fields],
            "formats": [_FORMATS[field.datatype] for field in fields],
            "offsets": [field.offset for field in fields],
            "itemsize": messages[0].point_step,
        }
    )
    points = np.concatenate([np.frombuffer(m.data, layout) for m in messages])
    counts = np.array([m.height * m.width for m in messages], np.uint32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    children = [
        pa.array(points[field.name].astype(field.type.to_pandas_dtype()))
        if field.name in layout.names
        else pa.nulls(len(points), field.type)
        for field in POINT
    ]
    structs = pa.StructArray.from_arrays(children, fields=list(POINT))
    return pa.record_batch(
        {
            "ts_event": _stamps(messages),
            "frame_id": pa.array([m.header.frame_id for m in messages], pa.utf8()),
            "n_points": pa.array(counts),
            "points": pa.ListArray.from_arrays(offsets, structs, pa.list_(POINT)),
        }
    )


def _stamps(messages: Sequence[Any]) -> pa.Array:
    stamps = [(stamp := m.header.stamp).sec * 1_000_000_000 + stamp.nanosec for m in messages]
    return pa.array(stamps, pa.int64()).cast(_TIME)


def _vectors(vectors: Sequence[Any]) -> pa.Array:
    values = np.array([(v.x, v.y, v.z) for v in vectors], np.float64)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 3)


#: Numpy formats of sensor_msgs/PointField datatypes, little endian.
_FORMATS = ("", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8")

#: For each type: objects to a batch with the columns that hold data.
COLUMNS: Mapping[str, Callable[[Sequence[Any]], pa.RecordBatch]] = {
    "can": _can,
    "imu": _imu,
    "image": _images,
    "cloud": _clouds,
}
