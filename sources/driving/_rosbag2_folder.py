"""The files of a rosbag2 recording: one file, or a folder with ``metadata.yaml`` or, failing that, by their numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...pipeline.errors import FormatError
from ..storage.stored import base_name, is_url, location, open_stored, within
from ._mcap_format import MAGIC as MCAP_MAGIC

__all__ = ["BagFiles", "bag_files"]

_METADATA = "metadata.yaml"
_METADATA_LIMIT = 16 << 20
#: Names of the files of a bag; rosbag2's file compression adds ``.zstd``.
_SUFFIX = re.compile(r"\.(db3|mcap)(\.(zstd|zst|lz4|gz))?$")


@dataclass(frozen=True, slots=True)
class BagFiles:
    """Where a recording's files are, in order, and how they are stored (``sqlite3`` or ``mcap``)."""

    path: str
    files: tuple[str, ...]
    storage: str
    metadata: bool


def bag_files(path: str) -> BagFiles:
    """The files of the recording at `path`. Raises FormatError if it is none or a file is missing, OSError."""
    place = location(path)
    folder = not is_url(place) and Path(place).is_dir()
    if not folder and base_name(place) != _METADATA:
        return BagFiles(place, (place,), _storage(place), False)
    if not folder:
        place = place[: -len(_METADATA)].rstrip("/") or "."
    if is_url(place) or (Path(place) / _METADATA).is_file():
        return _listed(place)
    names = [p.name for p in Path(place).iterdir() if _SUFFIX.search(p.name) and p.is_file()]
    if not names:
        raise FormatError(f"{place}: no rosbag2 recording: the folder has no {_METADATA}, no .db3 and no .mcap file")
    kinds = {_SUFFIX.search(name)[1] for name in names}  # type: ignore[index]
    if len(kinds) > 1:
        raise FormatError(f"{place}: holds both .db3 and .mcap files and no {_METADATA}: open the file you mean")
    files = tuple(within(place, name) for name in sorted(names, key=_natural))
    return BagFiles(place, files, _storage(files[0]), False)


def _natural(name: str) -> list[Any]:
    """``bag_10.db3`` behind ``bag_9.db3``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _listed(folder: str) -> BagFiles:
    place = within(folder, _METADATA)
    found = _metadata(place)
    listed = found.get("relative_file_paths")
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) and name for name in listed):
        raise FormatError(f"{place}: lists no files (relative_file_paths)")
    files = []
    for name in listed:
        # Early releases wrote the folder's name in front; nothing outside the folder is ever opened.
        file = within(folder, PurePosixPath(name).name)
        if not is_url(file) and not Path(file).is_file():
            raise FormatError(
                f"{file} is missing, and {place} lists it: add it, or read the files that are there one by one"
            )
        files.append(file)
    storage = found.get("storage_identifier")
    if storage == "mcap" and str(found.get("compression_mode")).upper() == "MESSAGE":
        raise FormatError(
            f"{place}: its messages are compressed one by one inside MCAP, which is not read: "
            "write the bag anew with compression_mode file or none (ros2 bag convert)"
        )
    return BagFiles(folder, tuple(files), storage if storage in ("sqlite3", "mcap") else _storage(files[0]), True)


def _metadata(place: str) -> dict[str, Any]:
    with open_stored(place) as stored:
        if stored.size > _METADATA_LIMIT:
            raise FormatError(f"{place}: {stored.size} bytes are too many for a rosbag2 {_METADATA}")
        content = stored.read(0, stored.size)
    from ruamel.yaml import YAML

    try:
        found = YAML(typ="safe").load(content.decode("utf-8"))
        information = found["rosbag2_bagfile_information"]
    except Exception as error:  # the parser and what it builds raise many kinds
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{place}: not a rosbag2 {_METADATA}: {line}") from None
    if not isinstance(information, dict):
        raise FormatError(f"{place}: not a rosbag2 {_METADATA}: rosbag2_bagfile_information is no mapping")
    return information


def _storage(file: str) -> str:
    """By the content where the file is plain, by the name where it is compressed."""
    with open_stored(file) as stored:
        head = stored.read(0, len(MCAP_MAGIC))
    if head == MCAP_MAGIC:
        return "mcap"
    name = _SUFFIX.search(base_name(file))
    return "mcap" if name and name[1] == "mcap" and not head.startswith(b"SQLite") else "sqlite3"
