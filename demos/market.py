"""A day of ITCH messages: order books, rolling features of each symbol, and a quantized transformer on them."""

from __future__ import annotations

from pathlib import Path

from .. import models, ops, read, sinks, sources
from ..pipeline import Flow

__all__ = ["pipeline"]

FEATURES = ("mid", "spread", "microprice", "imbalance", "bid_sz", "ask_sz", "trade_sz", "volume")


def pipeline(recording: Path, results: Path, every: int = 256) -> Flow:
    """For every `every`-th change of a symbol's book: how likely its mid price goes down, stays, or goes up next."""
    books = read(sources.Itch(recording), name="ticks").apply(ops.BookFeatures(two_sided=True))
    return (
        books.map(ops.RollingSequence(columns=FEATURES, length=64, every=every, key="symbol"))
        .batch(64)
        .prefetch(depth=3)
        .infer(models.load("market", quantize="int8"))
        .write(sinks.Parquet(results))
    )
