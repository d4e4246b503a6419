"""A Slippi replay played again: a message for each frame, as a console would have sent it."""

from __future__ import annotations

from collections.abc import Iterator

from ..games._slippi_format import FIRST_FRAME, FRAME_NS, FRAME_START, ITEM, POST, PRE
from ..storage.unpack import open_feed
from .message import Message, Playable

__all__ = ["slippi_playable"]

_PIECE = 1 << 20
_OF_FRAMES = frozenset((PRE, POST, FRAME_START, ITEM))
_MOST = 1 << 20


def slippi_playable(path: str, *, start_at: int | None = None) -> Playable:
    """The events of `path`, bare and frame by frame, each frame due 16.683 ms behind the one before.

    The start of the game and all before the first frame are one message, at the replay's ``startAt`` (1970 if it has none)
    or `start_at` (ns). A frame that a rollback sent again is a message of its own, at its frame's time, so due at once.
    Raises FormatError for a file that is no Slippi replay.
    """
    from ..games._slippi_reader import examine

    replay = examine(path)
    start = start_at if start_at is not None else replay.start_ns or 0
    container, sizes = replay.container, replay.opening.sizes.tolist()
    end = None if container.length is None else container.start + container.length

    def messages() -> Iterator[Message]:
        held, first = b"", True
        ts_ns, at = start, 0
        message = bytearray()
        for piece in _pieces(path, container.start, end):
            data = held + piece
            at = 0
            if first:
                at = replay.opening.end - container.start
                message += data[:at]
                first = False
            while at < len(data):
                size = sizes[data[at]] + 1
                if size == 0:  # no event: the rest goes out as it is
                    size = len(data) - at
                if at + size > len(data):
                    break
                if data[at] in _OF_FRAMES and size >= 5:
                    frame = int.from_bytes(data[at + 1 : at + 5], "big", signed=True)
                    due = start + max(0, frame - FIRST_FRAME) * FRAME_NS
                    if due != ts_ns or len(message) >= _MOST:
                        if message:
                            yield Message(ts_ns, bytes(message))
                        message, ts_ns = bytearray(), due
                message += data[at : at + size]
                at += size
            held = data[at:]
        message += held
        if message:
            yield Message(ts_ns, bytes(message))

    return Playable(messages, framing="bytes")


def _pieces(path: str, start: int, end: int | None) -> Iterator[bytes]:
    feed = open_feed(path)
    try:
        feed.seek(start)
        view = memoryview(bytearray(_PIECE))
        left = None if end is None else end - start
        while left is None or left > 0:
            count = feed.fill(view if left is None else view[: min(left, _PIECE)])
            if not count:
                return
            left = None if left is None else left - count
            yield bytes(view[:count])
    finally:
        feed.close()
