"""Recordings of text that is a message a line: JSON events, and raw feeds of crypto venues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.columns import as_numpy
from ...pipeline.errors import FormatError, GraphError
from ..live.stamp import split_text
from ..storage.unpack import open_feed
from ._decoded import count, decoded_blocks
from .message import Message, Playable

if TYPE_CHECKING:
    from ..text.ndjson import Ndjson

__all__ = ["crypto_playable", "json_array_playable", "lines_in", "ndjson_playable"]

_PIECE = 1 << 17
_EARLY = "lines before the first that has a time"


def ndjson_playable(path: str, **options: Any) -> Playable:
    """The lines of a file, each at its time. Raises FormatError where none can be told."""
    from ..text.ndjson import Ndjson

    return _json_lines(Ndjson, path, options)


def json_array_playable(path: str, **options: Any) -> Playable:
    """The elements of a JSON array (`at`: where it is), a line each, at their times. Raises FormatError if none is told."""
    from ..games.json_array import JsonArray

    return _json_lines(JsonArray, path, options)


def _json_lines(kind: Callable[..., Ndjson], path: str, options: dict[str, Any]) -> Playable:
    from ..text._ndjson_inspect import guessed

    own = {name: options[name] for name in ("at",) if name in options}
    if "time" not in options:
        try:
            found = guessed(kind(path, columns={}, time="-", **own), {"type": "-"})
        except GraphError as error:
            raise FormatError(f"{path}: {error}; name it with --time KEY --time-unit ns") from None
        options |= {name: found[name] for name in ("time", "time_unit") if name in found}
        if "time" not in options:
            raise FormatError(f"{path}: no key of the first lines looks like a time; name it with --time KEY")
    spec = kind(path, columns={}, **options)
    skipped: dict[str, int] = {}

    def messages() -> Iterator[Message]:
        latest: int | None = None
        for block, decoded in decoded_blocks(spec):
            times = np.full(block.records, -1, np.int64)
            for batch in decoded.batches:
                times[as_numpy(batch.column("seq")).astype(np.int64) - block.first_seq] = as_numpy(batch["ts_recv"])
            whole = block.payload.bytes.tobytes() if hasattr(block.payload, "bytes") else b""
            lines = (line for line in whole.split(b"\n") if line.strip())
            for line, ts_ns in zip(lines, times.tolist(), strict=False):
                latest = ts_ns if ts_ns >= 0 else latest  # a bad line goes out with the one before it
                if latest is not None:
                    yield Message(latest, line)
                else:
                    count(skipped, _EARLY)

    return Playable(messages, text=True, framing="lines", skipped=skipped)


def crypto_playable(path: str) -> Playable:
    """The messages in a recorder's file, without the recorder's stamps."""
    skipped: dict[str, int] = {}

    def messages() -> Iterator[Message]:
        for line in lines_in(path):
            stamped = split_text(line.strip())
            if stamped is not None:
                yield Message(stamped[0], stamped[1].strip())
            elif line.strip():
                count(skipped, "lines without a recorder's stamp")

    return Playable(messages, text=True, framing="lines", skipped=skipped)


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
