"""Which definition describes the messages of a SQLite bag's topic.

Bags before ROS 2 Iron have none, so that the type's name has to do: the definitions that `rosbags` ships are tried, those of
the distribution that wrote the bag first. A bag may also hold a definition that is not the one its messages were written
by (an abridged one, for instance). What counts is whether the topic's first message decodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ...pipeline.memory import BufferPool
from ._rosbag2_sqlite import Topic
from .cdr import Table, ros2_name, table_for

__all__ = ["table_of"]


def table_of(
    topic: Topic, given: str | None, first: bytes | None, distro: str, *, source: str, format: str = "rosbag2"
) -> Table:
    """The table for `topic`: by the definition the user has `given`, else the bag's, else one that `rosbags` knows.

    `first` is the topic's first message, if it has one. A type that nothing describes is table ``raw``.
    """

    def table(notation: str, definition: bytes) -> Table:
        return table_for(topic.name, topic.encoding, topic.type, notation, definition, source=source, format=format)

    if given is not None:
        return table("ros2msg", given.encode())
    if topic.encoding != "cdr":
        return table(topic.notation, topic.definition or b"")
    best: Table | None = None
    for notation, definition in _definitions(topic, distro):
        candidate = table(notation, definition)
        if candidate.kind == "raw":
            continue
        if first is None or _decodes(candidate, first):
            return candidate
        best = best or candidate
    return best or table("", b"")


def _definitions(topic: Topic, distro: str) -> Iterator[tuple[str, bytes]]:
    if topic.definition is not None:
        yield topic.notation, topic.definition
    tried = set()
    for store in _stores(distro):
        text = _shipped(store, ros2_name(topic.type))
        if text is not None and text not in tried:
            tried.add(text)
            yield "ros2msg", text


def _stores(distro: str) -> list[str]:
    """Names of the type stores of ROS 2: the one of `distro` first, then from the newest on."""
    from rosbags.typesys import Stores

    names = [store.name for store in Stores if store.name.startswith("ROS2_")]
    own = f"ROS2_{distro.upper()}"
    return sorted(names, key=lambda name: (name != own, -names.index(name)))


@lru_cache(maxsize=512)
def _shipped(store: str, name: str) -> bytes | None:
    try:
        return str(_types(store).generate_msgdef(name, ros_version=2)[0]).encode()  # type: ignore[attr-defined]
    except Exception:  # what it raises for an unknown name or one of a hostile shape differs by release
        return None


@lru_cache(maxsize=16)
def _types(store: str) -> object:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores[store])


def _decodes(table: Table, message: bytes) -> bool:
    data = np.frombuffer(message + bytes(8), np.uint8)
    one = np.ones(1, np.int64)
    return not table.decoder()(data, one - 1, one * len(message), one, 0, BufferPool()).bad
