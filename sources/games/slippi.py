"""Slippi replays of Super Smash Bros. Melee: 60 Hz controller input and state of each character, from files and live.

    ps.read(sources.Slippi("Game_20230102T123456.slp"))                   # game.input
    ps.read(sources.Slippi("Game_20230102T123456.slp", table="state"))    # game.state
    ps.read(sources.SlippiTail("Game_20230102T123456.slp"))               # while it is being played

Both follow the events through the same resolver of rollbacks, so a game gives the same rows from either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import nanoseconds
from ...pipeline.errors import GraphError
from ...pipeline.schema import describe
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.reread import number_behind, rest_of_place
from ..storage.stored import PathLike, base_name, is_url, location
from ._slippi_format import FRAME_NS, TABLES, detect, game_schema, start_ns

__all__ = ["Slippi", "SlippiTail", "inspect_slippi", "is_slippi", "open_slippi"]


@dataclass(frozen=True)
class Slippi(SourceSpec):
    """A Slippi replay (.slp, any version from 0.1) as ``game.input`` or ``game.state``: a row per frame and character.

    Columns behind the three of every source: `match_id` dictionary<int32, utf8>, `frame` int32 (from -123), `player` uint8
    (0 to 3, the port less one), `follower` bool (Nana); then for ``input`` (what the pre-frame update has) `stick_x`,
    `stick_y`, `c_x`, `c_y` float32 in [-1, 1], `trigger_l`, `trigger_r` float32 (physical, 0 to 1), `buttons` uint32,
    `buttons_phys` uint16, `action_state` uint16, `seed` uint32; for ``state`` (post-frame update) `character` uint8
    (internal id), `action_state` uint16, `x`, `y` float32, `facing` int8 (-1, 0, 1), `percent`, `shield` float32, `stocks`
    uint8, `airborne` bool. A field that the replay's version does not have is null.

    Rollbacks are resolved: of a frame that was sent again the last one counts, and the others are counted as dropped.
    `seq` numbers rows, in order of frame, player and follower, together with bad records. `ts_event` is `start_at` (ISO 8601
    or ns since 1970), else the file's ``startAt`` (a time without a zone is UTC), else 1970-01-01, which is noted; plus
    (frame + 123) * 16,683,333 ns. `ts_recv` is the same. `match_id` is what is given, else Slippi's own id of the match
    with the number of the game (3.14 on), else a digest of the game's start. Names and connect codes are never read out.

    An event that is cut, of a frame or player that cannot be, or that the table of sizes does not name is a bad record with
    its offset; so is damaged metadata. Raises GraphError for wrong arguments; `open` raises FormatError for an empty file or
    one of another format. Spec: project-slippi/slippi-wiki SPEC.md; schema: formats, section 6, item 5.
    """

    path: PathLike
    table: str = "input"
    match_id: str | None = field(default=None, kw_only=True)
    start_at: str | int | None = field(default=None, kw_only=True)

    format: ClassVar[str] = "slippi"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        _check(self.table, self.start_at)

    @property
    def schema(self) -> pa.Schema:
        return game_schema(self.table, base_name(self.path))

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.table}"

    @property
    def block_bound(self) -> int:
        return 16 << 20

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._slippi_reader import SlippiReader, examine

        replay = examine(self.path)
        start = _given(self.start_at)
        if start is None:
            start = replay.start_ns
        if start is None:
            start = 0
            context.note("the replay has no startAt: its times count from 1970-01-01")
        match = self.match_id if self.match_id is not None else replay.opening.match
        return SlippiReader(replay, self.table, match, start, base_name(self.path), context, position)

    def retry(self, record: BadRecord) -> Decoded | None:
        """The row of the frame and character of an event that was put aside, of the replay as it is now.

        Which event of a frame counts depends on those behind it, so the whole game is read. None for what is not an
        event, and for one that stands for no row of the table.
        """
        from ._slippi_reader import reread_event

        at = number_behind("offset", rest_of_place(record, self.path))
        if at is None or record.operation != "slippi.event":
            return None
        return reread_event(self.path, self.table, at, self.open(Context("retry")), record)


@dataclass(frozen=True)
class SlippiTail(SourceSpec):
    """A Slippi replay that is being written: its rows as they become final, up to the end of the game.

    The same tables and rows as `Slippi`. The file is looked at every `poll`; it ends with the game's end, with the metadata
    that is written behind it, when it has not grown for `patience` (None: never), or when the run is stopped. A frame leaves
    when no rollback can reach it any more: as soon as a frame bookend says so, at most 7 frames late in replays that do not.

    `ts_recv` is the clock's time when the row's bytes were read (``recv="event"``: event time, as a file has it). Event time
    counts from `start_at`, else from the metadata if the file has it already, else from the clock: the moment in which the
    game's start is first seen, less the frames that are there by then. A position holds it, so a resumed run counts on.

    Raises GraphError for a URL (a growing file is read where it is) and for wrong arguments; OSError if there is no file.
    """

    path: PathLike
    table: str = "input"
    match_id: str | None = field(default=None, kw_only=True)
    start_at: str | int | None = field(default=None, kw_only=True)
    poll: str = field(default="4ms", kw_only=True)
    patience: str | None = field(default=None, kw_only=True)
    recv: str = field(default="clock", kw_only=True)

    format: ClassVar[str] = "slippi"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        _check(self.table, self.start_at)
        if is_url(self.path):
            raise GraphError(
                f"{self.path} is a URL; a growing replay is read where it is written", expected="a local path"
            )
        if self.recv not in ("clock", "event"):
            raise GraphError(f"{self.recv=} is no time", expected="clock | event")
        for value in (self.poll, self.patience):
            if value is not None and nanoseconds(value) <= 0:
                raise GraphError(f"a duration of {value!r} is none", expected="for example 4ms or 30s")

    @property
    def schema(self) -> pa.Schema:
        return game_schema(self.table, base_name(self.path))

    @property
    def name(self) -> str:
        return f"{base_name(self.path)}:{self.table}"

    @property
    def block_bound(self) -> int:
        return 16 << 20

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._slippi_tail import SlippiTailReader

        return SlippiTailReader(
            str(self.path),
            table=self.table,
            match=self.match_id,
            start=_given(self.start_at),
            poll_ns=nanoseconds(self.poll),
            patience_ns=None if self.patience is None else nanoseconds(self.patience),
            clock_recv=self.recv == "clock",
            context=context,
            position=position,
        )


def _check(table: str, start_at: str | int | None) -> None:
    if table not in TABLES:
        raise GraphError(f"a Slippi replay has no table {table!r}", expected=" | ".join(TABLES))
    if start_at is not None and _given(start_at) is None:
        raise GraphError(f"{start_at=} is no time", expected="ISO 8601 such as 2023-01-02T12:34:56Z, or ns since 1970")


def _given(start_at: str | int | None) -> int | None:
    if isinstance(start_at, int):
        return start_at if 0 <= start_at < 1 << 62 else None
    return start_ns(start_at)


def is_slippi(head: bytes) -> bool:
    """Whether a file that begins with `head` (up to 64 KiB) is a Slippi replay, or its bare events."""
    return detect(head)


def open_slippi(path: PathLike, **options: Any) -> Slippi:
    """`Slippi` with these options; the table is ``input`` unless ``table=`` says otherwise."""
    return Slippi(path, **options)


def inspect_slippi(path: PathLike) -> dict[str, Any]:
    """What a Slippi replay holds: plain values for `penstock inspect`, without names.

    ``format``, ``compression``, ``version``, ``messages`` (events), ``types`` (code to name and messages), ``bad``,
    ``frames`` (first, last, rows, missing), ``game`` (stage, players with external character ids, rules), ``match_id``,
    ``played_on``, ``time`` (start, end), ``schema``, ``error``. Raises FormatError as `Slippi.open` does.
    """
    from ._slippi_inspect import describe_replay

    return describe_replay(path, describe(game_schema("input", "")), FRAME_NS)
