"""Carrying out what `autoscale` decides: processes join a pool when they are ready, and leave it when their calls are done.

Nothing here waits. A newcomer says hello, takes up its role, and only then is one of the pool's; until then nobody depends
on it, and if it dies or the run goes back it is forgotten. One that is to go gets no more calls, and ends when those under
way have come back. A pool keeps the processes it began with; what a loss takes of the others is not replaced but decided
anew.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from ..clock import Clock
from ..plan import Stage
from .attempt import Attempt
from .autoscale import Decision, Observation, Scaler
from .caution import Suspicion
from .layout import Layout
from .losses import first_line
from .members import Crew
from .queues import pool_loads, waiting
from .staffing import Seat

__all__ = ["Scaling"]

log = logging.getLogger("penstock")

_EVERY_NS = 1_000_000_000
#: What comes behind counts as full when giving it batches takes this part of the time, or its queue is so full.
_GIVING, _FULL, _FULL_ITEMS = 0.25, 0.75, 24


@dataclass(eq=False)
class _Pool:
    stage: Stage
    scaler: Scaler
    #: Who is on the way, by the reference that says how far: its hello, then its role.
    greeted: dict[Any, Seat] = field(default_factory=dict)
    briefed: dict[Any, Seat] = field(default_factory=dict)
    leaving: list[Seat] = field(default_factory=list)
    resizing: Any = None
    outdated: bool = False
    gave_ns: int = 0
    looked_at: int = 0


class Scaling:
    """The pools of a run that may grow and shrink; `look` is called by the thread that waits for the run."""

    def __init__(self, layout: Layout, crew: Crew, suspicion: Suspicion, clock: Clock) -> None:
        self._layout, self._crew, self._suspicion, self._clock = layout, crew, suspicion, clock
        self._pools = [
            _Pool(layout.stage(index), Scaler(layout.pools[index], most)) for index, most in layout.most.items()
        ]
        self._decided: list[tuple[str, Decision]] = []

    def begin(self, attempt: Attempt) -> None:
        """An attempt has begun."""
        now = self._clock.monotonic_ns()
        for pool in self._pools:
            pool.scaler.begin(len(attempt.pool(pool.stage.index)))
            pool.gave_ns, pool.looked_at = self._given_ns(attempt, pool), now

    def look(self, attempt: Attempt) -> None:
        """Go on with what is under way; decide once a second. Raises Lost."""
        now = self._clock.monotonic_ns()
        for pool in self._pools:
            self._welcome(attempt, pool)
            self._resize(attempt, pool)
            if now - pool.looked_at >= _EVERY_NS:
                decision = self._decide(attempt, pool, now)
                pool.looked_at = now
                pool.outdated = pool.outdated or bool(pool.leaving)
                if decision is not None:
                    self._carry_out(attempt, pool, decision)

    def leave(self) -> None:
        """The attempt is over: forget who has not joined yet, end who was to go."""
        for pool in self._pools:
            for seat in (*pool.greeted.values(), *pool.briefed.values(), *pool.leaving):
                self._crew.remove(seat)
            pool.greeted.clear()
            pool.briefed.clear()
            pool.leaving.clear()
            pool.resizing, pool.outdated = None, False

    def report(self, started_ns: int) -> list[dict[str, Any]]:
        """Every decision: time_s since `started_ns`, step, before, after, why."""
        return [
            {
                "time_s": round((decision.time_ns - started_ns) / 1e9, 3),
                "step": step,
                "before": decision.before,
                "after": decision.after,
                "why": decision.why,
            }
            for step, decision in self._decided
        ]

    def _decide(self, attempt: Attempt, pool: _Pool, now: int) -> Decision | None:
        load = pool_loads(attempt).get(pool.stage.index)
        if load is None:
            return None
        queues = waiting(attempt)
        items, nbytes = queues.get(pool.stage.entry.id, (0, 0))
        gave = self._given_ns(attempt, pool)
        giving = (gave - pool.gave_ns) / (now - pool.looked_at)
        pool.gave_ns = gave
        return pool.scaler.decide(
            Observation(
                time_ns=now,
                workers=load.workers,
                queue_items=items,
                queue_bytes=nbytes,
                calls_done=load.calls_done,
                busy_ns=load.occupied_ns,
                downstream_full=giving > _GIVING or self._is_full_behind(attempt, pool, queues),
            )
        )

    def _given_ns(self, attempt: Attempt, pool: _Pool) -> int:
        return attempt.runtime.metrics[pool.stage.nodes[-1].id].wait_output_ns

    def _is_full_behind(self, attempt: Attempt, pool: _Pool, queues: dict[str, tuple[int, int]]) -> bool:
        budget = attempt.options.edge_budget
        behind = [queues.get(node.id, (0, 0)) for node, _ in self._layout.plan.consumers(pool.stage.nodes[-1])]
        return any(items >= _FULL_ITEMS or nbytes >= _FULL * budget for items, nbytes in behind)

    def _carry_out(self, attempt: Attempt, pool: _Pool, decision: Decision) -> None:
        entry, stage = pool.stage.entry, pool.stage.index
        log.info("step %r: %d -> %d processes: %s", entry.id, decision.before, decision.after, decision.why)
        self._decided.append((entry.id, decision))
        for coming in (pool.greeted, pool.briefed):
            for seat in coming.values():
                self._crew.remove(seat)
            coming.clear()
        there = attempt.pool(stage)
        taken = {seat.number for seat in (*there, *pool.leaving)}
        free = (number for number in itertools.count(self._layout.pools[stage]) if number not in taken)
        for number in itertools.islice(free, max(0, decision.after - len(there))):
            seat = Seat("pool", str(stage), number, there[0].options)
            pool.greeted[self._crew.add(seat)] = seat
        for seat in there[decision.after :]:
            attempt.release(seat)
            pool.leaving.append(seat)
            pool.outdated = True

    def _welcome(self, attempt: Attempt, pool: _Pool) -> None:
        for reference, seat in _ready(pool.greeted):
            if (who := self._answer(reference, seat)) is not None:
                self._crew.pids[seat] = who
                caution = self._suspicion.cautions([seat])[seat]
                pool.briefed[attempt.brief(seat, self._crew.members()[seat], caution)] = seat
        for reference, seat in _ready(pool.briefed):
            if self._answer(reference, seat, ()) is not None:
                attempt.admit(seat, self._crew.members()[seat])
                pool.outdated = True

    def _answer(self, reference: Any, seat: Seat, otherwise: Any = None) -> Any:
        """What a newcomer says; None if it is gone, and `otherwise` if it says nothing."""
        try:
            said = ray.get(reference)
        except RayError as error:
            log.warning("a new process of step %s did not come: %s", seat.serves, first_line(error))
            self._crew.remove(seat)
            return None
        return otherwise if said is None else said

    def _resize(self, attempt: Attempt, pool: _Pool) -> None:
        """Tell the pool's host who is there, one call at a time; end those who are to go once no calls are with them."""
        if pool.resizing is not None:
            under_way = attempt.resized(pool.resizing)
            if under_way is None:
                return
            pool.resizing = None
            if not under_way and not pool.outdated:
                for seat in pool.leaving:
                    self._crew.remove(seat)
                pool.leaving = []
        if pool.outdated:
            pool.resizing, pool.outdated = attempt.resize(pool.stage.index), False


def _ready(coming: dict[Any, Seat]) -> list[tuple[Any, Seat]]:
    """Take out those whose reference is ready."""
    if not coming:
        return []
    ready, _ = ray.wait(list(coming), num_returns=len(coming), timeout=0)
    return [(reference, coming.pop(reference)) for reference in ready]
