"""Events of a game: what each player does next, predicted from the sequence of that player's actions."""

from __future__ import annotations

from pathlib import Path

from .. import models, ops, read, sinks, sources
from ..pipeline import Flow

__all__ = ["pipeline"]


def pipeline(recording: Path, results: Path, every: int = 8) -> Flow:
    """For every `every`-th action of a player: the logits of the next action, and the value of the position."""
    events = read(sources.game_events(recording), name="events")
    return (
        events.map(ops.ActionSequence(length=64, every=every))
        .batch(64)
        .prefetch(depth=3)
        .infer(models.load("actions", quantize="int8"))
        .write(sinks.Parquet(results))
    )
