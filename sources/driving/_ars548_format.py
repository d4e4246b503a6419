"""Continental ARS548 RDI packets (SOME/IP over UDP) as numpy records: layouts, checks, and the columns they become.

After tier4/nebula (Apache-2.0), continental_ars548.hpp; all numbers are big-endian. Two things are read as the layout has
them and not as nebula's decoder does: the relative velocity of an object (nebula writes the acceleration over it), and
the relative acceleration (which it leaves 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .cdr import POINT

__all__ = [
    "DETECTION",
    "KINDS",
    "OBJECT",
    "STATUS",
    "detection_columns",
    "detection_fields",
    "kind_of",
    "object_columns",
    "packet_error",
    "point_columns",
    "sensor_time",
    "status_columns",
]

Array = npt.NDArray[Any]

_METHODS = {336: "detections", 329: "objects", 380: "status", 396: "filter status"}
KINDS = ("detections", "objects", "status")

_STAMP = [("nanoseconds", ">u4"), ("seconds", ">u4"), ("sync", "u1")]
#: Behind the 16-byte SOME/IP header comes a 20-byte end-to-end protection header (profile 7).
_LIST_HEAD = [("head", "V8"), ("someip", "V8"), ("e2e", "V20"), *_STAMP, ("qualifier", ">u4"), ("extended", "u1")]

_DETECTION = np.dtype(
    [
        ("azimuth", ">f4"),
        ("azimuth_std", ">f4"),
        ("invalid", "u1"),
        ("elevation", ">f4"),
        ("elevation_std", ">f4"),
        ("range", ">f4"),
        ("range_std", ">f4"),
        ("range_rate", ">f4"),
        ("range_rate_std", ">f4"),
        ("rcs", "i1"),
        ("measurement_id", ">u2"),
        ("existence", "u1"),
        ("classification", "u1"),
        ("multi_target", "u1"),
        ("object_id", ">u2"),
        ("ambiguity", "u1"),
        ("sort_index", ">u2"),
    ]
)
_ORIGIN = [(f"origin_{n}", ">f4") for a in ("x", "y", "z", "roll", "pitch", "yaw") for n in (a, f"{a}_std")]
_DETECTIONS = np.dtype(
    [
        *_LIST_HEAD,
        ("origin_invalid", ">u2"),
        *_ORIGIN,
        ("list_invalid", "u1"),
        ("detections", _DETECTION, 800),
        ("velocity_min", ">f4"),
        ("velocity_max", ">f4"),
        ("count", ">u4"),
        ("azimuth_correction", ">f4"),
        ("elevation_correction", ">f4"),
        ("alignment_status", "u1"),
        ("reserved", "V14"),
    ]
)
_PLANE = [("x", "x"), ("x_std", "x_std"), ("y", "y"), ("y_std", "y_std"), ("covariance", "covariance")]


def _plane(name: str) -> list[tuple[str, str]]:
    return [(f"{name}_invalid", "u1"), *((f"{name}_{part}", ">f4") for part, _ in _PLANE)]


_CLASSES = ("car", "truck", "motorcycle", "bicycle", "pedestrian", "animal", "hazard", "unknown")
_OBJECT = np.dtype(
    [
        ("status_sensor", ">u2"),
        ("id", ">u4"),
        ("age", ">u2"),
        ("status_measurement", "u1"),
        ("status_movement", "u1"),
        ("position_invalid", ">u2"),
        ("position_reference", "u1"),
        *((f"{axis}{std}", ">f4") for axis in "xyz" for std in ("", "_std")),
        ("xy_covariance", ">f4"),
        ("orientation", ">f4"),
        ("orientation_std", ">f4"),
        ("existence_invalid", "u1"),
        ("existence", ">f4"),
        ("existence_ppv", ">f4"),
        *((f"class_{name}", "u1") for name in _CLASSES),
        ("overdrivable", "u1"),
        ("underdrivable", "u1"),
        *_plane("v"),
        *_plane("v_rel"),
        *_plane("a"),
        *_plane("a_rel"),
        ("rate_invalid", "u1"),
        ("orientation_rate", ">f4"),
        ("orientation_rate_std", ">f4"),
        ("length_status", ">u4"),
        ("length_invalid", "u1"),
        ("length", ">f4"),
        ("length_std", ">f4"),
        ("width_status", ">u4"),
        ("width_invalid", "u1"),
        ("width", ">f4"),
        ("width_std", ">f4"),
    ]
)
_OBJECTS_HEAD = np.dtype([*_LIST_HEAD, ("count", "u1")])
_STATUS = np.dtype(
    [
        ("head", "V8"),
        *_STAMP,
        ("sw_major", "u1"),
        ("sw_minor", "u1"),
        ("sw_patch", "u1"),
        *((name, ">f4") for name in ("longitudinal", "lateral", "vertical", "yaw", "pitch")),
        ("plug_orientation", "u1"),
        *((name, ">f4") for name in ("length", "width", "height", "wheelbase")),
        ("maximum_distance", ">u2"),
        *((n, "u1") for n in ("frequency_slot", "cycle_time", "time_slot", "hcc", "powersave_standstill")),
        ("ip_0", ">u4"),
        ("ip_1", ">u4"),
        ("configuration_counter", "u1"),
        *(
            (f"{name}_status", "u1")
            for name in (
                *("longitudinal_velocity", "longitudinal_acceleration", "lateral_acceleration", "yaw_rate"),
                *("steering_angle", "driving_direction", "characteristic_speed"),
                *("radar", "voltage", "temperature", "blockage"),
            )
        ),
    ]
)

#: Bytes of a packet and the length in its header, by what it holds.
_SIZES = {"detections": {35336}, "objects": {9401, 37452}, "status": {84}}


def _arrow(layout: np.dtype[Any], names: Sequence[str]) -> pa.StructType:
    return pa.struct([(name, pa.from_numpy_dtype(layout[name].newbyteorder("="))) for name in names])


_SKIPPED = ("status_sensor", "length_status", "width_status")
#: A detection as the sensor gives it: rad, m, m/s, dBsm, %; `invalid` bits: range, its std, azimuth, std, elevation, ...
DETECTION = _arrow(_DETECTION, _DETECTION.names or ())
#: An object: m, m/s, m/s2, rad, rad/s, % for existence and classes. `v`, `a`: over ground; `v_rel`, `a_rel`: to the car.
OBJECT = _arrow(_OBJECT, [name for name in _OBJECT.names or () if name not in _SKIPPED])
_LIST_FIELDS = [
    *(name for name, _ in _ORIGIN),
    *("velocity_min", "velocity_max", "azimuth_correction", "elevation_correction", "alignment_status"),
]
#: Columns of the sensor's status: m, rad, ms.
STATUS = _arrow(_STATUS, [name for name in _STATUS.names or () if name not in ("head", "nanoseconds", "seconds")])


def kind_of(packet: bytes) -> str | None:
    """What a packet holds (detections, objects, status, filter status), or None if it is none of the radar's."""
    if len(packet) < 8 or packet[:2] != b"\0\0":
        return None
    return _METHODS.get(int.from_bytes(packet[2:4], "big"))


def packet_error(packet: bytes, kind: str) -> str | None:
    """What is wrong with a packet's lengths and counts; None if it can be decoded."""
    sizes = _SIZES[kind]
    stated = int.from_bytes(packet[4:8], "big") + 8
    if len(packet) not in sizes:
        return f"a packet of {kind} has {' or '.join(map(str, sorted(sizes)))} bytes, not {len(packet)}"
    if stated != len(packet):
        return f"its header states {stated} bytes, it has {len(packet)}"
    if kind == "detections":
        count, most = int.from_bytes(packet[35309:35313], "big"), 800
    elif kind == "objects":
        count, most = packet[50], (len(packet) - _OBJECTS_HEAD.itemsize) // _OBJECT.itemsize
    else:
        return None
    return f"{count} {kind} where there is room for {most}" if count > most else None


def sensor_time(packet: bytes, kind: str) -> tuple[int, bool]:
    """The sensor's time in ns and whether it says that it is in step with the network's clock."""
    at = 8 if kind == "status" else 36
    ns, seconds = int.from_bytes(packet[at : at + 4], "big"), int.from_bytes(packet[at + 4 : at + 8], "big")
    return seconds * 10**9 + ns, packet[at + 8] == 1 and ns < 10**9


def _joined(packets: Sequence[bytes]) -> tuple[list[int], Array]:
    """How many detections each packet has, and all of them."""
    found = [np.frombuffer(packet, _DETECTIONS)[0] for packet in packets]
    counts = [int(head["count"]) for head in found]
    parts = [head["detections"][:n] for head, n in zip(found, counts, strict=True)]
    return counts, np.concatenate(parts) if parts else np.empty(0, _DETECTION)


def _plain(values: Array, mask: Array | None = None) -> pa.Array:
    return pa.array(np.ascontiguousarray(values, values.dtype.newbyteorder("=")), mask=mask)


def point_columns(packets: Sequence[bytes]) -> dict[str, pa.Array]:
    """`n_points` and `points` of `radar.scan`. What the sensor marks as invalid is null; `flags` are these marks.

    Bits 0 to 7 of `flags` are invalid range, its deviation, azimuth, its deviation, elevation, its, range rate, its; bits
    8 to 15 the classification. Without elevation a point is in the plane of the sensor and its z null.
    """
    from ._radar_reader import lists

    counts, found = _joined(packets)
    invalid = found["invalid"]
    flat = (invalid & 0x10) != 0
    azimuth, distance = found["azimuth"].astype(np.float64), found["range"].astype(np.float64)
    elevation = np.where(flat, 0.0, found["elevation"].astype(np.float64))
    with np.errstate(all="ignore"):
        ahead = np.cos(elevation) * distance
        x, y, z = np.cos(azimuth) * ahead, np.sin(azimuth) * ahead, np.sin(elevation) * distance
        xyz = [values.astype(np.float32) for values in (x, y, z)]
    nowhere = (invalid & 0x05) != 0
    rows = len(found)
    children = [
        pa.array(xyz[0], mask=nowhere),
        pa.array(xyz[1], mask=nowhere),
        pa.array(xyz[2], mask=nowhere | flat),
        _plain(found["range_rate"], (invalid & 0x40) != 0),
        _plain(found["rcs"].astype(np.float32)),
        pa.nulls(rows, pa.float32()),
        _plain(found["object_id"].astype(np.uint32)),
        _plain(invalid.astype(np.uint16) | found["classification"].astype(np.uint16) << 8),
    ]
    return {"n_points": pa.array(counts, pa.uint32()), "points": lists(POINT, counts, children)}


def detection_columns(packets: Sequence[bytes]) -> dict[str, pa.Array]:
    """Everything that detection lists say: one column for each field of the list, and `detections`."""
    from ._radar_reader import lists

    counts, found = _joined(packets)
    heads = np.concatenate([np.frombuffer(packet, _DETECTIONS)[["sync", *_LIST_FIELDS]] for packet in packets])
    children = [_plain(found[name]) for name in DETECTION.names]
    columns = {name: _plain(heads[name]) for name in ("sync", *_LIST_FIELDS)}
    columns["n_detections"] = pa.array(counts, pa.uint32())
    return {**columns, "detections": lists(DETECTION, counts, children)}


def detection_fields() -> list[tuple[str, pa.DataType]]:
    """The columns of `detection_columns`, in order."""
    kinds = [(name, _arrow(_DETECTIONS, [name])[0].type) for name in ("sync", *_LIST_FIELDS)]
    return [*kinds, ("n_detections", pa.uint32()), ("detections", pa.list_(DETECTION))]


def object_columns(packets: Sequence[bytes]) -> dict[str, pa.Array]:
    """`sync`, `n_objects` and `objects` of `radar.objects`."""
    from ._radar_reader import lists

    start = _OBJECTS_HEAD.itemsize
    counts = [packet[start - 1] for packet in packets]
    parts = [np.frombuffer(packet, _OBJECT, n, start) for packet, n in zip(packets, counts, strict=True)]
    found = np.concatenate(parts) if parts else np.empty(0, _OBJECT)
    children = [_plain(found[name]) for name in OBJECT.names]
    return {
        "sync": pa.array([packet[44] for packet in packets], pa.uint8()),
        "n_objects": pa.array(counts, pa.uint32()),
        "objects": lists(OBJECT, counts, children),
    }


def status_columns(packets: Sequence[bytes]) -> dict[str, pa.Array]:
    """The columns of `STATUS`."""
    found = np.concatenate([np.frombuffer(packet, _STATUS) for packet in packets])
    return {name: _plain(found[name]) for name in STATUS.names}
