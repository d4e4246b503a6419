"""MCAP recordings (ROS 2 bags): topics as sources, read chunk by chunk in parallel, and what a file holds.

::

    drive = Mcap("drive.mcap")
    drive.topics()                                    # {"/imu": TopicInfo(type="sensor_msgs/msg/Imu", messages=922), ...}
    camera = drive.topic("/camera/front/image_raw/compressed")

``ts_event`` is the message's header stamp (the log time where that is zero or there is no header), ``ts_recv`` the log
time, ``seq`` the number of the message within its topic in file order. A message that cannot be decoded, a chunk whose
CRC is wrong and a tail that was cut go to quarantine with file and offset; the rest of the file is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.schema import describe
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ._mcap_contents import Contents, catalog_of, topic_contents
from ._mcap_format import MAGIC
from .cdr import Table, table_for

__all__ = ["Mcap", "McapTopic", "TopicInfo", "inspect_mcap", "is_mcap"]

#: What a chunk may unpack to, unless told otherwise; recorders write chunks of 1 to 4 MB.
CHUNK_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """Message type (empty if the file gives none) and number of messages of a topic."""

    type: str
    messages: int


@dataclass(frozen=True)
class McapTopic(SourceSpec):
    """One topic of an MCAP file as a source.

    `lateness` is how far behind its newest row a row may be and still count as in time. `max_chunk_bytes` is what a chunk
    may unpack to (at most 1 GiB); larger ones go to quarantine. The file is opened when the schema is asked for.
    """

    format: ClassVar[str] = "mcap"
    path: PathLike
    topic: str
    lateness: Duration = "100ms"
    max_chunk_bytes: int = CHUNK_LIMIT

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        _check_limit(self.max_chunk_bytes)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:  # type: ignore[override]
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.topic}"

    @property
    def schema(self) -> pa.Schema:
        """What the topic's message type decodes to (see `cdr`). Opens the file; raises FormatError, OSError."""
        return self._table(self._contents()).schema

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._mcap_reader import McapReader

        contents = self._contents()
        decoder = self._table(contents).decoder()
        return McapReader(contents, decoder, self.max_chunk_bytes, context, split, position)

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a message again; `ts_recv` is null, since the log time is not part of it.

        None for a damaged part of the file and for a message that holds no time of its own.
        """
        if record.operation != "mcap.decode":
            return None
        from ._mcap_reader import retry_message

        return retry_message(record, self._table(self._contents()).decoder())

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` ranges of chunks with about the same number of bytes."""
        units = self._contents().units
        count = max(1, min(wanted, len(units)))
        if count == 1:
            return (Split(0, 1),)
        total = sum(unit.piece.length for unit in units)
        starts, done = [0], 0
        for i, unit in enumerate(units):
            room = len(units) - i
            left = count - len(starts)
            if i and left and (done * count >= total * len(starts) or room <= left):
                starts.append(unit.piece.offset)
            done += unit.piece.length
        bounds = [*starts, 1 << 62]
        return tuple(Split(i, len(starts), {"start": bounds[i], "stop": bounds[i + 1]}) for i in range(len(starts)))

    @property
    def block_bound(self) -> int:
        """The largest chunk of the topic, packed and unpacked, and the columns made of it."""
        contents = self._contents()
        largest = max((u.piece.length + 2 * (u.piece.size or u.piece.length) for u in contents.units), default=0)
        wide = self._table(contents).kind in ("radar.scan", "message")
        return max(1 << 20, largest * (4 if wide else 1))

    def _contents(self) -> Contents:
        return topic_contents(location(self.path), self.topic, self.max_chunk_bytes)

    def _table(self, contents: Contents) -> Table:
        kind = contents.type
        return table_for(
            self.topic,
            contents.channels[0].encoding,
            kind.name if kind else "",
            kind.encoding if kind else "",
            kind.data if kind else b"",
            source=self.name,
            format=self.format,
        )


@dataclass(frozen=True)
class Mcap:
    """An MCAP file.

    `max_chunk_bytes` is what one chunk may unpack to (at most 1 GiB): a bound against damaged and hostile files.
    """

    path: PathLike
    max_chunk_bytes: int = CHUNK_LIMIT

    def __init__(self, path: PathLike, *, max_chunk_bytes: int = CHUNK_LIMIT) -> None:
        object.__setattr__(self, "path", location(path))
        object.__setattr__(self, "max_chunk_bytes", max_chunk_bytes)
        _check_limit(max_chunk_bytes)

    def topics(self) -> dict[str, TopicInfo]:
        """Message type and count by topic, sorted by name. Raises FormatError if the file is not MCAP."""
        catalog = catalog_of(location(self.path), self.max_chunk_bytes)
        found = {}
        for topic in catalog.topics():
            channels = catalog.channels_of(topic)
            kinds = sorted({kind.name for c in channels if (kind := catalog.types.get(c.type_id))})
            found[topic] = TopicInfo(", ".join(kinds), catalog.count(channels))
        return found

    def topic(self, name: str, *, lateness: Duration = "100ms") -> McapTopic:
        """The source of one topic. Raises FormatError naming the topics there are if it is not one of them."""
        spec = McapTopic(self.path, name, lateness, self.max_chunk_bytes)
        topic_contents(location(self.path), name, self.max_chunk_bytes)
        return spec


def _check_limit(limit: int) -> None:
    if not 0 < limit <= 1 << 30:
        raise ValueError(f"max_chunk_bytes must be from 1 to {1 << 30} (1 GiB), got {limit}")


def is_mcap(head: bytes) -> bool:
    """Whether a file that begins with `head` (8 bytes or more) is MCAP."""
    return head[: len(MAGIC)] == MAGIC


def inspect_mcap(path: PathLike) -> dict[str, Any]:
    """What an MCAP file holds, from its summary; a file without a usable one is walked. No message is decoded.

    Keys: ``format``, ``profile``, ``library``, ``messages``, ``topics`` (by name: type, encoding, messages, table,
    schema), ``schemas`` (Arrow columns by message type), ``time`` (start, end as ISO 8601 and ns, seconds; None without
    messages), ``chunks``, ``indexed``, ``complete`` and ``problem`` (what is damaged, or None).
    """
    file = Mcap(path)
    catalog = catalog_of(location(file.path), file.max_chunk_bytes)
    topics: dict[str, Any] = {}
    schemas: dict[str, str] = {}
    for topic, info in file.topics().items():
        channel = catalog.channels_of(topic)[0]
        kind = catalog.types.get(channel.type_id)
        table = table_for(
            topic,
            channel.encoding,
            kind.name if kind else "",
            kind.encoding if kind else "",
            kind.data if kind else b"",
            source=f"{base_name(file.path)}:{topic}",
            format="mcap",
        )
        text = describe(table.schema)
        topics[topic] = {
            "type": info.type,
            "encoding": channel.encoding,
            "messages": info.messages,
            "table": table.kind,
            "schema": text,
        }
        schemas.setdefault(info.type, text)
    return {
        "format": "mcap",
        "profile": catalog.profile,
        "library": catalog.library,
        "messages": sum(catalog.counts.values()),
        "topics": topics,
        "schemas": schemas,
        "time": _time_range(catalog.start_ns, catalog.end_ns),
        "chunks": sum(piece.kind == "chunk" for piece in catalog.pieces),
        "indexed": catalog.indexed,
        "complete": catalog.complete,
        "problem": catalog.problem or None,
    }


def _time_range(start: int | None, end: int | None) -> dict[str, Any] | None:
    if start is None or end is None:
        return None
    return {
        "start": _iso(start),
        "end": _iso(end),
        "start_ns": start,
        "end_ns": end,
        "seconds": (end - start) / 1e9,
    }


def _iso(ns: int) -> str | None:
    """ISO 8601 in UTC with all nine digits; None for a time that no calendar has."""
    try:
        whole = datetime.fromtimestamp(ns // 10**9, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"
