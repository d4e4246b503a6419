"""rosbag2 recordings: a SQLite file (``.db3``), or a folder of split SQLite or MCAP files as one source.

::

    bag = Rosbag2("drive/")                           # or "drive/drive_0.db3", or "drive/metadata.yaml"
    bag.topics()                                      # {"/imu": TopicInfo(type="sensor_msgs/msg/Imu", messages=922), ...}
    camera = bag.topic("/camera/front/image_raw/compressed")

Tables and columns are those of MCAP (`cdr`). ``ts_event`` is the header stamp (the record time where that is zero or there
is no header), ``ts_recv`` the time the recorder gave the message. The files of a folder are read in the order that
``metadata.yaml`` gives (by their numbers where there is none); the rows of a SQLite file in the order of (timestamp, id), of
an MCAP file in file order; ``seq`` numbers them through.

SQLite bags older than ROS 2 Iron hold no message definitions. Those of ROS's own packages are known; for another type give
its text: ``Rosbag2(path, definitions={"my_msgs/msg/Thing": "uint8 a\\n..."})``. A type that nothing describes is table
``raw``, and `inspect_rosbag2` names it. Files compressed as a whole (rosbag2's mode FILE) and SQLite files at a URL are
copied to the temporary folder while they are used; messages compressed one by one (mode MESSAGE) are unpacked as they
are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.schema import describe
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ._mcap_inspect import TopicInfo, time_range
from ._mcap_topic import CHUNK_LIMIT, even_starts

if TYPE_CHECKING:
    from ._rosbag2_topic import Opened, RecordedTopic

__all__ = ["Rosbag2", "Rosbag2Topic", "TopicInfo", "inspect_rosbag2", "is_rosbag2", "open_rosbag2"]

#: Message definitions by type, as they are kept in a spec: pairs, sorted.
Definitions = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rosbag2Topic(SourceSpec):
    """One topic of a rosbag2 recording as a source.

    `lateness` is how far behind its newest row a row may be and still count as in time. `max_chunk_bytes` is what a
    message of a SQLite file or a chunk of an MCAP file may take (at most 1 GiB). `definitions` are the texts of message
    types that the recording does not describe.
    """

    format: ClassVar[str] = "rosbag2"
    path: PathLike
    topic: str
    lateness: Duration = "100ms"
    max_chunk_bytes: int = CHUNK_LIMIT
    definitions: Definitions | Mapping[str, str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))
        object.__setattr__(self, "definitions", _pairs(self.definitions))
        _check_limit(self.max_chunk_bytes)

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.topic}"

    @property
    def schema(self) -> pa.Schema:
        """What the topic's message type decodes to (see `cdr`). Opens the files; raises FormatError, OSError."""
        return self._recorded().table.schema

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._rosbag2_parts import PartsReader

        return PartsReader(self._recorded().parts, context, split, position)

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a message again; `ts_recv` is null, since the record time is not part of it.

        None for what could not be read and for a message that holds no time of its own.
        """
        if record.operation not in ("rosbag2.decode", "mcap.decode"):
            return None
        from ._mcap_reader import retry_message

        return retry_message(record, self._recorded().table.decoder())

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` ranges of blocks with about the same number of bytes."""
        from itertools import pairwise

        sizes = [unit.nbytes for part in self._recorded().parts for unit in part.units]
        bounds = [*even_starts(sizes, wanted), len(sizes)]
        if len(bounds) <= 2:
            return (Split(0, 1),)
        count = len(bounds) - 1
        return tuple(Split(i, count, {"start": a, "stop": b}) for i, (a, b) in enumerate(pairwise(bounds)))

    @property
    def block_bound(self) -> int:
        """The largest block of the topic and the columns made of it."""
        recorded = self._recorded()
        wide = recorded.table.kind in ("radar.scan", "message")
        return max(1 << 20, recorded.largest * (4 if wide else 1))

    def _recorded(self) -> RecordedTopic:
        from ._rosbag2_topic import opened

        recording = opened(location(self.path), self.max_chunk_bytes)
        return recording.topic(self.topic, dict(self.definitions), source=self.name)


@dataclass(frozen=True)
class Rosbag2:
    """A rosbag2 recording: a file, a folder, or its ``metadata.yaml``.

    `max_chunk_bytes` bounds what one message (SQLite) or chunk (MCAP) may take, against damaged and hostile files.
    `definitions` are texts (``.msg``, with what they use behind ``===`` lines) of types that the recording does not
    describe, by name.
    """

    path: PathLike
    max_chunk_bytes: int = CHUNK_LIMIT
    definitions: Definitions = ()

    def __init__(
        self, path: PathLike, *, max_chunk_bytes: int = CHUNK_LIMIT, definitions: Mapping[str, str] | Definitions = ()
    ) -> None:
        _check_limit(max_chunk_bytes)
        object.__setattr__(self, "path", location(path))
        object.__setattr__(self, "max_chunk_bytes", max_chunk_bytes)
        object.__setattr__(self, "definitions", _pairs(definitions))

    def topics(self) -> dict[str, TopicInfo]:
        """Message type and count by topic, sorted by name. Raises FormatError if it is no rosbag2 recording, OSError."""
        return self._opened().topics()

    def topic(self, name: str, *, lateness: Duration = "100ms") -> Rosbag2Topic:
        """The source of one topic. Raises FormatError naming the topics there are if it is not one of them."""
        spec = Rosbag2Topic(self.path, name, lateness, self.max_chunk_bytes, self.definitions)
        spec._recorded()
        return spec

    def _opened(self) -> Opened:
        from ._rosbag2_topic import opened

        return opened(location(self.path), self.max_chunk_bytes)


def _pairs(definitions: Definitions | Mapping[str, str]) -> Definitions:
    pairs = definitions.items() if isinstance(definitions, Mapping) else definitions
    return tuple(sorted((str(name), str(text)) for name, text in pairs))


def _check_limit(limit: int) -> None:
    if not 1 << 10 <= limit <= 1 << 30:
        raise ValueError(f"max_chunk_bytes must be from 1024 to {1 << 30} (1 GiB), got {limit}")


def is_rosbag2(head: bytes, path: PathLike | None = None) -> bool:
    """Whether a file that begins with `head` (16 bytes or more) is a SQLite file, and if `path` is given, a rosbag2 one.

    Its head does not tell a bag from another SQLite file: with `path` the file is opened and its tables are looked at.
    """
    from ...pipeline.errors import FormatError

    if not head.startswith(b"SQLite format 3\0"):
        return False
    if path is None:
        return True
    from ._rosbag2_sqlite import has_messages

    try:
        return has_messages(location(path))
    except (FormatError, OSError):
        return False


def inspect_rosbag2(path: PathLike) -> dict[str, Any]:
    """What a recording holds. No message is decoded, but for the first of a SQLite topic, to see what describes it.

    Keys as for `mcap.inspect_mcap`, with ``storage`` (``sqlite3`` or ``mcap``), ``files`` and ``undescribed`` (types that
    nothing describes: their topics are table ``raw``).
    """
    bag = Rosbag2(path)
    recording = bag._opened()
    topics: dict[str, Any] = {}
    schemas: dict[str, str] = {}
    for name, info in recording.topics().items():
        table = recording.topic(name, {}, source=f"{base_name(bag.path)}:{name}").table
        text = describe(table.schema)
        topics[name] = {
            "type": info.type,
            "encoding": recording.encoding(name),
            "messages": info.messages,
            "table": table.kind,
            "schema": text,
        }
        schemas.setdefault(info.type, text)
    problem = recording.problem()
    undescribed = sorted({t["type"] for t in topics.values() if t["table"] == "raw"})
    return {
        "format": "rosbag2",
        "storage": recording.bag.storage,
        "profile": "ros2",
        "library": next((file.distro for file in recording.databases), ""),
        "files": list(recording.bag.files),
        "messages": recording.messages(),
        "topics": topics,
        "schemas": schemas,
        "undescribed": undescribed,
        "hint": _hint(undescribed),
        "time": time_range(*(recording.times() or (None, None))),
        "indexed": all(catalog.indexed for catalog in recording.catalogs),
        "complete": not problem,
        "problem": problem or None,
    }


def _hint(undescribed: Sequence[str]) -> str | None:
    if not undescribed:
        return None
    radar = "; radar packets are read by sources.Ars548 and sources.Srr520" if "nebula_msgs" in str(undescribed) else ""
    return f"nothing describes {', '.join(undescribed[:4])}: give definitions={{TYPE: TEXT}}, or have bytes{radar}"


def open_rosbag2(
    path: PathLike,
    *,
    topic: str | None = None,
    lateness: Duration = "100ms",
    max_chunk_bytes: int = CHUNK_LIMIT,
    definitions: Mapping[str, str] | Definitions = (),
) -> Rosbag2 | Rosbag2Topic:
    """The recording, or with `topic` the source of that topic. Raises FormatError naming the topics if it is not one."""
    bag = Rosbag2(path, max_chunk_bytes=max_chunk_bytes, definitions=definitions)
    return bag if topic is None else bag.topic(topic, lateness=lateness)
