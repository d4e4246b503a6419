"""A recorder file in blocks of whole lines, decoded as they are framed.

The lines of a recording depend on those before them: names get their numbers in order, and a gap in a book shows between two
messages. So lines are decoded in order while the file is framed, which the scanner does faster than any file unpacks, and
`decode` only hands out what was made.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...pipeline.context import Context
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from ..text._line_framer import START, LineFramer, Text
from ._crypto_decode import LineDecoder, Made

__all__ = ["CryptoReader"]


class CryptoReader(SourceReader):
    """An open recorder file. `decoder` was made from what `position` saved."""

    def __init__(
        self,
        feed: Feed,
        decoder: LineDecoder,
        context: Context,
        *,
        path: str,
        file: str,
        position: Position | None,
        block_bytes: int,
        max_line: int,
    ) -> None:
        self._feed, self._decoder = feed, decoder
        self._framer = LineFramer(
            feed,
            context.pool,
            position or START,
            path=path,
            file=file,
            format="crypto",
            block_bytes=block_bytes,
            max_line=max_line,
        )

    def close(self) -> None:
        self._feed.close()

    def blocks(self) -> Iterator[Block]:
        """Frame and decode the file; see `SourceReader.blocks`. Raises FormatError if it is empty."""
        for index, piece in enumerate(self._framer.pieces()):
            made = self._decoder.decode(piece) if isinstance(piece, Text) else Made(bad=[piece.bad])
            after = {**self._framer.position, **self._decoder.save()}
            yield Block(index, piece.seq, piece.records, piece.size, after, made)

    def decode(self, block: Block) -> Decoded:
        """What the block's lines became; see `SourceReader.decode`."""
        made: Made = block.payload
        return Decoded(made.batches, made.bad, made.dropped)
