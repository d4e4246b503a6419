"""Slippi over a connection: the events of a .slp file as a console, an emulator or a relay sends them.

    ps.read(sources.live_slippi("tcp://127.0.0.1:51441"))                      # game.input
    ps.read(sources.live_slippi("ws://127.0.0.1:9000", table="state"))         # game.state

A connection carries games one after the other, each from its table of event sizes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.errors import GraphError
from ...pipeline.source import Decoded
from ..games._slippi_format import TABLES, game_schema, start_ns
from .arrival import Arrival
from .feed import Live
from .session import Codec, Framed, Session

if TYPE_CHECKING:
    from ._slippi_game import Follower

__all__ = ["SlippiEvents", "live_slippi"]


@dataclass(frozen=True)
class SlippiEvents(Codec):
    """Bare events (from the table of sizes, 0x35, on) as ``game.input`` or ``game.state``, with the columns of `Slippi`.

    Messages may hold one event, a frame, or any piece of the stream. Rollbacks are resolved as in a file: a row leaves when
    no rollback can reach it. The next table of sizes begins the next game, and `match_id` tells games apart. `ts_event`
    counts from `start_at`, else from when the game's start came, and `ts_recv` is when the row's event was whole.

    There are no numbers but those of the frames, and they are watched: frames that were jumped over are a bad record
    ``live.gap`` at the first event behind them; one that still comes before it is final takes its place, and is noted. A
    frame that comes twice counts once. A lost connection is told too, in a game that goes on and at the feed's end; a game
    that is sent again from its beginning gives no row twice. What comes before a game's start cannot be told apart: it is
    skipped, counted and told. A jump of more than 600 frames without a lost connection is believed when a second event
    says the same.
    """

    name: ClassVar[str] = "slippi"
    framing: ClassVar[str] = "bytes"
    table: str = "input"
    match_id: str | None = None
    start_at: str | int | None = None

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise GraphError(f"a Slippi feed has no table {self.table!r}", expected=" | ".join(TABLES))
        if self.start_at is not None and self.start_ns is None:
            raise GraphError(f"start_at={self.start_at!r} is no time", expected="ISO 8601, or ns since 1970")

    @property
    def start_ns(self) -> int | None:
        """`start_at` as ns since 1970."""
        if isinstance(self.start_at, int):
            return self.start_at if 0 <= self.start_at < 1 << 62 else None
        return start_ns(self.start_at)

    def schema(self, source: str) -> pa.Schema:
        return game_schema(self.table, source)

    def open(self, context: Context, source: str, position: Mapping[str, Any] | None) -> Session:
        from ._slippi_game import Follower

        return _Session(Follower(self, context, source, position or {}), context)

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> SlippiEvents:
        """The codec of which `describe` gave `values`."""
        return cls(**values)


class _Session(Session):
    def __init__(self, follower: Follower, context: Context) -> None:
        self._follower, self._context = follower, context

    def position(self) -> Mapping[str, Any]:
        return self._follower.save()

    def take(self, arrivals: Sequence[Arrival], first_seq: int) -> Framed:
        for arrival in arrivals:
            if arrival.event:
                self._follower.heard(arrival.event)
            else:
                self._follower.take(arrival.data, arrival.recv_ns)
        return self._framed(sum(len(arrival.data) for arrival in arrivals))

    def finish(self, first_seq: int) -> Framed | None:
        self._follower.finish()
        return self._framed(0)

    def _framed(self, nbytes: int) -> Framed:
        told = self._follower.told()
        return Framed(told.parts, told.records, nbytes, told.noticed, told.dropped)

    def decode(self, payload: Any, first_seq: int) -> Decoded:
        from ._slippi_game import decode_parts

        return decode_parts(payload, self._context)


def live_slippi(url: str | tuple[str, ...], *, table: str = "input", **options: Any) -> Live:
    """Controller input or state of the characters from a connection; options are those of `SlippiEvents` and `Live`."""
    own = {key: options.pop(key) for key in ("match_id", "start_at") if key in options}
    return Live(url, SlippiEvents(table, **own), **options)
