"""The reader of one topic of an MCAP file or ROS 1 bag: units in order, unpacked and decoded where the pipeline asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ...pipeline.source import Block, Decoded, Position, SourceReader, Split
from ._mcap_catalog import BROKEN, CHUNKED
from ._mcap_chunk import Loaded, RecordFile
from ._mcap_contents import Contents, Unit
from ._mcap_framing import Framing, McapFraming
from .cdr import MessageDecoder

__all__ = ["McapReader", "retry_message"]

#: Bytes of an unreadable piece that go to quarantine; its place and size are always told.
QUARANTINED_BYTES = 16 << 20
#: Damaged places of one piece that are told of.
_GAPS = 1000


class McapReader(SourceReader):
    """Reads the units of `contents` from `position` on, within `split`, as `framing` finds messages in them."""

    def __init__(
        self,
        contents: Contents,
        decoder: MessageDecoder,
        limit: int,
        context: Context,
        split: Split | None,
        position: Position | None,
        framing: Framing | None = None,
    ) -> None:
        self._decoder, self._limit, self._context = decoder, limit, context
        self._units = _selected(contents, split, position)
        self._channels = [channel.id for channel in contents.channels]
        self._framing = framing or McapFraming()
        self._file = RecordFile(contents.catalog.path)

    def blocks(self) -> Iterator[Block]:
        for index, unit in enumerate(self._units):
            piece = unit.piece
            after = {"offset": piece.end, "seq": unit.first_seq + unit.records}
            yield Block(index, unit.first_seq, unit.records, piece.length, after, unit)

    def decode(self, block: Block) -> Decoded:
        unit: Unit = block.payload
        piece = unit.piece
        if piece.kind == BROKEN:
            return self._lost(unit, piece.error)
        try:
            loaded = self._file.load(piece.offset, piece.length, self._context.pool)
            records, wrong = loaded, ""
            if piece.kind == CHUNKED:
                records, wrong = self._framing.unpack(loaded, self._limit, self._context.pool, piece.size)
        except FormatError as error:
            return self._lost(unit, str(error))
        decoded = self._messages(unit, records)
        if not wrong:
            return decoded
        place = f"{self._file.path}, byte {piece.offset} ({piece.length} bytes)"
        tail = loaded.data[-QUARANTINED_BYTES:].tobytes()
        told = BadRecord(place, self._read, wrong, tail, None)
        return Decoded(decoded.batches, [*decoded.bad, told], decoded.dropped)

    @property
    def _read(self) -> str:
        return f"{self._framing.operation}.read"

    def close(self) -> None:
        self._file.close()

    def _messages(self, unit: Unit, records: Loaded) -> Decoded:
        data, piece = records.data, unit.piece
        found = self._framing.find(data, self._channels)
        starts, lengths, log_times, gaps = found.starts, found.lengths, found.log_times, found.gaps
        count = len(starts)
        told = min(count, unit.messages)
        decoded = self._decoder(
            data, starts[:told], lengths[:told], log_times[:told], unit.first_seq, self._context.pool
        )
        if decoded.copied:
            self._context.copied(decoded.copied)

        def message(i: int, error: str, seq: int | None) -> BadRecord:
            start = int(starts[i])
            payload = data[start : start + int(lengths[i])].tobytes()
            return BadRecord(self._place(unit, start), f"{self._framing.operation}.decode", error, payload, seq)

        bad = [message(i, error, unit.first_seq + i) for i, error in decoded.bad]
        dropped: dict[str, int] = {}
        missing = unit.records - told
        if missing:
            end = int(gaps[0, 0]) if len(gaps) else len(data)
            stop = int(gaps[0, 1]) if len(gaps) else len(data)
            error = piece.error or (
                f"its records break off at byte {end} of {len(data)}"
                if len(gaps)
                else f"it holds {count} messages of the topic, its message index lists {unit.messages}"
            )
            rest = data[end : min(stop, end + QUARANTINED_BYTES)].tobytes()
            error += _loss(missing)
            bad.append(BadRecord(self._place(unit, end), self._read, error, rest, unit.first_seq + told))
            dropped = _dropped(missing)
        bad += [
            BadRecord(
                self._place(unit, int(start)),
                self._read,
                f"{stop - start} bytes at byte {start} of {len(data)} belong to no record",
                data[start : min(stop, start + QUARANTINED_BYTES)].tobytes(),
                None,
            )
            for start, stop in gaps[1 if missing else 0 : _GAPS].tolist()
        ]
        bad += [message(i, "the message index does not list it", None) for i in range(told, count)]
        return Decoded([decoded.batch] if decoded.batch.num_rows else [], bad, dropped)

    def _lost(self, unit: Unit, error: str) -> Decoded:
        piece = unit.piece
        payload = self._file.read(piece.offset, min(piece.length, QUARANTINED_BYTES))
        place = f"{self._file.path}, byte {piece.offset} ({piece.length} bytes)"
        record = BadRecord(place, self._read, error + _loss(unit.records), payload, unit.first_seq)
        return Decoded([], [record], _dropped(unit.records))

    def _place(self, unit: Unit, offset: int) -> str:
        if unit.piece.kind == CHUNKED:
            return f"{self._file.path}, chunk at byte {unit.piece.offset}, offset {offset}"
        return f"{self._file.path}, byte {unit.piece.offset + offset}"


def retry_message(record: BadRecord, decoder: MessageDecoder) -> Decoded | None:
    """Decode a quarantined message on its own; None if nothing in it says when it was."""
    data = np.frombuffer(record.data + bytes(64), np.uint8)
    one, size = np.zeros(1, np.int64), np.array([len(record.data)], np.int64)
    found = decoder(data, one, size, one, record.seq or 0, BufferPool())
    bad = [BadRecord(record.place, record.operation, error, record.data, record.seq) for _, error in found.bad]
    if bad:
        return Decoded((), bad)
    if not found.batch.num_rows or found.batch.column("ts_event")[0].value == 0:
        return None
    columns = dict(zip(found.batch.schema.names, found.batch.columns, strict=True))
    columns["ts_recv"] = pa.nulls(1, columns["ts_recv"].type)
    columns["seq"] = pa.array([record.seq], pa.uint64())
    return Decoded([pa.RecordBatch.from_pydict(columns)], bad)


def _loss(records: int) -> str:
    return f"; {records} messages of the topic are lost with it" if records > 1 else ""


def _dropped(records: int) -> dict[str, int]:
    """One bad record stands for what is lost; the others are counted, so that rows, bad and dropped add up."""
    return {"in a damaged part of the file": records - 1} if records > 1 else {}


def _selected(contents: Contents, split: Split | None, position: Position | None) -> list[Unit]:
    units = list(contents.units)
    if split is not None and split.detail:
        units = units[_number(split.detail, "start") : _number(split.detail, "stop")]
    if position:
        offset, seq = _number(position, "offset"), _number(position, "seq")
        done = [unit for unit in units if unit.first_seq < seq]
        last = done[-1] if done else None
        if last is not None and (last.first_seq + last.records != seq or last.piece.end != offset):
            raise FormatError(
                f"{contents.catalog.path}: the position {dict(position)} is not one of this recording; "
                "has the file changed since the checkpoint?"
            )
        units = units[len(done) :]
    return units


def _number(values: Position, key: str) -> int:
    value: Any = values.get(key)
    if not isinstance(value, int):
        raise FormatError(f"a position or split of a topic has an integer {key!r}, got {value!r}")
    return value
