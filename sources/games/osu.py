"""osu! replays (.osr): mouse position and keys, about 60 times a second.

ps.read(sources.Osr("replay.osr"))
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.schema import describe
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.reread import number_behind, reread, rest_of_place
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import head_of, open_feed
from ._osu_format import HEAD, Header, detect, input_schema, mod_names, parse_header

__all__ = ["Osr", "inspect_osr", "is_osr", "open_osr"]


@dataclass(frozen=True)
class Osr(SourceSpec):
    """An osu! replay of any mode (osu, taiko, catch, mania), from stable or lazer, as ``game.input``: a row per frame.

    Columns behind the three of every source: `match_id` dictionary<int32, utf8> (a digest of the beatmap's and the replay's
    hashes, unless given), `x`, `y` float32 (px of the playfield; null in mania), `keys` uint32 (bits: 1 M1, 2 M2, 4 K1,
    8 K2, 16 smoke; in mania one bit a column, which the file has as x).

    `ts_event` is the replay's time stamp plus the frames' milliseconds so far (some are negative: times may go back); the
    stamp is when the play was saved. `ts_recv` is the same. `seq` numbers all frames; the frame that holds the random
    seed and the two that stable puts at (256, -500) before the first are counted as dropped. The player's name is never
    read out.

    A frame that is not four numbers is a bad record; so are damaged packed frames and bytes that belong to nothing. Raises
    FormatError for an empty file or one of another format. Schema: formats, section 6, item 12.
    """

    path: PathLike
    match_id: str | None = field(default=None, kw_only=True)

    format: ClassVar[str] = "osr"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))

    @property
    def schema(self) -> pa.Schema:
        return input_schema(base_name(self.path))

    @property
    def name(self) -> str:
        return base_name(self.path)

    @property
    def block_bound(self) -> int:
        return 32 << 20

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._osu_reader import OsrReader

        header, _ = _examine(self.path)
        if header.start_ns is None:
            context.note("the replay has no time stamp: its times count from 1970-01-01")
        return OsrReader(
            open_feed(self.path),
            header,
            str(self.path),
            self.schema,
            header.start_ns or 0,
            self.match_id if self.match_id is not None else header.match,
            context,
            position,
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """The frame that was put aside, of the replay as it is now: its time is that of all frames before it."""
        from ._osu_reader import OsrReader

        at = number_behind("byte", rest_of_place(record, self.path))
        reader = self.open(Context("retry"))
        if at is None or not isinstance(reader, OsrReader):
            reader.close()
            return None
        try:
            number = reader.frame_at(at)
        finally:
            reader.close()
        return None if number is None else reread(self.open(Context("retry")), {number: record.seq or 0})


def _examine(path: PathLike) -> tuple[Header, str]:
    place = location(path)
    head, compression = head_of(place, HEAD)
    if not head:
        raise FormatError(f"{place} is empty: no osu! replay to read")
    return parse_header(head, place), compression


def is_osr(head: bytes) -> bool:
    """Whether a file that begins with `head` is an osu! replay: a mode, a version and a beatmap's MD5; there is no magic."""
    return detect(head)


def open_osr(path: PathLike, **options: Any) -> Osr:
    """`Osr` with these options."""
    return Osr(path, **options)


def inspect_osr(path: PathLike) -> dict[str, Any]:
    """What an osu! replay holds: plain values for `penstock inspect`, without the player's name.

    ``format``, ``compression``, ``mode``, ``version``, ``beatmap`` (MD5), ``mods``, ``score``, ``max_combo``, ``hits``,
    ``messages`` (frames), ``types``, ``seed``, ``bad``, ``time`` (start, end), ``schema``, ``error``. Raises FormatError.
    """
    from ._osu_reader import Frames, OsrReader

    header, compression = _examine(path)
    reader = OsrReader(
        open_feed(path), header, location(path), input_schema(""), 0, header.match, Context("inspect"), None
    )
    rows = bad = seeds = fillers = frames = 0
    seed, problem, span = None, None, None
    try:
        for block in reader.blocks():
            frames += block.records
            if not isinstance(block.payload, Frames):
                bad += len(block.payload)
                problem = problem or next((record.error for record in block.payload), None)
                continue
            found = block.payload
            rows, bad, seeds = rows + len(found.numbers), bad + len(found.bad), seeds + found.seeds
            fillers += found.fillers
            seed = found.seed if found.seed is not None else seed
            if len(found.times):
                low, high = int(found.times.min()), int(found.times.max())
                span = (low, high) if span is None else (min(span[0], low), max(span[1], high))
    finally:
        reader.close()
    time = None
    if header.start_ns is not None and span is not None:
        ends = [header.start_ns + ms * 1_000_000 for ms in span]
        time = {"start": _iso(ends[0]), "end": _iso(ends[1]), "start_ns": ends[0], "end_ns": ends[1]}
    return {
        "format": "osu! replay",
        "compression": compression,
        "mode": header.mode,
        "version": header.version,
        "beatmap": header.beatmap,
        "mods": mod_names(header.mods),
        "score": header.score,
        "max_combo": header.max_combo,
        "perfect": header.perfect,
        "hits": dict(header.counts),
        "match_id": header.match,
        "messages": frames,
        "types": {"frame": rows, "seed": seeds, "filler": fillers},
        "seed": seed,
        "bad": bad,
        "time": time,
        "schema": describe(input_schema("")),
        "error": problem,
    }


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:09d}Z"
