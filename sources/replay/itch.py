"""NASDAQ ITCH files as their messages, sent in MoldUDP64 packets: over TCP each behind its length of two bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from ...pipeline.memory import BufferPool
from ..storage.unpack import head_of, open_feed
from ._decoded import UNREAD, count
from .message import Message, Playable

__all__ = ["itch_playable"]

_DATAGRAM = 1_400
_SKIPPED = "messages without a sound length or time"


def itch_playable(path: str, **options: Any) -> Playable:
    """The messages of `path` at their times in New York; `options` are those of `Itch`."""
    from ..market._itch_format import detect, length_table, midnight_ns
    from ..market._itch_reader import Framer
    from ..market.itch import Itch

    spec = Itch(path, **options)
    midnight, lengths = midnight_ns(spec.session, spec.timezone), length_table()
    head, _ = head_of(path)
    prefixed = bool(detect(head, whole=len(head) < 1 << 16))
    skipped: dict[str, int] = {}

    def messages() -> Iterator[Message]:
        feed = open_feed(path)
        try:
            for _, piece in Framer(feed, prefixed, BufferPool()).pieces():
                unsound = set(piece.bad[:, 3].tolist())
                for number, at in enumerate(piece.offsets[: piece.count].tolist()):
                    size = int(lengths[piece.data[at]])
                    if not size and prefixed:
                        size = int.from_bytes(piece.data[at - 2 : at].tobytes(), "big")
                    if number in unsound or size < 11:
                        count(skipped, _SKIPPED)
                        continue
                    data = piece.data[at : at + size].tobytes()
                    yield Message(midnight + int.from_bytes(data[5:11], "big"), data)
            if feed.error is not None:
                count(skipped, UNREAD)
        finally:
            feed.close()

    note = "MoldUDP64 packets; messages of the same time share one"
    return Playable(messages, framing="u16", datagrams=mold_packets, note=note, skipped=skipped)


def mold_packets(messages: Iterator[Message]) -> Iterator[Message]:
    """MoldUDP64 packets: messages with the same time share one, up to what fits a datagram; then the end of the session."""
    session = b"PENSTOCK  "
    held: list[bytes] = []
    size, number, at = 0, 1, 0

    def packet() -> Message:
        body = b"".join(len(data).to_bytes(2, "big") + data for data in held)
        return Message(at, session + struct.pack(">QH", number, len(held)) + body)

    for message in messages:
        if held and (message.ts_ns != at or size + len(message.data) + 2 > _DATAGRAM):
            yield packet()
            number += len(held)
            held, size = [], 0
        at = message.ts_ns
        held.append(message.data)
        size += len(message.data) + 2
    if held:
        yield packet()
        number += len(held)
    yield Message(at, session + struct.pack(">QH", number, 0xFFFF))
