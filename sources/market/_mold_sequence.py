"""Which messages of a numbered feed are new, which came before, and which are missing.

Feeds such as MoldUDP64 and IEX-TP number their messages and send each packet on two lines. `MoldSequence` is told the
numbers of packets in the order of arrival, from whichever line, and says what to deliver, in sequence: of copies the first
to come counts; packets behind a gap wait for it to be filled, for so many packets or so long, and then the gap is reported
as lost. It has no clock and reads nothing: what waits is kept by the caller, by packet number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_SESSIONS", "MoldSequence", "Ordered"]

#: Sessions that are followed at once.
MOST_SESSIONS = 256
#: A sequence number further ahead than this counts only if the feed does not go on without it.
_JUMP = 1 << 20
_LAST = (1 << 62) - 1


@dataclass(frozen=True, slots=True)
class Ordered:
    """What a call settled. `runs` (int64, rows of 6) in the order of delivery: kind, session, packet, skip, take, sequence.

    DELIVER: of `packet`, leave out the first `skip` messages and take `take`, the first of which has number `sequence`.
    LOST: messages `sequence` to ``sequence + take - 1`` did not come; `packet` is the first one behind the gap.
    REJECT: `packet` waited more than a million messages ahead, and the feed went on without it: its number was wrong.
    `verdicts` (uint8) tell what became of each packet when it came: NEW, DUPLICATE, HELD, NOTHING (a heartbeat), IMPLAUSIBLE
    (a number that cannot be, or more than a million behind; the packet has no effect), LATE (its messages were given up
    before), END.
    """

    runs: npt.NDArray[np.int64]
    verdicts: npt.NDArray[np.uint8]


class MoldSequence:
    """The order of one feed's packets, for any number of sessions.

    `window` packets (of all sessions) or `window_ns` after a gap was noticed it is given up; `first` is the number of a
    session's first message (None: what the first packet says, so that nothing is lost before it). A count of 0 is a
    heartbeat, whose number is that of the next message; 0xFFFF ends the session. Packets have the numbers 0, 1, ... in
    the order in which they are fed.
    """

    DELIVER, LOST, REJECT = 0, 1, 2
    NEW, DUPLICATE, HELD, NOTHING, IMPLAUSIBLE, LATE, END = 0, 1, 2, 3, 4, 5, 6

    def __init__(self, *, window: int = 4096, window_ns: int | None = None, first: int | None = None) -> None:
        from . import _mold_sequence_kernels as kernels

        if window < 1 or (window_ns is not None and window_ns < 0):
            raise ValueError(f"a window of {window=} packets and {window_ns=} cannot be waited for")
        if first is not None and not 0 <= first <= _LAST:
            raise ValueError(f"{first=} is no sequence number")
        self._kernels, self.window, self._window_ns = kernels, window, -1 if window_ns is None else window_ns
        self._first = -1 if first is None else first
        self._sessions: dict[Any, int] = {}
        self._states = np.zeros((0, kernels.FIELDS), np.int64)
        self._held = np.zeros((0, window + 1, 6), np.int64)
        self._ranges = np.zeros((0, kernels.RANGES, 2), np.int64)
        self.packets = 0

    def session(self, key: Any) -> int:
        """The number of the session that `key` names; a new one if it was not met. Raises ValueError for too many."""
        number = self._sessions.get(key)
        if number is None:
            number = len(self._sessions)
            if number == MOST_SESSIONS:
                raise ValueError(f"more than {MOST_SESSIONS} sessions")
            self._sessions[key] = number
            if number == len(self._states):
                more = max(1, number)  # sessions, whose places cost little until they are written to
                self._states, self._held, self._ranges = (
                    np.concatenate([array, np.zeros((more, *array.shape[1:]), np.int64)])
                    for array in (self._states, self._held, self._ranges)
                )
                self._states[number:, self._kernels.EXPECTED] = self._first
                self._states[number:, [self._kernels.OLDEST, self._kernels.OLDEST_TIME]] = 1 << 62
        return number

    def feed(self, sessions: Any, seqs: Any, counts: Any, times: Any = None) -> Ordered:
        """Take packets in the order of arrival: session numbers, sequence numbers, counts, and arrivals in ns."""
        numbers = np.ascontiguousarray(seqs, np.int64)
        which, many = np.ascontiguousarray(sessions, np.int64), np.ascontiguousarray(counts, np.int64)
        when = np.zeros(len(numbers), np.int64) if times is None else np.ascontiguousarray(times, np.int64)
        verdicts = np.zeros(len(numbers), np.uint8)
        runs, total = self._runs(len(numbers)), np.zeros(1, np.int64)
        self._kernels.advance(
            which,
            numbers,
            many,
            when,
            self.packets,
            self._states,
            self._held,
            self._ranges,
            self.window,
            self._window_ns,
            _JUMP,
            verdicts,
            runs,
            total,
        )
        self.packets += len(numbers)
        return Ordered(runs[: int(total[0])], verdicts)

    def expire(self, time: int) -> Ordered:
        """Give up the gaps that `time` (ns, on the clock of the arrivals) has made too old; for quiet live feeds."""
        return self._settle(self.window, time)

    def flush(self) -> Ordered:
        """Give up every gap: nothing more comes."""
        return self._settle(0, 0)

    def _settle(self, window: int, time: int) -> Ordered:
        runs, total = self._runs(0), np.zeros(1, np.int64)
        window_ns = self._window_ns if window else -1
        self._kernels.settle(
            self._states, self._held, self._ranges, self.packets, window, time, window_ns, _JUMP, runs, total
        )
        return Ordered(runs[: int(total[0])], np.zeros(0, np.uint8))

    def _runs(self, packets: int) -> npt.NDArray[np.int64]:
        waiting = int(self._states[:, self._kernels.WAITING].sum()) if len(self._states) else 0
        return np.empty((2 * (packets + waiting) + 2, 6), np.int64)

    @property
    def oldest(self) -> int:
        """The number of the first packet that still waits; that of the next packet if none does."""
        oldest = self.packets
        if len(self._states):
            oldest = min(oldest, int(self._states[:, self._kernels.OLDEST].min()))
        return oldest

    def _sum(self, field: int) -> int:
        return int(self._states[:, field].sum())

    @property
    def counts(self) -> dict[str, int]:
        """Messages by what became of them (``duplicates``, ``late``, ``lost``), ``gaps`` noticed and gaps ``filled``."""
        k = self._kernels
        fields = {"duplicates": k.DUPLICATES, "late": k.LATES, "lost": k.LOSSES, "gaps": k.GAPS, "filled": k.FILLED}
        return {name: self._sum(field) for name, field in fields.items()}

    def expected(self, session: int) -> int:
        """The number of the next message of a session; -1 before its first packet."""
        return int(self._states[session, self._kernels.EXPECTED])

    def ended(self, session: int) -> bool:
        """Whether the end of the session was announced."""
        return bool(self._states[session, self._kernels.ENDED])
