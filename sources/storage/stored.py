"""Where recordings are: local files and anything that fsspec reaches, read at random or in order.

A recording is never loaded whole. Local files are read, not mapped: a file that shrinks while it is mapped kills the
process, and mapped pages count as the process's memory, which then grows with the file. Remote ones are read by ranges,
so that any number of threads may read at once.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import Any

from ...pipeline.errors import FormatError
from ._remote import ask, info_of

__all__ = [
    "PathLike",
    "Stored",
    "base_name",
    "is_url",
    "location",
    "open_stored",
    "stamp_of",
    "stored_size",
    "within",
]

PathLike = str | os.PathLike[str]


def location(path: PathLike) -> str:
    """`path` as text: a local path (``~`` expanded, ``file://`` taken off) or a URL."""
    text = os.fspath(path)
    if text.startswith("file://"):
        text = text[7:]
    return os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111 - a Path would damage URLs


def is_url(path: PathLike) -> bool:
    """Whether fsspec has to fetch it."""
    return "://" in os.fspath(path) and not os.fspath(path).startswith("file://")


def base_name(path: PathLike) -> str:
    """The last part of a path or URL (of the file inside, if it has several): the file's name."""
    if not is_url(path):
        return Path(location(path)).name
    own = next(part for part in location(path).split("::") if "://" in part)
    return PurePosixPath(own.split("?")[0]).name


def stored_size(path: PathLike) -> int:
    """Its size in bytes as it is stored. Raises OSError."""
    with open_stored(path) as stored:
        return stored.size


def within(folder: PathLike, name: str) -> str:
    """Path or URL of the file `name` (which may have parts) in `folder`."""
    text = location(folder)
    return f"{text.rstrip('/')}/{name}" if is_url(folder) else str(Path(text) / name)


def stamp_of(path: PathLike) -> tuple[Any, ...]:
    """Plain values that change when the file does: a key for what was found out about it. Raises OSError."""
    if not is_url(path):
        stat = Path(location(path)).stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ino
    _, _, info = info_of(location(path))
    tags = [str(info.get(key)) for key in ("ETag", "etag", "mtime", "LastModified", "updated", "created")]
    return info.get("size"), *tags


class Stored(ABC):
    """A file that many threads read at once, by offset. `size` is taken once: what is appended later is not seen."""

    path: str
    size: int

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` with the bytes at `offset`; fewer only where the file ends."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`, fewer where the file ends."""
        length = max(0, min(length, self.size - offset))
        view = memoryview(bytearray(length))
        return bytes(view[: self.read_into(offset, view)])

    def close(self) -> None:
        """Release the file. May be called again."""

    def __enter__(self) -> Stored:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_stored(path: PathLike) -> Stored:
    """Open a file or URL for reading at random. Raises OSError if there is none (or a folder), MissingExtraError."""
    text = location(path)
    return _Remote(text) if is_url(text) else _Local(text)


class _Local(Stored):
    def __init__(self, path: str) -> None:
        self.path = path
        if Path(path).is_dir():  # opening one works, reading from it fails without naming it
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._fd).st_size

    def read_into(self, offset: int, view: memoryview) -> int:
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], offset + done)
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Remote(Stored):
    def __init__(self, url: str) -> None:
        self.path = url
        self._system, self._inner, info = info_of(url)
        if info.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), url)
        if info.get("size") is None:
            raise FormatError(f"{url}: the server does not say how long the file is; download it and read the copy")
        self.size = int(info["size"])

    def read_into(self, offset: int, view: memoryview) -> int:
        length = max(0, min(len(view), self.size - offset))
        if not length:
            return 0
        data = ask(self.path, lambda: self._system.cat_file(self._inner, start=offset, end=offset + length))
        if len(data) != length:
            raise FormatError(
                f"{self.path}: asked for bytes {offset} to {offset + length}, got {len(data)}; "
                "either the server cannot serve a part of a file, or the file has changed: download it and read the copy"
            )
        view[:length] = data
        return length
