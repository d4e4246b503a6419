"""Numbers that go up by one with each message: which are missing, and which come late or twice."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from zlib import crc32

__all__ = ["AGAIN", "GAP", "LATE", "NEXT", "RESTART", "Numbers"]

NEXT, GAP, LATE, AGAIN, RESTART = "next", "gap", "late", "again", "restart"
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a number says: in order (``next``), behind missing ones (``gap``: `first` to `last`), one of those that were
    missing (``late``), the same message ``again``, or a sender that counts anew (``restart``)."""

    kind: str
    first: int = 0
    last: int = 0

    def missing(self, what: str) -> str:
        """``messages 5 to 7``, or ``message 5``."""
        return f"{what} {self.first}" if self.first == self.last else f"{what}s {self.first} to {self.last}"


class Numbers:
    """Watches numbers from `lowest` to `highest`, which go on at `lowest`; None: they never end.

    A number that has been seen is the same message if its bytes are the same too; else the sender has begun anew. Of the
    numbers before the first one that came, up to `before` may still come, late.
    """

    def __init__(self, *, lowest: int = 0, highest: int | None = None, before: int = 8) -> None:
        self._lowest, self._before = lowest, before
        self._size = 0 if highest is None else highest - lowest + 1
        self._expected: int | None = None
        self._missing: OrderedDict[int, None] = OrderedDict()
        self._seen: OrderedDict[int, int] = OrderedDict()

    def take(self, number: int, content: bytes) -> Verdict:
        """What `number` says; `content` is the message."""
        verdict = self._judged(number, crc32(content))
        if verdict.kind == RESTART:
            self._missing.clear()
            self._seen.clear()
        elif self._expected is None:
            for back in range(min(self._before, number - self._lowest), 0, -1):
                self._missing[number - back] = None
        elif verdict.kind == GAP:
            count = self._ahead(verdict.first, verdict.last) + 1
            for back in range(min(count, _REMEMBERED) - 1, -1, -1):
                self._missing[self._plus(verdict.last, -back)] = None
        self._missing.pop(number, None)
        if verdict.kind in (NEXT, GAP, RESTART):
            self._expected = self._plus(number, 1)
        if verdict.kind != AGAIN:
            self._seen[number] = crc32(content)
            self._seen.move_to_end(number)
        for memory in (self._missing, self._seen):
            while len(memory) > _REMEMBERED:
                memory.popitem(last=False)
        return verdict

    def _judged(self, number: int, digest: int) -> Verdict:
        expected = self._expected
        if expected is None or number == expected:
            return Verdict(NEXT)
        if number in self._missing:
            return Verdict(LATE)
        if self._seen.get(number) == digest:
            return Verdict(AGAIN)
        ahead = self._ahead(expected, number)
        if ahead < 0 or (self._size and ahead >= self._size // 2):
            return Verdict(RESTART, expected, number)
        return Verdict(GAP, expected, self._plus(number, -1))

    def _ahead(self, one: int, other: int) -> int:
        return (other - one) % self._size if self._size else other - one

    def _plus(self, number: int, more: int) -> int:
        return (number - self._lowest + more) % self._size + self._lowest if self._size else number + more
