"""Messages out of a byte stream: lines, or bodies behind their length, or what a replay has stamped.

Where a length of four bytes is due, lines that a replay has stamped are known by the time in front of the first one: no
length begins with digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .stamp import HEADER, MAGIC, split_text

__all__ = ["FRAMINGS", "NoLength", "Splitter", "TooLong"]

#: Name to bytes of the length in front of a message (big-endian, as ITCH and most feeds have it); 0: there is none. With
#: "bytes" messages are what came at a time, and the codec finds its own way.
FRAMINGS = {"lines": 0, "u16": 2, "u32": 4, "bytes": 0}


class TooLong(Exception):
    """A message is longer than the limit: the stream cannot be followed any further."""


class NoLength(TooLong):
    """The stream does not begin with the length of a message."""


#: How a line begins that a replay has stamped, and what may become such a beginning.
_TIME, _PART_OF_TIME = re.compile(rb"\d{1,19} "), re.compile(rb"\d{1,19}")


class Splitter:
    """Takes a stream in any pieces. Stamped messages are recognised by the first bytes of the stream."""

    def __init__(self, framing: str, limit: int) -> None:
        self._width, self._limit = FRAMINGS[framing], limit
        self._bare = framing == "bytes"
        self._held = bytearray()
        self._stamped: bool | None = None
        self._begun = False

    @property
    def rest(self) -> bytes:
        """What came of a message that is not whole."""
        return bytes(self._held)

    def feed(self, data: bytes) -> Iterator[tuple[int | None, int, bytes]]:
        """Yield (recorded ns or None, channel, message) for each message that is whole now. Raises TooLong."""
        held = self._held
        held += data
        if self._stamped is None and not self._recognised():
            return
        if self._stamped:
            yield from self._bodies(HEADER.size)
        elif self._width:
            yield from self._bodies(self._width)
        elif self._bare:
            yield from self._pieces()
        else:
            yield from self._lines()

    def _recognised(self) -> bool:
        """Whether enough has come to tell what the stream is."""
        held = self._held
        if MAGIC.startswith(held):  # it may become one
            return False
        if self._width == 4 and int.from_bytes(held[:4].ljust(4, b"\0"), "big") > self._limit:
            if _PART_OF_TIME.fullmatch(held):
                return False
            if _TIME.match(held):
                self._width = 0
        self._stamped = held.startswith(MAGIC)
        return True

    def _bodies(self, head: int) -> Iterator[tuple[int | None, int, bytes]]:
        held, at = self._held, 0
        while len(held) - at >= head:
            ts_ns: int | None = None
            channel = 0
            if self._stamped:
                magic, length, _, ts_ns, channel, _ = HEADER.unpack_from(held, at)
                if magic != MAGIC:
                    raise TooLong(f"no header where one should be, but {bytes(held[at : at + 4])!r}")
            else:
                length = int.from_bytes(held[at : at + head], "big")
            if length > self._limit:
                if not self._begun and not self._stamped:
                    raise NoLength(f"the stream begins with {bytes(held[:16])!r}, which is no length of a message")
                raise TooLong(f"a message says it has {length} bytes, more than {self._limit}")
            if len(held) - at < head + length:
                break
            yield ts_ns, channel, bytes(held[at + head : at + head + length])
            at += head + length
            self._begun = True
        del held[:at]

    def _pieces(self) -> Iterator[tuple[int | None, int, bytes]]:
        if self._held:
            piece = bytes(self._held)
            self._held.clear()
            yield None, 0, piece

    def _lines(self) -> Iterator[tuple[int | None, int, bytes]]:
        held, at = self._held, 0
        while (end := held.find(b"\n", at)) >= 0:
            line = bytes(held[at:end])
            at = end + 1
            if line.strip():
                yield _line(line)
        del held[:at]
        if len(held) > self._limit:
            raise TooLong(f"a line of more than {self._limit} bytes")

    def finish(self) -> Iterator[tuple[int | None, int, bytes]]:
        """The last line, if it has no newline; the first bytes, if the stream ends with them."""
        if self._bare and not self._stamped:
            yield from self._pieces()
        elif not self._stamped and not self._width and self._held.strip():
            line = bytes(self._held)
            self._held.clear()
            yield _line(line)


def _line(line: bytes) -> tuple[int | None, int, bytes]:
    stamped = split_text(line)
    return (None, 0, line) if stamped is None else (stamped[0], 0, stamped[1])
