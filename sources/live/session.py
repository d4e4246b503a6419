"""The contract between feeds and rows: the same session serves a live feed and the recording of one.

A `Codec` is a frozen description; its `Session` takes arrivals one batch after the other, in order, and keeps what needs
order: sequence numbers, books that must stay in step, what was told twice. What it hands on decodes anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import GraphError
from ...pipeline.source import Decoded, SourceSpec
from .arrival import Arrival
from .inlet import Inlet

__all__ = ["Codec", "Framed", "Request", "Session", "check_codec"]


#: Something the session needs from the sender beside the feed, done in a thread of its own; the answer goes into the inlet.
Request: TypeAlias = Callable[[Inlet, Context], None]


@dataclass(frozen=True, slots=True)
class Framed:
    """Arrivals in order, ready to decode: `records` rows or bad records from them, and what was noticed on the way.

    `noticed` are gaps and losses (they take no row number), `dropped` records by reason.
    """

    payload: Any
    records: int
    nbytes: int
    noticed: Sequence[BadRecord] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    requests: Sequence[Request] = ()


class Session(ABC):
    """A feed being followed. `take` is called by one thread at a time, `decode` by any number at once."""

    #: Set when the feed says itself that it is over.
    ended: bool = False

    @abstractmethod
    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        """Put `arrivals` in order and find out what is missing; `first_seq` numbers the first record."""

    @abstractmethod
    def decode(self, payload: Any, first_seq: int) -> Decoded:
        """Rows of what `take` framed. Pure and thread-safe."""

    def idle(self, quiet_ns: int, first_seq: int) -> Framed | None:
        """Called while nothing comes, with how long that has been so: what was held back long enough."""
        return None

    def finish(self, first_seq: int) -> Framed | None:
        """What was held back, when the feed ends."""
        return None

    def position(self) -> Mapping[str, Any]:
        """Plain values from which a session goes on noticing what is missing."""
        return {}


class Codec(ABC):
    """How messages of a feed become rows. Subclasses are frozen dataclasses that pickle."""

    name: ClassVar[str] = ""
    #: How messages are told apart on a byte stream: "lines", "u16" or "u32".
    framing: ClassVar[str] = "lines"

    @abstractmethod
    def schema(self, source: str) -> pa.Schema:
        """The schema of the rows; `source` names the feed in its metadata."""

    @abstractmethod
    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        """A session from the beginning, or behind a `Session.position`."""

    def greeting(self, url: str) -> Sequence[str]:
        """What to send when a line is connected, such as subscriptions."""
        return ()

    def describe(self) -> Mapping[str, Any]:
        """Plain values from which `codec_named` makes it again; kept in recordings."""
        return {}


def check_codec(given: object, what: str) -> None:
    """Raises GraphError, saying what a codec is and how one is made of `given`, if it is none."""
    if isinstance(given, Codec):
        return
    if isinstance(given, SourceSpec) and given.format == "ndjson":
        how = "a codec, which says what a message is: wrap it, as in sources.JsonMessages(sources.game_events('match'))"
    else:
        how = "a codec, such as sources.JsonMessages(...), sources.CryptoMessages(...) or sources.RawMessages()"
    got = f"{given.__name__} itself, not an object of it" if isinstance(given, type) else type(given).__name__
    raise GraphError(f"{what} needs to know what its messages are", expected=how, got=got)
