"""MCAP recordings (ROS 2 bags): topics as sources, read chunk by chunk in parallel, and what a file holds.

::

    drive = Mcap("drive.mcap")
    drive.topics()                                    # {"/imu": TopicInfo(type="sensor_msgs/msg/Imu", messages=922), ...}
    camera = drive.topic("/camera/front/image_raw/compressed")

``ts_event`` is the stamp the message begins with, in its header or alone (the log time where that is zero or there is
none), ``ts_recv`` the log time, ``seq`` the number of the message within its topic in file order. A message that cannot be
decoded, a chunk whose CRC is wrong and a tail that was cut go to quarantine with file and offset; the rest of the file is
read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...pipeline.duration import Duration
from ..storage.stored import PathLike, location
from ._mcap_contents import Contents, catalog_of, topic_contents
from ._mcap_format import MAGIC
from ._mcap_inspect import TopicInfo, inspect_catalog, topic_infos
from ._mcap_topic import CHUNK_LIMIT, PieceTopic, check_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._mcap_framing import Framing
    from ._mcap_raw import MessageBlock

__all__ = ["Mcap", "McapTopic", "TopicInfo", "inspect_mcap", "is_mcap", "open_mcap"]


@dataclass(frozen=True)
class McapTopic(PieceTopic):
    """One topic of an MCAP file as a source.

    `lateness` is how far behind its newest row a row may be and still count as in time. `max_chunk_bytes` is what a chunk
    may unpack to (at most 1 GiB); larger ones go to quarantine. The file is opened when the schema is asked for.
    """

    format: ClassVar[str] = "mcap"

    def _contents(self) -> Contents:
        return topic_contents(location(self.path), self.topic, self.max_chunk_bytes)

    def _framing(self) -> Framing:
        from ._mcap_framing import McapFraming

        return McapFraming()


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
        check_limit(max_chunk_bytes)

    def topics(self) -> dict[str, TopicInfo]:
        """Message type and count by topic, sorted by name. Raises FormatError if the file is not MCAP."""
        return topic_infos(catalog_of(location(self.path), self.max_chunk_bytes))

    def topic(self, name: str, *, lateness: Duration = "100ms") -> McapTopic:
        """The source of one topic. Raises FormatError naming the topics there are if it is not one of them."""
        spec = McapTopic(self.path, name, lateness, self.max_chunk_bytes)
        topic_contents(location(self.path), name, self.max_chunk_bytes)
        return spec

    def messages(self) -> Iterator[MessageBlock]:
        """Every message of every topic, undecoded, a block for each chunk (see `_mcap_raw.MessageBlock`).

        For tools that route or count messages. A part that cannot be read is a block with its `error` and no messages.
        """
        from ._mcap_raw import raw_blocks

        return raw_blocks(catalog_of(location(self.path), self.max_chunk_bytes), self.max_chunk_bytes)


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
    return inspect_catalog(catalog_of(location(file.path), file.max_chunk_bytes), "mcap")


def open_mcap(
    path: PathLike, *, topic: str | None = None, lateness: Duration = "100ms", max_chunk_bytes: int = CHUNK_LIMIT
) -> Mcap | McapTopic:
    """The file, or with `topic` the source of that topic. Raises FormatError naming the topics if it is not one."""
    file = Mcap(path, max_chunk_bytes=max_chunk_bytes)
    return file if topic is None else file.topic(topic, lateness=lateness)
