"""The reader of `cam.encoded`: one row a packet, as it is stored, in Annex-B."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ._video_annexb import to_annex_b
from ._video_clock import VideoClock
from ._video_demux import Demuxer

__all__ = ["QUARANTINED_BYTES", "PacketReader", "number_in"]

#: Bytes of a packet that go to quarantine; its place and size are always told.
QUARANTINED_BYTES = 16 << 20
_BLOCK_BYTES, _BLOCK_PACKETS = 2 << 20, 256


class PacketReader(SourceReader):
    """Reads packets from `position` on."""

    def __init__(
        self,
        demuxer: Demuxer,
        schema: pa.Schema,
        clock: VideoClock,
        names: tuple[str, str],
        context: Context,
        position: Position | None,
    ) -> None:
        self._demuxer, self._columns, self._clock, self._context = demuxer, ColumnLayout(schema), clock, context
        self._names, self._info = names, demuxer.info
        self._position = position or {}

    def blocks(self) -> Iterator[Block]:
        start = number_in(self._position, "packet", self._demuxer.path)
        pos, pts = self._position.get("pos"), self._position.get("pts")
        found: list[tuple[int, Any]] = []
        index = size = 0
        for number, packet in self._demuxer.packets(start, pos=pos, pts=pts):
            if found and (size >= _BLOCK_BYTES or len(found) >= _BLOCK_PACKETS):
                yield Block(index, found[0][0], len(found), size, _place(number, packet), found)
                found, size, index = [], 0, index + 1
            found.append((number, packet))
            size += len(packet) if isinstance(packet, str) else packet.size
        seen = found[-1][0] + 1 if found else start
        missing = max(0, self._info.packets - seen)
        if missing:
            found.append((seen, f"the file ends here, {missing} of its {self._info.packets} packets are missing"))
        if found:
            after = {"packet": seen + missing}
            yield Block(index, found[0][0], len(found) + max(0, missing - 1), size, after, found)

    def decode(self, block: Block) -> Decoded:
        good, bad, times = [], [], []
        for number, packet in block.payload:
            try:
                if isinstance(packet, str):
                    raise ValueError(packet)
                data = self._data(packet)
                times.append(self._clock.ns(number, packet.pts, number))
                good.append((number, packet, data))
            except ValueError as error:
                bad.append(bad_packet(self._demuxer.path, number, packet, f"{error}", "video.read"))
        lost = block.records - len(block.payload)
        return Decoded(
            [self._batch(good, times)] if good else [],
            bad,
            {"packets behind the end of a cut file": lost} if lost else {},
        )

    def close(self) -> None:
        self._demuxer.close()

    def _data(self, packet: Any) -> bytes:
        if packet.is_corrupt:
            raise ValueError("it is cut or damaged, as the container says")
        data = bytes(packet)
        sets = self._info.sets
        if not sets.length_size:
            return data
        return to_annex_b(data, sets, codec=self._info.codec, keyframe=packet.is_keyframe)

    def _batch(self, good: list[tuple[int, Any, bytes]], times: list[int]) -> pa.RecordBatch:
        rows = len(good)
        block = self._columns.take(self._context.pool, rows)
        block["ts_event"][:] = block["ts_recv"][:] = times
        block["seq"][:] = [number for number, _, _ in good]
        block["topic"][:] = block["frame_id"][:] = block["codec"][:] = 0
        block["width"][:], block["height"][:] = self._info.width, self._info.height
        pts = [packet.pts for _, packet, _ in good]
        block["pts"][:] = [value or 0 for value in pts]
        topic, frame_id = self._names
        pieces = [data for _, _, data in good]
        offsets = np.zeros(rows + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
        joined = b"".join(pieces)
        self._context.copied(len(joined))
        data = pa.Array.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(joined)])
        return block.batch(
            rows,
            dictionaries={
                "topic": pa.array([topic]),
                "frame_id": pa.array([frame_id]),
                "codec": pa.array([self._info.codec]),
            },
            columns={"data": data, "keyframe": pa.array([bool(p.is_keyframe) for _, p, _ in good])},
            valid={"pts": np.array([value is not None and self._info.timed for value in pts])},
        )


def bad_packet(path: str, number: int, packet: Any, error: str, operation: str, seq: int | None = None) -> BadRecord:
    """A packet that leaves for quarantine; `packet` is a string where nothing of it could be read."""
    if isinstance(packet, str):
        return BadRecord(f"{path}, packet {number}", operation, error, b"", number if seq is None else seq)
    where = f", byte {packet.pos}" if packet.pos is not None and packet.pos >= 0 else ""
    data = bytes(packet)[:QUARANTINED_BYTES]
    place = f"{path}, packet {number}{where} ({packet.size} bytes)"
    return BadRecord(place, operation, error, data, number if seq is None else seq)


def _place(number: int, packet: Any) -> dict[str, Any]:
    if isinstance(packet, str) or not packet.is_keyframe or packet.pos is None or packet.pts is None:
        return {"packet": number}
    return {"packet": number, "pos": packet.pos, "pts": packet.pts}


def number_in(position: Position, key: str, path: str) -> int:
    """A count that a position holds, 0 where it does not. Raises FormatError for anything else."""
    from ...pipeline.errors import FormatError

    value: Any = position.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FormatError(f"{path}: a position of a video has a count {key!r}, got {value!r}")
    return value
