"""A source read split by split, in order, as one stream.

On a cluster the splits of a source are read by several processes; a run that goes on elsewhere reads what is left of
them. A position then says of which division, which split, and where in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .context import Context
from .source import Block, Decoded, Position, SourceReader, SourceSpec, Split

__all__ = ["SplitReader", "open_reader", "split_position"]


def split_position(division: int, split: int, at: Position | None) -> Position:
    """The position `at` in split number `split` of ``spec.splits(division)``; None for its beginning."""
    return {"division": division, "split": split, "at": None if at is None else dict(at)}


def open_reader(spec: SourceSpec, context: Context, position: Position | None) -> SourceReader:
    """A reader of everything behind `position`, which may be one in the whole source or in a split of it."""
    if position is None or "division" not in position:
        return spec.open(context, position=position)
    division, first = int(position["division"]), int(position["split"])
    splits = spec.splits(division)
    return SplitReader(spec, context, splits[first:], division, position["at"])


class SplitReader(SourceReader):
    """Reads `splits` one after the other, the first from position `at`."""

    def __init__(
        self, spec: SourceSpec, context: Context, splits: Sequence[Split], division: int, at: Position | None
    ) -> None:
        self._spec, self._context, self._splits, self._division, self._at = spec, context, splits, division, at
        self._open: list[SourceReader] = []

    def blocks(self) -> Iterator[Block]:
        index = 0
        for split in self._splits:
            reader = self._spec.open(self._context, split, self._at)
            self._open.append(reader)
            self._at = None
            for block in reader.blocks():
                after = split_position(self._division, split.index, block.after)
                yield replace(block, index=index, after=after, payload=(reader, block))
                index += 1

    def decode(self, block: Block) -> Decoded:
        reader, inner = block.payload
        decoded: Decoded = reader.decode(inner)
        return decoded

    def close(self) -> None:
        for reader in self._open:
            reader.close()
