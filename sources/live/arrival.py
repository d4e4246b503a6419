"""What a transport hands on: messages with the time they came, and what happened to the connection between them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Arrival"]


class Arrival(NamedTuple):
    """One message, or (with `event`) something that happened on a line in between.

    `recv_ns` is the wall-clock time at which it was read, ns since the epoch; where a replay stamps its messages, the
    recorded one. `line` numbers the connections of a feed (the A and B side of a feed are 0 and 1), `channel` is what the
    sender calls the stream (a topic, else 0). `event` is empty for a message, else ``"connected"`` or
    ``"lost: <reason>"``, in order with the messages of its line.
    """

    recv_ns: int
    data: bytes
    line: int = 0
    channel: int = 0
    event: str = ""
