"""The bytes of a recording in order, unpacked: gzip, zstd, bz2, lz4, xz and zip by their first bytes, or as they are.

A damaged or cut stream does not raise: what came before it is given, and `error` then says what is wrong, so that a reader
can put the rest aside with its place. Compressed and remote files are read ahead by a thread of their own, a few megabytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ...pipeline.errors import FormatError, MissingExtraError
from ._read_ahead import ReadAhead
from ._zip_feed import ZipFeed
from ._zstd_feed import MOST_WINDOW, ZstdReader
from .feed import Feed
from .stored import PathLike, Stored, is_url, open_stored

__all__ = ["BytesFeed", "Feed", "compression_of", "head_of", "inflater", "open_feed"]

_STEP = 1 << 18
#: What a decompressor may take for its window.
_MOST_MEMORY = 256 << 20
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bz2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
)
#: Skippable frames of zstd and lz4, which have no content, that are stepped over to tell which of the two it is.
_MOST_SKIPPED = 64


def compression_of(head: bytes) -> str:
    """gzip, zstd, bz2, lz4, xz, zip or none, by the first bytes."""
    return "zstd" if _skippable(head) else next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


def _skippable(head: bytes) -> bool:
    return head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5


def _packing(stored: Stored) -> str:
    """`compression_of` a file; of one that begins with skippable frames that of the frame behind them."""
    at = 0
    for _ in range(_MOST_SKIPPED):
        head = stored.read(at, 12)
        if head[8:] == b"DBZ\x01":  # this one has content, which those who read DBZ files want to see
            return "none"
        if len(head) < 8 or not _skippable(head):
            return compression_of(head) if at == 0 or compression_of(head) == "lz4" else "zstd"
        at += 8 + int.from_bytes(head[4:8], "little")
    return "zstd"


def open_feed(path: PathLike) -> Feed:
    """Open a file or URL. Raises OSError, and MissingExtraError for a compression whose library is not installed."""
    stored = open_stored(path)
    try:
        kind = _packing(stored)
        feed = _feed(stored, kind)
    except BaseException:
        stored.close()
        raise
    return ReadAhead(feed) if kind != "none" or is_url(path) else feed


def _feed(stored: Stored, kind: str) -> Feed:
    if kind == "none":
        return PlainFeed(stored)
    if kind == "zip":
        return ZipFeed(stored)
    return ZstdFeed(stored) if kind == "zstd" else PackedFeed(stored, kind)


def head_of(path: PathLike, size: int = 1 << 16) -> tuple[bytes, str]:
    """Up to `size` first bytes of the content, and how it is packed. Raises FormatError if it does not unpack at all."""
    with open_stored(path) as stored:
        kind = _packing(stored)
        feed = _feed(stored, kind)
        view = memoryview(bytearray(size))
        head = bytes(view[: feed.fill(view)])
        if feed.error and not head:
            raise FormatError(f"{stored.path} begins like {kind} but does not unpack: {feed.error}")
        return head, kind


class PlainFeed(Feed):
    """What is stored, as it is."""

    def __init__(self, stored: Stored) -> None:
        self._stored, self._at = stored, 0

    def fill(self, view: memoryview) -> int:
        count = self._stored.read_into(self._at, view)
        self._at += count
        return count

    def seek(self, offset: int) -> None:
        self._at = offset

    def close(self) -> None:
        self._stored.close()


class BytesFeed(Feed):
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def fill(self, view: memoryview) -> int:
        piece = self._data[self._at : self._at + len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int) -> None:
        self._at = offset


class ZstdFeed(Feed):
    """What a zstd file of one or more frames holds."""

    compression = "zstd"

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._reader = ZstdReader(stored)

    def seek(self, offset: int) -> None:
        self._reader, self.error = ZstdReader(self._stored), None
        _pass_over(self, offset)

    def fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view) and self.error is None:
            try:
                count = self._reader.readinto(view[done : done + _STEP])
            except self._reader.errors as error:
                self.error = f"the zstd stream is damaged before compressed offset {self._reader.at}: {error}"
                if "too much memory" in str(error):
                    most = f"{MOST_WINDOW >> 20} MiB"
                    self.error = f"the zstd stream needs a window of more than {most}: unpack it with zstd -d --long=31"
                break
            if not count:
                if not self._reader.complete:
                    self.error = f"the zstd stream ends early, at compressed offset {self._reader.at}"
                break
            done += count
        return done

    def close(self) -> None:
        self._stored.close()


def _pass_over(feed: Feed, length: int) -> None:
    scratch = memoryview(bytearray(min(length, _STEP)))
    while length > 0 and (count := feed.fill(scratch[: min(length, _STEP)])):
        length -= count


class PackedFeed(Feed):
    """What a compressed file of one or more members (frames) holds. Zero bytes behind a member are padding."""

    def __init__(self, stored: Stored, kind: str) -> None:
        self._stored, self.compression = stored, kind
        self._new, self._errors = _library(kind)
        self._raw = memoryview(bytearray(_STEP))
        self._restart()

    def _restart(self) -> None:
        self._at, self._input, self._ended, self.error = 0, b"", False, None
        self._member: Any = self._new()

    def seek(self, offset: int) -> None:
        self._restart()
        _pass_over(self, offset)

    def fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view) and not self._ended:
            piece = self._next(len(view) - done)
            view[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def _next(self, most: int) -> bytes:
        """Up to `most` bytes; sets `_ended` at the end or at damage. May give nothing before the end."""
        if self._member.eof and not self._next_member():
            return b""
        if not self._input and _hungry(self._member):
            self._input = self._read()
            if not self._input:
                return self._stop(f"the {self.compression} stream ends early, at compressed offset {self._at}")
        try:
            piece: bytes = self._member.decompress(self._input, min(most, _STEP))
        except self._errors as error:
            return self._stop(f"the {self.compression} stream is damaged before compressed offset {self._at}: {error}")
        self._input = getattr(self._member, "unconsumed_tail", b"")
        return piece

    def _next_member(self) -> bool:
        rest = bytes(self._member.unused_data or b"") or self._read()
        while rest and not (rest := rest.lstrip(b"\0")):
            rest = self._read()
        if not rest:
            self._ended = True
            return False
        between = self.compression == "lz4" and _skippable(rest)
        if not between and compression_of(rest + bytes(8)) != self.compression:
            what = f"{rest[:8].hex(' ')} behind a whole member is no {self.compression}"
            self._stop(f"the {self.compression} stream is damaged before compressed offset {self._at}: {what}")
            return False
        self._member, self._input = self._new(), rest
        return True

    def _read(self) -> bytes:
        count = self._stored.read_into(self._at, self._raw)
        self._at += count
        return bytes(self._raw[:count])

    def _stop(self, why: str) -> bytes:
        self.error, self._ended = why, True
        return b""

    def close(self) -> None:
        self._stored.close()


def _hungry(member: Any) -> bool:
    """Whether it gives nothing more without input; zlib does not say and takes none gladly."""
    return bool(getattr(member, "needs_input", True))


def _library(kind: str) -> tuple[Callable[[], Any], tuple[type[BaseException], ...]]:
    """What makes a decompressor of one member, and what it raises."""
    if kind == "gzip":
        library = inflater()
        return lambda: library.decompressobj(31), (zlib.error, library.error)
    if kind == "bz2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, ValueError, EOFError)
    if kind == "xz":
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY), (lzma.LZMAError, EOFError)
    if kind == "lz4":
        try:
            from lz4.frame import LZ4FrameDecompressor
        except ImportError:
            raise MissingExtraError("reading lz4 files", "lz4", None) from None
        return LZ4FrameDecompressor, (RuntimeError, EOFError)
    raise ValueError(f"no compression is called {kind!r}")


def inflater() -> ModuleType:
    """`isal`, which inflates two to three times as fast, where it is installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    module: ModuleType = isal_zlib
    return module
