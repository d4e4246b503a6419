"""nuScenes folders (``samples``, ``sweeps``, ``v1.0-*``): each sensor's files as a table.

::

    data = NuScenes("/data/nuscenes")
    front = ps.read(data.channel("CAM_FRONT"))       # cam.encoded
    radar = ps.read(data.channel("RADAR_FRONT"))     # radar.scan
"""

from __future__ import annotations

import re
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
from ._dataset_folders import entries, holds
from ._dataset_tables import LIDAR_SCAN
from ._dataset_times import time_span
from .cdr import CAM_ENCODED, RADAR_SCAN

__all__ = ["NuScenes", "NuScenesChannel", "inspect_nuscenes", "is_nuscenes", "open_nuscenes"]

_FOLDERS = ("samples", "sweeps")
#: First part of a channel's name: table, columns, units, endings of the files' names.
_KINDS: dict[str, tuple[str, Any, str, tuple[str, ...]]] = {
    "CAM": ("cam.encoded", CAM_ENCODED, "px", (".jpg", ".jpeg", ".png")),
    "RADAR": ("radar.scan", RADAR_SCAN, "m, m/s, dBsm, dB", (".pcd",)),
    "LIDAR": ("lidar.scan", LIDAR_SCAN, "m", (".pcd.bin",)),
}
_STAMP = re.compile(r"__(\d{10,18})\.[A-Za-z.]+")


@dataclass(frozen=True)
class NuScenesChannel(SourceSpec):
    """The files of one sensor, key frames (``samples``) and those between (``sweeps``), in time order.

    ``CAM_*`` become ``cam.encoded`` (the files' bytes), ``RADAR_*`` ``radar.scan``, ``LIDAR_*`` ``lidar.scan``. Radar:
    x forward, y left (m) in the sensor's frame, ``vr`` the radial part of vx, vy (not compensated for the car's own motion),
    ``track_id`` the point's id, ``flags`` bits 0-2 dyn_prop, 3-5 ambig_state, 6-10 invalid_state, 11 is_quality_valid;
    snr null. Lidar: ``ring`` of the fifth value, dt_ns null.

    `index` ``"files"`` takes the files that are there, at the microseconds in their names; ``"tables"`` those that
    ``v1.0-*/sample_data.json`` lists, at its timestamps, so that a missing file is noticed. `log` takes the files of one
    log, the part of their names in front of ``__`` (``n015-2018-07-24-11-22-45+0800``). ``ts_recv`` equals ``ts_event``.
    A file that is missing, damaged or larger than `max_file_bytes`, and one without a time, is one bad record.
    Raises GraphError for wrong arguments; FormatError, OSError where the folder is not as described.
    """

    format: ClassVar[str] = "nuscenes"
    path: PathLike
    channel: str
    index: str = "files"
    log: str | None = None
    lateness: Duration = "100ms"
    max_file_bytes: int = MOST_BYTES

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.channel.split("_")[0] not in _KINDS or not re.fullmatch(r"[A-Z0-9_]+", self.channel):
            raise GraphError(f"a nuScenes channel begins with CAM_, RADAR_ or LIDAR_, got {self.channel!r}")
        if self.index not in ("files", "tables"):
            raise GraphError("index must be 'files' or 'tables'", got=self.index)
        if not 0 < self.max_file_bytes <= 1 << 30:
            raise GraphError("max_file_bytes must be from 1 to 1 GiB", got=self.max_file_bytes)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.channel}"

    @property
    def _kind(self) -> tuple[str, Any, str, tuple[str, ...]]:
        return _KINDS[self.channel.split("_")[0]]

    @property
    def schema(self) -> pa.Schema:
        table, fields, units, _ = self._kind
        return event_schema(fields, source=self.name, format=self.format, table=table, units=units)

    def items(self) -> list[Item]:
        """The files in time order. Reads the folders, or the table; raises FormatError, OSError."""
        root = location(self.path)
        here: dict[str, int] = {}
        for folder in _FOLDERS:
            if holds(root, folder, self.channel):
                for entry in entries(within(root, f"{folder}/{self.channel}")):
                    if not entry.folder and not entry.name.startswith("."):
                        here[f"{folder}/{self.channel}/{entry.name}"] = entry.size
        items = self._listed(here) if self.index == "tables" else self._found(here)
        if self.log is not None:
            items = [item for item in items if item.name.rsplit("/", 1)[-1].startswith(f"{self.log}__")]
        if not items:
            raise FormatError(
                f"{root} holds no files of {self.channel}" + (f" of log {self.log!r}" if self.log else "")
            )
        return sorted(items, key=lambda item: (item.time == 0, item.time, item.name))

    def _found(self, here: dict[str, int]) -> list[Item]:
        items = []
        for name, size in here.items():
            stamp = _STAMP.search(name.rsplit("/", 1)[-1])
            time = int(stamp[1]) * 1000 if stamp is not None else 0
            error = self._wrong(name)
            if not 0 < time < 1 << 63:
                time, error = 0, error or "its name tells no time in microseconds; index='tables' looks it up"
            items.append(Item(time, name, size, error))
        return items

    def _listed(self, here: dict[str, int]) -> list[Item]:
        from ._dataset_json import sample_data

        return [
            Item(time, name, here.get(name, 0), self._wrong(name) if name in here else "the file is missing")
            for name, time in sample_data(location(self.path), self.channel)
        ]

    def _wrong(self, name: str) -> str:
        endings = self._kind[3]
        return "" if name.endswith(endings) else f"a file of {self.channel} ends with {' or '.join(endings)}"

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from . import _dataset_converts as converts
        from ._dataset_files import FilesReader

        table, schema = self._kind[0], self.schema
        if table == "cam.encoded":
            convert = converts.pictures(schema, self.channel)
        elif table == "lidar.scan":
            convert = converts.lidar_scans(schema, self.channel, 5)
        else:
            convert = converts.radar_scans(schema, self.channel)
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
class NuScenes:
    """The folder that holds ``samples``, ``sweeps`` and ``v1.0-*``; a path or any fsspec URL."""

    path: PathLike
    index: str = "files"

    def __init__(self, path: PathLike, *, index: str = "files") -> None:
        object.__setattr__(self, "path", location(path))
        object.__setattr__(self, "index", index)
        NuScenesChannel(path, "CAM_FRONT", index)

    def channels(self) -> list[str]:
        """The sensors there are files of, by name."""
        found = {
            entry.name
            for folder in _FOLDERS
            if holds(self.path, folder)
            for entry in entries(within(self.path, folder))
            if entry.folder and entry.name.split("_")[0] in _KINDS
        }
        return sorted(found)

    def channel(self, name: str, *, log: str | None = None, lateness: Duration = "100ms") -> NuScenesChannel:
        """The source of one sensor. Raises GraphError for a name that cannot be one."""
        return NuScenesChannel(self.path, name, self.index, log, lateness)


def is_nuscenes(folder: PathLike) -> bool:
    """Whether a folder is laid out like nuScenes: ``samples`` with folders of channels."""
    try:
        here = {entry.name for entry in entries(folder) if entry.folder}
        return "samples" in here and bool(NuScenes(folder).channels())
    except (OSError, ImportError, ValueError):
        return False


def open_nuscenes(path: PathLike, *, channel: str | None = None, **options: Any) -> NuScenesChannel:
    """One channel, by default the front camera or else the first there is; `options` are those of `NuScenesChannel`."""
    if channel is None:
        here = NuScenes(path).channels()
        channel = "CAM_FRONT" if "CAM_FRONT" in here or not here else here[0]
    return NuScenesChannel(path, channel, **options)


def inspect_nuscenes(path: PathLike) -> dict[str, Any]:
    """What a folder holds, without opening its data. Keys: ``format``, ``messages`` (files), ``topics`` (by channel: type,
    messages, schema, bad), ``time``, ``problem``. Raises FormatError if it is not laid out like nuScenes."""
    if not is_nuscenes(path):
        raise FormatError(f"{location(path)} is no nuScenes folder: it has no samples with folders of channels")
    topics: dict[str, Any] = {}
    times: list[int] = []
    for name in NuScenes(path).channels():
        spec = NuScenesChannel(path, name)
        try:
            items = spec.items()
        except FormatError:
            continue
        times += [item.time for item in items if item.time]
        schema = describe(event_schema(spec._kind[1]))
        bad = sum(bool(item.error) for item in items)
        topics[name] = {"type": spec._kind[0], "messages": len(items), "schema": schema, "bad": bad}
    return {
        "format": "nuScenes",
        "messages": sum(topic["messages"] for topic in topics.values()),
        "topics": topics,
        "time": time_span(min(times), max(times)) if times else None,
        "problem": None,
    }
