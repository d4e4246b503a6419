"""StarCraft II replays (.SC2Replay) as game events, converted by sc2reader: ``pip install 'penstock[games]'``.

    ps.read(sources.Sc2Replay("match.SC2Replay"))

An offline converter, at sc2reader's pace (tens of thousands of events a second); the replay is parsed whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.schema import describe
from ...pipeline.source import Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import head_of

__all__ = ["Sc2Replay", "inspect_sc2replay", "is_sc2replay", "open_sc2replay"]


@dataclass(frozen=True)
class Sc2Replay(SourceSpec):
    """A StarCraft II replay as ``game.event`` (formats, section 6, item 6): a row per event, in the order of the file.

    `match_id` is what is given, else a digest of the file; `type` the event's name; `player` its player (-1: none), `x` and
    `y` float32 (null: none) in cells of the map, `attrs` its other values as JSON: frame, unit, ability, resources. Text of
    chats and players' names are left out.

    `ts_event` is `start_ns`, else the replay's start (whole seconds), plus its frame at the exact rate of the game's speed:
    22.4 frames a second on Faster. `ts_recv` is the same, `seq` numbers the events.

    `open` is cheap; reading raises MissingExtraError without sc2reader, and FormatError for a file that it cannot read,
    naming the game's version: builds newer than sc2reader cannot be read. A game that was resumed from a replay is read
    without its tracker events (units, resources), which is noted.
    """

    path: PathLike
    match_id: str | None = field(default=None, kw_only=True)
    start_ns: int | None = field(default=None, kw_only=True)

    format: ClassVar[str] = "sc2replay"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))

    @property
    def schema(self) -> pa.Schema:
        from ._sc2_events import event_rows_schema

        return event_rows_schema(base_name(self.path))

    @property
    def name(self) -> str:
        return base_name(self.path)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._sc2_events import Sc2Reader

        return Sc2Reader(str(self.path), self.schema, self.match_id, self.start_ns, context, position)


def is_sc2replay(head: bytes) -> bool:
    """Whether a file that begins with `head` is a StarCraft II replay: an MPQ archive behind Blizzard's user data."""
    return head[:4] == b"MPQ\x1b" and b"StarCraft II replay" in head[:1024]


def open_sc2replay(path: PathLike, **options: Any) -> Sc2Replay:
    """`Sc2Replay` with these options."""
    return Sc2Replay(path, **options)


def inspect_sc2replay(path: PathLike) -> dict[str, Any]:
    """What a StarCraft II replay holds: plain values for `penstock inspect`, without names.

    ``format``, ``compression``, ``version``, ``messages``, ``types``, ``bad``, ``speed``, ``frames``, ``time``, ``schema``,
    ``error``. Raises as reading does.
    """
    from collections import Counter

    from ._sc2_events import event_rows_schema, load_replay, ns_of

    place = location(path)
    replay, _, left_out = load_replay(place, events=True)
    types = Counter(type(event).__name__ for event in replay.events)
    start = int(replay.start_time.timestamp()) * 10**9 if replay.start_time is not None else None
    last = max((event.frame for event in replay.events), default=0)
    time = None
    if start is not None:
        ends = [start, start + ns_of(last, replay.speed)]
        texts = [pa.scalar(ns, pa.timestamp("ns", tz="UTC")).as_py().isoformat() for ns in ends]
        time = {"start": texts[0], "end": texts[1], "start_ns": ends[0], "end_ns": ends[1]}
    return {
        "format": "StarCraft II replay",
        "compression": head_of(place, 1)[1],
        "version": replay.release_string,
        "messages": len(replay.events),
        "types": dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        "bad": 0,
        "speed": replay.speed,
        "frames": last,
        "time": time,
        "schema": describe(event_rows_schema("")),
        "error": left_out or None,
    }
