"""Bytes of an ITCH file in order, plain or gzip, read into memory that the caller reuses.

Plain files are read, not mapped: a file that shrinks while it is mapped kills the process, and mapped pages count as the
process's memory, which then grows with the file.
"""

from __future__ import annotations

import zlib
from io import BytesIO, FileIO
from types import ModuleType
from typing import Any, BinaryIO

__all__ = ["BytesFeed", "GzipFeed", "PlainFeed", "open_feed"]

_STEP = 1 << 18


class PlainFeed:
    """An uncompressed file. `offset` of the next byte may be set with `seek`."""

    error: str | None = None

    def __init__(self, path: str) -> None:
        self._file: BinaryIO | FileIO = FileIO(path)

    def seek(self, offset: int) -> None:
        self._file.seek(offset)

    def fill(self, view: memoryview) -> int:
        """Fill `view`; fewer bytes mean that the end is reached."""
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:]) or 0  # type: ignore[union-attr]
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        self._file.close()


class BytesFeed(PlainFeed):
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._file = BytesIO(data)


class GzipFeed:
    """What a gzip file (of one or more members) holds. `error` says why it ended if not at its end."""

    def __init__(self, path: str) -> None:
        self._file = FileIO(path)
        self._library = _inflater()
        self._inflate: Any = self._library.decompressobj(31)
        self._input = b""
        self._ended = False
        self.error: str | None = None

    def seek(self, offset: int) -> None:
        """Go to `offset` of the content by reading up to there."""
        self._file.seek(0)
        self._inflate, self._input, self._ended, self.error = self._library.decompressobj(31), b"", False, None
        scratch = memoryview(bytearray(_STEP))
        while offset > 0:
            count = self.fill(scratch[: min(offset, _STEP)])
            if not count:
                break
            offset -= count

    def fill(self, view: memoryview) -> int:
        """Fill `view`; fewer bytes mean that the end is reached."""
        done = 0
        while done < len(view) and not self._ended:
            piece = self._next(len(view) - done)
            view[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def _next(self, most: int) -> bytes:
        """Up to `most` bytes; sets `_ended` at the end or at damage. May return nothing before the end."""
        if self._inflate.eof:
            rest = (self._inflate.unused_data or self._read()).lstrip(b"\x00")
            while not rest and (rest := self._read()):
                rest = rest.lstrip(b"\x00")
            if not rest:
                self._ended = True
                return b""
            self._inflate, self._input = self._library.decompressobj(31), rest
        if not self._input:
            self._input = self._read()
        try:
            piece: bytes = self._inflate.decompress(self._input, min(most, _STEP))
        except (zlib.error, self._library.error) as error:
            return self._stop(f"the gzip stream is damaged before compressed offset {self._file.tell()}: {error}")
        if not self._input and not piece and not self._inflate.eof:
            return self._stop(f"the gzip stream ends early, at compressed offset {self._file.tell()}")
        self._input = self._inflate.unconsumed_tail
        return piece

    def _read(self) -> bytes:
        return self._file.read(_STEP) or b""

    def _stop(self, why: str) -> bytes:
        self.error, self._ended = why, True
        return b""

    def close(self) -> None:
        self._file.close()


def _inflater() -> ModuleType:
    """`isal`, which inflates two to three times as fast, where it is installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    module: ModuleType = isal_zlib
    return module


def open_feed(path: str, compressed: bool) -> PlainFeed | GzipFeed:
    return GzipFeed(path) if compressed else PlainFeed(path)
