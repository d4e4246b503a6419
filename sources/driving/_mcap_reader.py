"""The reader of one topic of an MCAP file or ROS 1 bag: units in order, unpacked and decoded where the pipeline asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ...pipeline.source import Block, Decoded, Position, SourceReader, Split
from ._mcap_catalog import BROKEN, CHUNKED
from ._mcap_chunk import Loaded, RecordFile
from ._mcap_contents import Contents, Unit, joined
from ._mcap_framing import Framing, McapFraming
from ._mcap_run import MessageRun, Part
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
        for index, run in enumerate(joined(self._units)):
            first, last = run[0].first_seq, run[-1]
            end = last.first_seq + last.records
            nbytes = sum(unit.piece.length for unit in run)
            yield Block(index, first, end - first, nbytes, {"offset": last.piece.end, "seq": end}, run)

    def decode(self, block: Block) -> Decoded:
        return self.decode_units(block.payload)

    def decode_units(self, units: Sequence[Unit]) -> Decoded:
        """What some units hold that follow one another."""
        made = MessageRun(self._decoder, self._framing.operation, self._context)
        for unit in units:
            self._unit(unit, made)
        return made.end()

    def _unit(self, unit: Unit, made: MessageRun) -> None:
        piece = unit.piece
        if piece.kind == BROKEN:
            return self._lost(unit, piece.error, made)
        try:
            loaded = self._file.load(piece.offset, piece.length, self._context.pool)
            records, wrong = loaded, ""
            if piece.kind == CHUNKED:
                records, wrong = self._framing.unpack(loaded, self._limit, self._context.pool, piece.size)
        except FormatError as error:
            return self._lost(unit, str(error), made)
        self._messages(unit, records, made)
        if wrong:
            place = f"{self._file.path}, byte {piece.offset} ({piece.length} bytes)"
            made.tell([BadRecord(place, self._read, wrong, loaded.data[-QUARANTINED_BYTES:].tobytes(), None)])
        return None

    @property
    def _read(self) -> str:
        return f"{self._framing.operation}.read"

    def close(self) -> None:
        self._file.close()

    def _messages(self, unit: Unit, records: Loaded, made: MessageRun) -> None:
        data, piece = records.data, unit.piece
        found = self._framing.find(data, self._channels)
        starts, gaps = found.starts, found.gaps
        count = len(starts)
        told = min(count, unit.messages)
        part = Part(records, starts, found.lengths, found.log_times, told, unit.first_seq, partial(self._place, unit))
        made.add(part)
        bad: list[BadRecord] = []
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
            made.drop(missing - 1)
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
        operation = f"{self._framing.operation}.decode"
        bad += [part.message(i, operation, "the message index does not list it", None) for i in range(told, count)]
        made.tell(bad)

    def _lost(self, unit: Unit, error: str, made: MessageRun) -> None:
        piece = unit.piece
        payload = self._file.read(piece.offset, min(piece.length, QUARANTINED_BYTES))
        place = f"{self._file.path}, byte {piece.offset} ({piece.length} bytes)"
        made.tell([BadRecord(place, self._read, error + _loss(unit.records), payload, unit.first_seq)])
        made.drop(unit.records - 1)

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
