"""One attempt to run a layout from a snapshot to the end; it ends when the run does, or when a process is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from ..checkpointing import Checkpointing
from ..local import LocalRun
from ..operator import State
from ..options import RunOptions
from ..quarantine import Quarantine
from ..runtime import Runtime
from ..state_codec import encode_state
from .caution import Caution
from .hostrun import HostSetup, Status
from .layout import DRIVER, Layout
from .losses import Lost, loss_of, step_error
from .member import Handle, PartRole, PoolRole, ReadRole, Role
from .opening import Opening
from .outbox import LARGEST
from .part import Part, Staff
from .staffing import Seat

__all__ = ["SILENCE", "Attempt", "describe"]

log = logging.getLogger("penstock")

#: Seconds that a process gets to answer, and to open what it is told to (a model may be loaded).
_ANSWER = 10.0
_OPEN = 300.0
#: Seconds between two questions to a host, and to others, of whom only their silence is news; for each process that there
#: is it is a little more, so that the driver spends a fraction of its time on asking, however large the cluster.
_ASK_HOSTS, _ASK_OTHERS, _ASK_MORE = 0.1, 4.0, 0.001
#: Seconds without an answer to a question after which a process counts as lost although nobody has seen it die.
SILENCE = 10.0


class Attempt:
    """Members in their roles, and the driver's own part."""

    def __init__(
        self,
        number: int,
        layout: Layout,
        members: Mapping[Seat, Any],
        options: RunOptions,
        budgets: Mapping[str, int],
        states: Mapping[str, State],
        calibration: Mapping[str, Any],
        cautions: Mapping[Seat, Caution],
        quarantine: Quarantine,
        told: Callable[[Status], None],
    ) -> None:
        self.number, self.layout, self.options = number, layout, options
        self.handles = {seat: Handle(actor, number) for seat, actor in members.items()}
        self._budgets, self._cautions, self._told = budgets, cautions, told
        self._encoded = {step: encode_state(state) for step, state in states.items()}
        self._calibration = calibration
        self._stored_layout = ray.put(layout)
        self.statuses: dict[Seat, Status] = {}
        self._asking: dict[Any, tuple[Seat, int]] = {}
        self._due: dict[Seat, int] = {}
        self.staff = Staff()
        for seat, handle in self.handles.items():
            if seat.kind == "host":
                self.staff.hosts[int(seat.serves)] = handle
            elif seat.kind == "reader":
                self.staff.readers.setdefault(seat.serves, []).append(handle)
            elif seat.kind == "pool":
                self.staff.pools.setdefault(int(seat.serves), []).append(handle)
            else:
                self.staff.parts.setdefault(seat.serves, []).append(handle)
        part = Part(layout, DRIVER, self.staff, budgets=budgets, get=ray.get)
        self.part = part
        own = replace(options, quarantine=None)
        self.runtime = Runtime(layout.plan, own, {}, states, part)
        self.runtime.quarantine = quarantine
        self.local: LocalRun | None = None

    def open(self, saving: Checkpointing | None) -> None:
        """Give everyone a role, and begin. Raises Lost, or what could not be opened.

        A host gets its role when those who serve it have theirs, and begins when the hosts it pulls from have theirs: so
        what is read and decoded fills the edges while a model is still being loaded.
        """
        opening = Opening(self.layout, self.handles)
        under_way: dict[Any, tuple[Seat, bool]] = {}
        while True:
            for seat in opening.to_brief():
                become = self.handles[seat].actor.become
                under_way[become.remote(self.number, self._role(seat, saving is not None), self._stored_layout)] = (
                    seat,
                    True,
                )
            for seat in opening.to_start():
                under_way[self.handles[seat].actor.start.remote(self.number)] = seat, False
            if not under_way:
                break
            ready, _ = ray.wait(list(under_way), timeout=_OPEN)
            if not ready:
                late = ", ".join(sorted({describe(self.layout, seat) for seat, _ in under_way.values()}))
                raise Lost(f"{late} could not begin within {_OPEN:.0f} s")
            self._get(ready, _ANSWER)
            for reference in ready:
                seat, briefed = under_way.pop(reference)
                if briefed:
                    opening.briefed.add(seat)
        self.runtime.open()
        if saving is not None:
            self.runtime.save_to(saving)
        self.local = LocalRun(self.runtime)
        self.local.start()

    def _role(self, seat: Seat, saves: bool) -> Role:
        layout = self.layout
        if seat.kind == "reader":
            return ReadRole(
                seat.serves, self._budgets[seat.serves], self._budgets[LARGEST], self._cautions.get(seat, Caution())
            )
        if seat.kind == "pool":
            return PoolRole(int(seat.serves), self._cautions.get(seat, Caution()))
        if seat.kind == "part":
            return PartRole(seat.serves)
        here = {node.id for stage in layout.hosts[int(seat.serves)].stages for node in stage.nodes}
        return HostSetup(
            int(seat.serves),
            self.staff,
            replace(self.options, quarantine=None, checkpoint=None, resume=False, clock=None),
            self._budgets,
            {step: part for step, part in self._encoded.items() if step in here},
            {step: batches for step, batches in self._calibration.items() if step in here},
            saves,
            self._cautions.get(seat, Caution()),
        )

    def _get(self, references: Sequence[Any], timeout: float) -> list[Any]:
        try:
            return list(ray.get(list(references), timeout=timeout))
        except RayError as error:
            self._raise(error)
            raise

    def look(self) -> None:
        """Take in what the processes report. Raises Lost, or the error of a step."""
        if self.local is not None and self.local.error is not None:
            self._raise(self.local.error)
        now = self.runtime.clock.monotonic_ns()
        busy = {seat for seat, _ in self._asking.values()}
        more = len(self.handles) * _ASK_MORE
        for seat, handle in self.handles.items():
            if seat not in busy and now >= self._due.get(seat, 0):
                self._due[seat] = now + int(1e9 * (more + (_ASK_HOSTS if seat.kind == "host" else _ASK_OTHERS)))
                self._asking[handle.actor.status.remote(self.number)] = (seat, now)
        ready, _ = ray.wait(list(self._asking), num_returns=len(self._asking), timeout=0)
        for reference in ready:
            seat, _ = self._asking.pop(reference)
            try:
                status: Status = ray.get(reference)
            except RayError as error:
                self._raise(error, f"the process of {describe(self.layout, seat)} is gone: ")
                raise
            self._take(seat, status)
        for seat, asked in self._asking.values():
            if now - asked > SILENCE * 1e9:
                raise Lost(f"the process of {describe(self.layout, seat)} has not answered for {SILENCE:.0f} s")

    def _take(self, seat: Seat, status: Status) -> None:
        self.statuses[seat] = status
        for step, saved in status.metrics.items():
            self.runtime.metrics[step].load(saved)
        self._told(status)
        if status.lost is not None:
            raise Lost(status.lost)
        if status.error is not None:
            raise status.error

    def _raise(self, error: BaseException, what: str = "") -> None:
        lost = loss_of(error)
        if lost is not None:
            raise Lost(what + lost) from error
        raise step_error(error)

    def look_last(self) -> None:
        """The last word of everyone, after the end."""
        hosts = {seat: handle for seat, handle in self.handles.items() if seat.kind == "host"}
        answers = self._get([handle.actor.status.remote(self.number) for handle in hosts.values()], _OPEN)
        for seat, status in zip(hosts, answers, strict=True):
            self._take(seat, status)

    @property
    def finished(self) -> bool:
        """Whether every sink has taken its last row, and every host is done."""
        if self.local is None or not self.local.finished.is_set():
            return False
        hosts = [seat for seat in self.handles if seat.kind == "host"]
        return all(seat in self.statuses and self.statuses[seat].ended for seat in hosts)

    def latest(self) -> dict[str, int]:
        """The newest event time by source, of those that have not ended."""
        found = {node.id: r.latest for node, r in self.runtime.readings.items() if not r.ended}
        for seat, status in self.statuses.items():
            if seat.kind == "host":
                found.update(status.latest)
        return found

    def ask(self, number: int, times: Mapping[str, int]) -> None:
        """Let every source cut checkpoint `number`."""
        for node, reading in self.runtime.readings.items():
            if node.id in times and not reading.ended:
                reading.asked = (number, times[node.id])
        for seat, handle in self.handles.items():
            if seat.kind == "host":
                handle.ask(number, times)

    def pool(self, stage: int) -> list[Seat]:
        """Who is in the pool of a stage."""
        seats = [seat for seat in self.handles if seat.kind == "pool" and int(seat.serves) == stage]
        return sorted(seats, key=lambda seat: seat.number)

    def brief(self, seat: Seat, actor: Any, caution: Caution) -> Any:
        """Give a newcomer its role; the reference is ready when it has taken it up."""
        self._cautions = {**self._cautions, seat: caution}
        return actor.become.remote(self.number, self._role(seat, False), self._stored_layout)

    def admit(self, seat: Seat, actor: Any) -> None:
        """A newcomer with a role is one of us from now on."""
        self.handles[seat] = Handle(actor, self.number)

    def release(self, seat: Seat) -> None:
        """Nothing is expected of this one any more."""
        del self.handles[seat]
        self.statuses.pop(seat, None)
        self._asking = {reference: asked for reference, asked in self._asking.items() if asked[0] != seat}

    def resize(self, stage: int) -> Any:
        """Tell the host of a pool who is in it; `resized` has the answer."""
        workers = self.staff.pools[stage] = [self.handles[seat] for seat in self.pool(stage)]
        host = self.layout.host_of(self.layout.stage(stage).entry).index
        if host == DRIVER:
            return self.part.pools[stage].resize(workers)
        return self.staff.hosts[host].resize(stage, workers)

    def resized(self, answer: Any) -> int | None:
        """How many calls are still with those who left the pool; None while there is no answer. Raises Lost."""
        if isinstance(answer, int):
            return answer
        ready, _ = ray.wait([answer], timeout=0)
        return int(self._get(ready, _ANSWER)[0]) if ready else None

    def abandon(self, *, keep: bool) -> None:
        """Stop the driver's part; the others are told to leave."""
        self.runtime.stop.set()
        if self.local is not None:
            self.local.abandon()
        self.part.wake()
        if self.local is not None:
            self.local.join(2.0)
        try:
            self.runtime.close(commit=False, keep=keep)
        except Exception:
            log.exception("what the sinks had staged could not be put away")


def describe(layout: Layout, seat: Seat) -> str:
    """A seat for people."""
    if seat.kind == "host":
        return f"host {layout.hosts[int(seat.serves)].name!r}"
    if seat.kind == "pool":
        return f"step {layout.stage(int(seat.serves)).entry.id!r} (worker {seat.number + 1})"
    return f"step {seat.serves!r} ({'reader' if seat.kind == 'reader' else 'part'} {seat.number + 1})"
