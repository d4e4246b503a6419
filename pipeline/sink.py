"""The contract of where results go: nothing is visible under its final name before it is complete."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pyarrow as pa

from .context import Context
from .operator import State

__all__ = ["Sink", "SinkSpec"]


class SinkSpec(ABC):
    """Where to write and how. Subclasses are frozen dataclasses that pickle."""

    kind: ClassVar[str] = "sink"
    #: Whether writing takes long enough to deserve a thread of its own.
    own_thread: ClassVar[bool] = True
    #: Whether the rows get a digest in the report.
    digested: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """Short, for reports: ``detections/ (parquet)``."""

    def check(self, schema: pa.Schema) -> None:
        """Raise GraphError if rows of `schema` cannot be written; called when the graph is built."""

    def check_target(self) -> None:
        """Raise GraphError if the target cannot be written, such as results that are there already.

        Called before a run does any work, and again by `open` unless ``context.resuming``; not when a graph is only built
        or explained.
        """

    @abstractmethod
    def open(self, context: Context, schema: pa.Schema) -> Sink:
        """Start writing. Touches the target only under temporary names."""

    def state_bound(self, schema: pa.Schema) -> int:
        """Upper bound of the bytes buffered before they are written out."""
        return 0


class Sink(ABC):
    """A running sink, used by one thread. `commit`, `abort` or `detach` is called exactly once at the end."""

    @abstractmethod
    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch. Batch boundaries must not show in what a reader sees."""

    @abstractmethod
    def commit(self) -> None:
        """Make everything written visible under final names, all or nothing per file."""

    @abstractmethod
    def abort(self) -> None:
        """Remove everything that was not committed. Must be safe to call after a failed `commit`."""

    def snapshot(self) -> State:
        """What was staged so far, so that `restore` can go on behind it."""
        return {}

    def restore(self, state: State) -> None:
        """Continue behind a `snapshot`; what was staged later is dropped. Called before the first batch."""

    def is_committed(self, state: State) -> bool:
        """Whether everything in a `snapshot` stands under final names already: the commit of a run that died just then."""
        return False

    def publish(self, state: State) -> None:
        """The `snapshot` is stored for good: what it holds may become visible now, if the sink does so before the end."""

    def detach(self) -> None:
        """Let go without removing anything: a run that goes on from a snapshot takes over. Instead of commit or abort."""
