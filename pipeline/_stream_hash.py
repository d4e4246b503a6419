"""The hash of a stream of bytes that can stop in one process and go on in another.

The state of XXH3 cannot be taken out of its library. So the stream is cut every `SEGMENT` bytes, wherever updates happen
to end; each full segment is hashed in one call, straight from the caller's memory; and the hashes are folded into
one as soon as there are many. What is left to save is short: the bytes of the segment begun, and the last few hashes.

Segments are no longer than what the library hashes without letting go of the GIL: taking it back costs up to 5 ms when
other threads are busy, hashing a segment under 2 µs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xxhash import xxh3_128, xxh3_128_digest

__all__ = ["SEGMENT", "StreamHash"]

#: Bytes of a segment. Other segments give other digests.
SEGMENT = 64 << 10
#: Bytes of hashes that are folded into one hash.
_FOLD = 1024


class StreamHash:
    """XXH3, 128 bits, of everything given to `update`, however it was cut."""

    __slots__ = ("_begun", "_buffer", "_hashes", "_segments")

    def __init__(self) -> None:
        self._segments = 0  # segments whose hashes are in `_hashes`
        self._hashes = b""
        self._begun = 0  # bytes in `_buffer`
        self._buffer = _NOTHING

    def update(self, data: memoryview) -> None:
        """Add the bytes of `data`, which is contiguous; none of it is kept but a copy of the segment begun."""
        size = data.nbytes
        if not size:
            return
        if data.format != "b":
            data = data.cast("b")
        begun, buffer = self._begun, self._buffer
        if not buffer:
            self._buffer = buffer = memoryview(bytearray(SEGMENT)).cast("b")
        total = begun + size
        if total < SEGMENT:
            buffer[begun:total] = data
            self._begun = total
            return
        hashes, start = self._hashes, 0
        if begun:
            start = SEGMENT - begun
            segment = xxh3_128(buffer[:begun])
            segment.update(data[:start])
            hashes += segment.digest()
        stop = start + SEGMENT
        while stop <= size:
            hashes += xxh3_128_digest(data[start:stop])
            start, stop = stop, stop + SEGMENT
        while len(hashes) >= _FOLD:
            hashes = xxh3_128_digest(hashes[:_FOLD]) + hashes[_FOLD:]
        self._hashes = hashes
        self._segments += total // SEGMENT
        self._begun = size - start
        buffer[: self._begun] = data[start:]

    def digest(self) -> bytes:
        length = self._segments * SEGMENT + self._begun
        return xxh3_128_digest(b"".join((length.to_bytes(16, "little"), self._hashes, self._buffer[: self._begun])))

    def snapshot(self) -> list[Any]:
        """Full segments, their hashes, and the bytes of the segment begun."""
        return [self._segments, self._hashes, bytes(self._buffer[: self._begun])]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on behind a `snapshot`. Raises ValueError for what is none."""
        match state:
            case [int(segments), bytes(hashes), bytes(begun)]:
                pass
            case _:
                raise ValueError("a hash goes on from a number of segments, their hashes and the bytes behind them")
        if segments < 0 or len(hashes) != _length_of_hashes(segments) or len(begun) >= SEGMENT:
            raise ValueError(
                f"{len(hashes)} bytes of hashes and {len(begun)} of data do not follow {segments} segments"
            )
        self._segments, self._hashes, self._begun, self._buffer = segments, hashes, 0, _NOTHING
        self.update(memoryview(begun))


_NOTHING = memoryview(b"")


def _length_of_hashes(segments: int) -> int:
    most = _FOLD // 16
    count = segments if segments < most else 1 + (segments - most) % (most - 1)  # a fold leaves one behind
    return count * 16
