"""Running a graph from beginning to end: prepare, open, drive, watch, commit, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .accounting import make_report
from .bound import check_budget
from .clock import RealClock
from .errors import GraphError, PlanError
from .graph import Graph
from .inline import step_inline
from .interrupts import first_interrupt
from .local import LocalRun
from .options import RunOptions
from .plan import Plan
from .planning import build_plan
from .prepare import calibrate
from .report import Report
from .runtime import Runtime
from .sink import SinkSpec
from .source import SourceSpec
from .watch import Progress, Watch

if TYPE_CHECKING:  # runs without checkpoints do not load them
    from .checkpointing import Checkpointing
    from .resume import Resumption

__all__ = ["Session", "check_targets", "run", "session"]

log = logging.getLogger("penstock")

#: How long the threads of a run get to notice that it was abandoned.
STOP_SECONDS = 1.5


class Session:
    """One run from preparation to report. Used by `run` and by iteration, which differ in who waits for what."""

    def __init__(self, graph: Graph, runner: str, options: RunOptions) -> None:
        if runner not in ("inline", "local"):
            raise PlanError(f"no runner {runner!r}; there are 'inline', 'local' and 'ray'")
        if runner == "inline":
            options = replace(options, parallelism=1)
        self.runner, self.options = runner, options
        self.plan: Plan = build_plan(graph, options.threads)
        self.bound = check_budget(self.plan, options)
        self.resumption: Resumption | None = None
        if options.checkpoint is not None:
            from .resume import open_store

            self.resumption = open_store(self.plan, options)
        try:
            self._open()
        except BaseException:
            self._close_store()
            raise
        self.outcome = "failed"
        self.error: str | None = None
        self._closed = self._ending = False

    def _open(self) -> None:
        options, before = self.options, self.resumption
        if before is None or before.snapshot is None:
            check_targets(self.plan, resume=options.resume)
        begun = (options.clock or RealClock()).monotonic_ns()
        calibration = calibrate(self.plan, options)
        self.runtime = Runtime(self.plan, options, calibration, before.states if before is not None else None)
        self.runtime.open()
        self.setup_ns = self.runtime.started - begun
        self.checkpointing: Checkpointing | None = None
        if before is not None:
            self.checkpointing = before.checkpointing(self.plan, options, self.runtime)
        self.local = LocalRun(self.runtime) if self.runner == "local" else None
        self.watch = Watch(self.runtime, self.local.describe_stall if self.local else lambda: "the step on the stack")

    def drive(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Run to the end in this thread (inline) or wait for the threads (local). Raises what failed.

        Where no source ends by itself and no snapshots are made, the first Ctrl-C is the end of the sources.
        """
        with first_interrupt(self._end_sources):
            self._drive(progress)

    def _end_sources(self) -> bool:
        """Let the sources end, for whoever was interrupted; False if one would by itself, or the run can be resumed."""
        if self.checkpointing is None:
            self._ending = all(reading.reader.finish() for reading in self.runtime.readings.values())
        return self._ending

    def _tell_ending(self) -> None:
        if self._ending:
            self._ending = False
            log.warning("stopped receiving; a second Ctrl-C gives up")

    def _drive(self, progress: Callable[[Progress], None] | None) -> None:
        if self.local is None:
            for _ in step_inline(self.runtime):
                self._tell_ending()
                self._checkpoint()
                if self.watch.glance() and progress is not None:
                    progress(self.watch.progress())
            self.watch.look()
            return
        self.local.start()
        while not self.local.join(0.04):
            self._tell_ending()
            self.watch.look()
            self._checkpoint()
            if progress is not None:
                progress(self.watch.progress())
        self._tell_ending()
        self.watch.look()
        if self.local.error is not None:
            raise self.local.error

    def _checkpoint(self) -> None:
        """Begin or end a checkpoint if it is time to."""
        if self.checkpointing is None or (self.local is not None and self.local.error is not None):
            return
        from .checkpointing import ask_readings

        readings = self.runtime.readings.values()
        latest = {reading.node.id: reading.latest for reading in readings if not reading.ended}
        rows = sum(reading.metrics.rows_in for reading in readings)
        self.checkpointing.look(latest, rows, ask_readings(readings))
        if self.local is None and any(reading.asked is not None for reading in readings):
            for reading in readings:  # nothing is under way between two blocks: all cut here
                if reading.asked is not None:
                    reading.barrier(reading.asked[0])
            self.checkpointing.look(latest, rows, ask_readings(readings))

    def abandon(self) -> None:
        """Stop all threads; returns when they have ended or had their time."""
        self.runtime.stop.set()
        if self.local is not None:
            self.local.abandon()
            self.local.join(STOP_SECONDS)

    def close(self, *, commit: bool) -> None:
        """Commit or abort the sinks (or leave them to a run that resumes) and release everything, once."""
        if self._closed:
            return
        self._closed = True
        saving = self.checkpointing
        try:
            if saving is not None and commit:
                saving.store_final()
            self.runtime.close(commit=commit, keep=saving is not None and saving.can_resume)
        except BaseException:
            self._close_store()
            raise
        if not commit:
            self._close_store()

    def _close_store(self) -> None:
        if self.resumption is not None:
            self.resumption.store.close()

    def finish(self, report: Report) -> None:
        """Everything is under final names: note it where a resumed run would look."""
        if self.checkpointing is not None:
            self.checkpointing.mark_completed(report.data)
            self._close_store()

    def report(self, elapsed_ns: int) -> Report:
        """What was counted so far."""
        return make_report(
            self.runtime,
            runner=self.runner,
            outcome=self.outcome,
            error=self.error,
            elapsed_ns=elapsed_ns,
            setup_ns=self.setup_ns,
            memory=self.watch.memory(self.bound),
            stalls=self.watch.stalls,
            checkpoints=self.checkpointing.report() if self.checkpointing is not None else None,
        )


def check_targets(plan: Plan, *, resume: bool) -> None:
    """Raise GraphError, naming the step, if a sink, or the recording of a source, cannot be written where it is to.

    With `resume` a recording may be there: the run that goes on, even if from the beginning, goes on beside it.
    """
    for node in plan.nodes:
        if isinstance(node.spec, SinkSpec) or (isinstance(node.spec, SourceSpec) and not resume):
            try:
                node.spec.check_target()
            except GraphError as error:
                raise GraphError(str(error), stage=node.id, where=str(node.site)) from error


@contextmanager
def session(graph: Graph, runner: str, options: RunOptions) -> Iterator[Session]:
    """A session that is abandoned and aborted if its block is left by an exception."""
    current = Session(graph, runner, options)
    try:
        yield current
    except BaseException:
        current.abandon()
        current.close(commit=False)
        raise


def run(
    graph: Graph,
    runner: str,
    options: RunOptions,
    progress: Callable[[Progress], None] | None = None,
    write_to: str | Path | None = None,
) -> Report:
    """Run `graph` to its end; see `Flow.run`. The report of a run that fails or is stopped is written too."""
    with session(graph, runner, options) as current:
        clock = current.runtime.clock.monotonic_ns
        try:
            current.drive(progress)
            elapsed = clock() - current.runtime.started
            if options.ceiling:
                current.runtime.measure_ceilings()
            current.close(commit=True)
        except BaseException as error:
            current.abandon()
            current.outcome = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            current.error = str(error) or type(error).__name__
            if write_to is not None:
                current.report(clock() - current.runtime.started).write(write_to)
            raise
        current.outcome = "completed"
        report = current.report(elapsed)
        current.finish(report)
    if write_to is not None:
        report.write(write_to)
    return report
