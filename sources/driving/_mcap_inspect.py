"""What a recording with topics holds, in the same keys for each container."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...pipeline.schema import describe
from ..storage.stored import base_name
from ._mcap_catalog import Catalog
from .cdr import table_for

__all__ = ["TopicInfo", "inspect_catalog", "time_range", "topic_infos"]


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """Message type (empty if the file gives none) and number of messages of a topic."""

    type: str
    messages: int


def topic_infos(catalog: Catalog) -> dict[str, TopicInfo]:
    """Message type and count by topic, sorted by name."""
    found = {}
    for topic in catalog.topics():
        channels = catalog.channels_of(topic)
        kinds = sorted({kind.name for c in channels if (kind := catalog.types.get(c.type_id))})
        found[topic] = TopicInfo(", ".join(kinds), catalog.count(channels))
    return found


def inspect_catalog(catalog: Catalog, format: str) -> dict[str, Any]:
    """``format``, ``profile``, ``library``, ``messages``, ``topics``, ``schemas``, ``time``, ``chunks``, ``indexed``,
    ``complete`` and ``problem`` (see `mcap.inspect_mcap`)."""
    topics: dict[str, Any] = {}
    schemas: dict[str, str] = {}
    for topic, info in topic_infos(catalog).items():
        channel = catalog.channels_of(topic)[0]
        kind = catalog.types.get(channel.type_id)
        table = table_for(
            topic,
            channel.encoding,
            kind.name if kind else "",
            kind.encoding if kind else "",
            kind.data if kind else b"",
            source=f"{base_name(catalog.path)}:{topic}",
            format=format,
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
        "format": format,
        "profile": catalog.profile,
        "library": catalog.library,
        "messages": sum(catalog.counts.values()),
        "topics": topics,
        "schemas": schemas,
        "time": time_range(catalog.start_ns, catalog.end_ns),
        "chunks": sum(piece.kind == "chunk" for piece in catalog.pieces),
        "indexed": catalog.indexed,
        "complete": catalog.complete,
        "problem": catalog.problem or None,
    }


def time_range(start: int | None, end: int | None) -> dict[str, Any] | None:
    """First and last time (ns) as ISO 8601 and ns, and the seconds between; None without messages."""
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
