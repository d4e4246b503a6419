"""What a recording is to a replay: messages as they came over the wire, with the times at which they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    byte stream without stamps, `datagrams` how messages due together are packed for UDP (default: one a datagram).
    """

    messages: Callable[[], Iterator[Message]]
    text: bool = False
    framing: str = "u32"
    datagrams: Callable[[Iterator[Message]], Iterator[Message]] | None = None
