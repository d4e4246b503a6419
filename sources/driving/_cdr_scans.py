"""The decoder of sensor_msgs/PointCloud2 to `radar.scan`, and how the names of point fields map to its columns."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnBlock
from ...pipeline.memory import BufferPool
from ._cdr_rows import BAD_LAYOUT, Array, bad_rows, frame_ids, interned, take_rows
from ._cdr_scan_kernels import points, scans
from .cdr import POINT, Messages

__all__ = ["Scans"]

#: Names that radar drivers give to what a column holds, most specific first.
_COLUMNS = (
    ("x",),
    ("y",),
    ("z",),
    ("vr", "v_r", "radial_speed", "radial_velocity", "doppler_velocity", "doppler", "range_rate", "velocity"),
    ("rcs", "rcs_dbsm", "radar_cross_section"),
    ("snr", "snr_db"),
    ("track_id", "id", "object_id", "target_id"),
    ("flags", "flag"),
)
#: Bytes of a PointField datatype (sensor_msgs/PointField: INT8 = 1 to FLOAT64 = 8).
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 8: 8}


class Scans:
    """sensor_msgs/msg/PointCloud2 to `radar.scan`."""

    def __init__(self, schema: pa.Schema, topic: str, most: int) -> None:
        self.schema, self._most = schema, most
        self._topics = pa.array([topic], pa.utf8())

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        status, shape = np.zeros(rows, np.uint8), np.empty((rows, 7), np.int64)
        ts_event, id_at, id_size, fields_at, fields_size = np.empty((5, rows), np.int64)
        scans(
            data,
            starts,
            lengths,
            log_times,
            self._most,
            status,
            ts_event,
            id_at,
            id_size,
            fields_at,
            fields_size,
            shape,
        )
        good = np.flatnonzero(status == 0)
        codes, ids = frame_ids(data, id_at[good], id_size[good], status, good)
        layout, columns, extents = _layouts(data, fields_at[good], fields_size[good], shape[good, 5], self._most)
        empty = (shape[good, 0] == 0) | (shape[good, 1] == 0)
        status[good[~empty & (extents[layout] > shape[good, 2])]] = BAD_LAYOUT
        kept = status[good] == 0
        codes, layout, good = codes[kept], layout[kept], good[kept]
        count, shape = len(good), shape[good]
        n_points = shape[:, 0] * shape[:, 1]
        block = ColumnBlock(pool, self.schema, count)
        take_rows(block, good, first, ts_event, log_times)
        block["topic"][:], block["frame_id"][:], block["n_points"][:] = 0, codes, n_points
        batch = block.batch(
            count,
            dictionaries={"topic": self._topics, "frame_id": ids},
            columns={"points": _points(data, shape, layout, n_points, columns, pool)},
        )
        return Messages(batch, bad_rows(status))


def _points(data: Array, shape: Array, layout: Array, n_points: Array, columns: Array, pool: BufferPool) -> pa.Array:
    offsets = np.zeros(len(n_points) + 1, np.int32)
    np.cumsum(n_points, out=offsets[1:])
    total = int(offsets[-1])
    stride = -(-total // 16) * 16
    lease = pool.take(stride * (7 * 4 + 2))
    floats = lease.array(np.float32, (6, stride))
    track, flags = lease.array(np.uint32, total, 24 * stride), lease.array(np.uint16, total, 28 * stride)
    valid = np.empty((8, total), np.bool_)
    points(data, shape, layout, offsets, columns, floats, track, flags, valid)
    children = []
    for c in range(8):
        mask = None if valid[c].all() else pa.py_buffer(np.packbits(valid[c], bitorder="little"))
        kind = POINT.field(c).type
        values = lease.buffer(c * 4 * stride, total * (kind.bit_width // 8))
        children.append(pa.Array.from_buffers(kind, total, [mask, values]))
    structs = pa.Array.from_buffers(POINT, total, [None], children=children)
    return pa.Array.from_buffers(pa.list_(POINT), len(n_points), [None, pa.py_buffer(offsets)], children=[structs])


def _layouts(data: Array, at: Array, size: Array, big: Array, most: int) -> tuple[Array, Array, Array]:
    """The layout of each message, byte offset and datatype by layout and column, and the bytes a point needs."""
    codes, values = interned(data, at, size)
    keys, layout = np.unique(codes * 2 + big, return_inverse=True)
    columns = np.full((len(keys), 8, 2), -1, np.int64)
    extents = np.full(len(keys), np.iinfo(np.int64).max)
    for k, key in enumerate(keys.tolist()):
        if key >= 0:  # else: one of too many different layouts
            extents[k] = _columns(values[key // 2], ">" if key % 2 else "<", min(4, most), columns[k])
    return layout, columns, extents


def _columns(listed: bytes, order: str, unit: int, columns: Array) -> int:
    """Fill `columns` from a whole PointField list aligned to `unit`; returns the bytes a point needs."""
    unusable = int(np.iinfo(np.int64).max)
    found: dict[str, tuple[int, int]] = {}
    (count,) = struct.unpack_from(order + "I", listed)
    pos = 4
    for _ in range(count):
        (length,) = struct.unpack_from(order + "I", listed, pos)
        name = listed[pos + 4 : pos + 4 + length].rstrip(b"\0").decode("utf-8", "replace").lower()
        pos = -(-(pos + 4 + length) // unit) * unit
        offset, kind = struct.unpack_from(order + "IB", listed, pos)
        pos = -(-(pos + 5) // unit) * unit + 4
        found.setdefault(name, (offset, kind))
    extent = 0
    for c, known in enumerate(_COLUMNS):
        place = next((found[name] for name in known if name in found), None)
        if place is not None:
            if place[1] not in _SIZES:
                return unusable
            columns[c] = place
            extent = max(extent, place[0] + _SIZES[place[1]])
    return extent or unusable
