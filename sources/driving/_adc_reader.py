"""The reader of raw radar cubes: frames are read whole and put in the order of the cube where blocks are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import nanoseconds
from ...pipeline.errors import FormatError
from ...pipeline.memory import Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed

if TYPE_CHECKING:
    from .adc import Adc

__all__ = ["BLOCK_BYTES", "AdcReader"]

BLOCK_BYTES = 4 << 20
#: Bytes of a cut frame that go to quarantine; its place and size are always told.
_QUARANTINED = 16 << 20
_INT64 = 1 << 63


@dataclass(slots=True)
class _Frames:
    first: int
    count: int
    lease: Lease
    rest: int
    error: str


class AdcReader(SourceReader):
    """Reads whole frames from `position` on."""

    def __init__(self, feed: Feed, spec: Adc, context: Context, position: Position) -> None:
        self._feed, self._spec, self._context = feed, spec, context
        self._columns = ColumnLayout(spec.schema)
        self._start, self._period = int(spec.start or 0), nanoseconds(spec.frame_period)
        first: Any = position.get("frame", 0)
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            raise FormatError(f"{spec.path}: a position of a raw recording has a count 'frame', got {first!r}")
        self._first = first
        self._each = max(1, BLOCK_BYTES // spec.frame_bytes)

    def blocks(self) -> Iterator[Block]:
        size, index, frame = self._spec.frame_bytes, 0, self._first
        if frame:
            self._feed.seek(frame * size)
        while True:
            lease = self._context.pool.take(self._each * size)
            got = self._feed.fill(lease.array(np.uint8, self._each * size).data)
            count, rest = divmod(got, size)
            error = self._feed.error or ""
            records = count + bool(rest or error)
            if records:
                after = {"frame": frame + records}
                yield Block(index, frame, records, got, after, _Frames(frame, count, lease, rest, error))
            if got < self._each * size:
                return
            index, frame = index + 1, frame + count

    def decode(self, block: Block) -> Decoded:
        found: _Frames = block.payload
        spec, batches = self._spec, []
        raw = found.lease.array(np.int16, (found.count, spec.frame_bytes // 2))
        kept = self._kept(found)
        if kept:
            out = self._columns.take(self._context.pool, kept)
            frames = np.arange(found.first, found.first + kept)
            out["ts_event"][:] = out["ts_recv"][:] = self._start + frames * self._period
            out["seq"][:] = out["frame"][:] = frames
            arrange(raw[:kept], out["cube"], spec.interleave, offset_binary=spec.offset_binary)
            self._context.copied(kept * spec.frame_bytes)
            batches = [out.batch(kept)]
        bad = [
            self._bad(found, i, raw[i].tobytes(), "its number or time is beyond what the columns hold")
            for i in range(kept, found.count)
        ]
        if found.rest or found.error:
            at = found.count * spec.frame_bytes
            data = found.lease.array(np.uint8, min(found.rest, _QUARANTINED), at).tobytes()
            cut = f"a frame has {spec.frame_bytes} bytes, the last one {found.rest}: the recording was cut"
            bad.append(self._bad(found, found.count, data, found.error or cut))
        return Decoded(batches, bad)

    def close(self) -> None:
        self._feed.close()

    def _kept(self, found: _Frames) -> int:
        """How many frames have a number of 32 bits and a time of 64."""
        times = (_INT64 - 1 - max(0, self._start)) // self._period + 1
        return max(0, min(found.count, min(1 << 32, times) - found.first))

    def _bad(self, found: _Frames, i: int, data: bytes, error: str) -> BadRecord:
        number = found.first + i
        place = f"{self._spec.path}, frame {number}, byte {number * self._spec.frame_bytes}"
        return BadRecord(place, "adc.decode", error, data, number)


def arrange(raw: npt.NDArray[Any], cube: npt.NDArray[Any], interleave: str, *, offset_binary: bool) -> None:
    """Put the numbers of `raw`, one frame a row, into `cube` ``(frames, chirps, samples, rx, 2)``."""
    frames, chirps, samples, rx, _ = cube.shape
    if interleave == "iiqq":
        pairs = raw.reshape(frames, chirps, rx, samples // 2, 2, 2)  # ..., I or Q, first or second sample
        target = cube.reshape(frames, chirps, samples // 2, 2, rx, 2)
        target[...] = pairs.transpose(0, 1, 3, 5, 2, 4)
    elif interleave == "lanes4":
        cube[...] = raw.reshape(frames, chirps, samples, 2, rx).swapaxes(3, 4)
    else:
        cube[...] = raw.reshape(cube.shape)
    if offset_binary:
        unsigned = cube.view(np.uint16)
        np.bitwise_xor(unsigned, np.uint16(0x8000), out=unsigned)
