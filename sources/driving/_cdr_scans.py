"""The decoder of sensor_msgs/PointCloud2 to `radar.scan`, and how the names of point fields map to its columns."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.memory import BufferPool
from ._cdr_columns import zeros
from ._cdr_rows import BAD_LAYOUT, BAD_NAME, Array, FrameIds, bad_rows, interned
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
#: The datatypes that always fit a column: any for floats, unsigned ones for whole numbers.
_ALWAYS = (*[set(_SIZES)] * 6, {2, 4, 6}, {2, 4})
#: The bytes that points of a list that cannot be read would need.
_UNUSABLE = int(np.iinfo(np.int64).max)


class Scans:
    """sensor_msgs/msg/PointCloud2 to `radar.scan`."""

    def __init__(self, schema: pa.Schema, topic: str, most: int) -> None:
        self._most = most
        self._columns = ColumnLayout(schema, ready=("points",))
        self._topics = pa.array([topic], pa.utf8())
        self._frame_ids, self._layouts = FrameIds(), _Layouts(most)

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        block, status = self._columns.take(pool, rows), np.zeros(rows, np.uint8)
        places, shape, offsets = (
            np.empty((4, rows), np.int64),
            np.empty((rows, 7), np.int64),
            np.empty(rows + 1, np.int32),
        )
        while True:
            count, alike, least = scans(
                data, starts, lengths, log_times, self._most, first, status,
                block["ts_event"], block["ts_recv"], block["seq"], block["n_points"], places, shape, offsets,
            )  # fmt: skip
            id_at, id_size, fields_at, fields_size = places[:, :count]
            codes, ids, unnamed = self._frame_ids(data, id_at, id_size)
            layout, layouts = self._layouts(data, fields_at, fields_size, shape[:count], alike)
            unread = layouts.unread(layout, shape[:count]) if least < layouts.widest else None
            if unnamed is None and unread is None:
                break
            good = np.flatnonzero(status == 0)
            if unnamed is not None:
                status[good[unnamed]] = BAD_NAME
            if unread is not None:
                status[good[unread]] = BAD_LAYOUT
        block["topic"][:count], block["frame_id"][:count] = 0, codes
        batch = block.batch(
            count,
            columns={"points": _points(data, shape, layout, layouts, offsets[: count + 1], pool)},
            dictionaries={"topic": self._topics, "frame_id": ids},
        )
        return Messages(batch, bad_rows(status, count))


def _points(data: Array, shape: Array, layout: Array, layouts: _Layout, offsets: Array, pool: BufferPool) -> pa.Array:
    total = int(offsets[-1])
    stride = -(-total // 16) * 16
    lease = pool.take(stride * (7 * 4 + 2))
    floats = lease.array(np.float32, (6, stride))
    track, flags = lease.array(np.uint32, total, 24 * stride), lease.array(np.uint16, total, 28 * stride)
    valid = np.empty((8, total if layouts.checked else 0), np.bool_)
    points(data, shape, layout, offsets, layouts.columns, layouts.plain, floats, track, flags, valid)
    children = []
    for c, how in enumerate(layouts.filled):
        kind, width = _KINDS[c]
        if how == _ABSENT:
            children.append(pa.Array.from_buffers(kind, total, [zeros(-(-total // 8)), zeros(total * width)]))
            continue
        mask = None
        if how != _PLAIN and not valid[c].all():
            mask = pa.py_buffer(np.packbits(valid[c], bitorder="little"))
        values = lease.buffer(c * 4 * stride, total * width)
        children.append(pa.Array.from_buffers(kind, total, [mask, values]))
    structs = pa.Array.from_buffers(POINT, total, [None], children=children)
    return pa.Array.from_buffers(_POINTS, len(layout), [None, pa.py_buffer(offsets)], children=[structs])


_POINTS = pa.list_(POINT)
_KINDS = [(field.type, field.type.bit_width // 8) for field in POINT]
#: What a column of points is: filled and checked value by value, filled with what is always there, or never there.
_CHECKED, _PLAIN, _ABSENT = range(3)


class _Layout:
    """Layouts of points: ``columns[layout, column]`` is byte offset and datatype (-1: none), `extents` bytes of a point."""

    def __init__(self, columns: Array, extents: Array) -> None:
        self.columns, self.extents = columns, extents
        self.plain = np.full(8, _CHECKED, np.uint8)
        for c in range(8):
            kinds = set(columns[:, c, 1].tolist())
            if kinds == {-1}:
                self.plain[c] = _ABSENT
            elif -1 not in kinds and kinds <= _ALWAYS[c]:
                self.plain[c] = _PLAIN
        self.filled: list[int] = self.plain.tolist()
        self.checked = _CHECKED in self.filled
        self.widest = int(extents.max(initial=0))

    def unread(self, layout: Array, shape: Array) -> Array | None:
        """Which scans have points that are shorter than their layout (None: none has)."""
        empty = (shape[:, 0] == 0) | (shape[:, 1] == 0)
        wrong = ~empty & (self.extents[layout] > shape[:, 2])
        return wrong if wrong.any() else None


class _Layouts:
    """The layouts that lists of fields give; the last one is kept, since most blocks have the same. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._unit = min(4, most)
        self._last: tuple[bytes, bool, _Layout] | None = None

    def __call__(self, data: Array, at: Array, size: Array, shape: Array, alike: bool) -> tuple[Array, _Layout]:
        """The layout of each message, and the layouts."""
        if not alike or not len(at):
            return self._several(data, at, size, shape[:, 5])
        listed, big = data[at[0] : at[0] + size[0]].tobytes(), bool(shape[0, 5])
        last = self._last
        if last is None or last[:2] != (listed, big):
            last = self._last = listed, big, self._of([(listed, big)])
        return np.zeros(len(at), np.int64), last[2]

    def _several(self, data: Array, at: Array, size: Array, big: Array) -> tuple[Array, _Layout]:
        codes, values = interned(data, at, size)
        keys, layout = np.unique(codes * 2 + big, return_inverse=True)
        return layout, self._of([(values[k // 2] if k >= 0 else b"", bool(k % 2)) for k in keys.tolist()])

    def _of(self, lists: list[tuple[bytes, bool]]) -> _Layout:
        columns = np.full((len(lists), 8, 2), -1, np.int64)
        extents = np.full(len(lists), _UNUSABLE)
        for k, (listed, big) in enumerate(lists):
            if listed:  # else: one of too many different layouts
                extents[k] = _columns(listed, ">" if big else "<", self._unit, columns[k])
        return _Layout(columns, extents)


def _columns(listed: bytes, order: str, unit: int, columns: Array) -> int:
    """Fill `columns` from a whole PointField list aligned to `unit`; returns the bytes a point needs."""
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
                return _UNUSABLE
            columns[c] = place
            extent = max(extent, place[0] + _SIZES[place[1]])
    return extent or _UNUSABLE
