"""The containers of a BLF file, unpacked in order; what is damaged comes with its place, and reading goes on behind it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from ...pipeline.context import BadRecord
from ..storage.feed import Feed
from ..storage.unpack import inflater
from ._blf_format import CONTAINER, HEADER, MOST_CONTAINER, PADDING, next_object, object_at

__all__ = ["KEPT", "Content", "Damage", "read_containers"]

#: Bytes of a damaged piece that quarantine keeps.
KEPT = 1 << 16
_STEP = 1 << 18
_INPUT = 1 << 16
_HEAD = 2 * HEADER


@dataclass(frozen=True, slots=True)
class Content:
    """What the container at `offset` of the file holds, or an object that stands there in none."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of the file that could not be used; reading goes on at `after`."""

    bad: BadRecord
    after: int


def read_containers(feed: Feed, path: str, offset: int) -> Iterator[Content | Damage]:
    """What lies from `offset` of the file on. Never more is held than a container, stored and unpacked."""
    feed.seek(offset)
    window = _Window(feed, offset)
    yield from _Walk(window, path).run()
    if feed.error is not None:
        bad = BadRecord(f"{path}, byte {window.offset}", "blf.unpack", feed.error, b"")
        yield Damage(bad, window.offset)


class _Window:
    """The next bytes of a feed, as many as were asked for; `offset` is the place of the first."""

    def __init__(self, feed: Feed, offset: int) -> None:
        self._feed, self.offset = feed, offset
        self._data, self._at, self._ended = b"", 0, False

    def have(self, size: int) -> int:
        """How many of the next `size` bytes there are."""
        left = len(self._data) - self._at
        if left >= size or self._ended:
            return min(left, size)
        pieces = [self._data[self._at :]]
        step = max(_STEP, left // 2)  # so that asking for a little more again and again does not copy all each time
        while left < size and not self._ended:
            view = memoryview(bytearray(step))
            count = self._feed.fill(view)
            pieces.append(bytes(view[:count]))
            left += count
            self._ended = count < len(view)
        self._data, self._at = b"".join(pieces), 0
        return min(left, size)

    def peek(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, as far as `have` has seen to them."""
        return self._data[self._at + start : self._at + stop]

    def skip(self, count: int) -> None:
        """Leave bytes behind that `have` has seen."""
        self._at += count
        self.offset += count


class _Walk:
    def __init__(self, window: _Window, path: str) -> None:
        self._window, self._path = window, path
        self._library = inflater()

    def run(self) -> Iterator[Content | Damage]:
        window = self._window
        while have := window.have(HEADER + PADDING):
            gap = window.peek(0, PADDING + 4).find(b"LOBJ")
            if gap < 0:
                if have <= PADDING:
                    return
                yield self._lost(0)
                continue
            window.skip(gap)
            have = window.have(HEADER)
            if have < HEADER:
                yield self._damage("the file ends inside the head of an object", have)
                return
            found = object_at(window.peek(0, HEADER), 0)
            if found is None:
                yield self._lost(4)
            elif found[1] == CONTAINER:
                yield from self._container(found[0])
            else:
                yield self._loose(found[0])

    def _loose(self, size: int) -> Content:
        """An object outside of containers, up to the next head at most: it may lie about its length."""
        window = self._window
        have = window.have(size + PADDING + 4)
        if have > size + PADDING and b"LOBJ" not in window.peek(size, have):
            size = self._next_inside(size)
        content = Content(window.offset, window.peek(0, min(size, have)))
        window.skip(len(content.data))
        return content

    def _next_inside(self, size: int) -> int:
        """Where the first head behind the next one stands, if that is among the next `size` bytes; else `size`."""
        for at in range(0, size, _STEP):
            found = next_object(self._window.peek(at, min(at + _STEP + HEADER - 1, size)), 0 if at else HEADER)
            if found is not None:
                return at + found
        return size

    def _container(self, size: int) -> Iterator[Content | Damage]:
        window = self._window
        have = window.have(_HEAD)
        if have < _HEAD:
            yield self._damage("the file ends inside the head of a container", have)
            return
        head = window.peek(HEADER, _HEAD)
        method, declared = int.from_bytes(head[:2], "little"), int.from_bytes(head[8:12], "little")
        if method == 2:
            yield from self._inflated(size)
        elif method == 0:
            whole = min(size, _HEAD + declared) if declared else size
            have = window.have(whole)
            yield Content(window.offset, window.peek(_HEAD, have))
            if have < whole:
                yield self._damage(f"the file ends inside a container: {have} of its {whole} bytes are there", have)
            else:
                window.skip(whole)
        else:
            have = window.have(size)
            yield self._damage(f"a container packed by method {method}; known are 0 (not) and 2 (zlib)", have)

    def _inflated(self, size: int) -> Iterator[Content | Damage]:
        window = self._window
        content, used, complete, error = self._inflate(self._library, size)
        if not complete and not error and self._library is not zlib:
            content, used, complete, error = self._inflate(zlib, size)  # what a cut stream gives depends on the library
        if error:
            yield self._lost(HEADER, f"a container does not unpack ({error})")
            return
        yield Content(window.offset, content)
        if complete:
            window.skip(used if size - used > PADDING else window.have(size))
            return
        have = window.have(size)
        if have < size:
            yield self._damage(f"the file ends inside a container: {have} of its {size} bytes are there", have)
        else:
            yield self._damage("the packed content of a container ends early", size)

    def _inflate(self, library: ModuleType, size: int) -> tuple[bytes, int, bool, str]:
        """What the zlib stream gives, how many bytes it and the head take, whether it is whole, what is wrong with it."""
        window, member = self._window, library.decompressobj()
        pieces: list[bytes] = []
        total, at = 0, _HEAD
        while at < size and not member.eof:
            have = window.have(min(at + _INPUT, size))
            if have <= at:
                break
            try:
                piece: bytes = member.decompress(window.peek(at, have), MOST_CONTAINER + 1 - total)
            except (zlib.error, library.error) as error:
                return b"", size, False, str(error) or "its zlib stream is damaged"
            pieces.append(piece)
            total, at = total + len(piece), have
            if total > MOST_CONTAINER:
                return b"", size, False, f"it holds more than {MOST_CONTAINER >> 20} MiB"
        return b"".join(pieces), at - len(member.unused_data or b""), bool(member.eof), ""

    def _damage(self, error: str, length: int) -> Damage:
        """The next `length` bytes as a bad record."""
        window = self._window
        kept = window.peek(0, min(length, KEPT))
        bad = BadRecord(f"{self._path}, byte {window.offset}", "blf.frame", error, kept)
        window.skip(length)
        return Damage(bad, window.offset)

    def _lost(self, start: int, why: str = "no object begins here") -> Damage:
        """What stands before the next head that can be right, looked for from `start` on."""
        window, offset, kept, length = self._window, self._window.offset, b"", 0
        while True:
            have = window.have(_STEP)
            found = next_object(window.peek(0, have), start)
            step = found if found is not None else have if have < _STEP else have - HEADER + 1
            kept += window.peek(0, min(step, KEPT - len(kept)))
            window.skip(step)
            length, start = length + step, 0
            if found is not None or have < _STEP:
                break
        error = f"{why}; {length} bytes up to the next object are skipped"
        return Damage(BadRecord(f"{self._path}, byte {offset}", "blf.frame", error, kept), window.offset)
