"""Several files as one recording: their messages in time order, each file open only while its turn lasts."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...pipeline.errors import FormatError
from .message import Message, Playable

__all__ = ["together"]


def together(parts: Sequence[Playable], names: Sequence[str]) -> Playable:
    """One recording of `parts`, called `names`. Messages of a part stay in its order; of equal times the first part's come
    first. A topic has the number that the first part with it gives it, or the next one free.

    Raises FormatError where the parts cannot be one feed, because their messages are told apart in different ways or they
    have different headers.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for part, name in zip(parts, names, strict=True):
        if (part.text, part.framing, bool(part.datagrams)) != (first.text, first.framing, bool(first.datagrams)):
            raise FormatError(f"{name} is of another kind than {names[0]}: replay them one by one")
    greeting = _greeting(parts)
    topics: dict[str, int] = {}
    numbers: list[dict[int, int]] = []
    for part in parts:
        taken = set(topics.values())
        own = {}
        for topic, number in part.topics.items():
            if topic not in topics:
                free = number if number not in taken else next(n for n in range(1 << 16) if n not in taken)
                topics[topic] = free
                taken.add(free)
            own[number] = topics[topic]
        numbers.append(own)
    skipped: dict[str, int] = {}

    def messages() -> Iterator[Message]:
        for part in parts:
            part.skipped.clear()
        yield from _merged(parts, numbers)
        for part in parts:
            for reason, count in part.skipped.items():
                skipped[reason] = skipped.get(reason, 0) + count

    note = f"{len(parts)} files in time order{'; ' if first.note else ''}{first.note}"
    return replace(first, messages=messages, greeting=greeting, topics=topics, note=note, skipped=skipped)


def _greeting(parts: Sequence[Playable]) -> Message | None:
    first = parts[0]
    greetings = [part.greeting for part in parts if part.greeting is not None]
    if len({greeting.data for greeting in greetings}) < 2 and len(greetings) in (0, len(parts)):
        return first.greeting
    if first.merge is None or len(greetings) < len(parts):
        raise FormatError("the files have headers of their own that do not go together: replay them one by one")
    return first.merge(greetings)


def _merged(parts: Sequence[Playable], numbers: Sequence[dict[int, int]]) -> Iterator[Message]:
    """A part is opened when the time of its first message has come, which is looked up before."""
    waiting: list[tuple[int, int, int, Message, Iterator[Message] | None]] = []
    for number, part in enumerate(parts):
        probe = part.messages()
        head = next(probe, None)
        _close(probe)
        if head is not None:
            waiting.append((head.ts_ns, number, 0, head, None))
    heapq.heapify(waiting)
    try:
        while waiting:
            key, number, count, message, stream = waiting[0]
            if stream is None:
                stream = parts[number].messages()
                message = next(stream, message)
            known = numbers[number]
            yield message._replace(channel=known[message.channel]) if message.channel in known else message
            following = next(stream, None)
            if following is None:
                heapq.heappop(waiting)
            else:
                entry = (max(key, following.ts_ns), number, count + 1, following, stream)
                heapq.heapreplace(waiting, entry)
    finally:
        for *_, left in waiting:
            if left is not None:
                _close(left)


def _close(stream: Iterator[Message]) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()
