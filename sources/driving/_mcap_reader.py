"""The reader of one MCAP topic: units in order, unpacked and decoded where the pipeline asks for it."""

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
from ._mcap_chunk import Loaded, RecordFile, unpack
from ._mcap_contents import Contents, Unit
from ._mcap_kernels import count_messages, find_messages
from .cdr import MessageDecoder

__all__ = ["McapReader", "retry_message"]

#: Bytes of an unreadable piece that go to quarantine; its place and size are always told.
QUARANTINED_BYTES = 16 << 20


class McapReader(SourceReader):
    """Reads the units of `contents` from `position` on, within `split`."""

    def __init__(
        self,
        contents: Contents,
        decoder: MessageDecoder,
        limit: int,
        context: Context,
        split: Split | None,
        position: Position | None,
    ) -> None:
        self._decoder, self._limit, self._context = decoder, limit, context
        self._units = _selected(contents, split, position)
        self._wanted = np.zeros(1 << 16, np.uint8)
        self._wanted[[channel.id for channel in contents.channels]] = 1
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
            records = loaded
            if piece.kind == CHUNKED:
                records = unpack(loaded, self._limit, self._context.pool, piece.size)
        except FormatError as error:
            return self._lost(unit, str(error))
        return self._messages(unit, records)

    def close(self) -> None:
        self._file.close()

    def _messages(self, unit: Unit, records: Loaded) -> Decoded:
        data, piece = records.data, unit.piece
        count, end = count_messages(data, len(data), self._wanted)
        starts, lengths, log_times = np.empty((3, count), np.int64)
        find_messages(data, end, self._wanted, starts, lengths, log_times)
        told = min(count, unit.messages)
        decoded = self._decoder(
            data, starts[:told], lengths[:told], log_times[:told], unit.first_seq, self._context.pool
        )
        if decoded.copied:
            self._context.copied(decoded.copied)

        def message(i: int, error: str, seq: int | None) -> BadRecord:
            start = int(starts[i])
            payload = data[start : start + int(lengths[i])].tobytes()
            return BadRecord(self._place(unit, start), "mcap.decode", error, payload, seq)

        bad = [message(i, error, unit.first_seq + i) for i, error in decoded.bad]
        dropped: dict[str, int] = {}
        missing = unit.records - told
        if missing:
            error = piece.error or (
                f"its records break off at byte {end} of {len(data)}"
                if end < len(data)
                else f"it holds {count} messages of the topic, its message index lists {unit.messages}"
            )
            rest = data[end : end + QUARANTINED_BYTES].tobytes()
            error += _loss(missing)
            bad.append(BadRecord(self._place(unit, end), "mcap.read", error, rest, unit.first_seq + told))
            dropped = _dropped(missing)
        bad += [message(i, "the message index does not list it", None) for i in range(told, count)]
        return Decoded([decoded.batch] if decoded.batch.num_rows else [], bad, dropped)

    def _lost(self, unit: Unit, error: str) -> Decoded:
        piece = unit.piece
        payload = self._file.read(piece.offset, min(piece.length, QUARANTINED_BYTES))
        place = f"{self._file.path}, byte {piece.offset} ({piece.length} bytes)"
        record = BadRecord(place, "mcap.read", error + _loss(unit.records), payload, unit.first_seq)
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
        start, stop = _number(split.detail, "start"), _number(split.detail, "stop")
        units = [unit for unit in units if start <= unit.piece.offset < stop]
    if position:
        offset, seq = _number(position, "offset"), _number(position, "seq")
        left = [unit for unit in units if unit.first_seq >= seq]
        if any(unit.piece.offset < offset for unit in left) or (left and left[0].first_seq != seq):
            raise FormatError(
                f"{contents.catalog.path}: the position {dict(position)} is not one of this recording; "
                "has the file changed since the checkpoint?"
            )
        units = left
    return units


def _number(values: Position, key: str) -> int:
    value: Any = values.get(key)
    if not isinstance(value, int):
        raise FormatError(f"a position or split of an MCAP topic has an integer {key!r}, got {value!r}")
    return value
