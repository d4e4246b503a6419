"""What waits in front of each step of a run on Ray, wherever it waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .attempt import Attempt
from .pool import PoolLoad

__all__ = ["pool_loads", "waiting"]


def waiting(attempt: Attempt) -> dict[str, tuple[int, int]]:
    """Items and bytes by step id: in the queue of its stage, at its producers in other processes, before its processes."""
    found: dict[str, tuple[int, int]] = {}

    def add(step: str, items: int, nbytes: int) -> None:
        before = found.get(step, (0, 0))
        found[step] = (before[0] + items, before[1] + nbytes)

    for queues in _queues(attempt):
        for name, (items, nbytes) in queues.items():
            edge = name.removesuffix(" (out)")
            add(name if edge == name else edge.rpartition(":")[0], items, nbytes)
    for index, load in pool_loads(attempt).items():
        add(attempt.layout.stage(index).entry.id, load.waiting, 0)
    return found


def _queues(attempt: Attempt) -> Iterator[Mapping[str, tuple[int, int]]]:
    if attempt.local is not None:
        yield attempt.local.depths()
    yield {f"{name} (out)": (box.depth, box.waiting_bytes) for name, box in attempt.part.outboxes.items()}
    for status in attempt.statuses.values():
        yield status.queues


def pool_loads(attempt: Attempt) -> dict[int, PoolLoad]:
    """How every pool is doing, by stage."""
    found = {index: pool.load for index, pool in attempt.part.pools.items()}
    for status in attempt.statuses.values():
        found.update(status.pools)
    return found
