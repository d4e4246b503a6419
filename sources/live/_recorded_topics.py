"""The topics of a recording as a feed has them: a number for each, and what their messages mean.

A replay sends a message on its topic's channel; who receives it looks up the same number in the same recording, or in one
of the same topics. In MCAP it is the topic's first channel, in bags its place among the names of all topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...pipeline.errors import FormatError
from ..driving._mcap_topic import CHUNK_LIMIT
from ..formats import format_of

if TYPE_CHECKING:
    from ..driving._mcap_catalog import Catalog
    from ..driving._rosbag2_topic import Opened

__all__ = ["KINDS", "TopicType", "catalog_at", "channels_at", "opened_at", "type_at"]

#: Formats with topics that are messages on a wire.
KINDS = ("MCAP", "ROS 1 bag", "rosbag2")


@dataclass(frozen=True, slots=True)
class TopicType:
    """How a topic's messages are written, and what they mean: `definition` in `notation`."""

    encoding: str
    type: str
    notation: str
    definition: bytes


def catalog_at(path: str) -> Catalog | None:
    """What an MCAP file or a ROS 1 bag holds; None for a rosbag2 recording. Raises FormatError for others, OSError."""
    kind = format_of(path).name
    if kind == "MCAP":
        from ..driving._mcap_contents import catalog_of

        return catalog_of(path, CHUNK_LIMIT)
    if kind == "ROS 1 bag":
        from ..driving._rosbag1_catalog import bag_catalog

        return bag_catalog(path, CHUNK_LIMIT)
    if kind != "rosbag2":
        raise FormatError(f"{path} is {kind}, which has no topics; recordings that do: {', '.join(KINDS)}")
    return None


def opened_at(path: str) -> Opened:
    """A rosbag2 recording."""
    from ..driving._rosbag2_topic import opened

    return opened(path, CHUNK_LIMIT)


def channels_at(path: str) -> dict[str, int]:
    """The number of each topic."""
    catalog = catalog_at(path)
    names = opened_at(path).topics() if catalog is None else catalog.topics()
    if catalog is not None and format_of(path).name == "MCAP":
        return {name: catalog.channels_of(name)[0].id for name in names}
    return {name: number for number, name in enumerate(sorted(names))}


def type_at(path: str, topic: str) -> TopicType:
    """What the messages of `topic` are. Raises FormatError naming the topics if it is none of them."""
    catalog = catalog_at(path)
    if catalog is not None:
        return _in_catalog(catalog, topic)
    recording = opened_at(path)
    table = recording.topic(topic, {}, source="").table
    for held in recording.catalogs:
        if held.channels_of(topic):
            return _in_catalog(held, topic)
    from ..driving._rosbag2_types import _definitions
    from ..driving.cdr import table_for

    name, own = "", TopicType("cdr", "", "", b"")
    for file in recording.databases:
        for found in (one for one in file.topics if one.name == topic):
            name, own = found.type, TopicType(found.encoding, found.type, "", b"")
            for notation, definition in _definitions(found, file.distro):
                made = table_for(topic, found.encoding, name, notation, definition, source="", format="rosbag2")
                if made.kind == table.kind and made.schema.equals(table.schema):
                    return TopicType(found.encoding, name, notation, definition)
    return own


def _in_catalog(catalog: Catalog, topic: str) -> TopicType:
    channels = catalog.channels_of(topic)
    if not channels:
        raise FormatError(f"{catalog.path}: no topic {topic!r}; it has {', '.join(catalog.topics()) or 'none'}")
    kind = catalog.types.get(channels[0].type_id)
    if kind is None:
        return TopicType(channels[0].encoding, "", "", b"")
    return TopicType(channels[0].encoding, kind.name, kind.encoding, kind.data)
