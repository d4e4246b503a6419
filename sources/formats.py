"""Every format that is read, and how a file of it is recognised, described and opened.

Modules are imported when their format is tried, so that a program which reads one format does not load the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..pipeline.errors import FormatError
from ._unread import archive_in, what_it_is
from .storage.listing import expand, is_pattern, list_folder, nothing_at
from .storage.stored import PathLike, is_url, location
from .storage.unpack import head_of

__all__ = ["FOLDERS", "FORMATS", "Format", "format_of", "recordings_at"]

_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Format:
    """A format: what people call it, the module that reads it, and the name its functions have there.

    `choice` is the option of ``open`` that names one of its topics (empty: ``.topic(name)`` of what is opened does).
    The module has ``is_<key>(head)`` (for folders and for `by_file` formats also the path), ``inspect_<key>(path)`` and
    ``open_<key>(path, **options)``.
    """

    name: str
    module: str
    key: str
    by_file: bool = False
    choice: str = ""

    def _function(self, verb: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(f".{self.module}", __package__), f"{verb}_{self.key}")
        return found

    def recognises(self, head: bytes, path: str) -> bool:
        """Whether a file that begins with `head` (unpacked) is of this format."""
        return bool(self._function("is")(head, path) if self.by_file else self._function("is")(head))

    def recognises_folder(self, path: str) -> bool:
        """Whether a folder is laid out like this."""
        return bool(self._function("is")(path))

    def describe(self, path: str) -> dict[str, Any]:
        """What a file of it holds."""
        return dict(self._function("inspect")(path))

    def open(self, path: str, **options: Any) -> Any:
        """The source, or what holds several."""
        return self._function("open")(path, **options)


#: In the order in which they are tried: the sure ones first, those that anything could look like last.
FORMATS: tuple[Format, ...] = (
    Format("recording", "replay.recording", "recording"),
    Format("MCAP", "driving.mcap", "mcap"),
    Format("ROS 1 bag", "driving.rosbag1", "rosbag1"),
    Format("rosbag2", "driving.rosbag2", "rosbag2", by_file=True),
    Format("pcap", "network.pcap", "pcap"),
    Format("DBN", "market.dbn", "dbn"),
    Format("Slippi", "games.slippi", "slippi"),
    Format("StarCraft II replay", "games.sc2", "sc2replay"),
    Format("Parquet", "market.parquet_ticks", "parquet_ticks"),
    Format("video", "driving.video", "video"),
    Format("crypto", "market.crypto", "crypto_raw"),
    Format("Tardis CSV", "market.tardis", "tardis"),
    Format("Binance CSV", "market.binance_csv", "binance_csv"),
    Format("LOBSTER", "market.lobster", "lobster"),
    Format("Vector BLF", "driving.blf", "blf"),
    Format("Vector ASC", "driving.asc", "asc"),
    Format("PEAK TRC", "driving.trc", "trc"),
    Format("candump", "driving.candump", "candump"),
    Format("NDJSON", "text.ndjson", "ndjson"),
    Format("JSON array", "games.json_array", "json_array"),
    Format("NASDAQ ITCH 5.0", "market.itch", "itch"),
    Format("osu! replay", "games.osu", "osr"),
)

#: Folders that are one recording.
FOLDERS: tuple[Format, ...] = (
    Format("comma2k19", "driving.comma2k19", "comma2k19", choice="table"),
    Format("KITTI", "driving.kitti", "kitti", choice="topic"),
    Format("nuScenes", "driving.nuscenes", "nuscenes", choice="channel"),
)


def format_of(path: PathLike) -> Format:
    """The format of a file or a folder, by its content. Raises FormatError if it is empty or of no known one; OSError."""
    place = location(path)
    if not is_url(place) and Path(place).is_dir():
        return _of_folder(place)
    try:
        head, compression = head_of(place, _HEAD)
    except IsADirectoryError:
        raise FormatError(
            f"{place} is a folder: sources.files({place!r}) reads its files as one; a data set at a URL is opened by its "
            "class, such as sources.NuScenes"
        ) from None
    if not head:
        raise FormatError(f"{place} is empty")
    if (archive := archive_in(head)) is not None:
        raise FormatError(f"{place} is {archive}")
    for candidate in FORMATS:
        if candidate.recognises(head, place):
            return candidate
    if (what := what_it_is(head, compression)) is not None:
        raise FormatError(f"{place} is {what}")
    names = ", ".join(known.name for known in FORMATS)
    inside = "" if compression == "none" else f" inside {compression}"
    raise FormatError(f"{place} begins{inside} with {head[:16].hex(' ')}, which is none of {names}")


def recordings_at(path: PathLike) -> tuple[list[str], bool]:
    """The recordings that `path` names, and whether it may name several: by wildcards, or as a folder that is none itself.

    Raises FormatError if there are none.
    """
    place = location(path)
    if not is_url(place) and Path(place).is_dir():
        if _folder_format(place) is not None:
            return [place], False
        found = list_folder(place)
    else:
        found = expand(place) if is_url(place) or is_pattern(place) else [place]
    if not found:
        raise FormatError(nothing_at(place))
    return found, found != [place]


def _folder_format(place: str) -> Format | None:
    """The format of a folder that is one recording."""
    if (Path(place) / "metadata.yaml").is_file():
        return next(known for known in FORMATS if known.key == "rosbag2")
    return next((known for known in FOLDERS if known.recognises_folder(place)), None)


def _of_folder(place: str) -> Format:
    found = _folder_format(place)
    if found is None:
        names = ", ".join(("rosbag2", *(known.name for known in FOLDERS)))
        what = f"{place} is a folder, and none of {names}"
        if not list_folder(place):
            raise FormatError(f"{what}; {nothing_at(place)}")
        raise FormatError(f"{what}; sources.files({place!r}) reads its files as one, or name one of them")
    return found
