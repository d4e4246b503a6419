"""A file that has to be on this machine and unpacked: used in place where it is, else copied to the temporary folder.

SQLite reads only local files, and a compressed recording has no random access. The copy is made once, is removed when its
last reader has gone, and is refused where the temporary folder has no room for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ...pipeline.errors import FormatError
from ..storage.stored import PathLike, is_url, location, open_stored, stamp_of
from ..storage.unpack import compression_of, open_feed

__all__ = ["LocalFile", "is_packed", "local_file"]

_STEP = 8 << 20
#: What must be left in the temporary folder.
_RESERVE = 64 << 20


class LocalFile:
    """A local file. Keep the object while the file is used: a copy is removed with it."""

    def __init__(self, path: str, *, copied: bool) -> None:
        self.path, self.copied = path, copied
        if copied:
            weakref.finalize(self, _remove, path)


def _remove(path: str) -> None:
    with suppress(OSError):
        Path(path).unlink()


def is_packed(path: PathLike) -> bool:
    """Whether the file is compressed as a whole. Raises OSError."""
    with open_stored(path) as stored:
        return compression_of(stored.read(0, 8)) != "none"


def local_file(path: PathLike) -> LocalFile:
    """`path` itself, or an unpacked copy of it. Raises FormatError where the copy has no room, OSError."""
    text = location(path)
    if not is_url(text) and not is_packed(text):
        return LocalFile(text, copied=False)
    return _copy(text, stamp_of(text))


@lru_cache(maxsize=4)
def _copy(path: str, stamp: tuple[object, ...]) -> LocalFile:
    folder = tempfile.gettempdir()
    handle, name = tempfile.mkstemp(prefix="penstock-", suffix=".part", dir=folder)
    kept = LocalFile(name, copied=True)
    with os.fdopen(handle, "wb") as target:
        for piece in _content(path):
            if shutil.disk_usage(folder).free - len(piece) < _RESERVE:
                raise FormatError(
                    f"{path}: its copy does not fit into {folder} after {target.tell()} bytes; "
                    "set TMPDIR to a larger folder, or download and unpack it and read the copy"
                )
            target.write(piece)
    return kept


def _content(path: str) -> Iterator[memoryview]:
    feed = open_feed(path)
    try:
        view = memoryview(bytearray(_STEP))
        while count := feed.fill(view):
            yield view[:count]
            if count < len(view):
                break
    finally:
        feed.close()
