"""One minute of the comma2k19 data set: a folder of .npy arrays (CAN, radar, IMU, GNSS, poses) as tables.

::

    segment = Comma2k19("b0c9d2329ad1606b|2018-08-02--08-34-47/40")
    ps.read(segment.table("can"))                    # can.frame, 135,468 rows
    ps.read(segment.video(height=219, width=291))    # cam.frame, the pictures of video.hevc

The arrays are stamped with the device's time since it booted. ``global_pose`` has the GPS time of every video frame beside
that clock, which gives the offset to UTC (leap seconds taken off); without it the offset is the one of the quickest fix of
a GNSS receiver. Both are in the schema's metadata: ``penstock.clock = boot+offset``, ``penstock.clock_offset_ns``,
``penstock.clock_from``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import describe, event_schema
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.reread import number_behind, rest_of_place
from ..storage.stored import PathLike, base_name, location, within
from ._dataset_folders import holds
from ._dataset_tables import GNSS, NAME, POSE, VECTOR
from .cdr import CAN_FRAME, IMU, RADAR_SCAN

if TYPE_CHECKING:
    from .video import Video

__all__ = ["Comma2k19", "Comma2k19Table", "inspect_comma2k19", "is_comma2k19", "open_comma2k19"]

_AXES = "forward, right, down"


@dataclass(frozen=True)
class Layout:
    """Where a table's arrays are and what they become.

    `parts` gives by name the path of an array in the folder and its items a row; ``t`` is the time. `columns` says which
    items fill a column: ``(column, part, first item)``; the tables without are put together by their own code.
    """

    kind: str
    fields: Sequence[tuple[str, pa.DataType]]
    parts: dict[str, tuple[str, int]]
    columns: Sequence[tuple[str, str, int]] = ()
    units: str = ""
    extra: dict[str, str] = field(default_factory=dict)


def _pair(folder: str, width: int) -> dict[str, tuple[str, int]]:
    return {"t": (f"processed_log/{folder}/t", 1), "value": (f"processed_log/{folder}/value", width)}


def _axes(folder: str, column: str, units: str) -> Layout:
    fields = (("topic", NAME), (column, VECTOR))
    return Layout(column, fields, _pair(f"IMU/{folder}", 3), ((column, "value", 0),), units, {"axes": _AXES})


def _numbers(folder: str, columns: Sequence[str], units: str) -> Layout:
    fields = (("topic", NAME), *((name, pa.float64()) for name in columns))
    filled = tuple((name, "value", i) for i, name in enumerate(columns))
    return Layout("values", fields, _pair(folder, len(columns)), filled, units)


_FIX = (
    ("latitude", "value", 0),
    ("longitude", "value", 1),
    ("speed", "value", 2),
    ("altitude", "value", 4),
    ("bearing", "value", 5),
)
_RAW_GNSS = (
    "prn",
    "gps_week",
    "gps_tow",
    "glonass_channel",
    "pseudorange",
    "pseudorange_std",
    "pseudorange_rate",
    "pseudorange_rate_std",
    "cn0",
    "carrier_phase",
)
_POSES = "global_pose/frame_"

LAYOUTS: dict[str, Layout] = {
    "can": Layout(
        "can.frame",
        CAN_FRAME,
        {name: (f"processed_log/CAN/raw_can/{name}", 1) for name in ("t", "src", "address", "data")},
    ),
    "radar": Layout("radar.scan", RADAR_SCAN, _pair("CAN/radar", 7), units="m, m/s, dBsm, dB"),
    "imu": Layout(
        "imu",
        IMU,
        {
            "t": ("processed_log/IMU/accelerometer/t", 1),
            "acc": ("processed_log/IMU/accelerometer/value", 3),
            "t2": ("processed_log/IMU/gyro/t", 1),
            "gyro": ("processed_log/IMU/gyro/value", 3),
        },
        (("acc", "acc", 0), ("gyro", "gyro", 0)),
        "m/s2, rad/s",
        {"axes": _AXES},
    ),
    "gnss": Layout("gnss", GNSS, _pair("GNSS/live_gnss_ublox", 6), _FIX, "deg, m, m/s"),
    "gnss_qcom": Layout("gnss", GNSS, _pair("GNSS/live_gnss_qcom", 6), _FIX, "deg, m, m/s"),
    "raw_gnss": _numbers("GNSS/raw_gnss_ublox", _RAW_GNSS, "s, m, m/s"),
    "raw_gnss_qcom": _numbers("GNSS/raw_gnss_qcom", _RAW_GNSS, "s, m, m/s"),
    "pose": Layout(
        "pose",
        POSE,
        {
            "t": (f"{_POSES}times", 1),
            "position": (f"{_POSES}positions", 3),
            "velocity": (f"{_POSES}velocities", 3),
            "orientation": (f"{_POSES}orientations", 4),
        },
        (("position", "position", 0), ("velocity", "velocity", 0), ("orientation", "orientation", 0)),
        "m, m/s",
    ),
    "accelerometer": _axes("accelerometer", "acc", "m/s2"),
    "gyro": _axes("gyro", "gyro", "rad/s"),
    "gyro_bias": _axes("gyro_bias", "gyro", "rad/s"),
    "gyro_uncalibrated": _axes("gyro_uncalibrated", "gyro", "rad/s"),
    "magnetometer": _axes("magnetometer", "mag", "uT"),
    "magnetometer_uncalibrated": _axes("magnetometer_uncalibrated", "mag", "uT"),
    "speed": _numbers("CAN/speed", ("speed",), "m/s"),
    "steering_angle": _numbers("CAN/steering_angle", ("angle",), "deg"),
    "wheel_speed": _numbers("CAN/wheel_speed", ("front_left", "front_right", "rear_left", "rear_right"), "m/s"),
}


@dataclass(frozen=True)
class Comma2k19Table(SourceSpec):
    """One table of a comma2k19 segment as a source.

    ==========================  ===============  ====================================================================
    table                       kind             columns behind ts_event, ts_recv, seq
    ==========================  ===============  ====================================================================
    can                         can.frame        bus (`src`), can_id, ext, fd, len, data
    radar                       radar.scan       tracks less than 20 ms apart are one scan; x forward, y left (m), vr
                                                 (m/s), track_id (CAN address), flags (1: new track), the rest null
    imu                         imu              acc (m/s2), gyro (rad/s); axes forward, right, down, as recorded
    gnss, gnss_qcom             gnss             latitude, longitude (deg), altitude (m), speed (m/s), bearing (deg)
    pose                        pose             position (m), velocity (m/s) in ECEF, orientation (quaternion)
    raw_gnss, raw_gnss_qcom     values           one satellite a row
    accelerometer, gyro,        acc, gyro, mag   one vector a row, axes as imu
    gyro_bias, magnetometer,
    ..._uncalibrated
    speed, steering_angle,      values           m/s and degrees, read from the car's CAN by the authors
    wheel_speed
    ==========================  ===============  ====================================================================

    ``ts_event`` and ``ts_recv`` are the stamp plus the offset; for gnss ``ts_event`` is the time of the fix. The recording
    keeps no length of CAN frames, so ``len`` is always 8. A row whose time, bus or address cannot be is a bad record, as
    are rows that one of the arrays of a table lacks.
    Raises GraphError for an unknown table; FormatError, OSError for folders and arrays that are not as they should be.
    """

    format: ClassVar[str] = "comma2k19"
    path: PathLike
    table: str
    lateness: Duration = "100ms"
    clock_offset_ns: int | None = None
    block_rows: int = 8192

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.table not in LAYOUTS:
            raise GraphError(f"comma2k19 has no table {self.table!r}; choose one of {', '.join(LAYOUTS)}")
        if not 1 <= self.block_rows <= 1 << 20:
            raise GraphError("block_rows must be from 1 to 1048576", got=self.block_rows)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.table}"

    @property
    def schema(self) -> pa.Schema:
        """See above. Opens the arrays that hold the clocks; raises FormatError, OSError."""
        return self._schema(*self._clock())

    def _schema(self, offset: int, source: str) -> pa.Schema:
        layout = LAYOUTS[self.table]
        told = {"table": layout.kind, "units": layout.units, **layout.extra}
        told |= {"clock_offset_ns": str(offset), "clock_from": source}
        return event_schema(layout.fields, source=self.name, format=self.format, clock="boot+offset", **told)

    def _clock(self) -> tuple[int, str]:
        from ._dataset_clock import boot_offset

        if self.clock_offset_ns is not None:
            return self.clock_offset_ns, "given"
        return boot_offset(location(self.path))

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._dataset_arrays import ArraysReader

        offset, source = self._clock()
        layout = LAYOUTS[self.table]
        parts = {name: (within(self.path, path), width) for name, (path, width) in layout.parts.items()}
        return ArraysReader(
            self.table, layout, parts, self._schema(offset, source), offset, self.block_rows, context, position
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """The row that was put aside, of the arrays as they are now; of a radar track the scan that it is in."""
        from ._dataset_arrays import ArraysReader

        row = number_behind("row", rest_of_place(record, within(self.path, LAYOUTS[self.table].parts["t"][0])))
        if row is None:
            return None
        reader = self.open(Context("retry"))
        try:
            return reader.reread(row, record.seq or 0) if isinstance(reader, ArraysReader) else None
        finally:
            reader.close()

    @property
    def block_bound(self) -> int:
        width = sum(width for _, width in LAYOUTS[self.table].parts.values()) * 8
        return max(1 << 20, (self.block_rows + 8192) * (3 * width + 64))


@dataclass(frozen=True)
class Comma2k19:
    """A segment's folder: the one that holds ``processed_log`` and ``global_pose``; a path or any fsspec URL.

    `clock_offset_ns` is what to add to the boot clock for UTC, instead of what the folder tells.
    """

    path: PathLike
    clock_offset_ns: int | None = None

    def __init__(self, path: PathLike, *, clock_offset_ns: int | None = None) -> None:
        object.__setattr__(self, "path", location(path))
        object.__setattr__(self, "clock_offset_ns", clock_offset_ns)

    def tables(self) -> dict[str, int]:
        """Rows by name of the tables whose arrays are all there (radar: tracks). Raises FormatError for damaged ones."""
        from ._npy import NpyArray

        found = {}
        for name, layout in LAYOUTS.items():
            rows = []
            for path, _ in layout.parts.values():
                try:
                    array = NpyArray(within(self.path, path))
                except OSError:
                    break
                rows.append(array.whole)
                array.close()
            else:
                found[name] = min(rows)
        return found

    def table(self, name: str, *, lateness: Duration = "100ms") -> Comma2k19Table:
        """The source of one table. Raises GraphError if there is no such table."""
        return Comma2k19Table(self.path, name, lateness, self.clock_offset_ns)

    def video(self, table: str = "frame", **options: Any) -> Video:
        """``video.hevc`` as pictures (``"frame"``) or packets (``"encoded"``), at the times that ``global_pose`` has.

        `options` are those of `Video`. Raises FormatError if the folder has no clock.
        """
        from ._dataset_clock import boot_offset
        from .video import Video

        path = location(self.path)
        offset = boot_offset(path)[0] if self.clock_offset_ns is None else self.clock_offset_ns
        told = {"timestamps": within(path, f"{_POSES}times"), "start": offset, "container": "h265", "topic": "video"}
        return Video(within(path, "video.hevc"), table, **{**told, **options})


def is_comma2k19(folder: PathLike) -> bool:
    """Whether a folder is a segment of comma2k19."""
    return any(holds(folder, "processed_log", part) for part in ("CAN", "IMU", "GNSS"))


def open_comma2k19(path: PathLike, *, table: str = "can", **options: Any) -> Comma2k19Table | Video:
    """One table of a segment, by default its CAN frames; `options` are those of `Comma2k19Table`.

    The tables ``frame`` and ``encoded`` are those of its video, with the options of `Video`.
    """
    if table in ("frame", "encoded"):
        return Comma2k19(path).video(table, **options)
    return Comma2k19Table(path, table, **options)


def inspect_comma2k19(path: PathLike) -> dict[str, Any]:
    """What a segment holds. Keys: ``format``, ``messages`` (rows), ``topics`` (by table: type, messages, schema), ``time``
    (of the table can, or the first), ``clock``, ``problem``. Raises FormatError if it is no segment."""
    from ._dataset_clock import boot_offset, time_range

    if not is_comma2k19(path):
        raise FormatError(f"{location(path)} is no segment of comma2k19: it has no processed_log/CAN, IMU or GNSS")
    tables = Comma2k19(path).tables()
    problem, offset, source = None, 0, "none"
    try:
        offset, source = boot_offset(location(path))
    except FormatError as error:
        problem = str(error)
    first = "can" if "can" in tables else next(iter(tables), None)
    topics = {
        name: {
            "type": LAYOUTS[name].kind,
            "messages": rows,
            "schema": describe(event_schema(LAYOUTS[name].fields)),
        }
        for name, rows in tables.items()
    }
    span = time_range(within(path, LAYOUTS[first].parts["t"][0]), offset) if first and problem is None else None
    return {
        "format": "comma2k19",
        "messages": sum(tables.values()),
        "topics": topics,
        "time": span,
        "clock": {"offset_ns": offset, "from": source},
        "problem": problem,
    }
