"""Walks a capture: pieces of packets in order, with what each carries, and the position to go on from.

A read buffer is framed in place; what is left of a packet at its end moves to the next one. Everything comes from the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool, Lease
from ..storage.feed import Feed
from . import _packet_kernels as packets
from . import _pcap_kernels as kernels
from ._pcap_format import MOST_INTERFACES, CaptureHeader, interface_of

__all__ = ["PACKETS", "READ", "PacketFramer", "Packets", "Piece", "dissected"]

#: Bytes of a read buffer, and packets of a piece at most.
READ = 3 << 19
PACKETS = 1 << 14
_BAD = 1024
_KEPT = 1 << 16

_ERRORS = {
    kernels.LOST: "no sound packet begins here; {size} bytes up to the next one are skipped",
    kernels.CUT: "the file ends inside a packet: {size} of its bytes are there",
    kernels.HEADER: "the packet's header says what its {size} bytes cannot hold",
    kernels.NO_INTERFACE: "the packet is of an interface that the section does not describe",
    kernels.NO_TIME: "the time of the packet does not fit the years 1970 to 2262",
}
_REASONS = {
    packets.NOT_IP: "neither IPv4 nor IPv6",
    packets.FRAGMENT: "an IPv4 fragment",
    packets.FRAGMENT6: "an IPv6 fragment",
    packets.NOT_UDP_TCP: "neither UDP nor TCP",
    packets.UNKNOWN_LINK: "of a link type that is not read",
    packets.FILTERED: "of another port or host",
    packets.DROPPED: "not of the protocol that is read",
}
_WRONG = {
    packets.SNAPPED: "only {size} of the packet's {full} bytes were captured: record with a longer snap length",
    packets.BAD_IP: "the IPv4 header does not fit the {size} bytes captured",
    packets.BAD_IP6: "the IPv6 header, or one behind it, does not fit the {size} bytes captured",
    packets.BAD_TRANSPORT: "the UDP or TCP header does not fit its IP packet",
    packets.UNSOUND: "the datagram to a port of the feed is not {feed}, or of more sessions than are followed",
    packets.CUT_LINK: "the frame ends inside its link header, after {size} bytes",
}
_BLOCKS = {4: "name resolution", 5: "interface statistics"}


@dataclass(slots=True)
class Packets:
    """What the packets of a piece carry, one entry each; entries count only where `codes` is OK (times: always).

    `heads` says where the header of an IPv6 packet is in the piece, whose addresses are not among `sources` and `targets`;
    it is -1 for IPv4.
    """

    codes: npt.NDArray[np.uint8]
    begins: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    sources: npt.NDArray[np.uint32]
    targets: npt.NDArray[np.uint32]
    heads: npt.NDArray[np.int64]
    source_ports: npt.NDArray[np.uint16]
    target_ports: npt.NDArray[np.uint16]
    vlans: npt.NDArray[np.uint16]
    protocols: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Piece:
    """Framed packets: where each lies in `data`, whose first byte is at `base` of the content; and what is wrong."""

    data: npt.NDArray[np.uint8]
    count: int
    ats: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    fulls: npt.NDArray[np.uint32]
    times: npt.NDArray[np.int64]
    links: npt.NDArray[np.uint16]
    bad: npt.NDArray[np.int64]
    base: int
    first: int
    nbytes: int
    skipped: Mapping[str, int]
    note: str | None
    lease: Lease

    def dropped(self, codes: npt.NDArray[np.uint8]) -> dict[str, int]:
        """How many packets were left out, by reason, and the blocks that hold none."""
        counts = np.bincount(codes[: self.count], minlength=16).tolist()
        return {why: counts[code] for code, why in _REASONS.items() if counts[code]} | dict(self.skipped)

    def unsound(self, path: str, codes: npt.NDArray[np.uint8], feed: str = "") -> list[BadRecord]:
        """The bad packets and the bytes between sound ones, in order, with their places in the file."""
        found = []
        for what, at, size, number in self.bad.tolist():
            raw = self.data[at : at + min(size, _KEPT)].tobytes()
            place = f"{path}, offset {self.base + at}"
            found.append(BadRecord(place, "pcap.frame", _ERRORS[what].format(size=size), raw, self.first + number))
        wrong = (codes[: self.count] >= packets.SNAPPED) & (codes[: self.count] != packets.FRAMED_BAD)
        for number in np.flatnonzero(wrong).tolist():
            at, size = int(self.ats[number]), int(self.sizes[number])
            error = _WRONG[int(codes[number])].format(size=size, full=int(self.fulls[number]), feed=feed)
            raw = self.data[at : at + size].tobytes()
            place = f"{path}, offset {self.base + at}"
            found.append(BadRecord(place, "pcap.decode", error, raw, self.first + number))
        found.sort(key=lambda record: record.seq or 0)
        if self.note is not None:
            found.append(BadRecord(f"{path}, offset {self.base + self.nbytes}", "pcap.read", self.note, b""))
        return found


class PacketFramer:
    """Walks a feed. `offset` and `seq` say where it is: the next record's place in the content, and its packet number."""

    def __init__(self, feed: Feed, header: CaptureHeader, pool: BufferPool, position: Mapping[str, Any]) -> None:
        self._feed, self._header, self._pool = feed, header, pool
        self.seq = int(position.get("seq", 0))
        self._interfaces: list[list[int]] = [list(map(int, row)) for row in position.get("interfaces", ())]
        self._tables()
        self._state = np.zeros(6, np.int64)
        self._state[kernels.BIG] = int(position.get("big", header.big))
        self._state[kernels.LAST] = int(position.get("last", -1))
        self._others = np.zeros(16, np.int64)
        self._base = int(position.get("offset", header.size))
        self._room = READ
        feed.seek(self._base)
        self._take(b"")

    @property
    def offset(self) -> int:
        return self._base + int(self._state[kernels.POSITION])

    @property
    def position(self) -> dict[str, Any]:
        """Where to go on, as plain values."""
        state = self._state
        place: dict[str, Any] = {"offset": self.offset, "seq": self.seq, "last": int(state[kernels.LAST])}
        if self._header.container == "pcapng":
            place |= {"big": int(state[kernels.BIG]), "interfaces": [list(row) for row in self._interfaces]}
        return place

    def pieces(self) -> Iterator[Piece]:
        """Pieces up to the end of the content."""
        state, told = self._state, False
        while True:
            start = int(state[kernels.POSITION])
            ats, sizes, fulls = np.empty(PACKETS, np.int64), np.empty(PACKETS, np.int32), np.empty(PACKETS, np.uint32)
            times, links = np.empty(PACKETS, np.int64), np.zeros(PACKETS, np.uint16)
            bad = np.empty((_BAD, 4), np.int64)
            state[kernels.PACKETS] = state[kernels.BAD] = 0
            columns = (ats, sizes, fulls, times, links, bad)
            status = self._frame(columns)
            count = int(state[kernels.PACKETS])
            ended = status == kernels.MORE and self._final
            note = self._feed.error if ended and not told else None
            told = told or ended
            skipped = self._skipped()
            if count or note or skipped:
                first, self.seq = self.seq, self.seq + count
                size = int(state[kernels.POSITION]) - start
                yield Piece(
                    self._data,
                    count,
                    *columns[:5],
                    bad[: int(state[kernels.BAD])].copy(),
                    self._base,
                    first,
                    size,
                    skipped,
                    note,
                    self._lease,
                )
            if ended:
                return
            if status in (kernels.MORE, kernels.GROW):
                self._refill(grow=status == kernels.GROW)

    def _frame(self, columns: tuple[Any, ...]) -> int:
        """Frame until the piece is full or more bytes are needed; headers inside are read on the way."""
        state, header = self._state, self._header
        if header.container == "pcap":
            status: int = kernels.frame_pcap(
                self._data,
                self._filled,
                self._final,
                int(header.big),
                header.unit,
                header.snap,
                header.link,
                state,
                *columns,
            )
            return status
        while True:
            status = kernels.frame_pcapng(
                self._data,
                self._filled,
                self._final,
                self._table,
                min(len(self._interfaces), MOST_INTERFACES),
                self._others,
                state,
                *columns,
            )
            if status not in (kernels.SECTION, kernels.INTERFACE):
                return status
            at, size = int(state[kernels.POSITION]), int(state[kernels.BLOCK])
            block = self._data[at : at + size].tobytes()
            state[kernels.POSITION] = at + size
            if status == kernels.SECTION:
                state[kernels.BIG] = int(block[8:12] == b"\x1a\x2b\x3c\x4d")
                self._interfaces.clear()
            elif len(self._interfaces) < MOST_INTERFACES and size >= 20:
                self._interfaces.append(list(interface_of(block, bool(state[kernels.BIG]))))
                self._table[len(self._interfaces) - 1] = self._interfaces[-1]
            else:
                self._others[0] += 1

    def _tables(self) -> None:
        self._table = np.zeros((MOST_INTERFACES, 5), np.int64)
        for row, values in enumerate(self._interfaces[:MOST_INTERFACES]):
            self._table[row] = values

    def _skipped(self) -> dict[str, int]:
        counts = {
            f"a pcapng block without a packet: {_BLOCKS.get(kind, 'another type')}": 0
            for kind in np.flatnonzero(self._others).tolist()
        }
        for kind in np.flatnonzero(self._others).tolist():
            counts[f"a pcapng block without a packet: {_BLOCKS.get(kind, 'another type')}"] += int(self._others[kind])
        self._others[:] = 0
        return counts

    def _refill(self, *, grow: bool) -> None:
        at = int(self._state[kernels.POSITION])
        self._base += at
        self._state[kernels.POSITION] = 0
        tail = bytes(self._data[at : self._filled])
        self._room = (
            min(max(READ, len(tail) * 2), kernels.LONGEST_BLOCK + READ) if grow else max(READ, len(tail) + READ // 2)
        )
        self._take(tail)

    def _take(self, tail: bytes) -> None:
        """A new buffer that begins with `tail`."""
        room = self._room
        self._lease = self._pool.take(room + kernels.PAD)
        data: Any = self._lease.array(np.uint8, room + kernels.PAD)
        data[: len(tail)] = np.frombuffer(tail, np.uint8)
        view = memoryview(data)
        self._filled = len(tail) + self._feed.fill(view[len(tail) : room])
        data[self._filled :] = 0
        self._final = self._filled < room
        self._data = data


def dissected(piece: Piece, *, port: int = -1, host: int | bytes = -1) -> Packets:
    """What the packets of `piece` carry. `port` and `host` keep those from or to it, a number or 16 bytes; -1: any."""
    n = piece.count
    found = Packets(
        np.empty(n, np.uint8),
        np.zeros(n, np.int64),
        np.empty(n, np.int32),
        np.zeros(n, np.uint32),
        np.zeros(n, np.uint32),
        np.empty(n, np.int64),
        np.zeros(n, np.uint16),
        np.zeros(n, np.uint16),
        np.zeros(n, np.uint16),
        np.zeros(n, np.uint8),
    )
    packets.dissect(
        piece.data,
        n,
        piece.ats,
        piece.sizes,
        piece.fulls,
        piece.links,
        port,
        host if isinstance(host, int) else -2,
        np.frombuffer(bytes(16) if isinstance(host, int) else host, np.uint8),
        found.codes,
        found.begins,
        found.lengths,
        found.sources,
        found.targets,
        found.heads,
        found.source_ports,
        found.target_ports,
        found.vlans,
        found.protocols,
    )
    return found
