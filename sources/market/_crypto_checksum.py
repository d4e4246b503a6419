"""Kraken's checksum of a book: CRC-32 of the digits of its ten best levels on each side.

It goes by the digits as they were sent, trailing zeros too. A recorder that writes numbers anew loses those, and a snapshot
shorter than the depth of its subscription does not tell that depth, at which a book is cut; so a book is checked only from a
snapshot on whose own checksum agrees and whose length is a depth that Kraken has.
Source: Kraken, "Book checksum (WebSocket v2)".
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest, nsmallest
from typing import Any
from zlib import crc32

__all__ = ["TextLevel", "TopOfBook"]

_DEPTHS = (10, 25, 100, 500, 1000)
#: Side, price in units of the table, and the digits of price and size as they were sent.
TextLevel = tuple[int, int, str, str]


class TopOfBook:
    """The levels of one book that count for its checksum. `depth` None: it cannot be checked."""

    def __init__(self) -> None:
        self.depth: int | None = None
        self._sides: dict[int, dict[int, tuple[str, str]]] = {1: {}, -1: {}}

    def snapshot(self, levels: Sequence[TextLevel], checksum: int) -> None:
        """Begin anew with a whole book."""
        self._sides = {1: {}, -1: {}}
        for side, price, *texts in levels:
            self._sides[side][price] = (texts[0], texts[1])
        size = max(map(len, self._sides.values()))
        self.depth = size if size in _DEPTHS and self.checksum() == checksum else None
        if self.depth is None:
            self._sides = {1: {}, -1: {}}

    def change(self, levels: Sequence[TextLevel], checksum: int) -> int | None:
        """Change levels; the checksum of this book if it is another than the venue's, after which it is not checked."""
        if self.depth is None:
            return None
        for side, price, at, much in levels:
            if float(much) == 0:
                self._sides[side].pop(price, None)
            else:
                self._sides[side][price] = (at, much)
        for side, book in self._sides.items():
            while len(book) > self.depth:
                del book[min(book) if side > 0 else max(book)]
        own = self.checksum()
        if own == checksum:
            return None
        self.depth, self._sides = None, {1: {}, -1: {}}
        return own

    def checksum(self) -> int:
        """CRC-32 of the ten best asks and bids."""
        asks, bids = self._sides[-1], self._sides[1]
        best = [asks[price] for price in nsmallest(10, asks)] + [bids[price] for price in nlargest(10, bids)]
        return crc32("".join(_digits(at) + _digits(much) for at, much in best).encode())

    def save(self) -> list[Any]:
        """All of it as plain values."""
        return [
            self.depth,
            [[side, price, *texts] for side, book in self._sides.items() for price, texts in book.items()],
        ]

    @classmethod
    def load(cls, saved: Sequence[Any]) -> TopOfBook:
        """What `save` gave."""
        top = cls()
        top.depth = saved[0]
        for side, price, at, much in saved[1]:
            top._sides[side][price] = (at, much)
        return top


def _digits(text: str) -> str:
    return text.replace(".", "").lstrip("0")
