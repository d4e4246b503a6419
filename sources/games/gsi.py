"""Valve game-state integration: the whole state that a game posts becomes events, one for each value that changed.

The game (CS2, CS:GO, Dota 2) posts JSON to a local HTTP server, as often as it likes. This is the stage behind the server:

    diff = GsiDiff()
    batch, bad = diff.post(body, recv_ns)

What identifies people stays behind: a SteamID64 becomes the number of a player, in order of appearance; names are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from ...pipeline.context import BadRecord
from ...pipeline.schema import TIMESTAMP, event_schema

__all__ = ["GsiDiff", "gsi_schema"]

_STEAM_ID = re.compile(r"7656119[0-9]{10}")
_PLAYER_KEY = re.compile(r"player([0-9]{1,3})")
_TRIPLE = re.compile(r"\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*,\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*,\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*")
#: Top blocks that are no state: what the game repeats of its last post, and its secret.
_NO_STATE = frozenset({"previously", "added", "auth"})
_PERSONAL = frozenset({"steamid", "accountid", "account_id", "clan", "persona", "personaname", "pro_name"})
_MOST_LEAVES, _MOST_DEPTH, _MOST_PLAYERS = 32_000, 32, 30_000
_LATE_S = 10
_CHANGES = ("set", "initial", "removed")
_SET, _INITIAL, _REMOVED = range(3)

Leaf = bool | int | float | str | None


def gsi_schema(source: str = "gsi") -> pa.Schema:
    """``game.event`` (formats, section 6, item 6) with `change`: ``set``, ``initial`` (first post) or ``removed``."""
    fields = [
        pa.field("match_id", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("type", pa.dictionary(pa.int16(), pa.utf8()), nullable=False),
        pa.field("player", pa.int16(), nullable=False),
        pa.field("target", pa.int16(), nullable=False),
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("z", pa.float32()),
        pa.field("value", pa.float64()),
        pa.field("change", pa.dictionary(pa.int8(), pa.utf8()), nullable=False),
        pa.field("attrs", pa.large_utf8(), nullable=False),
    ]
    return event_schema(fields, source=source, format="gsi")


class GsiDiff:
    """Turns whole states into ``game.event`` rows; see `gsi_schema`.

    A row is one leaf that changed: `type` its path with dots (players' ids as ``*``, ``player3`` as ``player*``), `player`
    whose it is (-1: nobody's; a SteamID64 is numbered in order of appearance, Dota's ``playerN`` is N, the block ``player``
    is the one that it names), `value` its number or truth (1, 0), else `attrs` its JSON text; three numbers in a text
    (``position``) are `x`, `y`, `z` too. A SteamID64 as a value becomes that player's number in `target` and `value`. Rows
    follow the document; what is gone comes last. `ts_event` and `ts_recv` are the time of receipt: the game's own stamp has
    whole seconds.

    What the game says was there before (``previously``) is compared with the last post: where a value differs, posts were
    missed, and `missed` says so until the next post. A post with a ``provider.timestamp`` up to 10 s before the last
    one's came too late: it changes nothing, and `stale` is set. The secret (``auth``) and ``added`` are never looked at.
    Ids, names and clans are left out unless `keep_personal`. A post that is no JSON object, is longer than `max_bytes`,
    or has more than 32,000 leaves is a bad record; only its size is kept of it, because it may hold the secret.
    """

    def __init__(
        self,
        *,
        match_id: str | None = None,
        keep_personal: bool = False,
        max_bytes: int = 4 << 20,
        source: str = "gsi",
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.schema = gsi_schema(source)
        self._match_id, self._keep, self._most = match_id, keep_personal, max_bytes
        saved = state or {}
        self._seq = int(saved.get("seq", 0))
        self._players: dict[str, int] = {name: number for number, name in enumerate(saved.get("players", ()))}
        self._leaves: dict[tuple[str, int], Leaf] | None = None
        self._time = saved.get("time")
        self.missed, self.stale = "", False
        if saved.get("leaves") is not None:
            self._leaves = {(path, player): value for path, player, value in saved["leaves"]}

    def save(self) -> dict[str, Any]:
        """State for a checkpoint, as plain values. It holds the players' ids: a resumed stream numbers them alike."""
        leaves = None if self._leaves is None else [[*key, value] for key, value in self._leaves.items()]
        return {"seq": self._seq, "players": list(self._players), "leaves": leaves, "time": self._time}

    def post(self, body: bytes, recv_ns: int) -> tuple[pa.RecordBatch | None, BadRecord | None]:
        """The rows of one post, or what is wrong with it. Neither if nothing changed."""
        self.missed, self.stale = "", False
        try:
            document, previously = self._parse(body)
            time = _time_of(document)
            if time is not None and self._time is not None and 0 < self._time - time <= _LATE_S:
                self.stale = True
                return None, None
            missed = self._missed(document, previously)
            leaves: dict[tuple[str, int], Leaf] = {}
            for path, player, leaf in self._walk(document, "", self._owner(document), 0):
                leaves[path, player] = leaf
                if len(leaves) > _MOST_LEAVES:
                    raise ValueError(f"more than {_MOST_LEAVES} values")
        except (ValueError, RecursionError) as error:
            why = str(error) or "nested too deep"
            bad = BadRecord(f"gsi post {self._seq}", "gsi.diff", f"a post of {len(body)} bytes: {why}", b"", self._seq)
            self._seq += 1
            return None, bad
        self._time = time
        before, self._leaves = self._leaves, leaves
        old = before if before is not None else {}
        how = _SET if before is not None else _INITIAL
        missing = object()
        rows: list[tuple[str, int, Leaf, int]] = [
            (path, player, leaf, how)
            for (path, player), leaf in leaves.items()
            if not _same(old.get((path, player), missing), leaf)
        ]
        rows += [(path, player, None, _REMOVED) for path, player in old if (path, player) not in leaves]
        self.missed = missed if rows else ""  # where nothing changed it is the last post again
        return (self._batch(rows, document, recv_ns) if rows else None), None

    def _missed(self, document: Mapping[str, Any], previously: Any) -> str:
        """Which value was another one before, as the game says, than in the last post that came; empty if none was."""
        if self._leaves is None or not isinstance(previously, dict):
            return ""
        named = self._owner(previously)
        owner = named if named >= 0 else self._owner(document)
        for path, player, leaf in self._walk(previously, "", owner, 0):
            before = self._leaves.get((path, player))
            if before is not None and type(before) is type(leaf) and before != leaf:
                return path
        return ""

    def _parse(self, body: bytes) -> tuple[dict[str, Any], Any]:
        if len(body) > self._most:
            raise ValueError(f"more than {self._most}")
        try:
            document = json.loads(body, parse_constant=_no_number)
        except json.JSONDecodeError as error:
            raise ValueError(f"no JSON at {error.pos}: {error.msg}") from None
        if not isinstance(document, dict):
            raise ValueError(f"a JSON {type(document).__name__}, not an object")
        return {key: value for key, value in document.items() if key not in _NO_STATE}, document.get("previously")

    def _owner(self, document: Mapping[str, Any]) -> int:
        """The number of the player whose block ``player`` is, -1 if it names none."""
        block = document.get("player")
        steam = block.get("steamid") if isinstance(block, dict) else None
        return self._number(steam) if isinstance(steam, str) and _STEAM_ID.fullmatch(steam) else -1

    def _number(self, steam: str) -> int:
        if len(self._players) >= _MOST_PLAYERS and steam not in self._players:
            return -1
        return self._players.setdefault(steam, len(self._players))

    def _walk(
        self, node: Any, path: str, owner: int, depth: int, player: int = -1, *, person: bool = False
    ) -> Iterator[tuple[str, int, Leaf]]:
        if depth > _MOST_DEPTH:
            raise ValueError(f"nested more than {_MOST_DEPTH} deep")
        if not isinstance(node, dict | list):
            yield path, player, node
            return
        items = node.items() if isinstance(node, dict) else ((str(index), item) for index, item in enumerate(node))
        for key, value in items:
            whose, name, inner = player, key, False
            if _STEAM_ID.fullmatch(key):
                whose, name, inner = self._number(key), "*", True
            elif found := _PLAYER_KEY.fullmatch(key):
                whose, name, inner = int(found[1]), "player*", True
            elif depth == 0 and key == "player":
                whose, inner = owner, True
            if not self._keep and (key in _PERSONAL or (person and key == "name")):
                continue
            yield from self._walk(value, f"{path}.{name}" if path else name, owner, depth + 1, whose, person=inner)

    def _batch(
        self, rows: list[tuple[str, int, Leaf, int]], document: Mapping[str, Any], recv_ns: int
    ) -> pa.RecordBatch:
        count = len(rows)
        described = [self._describe(path, leaf, change) for path, _, leaf, change in rows]
        target, x, y, z, value, attrs = zip(*described, strict=True)
        times = pa.array([recv_ns] * count, TIMESTAMP)
        types = pa.array([_sound(path) for path, *_ in rows], pa.utf8()).dictionary_encode()
        match = self._match_id
        if match is None:
            inner = document.get("map")
            match = str(inner.get("matchid", "")) if isinstance(inner, dict) else ""
        columns = [
            times,
            times,
            pa.array(range(self._seq, self._seq + count), pa.uint64()),
            pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([_sound(match)], pa.utf8())),
            pa.DictionaryArray.from_arrays(types.indices.cast(pa.int16()), types.dictionary),
            pa.array([player for _, player, *_ in rows], pa.int16()),
            pa.array(target, pa.int16()),
            *(pa.array(axis, pa.float32()) for axis in (x, y, z)),
            pa.array(value, pa.float64()),
            pa.DictionaryArray.from_arrays(
                pa.array([row[3] for row in rows], pa.int8()), pa.array(_CHANGES, pa.utf8())
            ),
            pa.array(attrs, pa.large_utf8()),
        ]
        self._seq += count
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _describe(self, path: str, leaf: Leaf, change: int) -> tuple[Any, ...]:
        """target, x, y, z, value, attrs of a leaf."""
        if change == _REMOVED:
            return -1, None, None, None, None, ""
        if isinstance(leaf, bool):
            return -1, None, None, None, float(leaf), json.dumps(leaf)
        if isinstance(leaf, int | float):
            try:
                return -1, None, None, None, float(leaf), ""
            except OverflowError:
                return -1, None, None, None, None, str(leaf)
        if isinstance(leaf, str):
            if _STEAM_ID.fullmatch(leaf):
                number = self._number(leaf)
                return number, None, None, None, float(number), json.dumps(leaf) if self._keep else ""
            if found := _TRIPLE.fullmatch(leaf):
                try:
                    return -1, *(float(part) for part in found.groups()), None, _text(leaf)
                except ValueError:
                    pass
        return -1, None, None, None, None, _text(leaf)


def _time_of(document: Mapping[str, Any]) -> int | None:
    """When the game says that it wrote, s; None if it does not."""
    provider = document.get("provider")
    time = provider.get("timestamp") if isinstance(provider, dict) else None
    return time if isinstance(time, int) and not isinstance(time, bool) else None


def _text(leaf: Leaf) -> str:
    text = json.dumps(leaf, ensure_ascii=False)
    return text if _sound(text) == text else json.dumps(leaf)


def _sound(text: str) -> str:
    """`text` with halves of surrogate pairs, which JSON can name and UTF-8 cannot, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _same(before: object, now: Leaf) -> bool:
    return type(before) is type(now) and before == now


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
