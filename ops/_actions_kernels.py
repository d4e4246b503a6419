"""Rings of the last actions of each player, and sequences copied out of them in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pipeline.jit import kernel

__all__ = ["follow"]


@kernel
def follow(
    first: int,
    players: Any,
    actions: Any,
    times: Any,
    positions: Any,
    present: Any,
    scale: Any,
    every: int,
    ring_tokens: Any,
    ring_context: Any,
    seen: Any,
    last_time: Any,
    last_position: Any,
    tokens: Any,
    context: Any,
    lengths: Any,
    rows: Any,
) -> tuple[int, int]:
    """Take events from `first` on until `tokens` is full; returns (event to go on with, sequences made).

    `players` are slots of the rings (player, length) and of `seen` (events so far), `last_time` and `last_position`.
    `positions` and `present` are (axis, event). `rows` gets the event that completed each sequence.
    """
    length = ring_tokens.shape[1]
    made = 0
    for number in range(first, len(players)):
        if made == len(tokens):
            return number, made
        player = players[number]
        count = seen[player]
        place = count % length
        now = times[number]
        gap = now - last_time[player] if count else 0
        last_time[player] = now
        ring_tokens[player, place] = actions[number]
        ring_context[player, place, 0] = np.float32(gap / 1e9)
        for axis in range(2):
            if present[axis, number]:
                last_position[player, axis] = np.float32(positions[axis, number] / scale[axis])
            ring_context[player, place, axis + 1] = last_position[player, axis]
        seen[player] = count + 1
        if (count + 1) % every:
            continue
        held = min(count + 1, length)
        for i in range(length - held):
            tokens[made, i] = 0
            for field in range(3):
                context[made, i, field] = 0.0
        source = place + 1 - held
        if source < 0:
            source += length
        for i in range(length - held, length):
            tokens[made, i] = ring_tokens[player, source]
            for field in range(3):
                context[made, i, field] = ring_context[player, source, field]
            source += 1
            if source == length:
                source = 0
        lengths[made] = held
        rows[made] = number
        made += 1
    return len(players), made
