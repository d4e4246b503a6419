"""The blocks of a source, decoded one by one as a replay needs them."""

from __future__ import annotations

from collections.abc import Iterator

from ...pipeline.context import Context
from ...pipeline.source import Block, Decoded, SourceSpec

__all__ = ["UNREAD", "count", "decoded_blocks"]

#: Why most of what is left out is left out.
UNREAD = "records that could not be read"


def decoded_blocks(spec: SourceSpec) -> Iterator[tuple[Block, Decoded]]:
    """Each block of `spec` with what it decodes to; the source is closed behind the last, or when nobody wants more."""
    reader = spec.open(Context("replay"))
    try:
        for block in reader.blocks():
            yield block, reader.decode(block)
    finally:
        reader.close()


def count(skipped: dict[str, int], reason: str, number: int = 1) -> None:
    """Add `number` to what `reason` has in `skipped`."""
    if number:
        skipped[reason] = skipped.get(reason, 0) + number
