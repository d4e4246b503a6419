"""The processes of a run as the driver has them: hired, counted after a loss, replaced, dismissed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from ..errors import RunError
from ..load import import_folders
from .layout import Layout
from .member import create
from .staffing import Seat

__all__ = ["Crew"]

#: Seconds until processes have to be up: Ray may have to start workers, and nodes to import libraries.
_START = 120.0
#: Seconds that a process gets to say that it is there.
_ANSWER = 5.0


class Crew:
    """One actor a seat."""

    def __init__(self, seats: Sequence[Seat], layout: Layout) -> None:
        self._seats, self._layout = list(seats), layout
        self._actors: dict[Seat, Any] = {}
        self._added: set[Seat] = set()
        self._coming: dict[Seat, Any] = {}
        self.pids: dict[Seat, tuple[int, str]] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def members(self) -> Mapping[Seat, Any]:
        """The actor of each seat."""
        return dict(self._actors)

    def call(self, *, again: bool = False) -> None:
        """Fill every empty seat (`again`: after a loss) without waiting for anyone."""
        folders = import_folders()
        for seat in [seat for seat in self._seats if seat not in self._actors]:
            actor = self._actors[seat] = create(**(seat.replacement if again else seat.options))
            self._coming[seat] = actor.hello.remote(folders, self._layout.imports(seat.kind, seat.serves))

    def hire(self, *, again: bool = False) -> None:
        """Fill every empty seat (`again`: after a loss) and wait until everyone is there.

        Raises RunError if the cluster has no room.
        """
        self.call(again=again)
        waiting = {reference: seat for seat, reference in self._coming.items()}
        self._coming.clear()
        ready, late = ray.wait(list(waiting), num_returns=len(waiting), timeout=_START) if waiting else ([], [])
        for reference in ready:
            with contextlib.suppress(RayError):
                self.pids[waiting[reference]] = ray.get(reference)
        if late:
            seat = waiting[late[0]]
            raise RunError(
                f"the cluster has not started {len(late)} of {len(waiting)} processes in {_START:.0f} s, such as "
                f"{seat.kind} {seat.serves!r} which needs {dict(seat.options)}; free: {ray.available_resources()}"
            )

    def muster(self) -> dict[Seat, tuple[int, str]]:
        """After a loss: dismiss whoever does not answer, hire others; those who are gone with process id and node.

        Who came by `add` is not replaced.
        """
        asked = {actor.leave.remote(): seat for seat, actor in self._actors.items()}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER)
        gone = {}
        for reference, seat in asked.items():
            there = reference in ready
            if there:
                try:
                    ray.get(reference, timeout=_ANSWER)
                except (RayError, GetTimeoutError):
                    there = False
            if not there:
                gone[seat] = self.pids.pop(seat, (0, ""))
                self._end(self._actors.pop(seat))
        self._seats = [seat for seat in self._seats if seat in self._actors or seat not in self._added]
        self.hire(again=True)
        return gone

    def add(self, seat: Seat) -> Any:
        """One process more, without waiting for it; its process id and node as a reference."""
        self._seats.append(seat)
        self._added.add(seat)
        actor = self._actors[seat] = create(**seat.options)
        return actor.hello.remote(import_folders())

    def remove(self, seat: Seat) -> None:
        """One process less."""
        self._seats.remove(seat)
        self._added.discard(seat)
        self.pids.pop(seat, None)
        self._end(self._actors.pop(seat))

    def dismiss(self) -> None:
        """End every process."""
        for actor in self._actors.values():
            self._end(actor)
        self._actors.clear()

    def _end(self, actor: Any) -> None:
        with contextlib.suppress(Exception):
            ray.kill(actor, no_restart=True)
