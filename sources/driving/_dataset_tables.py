"""Tables that the data set folders share, and how their columns are put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["GNSS", "LIDAR_POINT", "LIDAR_SCAN", "NAME", "POSE", "VECTOR", "one_name", "points_column"]

NAME = pa.dictionary(pa.int16(), pa.utf8())
VECTOR = pa.list_(pa.float64(), 3)

#: A lidar point: metres, intensity as the data set has it, number of the laser, ns after the start of the scan.
LIDAR_POINT = pa.struct(
    [
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("z", pa.float32()),
        ("intensity", pa.float32()),
        ("ring", pa.uint16()),
        ("dt_ns", pa.int32()),
    ]
)

#: Columns of `lidar.scan`; null where the sensor has none.
LIDAR_SCAN = (("topic", NAME), ("frame_id", NAME), ("n_points", pa.uint32()), ("points", pa.list_(LIDAR_POINT)))

#: Columns of `gnss`: degrees (WGS 84), m, m/s, degrees clockwise from north.
GNSS = (
    ("topic", NAME),
    ("latitude", pa.float64()),
    ("longitude", pa.float64()),
    ("altitude", pa.float64()),
    ("speed", pa.float64()),
    ("bearing", pa.float64()),
)

#: Columns of `pose`: m and m/s in ECEF, and the quaternion (w, x, y, z) that turns ECEF into the local frame.
POSE = (
    ("topic", NAME),
    ("position", VECTOR),
    ("velocity", VECTOR),
    ("orientation", pa.list_(pa.float64(), 4)),
)


def one_name(name: str, rows: int) -> pa.DictionaryArray:
    """A dictionary column in which every row is `name`."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int16)), pa.array([name], pa.utf8()))


def points_column(
    point: pa.StructType, counts: npt.NDArray[Any], fields: Mapping[str, npt.NDArray[Any]], rows: int
) -> pa.ListArray:
    """Scans of `counts` points each as a column of lists; a field not given is null. `rows` is the number of points."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    children = []
    for field in point:
        given = fields.get(field.name)
        if given is None:
            children.append(pa.nulls(rows, field.type))
        else:
            children.append(pa.array(given.astype(field.type.to_pandas_dtype(), copy=False)))
    structs = pa.StructArray.from_arrays(children, fields=list(point))
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=pa.list_(point))
