"""What a capture carries, by walking it: flows, their packets, and the protocol these look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..market import _mold_kernels as feeds
from ..market._itch_format import LENGTHS
from . import _packet_kernels as packets
from ._pcap_framer import PacketFramer, Packets, Piece, dissected

__all__ = ["Survey", "carried", "survey"]

#: Packets by which the content of a capture is told.
_ENOUGH = 4096
#: Flows that are told apart; the packets of others are counted as one.
_MOST_FLOWS = 4096
_DEEP = (0x8004, 0x8005)
#: First messages that are of ITCH 5.0: other exchanges' feeds in MoldUDP64 have its letters with other lengths.
_ITCH = tuple(ord(letter) | length << 8 for letter, length in LENGTHS.items())
#: What packets carry, told finer: MoldUDP64 with messages of ITCH 5.0 or of another kind, or none; IEX TOPS and DEEP.
_OTHER, _MOLD, _TOPS, _ITCH_MOLD, _DEEP_IEX, _BEAT = 0, 1, 2, 3, 4, 5
_NAMES = {
    _OTHER: "other",
    _MOLD: "MoldUDP64, not ITCH 5.0",
    _TOPS: "IEX TOPS",
    _ITCH_MOLD: "ITCH 5.0 in MoldUDP64",
    _DEEP_IEX: "IEX DEEP",
    _BEAT: "MoldUDP64 without messages",
}
#: Protocol, version of IP, target address, target port.
Flow = tuple[int, int, int, int]


@dataclass(slots=True)
class Survey:
    """Packets in all, bad ones, those left out by reason, first and last time, and flows: (protocol, version of IP, target,
    port) to (what they look like, packets)."""

    packets: int = 0
    bad: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    times: tuple[int, int] | None = None
    flows: dict[Flow, tuple[str, int]] = field(default_factory=dict)


def _kinds(piece: Piece, found: Packets) -> npt.NDArray[np.uint8]:
    """What each packet carries (a key of `_NAMES`); counts only where it is read."""
    kinds, details = np.empty(piece.count, np.uint8), np.empty(piece.count, np.uint16)
    feeds.carried_kinds(
        piece.data, piece.count, found.codes, found.protocols, found.begins, found.lengths, kinds, details
    )
    mold = kinds == feeds.MOLD
    kinds[mold & np.isin(details, _ITCH)] = _ITCH_MOLD
    kinds[mold & (details == 0)] = _BEAT
    kinds[(kinds == _TOPS) & np.isin(details, _DEEP)] = _DEEP_IEX
    return kinds


def survey(framer: PacketFramer) -> Survey:
    """Walk a whole capture."""
    told = Survey()
    counts: dict[Flow, dict[int, int]] = {}
    for piece in framer.pieces():
        found = dissected(piece)
        kinds = _kinds(piece, found)
        told.packets += piece.count
        told.bad += int(np.count_nonzero(found.codes >= packets.SNAPPED))
        for why, count in piece.dropped(found.codes).items():
            told.left_out[why] = told.left_out.get(why, 0) + count
        sound = piece.sizes >= 0
        if sound.any():
            span = piece.times[: piece.count][sound[: piece.count]]
            if len(span):
                low, high = int(span.min()), int(span.max())
                told.times = (low, high) if told.times is None else (min(low, told.times[0]), max(high, told.times[1]))
        for flow, kind, many in _flows(piece, found, kinds):
            known = flow if flow in counts or len(counts) < _MOST_FLOWS else (flow[0], 4, 0, 0)
            inner = counts.setdefault(known, {})
            inner[kind] = inner.get(kind, 0) + many
    for flow, inner in counts.items():
        most = max(sorted(inner), key=lambda kind: inner[kind] if kind != _BEAT else 0)
        told.flows[flow] = (_NAMES[most], sum(inner.values()))
    return told


def _flows(piece: Piece, found: Packets, kinds: npt.NDArray[np.uint8]) -> Iterator[tuple[Flow, int, int]]:
    """Flows, what their packets look like, and how many."""
    kept = found.codes == packets.OK
    four = kept & (found.heads < 0)
    key = (found.targets[four].astype(np.uint64) << np.uint64(32)) | (
        found.target_ports[four].astype(np.uint64) << np.uint64(16)
    )
    key |= (found.protocols[four].astype(np.uint64) << np.uint64(8)) | kinds[four].astype(np.uint64)
    for number, many in zip(*(part.tolist() for part in np.unique(key, return_counts=True)), strict=True):
        yield (number >> 8 & 255, 4, number >> 32, number >> 16 & 0xFFFF), number & 255, many
    six = np.flatnonzero(kept & (found.heads >= 0))
    if not len(six):
        return
    keys = np.empty((len(six), 20), np.uint8)
    keys[:, :16] = piece.data[found.heads[six, None] + np.arange(24, 40)]
    keys[:, 16:18] = found.target_ports[six].astype(">u2").view(np.uint8).reshape(-1, 2)
    keys[:, 18], keys[:, 19] = found.protocols[six], kinds[six]
    for row, many in zip(*np.unique(keys, axis=0, return_counts=True), strict=True):
        raw = row.tobytes()
        flow = raw[18], 6, int.from_bytes(raw[:16], "big"), int.from_bytes(raw[16:18], "big")
        yield flow, raw[19], int(many)


def carried(framer: PacketFramer) -> tuple[str, int | None]:
    """``tops``, ``deep``, ``mold`` (with ITCH 5.0 messages) or ``other``: what most of the first packets carry.

    With it when the first packet that is read was captured.
    """
    votes: npt.NDArray[np.int64] = np.zeros(len(_NAMES), np.int64)
    seen, first = 0, None
    for piece in framer.pieces():
        found = dissected(piece)
        read = found.codes == packets.OK
        votes += np.bincount(_kinds(piece, found)[read], minlength=len(_NAMES))
        if first is None and read.any():
            first = int(piece.times[: piece.count][read][0])
        seen += piece.count
        if seen >= _ENOUGH:
            break
    feed = max((_TOPS, _DEEP_IEX, _ITCH_MOLD), key=lambda kind: votes[kind])
    if votes[feed] <= votes[_OTHER] + votes[_MOLD]:
        return "other", first
    return {_TOPS: "tops", _DEEP_IEX: "deep", _ITCH_MOLD: "mold"}[feed], first
