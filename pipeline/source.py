"""The contract of where data comes in.

Reading has two parts with different needs. *Framing* walks the container in order, finds where records begin, and yields
`Block`s: it is sequential, cheap and knows the position to resume from. *Decoding* turns a block into batches of columns:
it is pure, runs in any thread, several at once, and releases the GIL. Row numbers come from framing, so parallel decoding
gives the same rows as serial decoding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from .context import BadRecord, Context

__all__ = ["Block", "Decoded", "Position", "SourceReader", "SourceSpec", "Split"]

#: Where to resume: plain JSON values only.
Position = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a source that can be read on its own. Splits in order, concatenated, are the whole source."""

    index: int
    count: int
    detail: Position = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """A framed piece of a source, ready to decode.

    `first_seq` is the number of its first record in the source, `records` how many there are (quarantined ones
    included), `nbytes` the size of what it holds, `after` the position that resumes right behind this block.
    """

    index: int
    first_seq: int
    records: int
    nbytes: int
    after: Position
    payload: Any


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a block decoded to: batches in order, records that could not be decoded, and counted drops by reason."""

    batches: Sequence[pa.RecordBatch]
    bad: Sequence[BadRecord] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)


class SourceReader(ABC):
    """An open source."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Frame the source in order. Iterated by one thread at a time (not always the same thread).

        What cannot be framed (a truncated tail, a wrong length) must come out as a block whose `decode` gives
        `BadRecord`s, so that every byte is accounted for. Raises FormatError if the file is not of this format.
        """

    @abstractmethod
    def decode(self, block: Block) -> Decoded:
        """Decode one block. Pure and thread-safe. `seq` of the rows starts at ``block.first_seq``."""

    def finish(self) -> bool:
        """Take nothing more in: `blocks` gives what has come, and ends. False (default): this source ends by itself.

        For sources that nobody else ends, such as live feeds. Called by another thread, or by a signal handler in the middle
        of anything: it may set a flag and no more.
        """
        return False

    def close(self) -> None:
        """Release files. Called once, also after an error."""


class SourceSpec(ABC):
    """Where to read and how. Subclasses are frozen dataclasses that pickle.

    Where the user gives no lateness, that of the source (`lateness_ns`) is used.
    """

    format: ClassVar[str] = ""
    #: Whether the rows behind a position come again in the same order. A live feed goes on from now, and a broker may give
    #: its partitions in turns: snapshots cut such a source between two blocks only.
    rewinds: ClassVar[bool] = True

    @property
    def lateness_ns(self) -> int:
        """How far behind the newest event time of the source a row may be and still count as in time, ns (default 0)."""
        return 0

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The schema of every batch. May open the file; raises FormatError or OSError if that fails."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short, for ids and reports: ``drive.mcap:/camera/front``."""

    @abstractmethod
    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        """Open the whole source or one `split`, from its beginning or from a `position` that a block gave."""

    def check_target(self) -> None:
        """Raise GraphError if what is kept on the way (a recording of a feed) would be written over what is there.

        Called before a run does any work, unless it goes on from a checkpoint; not when a graph is only built or explained.
        """
        return

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` independent parts. The default is one: the whole."""
        return (Split(0, 1),)

    @property
    def splits_wanted(self) -> int:
        """Into how many splits to divide for several processes; 0 (default): by the size of the file at ``path``."""
        return 0

    def retry(self, record: BadRecord) -> Decoded | None:
        """For ``penstock quarantine rerun``: decode `record`, which this source put aside, again and on its own.

        Columns that its bytes do not hold are null. None (default) if they are not enough to tell whether it decodes.
        """
        return None

    @property
    def block_bound(self) -> int:
        """Upper bound of the bytes of one block with the batches decoded from it, for the memory plan."""
        return 64 << 20
