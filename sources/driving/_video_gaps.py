"""Pictures that are missing in the middle of H.264, told by how its reference pictures are numbered.

A decoder paints over them without a word, unlike those of H.265, without which it does not decode what needs them.
"""

from __future__ import annotations

from ...pipeline._nal import Numbering, gap_before, nal_units, numbering_of, slice_of
from ._video_demux import StreamInfo

__all__ = ["Gaps"]

_SLICES, _IDR, _SEQUENCE = (1, 2, 5), 5, 7


class Gaps:
    """Looks at the packets of an H.264 stream in its order, from one at which decoding begins on."""

    def __init__(self, info: StreamInfo) -> None:
        self._length_size = info.sets.length_size
        self._numbering: Numbering | None = numbering_of(info.sets.data or info.extradata or b"")
        self._reference: int | None = None
        self._first, self._leads = True, False

    def before(self, data: bytes) -> str | None:
        """What is missing in front of the packet `data`; None if nothing is, or if it cannot be told."""
        for at, end in nal_units(data, self._length_size):
            kind = data[at] & 0x1F
            if kind == _SEQUENCE:
                self._numbering = numbering_of(b"\0\0\1" + data[at:end])
            elif kind in _SLICES:
                return self._picture(data[at : min(end, at + 32)])
        return None

    def _picture(self, unit: bytes) -> str | None:
        head = slice_of(unit, self._numbering)
        if self._first:  # pictures that lead a key picture may have been left out where the stream was cut
            self._first, self._leads = False, head is not None and not head.idr
        elif self._leads:
            self._leads = head is not None and head.is_b
            self._reference = None
        self._reference, gap = gap_before(head, self._numbering, self._reference)
        return gap
