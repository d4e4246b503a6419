"""Valve's game-state integration: what a game posts becomes events, one for each value that changed.

    match = sources.live_gsi("http://127.0.0.1:3000/")

The game's configuration file names the address (``"uri" "http://127.0.0.1:3000/"``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Decoded
from ..games.gsi import GsiDiff, gsi_schema
from ._losses import Losses
from .arrival import Arrival
from .feed import Live
from .session import Codec, Framed, Session

__all__ = ["GameStates", "live_gsi"]


@dataclass(frozen=True)
class GameStates(Codec):
    """Whole states as ``game.event`` rows of what changed; see `GsiDiff`.

    `keep_personal` keeps players' names and ids; what is recorded with `record=` holds them either way, and the secret too,
    since a recording is what came.

    Each post is the whole state, so a lost one costs the changes in between and no more: the next one brings the rows to
    what is true. Posts have no numbers, but what a game says of the last one (``previously``) is compared with the last one
    that came, and a post whose ``provider.timestamp`` goes back is left out and counted; of what neither shows, a lost
    post cannot be seen. A POST that broke off is a bad record ``live.gap``, as is a run that went on from a checkpoint.
    """

    name: ClassVar[str] = "gsi"
    match_id: str | None = None
    keep_personal: bool = False

    def schema(self, source: str) -> pa.Schema:
        return gsi_schema(source)

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        return _Session(GsiDiff(**asdict(self), source=source, state=position), source)

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> GameStates:
        """The codec of which `describe` gave `values`."""
        return cls(**values)


class _Session(Session):
    def __init__(self, diff: GsiDiff, source: str) -> None:
        self._diff, self._source = diff, source
        self._losses = Losses()

    def position(self) -> Mapping[str, Any]:
        return self._diff.save()

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        batches: list[pa.RecordBatch] = []
        bad: list[BadRecord] = []
        noticed: list[BadRecord] = []
        unchanged = stale = 0
        for arrival in arrivals:
            if arrival.event:
                noticed += self._losses.heard(arrival, self._source)
                continue
            batch, wrong = self._diff.post(arrival.data, arrival.recv_ns)
            if self._diff.stale:
                stale += 1
                continue
            if self._diff.missed:
                error = f"posts are missing: the game says that {self._diff.missed} was another value before this one"
                noticed.append(BadRecord(self._source, "live.gap", error, b""))
            if batch is not None:
                batches.append(batch)
            if wrong is not None:
                bad.append(wrong)
            unchanged += batch is None and wrong is None
        records = sum(batch.num_rows for batch in batches) + len(bad)
        size = sum(len(arrival.data) for arrival in arrivals)
        dropped = {"posts in which nothing changed": unchanged} if unchanged else {}
        if stale:
            dropped["posts older than the one before"] = stale
        return Framed(Decoded(batches, bad), records, size, noticed, dropped)

    def finish(self, first_seq: int) -> Framed | None:
        told = self._losses.ended(self._source)
        return Framed(Decoded(()), 0, 0, told) if told else None

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        made: Decoded = payload
        return made


def live_gsi(url: str, **options: Any) -> Live:
    """Events of a game that posts its state to `url` (``http://HOST:PORT/``); options of `GameStates` and `Live`."""
    own = {key: options.pop(key) for key in ("match_id", "keep_personal") if key in options}
    return Live(url, GameStates(**own), **options)
