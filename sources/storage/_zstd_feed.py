"""What a zstd file holds, unpacked straight into the caller's memory.

`zstandard`'s reader bounds its output but does not tell a file that was cut from one that ends, so the frames' own block
headers are followed beside it (Zstandard format specification, RFC 8878, section 3.1).
"""

from __future__ import annotations

from typing import Any

from ...pipeline.errors import MissingExtraError
from .stored import Stored

__all__ = ["MOST_WINDOW", "Frames", "ZstdReader"]

#: The longest window that is unpacked (``zstd --long=28``): so much memory is held while reading.
MOST_WINDOW = 256 << 20
_FRAME, _SKIPPABLE = 0xFD2FB528, 0x184D2A50
_STEP = 1 << 18


class Frames:
    """Follows compressed bytes: `complete` says whether they end between two frames."""

    def __init__(self) -> None:
        self._skip = 0
        self._held = b""
        self._inside = self._checksum = False

    @property
    def complete(self) -> bool:
        return not (self._inside or self._skip or self._held)

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next compressed bytes. What is no frame is left to the decompressor to refuse."""
        at, size = 0, len(data)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            if self._inside and not self._held:
                while at + 3 <= size:  # blocks that are whole and not the last of their frame
                    head = data[at] | data[at + 1] << 8 | data[at + 2] << 16
                    after = at + 3 + (1 if head & 6 == 2 else head >> 3)
                    if head & 1 or after > size:
                        break
                    at = after
                if at + 3 <= size:
                    self._block(data[at] | data[at + 1] << 8 | data[at + 2] << 16)
                    at += 3
                    continue
                if at == size:
                    break
            self._held += data[at : at + 1]
            at += 1
            if self._inside:
                if len(self._held) == 3:
                    self._block(int.from_bytes(self._held, "little"))
                    self._held = b""
            else:
                self._header()

    def _header(self) -> None:
        held = self._held
        if len(held) < 5:
            return
        magic = int.from_bytes(held[:4], "little")
        if magic & 0xFFFFFFF0 == _SKIPPABLE:
            if len(held) == 8:
                self._skip, self._held = int.from_bytes(held[4:], "little"), b""
            return
        flags = held[4]
        single, content = flags >> 5 & 1, flags >> 6
        size = 5 + (not single) + (0, 1, 2, 4)[flags & 3] + ((single, 2, 4, 8)[content])
        if magic == _FRAME and len(held) == size:
            self._inside, self._checksum, self._held = True, bool(flags & 4), b""

    def _block(self, head: int) -> None:
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        self._skip = 1 if kind == 1 else size
        if last:
            self._inside = False
            self._skip += 4 if self._checksum else 0


class ZstdReader:
    """The content of `stored` from its beginning. `at` is how much of it was read, `complete` whether frames are whole."""

    def __init__(self, stored: Stored) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingExtraError("reading zstd files", "zstandard", None) from None
        self.errors: tuple[type[BaseException], ...] = (zstandard.ZstdError,)
        self._stored, self.at, self._frames = stored, 0, Frames()
        self._raw = memoryview(bytearray(_STEP))
        source: Any = self
        packer = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW)
        reader: Any = packer.stream_reader(source, read_size=_STEP, read_across_frames=True)
        self.readinto = reader.readinto

    def read(self, size: int) -> memoryview:
        """The next compressed bytes, as `zstandard` asks for them. They hold until it asks again."""
        count = self._stored.read_into(self.at, self._raw[: min(size, _STEP)])
        data = self._raw[:count]
        self.at += count
        self._frames.feed(data)
        return data

    @property
    def complete(self) -> bool:
        return self._frames.complete
