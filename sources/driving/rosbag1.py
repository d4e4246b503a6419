"""ROS 1 bags (format 2.0): topics as sources, read chunk by chunk in parallel, and what a bag holds.

::

    bag = Rosbag1("drive.bag")
    bag.topics()                                      # {"/imu": TopicInfo(type="sensor_msgs/Imu", messages=922), ...}
    camera = bag.topic("/camera/front/image_raw/compressed")

Tables and columns are those of MCAP (`cdr`); ``std_msgs/Header`` has a ``seq`` more. ``ts_event`` is the header stamp (the
record time where that is zero or there is no header), ``ts_recv`` the time the recorder gave the message, ``seq`` the
number of the message within its topic. Chunks come in the order of their first message and messages within a chunk in
the order of their times, so that a bag whose chunks do not overlap in time is read in time order; where chunks overlap,
rows may be late by as much (`lateness`). A bag without a usable index is walked. What cannot be read (a damaged chunk, a
tail that was cut) goes to quarantine with file and offset; the rest of the bag is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...pipeline.duration import Duration
from ..storage.stored import PathLike, location
from ._mcap_contents import Contents
from ._mcap_inspect import TopicInfo, inspect_catalog, topic_infos
from ._mcap_topic import CHUNK_LIMIT, PieceTopic, check_limit
from ._rosbag1_format import MAGIC

if TYPE_CHECKING:
    from ._mcap_framing import Framing

__all__ = ["Rosbag1", "Rosbag1Topic", "TopicInfo", "inspect_rosbag1", "is_rosbag1", "open_rosbag1"]


@dataclass(frozen=True)
class Rosbag1Topic(PieceTopic):
    """One topic of a ROS 1 bag as a source.

    `lateness` is how far behind its newest row a row may be and still count as in time. `max_chunk_bytes` is what a chunk
    may unpack to (at most 1 GiB); larger ones go to quarantine. The file is opened when the schema is asked for.
    """

    format: ClassVar[str] = "rosbag1"

    def _contents(self) -> Contents:
        from ._rosbag1_catalog import bag_contents

        return bag_contents(location(self.path), self.topic, self.max_chunk_bytes)

    def _framing(self) -> Framing:
        from ._rosbag1_chunk import BagFraming

        return BagFraming()


@dataclass(frozen=True)
class Rosbag1:
    """A ROS 1 bag.

    `max_chunk_bytes` is what one chunk may unpack to (at most 1 GiB): a bound against damaged and hostile files.
    """

    path: PathLike
    max_chunk_bytes: int = CHUNK_LIMIT

    def __init__(self, path: PathLike, *, max_chunk_bytes: int = CHUNK_LIMIT) -> None:
        object.__setattr__(self, "path", location(path))
        object.__setattr__(self, "max_chunk_bytes", max_chunk_bytes)
        check_limit(max_chunk_bytes)

    def topics(self) -> dict[str, TopicInfo]:
        """Message type and count by topic, sorted by name. Raises FormatError if the file is not a bag of format 2.0."""
        from ._rosbag1_catalog import bag_catalog

        return topic_infos(bag_catalog(location(self.path), self.max_chunk_bytes))

    def topic(self, name: str, *, lateness: Duration = "100ms") -> Rosbag1Topic:
        """The source of one topic. Raises FormatError naming the topics there are if it is not one of them."""
        spec = Rosbag1Topic(self.path, name, lateness, self.max_chunk_bytes)
        spec._contents()
        return spec


def is_rosbag1(head: bytes) -> bool:
    """Whether a file that begins with `head` (13 bytes or more) is a ROS 1 bag of format 2.0."""
    return head[: len(MAGIC)] == MAGIC


def inspect_rosbag1(path: PathLike) -> dict[str, Any]:
    """What a bag holds, from its index; a bag without a usable one is walked. No message is decoded.

    Keys as for `mcap.inspect_mcap`.
    """
    from ._rosbag1_catalog import bag_catalog

    bag = Rosbag1(path)
    return inspect_catalog(bag_catalog(location(bag.path), bag.max_chunk_bytes), "rosbag1")


def open_rosbag1(
    path: PathLike, *, topic: str | None = None, lateness: Duration = "100ms", max_chunk_bytes: int = CHUNK_LIMIT
) -> Rosbag1 | Rosbag1Topic:
    """The bag, or with `topic` the source of that topic. Raises FormatError naming the topics if it is not one."""
    bag = Rosbag1(path, max_chunk_bytes=max_chunk_bytes)
    return bag if topic is None else bag.topic(topic, lateness=lateness)
