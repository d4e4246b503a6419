"""Whether a book built from a snapshot and changes is in step with the venue's: numbers in, verdicts out, no I/O.

Venues number the changes of a book. Binance spot gives each message the first and last number in it (``U``, ``u``) and the
next message goes on with ``u + 1``; Bybit counts messages. Binance futures and OKX give the last number (``u``, ``seqId``)
and the one that it follows (``pu``, ``prevSeqId``). A snapshot carries the number it was taken at: changes up to it are in
it already, and it is of use only if no change is missing between it and the first one that was kept. What does not follow is
a gap, seen in the very message behind it, and the book is out of step until the next snapshot. Coinbase's level2 channel has
no numbers: nothing can be told from it. Kraken's book has a checksum instead (`_crypto_checksum`).
Sources: "How to manage a local order book correctly" of Binance spot and USD-M; Bybit v5 orderbook; OKX v5 order books.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["SYNCED", "WAITING_FOR_SNAPSHOT", "BookSync", "Step", "Verdict"]

SYNCED = "SYNCED"
WAITING_FOR_SNAPSHOT = "WAITING_FOR_SNAPSHOT"


class Step(Enum):
    """What to do with a change or a snapshot."""

    #: It follows: change the book (or, for a snapshot, take it for the book).
    APPLY = "apply"
    #: Keep it until a snapshot comes.
    BUFFER = "buffer"
    #: The book has it already: pass over it.
    STALE = "stale"
    #: Changes are missing in front of it: keep it, and ask for a snapshot.
    GAP = "gap"
    #: A snapshot from before the first change that was kept, with changes missing between: ask for another.
    TOO_OLD = "too old"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A step; for GAP and TOO_OLD, `why` in words."""

    step: Step
    why: str = ""


_APPLY, _BUFFER, _STALE = Verdict(Step.APPLY), Verdict(Step.BUFFER), Verdict(Step.STALE)


@dataclass(slots=True)
class BookSync:
    """The book of one symbol.

    Live use: keep each change that is BUFFER or GAP; while `needs_snapshot`, ask for one; when `snapshot` says APPLY, take
    it for the book, put those of the kept changes on it for which `applies`, in order, and forget them all.
    """

    state: str = WAITING_FOR_SNAPSHOT
    #: Number of the last change (or snapshot) seen, and the first number in the unbroken run of changes that it ends.
    last_id: int | None = None
    run_from: int | None = None
    #: Number of the snapshot that the book comes from.
    snapshot_id: int | None = None

    @property
    def needs_snapshot(self) -> bool:
        """Whether a snapshot must be asked for."""
        return self.state == WAITING_FOR_SNAPSHOT

    def applies(self, last_id: int) -> bool:
        """Whether a change that ends at `last_id` is to be put on the last snapshot; it is in it otherwise."""
        return self.snapshot_id is not None and last_id > self.snapshot_id

    def follows(self, first_id: int, last_id: int, prev_id: int | None) -> bool:
        """Whether nothing is missing between what was seen and this change."""
        last = self.last_id
        if last is None:
            return True
        bare = self.run_from is None  # only a snapshot so far: the first change may reach back behind it
        if prev_id is not None:
            return prev_id == last or (bare and first_id <= last <= last_id)
        return first_id <= last + 1 and last_id > last

    def diff(self, first_id: int, last_id: int, prev_id: int | None = None) -> Verdict:
        """A change came: numbers `first_id` to `last_id`, behind `prev_id` where the venue says so."""
        since = min(first_id, prev_id + 1) if prev_id is not None else first_id
        last = self.last_id
        if last is None:
            self.last_id, self.run_from = last_id, since
            return _BUFFER
        if self.follows(first_id, last_id, prev_id):
            self.last_id = last_id
            if self.run_from is None:
                self.run_from = since
            if self.state == WAITING_FOR_SNAPSHOT:
                return _BUFFER
            if prev_id is not None and last_id <= prev_id:  # OKX: nothing changed, or its numbers begin anew
                self.snapshot_id = min(last_id - 1, self.snapshot_id or 0)
            return _APPLY if self.applies(last_id) else _STALE
        if last_id <= last:
            return _STALE
        if prev_id is not None:
            what = f"the changes behind {last} up to {prev_id} are missing"
            if prev_id < last:
                what = f"behind {last} comes {last_id}, which follows {prev_id}"
        else:
            what = f"{first_id - last - 1} updates, {last + 1} to {first_id - 1}, are missing"
        self.last_id, self.run_from = last_id, since
        self.state, self.snapshot_id = WAITING_FOR_SNAPSHOT, None
        return Verdict(Step.GAP, what)

    def snapshot(self, last_id: int) -> Verdict:
        """A snapshot taken at `last_id` came, asked for beside the stream of changes."""
        if self.state == SYNCED and last_id < max(self.last_id or 0, self.snapshot_id or 0):
            return _STALE
        if self.run_from is not None and self.run_from > last_id + 1:
            missing = f"it was taken at {last_id}, and the changes at hand begin with {self.run_from}"
            return Verdict(Step.TOO_OLD, missing)
        if self.last_id is None or self.run_from is None:
            self.last_id, self.run_from = last_id, None
        self.state, self.snapshot_id = SYNCED, last_id
        return _APPLY

    def restart(self, last_id: int) -> Verdict:
        """A snapshot came within the stream itself (Bybit, OKX): changes go on from it whatever was before."""
        self.state, self.last_id, self.run_from, self.snapshot_id = SYNCED, last_id, None, last_id
        return _APPLY

    def lost(self) -> None:
        """The connection was cut or the checksum did not agree: what follows needs a new snapshot."""
        self.state, self.last_id, self.run_from, self.snapshot_id = WAITING_FOR_SNAPSHOT, None, None, None

    def save(self) -> list[int | str | None]:
        """All of it as plain values."""
        return [self.state, self.last_id, self.run_from, self.snapshot_id]

    @classmethod
    def load(cls, saved: Sequence[int | str | None]) -> BookSync:
        """What `save` gave."""
        state, *rest = saved
        last_id, run_from, snapshot_id = (None if value is None else int(value) for value in rest)
        return cls(str(state), last_id, run_from, snapshot_id)
