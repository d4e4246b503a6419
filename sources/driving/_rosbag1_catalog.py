"""What a ROS 1 bag holds and where, in the terms of `_mcap_catalog`: from its index, or by a walk where that is missing.

The index is used only if its chunks tile the file from the bag header on. Pieces come in order of their first message,
since recorders that were merged or filtered write chunks out of order; a walked file is put in the same order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...pipeline.errors import FormatError
from ..storage.stored import stamp_of
from ._mcap_catalog import CHUNKED, Catalog, Piece
from ._mcap_chunk import RecordFile
from ._mcap_contents import Contents, units_of
from ._rosbag1_connections import Connections, catalog_from
from ._rosbag1_format import (
    BAG_HEADER,
    CHUNK_INFO,
    CONNECTION,
    HEAD_BYTES,
    MAGIC,
    Record,
    number,
    parse_record,
    stamp,
    text,
)
from ._rosbag1_walk import Walk

__all__ = ["bag_catalog", "bag_contents"]

_INDEX_LIMIT = 1 << 30


def bag_catalog(path: str, limit: int) -> Catalog:
    """The catalog of the bag as it is now. Raises FormatError if it is not a bag of format 2.0, OSError. Cached."""
    return _catalog(path, limit, stamp_of(path))


def bag_contents(path: str, topic: str, limit: int) -> Contents:
    """The units of `topic`. Raises FormatError if there is no such topic or it mixes types. Cached."""
    return _contents(path, topic, limit, stamp_of(path))


@lru_cache(maxsize=16)
def _catalog(path: str, limit: int, stamp: tuple[object, ...]) -> Catalog:
    with RecordFile(path) as file:
        start, index_at, counts = _open(file)
        return _indexed(file, start, index_at, counts) or Walk(file, limit, index_at).run(start)


@lru_cache(maxsize=64)
def _contents(path: str, topic: str, limit: int, stamp: tuple[object, ...]) -> Contents:
    return units_of(_catalog(path, limit, stamp), topic)


def _open(file: RecordFile) -> tuple[int, int, tuple[int, int]]:
    """Where the records begin, where the index is said to be, and how many connections and chunks it is said to have."""
    head = file.read(0, HEAD_BYTES)
    if not head.startswith(MAGIC):
        if head.startswith(b"#ROSBAG V"):
            version = head[8 : head.find(b"\n") if b"\n" in head[:32] else 16].decode("latin-1").strip()
            raise FormatError(f"{file.path}: a ROS bag of format {version}; only V2.0 is read: convert it (rosbag fix)")
        found = f"begins with {head[:13]!r}, not with {MAGIC!r}" if head else "is empty (0 bytes)"
        raise FormatError(f"{file.path}: not a ROS 1 bag: it {found}")
    try:
        record = parse_record(head, len(MAGIC), file.size)
        if record.op != BAG_HEADER:
            return len(MAGIC), 0, (0, 0)
        fields = record.fields
        counts = number(fields, "conn_count", 4), number(fields, "chunk_count", 4)
        index_at = number(fields, "index_pos", 8)
    except FormatError:
        return len(MAGIC), 0, (0, 0)
    if fields.get("encryptor"):
        raise FormatError(f"{file.path}: the bag is encrypted ({text(fields, 'encryptor')!r}); decrypt it first")
    return record.end, index_at, counts


def _indexed(file: RecordFile, start: int, index_at: int, counts: tuple[int, int]) -> Catalog | None:
    """The catalog as the index gives it, or None if there is none or it does not fit the file."""
    if not start <= index_at <= file.size or file.size - index_at > _INDEX_LIMIT:
        return None
    body = file.read(index_at, file.size - index_at)
    types, channels, pos = Connections(), 0, 0
    infos: list[tuple[int, int, int, dict[int, int]]] = []
    try:
        while pos < len(body):
            record = parse_record(body, pos, len(body))
            data = memoryview(body)[record.data_at : record.end]
            if record.op == CONNECTION:
                types.add(record, bytes(data))
                channels += 1
            elif record.op == CHUNK_INFO:
                infos.append(_chunk_info(record, data))
            else:
                return None
            pos = record.end
    except FormatError:
        return None
    if (channels, len(infos)) != counts:
        return None
    infos.sort()
    places = [info[0] for info in infos]
    if (places and (places[0] != start or places[-1] >= index_at)) or len(set(places)) != len(places):
        return None
    if not places and start != index_at:
        return None
    pieces = []
    for (at, first, _, found), end in zip(infos, [*places[1:], index_at], strict=False):
        if not set(found) <= set(types.channels):
            return None
        pieces.append((first, Piece(CHUNKED, at, end - at, found)))
    used = [info for info in infos if info[3]]
    return catalog_from(
        file.path,
        types,
        pieces,
        (min(info[1] for info in used), max(info[2] for info in used)) if used else None,
        indexed=True,
    )


def _chunk_info(record: Record, data: memoryview) -> tuple[int, int, int, dict[int, int]]:
    fields = record.fields
    if number(fields, "ver", 4) != 1 or len(data) != 8 * number(fields, "count", 4):
        raise FormatError("a chunk info record of another version or a wrong length")
    pairs = np.frombuffer(data, "<u4").reshape(-1, 2).tolist()
    found = {conn: messages for conn, messages in pairs if messages}
    return number(fields, "chunk_pos", 8), stamp(fields, "start_time"), stamp(fields, "end_time"), found
