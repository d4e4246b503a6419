"""What a recording is to a replay: messages as they came over the wire, with the times at which they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Message", "Playable"]


class Message(NamedTuple):
    """One message, recorded at `ts_ns` (receive time), on the sender's `channel`."""

    ts_ns: int
    data: bytes
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Playable:
    """A recording that can be served again and again.

    `text` says that messages are text (a WebSocket sends text frames, TCP lines), `framing` how they are told apart on a
    byte stream without stamps (``bytes``: they tell it themselves), `datagrams` how messages due together are packed
    into what is sent (default: each is sent on its own). `greeting` goes out first on every connection; `merge` makes one of
    those of several files. `topics` are the channels by name, `note` says
    in one line what is sent where that is not what the recording holds. `skipped` counts, by reason, the records that
    `messages` could not give.
    """

    messages: Callable[[], Iterator[Message]]
    text: bool = False
    framing: str = "u32"
    datagrams: Callable[[Iterator[Message]], Iterator[Message]] | None = None
    greeting: Message | None = None
    merge: Callable[[Sequence[Message]], Message] | None = None
    topics: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    skipped: dict[str, int] = field(default_factory=dict)
