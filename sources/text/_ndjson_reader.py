"""The reader of JSON lines: pieces of whole lines as blocks, each decoded on its own."""

from __future__ import annotations

from collections.abc import Iterator

from ...pipeline.context import BadRecord, Context
from ...pipeline.memory import BufferPool
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from ._line_framer import KEPT, LineFramer, Lost, Text, text_of
from ._ndjson_decode import Layout, decode_text

__all__ = ["LineReader", "retry_line"]


class LineReader(SourceReader):
    """Open lines of JSON, as `feed` gives them."""

    def __init__(
        self,
        feed: Feed,
        layout: Layout,
        context: Context,
        *,
        path: str,
        position: Position,
        stop: int | None,
        block_bytes: int,
        max_line: int,
    ) -> None:
        self._feed, self._layout, self._pool = feed, layout, context.pool
        self._framer = LineFramer(
            feed,
            context.pool,
            position,
            path=path,
            file=layout.file,
            format="ndjson",
            block_bytes=block_bytes,
            max_line=max_line,
            stop=stop,
        )

    def close(self) -> None:
        self._feed.close()

    def blocks(self) -> Iterator[Block]:
        """A block for each piece; see `SourceReader.blocks`. Raises FormatError for an empty file."""
        for index, piece in enumerate(self._framer.pieces()):
            yield Block(index, piece.seq, piece.records, piece.size, self._framer.position, piece)

    def decode(self, block: Block) -> Decoded:
        """Decode one block of lines; see `SourceReader.decode`."""
        piece: Text | Lost = block.payload
        if isinstance(piece, Lost):
            return Decoded((), (piece.bad,))
        return Decoded(*decode_text(piece, self._layout, self._pool))


def retry_line(record: BadRecord, layout: Layout, max_line: int) -> Decoded | None:
    """Decode a quarantined line on its own; None if `record` is no whole line."""
    line = record.data
    whole = record.operation == "ndjson.decode" or (record.operation == "ndjson.frame" and len(line) < KEPT)
    if not whole or record.seq is None:
        return None
    if len(line) > max_line:
        error = f"a line of {len(line)} bytes, more than {max_line=}"
        return Decoded((), (BadRecord(record.place, "ndjson.frame", error, line, record.seq),))
    pool = BufferPool()
    return Decoded(*decode_text(text_of(line + b"\n", pool, seq=record.seq), layout, pool))
