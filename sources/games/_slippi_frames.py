"""Frames of a Slippi replay as they become final, from event bytes in any cut.

Over the network a frame is guessed, sent, and sent again when the other player's input turns out otherwise (rollback). The
last one sent counts. A frame is final when a frame bookend says so (version 3.7 on); in older replays when a frame comes
that is more than the longest rollback later; and all are when the game ends or the file does. Only final frames leave, in
order of frame, player and follower, and how the bytes were cut changes nothing: so a file and the tail of a growing one
give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.memory import BufferPool, Lease
from . import _slippi_kernels as kernels
from ._slippi_format import EVENTS, FIRST_FRAME, PRE

__all__ = ["BadEvent", "FrameResolver", "Resolved"]

_MOST_ROWS, _MOST_BAD, _KEPT = 1 << 15, 1024, 1 << 16
_SAVED = (
    ("seq", kernels.SEQ),
    ("next", kernels.NEXT),
    ("newest", kernels.NEWEST),
    ("stored", kernels.STORED),
    ("final", kernels.FINAL),
    ("suspect", kernels.SUSPECT),
    ("lost", kernels.LOST),
    ("ended", kernels.ENDED),
    ("leap", kernels.LEAP),
)
_ERRORS = {
    kernels.UNKNOWN: "no event that the table of sizes names begins here; {size} bytes up to the next one are skipped",
    kernels.CUT: "the replay ends inside a {name}: {size} of its {want} bytes are there",
    kernels.SHORT: "the table of sizes gives a {name} {want} bytes, which hold no frame and player",
    kernels.PLAYER: "a {name} of player {player}; there are 0 to 3",
    kernels.JUMP: "a {name} of frame {frame}, while the newest frame is {newest}",
}


@dataclass(frozen=True, slots=True)
class BadEvent:
    """Bytes that are no event of a frame: where they begin, what is wrong, and their number among the records."""

    offset: int
    error: str
    data: bytes
    seq: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Resolved:
    """What has become final: event bytes ``(rows, 64)`` uint8, zeros behind a shorter event, with the number of each.

    `first_seq` and `records` number rows and bad events together; `counts` are the events passed, by code; `superseded` were
    sent again before they became final, `late` after it, `missing` are frames that never came. `after` is the position to
    go on from (empty for a connection: `FrameResolver.save` gives it). `stamps` are the times that were given with the
    bytes that made each event whole; `gaps` the frames (first, last) that a connection jumped over.
    """

    rows: npt.NDArray[np.uint8]
    seqs: npt.NDArray[np.uint64]
    bad: tuple[BadEvent, ...]
    first_seq: int
    records: int
    counts: npt.NDArray[np.int64]
    superseded: int
    late: int
    missing: int
    after: Mapping[str, Any]
    lease: Lease
    stamps: npt.NDArray[np.int64]
    gaps: tuple[tuple[int, int], ...]


class FrameResolver:
    """Resolves the frames of the events of one kind.

    `sizes` gives the payload bytes by event code (-1 unknown), `code` the kind (0x37 pre-frame, 0x38 post-frame), `offset`
    where the first bytes stand in the file. `position` is what `Resolved.after` gave; bytes then go on at its ``offset``.
    `mode` is ``FILE``, ``TAIL`` (nothing is taken behind the game's end) or ``LIVE``: frames may be jumped over, which is
    told in `Resolved.gaps`, the next game's start ends this one too, and `first_seq` numbers the first record.
    """

    def __init__(
        self,
        sizes: npt.NDArray[np.int32],
        code: int = PRE,
        *,
        offset: int = 0,
        position: Mapping[str, Any] | None = None,
        mode: int = kernels.FILE,
        first_seq: int = 0,
        pool: BufferPool | None = None,
    ) -> None:
        self._sizes, self._code, self._mode = sizes, code, mode
        self._pool = pool if pool is not None else BufferPool()
        self._ring = np.zeros((kernels.RING, kernels.SLOTS, kernels.STRIDE), np.uint8)
        self._masks = np.zeros(kernels.RING, np.uint8)
        self._stamps = np.zeros((kernels.RING, kernels.SLOTS), np.int64)
        self._state = np.zeros(kernels.STATE, np.int64)
        self._state[kernels.NEXT] = FIRST_FRAME
        for place in (kernels.NEWEST, kernels.STORED, kernels.FINAL):
            self._state[place] = FIRST_FRAME - 1
        self._state[kernels.SUSPECT] = -(1 << 40)
        self._state[kernels.SEQ] = first_seq
        self._held: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._base = offset
        if position is not None and "next" in position:
            self._load(position)

    @property
    def offset(self) -> int:
        """Where the next event to take begins in the file."""
        return self._base + int(self._state[kernels.AT])

    @property
    def ended(self) -> bool:
        """Whether the game's end has come."""
        return bool(self._state[kernels.ENDED])

    @property
    def newest(self) -> int:
        """The newest frame that has come; one before the first if none has."""
        return int(self._state[kernels.NEWEST])

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their event."""
        return len(self._held)

    def forget_held(self) -> bytes:
        """Drop the bytes that wait for the rest of their event: they turned out to be none. Gives them."""
        dropped, self._held = self._held.tobytes(), self._held[:0]
        return dropped

    def lost(self) -> bytes:
        """The connection was lost: the next event may be of any frame. Gives what came of an event that broke off."""
        self._state[kernels.LEAP] = 1
        return self.forget_held()

    def feed(
        self, data: bytes | memoryview | npt.NDArray[np.uint8], *, final: bool = False, stamp: int = 0
    ) -> Iterator[Resolved]:
        """Take the next bytes, which came at `stamp`; `final` says that none follow, and makes every frame final.

        What is not taken from the iterator is not resolved: exhaust it before the next call.
        """
        fresh = np.frombuffer(data, np.uint8)
        filled = len(self._held) + len(fresh)
        lease = self._pool.take(filled + 1)
        buffer: Any = lease.array(np.uint8, filled)
        buffer[: len(self._held)] = self._held
        buffer[len(self._held) :] = fresh
        status = kernels.FULL
        self._state[kernels.STAMP] = stamp
        closed = False
        while status == kernels.FULL or (final and not closed):
            if status == kernels.MORE:
                closed = True
                self._state[kernels.FINAL] = max(self._state[kernels.FINAL], self._state[kernels.NEWEST])
            status, resolved = self._step(buffer, filled, final)
            if resolved is not None:
                yield resolved
        at = int(self._state[kernels.AT])
        self._held = buffer[at:].copy()
        self._base += at
        self._state[kernels.AT] = 0

    def _step(self, buffer: npt.NDArray[np.uint8], filled: int, final: bool) -> tuple[int, Resolved | None]:
        state = self._state
        smallest = max(1, int(self._sizes[self._code]) + 1)
        left = filled - int(state[kernels.AT])
        most = min(_MOST_ROWS, left // smallest + kernels.RING * kernels.SLOTS) + kernels.SLOTS
        lease = self._pool.take(most * (kernels.STRIDE + 16))
        seqs: Any = lease.array(np.uint64, most)
        stamps: Any = lease.array(np.int64, most, 8 * most)
        rows: Any = lease.array(np.uint8, (most, kernels.STRIDE), 16 * most)
        bad = np.empty((_MOST_BAD, 4), np.int64)
        gaps = np.empty((_MOST_BAD, 2), np.int64)
        counts = np.zeros(256, np.int64)
        first, begin = int(state[kernels.SEQ]), int(state[kernels.AT])
        for place in (kernels.ROWS, kernels.BADS, kernels.SUPERSEDED, kernels.LATE, kernels.MISSING, kernels.GAPS):
            state[place] = 0
        status = int(
            kernels.follow(
                buffer, filled, final, self._sizes, self._code, self._ring, self._masks, rows, seqs, bad, counts, state,
                self._mode, self._stamps, stamps, gaps,
            )
        )  # fmt: skip
        if int(state[kernels.AT]) == begin and int(state[kernels.SEQ]) == first and not state[kernels.MISSING]:
            return status, None
        count = int(state[kernels.ROWS])
        wrong = tuple(self._describe(buffer, *row) for row in bad[: int(state[kernels.BADS])].tolist())
        return status, Resolved(
            rows[:count],
            seqs[:count],
            wrong,
            first,
            int(state[kernels.SEQ]) - first,
            counts,
            int(state[kernels.SUPERSEDED]),
            int(state[kernels.LATE]),
            int(state[kernels.MISSING]),
            {} if self._mode == kernels.LIVE else self.save(),
            lease,
            stamps[:count],
            tuple((int(first), int(last)) for first, last in gaps[: int(state[kernels.GAPS])]),
        )

    def _describe(self, buffer: npt.NDArray[np.uint8], kind: int, at: int, size: int, seq: int) -> BadEvent:
        data = buffer[at : at + min(size, _KEPT)].tobytes()
        code = data[0]
        error = _ERRORS[kind].format(
            name=EVENTS.get(code, f"event 0x{code:02x}"),
            size=size,
            want=int(self._sizes[code]) + 1,
            player=data[5] if len(data) > 5 else 0,
            frame=int.from_bytes(data[1:5], "big", signed=True),
            newest=self.newest,
        )
        return BadEvent(self._base + at, error, data, seq, kind == kernels.CUT)

    def save(self) -> dict[str, Any]:
        """The position behind what has been resolved: where to read on, and the open frames' events. Plain values."""
        position: dict[str, Any] = {"offset": self.offset}
        position |= {name: int(self._state[place]) for name, place in _SAVED}
        kept = min(int(self._sizes[self._code]) + 1, kernels.STRIDE)
        position["open"] = [
            [frame, slot, self._ring[frame % kernels.RING, slot, :kept].tobytes().hex()]
            for frame in range(position["next"], position["stored"] + 1)
            for slot in range(kernels.SLOTS)
            if self._masks[frame % kernels.RING] >> slot & 1
        ]
        return position

    def _load(self, position: Mapping[str, Any]) -> None:
        self._base = int(position["offset"])
        for name, place in _SAVED:
            self._state[place] = int(position.get(name, 0))
        for frame, slot, text in position["open"]:
            data = np.frombuffer(bytes.fromhex(text), np.uint8)
            self._ring[frame % kernels.RING, slot, : len(data)] = data
            self._masks[frame % kernels.RING] |= 1 << slot
