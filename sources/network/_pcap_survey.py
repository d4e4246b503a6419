"""What a capture carries, by walking it: flows, their packets, and the protocol these look like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..market import _mold_kernels as feeds
from . import _packet_kernels as packets
from ._pcap_framer import PacketFramer, Packets, Piece, dissected

__all__ = ["Survey", "carried", "survey"]

#: Packets by which the content of a capture is told.
_ENOUGH = 4096
#: Flows that are told apart; the packets of others are counted as one.
_MOST_FLOWS = 4096
_NAMES = {feeds.OTHER: "other", feeds.MOLD: "MoldUDP64", feeds.IEX: "IEX-TP"}
_DEEP = (0x8004, 0x8005)
_ITCH = frozenset(b"SRHYLVWKJhAFECXDUPQBINO")


@dataclass(slots=True)
class Survey:
    """Packets in all, bad ones, those left out by reason, first and last time, and flows: (protocol, target, port) to
    (what they look like, packets)."""

    packets: int = 0
    bad: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    times: tuple[int, int] | None = None
    flows: dict[tuple[int, int, int], tuple[str, int]] = field(default_factory=dict)


def _kinds(piece: Piece, found: Packets) -> tuple[Any, Any]:
    kinds, details = np.empty(piece.count, np.uint8), np.empty(piece.count, np.uint16)
    feeds.carried_kinds(
        piece.data, piece.count, found.codes, found.protocols, found.begins, found.lengths, kinds, details
    )
    return kinds, details


def survey(framer: PacketFramer) -> Survey:
    """Walk a whole capture."""
    told = Survey()
    counts: dict[tuple[int, int, int], dict[int, int]] = {}
    for piece in framer.pieces():
        found = dissected(piece)
        kinds, _ = _kinds(piece, found)
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
        kept = found.codes == packets.OK
        key = (found.targets[kept].astype(np.uint64) << np.uint64(32)) | (
            found.target_ports[kept].astype(np.uint64) << np.uint64(16)
        )
        key |= (found.protocols[kept].astype(np.uint64) << np.uint64(8)) | kinds[kept].astype(np.uint64)
        for number, many in zip(*(part.tolist() for part in np.unique(key, return_counts=True)), strict=True):
            flow = (number >> 8 & 255, number >> 32, number >> 16 & 0xFFFF)
            if flow not in counts and len(counts) >= _MOST_FLOWS:
                flow = (flow[0], 0, 0)
            inner = counts.setdefault(flow, {})
            inner[number & 255] = inner.get(number & 255, 0) + many
    for flow, inner in counts.items():
        most = max(sorted(inner), key=lambda kind: inner[kind])
        told.flows[flow] = (_NAMES[most], sum(inner.values()))
    return told


def carried(framer: PacketFramer) -> str:
    """``tops``, ``deep``, ``mold`` (with ITCH 5.0 messages) or ``other``: what most of the first packets carry."""
    votes = {"other": 0, "mold": 0, "tops": 0, "deep": 0}
    seen = 0
    for piece in framer.pieces():
        found = dissected(piece)
        kinds, details = _kinds(piece, found)
        for kind, detail in zip(kinds.tolist(), details.tolist(), strict=True):
            if kind == feeds.IEX:
                votes["deep" if detail in _DEEP else "tops"] += 1
            elif kind == feeds.MOLD and detail:
                votes["mold" if detail in _ITCH else "other"] += 1
        votes["other"] += int(np.count_nonzero((found.codes == packets.OK) & (kinds == feeds.OTHER)))
        seen += piece.count
        if seen >= _ENOUGH:
            break
    best = max(("tops", "deep", "mold"), key=lambda name: votes[name])
    return best if votes[best] > votes["other"] else "other"
