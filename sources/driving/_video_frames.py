"""The reader of `cam.frame`: pictures are decoded in order while framing, and turned into RGB where blocks are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnBlock, ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Decoded, SourceReader
from ..storage.reread import picked
from ._video_clock import VideoClock
from ._video_decode import NO_PICTURE, Bad, Lost, Picture, Pictures
from ._video_demux import av_library
from ._video_packets import bad_packet

__all__ = ["BLOCK_BYTES", "FrameReader"]

#: Bytes of RGB pictures in a block: what is decoded at once, and what a batch is at least.
BLOCK_BYTES = 8 << 20
_BLOCK_RECORDS = 256


@dataclass(slots=True)
class _Row:
    seq: int
    picture: Picture


class FrameReader(SourceReader):
    """Reads the pictures that `pictures` gives from its position on, `width` x `height` pixels each."""

    def __init__(
        self,
        pictures: Pictures,
        schema: pa.Schema,
        clock: VideoClock,
        names: tuple[str, str],
        size: tuple[int, int],
        *,
        resize: bool,
        context: Context,
    ) -> None:
        self._pictures, self._columns, self._clock, self._context = pictures, ColumnLayout(schema), clock, context
        self._names, self._size, self._resize = names, size, resize
        self._most = max(1, BLOCK_BYTES // (3 * size[0] * size[1]))

    def blocks(self) -> Iterator[Block]:
        state = self._pictures.state
        first, rows, bad, dropped = state.seq, list[_Row](), list[BadRecord](), dict[str, int]()
        index = seen = 0
        for event in self._pictures.events():
            if isinstance(event, Picture):
                rows.append(_Row(state.seq - 1, event))
                if event.lost:
                    dropped[NO_PICTURE] = dropped.get(NO_PICTURE, 0) + event.lost
            elif isinstance(event, Lost):
                dropped[event.reason] = dropped.get(event.reason, 0) + event.count
            else:
                bad.append(self._bad(event, state.seq))
                if event.lost:
                    reason = "packets lost with a damaged one"
                    dropped[reason] = dropped.get(reason, 0) + event.lost
            seen += 1
            if len(rows) >= self._most or seen >= _BLOCK_RECORDS:
                yield self._block(index, first, state.seq, rows, bad, dropped, state.save())
                first, rows, bad, dropped = state.seq, [], [], {}
                index, seen = index + 1, 0
        if seen:
            yield self._block(index, first, state.seq, rows, bad, dropped, state.save())

    def decode(self, block: Block) -> Decoded:
        rows, bad, dropped = block.payload
        kept, times, wrong = [], [], list(bad)
        for row in rows:
            try:
                times.append(self._clock.ns(row.picture.sent.number, row.picture.sent.pts, row.seq))
            except ValueError as error:
                wrong.append(self._unusable(row, str(error)))
                continue
            kept.append(row)
        batches = []
        if kept:
            out = self._columns.take(self._context.pool, len(kept))
            good = self._convert(kept, out["image"], wrong)
            batches = self._batches(kept, times, out, good)
        return Decoded(batches, sorted(wrong, key=lambda record: record.seq or 0), dropped)

    def reread(self, number: int, seq: int) -> Decoded | None:
        """The picture of packet `number`, numbered `seq`, or what is wrong with that packet; None if it has none."""
        for event in self._pictures.events():
            place = self._pictures.state.seq - 1
            if isinstance(event, Picture) and event.sent.number == number:
                found = self.decode(self._block(0, place, place + 1, [_Row(place, event)], [], {}, {}))
                return picked(found, {place: seq})
            if isinstance(event, Bad) and event.number == number:
                return Decoded((), [self._bad(event, place + 1)])
        return None

    def close(self) -> None:
        self._pictures.close()

    def _block(
        self,
        index: int,
        first: int,
        seq: int,
        rows: list[_Row],
        bad: list[BadRecord],
        dropped: dict[str, int],
        after: dict[str, Any],
    ) -> Block:
        size = len(rows) * 3 * self._size[0] * self._size[1]
        return Block(index, first, seq - first, size, after, (rows, bad, dropped))

    def _bad(self, event: Bad, after: int) -> BadRecord:
        return bad_packet(self._pictures.path, event.number, event.packet, event.error, "video.decode", after - 1)

    def _unusable(self, row: _Row, error: str) -> BadRecord:
        sent = row.picture.sent
        where = f", byte {sent.pos}" if sent.pos is not None and sent.pos >= 0 else ""
        return BadRecord(f"{self._pictures.path}, packet {sent.number}{where}", "video.decode", error, b"", row.seq)

    def _convert(self, rows: list[_Row], images: Any, wrong: list[BadRecord]) -> list[int]:
        """Fill `images` with RGB; returns the rows that could be."""
        av, (width, height) = av_library(), self._size
        scaler, good = av.video.reformatter.VideoReformatter(), list[int]()
        for i, row in enumerate(rows):
            frame = row.picture.frame
            if not self._resize and (frame.width, frame.height) != (width, height):
                found = f"{frame.width} x {frame.height} in a stream of {width} x {height}"
                wrong.append(
                    self._unusable(row, f"a picture of {found}: give height= and width= to scale all to one size")
                )
                continue
            try:
                rgb = scaler.reformat(frame, width, height, "rgb24")
            except (av.FFmpegError, ValueError) as error:
                wrong.append(self._unusable(row, f"cannot be turned into RGB: {error}"))
                continue
            plane = rgb.planes[0]
            lines = np.frombuffer(plane, np.uint8)[: height * plane.line_size].reshape(height, plane.line_size)
            images[i] = lines[:, : width * 3].reshape(height, width, 3)
            row.picture.frame = None
            good.append(i)
        self._context.copied(len(good) * 3 * width * height)
        return good

    def _batches(self, rows: list[_Row], times: list[int], out: ColumnBlock, good: list[int]) -> list[pa.RecordBatch]:
        topic, frame_id = self._names
        out["ts_event"][:] = out["ts_recv"][:] = times
        out["seq"][:] = [row.seq for row in rows]
        out["topic"][:] = out["frame_id"][:] = 0
        pts = [row.picture.sent.pts for row in rows]
        out["pts"][:] = [value or 0 for value in pts]
        known = np.array([value is not None and self._clock.timed for value in pts])
        dictionaries = {"topic": pa.array([topic]), "frame_id": pa.array([frame_id])}
        if len(good) == len(rows):
            return [out.batch(len(rows), dictionaries=dictionaries, valid={"pts": known})]
        return [out.batch(1, dictionaries=dictionaries, valid={"pts": known}, start=i) for i in good]
