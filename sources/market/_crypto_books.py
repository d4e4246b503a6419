"""The books of a recording by symbol, shared with the scanner, which goes on alone while nothing is amiss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ._book_sync import BookSync, Step, Verdict
from ._crypto_checksum import TopOfBook
from ._crypto_messages import Event

__all__ = ["Books", "complaint"]

#: Names, beside those of streams, of a book that is judged by checksums, and of its levels where they are saved.
_SUMMED, _CHECKSUM = "by checksum", "checksum"


class Books:
    """`BookSync` by the number of a symbol and the name of the stream. `saved` is what `save` gave.

    ``last_ids[number]`` is the last change that the scanner has seen, or -1 where the next one is to be judged here.
    """

    def __init__(self, saved: Iterable[Any] = ()) -> None:
        self._books: dict[tuple[int, str], BookSync] = {}
        self.last_ids = np.full(64, -1, np.int64)
        self._tops: dict[int, TopOfBook] = {}
        for code, name, book in saved:
            if name == _CHECKSUM:
                self._tops[int(code)] = TopOfBook.load(book)
                continue
            self._books[int(code), str(name)] = BookSync.load(book)
            self.room_for(int(code))
            if not name:
                self._tell(int(code))

    def save(self) -> list[Any]:
        """All of them as plain values."""
        books = [[*key, self._known(key).save()] for key in self._books]
        return books + [[code, _CHECKSUM, top.save()] for code, top in self._tops.items()]

    def room_for(self, code: int) -> None:
        """Make `last_ids` long enough for a symbol."""
        while code >= len(self.last_ids):
            self.last_ids = np.concatenate([self.last_ids, np.full(len(self.last_ids), -1, np.int64)])

    def judge(self, code: int, event: Event) -> Verdict:
        """What a change or a snapshot does to its book."""
        if event.checksum is not None:
            return self._checked(code, event, event.checksum)
        book = self._known((code, event.book))
        if not event.is_snapshot:
            verdict = book.diff(event.first_id, event.last_id, event.prev_id)
        else:
            verdict = book.restart(event.last_id) if event.inside else book.snapshot(event.last_id)
        if not event.book:
            self._tell(code)
        return verdict

    def _checked(self, code: int, event: Event, checksum: int) -> Verdict:
        book, top = self._books.setdefault((code, _SUMMED), BookSync()), self._tops.setdefault(code, TopOfBook())
        if event.is_snapshot:
            top.snapshot(event.texts, checksum)
            return book.restart(0)
        own = top.change(event.texts, checksum)
        if own is None:
            return Verdict(Step.APPLY)
        book.lost()
        return Verdict(Step.GAP, f"its checksum is {own}, the venue's {checksum}")

    def waiting(self) -> list[int]:
        """The numbers of symbols with a book that needs a snapshot, ascending."""
        return sorted({code for (code, _), book in self._books.items() if book.needs_snapshot})

    def lost(self) -> None:
        """The connection was cut: every book is out of step."""
        for code, name in self._books:
            self._known((code, name)).lost()
            self.last_ids[code] = -1
        self._tops.clear()

    def _known(self, key: tuple[int, str]) -> BookSync:
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = BookSync()
        elif not key[1] and self.last_ids[key[0]] >= 0:
            book.last_id = int(self.last_ids[key[0]])
        return book

    def _tell(self, code: int) -> None:
        book = self._books[code, ""]
        alone = book.run_from is not None and (book.last_id or 0) < 1 << 63
        self.last_ids[code] = book.last_id if alone and book.last_id is not None else -1


def complaint(symbol: str, verdict: Verdict) -> str | None:
    """What a verdict says to people; None where all is well."""
    if verdict.step is Step.GAP:
        return f"gap in depth of {symbol}: {verdict.why}; book is out of step until the next snapshot"
    if verdict.step is Step.TOO_OLD:
        return f"snapshot of {symbol} is of no use: {verdict.why}; book is out of step until the next snapshot"
    return None
