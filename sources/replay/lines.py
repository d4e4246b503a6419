"""Recordings of text that is a message a line: JSON events, and raw feeds of crypto venues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.columns import as_numpy
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.memory import BufferPool
from ..live.stamp import split_text
from ..storage.stored import base_name
from ..storage.unpack import open_feed
from ._decoded import UNREAD, count, decoded_blocks
from .message import Message, Playable

if TYPE_CHECKING:
    from ..text._line_framer import Text
    from ..text.ndjson import Ndjson

__all__ = ["crypto_playable", "json_array_playable", "ndjson_playable"]

#: Bytes of a recorder's file that are read at a time, and of its longest line.
_BLOCK, _LONGEST = 1 << 20, 16 << 20
#: What stands in a line that is none.
_BLANK = b" \t\r"
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
        from ..text._line_framer import Text

        latest: int | None = None
        for block, decoded in decoded_blocks(spec):
            if not isinstance(block.payload, Text):
                count(skipped, UNREAD, len(decoded.bad))
                continue
            times = np.full(block.records, -1, np.int64)
            for batch in decoded.batches:
                times[as_numpy(batch.column("seq")).astype(np.int64) - block.first_seq] = as_numpy(batch["ts_recv"])
            for line, ts_ns in zip(_lines(block.payload), times.tolist(), strict=True):
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
        from ..text._line_framer import START, LineFramer, Text

        feed, file = open_feed(path), base_name(path)
        limits = {"block_bytes": _BLOCK, "max_line": _LONGEST}
        try:
            framer = LineFramer(feed, BufferPool(), START, path=path, file=file, format="crypto", **limits)
            for piece in framer.pieces():
                if not isinstance(piece, Text):
                    count(skipped, UNREAD)
                    continue
                for line in _lines(piece):
                    stamped = split_text(line.strip())
                    if stamped is not None:
                        yield Message(stamped[0], stamped[1].strip())
                    else:
                        count(skipped, "lines without a recorder's stamp")
        finally:
            feed.close()

    return Playable(messages, text=True, framing="lines", skipped=skipped)


def _lines(text: Text) -> list[bytes]:
    """The lines that are not blank, as the framer counts them."""
    return [line for line in text.bytes.tobytes().split(b"\n") if line.strip(_BLANK)]
