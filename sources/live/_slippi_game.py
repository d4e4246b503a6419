"""Games that follow each other on one connection, and what was lost between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.source import Decoded
from ..games._slippi_columns import Rows, decode_resolved, dropped_of
from ..games._slippi_format import GAME_START, SIZES, TABLES, Container, Opening, game_schema, parse_opening
from ..games._slippi_frames import FrameResolver, Resolved
from ..games._slippi_kernels import LIVE

if TYPE_CHECKING:
    from .slippi_events import SlippiEvents

__all__ = ["Follower", "Part", "Told", "decode_parts"]

_RANGES = 64
#: Bytes of the longest table of sizes with the longest start of a game.
_LONGEST = 2 + 255 + 1 + 65_536
_BEFORE = "bytes that came before the start of a game"


@dataclass(slots=True)
class Part:
    """What has become final of one game, in order."""

    rows: Rows
    resolved: list[Resolved]


@dataclass(slots=True)
class Told:
    """What the last messages gave."""

    parts: list[Part] = field(default_factory=list)
    records: int = 0
    noticed: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Game:
    head: bytes
    rows: Rows
    resolver: FrameResolver
    lost: bool = False
    missed: list[tuple[int, int]] = field(default_factory=list)


class Follower:
    """Follows the events of a connection through its games. `position` is what `save` gave."""

    def __init__(self, codec: SlippiEvents, context: Context, source: str, position: Mapping[str, Any]) -> None:
        self._codec, self._context, self._source = codec, context, source
        self._offset = int(position.get("offset", 0))
        self._seq = int(position.get("seq", 0))
        self._held = b""
        self._lost = ""
        self._skipping = False
        self._game: _Game | None = None
        self._told = Told()
        if position.get("head"):
            head = bytes.fromhex(position["head"])
            opening, _ = self._opening(head)
            if opening is not None:
                self._game = self._begin(head, opening, int(position["start"]), position["frames"])

    def save(self) -> dict[str, Any]:
        """Plain values from which another one goes on in the same game."""
        saved: dict[str, Any] = {"offset": self._offset, "seq": self._seq}
        if self._game is not None:
            game = self._game
            saved |= {"head": game.head.hex(), "start": game.rows.start_ns, "frames": game.resolver.save()}
        return saved

    def told(self) -> Told:
        """What has become final, and what was noticed, since the last call."""
        told, self._told = self._told, Told()
        return told

    def heard(self, event: str) -> None:
        """The connection was lost or made."""
        if event != "connected":
            self._lost = self._lost or event.removeprefix("lost: ")
            broken = self._held
            if self._game is not None:
                broken = self._game.resolver.lost() or broken
                self._game.lost = True
            self._lost += f"; {len(broken)} bytes of an event that broke off are left out" if broken else ""
            self._held = b""
        elif self._lost:
            self._gap(f"the connection was lost ({self._lost}) and made again: what was sent in between is missing")
            self._lost = ""

    def finish(self) -> None:
        """No more comes."""
        if self._lost and self._game is not None:
            self._gap(f"the connection was lost ({self._lost}) inside a game and not made again: its end is missing")
        if self._game is not None:
            self._feed(self._game, b"", 0, final=True)

    def take(self, data: bytes, recv_ns: int) -> None:
        """The next bytes."""
        self._offset += len(data)
        data = self._held + data
        self._held = b""
        game = self._game
        if game is not None and data[:1] == b"\x35" and not game.resolver.held:
            opening, waits = self._opening(data)
            if waits:
                self._held = data
                return
            if opening is not None and opening.start:
                if game.lost and data.startswith(game.head):
                    data = data[opening.end :]  # the game from its beginning: what is known of it is passed over
                else:
                    self._feed(game, b"", recv_ns, final=True)
                    self._game = None
        while data:
            if self._game is None:
                data = self._opened(data, recv_ns)
                continue
            self._feed(self._game, data, recv_ns)
            if not self._game.resolver.ended:
                return
            data = self._game.resolver.forget_held()
            self._game = None

    def _opened(self, data: bytes, recv_ns: int) -> bytes:
        """Look for the start of a game in `data`; gives what stands behind its table of sizes."""
        at = data.find(SIZES)
        while at >= 0:
            opening, waits = self._opening(data[at : at + _LONGEST])
            if waits:
                self._skip(data[:at])
                self._held = data[at:]
                return b""
            if opening is not None and opening.start:
                self._skip(data[:at])
                self._skipping = False
                head = data[at : at + opening.end] + opening.start
                start = self._codec.start_ns
                self._game = self._begin(head, opening, recv_ns if start is None else start, None)
                return data[at + opening.end :]
            at = data.find(SIZES, at + 1)
        self._skip(data)
        return b""

    def _skip(self, data: bytes) -> None:
        if not data:
            return
        self._told.dropped[_BEFORE] = self._told.dropped.get(_BEFORE, 0) + len(data)
        if not self._skipping:
            self._gap("no game begins here: what comes before the next table of event sizes cannot be told apart")
        self._skipping = True

    def _opening(self, data: bytes) -> tuple[Opening | None, bool]:
        """The table of sizes and the start of a game at the beginning of `data`, and whether more is needed to tell."""
        if not _may_open(data):
            return None, False
        try:
            opening = parse_opening(data, Container(0, None), self._source, more=True)
        except FormatError:
            return None, False
        return opening, opening is None

    def _begin(self, head: bytes, opening: Opening, start: int, frames: Mapping[str, Any] | None) -> _Game:
        code = TABLES[self._codec.table]
        resolver = FrameResolver(
            opening.sizes,
            code,
            offset=self._offset,
            position=frames,
            mode=LIVE,
            first_seq=self._seq,
            pool=self._context.pool,
        )
        match = self._codec.match_id if self._codec.match_id is not None else opening.match
        columns = ColumnLayout(game_schema(self._codec.table, self._source))
        size = int(opening.sizes[code]) + 1
        rows = Rows(self._codec.table, columns, size, start, pa.array([match], pa.utf8()), self._source)
        return _Game(head, rows, resolver)

    def _feed(self, game: _Game, data: bytes, recv_ns: int, *, final: bool = False) -> None:
        parts = self._told.parts
        for resolved in game.resolver.feed(data, final=final, stamp=recv_ns):
            for first, last in resolved.gaps:
                which = f"frame {first}" if first == last else f"frames {first} to {last}"
                lost = " since the connection was lost" if game.lost else ""
                self._gap(f"{which} of the game had not come{lost} when frame {last + 1} did")
                game.missed = [*game.missed, (first, last)][-_RANGES:]
                game.lost = False
            self._found(game, resolved)
            self._seq += resolved.records
            self._told.records += resolved.records
            for reason, count in dropped_of(resolved, game.rows.table).items():
                self._told.dropped[reason] = self._told.dropped.get(reason, 0) + count
            self._context.note("missing frames", resolved.missing)
            if not parts or parts[-1].rows is not game.rows:
                parts.append(Part(game.rows, []))
            parts[-1].resolved.append(resolved)

    def _found(self, game: _Game, resolved: Resolved) -> None:
        """Note frames that were told missing and came after all."""
        if not game.missed or not len(resolved.rows):
            return
        frames = np.unique(np.ascontiguousarray(resolved.rows[:, 1:5]).view(">i4"))
        found = sum(int(((frames >= first) & (frames <= last)).sum()) for first, last in game.missed)
        self._context.note("frames that came after they were told missing", found)

    def _gap(self, error: str) -> None:
        place = f"{self._source}, offset {self._offset}"
        self._told.noticed.append(BadRecord(place, "live.gap", error, b""))


def _may_open(data: bytes) -> bool:
    """Whether the start of a game may stand at the beginning of `data`, of which not all has come."""
    if len(data) < 2:
        return True
    end = 1 + data[1]
    if data[1] % 3 != 1 or data[1] < 4:
        return False
    return len(data) <= end or data[end] == GAME_START


def decode_parts(parts: Sequence[Part], context: Context) -> Decoded:
    """Rows of what has become final, game by game. What was left out has been told already."""
    made = []
    for part in parts:
        joined = _joined(part.resolved)
        made.append(decode_resolved(joined, part.rows, context.pool, joined.stamps))
    return Decoded([batch for one in made for batch in one.batches], [bad for one in made for bad in one.bad])


def _joined(parts: Sequence[Resolved]) -> Resolved:
    if len(parts) == 1:
        return parts[0]
    last = parts[-1]
    return replace(
        last,
        rows=np.concatenate([part.rows for part in parts]),
        seqs=np.concatenate([part.seqs for part in parts]),
        stamps=np.concatenate([part.stamps for part in parts]),
        bad=tuple(event for part in parts for event in part.bad),
        first_seq=parts[0].first_seq,
        records=sum(part.records for part in parts),
        counts=np.sum([part.counts for part in parts], axis=0),
        superseded=sum(part.superseded for part in parts),
        late=sum(part.late for part in parts),
        missing=sum(part.missing for part in parts),
        gaps=tuple(gap for part in parts for gap in part.gaps),
    )
