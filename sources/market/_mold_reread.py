"""Messages of a capture that were put aside or missing, found again in the capture as it is now."""

from __future__ import annotations

import re

import numpy as np

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Decoded, SourceSpec
from ..storage.reread import number_behind, reread, rest_of_place
from ..storage.stored import PathLike
from ._mold_capture import FeedCapture

__all__ = ["reread_messages"]

_GAP = re.compile(r"gap: messages? (\d+)(?:\.\.(\d+))? of session (.+) missing before the packet at this place")


def reread_messages(spec: SourceSpec, path: PathLike, capture: FeedCapture, record: BadRecord) -> Decoded | None:
    """The rows of the message at the place of `record`, or of those of the gap that it tells of.

    `capture` is walked for where they are, then `spec` is read up to there: what they mean depends on those before them.
    None for packets that were put aside: the gap they left has a record of its own.
    """
    at = number_behind("offset", rest_of_place(record, path))
    if at is None or record.operation.startswith("pcap."):
        return None
    gap = _GAP.fullmatch(record.error)
    found = _in_gap(capture, int(gap[1]), int(gap[2] or gap[1]), gap[3]) if gap else _at(capture, at)
    if not found:
        return Decoded((), [record]) if gap else None
    seqs = {position: (record.seq or 0) + number for number, position in enumerate(found)}
    return reread(spec.open(Context("retry")), seqs) or Decoded(())


def _in_gap(capture: FeedCapture, first: int, last: int, session: str) -> list[int]:
    """The positions of messages `first` to `last` of `session`."""
    found: list[int] = []
    for delivery in capture.deliveries():
        for stretch in delivery.stretches:
            if capture.session_name(stretch.session) == session:
                here = np.flatnonzero((stretch.numbers >= first) & (stretch.numbers <= last))
                found += (here + stretch.position).tolist()
    return found


def _at(capture: FeedCapture, offset: int) -> list[int]:
    """The position of the message at `offset` of the capture."""
    for delivery in capture.deliveries():
        for stretch in delivery.stretches:
            if len(stretch.offsets):
                base = int(stretch.place(0).rpartition(" ")[2]) - int(stretch.offsets[0])
                here = np.flatnonzero(stretch.offsets.astype(np.int64) + base == offset)
                if len(here):
                    return [stretch.position + int(here[0])]
    return []
