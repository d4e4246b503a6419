"""What a DBN file is before its records are read: header, packing, and the legacy DBZ wrapper.

A DBZ file is a zstd skippable frame with the header, then zstd frames with records of version 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ...pipeline.errors import FormatError
from ..storage._read_ahead import ReadAhead
from ..storage.feed import Feed
from ..storage.stored import Stored, is_url, open_stored, stamp_of
from ..storage.unpack import BytesFeed, ZstdFeed, head_of, open_feed
from ._dbn_layout import SCHEMA_CODES
from ._dbn_metadata import MOST_METADATA, Metadata, parse_metadata, read_metadata

__all__ = ["Opened", "has_header", "is_dbz", "look", "open_records"]

_DBZ_FIXED = 96


@dataclass(frozen=True)
class Opened:
    """A file's header and how it is packed. `fragment` says that it has no header and the user gave what it would say."""

    metadata: Metadata
    compression: str
    dbz: bool = False
    fragment: bool = False


def has_header(head: bytes) -> bool:
    """Whether content begins with a DBN header that could be one."""
    if len(head) < 26 or head[:3] != b"DBN" or not head[3]:
        return False
    length = int.from_bytes(head[4:8], "little")
    name = head[8:24].rstrip(b"\0")
    schema = int.from_bytes(head[24:26], "little")
    return (
        100 <= length <= MOST_METADATA
        and all(32 < byte < 127 for byte in name)
        and (schema == 0xFFFF or schema < 2 * len(SCHEMA_CODES))
    )


def is_dbz(head: bytes) -> bool:
    """Whether a stored file begins as legacy DBZ does."""
    return len(head) >= 12 and head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5 and head[8:12] == b"DBZ\x01"


def look(path: str, version: int | None, *, ts_out: bool = False) -> Opened:
    """Read the header of a file; of one without, `version` and `ts_out` take its place. Raises FormatError, OSError."""
    return _look(path, stamp_of(path), version, ts_out)


@lru_cache(maxsize=8)
def _look(path: str, stamp: tuple[Any, ...], version: int | None, ts_out: bool) -> Opened:
    head, compression = head_of(path, 64)
    if not head:
        raise FormatError(f"{path} is empty")
    if is_dbz(head):
        with open_stored(path) as stored:
            return Opened(_read_dbz(stored, path), "zstd", dbz=True)
    if version is not None and head[:3] != b"DBN":
        return Opened(Metadata(version=version, size=0, ts_out=ts_out), compression, fragment=True)
    feed = open_feed(path)
    try:
        return Opened(read_metadata(feed, path), compression)
    finally:
        feed.close()


def open_records(path: str, opened: Opened) -> Feed:
    """The content that holds the records; they begin at ``opened.metadata.size``.

    A local zstd file is unpacked by the thread that frames it, straight into the buffer where records are found: a thread of
    its own that hands over pieces costs as much as all the rest of reading.
    """
    if opened.compression != "zstd":
        return open_feed(path)
    feed = ZstdFeed(open_stored(path))
    return ReadAhead(feed) if is_url(path) else feed


def _read_dbz(stored: Stored, path: str) -> Metadata:
    """The header of a DBZ file as that of version 1, which its records are."""
    size = int.from_bytes(stored.read(4, 4), "little")
    if not _DBZ_FIXED <= size <= min(MOST_METADATA, stored.size - 8):
        raise FormatError(f"{path}: the DBZ header says at offset 4 that it has {size} bytes, which cannot be")
    data = stored.read(8, size)
    packed = data[_DBZ_FIXED:]
    rest = _unpacked(packed, path)
    # version 1 has stype_in where DBZ has the compression, and no such thing itself
    head = data[4:54] + data[55:57] + b"\0" + bytes(47)
    found = parse_metadata(head + rest, 1, path)
    return replace(found, size=0, ts_out=False)


def _unpacked(packed: bytes, path: str) -> bytes:
    feed = ZstdFeed(_Held(packed, path))
    parts, scratch = [], memoryview(bytearray(1 << 20))
    total = 0
    while count := feed.fill(scratch):
        parts.append(bytes(scratch[:count]))
        total += count
        if total > MOST_METADATA:
            raise FormatError(f"{path}: the DBZ header unpacks to more than {MOST_METADATA} bytes")
    if feed.error is not None:
        raise FormatError(f"{path}: the DBZ header does not unpack: {feed.error}")
    return b"".join(parts)


class _Held(Stored):
    """Bytes in memory as a file."""

    def __init__(self, data: bytes, path: str) -> None:
        self.path, self.size, self._data = path, len(data), data

    def read_into(self, offset: int, view: memoryview) -> int:
        return _fill(self._data, offset, view)


def _fill(data: bytes, offset: int, view: memoryview) -> int:
    feed = BytesFeed(data)
    feed.seek(offset)
    return feed.fill(view)
