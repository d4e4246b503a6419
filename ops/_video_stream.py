"""One stream of encoded video and its decoder, one unit after the other.

A decoder cannot be saved. So the units since the last place where decoding can begin are kept, and a restored stream
decodes them once more and gives none of their pictures twice. That is exact because every unit at which decoding can begin
without what was before it gets a decoder of its own (it costs 30 microseconds): what a decoder has seen is what is kept.
H.265 streams may have only key frames that are led by pictures made of what came before (open groups): there the decoder
goes on until the key frame has been shown, and then a new one is given the units from there on, as it would be if the run
were resumed. H.264 pictures behind such a key frame may still name references from before it, which is an error to a strict
decoder: one that begins there is told to go on, so it may miss damage.

Decoders work with one thread: several would hold back as many pictures as there are threads, and say late which unit was
damaged. Several streams are decoded at once instead.

Units are tagged with their number in the stream in place of a time, so that a picture says which unit it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..pipeline._nal import Numbering, gap_before, numbering_of, slice_of
from ..pipeline.errors import StateLimitError
from ._video_events import (
    AFTER_DAMAGE,
    BEFORE_FIRST,
    LEADING,
    NO_PICTURE,
    ONLY_SETS,
    WITH_DAMAGE,
    Bad,
    Event,
    Lost,
    Picture,
    Unit,
    av_library,
    decoder_errors,
)
from ._video_units import DECODERS, Content, codec_name, content_of, guessed_codec

__all__ = ["VideoStream"]

#: No decoder holds a picture back for longer: H.264 and H.265 reorder at most 16.
_LONGEST_DELAY = 40
#: Bytes of parameter sets that are remembered.
_PARAMETERS_LIMIT = 1 << 16


@dataclass(slots=True)
class VideoStream:
    """A decoder and what it has been given; `limit` bounds the bytes of units kept."""

    name: str
    limit: int
    max_pixels: int
    conceal: bool
    #: Units from the last place where decoding can begin, and those of them whose picture is still to come.
    kept: list[Unit] = field(default_factory=list)
    waiting: dict[int, Unit] = field(default_factory=dict)
    nbytes: int = 0
    _codec: str | None = None
    _number: int = 0
    _awaiting: str | None = BEFORE_FIRST
    _leads: bool = False
    _sets: bytes = b""
    _prefix: bytes = b""
    _numbering: Numbering | None = None
    _reference: int | None = None
    _decoder: Any = None
    _open_entries: set[int] = field(default_factory=set)
    _passed: Unit | None = None
    _again: list[Any] = field(default_factory=list)

    def push(
        self, data: bytes | None, codec: str | None, batch: pa.RecordBatch, index: int, time: int
    ) -> Iterator[Event]:
        """Decode a unit; `codec` as a column names it (None: told by the first bytes of the stream).

        Raises StateLimitError if there is no key frame for more than `limit` bytes.
        """
        unit = Unit(self._number, data or b"", batch, index, time)
        self._number += 1
        yield from self._earlier()
        named = codec_name(codec) or self._codec or guessed_codec(unit.data)
        if named is None and self._awaiting and b"\0\0\1" in unit.data:
            yield Lost(self._awaiting, 1)
            return
        if data is None or named not in DECODERS:
            what = (
                f"a codec that is not decoded here ({named}; {', '.join(DECODERS)} are)" if named else "unknown codec"
            )
            yield from self._damaged(unit, "the unit is null" if data is None else what)
            return
        if named != self._codec:
            yield from self.end()
            self._codec, self._sets, self._prefix = named, b"", b""
        try:
            content = content_of(unit.data, named)
        except ValueError as error:
            yield from self._damaged(unit, str(error))
            return
        self._learn(content)
        if content.picture and self._prefix:
            unit.data, self._prefix = self._prefix + unit.data, b""
            content = content_of(unit.data, named)
        if not content.picture:
            self._prefix = (self._prefix + unit.data) if len(self._prefix) < _PARAMETERS_LIMIT else b""
            yield Lost(ONLY_SETS, 1)
            return
        if content.entry != "no" and not content.complete:
            if not self._sets:
                yield from self._damaged(unit, "a key frame without parameter sets (SPS, PPS), and none came before it")
                return
            unit.data = self._sets + unit.data
        crowded = content.entry == "open" and 2 * self.nbytes > self.limit
        if content.entry != "no" and (self._awaiting or content.entry == "closed" or crowded):
            yield from self.end()
            leads = content.entry == "open"
            self._decoder = self._new_decoder(leads=leads)
            self._awaiting, self._leads, self._reference = None, leads, None
        elif self._awaiting:
            yield Lost(self._awaiting, 1)
            return
        elif self._leads and content.leading:
            yield Lost(LEADING, 1)
            return
        else:
            self._reference = None if self._leads else self._reference
            self._leads = False
        if (gap := self._gap(content)) and not self.conceal:
            yield from self._damaged(unit, gap)
            return
        yield from self._decode(unit, opens=content.entry == "open" and named == "h265")

    def _learn(self, content: Content) -> None:
        if content.complete:
            self._sets = content.sets
        elif content.sets not in self._sets and len(self._sets) < _PARAMETERS_LIMIT:
            self._sets += content.sets
        else:
            return
        self._numbering = numbering_of(self._sets) if self._codec == "h264" else None

    def _gap(self, content: Content) -> str | None:
        """What is missing in front of an H.264 picture, by the number it has."""
        head = slice_of(content.slice, self._numbering) if content.slice else None
        self._reference, gap = gap_before(head, self._numbering, self._reference)
        return gap

    def _new_decoder(self, *, leads: bool) -> Any:
        decoder = av_library().CodecContext.create(DECODERS[self._codec or ""], "r")
        decoder.thread_type, decoder.thread_count = "NONE", 1
        strict = not self.conceal and not (leads and self._codec == "h264")
        decoder.options = {"max_pixels": str(self.max_pixels), **({"err_detect": "explode"} if strict else {})}
        return decoder

    def _decode(self, unit: Unit, *, opens: bool) -> Iterator[Event]:
        self._keep(unit)
        if opens:
            self._open_entries.add(unit.number)
        try:
            frames = _fed(self._decoder, unit)
        except decoder_errors() as error:
            yield from self._damaged(
                unit, f"{DECODERS[self._codec or '']}: {getattr(error, 'strerror', None) or error}"
            )
            return
        yield from self._shown(frames)
        while self._passed is not None:
            yield from self._begin_at(self._passed)
        late = [number for number in self.waiting if number <= unit.number - _LONGEST_DELAY]
        for number in late:
            del self.waiting[number]
        if late:
            yield Lost(NO_PICTURE, len(late))

    def _keep(self, unit: Unit) -> None:
        if self.nbytes + len(unit.data) > self.limit:
            raise StateLimitError(
                f"{self.name}: {len(self.kept)} units without a key frame take more than stream_limit={self.limit} "
                "bytes; raise it, or have the encoder write key frames more often"
            )
        self.kept.append(unit)
        self.nbytes += len(unit.data)
        self.waiting[unit.number] = unit

    def _shown(self, frames: list[Any], but: Unit | None = None) -> Iterator[Event]:
        for frame in frames:
            unit = self.waiting.get(frame.pts) if frame.pts is not None else None
            if unit is None or unit is but:
                continue
            del self.waiting[unit.number]
            if unit.number in self._open_entries:
                before = [number for number in self.waiting if number < unit.number]
                for number in before:
                    del self.waiting[number]
                if before:
                    yield Lost(NO_PICTURE, len(before))
                self._open_entries = {number for number in self._open_entries if number > unit.number}
                self._passed = unit
            batch, unit.batch = unit.batch, None
            if batch is not None:
                yield Picture(batch, unit.index, frame)

    def _begin_at(self, entry: Unit) -> Iterator[Event]:
        """Keep what begins at `entry`, which has been shown, and go on with a decoder that has seen nothing else."""
        self._passed = None
        kept = self.kept[self.kept.index(entry) :]
        try:
            decoder, frames, leads = self._started(kept)
        except decoder_errors():  # something needs what was in front: the next entry may do
            return
        self._decoder, self._leads = decoder, leads
        self.kept, self.nbytes = kept, sum(len(unit.data) for unit in kept)
        yield from self._shown(frames)

    def _started(self, kept: list[Unit]) -> tuple[Any, list[Any], bool]:
        """A decoder that has been given `kept`, its pictures, and whether pictures that lead may still follow."""
        codec = self._codec or ""
        leads = content_of(kept[0].data, codec).entry == "open"
        decoder, frames = self._new_decoder(leads=leads), list[Any]()
        for place, unit in enumerate(kept):
            if place and leads and content_of(unit.data, codec).leading:
                continue
            leads = leads and not place
            frames += [frame for frame in _fed(decoder, unit) if frame.pts in self.waiting]
        return decoder, frames, leads

    def _damaged(self, unit: Unit, error: str) -> Iterator[Event]:
        yield Bad(unit, error)
        yield from self.end(WITH_DAMAGE, but=unit)
        self._awaiting = AFTER_DAMAGE

    def end(self, reason: str = NO_PICTURE, but: Unit | None = None) -> Iterator[Event]:
        """What the decoder still holds. A unit that comes then begins anew, at a key frame."""
        yield from self._earlier()
        if self._decoder is None:
            return
        try:
            frames = self._decoder.decode(None)
        except decoder_errors():
            frames = []
        yield from self._shown(frames, but)
        left = len(self.waiting) - (but is not None and but.number in self.waiting)
        self.waiting, self.kept, self.nbytes, self._open_entries = {}, [], 0, set()
        self._decoder, self._passed, self._awaiting = None, None, self._awaiting or BEFORE_FIRST
        if left:
            yield Lost(reason, left)

    def _earlier(self) -> Iterator[Event]:
        """Pictures that the decoder of a restored stream has given already and that of the original had not."""
        again, self._again = self._again, []
        yield from self._shown(again)

    def save(self) -> dict[str, Any]:
        """The state, but for the rows of `waiting`, whose order is that of their numbers."""
        return {
            "codec": self._codec,
            "number": self._number,
            "awaiting": self._awaiting,
            "leads": self._leads,
            "sets": self._sets,
            "prefix": self._prefix,
            "reference": self._reference,
            "open": sorted(self._open_entries),
            "kept": np.array([unit.number for unit in self.kept], np.int64),
            "waiting": np.array(sorted(self.waiting), np.int64),
            "data": pa.array([unit.data for unit in self.kept], pa.large_binary()),
        }

    def load(self, state: Mapping[str, Any], rows: pa.RecordBatch, times: Any) -> None:
        """Go on behind a `save`; `rows` (and their event times) are those of what was waiting."""
        self._codec, self._number, self._awaiting = state["codec"], state["number"], state["awaiting"]
        self._sets, self._prefix = state["sets"], state["prefix"]
        self._open_entries = set(state["open"])
        places = {int(number): index for index, number in enumerate(state["waiting"])}
        for number, data in zip(state["kept"].tolist(), state["data"].to_pylist(), strict=True):
            index = places.get(number, -1)
            unit = Unit(number, data, rows if index >= 0 else None, index, int(times[index]) if index >= 0 else 0)
            self.kept.append(unit)
            self.nbytes += len(data)
            if index >= 0:
                self.waiting[number] = unit
        if self.kept:
            self._decoder, self._again, _ = self._started(self.kept)
        self._leads, self._reference = state["leads"], state["reference"]
        self._numbering = numbering_of(self._sets) if self._codec == "h264" else None


def _fed(decoder: Any, unit: Unit) -> list[Any]:
    packet = av_library().Packet(unit.data)
    packet.pts = unit.number
    frames: list[Any] = decoder.decode(packet)
    return frames
