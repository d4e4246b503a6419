"""What is stored, as a file of Python's own, for libraries that want one."""

from __future__ import annotations

import io
from typing import Any

from .stored import Stored

__all__ = ["StoredFile"]


class StoredFile(io.RawIOBase):
    """Reads `stored` at random. Closing it leaves `stored` open."""

    def __init__(self, stored: Stored) -> None:
        self._stored, self._at = stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + (0, self._at, self._stored.size)[whence]
        if place < 0:
            raise OSError(f"{self._stored.path}: there is nothing {-place} bytes before its beginning")
        self._at = place
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, view: Any) -> int:
        room = memoryview(view).cast("B")
        count = self._stored.read_into(self._at, room[: max(0, min(len(room), self._stored.size - self._at))])
        self._at += count
        return count
