"""Frames of a raw radar cube from datagrams in any order, with holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import nanoseconds
from ...pipeline.memory import Lease
from ...pipeline.source import Decoded
from ..driving._adc_reader import arrange
from ..driving.adc import Adc
from ._losses import MISSED
from ._numbers import AGAIN, GAP, LATE, RESTART, Numbers

if TYPE_CHECKING:
    from .adc_packets import AdcPackets

__all__ = ["AdcFrames", "Made", "decode_frames"]

_HEAD = 10
_DATA, _LARGEST = 1456, 1 << 16
_SHOWN = 8
_FRAMES = 1 << 32
_TIMES = 1 << 62


@dataclass(slots=True)
class _Open:
    """A frame under way; `holes` are the stretches that have not come."""

    lease: Lease
    data: npt.NDArray[np.uint8]
    holes: list[tuple[int, int]]
    recv_ns: int = 0
    newest: int = -1


@dataclass(slots=True)
class Made:
    """Frames that have left, ``(frame, ts_event, ts_recv, bytes)``, and what was noticed on the way."""

    frames: list[tuple[int, int, int, _Open]] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    noticed: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


class AdcFrames:
    """Puts datagrams in their places. `position` is what `save` gave."""

    def __init__(self, codec: AdcPackets, context: Context, source: str, position: Mapping[str, Any]) -> None:
        self._pool, self._context, self._source = context.pool, context, source
        self._size, self._period = codec.radar.frame_bytes, nanoseconds(codec.radar.frame_period)
        self._reach = codec.reorder * _DATA
        self._given: int | None = None if codec.radar.start is None else int(codec.radar.start)
        self._start: int | None = position.get("start")
        self._next: int | None = position.get("next")
        self._resumed = self._next is not None
        self._made, self._lost = Made(), ""
        self._strange = 0
        self._begin()

    def _begin(self) -> None:
        self._open: dict[int, _Open] = {}
        self._numbers = Numbers(lowest=1, highest=(1 << 32) - 1, before=self._reach // _DATA)
        self._following = False
        self._end = self._last = 0

    def save(self) -> dict[str, Any]:
        """Where the card is, as plain values."""
        return {"start": self._start, "next": self._next}

    def made(self) -> Made:
        """What has left since the last call."""
        made, self._made = self._made, Made()
        return made

    def heard(self, event: str) -> None:
        """The socket was lost or made."""
        if event.startswith(MISSED):  # the datagrams have numbers of their own
            return
        if event.startswith("lost: "):
            self._lost = event.removeprefix("lost: ")
        elif self._lost:
            self._gap(f"the feed was away ({self._lost}): what was sent in between is missing")
            self._lost = ""

    def take(self, packet: bytes, recv_ns: int) -> None:
        """One datagram."""
        if len(packet) <= _HEAD:
            self._bad("adc.packet", f"a datagram of {len(packet)} bytes is none of a DCA1000", packet)
            return
        number, at = int.from_bytes(packet[:4], "little"), int.from_bytes(packet[4:_HEAD], "little")
        data = packet[_HEAD:]
        frame = (at + len(data)) // self._size
        if frame >= _FRAMES or frame * self._period >= _TIMES:
            self._bad("adc.packet", f"byte {at} is beyond what frames can be counted to", packet)
            return
        if self._following and not self._fits(number, at):
            self._strange += 1
            error = f"datagram {number} says that {at} bytes came before it; {self._end} did before {self._last + 1}"
            self._bad("adc.packet", error, packet)
            if self._strange >= _SHOWN:
                self._anew("the places of datagrams no longer follow from their numbers: counting begins anew")
            return
        self._strange = 0
        verdict = self._numbers.take(number, packet)
        if verdict.kind == AGAIN:
            self._drop("datagrams that came twice")
            return
        if verdict.kind == RESTART and number <= self._last:
            self._anew(f"the card began again with datagram {number} where {verdict.first} was due")
            self._numbers.take(number, packet)
        if verdict.kind == GAP:
            self._context.note("jumps in the numbers of datagrams")
        if verdict.kind == LATE:
            self._context.note("datagrams that came behind later ones")
        if not self._following:
            self._follow(number, at, recv_ns)
        if number >= self._last:
            self._end, self._last = at + len(data), number
        self._put(at, data, recv_ns)
        self._leave()

    def _anew(self, why: str) -> None:
        self.finish()
        self._gap(why)
        self._begin()
        self._start = self._next = self._given = None

    def _fits(self, number: int, at: int) -> bool:
        """Whether place and number go together."""
        ahead = number - self._last - 1
        if ahead == 0:
            return at == self._end
        if ahead > 0:
            return at >= self._end and at - self._end <= ahead * _LARGEST
        return at < self._end or (number == 1 and at == 0)

    def _follow(self, number: int, at: int, recv_ns: int) -> None:
        """Begin with the frame that `at` is in if it may be whole, else with the next one."""
        self._following = True
        first = 0 if at <= self._reach and not self._resumed else -(-at // self._size)
        if self._resumed and self._next is not None and first > self._next:
            self._never(self._next, first - 1)
        self._next, self._resumed = first, False
        if self._start is None:
            self._start = self._given if self._given is not None else recv_ns - at * self._period // self._size
        self._end, self._last = at, number - 1

    def _put(self, at: int, data: bytes, recv_ns: int) -> None:
        place = at
        fresh = np.frombuffer(data, np.uint8)
        while place < at + len(data):
            frame, begin = divmod(place, self._size)
            end = min(self._size, begin + at + len(data) - place)
            if self._next is not None and frame >= self._next:
                found = self._open.get(frame)
                if found is None:
                    lease = self._pool.take(self._size)
                    empty: Any = lease.array(np.uint8, self._size)
                    empty[:] = 0
                    found = self._open[frame] = _Open(lease, empty, [(0, self._size)])
                found.data[begin:end] = fresh[place - at : place - at + end - begin]
                found.holes = _without(found.holes, begin, end)
                if at > found.newest and (at >= frame * self._size or found.newest < 0):
                    found.newest, found.recv_ns = at, recv_ns
            else:
                self._drop("bytes of frames that had left, or begun before", end - begin)
            place += end - begin

    def _leave(self) -> None:
        """Frames that are whole, or too far behind to become so."""
        while self._open:
            frame = min(self._open)
            passed = self._end - (frame + 1) * self._size >= self._reach
            if frame != self._next and not self._end - frame * self._size >= self._reach:
                return
            if self._open[frame].holes and not passed:
                return
            self._left(frame)

    def _left(self, frame: int) -> None:
        if self._next is not None and frame > self._next:
            self._never(self._next, frame - 1)
        found = self._open.pop(frame)
        self._next = frame + 1
        if found.holes:
            lost = sum(end - begin for begin, end in found.holes)
            where = ", ".join(f"{begin} to {end - 1}" for begin, end in found.holes[:_SHOWN])
            more = f" and {len(found.holes) - _SHOWN} more stretches" if len(found.holes) > _SHOWN else ""
            error = f"{lost} of {self._size} bytes of frame {frame} never came and are zeros: bytes {where}{more}"
            self._made.noticed.append(BadRecord(f"{self._source}, frame {frame}", "adc.lost", error, b""))
            self._context.note("bytes that never came and are zeros", lost)
        event = (self._start or 0) + frame * self._period
        self._made.frames.append((frame, event, found.recv_ns, found))

    def _never(self, first: int, last: int) -> None:
        which = f"frame {first}" if first == last else f"frames {first} to {last}"
        error = f"of {which} no datagram came; there is no row of {'it' if first == last else 'them'}"
        self._made.noticed.append(BadRecord(f"{self._source}, frame {first}", "adc.lost", error, b""))
        self._context.note("frames that never came", last - first + 1)

    def give_up(self) -> None:
        """Nothing has come for long: frames of which the end has come, or later ones, leave as they are."""
        while self._open and (len(self._open) > 1 or self._end >= (min(self._open) + 1) * self._size):
            self._left(min(self._open))

    def finish(self) -> None:
        """No more comes."""
        self.give_up()
        for frame, found in self._open.items():
            if not found.holes:
                self._left(frame)
                break
            there = self._size - sum(end - begin for begin, end in found.holes)
            error = f"a frame has {self._size} bytes, of the last one ({frame}) {there} came: the feed ended"
            self._bad("adc.decode", error, found.data[: found.holes[-1][0]].tobytes())
        self._open = {}

    def _bad(self, operation: str, error: str, data: bytes) -> None:
        self._made.bad.append(BadRecord(self._source, operation, error, data))

    def _gap(self, error: str) -> None:
        self._made.noticed.append(BadRecord(self._source, "live.gap", error, b""))

    def _drop(self, reason: str, count: int = 1) -> None:
        self._made.dropped[reason] = self._made.dropped.get(reason, 0) + count


def _without(holes: list[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    """`holes` less what has come."""
    left: list[tuple[int, int]] = []
    for first, last in holes:
        if last <= begin or first >= end:
            left.append((first, last))
            continue
        if first < begin:
            left.append((first, begin))
        if end < last:
            left.append((end, last))
    return left


def decode_frames(made: Made, first_seq: int, radar: Adc, layout: ColumnLayout, context: Context) -> Decoded:
    """Rows of frames that have left; bad records are numbered behind them."""
    count = len(made.frames)
    bad = [
        BadRecord(record.place, record.operation, record.error, record.data, first_seq + count + i)
        for i, record in enumerate(made.bad)
    ]
    if not count:
        return Decoded((), bad)
    out = layout.take(context.pool, count)
    out["seq"][:] = np.arange(first_seq, first_seq + count)
    for row, (frame, event, recv, found) in enumerate(made.frames):
        out["frame"][row] = frame
        out["ts_event"][row], out["ts_recv"][row] = event, recv
        raw = found.data.view(np.int16).reshape(1, -1)
        arrange(raw, out["cube"][row : row + 1], radar.interleave, offset_binary=radar.offset_binary)
    context.copied(count * radar.frame_bytes)
    return Decoded([out.batch(count)], bad)
