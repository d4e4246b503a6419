"""The messages of a numbered feed in a capture, in sequence: packets are found, ordered, and their messages located.

Messages are not copied: a stretch refers to the buffer they were read into, which stays alive for as long as one of its
packets waits for a gap to be filled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord
from ..network import _packet_kernels as packets
from ..network._pcap_framer import PacketFramer, Packets, Piece, dissected
from . import _mold_kernels as kernels
from ._mold_sequence import MoldSequence, Ordered

__all__ = ["Delivery", "FeedCapture", "Stretch"]

_NAMES = {kernels.MOLD: "MoldUDP64", kernels.IEX: "IEX-TP"}
_KEPT = 1 << 16
_DROPS = {
    "duplicates": "messages that came before, on another line or twice",
    "late": "messages that came after they were reported missing",
    "lost": "lost before the capture: messages missing",
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages of one session without a gap in them: ``data[offsets[i] : offsets[i] + sizes[i]]``, captured at
    `received`, with the session's `numbers`. `position` counts messages in the source, lost ones included; `behind_gap`
    says that messages before the first one are missing."""

    session: int
    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.uint32]
    received: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    position: int
    behind_gap: bool
    place: Callable[[int], str]
    keep: tuple[Any, ...]


@dataclass(slots=True)
class Delivery:
    """What a piece of the capture brought: stretches in order, bad records, drops; positions `first` up to `end`."""

    first: int
    end: int = 0
    nbytes: int = 0
    stretches: list[Stretch] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A piece some of whose packets may still wait: those numbered `first` up to `end`, and where each lies in it."""

    first: int
    end: int
    piece: Piece
    found: Packets
    index: npt.NDArray[np.int64]


class FeedCapture:
    """Walks a capture for the packets of `feed` (MOLD or IEX), to the sorted `ports` where given, else by their content.

    `wanted` keeps one of the feeds that IEX sends: 1 is TOPS, 2 is DEEP, 0 is any.
    """

    def __init__(
        self,
        framer: PacketFramer | None,
        *,
        feed: int,
        path: str,
        ports: Sequence[int],
        sequence: MoldSequence,
        wanted: int = 0,
    ) -> None:
        self._framer, self._feed, self._path, self._sequence = framer, feed, path, sequence
        self._wanted = wanted
        self._ports = np.array(sorted(set(ports)), np.int64)
        self._seen: deque[_Seen] = deque()
        self._names: list[str] = []
        self._gaps: set[int] = set()
        self._known: dict[tuple[int, int], int] = {}
        self._before = dict.fromkeys(_DROPS, 0)
        self.position = 0

    def deliveries(self) -> Iterator[Delivery]:
        """One delivery a piece, and one for what still waited at the end."""
        for piece in self._framer.pieces() if self._framer is not None else ():
            yield self.take(piece)
        last = self.flush()
        if last.stretches or last.bad or last.dropped:
            yield last

    @property
    def waiting(self) -> bool:
        """Whether packets wait for a gap to be filled."""
        return self._sequence.oldest < self._sequence.packets

    @property
    def expected(self) -> int:
        """The number of the next message of the last session met; -1 before its first packet."""
        return self._sequence.expected(len(self._names) - 1) if self._names else -1

    def flush(self) -> Delivery:
        """What still waited; nothing more comes."""
        return self._given_up(self._sequence.flush())

    def expire(self, time: int) -> Delivery:
        """What has waited too long at `time` (ns, on the clock of the packets)."""
        return self._given_up(self._sequence.expire(time))

    def _given_up(self, ordered: Ordered) -> Delivery:
        delivery = Delivery(self.position)
        self._settle(delivery, ordered)
        return delivery

    def take(self, piece: Piece) -> Delivery:
        """What the packets of `piece` bring, with what waited for them."""
        delivery = Delivery(self.position, nbytes=piece.nbytes)
        found = dissected(piece)
        n = piece.count
        index, keys = np.empty(n, np.int64), np.empty((n, 2), np.int64)
        seqs, counts = np.empty(n, np.int64), np.empty(n, np.int64)
        taken = kernels.find_headers(
            piece.data,
            n,
            self._feed,
            self._ports.size > 0,
            self._wanted,
            self._ports,
            found.codes,
            found.protocols,
            found.begins,
            found.lengths,
            found.target_ports,
            packets.DROPPED,
            packets.UNSOUND,
            index,
            keys,
            seqs,
            counts,
        )
        index, seqs, counts = index[:taken], seqs[:taken], counts[:taken]
        sessions = self._sessions(keys[:taken])
        for number in np.flatnonzero(sessions < 0).tolist():
            found.codes[index[number]] = packets.UNSOUND
        kept = sessions >= 0
        if not kept.all():
            index, seqs, counts, sessions = index[kept], seqs[kept], counts[kept], sessions[kept]
        unsound = piece.unsound(self._path, found.codes, _NAMES[self._feed])
        delivery.bad += [replace(record, seq=None) for record in unsound]  # theirs are numbers of packets
        delivery.dropped |= piece.dropped(found.codes)
        first = self._sequence.packets
        ordered = self._sequence.feed(sessions, seqs, counts, piece.times[index])
        self._seen.append(_Seen(first, self._sequence.packets, piece, found, index))
        for number in np.flatnonzero(ordered.verdicts == MoldSequence.IMPLAUSIBLE).tolist():
            delivery.bad.append(self._implausible(piece, int(index[number]), int(seqs[number])))
        self._settle(delivery, ordered)
        oldest = self._sequence.oldest
        while self._seen and self._seen[0].end <= oldest:
            self._seen.popleft()
        return delivery

    def _sessions(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Session numbers; -1 beyond the most that are followed."""
        numbers = np.full(len(keys), -1, np.int64)
        start = 0
        changes = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
        for stop in [*changes.tolist(), len(keys)] if len(keys) else []:
            key = (int(keys[start, 0]), int(keys[start, 1]))
            session = self._known.get(key)
            if session is None:
                try:
                    session = self._sequence.session(key)
                except ValueError:
                    session = -1
                else:
                    self._known[key] = session
                    self._names.append(self._name(key))
            numbers[start:stop] = session
            start = stop
        return numbers

    def session_name(self, session: int) -> str:
        """What a session of a stretch is called in records."""
        return self._names[session]

    def _name(self, key: tuple[int, int]) -> str:
        if self._feed == kernels.MOLD:
            raw = (key[0] & (1 << 64) - 1).to_bytes(8, "big") + key[1].to_bytes(2, "big")
            return repr(raw.decode("latin-1").strip())
        return f"{key[0] & 0xFFFFFFFF} of channel {key[0] >> 32 & 0xFFFFFFFF} of protocol {key[1]:#06x}"

    def _settle(self, delivery: Delivery, ordered: Ordered) -> None:
        runs = ordered.runs
        start = 0
        while start < len(runs):
            kind, session, packet = runs[start, :3].tolist()
            seen = self._holder(packet)
            if kind == MoldSequence.REJECT:
                number = int(seen.index[packet - seen.first])
                delivery.bad.append(self._implausible(seen.piece, number, int(runs[start, 5])))
                start += 1
                continue
            if kind == MoldSequence.LOST:
                self._lost(delivery, seen, session, packet, *runs[start, 4:6].tolist())
                start += 1
                continue
            same = (
                (runs[start:, 0] == kind)
                & (runs[start:, 1] == session)
                & (runs[start:, 2] >= seen.first)
                & (runs[start:, 2] < seen.end)
            )
            stop = start + (len(same) if same.all() else int(same.argmin()))
            self._deliver(delivery, seen, session, runs[start:stop])
            start = stop
        for name, why in _DROPS.items():
            count = self._sequence.counts[name]
            if count > self._before[name]:
                delivery.dropped[why] = count - self._before[name]
                self._before[name] = count
        delivery.end = self.position

    def _holder(self, packet: int) -> _Seen:
        return next(seen for seen in reversed(self._seen) if seen.first <= packet < seen.end)

    def _deliver(self, delivery: Delivery, seen: _Seen, session: int, runs: npt.NDArray[np.int64]) -> None:
        total = int(runs[:, 4].sum())
        offsets, sizes = np.empty(total, np.uint32), np.empty(total, np.uint32)
        received, numbers = np.empty(total, np.int64), np.empty(total, np.int64)
        wanted = np.ascontiguousarray(runs[:, 2:6])
        wanted[:, 0] = seen.index[wanted[:, 0] - seen.first]
        kernels.locate(
            seen.piece.data,
            self._feed,
            seen.found.begins,
            seen.piece.times,
            wanted,
            0,
            offsets,
            sizes,
            received,
            numbers,
        )
        place = _places(self._path, seen.piece.base, offsets.copy())
        behind = session in self._gaps
        self._gaps.discard(session)
        stretch = Stretch(
            session,
            seen.piece.data,
            offsets,
            sizes,
            received,
            numbers,
            self.position,
            behind,
            place,
            (seen.piece.lease,),
        )
        delivery.stretches.append(stretch)
        self.position += total

    def _lost(self, delivery: Delivery, seen: _Seen, session: int, packet: int, count: int, number: int) -> None:
        at = int(seen.found.begins[seen.index[packet - seen.first]])
        last = number + count - 1
        what = f"messages {number}..{last}" if count > 1 else f"message {number}"
        place = f"{self._path}, offset {seen.piece.base + at}"
        error = f"gap: {what} of session {self._names[session]} missing before the packet at this place"
        operation = f"{'mold' if self._feed == kernels.MOLD else 'iex'}.sequence"
        delivery.bad.append(BadRecord(place, operation, error, b"", self.position))
        self._gaps.add(session)
        self.position = min(self.position + count, 1 << 63)

    def _implausible(self, piece: Piece, number: int, seq: int) -> BadRecord:
        at, size = int(piece.ats[number]), int(piece.sizes[number])
        raw = piece.data[at : at + min(size, _KEPT)].tobytes()
        said = "that does not fit 63 bits" if seq < 0 else f"{seq}, far from those around it"
        operation = f"{'mold' if self._feed == kernels.MOLD else 'iex'}.sequence"
        return BadRecord(
            f"{self._path}, offset {piece.base + at}", operation, f"the packet has a sequence number {said}", raw
        )


def _places(path: str, base: int, offsets: npt.NDArray[np.uint32]) -> Callable[[int], str]:
    return lambda number: f"{path}, offset {base + int(offsets[number])}"
