"""A run on Ray from beginning to end: staff it, drive it, go back to the last snapshot when a process is lost, commit.

The driver keeps what must be in one place: the sinks, the checkpoints, the quarantine and the decision to go back. When a
process is lost every part of the run is given a fresh role from the last snapshot, survivors included: one rule for every
kind of loss, and the rows cannot depend on which it was. Without checkpoints the run begins anew, its sinks emptied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..bound import check_budget
from ..checkpointing import Checkpointing
from ..clock import RealClock
from ..deliver import Deliver
from ..errors import PlanError, RunError
from ..graph import Graph
from ..operator import State
from ..options import RunOptions
from ..planning import build_plan
from ..prepare import calibrate
from ..quarantine import Identity, Quarantine
from ..resume import Resumption, open_store
from ..source import SourceSpec
from ..watch import Progress, Watch
from .attempt import Attempt, describe
from .caution import Suspicion
from .connect import spilled_bytes, view
from .hostrun import Status
from .layout import lay_out
from .losses import Lost
from .members import Crew
from .metrics import RunMetrics, run_name
from .scaling import Scaling
from .staffing import budgets_of, default_readers, seats, sources_of

__all__ = ["ClusterRun"]

log = logging.getLogger("penstock")

#: Losses in a row, without a snapshot in between, after which a run gives up.
_PATIENCE = 6


@dataclass
class _Totals:
    """What is counted over all attempts."""

    losses: list[str] = field(default_factory=list)
    moved_bytes: int = 0
    copied_bytes: int = 0
    peak_data: int = 0


class ClusterRun:
    """One run. `drive` returns when every sink has its last row; `close` commits or leaves."""

    def __init__(self, graph: Graph, options: RunOptions) -> None:
        import ray

        self.options, self.clock = options, options.clock or RealClock()
        if options.clock is not None and not isinstance(options.clock, RealClock):
            raise PlanError("the runner 'ray' runs on the real clock; use 'inline' or 'local' with a clock of your own")
        self.cluster = view()
        self.plan = build_plan(graph, 1, apart=True)
        if any(isinstance(node.spec, Deliver) for node in self.plan.nodes):
            raise PlanError(
                "a Python loop runs with runner='local' or 'inline'; end the stream in a sink to run on Ray"
            )
        readers = options.parallelism or default_readers(self.cluster, sources_of(self.plan.nodes))
        self.layout = lay_out(self.plan, readers, self.cluster.resources, paced=options.speed is not None)
        self.bound = check_budget(self.plan, options)
        self.budgets = budgets_of(self.layout, self.cluster, options)
        self.quarantine = _Kept(options.quarantine, remembers=options.checkpoint is not None)
        self.crew = Crew(seats(self.layout, self.cluster), self.layout)
        self.totals = _Totals()
        self.suspicion = Suspicion(ray.get_runtime_context().get_job_id())
        self.scaling = Scaling(self.layout, self.crew, self.suspicion, self.clock)
        self.metrics = RunMetrics(self.layout, self.clock, run_name())
        self.saving: Checkpointing | None = None
        self.attempt: Attempt | None = None
        self.watch: Watch | None = None
        self.first_at = 0
        self._spilled_before = spilled_bytes()
        self._begun = self.clock.monotonic_ns()
        self.started = self._begun
        self.setup_ns = 0
        # last: nothing behind this may fail and leave the store locked
        self.resumption: Resumption | None = open_store(self.plan, options) if options.checkpoint is not None else None

    def drive(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Run to the end, over as many attempts as it takes. Raises the error of a step, or RunError when it gives up."""
        self._check_targets()
        self.crew.call()
        calibration = calibrate(self.plan, self.options)  # while the processes start
        self.crew.hire()
        states: Mapping[str, State] = self.resumption.states if self.resumption is not None else {}
        number, since = 0, 0
        while True:
            number += 1
            written = self.saving.written if self.saving is not None else 0
            try:
                self._begin(number, states, calibration)
                self._follow(progress)
                return
            except Lost as lost:
                if self.saving is not None and self.saving.written > written:
                    since = 0
                since += 1
                self._give_up_if_hopeless(lost, since)
                states, learned = self._go_back(lost)
                since = 0 if learned else since

    def _check_targets(self) -> None:
        from ..run import check_targets

        if self.resumption is None or self.resumption.snapshot is None:
            check_targets(self.plan, resume=self.options.resume)

    def _begin(self, number: int, states: Mapping[str, State], calibration: Mapping[str, Any]) -> None:
        members = self.crew.members()
        attempt = self.attempt = Attempt(
            number, self.layout, members, self.options, self.budgets, states, calibration,
            self.suspicion.cautions(members), self.quarantine, self._told,
        )  # fmt: skip
        self.watch = Watch(attempt.runtime, self._describe_stall, self.watch)
        if self.resumption is not None and self.saving is None:
            self.saving = self.resumption.checkpointing(self.plan, self.options, attempt.runtime)
            self.saving.on_begin = self.quarantine.begin
        elif self.resumption is not None and self.saving is not None:
            self.resumption.attach(self.saving, attempt.runtime)
        attempt.open(self.saving)
        self.scaling.begin(attempt)
        if number == 1:
            self.started = self.clock.monotonic_ns()
            self.setup_ns = self.started - self._begun
            attempt.runtime.started = self.started
        else:
            log.warning("attempt %d goes on from %s", number, self._where())

    def _where(self) -> str:
        return "the beginning" if self.saving is None or not self.saving.can_resume else "the last checkpoint"

    def _follow(self, progress: Callable[[Progress], None] | None) -> None:
        attempt, watch = self.attempt, self.watch
        if attempt is None or watch is None or attempt.local is None:
            raise RunError("the run was not begun")
        while not attempt.finished:
            attempt.local.join(0.04)
            attempt.look()
            self.scaling.look(attempt)
            self.metrics.look(attempt, self.saving)
            watch.look()
            if self.saving is not None:
                rows = sum(counters.rows_in for counters in attempt.runtime.counters(SourceSpec))
                if self.saving.look(attempt.latest(), rows, attempt.ask):
                    self.quarantine.stored()
            if progress is not None:
                progress(watch.progress())
            held = sum(status.data_bytes for status in attempt.statuses.values())
            self.totals.peak_data = max(self.totals.peak_data, held + watch.peak_data)
        attempt.look_last()
        firsts = [cell.first_at for cell in attempt.runtime.sinks() if cell.first_at]
        self.first_at = self.first_at or min(firsts, default=0)
        self._settle(attempt)

    def _told(self, status: Status) -> None:
        for step, record in status.bad:
            self.quarantine.add(step, record)
        if self.saving is not None:
            for number, step, part in status.saved:
                self.saving.saved_bytes(number, step, part)
            for step, part in status.finished:
                self.saving.finished_bytes(step, part)

    def _settle(self, attempt: Attempt) -> None:
        """Add an attempt's counts to the totals."""
        moved, copied = attempt.part.traffic
        self.totals.moved_bytes += moved + sum(status.moved_bytes for status in attempt.statuses.values())
        self.totals.copied_bytes += copied + sum(status.copied_bytes for status in attempt.statuses.values())

    def _give_up_if_hopeless(self, lost: Lost, since: int) -> None:
        if since >= _PATIENCE:
            raise RunError(f"{since} processes were lost in a row without a checkpoint in between; the last: {lost}")

    def _go_back(self, lost: Lost) -> tuple[Mapping[str, State], bool]:
        """After a loss: end the attempt, replace who is gone; where to go on, and whether there is a new suspect."""
        if self.attempt is not None:
            self._settle(self.attempt)
            firsts = [cell.first_at for cell in self.attempt.runtime.sinks() if cell.first_at]
            self.first_at = self.first_at or min(firsts, default=0)
            self.attempt.abandon(keep=self.saving is not None and self.saving.can_resume)
        self.scaling.leave()
        gone = self.crew.muster()
        who = [f"{describe(self.layout, seat)}, pid {pid} on node {node[:8]}" for seat, (pid, node) in gone.items()]
        told = f"lost {'; '.join(who)}" if who else str(lost)
        log.warning("%s", told)
        self.totals.losses.append(told)
        self.metrics.lost(gone)
        learned = self.suspicion.learn(gone)
        self.quarantine.rewind()
        return ({} if self.saving is None else self.saving.rewind()), learned

    def _describe_stall(self) -> str:
        attempt = self.attempt
        if attempt is None:
            return "the run has not begun"
        parts = [
            f"{describe(self.layout, seat)}: {status.stall}"
            for seat, status in attempt.statuses.items()
            if status.stall and not status.ended
        ]
        if attempt.local is not None:
            parts.append(f"driver: {attempt.local.describe_stall()}")
        return " | ".join(parts)

    def close(self, *, commit: bool) -> None:
        """Commit the sinks, or leave them (to a run that resumes, if there is a snapshot); end every process."""
        attempt, saving = self.attempt, self.saving
        try:
            if commit and attempt is not None:
                if saving is not None:
                    saving.store_final()
                attempt.runtime.close(commit=True, keep=saving is not None and saving.can_resume)
            elif attempt is not None:
                attempt.abandon(keep=saving is not None and saving.can_resume)
        finally:
            if attempt is not None:
                self.metrics.look(attempt, saving, last=True)
            self.crew.dismiss()
            self.suspicion.forget()
            if not commit and self.resumption is not None:
                self.resumption.store.close()
            self.quarantine.end(keep=not commit and saving is not None and saving.can_resume)

    def cluster_report(self) -> dict[str, Any]:
        """What the report says of the cluster."""
        before, after = self._spilled_before, spilled_bytes()
        return {
            "nodes": self.cluster.nodes,
            "processes": len(self.crew),
            "restarts": len(self.totals.losses),
            "losses": self.totals.losses[:20],
            "spilled_bytes": None if before is None or after is None else after - before,
            "moved_bytes": self.totals.moved_bytes,
            "copied_bytes": self.totals.copied_bytes,
            "edge_credit_bytes": min(self.budgets.values(), default=0),
            "scaling": self.scaling.report(self.started),
            "run": self.metrics.run,
        }


class _Kept(Quarantine):
    """The quarantine of a run over all its attempts, which may not close it.

    Where there are checkpoints, what came since the last one is remembered: after a loss it comes again. Without, a loss
    empties the quarantine as it does the sinks.
    """

    def __init__(self, path: Any, *, remembers: bool) -> None:
        super().__init__(path)
        self._remembers = remembers
        self._since: list[Identity] = []
        self._mark = 0

    def taken(self, identity: Identity) -> None:
        if self._remembers:
            self._since.append(identity)

    def begin(self) -> None:
        """A checkpoint begins."""
        self._mark = len(self._since)

    def stored(self) -> None:
        """It is stored: what came before it will not come again."""
        del self._since[: self._mark]
        self._mark = 0

    def rewind(self) -> None:
        """The run goes back to its last checkpoint: what came since will come again, and is known then."""
        if not self._remembers:
            self.empty()
        self.expect(self._since)
        self._since, self._mark = [], 0

    def close(self) -> None: ...

    def detach(self) -> None: ...

    def end(self, *, keep: bool) -> None:
        """The run has ended; with `keep` another one goes on with the records."""
        if keep:
            super().detach()
        else:
            super().close()
