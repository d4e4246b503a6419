"""A feed of lines made of a JSON document's array elements, for the reader of JSON lines; nothing is held whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..storage.feed import Feed
from . import _json_array_kernels as kernels

__all__ = ["ArrayFeed"]

_READ = 256 << 10


class ArrayFeed(Feed):
    """The elements of the arrays at `path` in what `inner` gives, each on a line; newlines inside become spaces."""

    def __init__(self, inner: Feed, path: tuple[str, ...]) -> None:
        self._inner, self.compression = inner, inner.compression
        names = [part.encode() for part in path]
        self._parts = np.zeros((max(1, len(names)), kernels.MOST_KEY), np.uint8)
        self._sizes = np.array([len(name) for name in names], np.int64)
        for row, name in zip(self._parts, names, strict=False):
            row[: len(name)] = np.frombuffer(name, np.uint8)
        self._where = ".".join(path)
        self._raw: Any = np.empty(_READ, np.uint8)
        self._restart()

    def _restart(self) -> None:
        self.error = None
        self._state = np.zeros(kernels.STATE, np.int64)
        self._state[kernels.PENDING] = -1
        self._kinds, self._matches = np.zeros(kernels.DEPTH, np.int64), np.zeros(kernels.DEPTH, np.int64)
        self._key = np.zeros(kernels.MOST_KEY, np.uint8)
        self._filled, self._base, self._ended = 0, 0, False

    def fill(self, view: memoryview) -> int:
        out = np.frombuffer(view, np.uint8)
        state = self._state
        state[kernels.OUT] = 0
        while state[kernels.OUT] < len(out) and not self._ended:
            if state[kernels.IN] == self._filled:
                self._base += self._filled
                self._filled, state[kernels.IN] = self._inner.fill(memoryview(self._raw)), 0
                if not self._filled:
                    self._end()
                    break
            kernels.split_elements(
                self._raw, self._filled, out, len(out), state, self._kinds, self._matches, self._key, self._parts,
                self._sizes,
            )  # fmt: skip
            if state[kernels.MODE] >= kernels.TRAILING:
                self._end()
        return int(state[kernels.OUT])

    def _end(self) -> None:
        """Say what is wrong, if the document did not end as it should."""
        self._ended = True
        state, at = self._state, self._base + int(self._state[kernels.IN])
        mode = int(state[kernels.MODE])
        if self._inner.error is not None:
            self.error = self._inner.error
        elif mode == kernels.TRAILING:
            self.error = f"something follows the JSON document at byte {at}"
        elif mode == kernels.DEEP:
            self.error = f"the JSON document is nested more than {kernels.DEPTH} deep at byte {at}"
        elif mode != kernels.DONE:
            self.error = f"the JSON document is cut at byte {at}, with {int(state[kernels.LEVEL])} levels open"
        elif not state[kernels.FOUND]:
            self.error = f"the JSON document has no array at {self._where or 'its top'}"

    def seek(self, offset: int) -> None:
        """Go to `offset` of the lines, by making them again."""
        self._inner.seek(0)
        self._restart()
        scratch = memoryview(bytearray(min(max(1, offset), _READ)))
        while offset > 0 and (count := self.fill(scratch[: min(offset, _READ)])):
            offset -= count

    def close(self) -> None:
        self._inner.close()
