"""What is in a folder, local or behind any URL that fsspec reaches."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...pipeline.errors import FormatError, MissingExtraError
from ..storage._remote import ask, filesystem
from ..storage.stored import PathLike, is_url, location, open_stored, within

__all__ = ["Entry", "entries", "holds", "read_text"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder in a folder: its name and its size in bytes (0 where that is not known)."""

    name: str
    size: int
    folder: bool


def entries(folder: PathLike) -> list[Entry]:
    """What is in `folder`, sorted by name. Raises OSError if there is no such folder."""
    place = location(folder)
    if not is_url(place):
        with os.scandir(place) as found:
            return sorted((_local(item) for item in found), key=lambda entry: entry.name)
    try:
        system, inner = filesystem(place)
    except ModuleNotFoundError as error:
        if error.name != "fsspec":
            raise
        raise MissingExtraError("reading folders behind a URL", "fsspec", None) from None
    listed = ask(place, lambda: system.ls(inner, detail=True))
    base = inner.strip("/")
    named = [
        Entry(str(item["name"]).rstrip("/").rsplit("/", 1)[-1], int(item.get("size") or 0), item["type"] == "directory")
        for item in listed
        if str(item["name"]).strip("/") != base
    ]
    return sorted(named, key=lambda entry: entry.name)


def _local(item: os.DirEntry[str]) -> Entry:
    try:
        size = item.stat().st_size
    except OSError:  # a link to nowhere: reading it will say so
        size = 0
    return Entry(item.name, size, item.is_dir())


def holds(folder: PathLike, *parts: str) -> bool:
    """Whether `folder` has the file or folder `parts` (one name a part). False too if it cannot be listed."""
    place = location(folder)
    for position, part in enumerate(parts):
        try:
            found = [entry for entry in entries(place) if entry.name == part]
        except (OSError, ImportError, ValueError):
            return False
        if not found or (not found[0].folder and position < len(parts) - 1):
            return False
        place = within(place, part)
    return True


def read_text(path: PathLike, most: int) -> bytes:
    """The content of a small file. Raises FormatError for one of more than `most` bytes, OSError if there is none."""
    with open_stored(path) as stored:
        if stored.size > most:
            raise FormatError(f"{stored.path} has {stored.size} bytes, more than {most}; is it the right file?")
        return stored.read(0, stored.size)
