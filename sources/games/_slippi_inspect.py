"""What a Slippi replay holds: counts of its events, its frames, and the settings of the game."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ...pipeline.context import Context
from ..storage.stored import PathLike, base_name
from ._slippi_format import EVENTS, FIRST_FRAME, PRE, SIZES
from ._slippi_frames import Resolved
from ._slippi_reader import SlippiReader, examine

__all__ = ["describe_replay"]


def describe_replay(path: PathLike, schema: str, frame_ns: int) -> dict[str, Any]:
    """See `slippi.inspect_slippi`."""
    replay = examine(path)
    table = "input" if replay.opening.sizes[PRE] >= 0 else "state"
    reader = SlippiReader(replay, table, "", 0, base_name(path), Context("inspect"), None)
    counts = {SIZES: 1}
    rows, bad, missing, first, last = 0, 0, 0, None, None
    try:
        for block in reader.blocks():
            if not isinstance(block.payload, Resolved):
                bad += len(block.payload)
                continue
            resolved = block.payload
            for code in resolved.counts.nonzero()[0].tolist():
                counts[code] = counts.get(code, 0) + int(resolved.counts[code])
            rows, bad, missing = rows + len(resolved.rows), bad + len(resolved.bad), missing + resolved.missing
            for row in resolved.rows[:1], resolved.rows[-1:]:
                for event in row:
                    frame = int.from_bytes(event[1:5].tobytes(), "big", signed=True)
                    first, last = (frame if first is None else first), frame
    finally:
        reader.close()
    metadata = replay.metadata or {}
    start = replay.start_ns
    time = None
    if start is not None and first is not None and last is not None:
        span = [start + (frame - FIRST_FRAME) * frame_ns for frame in (first, last)]
        time = {"start": _iso(span[0]), "end": _iso(span[1]), "start_ns": span[0], "end_ns": span[1]}
    settings = dict(replay.opening.settings)
    played = metadata.get("playedOn")
    return {
        "format": "Slippi replay",
        "compression": replay.compression,
        "version": replay.opening.version,
        "messages": sum(counts.values()),
        "types": {
            f"0x{code:02x}": {"name": EVENTS.get(code, "unknown"), "messages": count}
            for code, count in sorted(counts.items())
        },
        "bad": bad,
        "frames": {"first": first, "last": last, "rows": rows, "missing": missing},
        "match_id": replay.opening.match,
        "game": settings,
        "played_on": played if isinstance(played, str) else None,
        "time": time,
        "schema": schema,
        "hint": "these are rows of table='input'; the other is 'state'",
        "error": replay.problem or None,
    }


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:09d}Z"
