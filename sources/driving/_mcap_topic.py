"""What a topic of an MCAP file and one of a ROS 1 bag have in common as sources: pieces of a file, numbered."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ._mcap_contents import Contents, block_bytes
from .cdr import Table, table_for

if TYPE_CHECKING:
    from ._mcap_framing import Framing

__all__ = ["CHUNK_LIMIT", "PieceTopic", "check_limit", "even_starts", "topic_table"]

#: What a chunk may unpack to, unless told otherwise; recorders write chunks of 1 to 4 MB.
CHUNK_LIMIT = 256 << 20


def check_limit(limit: int) -> None:
    """Raises ValueError if `limit` cannot bound a chunk."""
    if not 0 < limit <= 1 << 30:
        raise ValueError(f"max_chunk_bytes must be from 1 to {1 << 30} (1 GiB), got {limit}")


def topic_table(contents: Contents, topic: str, *, source: str, format: str) -> Table:
    """The table that a topic's messages become."""
    kind = contents.type
    return table_for(
        topic,
        contents.channels[0].encoding,
        kind.name if kind else "",
        kind.encoding if kind else "",
        kind.data if kind else b"",
        source=source,
        format=format,
    )


@dataclass(frozen=True)
class PieceTopic(SourceSpec):
    """A topic of a file that is read piece by piece."""

    path: PathLike
    topic: str
    lateness: Duration = "100ms"
    max_chunk_bytes: int = CHUNK_LIMIT

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        check_limit(self.max_chunk_bytes)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
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
        return McapReader(contents, decoder, self.max_chunk_bytes, context, split, position, self._framing())

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode a message again; `ts_recv` is null, since the log time is not part of it.

        None for a damaged part of the file and for a message that holds no time of its own.
        """
        if record.operation != f"{self.format}.decode":
            return None
        from ._mcap_reader import retry_message

        return retry_message(record, self._table(self._contents()).decoder())

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` ranges of chunks with about the same number of bytes."""
        sizes = [unit.piece.length for unit in self._contents().units]
        bounds = [*even_starts(sizes, wanted), len(sizes)]
        if len(bounds) <= 2:
            return (Split(0, 1),)
        ranges = pairwise(bounds)
        return tuple(Split(i, len(bounds) - 1, {"start": a, "stop": b}) for i, (a, b) in enumerate(ranges))

    @property
    def block_bound(self) -> int:
        """The largest chunk of the topic, or small ones of one block, packed and unpacked, and the columns made of them."""
        contents = self._contents()
        largest = block_bytes(contents.units)
        wide = self._table(contents).kind in ("radar.scan", "message")
        return max(1 << 20, largest * (4 if wide else 1))

    def _table(self, contents: Contents) -> Table:
        return topic_table(contents, self.topic, source=self.name, format=self.format)

    @abstractmethod
    def _contents(self) -> Contents:
        """The topic's units in the file as it is now."""

    @abstractmethod
    def _framing(self) -> Framing:
        """How its pieces are taken apart."""


def even_starts(sizes: Sequence[int], wanted: int) -> list[int]:
    """Where up to `wanted` runs of items begin that have about the same total size each, none empty."""
    count = max(1, min(wanted, len(sizes)))
    total, done, starts = sum(sizes), 0, [0]
    for i, size in enumerate(sizes):
        left = count - len(starts)
        if i and left and (done * count >= total * len(starts) or len(sizes) - i <= left):
            starts.append(i)
        done += size
    return starts
