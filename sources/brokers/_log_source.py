"""What sources over brokers that keep their messages have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.source import Position, SourceReader, SourceSpec, Split
from ..live.message_reader import Tape
from ..live.session import Codec
from ._gaps import GapSession
from ._log_reader import Log, LogReader

__all__ = ["LogSource"]


@dataclass(frozen=True)
class LogSource(SourceSpec):
    """How a log is begun and ended; see `Kafka` and `RedisStream`."""

    rewinds: ClassVar[bool] = False
    start: str = field(default="earliest", kw_only=True)
    end: str | None = field(default=None, kw_only=True)
    most: int | None = field(default=None, kw_only=True)
    duration: Duration | None = field(default=None, kw_only=True)
    record: str | None = field(default=None, kw_only=True)
    reconnect: Duration = field(default="30s", kw_only=True)
    lateness: Duration = field(default="0s", kw_only=True)

    def __post_init__(self) -> None:
        if self.start not in ("earliest", "latest"):
            raise GraphError(f"{self.start=} is no place to begin", expected="'earliest' | 'latest'")
        if self.end not in (None, "now"):
            raise GraphError(f"{self.end=} is no place to end", expected="None (never) | 'now'")
        if self.most is not None and self.most < 1:
            raise GraphError(f"most={self.most} is not above 0")
        for name in ("reconnect", "lateness"):
            object.__setattr__(self, name, nanoseconds(getattr(self, name)))
        if self.duration is not None:
            object.__setattr__(self, "duration", nanoseconds(self.duration))

    @property
    @abstractmethod
    def feed(self) -> Codec:
        """The codec of the messages."""

    @abstractmethod
    def log(self, context: Context, position: Position | None) -> Log:
        """The log, from its `start` or behind a `Log.position`. Raises MissingExtraError."""

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def schema(self) -> pa.Schema:
        return self.feed.schema(self.name)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        """Open at its `start`, or behind a position; connecting is left to the first block."""
        log = self.log(context, None if position is None else position["log"])
        session = self.feed.open(context, self.name, None if position is None else position["session"] or None)
        return LogReader(
            log,
            GapSession(session, self.name),
            context,
            follows=self.end is None,
            place=self.name,
            position=position,
            most=self.most,
            duration_ns=None if self.duration is None else nanoseconds(self.duration),
            tape=self._tape if self.record is not None and not context.rehearsing else None,
        )

    def check_target(self) -> None:
        """Raise GraphError if there is a recording at `record`, whole or cut."""
        if self.record is not None:
            from ..replay.recorder import refuse_existing

            refuse_existing(self.record)

    def _tape(self) -> Tape:
        from ..replay.recorder import Recorder

        return Recorder(str(self.record), feed=self.name, codec=self.feed)

    @property
    def block_bound(self) -> int:
        return 64 << 20
