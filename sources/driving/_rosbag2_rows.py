"""Rows of a rosbag2 SQLite file to columns: read where the pipeline asks for it, several blocks at once."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError, MissingExtraError
from ...pipeline.source import Decoded
from ._rosbag2_sqlite import UNREADABLE, Database, RowUnit, connect
from .cdr import MessageDecoder

__all__ = ["RowReader", "payload_of"]

#: Rows whose ids span more than this many times their number are looked up one by one.
_SPREAD = 16
_ZSTD = b"\x28\xb5\x2f\xfd"
QUARANTINED_BYTES = 16 << 20
_STEP = 1 << 20

#: Time and payload of a row, or what is wrong with it.
Row = tuple[int, bytes] | str


class RowReader:
    """Reads and decodes the units of one file. Thread-safe: each thread has a connection while it reads."""

    def __init__(
        self,
        file: Database,
        topics: Iterable[int],
        encoding: str,
        decoder: MessageDecoder,
        limit: int,
        context: Context,
    ) -> None:
        self._file, self._decoder, self._limit, self._context = file, decoder, limit, context
        self._topics, self._encoding = sorted(topics), encoding
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._opened: list[sqlite3.Connection] = []

    def decode(self, unit: RowUnit) -> Decoded:
        ids = unit.ids.tolist()
        rows = self._rows(ids)
        times = np.empty(len(ids), np.int64)
        payloads: list[bytes] = []
        wrong: dict[int, tuple[str, bytes]] = {}
        for i, row in enumerate(rows):
            if isinstance(row, str):
                wrong[i] = row, b""
            else:
                times[i] = row[0]
                try:
                    payloads.append(payload_of(row[1], self._encoding, self._limit))
                    continue
                except FormatError as failure:
                    wrong[i] = str(failure), row[1]
            times[i] = -1  # which no decoder takes
            payloads.append(b"")
        lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
        data = np.frombuffer(b"".join(payloads), np.uint8)
        starts = np.cumsum(lengths) - lengths
        decoded = self._decoder(data, starts, lengths, times, unit.first_seq, self._context.pool)
        if decoded.copied:
            self._context.copied(decoded.copied)
        bad = []
        for i, error in decoded.bad:
            reason, payload = wrong.get(i, (error, payloads[i]))
            operation = "rosbag2.read" if i in wrong else "rosbag2.decode"
            place = f"{self._file.path}, messages row {ids[i]}"
            bad.append(BadRecord(place, operation, reason, payload[:QUARANTINED_BYTES], unit.first_seq + i))
        return Decoded([decoded.batch] if decoded.batch.num_rows else [], bad)

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()

    def _rows(self, ids: list[int]) -> list[Row]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            try:
                connection = connect(self._file.local, self._limit)
            except UNREADABLE as error:
                return [f"SQLite cannot read the file: {error}"] * len(ids)
            self._opened.append(connection)
        try:
            return self._fetch(connection, ids)
        finally:
            self._idle.put(connection)

    def _fetch(self, connection: sqlite3.Connection, ids: list[int]) -> list[Row]:
        low, high = min(ids), max(ids)
        found: dict[int, Row] = {}
        if high - low < _SPREAD * len(ids):
            marks = ", ".join("?" * len(self._topics))
            query = f"SELECT rowid, timestamp, data FROM messages WHERE rowid BETWEEN ? AND ? AND topic_id IN ({marks})"
            try:
                for number, time, data in connection.execute(query, [low, high, *self._topics]):
                    found[number] = _checked(time, data)
            except UNREADABLE:
                found = {}  # one by one, so that the damage costs only the rows it hit
        return [found[number] if number in found else self._one(connection, number) for number in ids]

    def _one(self, connection: sqlite3.Connection, number: int) -> Row:
        try:
            row = connection.execute("SELECT timestamp, data FROM messages WHERE rowid = ?", [number]).fetchone()
        except UNREADABLE as error:
            return f"SQLite cannot read the row: {error}"
        return _checked(*row) if row is not None else "the row is gone; has the file changed since it was opened?"


def _checked(time: Any, data: Any) -> Row:
    if not isinstance(data, bytes):
        return f"its data is of type {type(data).__name__}, not a blob"
    if not isinstance(time, int):
        return f"its timestamp is of type {type(time).__name__}, not an integer"
    return time, data


def payload_of(data: bytes, encoding: str, limit: int) -> bytes:
    """A message as it was before rosbag2 compressed it (mode MESSAGE); no CDR message begins like a zstd frame.

    Raises FormatError if it does not unpack or would take more than `limit` bytes.
    """
    if encoding != "cdr" or not data.startswith(_ZSTD):
        return data
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("reading zstd messages", "zstandard", None) from None
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            unpacked = bytearray()
            while len(unpacked) <= limit and (piece := reader.read(_STEP)):
                unpacked += piece
    except zstandard.ZstdError as error:
        raise FormatError(f"zstd: {error}") from None
    if len(unpacked) > limit:
        raise FormatError(f"the message unpacks to more than max_message_bytes={limit}")
    return bytes(unpacked)
