"""How recordings of each format become messages again."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...pipeline.columns import as_numpy
from ...pipeline.context import Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ..formats import format_of
from ..live.stamp import split_text
from ..storage.stored import location
from ..storage.unpack import head_of, open_feed
from .message import Message, Playable

__all__ = ["playable_of"]

_DATAGRAM = 1_400
_PIECE = 1 << 18


def playable_of(path: str, **options: Any) -> Playable:
    """The recording at `path`, by its content. Raises FormatError if its format cannot be replayed."""
    place = location(path)
    known = format_of(place)
    make = _FORMATS.get(known.name)
    if make is None:
        raise FormatError(f"{place}: {known.name} cannot be replayed yet; what can: {', '.join(_FORMATS)}")
    return make(place, **options)


def _ndjson(path: str, **options: Any) -> Playable:
    from ..text._ndjson_inspect import find_time
    from ..text.ndjson import Ndjson

    time, unit = (options.pop("time"), options.pop("time_unit", "ns")) if "time" in options else find_time(path)
    if time is None:
        raise FormatError(
            f"{path}: no key of the first lines looks like a time; name it with --time KEY --time-unit ns"
        )
    spec = Ndjson(path, columns={}, time=time, time_unit=unit, **options)

    def messages() -> Iterator[Message]:
        reader = spec.open(Context("replay"))
        latest: int | None = None
        try:
            for block in reader.blocks():
                times = np.full(block.records, -1, np.int64)
                for batch in reader.decode(block).batches:
                    times[as_numpy(batch.column("seq")).astype(np.int64) - block.first_seq] = as_numpy(batch["ts_recv"])
                whole = block.payload.bytes.tobytes() if hasattr(block.payload, "bytes") else b""
                lines = whole.split(b"\n")
                for line, ts_ns in zip((line for line in lines if line.strip()), times.tolist(), strict=False):
                    latest = ts_ns if ts_ns >= 0 else latest  # a bad line goes out with the one before it
                    if latest is not None:
                        yield Message(latest, line)
        finally:
            reader.close()

    return Playable(messages, text=True, framing="lines")


def _itch(path: str, **options: Any) -> Playable:
    from ..market._itch_format import length_table, midnight_ns
    from ..market._itch_reader import Framer
    from ..market.itch import Itch

    spec = Itch(path, **options)
    midnight, lengths = midnight_ns(spec.session, spec.timezone), length_table()
    prefixed = bool(_is_prefixed(path))

    def messages() -> Iterator[Message]:
        feed = open_feed(path)
        try:
            for _, piece in Framer(feed, prefixed, BufferPool()).pieces():
                unsound = set(piece.bad[:, 3].tolist())
                for number, at in enumerate(piece.offsets[: piece.count].tolist()):
                    size = int(lengths[piece.data[at]])
                    if not size and prefixed:
                        size = int.from_bytes(piece.data[at - 2 : at].tobytes(), "big")
                    if number not in unsound and size >= 11:
                        data = piece.data[at : at + size].tobytes()
                        yield Message(midnight + int.from_bytes(data[5:11], "big"), data)
        finally:
            feed.close()

    return Playable(messages, framing="u16", datagrams=_mold)


def _is_prefixed(path: str) -> bool | None:
    """Whether the messages of an ITCH file have length prefixes."""
    from ..market._itch_format import detect

    head, _ = head_of(path)
    return detect(head, whole=len(head) < 1 << 16)


def _mold(messages: Iterator[Message]) -> Iterator[Message]:
    """MoldUDP64 packets: messages with the same time share one, up to what fits a datagram; then the end of the session."""
    session = b"PENSTOCK  "
    held: list[bytes] = []
    size, number, at = 0, 1, 0

    def packet() -> Message:
        body = b"".join(len(data).to_bytes(2, "big") + data for data in held)
        return Message(at, session + struct.pack(">QH", number, len(held)) + body)

    for message in messages:
        if held and (message.ts_ns != at or size + len(message.data) + 2 > _DATAGRAM):
            yield packet()
            number += len(held)
            held, size = [], 0
        at = message.ts_ns
        held.append(message.data)
        size += len(message.data) + 2
    if held:
        yield packet()
        number += len(held)
    yield Message(at, session + struct.pack(">QH", number, 0xFFFF))


def lines_in(path: str) -> Iterator[bytes]:
    """The lines of a file, without their ends."""
    feed = open_feed(path)
    try:
        held, view = b"", memoryview(bytearray(_PIECE))
        while count := feed.fill(view):
            *whole, held = (held + bytes(view[:count])).split(b"\n")
            yield from whole
        if held:
            yield held
    finally:
        feed.close()


def _recording(path: str, **options: Any) -> Playable:
    from ..live.codecs import codec_named
    from .recording import described, recorded_arrivals

    codec = codec_named(described(path)["codec"], json.loads(described(path)["options"]))

    def messages() -> Iterator[Message]:
        for _, arrivals in recorded_arrivals(path):
            for arrival in arrivals:
                if not arrival.event:
                    yield Message(arrival.recv_ns, arrival.data, arrival.channel)

    return Playable(messages, text=codec.framing == "lines", framing=codec.framing)


def _crypto(path: str, **_: Any) -> Playable:
    def messages() -> Iterator[Message]:
        for line in lines_in(path):
            stamped = split_text(line.strip())
            if stamped is not None:
                yield Message(stamped[0], stamped[1].strip())

    return Playable(messages, text=True, framing="lines")


def _mcap(path: str, **_: Any) -> Playable:
    from ..driving.mcap import Mcap

    def messages() -> Iterator[Message]:
        for block in Mcap(path).messages():
            for i in np.argsort(block.log_time, kind="stable").tolist():
                yield Message(int(block.log_time[i]), block.payload(i), int(block.channel[i]))

    return Playable(messages)


def _packets(path: str, **_: Any) -> Playable:
    from ..network.pcap import Pcap

    return Playable(lambda: _rows(Pcap(path), "payload"))


def _video(path: str, **_: Any) -> Playable:
    from ..driving.video import Video

    return Playable(lambda: _rows(Video(path), "data"))


def _rows(spec: Any, column: str) -> Iterator[Message]:
    """The bytes in one column of a source, at the times at which they were received."""
    reader = spec.open(Context("replay"))
    try:
        for block in reader.blocks():
            for batch in reader.decode(block).batches:
                for ts_ns, data in zip(as_numpy(batch["ts_recv"]).tolist(), batch[column], strict=True):
                    yield Message(ts_ns, data.as_py())
    finally:
        reader.close()


_FORMATS: dict[str, Callable[..., Playable]] = {
    "recording": _recording,
    "MCAP": _mcap,
    "pcap": _packets,
    "video": _video,
    "crypto": _crypto,
    "NDJSON": _ndjson,
    "NASDAQ ITCH 5.0": _itch,
}
