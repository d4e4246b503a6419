"""KITTI raw drives: a folder of pictures, lidar scans and GNSS/IMU packets, a file each, as tables.

::

    drive = Kitti("2011_09_26/2011_09_26_drive_0001_sync")
    left = ps.read(drive.topic("image_02"))          # cam.encoded
    scans = ps.read(drive.topic("velodyne_points"))  # lidar.scan

A topic's folder has ``timestamps.txt``, one line a file, and ``data`` with the files, numbered from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import describe, event_schema
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location, within
from ._dataset_files import MOST_BYTES, Item, bound_of, ranges, reread_file
from ._dataset_folders import entries, holds, read_text
from ._dataset_tables import GNSS, LIDAR_SCAN
from ._dataset_times import civil_ns, time_span, zone
from .cdr import CAM_ENCODED, IMU

__all__ = ["Kitti", "KittiTopic", "inspect_kitti", "is_kitti", "open_kitti"]

_CAMERAS = ("image_00", "image_01", "image_02", "image_03")
#: Topic: folder, table, columns, units, endings of the files' names.
_TOPICS: dict[str, tuple[str, str, Any, str, tuple[str, ...]]] = {
    **{camera: (camera, "cam.encoded", CAM_ENCODED, "px", (".png", ".jpg")) for camera in _CAMERAS},
    "velodyne_points": ("velodyne_points", "lidar.scan", LIDAR_SCAN, "m", (".bin",)),
    "imu": ("oxts", "imu", IMU, "m/s2, rad/s", (".txt",)),
    "gnss": ("oxts", "gnss", GNSS, "deg, m, m/s", (".txt",)),
}
_MOST_TIMES = 256 << 20


@dataclass(frozen=True)
class KittiTopic(SourceSpec):
    """One sensor of a KITTI raw drive as a source.

    ==========================  ===========  ===========================================================================
    topic                       table        columns behind ts_event, ts_recv, seq
    ==========================  ===========  ===========================================================================
    image_00 ... image_03       cam.encoded  topic, frame_id, codec, width, height, keyframe, data (the file's bytes)
    velodyne_points             lidar.scan   topic, frame_id, n_points, points (x forward, y left, z up in m, intensity)
    imu                         imu          acc (m/s2), gyro (rad/s) in the car's axes: x forward, y left, z up
    gnss                        gnss         latitude, longitude (deg), altitude (m), speed (m/s), bearing (deg)
    ==========================  ===========  ===========================================================================

    ``ts_event`` and ``ts_recv`` are the line of ``timestamps.txt`` with all its digits, as a time in `timezone` (KITTI's
    files do not name one; they were recorded by the clock of Karlsruhe, "Europe/Berlin"). `seq` counts the files in time
    order. A file that is missing, damaged or larger than `max_file_bytes`, and one without a time, is one bad record.
    Raises GraphError for wrong arguments; FormatError, OSError where the topic's folder is not as described.
    """

    format: ClassVar[str] = "kitti"
    path: PathLike
    topic: str
    timezone: str = "UTC"
    lateness: Duration = "100ms"
    max_file_bytes: int = MOST_BYTES

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.topic not in _TOPICS:
            raise GraphError(f"KITTI has no topic {self.topic!r}; choose one of {', '.join(_TOPICS)}")
        zone(self.timezone)
        if not 0 < self.max_file_bytes <= 1 << 30:
            raise GraphError("max_file_bytes must be from 1 to 1 GiB", got=self.max_file_bytes)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.topic}"

    @property
    def schema(self) -> pa.Schema:
        _, table, fields, units, _ = _TOPICS[self.topic]
        return event_schema(fields, source=self.name, format=self.format, table=table, units=units)

    def items(self) -> list[Item]:
        """The files in time order. Reads the folder; raises FormatError, OSError."""
        folder, _, _, _, endings = _TOPICS[self.topic]
        return _files(location(self.path), folder, endings, self.timezone)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from . import _dataset_converts as converts
        from ._dataset_files import FilesReader

        table, schema = _TOPICS[self.topic][1], self.schema
        if table == "cam.encoded":
            convert = converts.pictures(schema, self.topic)
        elif table == "lidar.scan":
            convert = converts.lidar_scans(schema, self.topic, 4)
        else:
            convert = converts.oxts_rows(schema, self.topic)
        folder = location(self.path)
        return FilesReader(folder, self.format, self.items(), convert, context, split, position, self.max_file_bytes)

    def retry(self, record: BadRecord) -> Decoded | None:
        """The row of the file that was put aside, read again."""
        return reread_file(self, record)

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` ranges of files."""
        return ranges(len(self.items()), wanted)

    @property
    def block_bound(self) -> int:
        return bound_of(self.items(), self.max_file_bytes)


@dataclass(frozen=True)
class Kitti:
    """A drive's folder (``..._drive_0001_sync`` or ``..._extract``); a path or any fsspec URL."""

    path: PathLike
    timezone: str = "UTC"

    def __init__(self, path: PathLike, *, timezone: str = "UTC") -> None:
        object.__setattr__(self, "path", location(path))
        object.__setattr__(self, "timezone", timezone)
        zone(timezone)

    def topics(self) -> dict[str, int]:
        """Files by topic, missing and damaged ones included, of the topics there are."""
        folders = [entry.name for entry in entries(self.path) if entry.folder]
        return {name: len(self.topic(name).items()) for name, told in _TOPICS.items() if told[0] in folders}

    def topic(self, name: str, *, lateness: Duration = "100ms") -> KittiTopic:
        """The source of one topic. Raises GraphError if there is no such topic."""
        return KittiTopic(self.path, name, self.timezone, lateness)


def _files(path: str, folder: str, endings: tuple[str, ...], timezone: str) -> list[Item]:
    if not holds(path, folder, "timestamps.txt") or not holds(path, folder, "data"):
        raise FormatError(
            f"{within(path, folder)} needs a file timestamps.txt and a folder data: is it a KITTI raw drive?"
        )
    at = zone(timezone)
    listed = entries(within(path, f"{folder}/data"))
    here = {entry.name: entry.size for entry in listed if not entry.folder and not entry.name.startswith(".")}
    numbered = {name.rsplit(".", 1)[0]: name for name in here if name.endswith(endings)}
    lines = read_text(within(path, f"{folder}/timestamps.txt"), _MOST_TIMES).decode("latin-1").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    items, seen = [], dict[str, None]()
    for i, line in enumerate(lines):
        name = numbered.get(f"{i:010d}")
        error = "" if name is not None else "the file is missing"
        try:
            time = civil_ns(line.strip(), at)
        except (ValueError, OverflowError) as why:
            time, error = 0, error or f"line {i + 1} of timestamps.txt: {why}"
        name = name or f"{i:010d}{endings[0]}"
        seen[name] = None
        items.append(Item(time, f"{folder}/data/{name}", here.get(name, 0), error))
    untimed = [Item(0, f"{folder}/data/{name}", here[name], "timestamps.txt has no line for it") for name in here]
    extra = [item for item in untimed if item.name.rsplit("/", 1)[1] not in seen]
    known = [item for item in items if item.time]
    return [*sorted(known, key=lambda item: item.time), *(item for item in items if not item.time), *extra]


def is_kitti(folder: PathLike) -> bool:
    """Whether a folder is a KITTI raw drive."""
    return any(holds(folder, name, "timestamps.txt") for name in (*_CAMERAS, "velodyne_points", "oxts"))


def open_kitti(path: PathLike, *, topic: str | None = None, **options: Any) -> KittiTopic:
    """One topic of a drive, by default the first camera there is; `options` are those of `KittiTopic`."""
    if topic is None:
        topic = next((name for name, told in _TOPICS.items() if holds(path, told[0], "timestamps.txt")), "image_02")
    return KittiTopic(path, topic, **options)


def inspect_kitti(path: PathLike) -> dict[str, Any]:
    """What a drive holds, without opening its data. Keys: ``format``, ``messages`` (files), ``topics`` (type, messages,
    schema, bad), ``time``, ``problem``. Raises FormatError if it is no KITTI raw drive."""
    if not is_kitti(path):
        raise FormatError(f"{location(path)} is no KITTI raw drive: it has no image_00 ... oxts with a timestamps.txt")
    topics: dict[str, Any] = {}
    times: list[int] = []
    problems = []
    for name, told in _TOPICS.items():
        if not holds(path, told[0], "timestamps.txt"):
            continue
        try:
            items = KittiTopic(path, name).items()
        except FormatError as error:
            problems.append(str(error))
            continue
        times += [item.time for item in items if item.time]
        bad = sum(bool(item.error) for item in items)
        schema = describe(event_schema(told[2]))
        topics[name] = {"type": told[1], "messages": len(items), "schema": schema, "bad": bad}
    return {
        "format": "KITTI raw",
        "messages": sum(topic["messages"] for topic in topics.values()),
        "topics": topics,
        "time": time_span(min(times), max(times)) if times else None,
        "problem": "; ".join(problems) or None,
    }
