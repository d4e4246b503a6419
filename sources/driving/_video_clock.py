"""The event time of every packet and picture of a stream, by pts, by a frame rate, or by a side-car file."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ._video_demux import Demuxer, StreamInfo
from ._video_times import scaled_ns

__all__ = ["VideoClock", "ranks"]

_INT64 = 1 << 63


class VideoClock:
    """When packets and pictures are; `timed` says whether the stream holds times."""

    def __init__(
        self,
        info: StreamInfo,
        *,
        start_ns: int | None,
        rate: Fraction | None,
        stamps: npt.NDArray[np.int64] | None,
        order: Callable[[], npt.NDArray[np.int64] | None],
    ) -> None:
        self._start = start_ns if start_ns is not None else (info.start_ns or 0)
        self._base, self._origin = info.time_base, info.origin
        self.timed = info.timed
        self._by_pts = info.timed and rate is None
        self._rate = rate or info.rate
        self._stamps = stamps
        self._order = order() if stamps is not None else None

    def ns(self, number: int, pts: int | None, place: int) -> int:
        """The time of packet `number`, which is row `place` of the table. Raises ValueError where it has none."""
        if self._stamps is not None:
            rank = int(self._order[number]) if self._order is not None and number < len(self._order) else place
            if rank >= len(self._stamps):
                raise ValueError(f"picture {rank} has no time stamp: the side-car file holds {len(self._stamps)}")
            return int(self._stamps[rank])
        if self._by_pts:
            if pts is None:
                raise ValueError("it has no presentation time (pts)")
            found = self._start + scaled_ns(pts - self._origin, self._base)
        else:
            found = self._start + scaled_ns(place, 1 / self._rate)
        if not -_INT64 <= found < _INT64:
            raise ValueError(f"its time, pts {pts}, is beyond what 64 bits of ns hold")
        return found


def ranks(demuxer: Demuxer) -> npt.NDArray[np.int64] | None:
    """The place in display order of every packet (one pass over the file); None for a stream without times."""
    if not demuxer.info.timed:
        return None
    pts = [(packet.pts if not isinstance(packet, str) else None) for _, packet in demuxer.packets()]
    if any(value is None for value in pts):
        return None
    order = np.argsort(np.array(pts, np.int64), kind="stable")
    found = np.empty(len(pts), np.int64)
    found[order] = np.arange(len(pts))
    return found
