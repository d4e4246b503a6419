"""A recorded feed read again: the session that served it live makes the same rows of it.

rows = read(sources.Recording("day.mcap"))
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError
from ...pipeline.schema import describe
from ...pipeline.source import Block, Decoded, Position, SourceReader, SourceSpec, Split
from ..driving._mcap_contents import catalog_of
from ..driving._mcap_inspect import time_range
from ..driving._mcap_topic import CHUNK_LIMIT
from ..driving.mcap import Mcap, inspect_mcap
from ..live.arrival import Arrival
from ..live.session import Codec, Framed, check_codec
from ..storage.stored import PathLike, base_name, location

if TYPE_CHECKING:
    from ..driving._mcap_catalog import Catalog, Piece
    from ..driving._mcap_raw import MessageBlock

__all__ = ["Recording", "described", "inspect_recording", "is_recording", "open_recording", "recorded_arrivals"]

_PROFILE = b"penstock"


@dataclass(frozen=True)
class Recording(SourceSpec):
    """What `Live(record=...)` or ``penstock record`` has written, as rows.

    `codec` makes them; None: the one that the recording names (that of the live source, or `RawMessages`). ``ts_recv`` is
    when each message came. A damaged part of the file is a bad record. Resuming reads the recording from its beginning,
    since what a session knows depends on all that came before. Raises FormatError if it is no recording.
    """

    format: ClassVar[str] = "recording"
    path: PathLike
    codec: Codec | None = None
    lateness: Duration = "0s"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.codec is not None:
            check_codec(self.codec, "Recording")
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return base_name(self.path)

    @property
    def schema(self) -> pa.Schema:
        return self._codec().schema(self.name)

    def _codec(self) -> Codec:
        from ..live.codecs import codec_named

        if self.codec is not None:
            return self.codec
        told = described(location(self.path))
        return codec_named(told["codec"], json.loads(told.get("options", "{}")))

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        return _Reader(location(self.path), self._codec(), context, int((position or {}).get("blocks", 0)))


def described(path: str) -> Mapping[str, str]:
    """Feed, codec and options of a recording, from its channels."""
    channels = catalog_of(path, CHUNK_LIMIT).channels.values()
    told = next((dict(channel.metadata) for channel in channels if channel.metadata), None)
    if told is None or "codec" not in told:
        raise FormatError(f"{path} is an MCAP file, but no recording of a feed; read it with sources.Mcap")
    return told


class _Reader(SourceReader):
    def __init__(self, path: str, codec: Codec, context: Context, skip: int) -> None:
        self._path, self._skip = path, skip
        self._session = codec.open(context, base_name(path), None)

    def blocks(self) -> Iterator[Block]:
        seq = 0
        for index, (framed, bad) in enumerate(self._framed()):
            first = seq if framed is None else self._first
            records = 0 if framed is None else framed.records
            seq = first + records
            if index >= self._skip:
                size = framed.nbytes if framed is not None else len(bad[0].data)
                yield Block(index, first, records, size, {"blocks": index + 1}, (framed, bad))

    def _framed(self) -> Iterator[tuple[Framed | None, list[BadRecord]]]:
        self._first = seq = 0
        for block, arrivals in recorded_arrivals(self._path):
            bad = [BadRecord(f"{self._path}, byte {block.place}", "mcap.read", block.error, b"")] if block.error else []
            framed = self._session.take(arrivals, seq) if arrivals else None
            self._first = seq
            seq += framed.records if framed is not None else 0
            if framed is not None or bad:
                yield framed, bad
        last = self._session.finish(seq)
        if last is not None:
            self._first = seq
            yield last, []

    def decode(self, block: Block) -> Decoded:
        framed, bad = block.payload
        if framed is None:
            return Decoded((), bad)
        decoded = self._session.decode(framed.payload, block.first_seq)
        dropped = dict(decoded.dropped)
        for reason, count in framed.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        return Decoded(decoded.batches, [*bad, *framed.noticed, *decoded.bad], dropped)


def recorded_arrivals(path: str) -> Iterator[tuple[MessageBlock, list[Arrival]]]:
    """Everything that arrived, in order, a chunk of the recording at a time."""
    for block in Mcap(path).messages():
        lines = {number: _line(dict(channel.metadata)) for number, channel in block.channels.items()}
        arrivals = []
        for i, (time, number) in enumerate(zip(block.log_time.tolist(), block.channel.tolist(), strict=True)):
            line, channel, is_event = lines.get(number, (0, 0, False))
            data = block.payload(i)
            if is_event:
                arrivals.append(Arrival(time, b"", line, channel, data.decode("utf-8", "replace")))
            else:
                arrivals.append(Arrival(time, data, line, channel))
        yield block, arrivals


def _line(metadata: Mapping[str, str]) -> tuple[int, int, bool]:
    numbers = [metadata.get(key, "0") for key in ("line", "channel")]
    line, channel = (int(text) if text.isdigit() and len(text) < 6 else 0 for text in numbers)
    return line, channel, bool(metadata.get("events"))


def is_recording(head: bytes) -> bool:
    """Whether a file that begins with `head` is a recorded feed."""
    return head[:9] == b"\x89MCAP0\r\n\x01" and head[17:29] == len(_PROFILE).to_bytes(4, "little") + _PROFILE


def inspect_recording(path: PathLike) -> dict[str, Any]:
    """What a recording holds: as `inspect_mcap`, with ``feed``, ``codec`` and ``events`` (what happened to the connection,
    which neither ``messages`` counts nor ``time`` spans: a stamped message may be years older than its connection)."""
    place = location(path)
    told = described(place)
    found = inspect_mcap(place)
    catalog = catalog_of(place, CHUNK_LIMIT)
    events = _event_channels(catalog)
    count = sum(catalog.counts.get(channel, 0) for channel in events)
    lines = _lines(found.pop("topics"), catalog, events)
    try:
        schema, problem = describe(Recording(place).schema), found["problem"]
    except FormatError as error:
        schema, problem = "", found["problem"] or str(error)
    return {
        **found,
        "format": "recording",
        "feed": told.get("feed", ""),
        "codec": told["codec"],
        "messages": found["messages"] - count,
        "events": count,
        "types": lines,
        "time": _time_of_messages(catalog) if count else found["time"],
        "schema": schema,
        "problem": problem,
        "hint": _codecs() if told["codec"] == "raw" else None,
    }


def _lines(topics: Mapping[str, Any], catalog: Catalog, events: Collection[int]) -> dict[str, int]:
    """Messages by line of the feed."""
    apart = {catalog.channels[channel].topic for channel in events}
    return {name: topic["messages"] for name, topic in topics.items() if name not in apart}


def _event_channels(catalog: Catalog) -> set[int]:
    return {channel.id for channel in catalog.channels.values() if dict(channel.metadata).get("events")}


def _time_of_messages(catalog: Catalog) -> dict[str, Any] | None:
    """First and last message. Chunks that hold events are unpacked, of the others the summary knows."""
    from ..driving._mcap_raw import raw_blocks

    events = _event_channels(catalog)
    unpacked: list[Piece] = []
    times: list[int] = []
    for piece in catalog.pieces:
        if piece.times is None or piece.indexes is None or events & set(piece.indexes):
            unpacked.append(piece)
        elif piece.indexes:
            times += piece.times
    for block in raw_blocks(replace(catalog, pieces=tuple(unpacked)), CHUNK_LIMIT):
        heard = block.log_time[~np.isin(block.channel, sorted(events))]
        if len(heard):
            times += [int(heard.min()), int(heard.max())]
    return time_range(min(times), max(times)) if times else None


def _codecs() -> str:
    from ..live.codecs import codec_classes

    names = ", ".join(f"sources.{kind}" for kind in codec_classes() if kind != "RawMessages")
    return f"these are messages as they came; codec=sources.SlippiEvents() or another makes rows of them: {names}"


def open_recording(path: PathLike, **options: Any) -> Recording:
    """The recording as a source."""
    return Recording(path, **options)
