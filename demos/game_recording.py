"""A made-up game as lines of JSON, in the shape of StarCraft II telemetry: true keys, 22.4 frames a second.

Each player is a Markov chain over what players do (look, select, command, recall a group); the camera and the commands
wander over the map from base to base, units are born, change hands with death, and statistics come at fixed frames. Only
integers are drawn from Philox, so the same arguments give the same bytes on any machine.
"""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["write_game"]

_START_NS = 1_700_000_000_000_000_000
_CHUNK = 8_192
#: Frames between the statistics of a player, and the size of the map in 1/256 of its unit.
_STATISTICS, _MAP = 160, 192 * 256

_CAMERA, _SELECT, _STATE, _RECALL, _POINT, _UPDATE, _BASIC, _UNIT, _BORN, _DIED = range(10)
_EVENTS = (
    "CameraEvent",
    "SelectionEvent",
    "CommandManagerStateEvent",
    "GetControlGroupEvent",
    "TargetPointCommandEvent",
    "UpdateTargetPointCommandEvent",
    "BasicCommandEvent",
    "TargetUnitCommandEvent",
    "UnitBornEvent",
    "UnitDiedEvent",
)
#: After each event, the weights of the next one of the same player.
_CHAIN = (
    (52, 14, 6, 10, 7, 0, 2, 3, 5, 1),
    (30, 12, 4, 8, 24, 0, 12, 10, 0, 0),
    (28, 10, 40, 8, 5, 0, 3, 2, 2, 2),
    (22, 6, 4, 30, 20, 0, 10, 6, 1, 1),
    (20, 6, 22, 6, 10, 30, 2, 2, 1, 1),
    (24, 6, 14, 6, 8, 36, 1, 2, 1, 2),
    (26, 10, 30, 14, 6, 0, 8, 2, 4, 0),
    (26, 10, 26, 8, 8, 0, 4, 10, 2, 6),
    (50, 20, 8, 12, 4, 0, 2, 0, 4, 0),
    (44, 10, 6, 8, 14, 0, 2, 6, 2, 8),
)
_ABILITIES = (
    "RightClick",
    "Attack",
    "Stop",
    "BuildPylon",
    "BuildBarracks",
    "TrainMarine",
    "TrainZealot",
    "Move",
    "Patrol",
)
_UNITS = ("SCV", "Marine", "Marauder", "Zealot", "Probe", "Stalker", "Drone", "Zergling", "Roach", "Overlord")
_HIGH = [list(accumulate(row)) for row in _CHAIN]


def write_game(
    path: str | PathLike[str], *, events: int = 20_000, players: int = 4, seed: int = 0, gz: bool = False
) -> dict[str, Any]:
    """Write a game of exactly `events` events by `players` players, one JSON object a line, and say what it holds.

    Every line has ``ts_ns``, ``frame`` and ``event``; further keys depend on the event, as in real recordings: ``pid`` (1
    to `players`; births and deaths have ``control_pid`` or ``killer_pid`` in its place), ``x``, ``y``, ``ability_name``,
    ``ability_id``, ``unit_id``, ``unit_type_name``, ``control_group``, ... The file appears under its name when complete.

    Returns ``path``, ``events``, ``players``, ``bytes`` (before compression), ``frames``, ``seconds`` and ``counts`` (events
    by name). Raises ValueError for fewer events than players, or players outside 1 to 1000.
    """
    if not 1 <= players <= 1_000:
        raise ValueError(f"{players=} is outside 1 to 1000")
    if events < players:
        raise ValueError(f"{events=} is too few: each of {players} players is set up with one")
    target = Path(fspath(path))
    partial = target.with_name(target.name + ".partial")
    game = _Game(events, players, seed)
    size = 0
    try:
        with partial.open("wb") as file:
            if gz:
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                    size = sum(packed.write(text) for text in game.chunks())
            else:
                size = sum(file.write(text) for text in game.chunks())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    seconds = game.frame * 10 / 224
    return {
        "path": str(target),
        "events": events,
        "players": players,
        "bytes": size,
        "frames": game.frame,
        "seconds": seconds,
        "counts": dict(game.counts.most_common()),
    }


class _Game:
    """The state of a game while it is written."""

    def __init__(self, events: int, players: int, seed: int) -> None:
        self._events, self._players = events, players
        self._random = np.random.Philox(key=seed)
        self._doing = [_CAMERA] * (players + 1)
        self._group = [1] * (players + 1)
        draws = self._random.random_raw(2 * (players + 1)).tolist()
        self._place = [[draws[2 * p] % _MAP, draws[2 * p + 1] % _MAP] for p in range(players + 1)]
        self._camera = [list(place) for place in self._place]
        self._alive: list[tuple[int, int]] = []
        self._due = [(_STATISTICS + p, p) for p in range(1, players + 1)]
        self._units = 0
        self.frame = 0
        self.counts: Counter[str] = Counter()

    def chunks(self) -> Iterator[bytes]:
        """The lines, some thousand at a time."""
        lines: list[str] = []
        for player in range(1, self._players + 1):
            lines.append(self._line("PlayerSetupEvent", f',"pid":{player}'))
        written = len(lines)
        while written < self._events:
            for draw, more in self._random.random_raw(2 * _CHUNK).reshape(_CHUNK, 2).tolist():
                # more players act more often: the frame advances by 0 to 5 every so many events
                if draw % (2 + self._players) < 2:
                    self.frame += 1 + (draw >> 8) % 5
                while self._due[0][0] <= self.frame and written < self._events:
                    lines.append(self._statistics(more))
                    written += 1
                if written == self._events:
                    break
                lines.append(self._act(1 + (draw >> 16) % self._players, draw >> 32, more))
                written += 1
                if written == self._events:
                    break
            yield "".join(lines).encode()
            lines.clear()
        if lines:
            yield "".join(lines).encode()

    def _line(self, event: str, rest: str) -> str:
        self.counts[event] += 1
        time = _START_NS + self.frame * 10_000_000_000 // 224
        return f'{{"ts_ns":{time},"frame":{self.frame},"event":"{event}"{rest}}}\n'

    def _statistics(self, draw: int) -> str:
        due, player = self._due.pop(0)
        self._due.append((due + _STATISTICS, player))
        food = 10 + sum(owner == player for _, owner in self._alive) // 2
        return self._line(
            "PlayerStatsEvent",
            f',"pid":{player},"minerals_current":{draw % 900},"vespene_current":{(draw >> 10) % 400},'
            f'"food_used":{min(food, 200)}.0,"food_made":{min(food + 8, 200)}.0,'
            f'"minerals_collection_rate":{(draw >> 20) % 2000},"vespene_collection_rate":{(draw >> 32) % 700},'
            f'"workers_active_count":{12 + (draw >> 44) % 50}',
        )

    def _act(self, player: int, draw: int, more: int) -> str:
        doing = bisect_right(_HIGH[self._doing[player]], draw % 100)
        if doing == _DIED and not self._alive:
            doing = _CAMERA
        self._doing[player] = doing
        camera = self._camera[player]
        if doing == _CAMERA:
            if draw >> 8 & 31 == 0:  # a jump home
                camera[:] = self._place[player]
            x, y = (_step(camera, axis, (more >> 16 * axis) % 2048 - 1024) for axis in (0, 1))
            rest = f',"pid":{player},"x":{x},"y":{y}'
        elif doing in (_SELECT, _STATE):
            rest = f',"pid":{player}'
        elif doing == _RECALL:
            if more % 3 == 0:
                self._group[player] = (more >> 8) % 10
            rest = f',"pid":{player},"control_group":{self._group[player]}'
        elif doing == _BORN:
            rest = self._born(player, more)
        elif doing == _DIED:
            unit, _ = self._alive.pop(more % len(self._alive))
            rest = f',"killer_pid":{player},"unit_id":{unit},"x":{camera[0] >> 8},"y":{camera[1] >> 8}'
        else:
            rest = self._command(player, doing, camera, more)
        return self._line(_EVENTS[doing], rest)

    def _born(self, player: int, more: int) -> str:
        self._units += 1
        unit = self._units << 18 | 1
        self._alive.append((unit, player))
        if len(self._alive) > 400 * self._players:
            self._alive.pop(0)
        x, y = ((self._place[player][axis] + (more >> 8 * axis) % 4096) % _MAP >> 8 for axis in (0, 1))
        name = _UNITS[(more >> 20) % len(_UNITS)]
        return (
            f',"control_pid":{player},"upkeep_pid":{player},"unit_id":{unit},"unit_type_name":"{name}","x":{x},"y":{y}'
        )

    def _command(self, player: int, doing: int, camera: list[int], more: int) -> str:
        number = (more >> 30) % len(_ABILITIES) if more & 3 == 0 else (more >> 30) % 2
        ability = f'"ability_name":"{_ABILITIES[number]}","ability_id":{100 + 13 * number}'
        flags = f'"flags":{256 if doing != _UPDATE else 262400}'
        if doing == _BASIC:
            return f',"pid":{player},{ability},{flags}'
        x, y = (min(max(camera[axis] + (more >> 12 * axis) % 4096 - 2048, 0), _MAP - 1) / 256 for axis in (0, 1))
        unit = ""
        if doing == _UNIT:
            unit = f'"target_unit_id":{self._alive[more % len(self._alive)][0] if self._alive else 1},'
        return f',"pid":{player},"x":{x},"y":{y},{ability},{unit}{flags}'


def _step(place: list[int], axis: int, by: int) -> float:
    """Move along an axis, back from the edge of the map; the new coordinate in map units."""
    moved = place[axis] + by
    if not 0 <= moved < _MAP:
        moved = place[axis] - by
    place[axis] = moved
    return moved / 256
