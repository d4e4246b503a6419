"""Databento DBN files as their records, behind the file's header on every connection.

A message is one record, at the capture server's time where the record has one, else at the venue's: the order of DBN files.
Over TCP without stamps a receiver gets what the file holds, so that any DBN decoder can follow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...pipeline.memory import BufferPool
from ..market._dbn_file import Opened, look, open_records
from ..market._dbn_layout import SCHEMAS, UNDEF_TIME, family_of, record_layout, rtype_name
from ._decoded import count
from .dbn_header import header_of, merged_header
from .message import Message, Playable

__all__ = ["dbn_playable"]

_NO_OFFSET = 0xFFFFFFFF
_EVENT = 8
_UNSOUND = "records that are damaged"
#: Channel of the header where messages are stamped.
HEADER_CHANNEL = 1


def dbn_playable(path: str, *, schema: str | None = None, version: int | None = None, ts_out: bool = False) -> Playable:
    """The records of `path`. A fragment without a header needs `schema` and `version`, and goes out behind one."""
    opened = look(path, version, ts_out=ts_out)
    known, skipped = opened.metadata, dict[str, int]()
    header = header_of(path, opened, schema)
    return Playable(
        partial(_records, path, opened, skipped),
        framing="bytes",
        greeting=Message(known.start or 0, header, HEADER_CHANNEL),
        note=f"DBN records (version {known.version}) on channel 0, behind the header ({len(header)} bytes) on channel 1",
        merge=_merged,
        skipped=skipped,
    )


def _merged(greetings: Sequence[Message]) -> Message:
    header = merged_header([greeting.data for greeting in greetings])
    return Message(min(greeting.ts_ns for greeting in greetings), header, HEADER_CHANNEL)


def _records(path: str, opened: Opened, skipped: dict[str, int]) -> Iterator[Message]:
    from ..market._dbn_reader import Framer

    metadata = opened.metadata
    places = received_at(metadata.version, ts_out=metadata.ts_out)
    latest = metadata.start or 0
    feed = open_records(path, opened)
    try:
        for _, piece in Framer(feed, metadata, BufferPool()).pieces():
            if len(piece.bad):
                count(skipped, _UNSOUND, len(piece.bad))
            if piece.note is not None:
                skipped["parts of the file could not be read"] = 1
            offsets = piece.offsets[: piece.count]
            offsets = offsets[offsets != _NO_OFFSET].astype(np.int64)
            for low in range(0, len(offsets), 1024):
                here = offsets[low : low + 1024]
                for at, ts_ns in zip(here.tolist(), _times(piece.data, here, places), strict=True):
                    latest = ts_ns if 0 < ts_ns < 1 << 63 else latest
                    yield Message(latest, piece.data[at : at + 4 * int(piece.data[at])].tobytes())
    finally:
        feed.close()


def received_at(version: int, *, ts_out: bool) -> Any:
    """Where each record type has `ts_recv`, by its code; where it has none, where `ts_event` is."""
    places = np.full(256, _EVENT, np.int64)
    for code in range(256):
        name = rtype_name(code)
        if name in SCHEMAS:
            fields: Any = record_layout(family_of(name), version, ts_out=ts_out).fields
            if "ts_recv" in fields:
                places[code] = fields["ts_recv"][1]
    return places


def _times(data: Any, offsets: Any, places: Any) -> list[int]:
    """The times of the records at `offsets`, in ns."""
    found = _numbers(data, offsets + places[data[offsets + 1]])
    unknown = found == UNDEF_TIME
    if unknown.any():
        found[unknown] = _numbers(data, offsets[unknown] + _EVENT)
    times: list[int] = found.tolist()
    return times


def _numbers(data: Any, at: Any) -> Any:
    return np.ascontiguousarray(data[at[:, None] + np.arange(8)]).view("<u8")[:, 0]
