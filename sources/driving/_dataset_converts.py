"""From files to tables: pictures, lidar and radar scans, and lines of oxts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.memory import BufferPool
from ._dataset_files import Content, Convert, event_columns, kept
from ._dataset_pictures import picture_head
from ._dataset_tables import LIDAR_POINT, one_name, points_column
from ._pcd import pcd_points
from .cdr import POINT

__all__ = ["lidar_scans", "oxts_rows", "pictures", "radar_scans"]

_CODECS = ("jpeg", "png")
_OXTS = 30
#: Bits of `flags` of a nuScenes radar point: dyn_prop, ambig_state, invalid_state, is_quality_valid.
_FLAGS = (("dyn_prop", 0, 7), ("ambig_state", 3, 7), ("invalid_state", 6, 31), ("is_quality_valid", 11, 1))


def pictures(schema: pa.Schema, topic: str) -> Convert:
    """Rows of `cam.encoded`."""

    def convert(contents: Sequence[Content], pool: BufferPool) -> Any:
        good, heads, damaged = kept(contents, lambda c: picture_head(c.view))
        if not good:
            return None, damaged
        rows = len(good)
        offsets = np.zeros(rows + 1, np.int64)
        np.cumsum([len(c.view) for c in good], out=offsets[1:])
        lease = pool.take(int(offsets[-1]))
        out: Any = lease.array(np.uint8, int(offsets[-1]))
        for i, content in enumerate(good):
            out[offsets[i] : offsets[i + 1]] = np.frombuffer(content.view, np.uint8)
        buffers = [None, pa.py_buffer(offsets), lease.buffer(0, int(offsets[-1]))]
        codes = pa.array([_CODECS.index(codec) for codec, _, _ in heads], pa.int8())
        columns = [
            *event_columns(good),
            one_name(topic, rows),
            one_name(topic, rows),
            pa.DictionaryArray.from_arrays(codes, pa.array(_CODECS, pa.utf8())),
            pa.array([width for _, width, _ in heads], pa.int32()),
            pa.array([height for _, _, height in heads], pa.int32()),
            pa.array([True] * rows, pa.bool_()),
            pa.Array.from_buffers(pa.large_binary(), rows, buffers),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema), damaged

    return convert


def lidar_scans(schema: pa.Schema, topic: str, floats: int) -> Convert:
    """Rows of `lidar.scan` from files of `floats` little-endian float32 a point: x, y, z, intensity and, fifth, ring."""

    def look(content: Content) -> npt.NDArray[Any]:
        if len(content.view) % (4 * floats):
            raise ValueError(f"its {len(content.view)} bytes are no whole number of points of {4 * floats} bytes")
        return np.frombuffer(content.view, "<f4").reshape(-1, floats)

    def convert(contents: Sequence[Content], pool: BufferPool) -> Any:
        good, scans, damaged = kept(contents, look)
        if not good:
            return None, damaged
        points = np.concatenate(scans)
        fields = {name: points[:, i] for i, name in enumerate(("x", "y", "z", "intensity"))}
        if floats > 4:
            with np.errstate(invalid="ignore"):
                rings = np.where((points[:, 4] >= 0) & (points[:, 4] < 65536), points[:, 4], 0)
            fields["ring"] = rings.astype(np.uint16)
        return _scans(schema, topic, good, [len(scan) for scan in scans], LIDAR_POINT, fields, len(points)), damaged

    return convert


def radar_scans(schema: pa.Schema, topic: str) -> Convert:
    """Rows of `radar.scan` from nuScenes .pcd files; ``vr`` is the radial part of vx and vy (not compensated)."""
    needed = ("x", "y", "z", "rcs", "vx", "vy", "id")

    def look(content: Content) -> npt.NDArray[Any]:
        points = pcd_points(content.view)
        lacking = [name for name in needed if name not in (points.dtype.names or ())]
        if lacking or any(points.dtype[name].shape for name in points.dtype.names or ()):
            raise ValueError(f"its points have no single {lacking[0] if lacking else 'values'}: no nuScenes radar file")
        lost = len(points) and any(np.isnan(points[name][0]) for name in needed if points.dtype[name].kind == "f")
        return points[:0] if lost else points  # a first point that is not a number stands for no points at all

    def convert(contents: Sequence[Content], pool: BufferPool) -> Any:
        good, scans, damaged = kept(contents, look)
        if not good:
            return None, damaged

        def whole(name: str, kind: Any) -> npt.NDArray[Any]:
            with np.errstate(invalid="ignore"):
                parts = [
                    scan[name].astype(kind) if name in scan.dtype.names else np.zeros(len(scan), kind) for scan in scans
                ]
            return np.concatenate(parts)

        x, y = whole("x", np.float64), whole("y", np.float64)
        distance = np.sqrt(x * x + y * y)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            vr = (whole("vx", np.float64) * x + whole("vy", np.float64) * y) / distance
            fields = {"x": x, "y": y, "z": whole("z", np.float32), "rcs": whole("rcs", np.float32), "vr": vr}
            fields = {name: values.astype(np.float32) for name, values in fields.items()}
        flags = np.zeros(len(x), np.uint16)
        for name, shift, mask in _FLAGS:
            flags |= ((whole(name, np.int64) & mask) << shift).astype(np.uint16)
        fields |= {"track_id": (whole("id", np.int64) & 0xFFFFFFFF).astype(np.uint32), "flags": flags}
        return _scans(schema, topic, good, [len(scan) for scan in scans], POINT, fields, len(x)), damaged

    return convert


def _scans(
    schema: pa.Schema,
    topic: str,
    good: Sequence[Content],
    counts: Sequence[int],
    point: pa.StructType,
    fields: Mapping[str, npt.NDArray[Any]],
    points: int,
) -> pa.RecordBatch:
    names = one_name(topic, len(good))
    sizes = np.array(counts, np.int64)
    columns = [*event_columns(good), names, names, pa.array(sizes.astype(np.uint32))]
    return pa.RecordBatch.from_arrays([*columns, points_column(point, sizes, fields, points)], schema=schema)


def oxts_rows(schema: pa.Schema, topic: str) -> Convert:
    """Rows of `imu` (topic ``imu``) or `gnss` from files of the 30 values that KITTI's OXTS receiver gives."""

    def look(content: Content) -> list[float]:
        words = bytes(content.view[:4096]).split()
        if len(content.view) > 4096 or len(words) != _OXTS:
            raise ValueError(f"it holds {len(words)} values, not the {_OXTS} of an OXTS packet")
        return [float(word) for word in words]

    def convert(contents: Sequence[Content], pool: BufferPool) -> Any:
        good, packets, damaged = kept(contents, look)
        if not good:
            return None, damaged
        values, rows = np.array(packets, np.float64), len(good)
        if topic == "imu":
            own: list[Any] = [_vectors(values[:, 11:14]), _vectors(values[:, 17:20])]
        else:
            speed = np.sqrt(values[:, 6] ** 2 + values[:, 7] ** 2)
            bearing = np.mod(90.0 - values[:, 5] * (180.0 / np.pi), 360.0)
            own = [pa.array(column) for column in (*values[:, :3].T.copy(), speed, bearing)]
        return pa.RecordBatch.from_arrays([*event_columns(good), one_name(topic, rows), *own], schema=schema), damaged

    return convert


def _vectors(values: npt.NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), 3)
