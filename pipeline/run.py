"""Running a graph from beginning to end: prepare, open, drive, watch, commit, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .accounting import make_report
from .bound import check_budget
from .clock import RealClock
from .errors import GraphError, PlanError
from .graph import Graph
from .inline import step_inline
from .local import LocalRun
from .options import RunOptions
from .plan import Node, Plan
from .planning import build_plan
from .prepare import calibrate
from .report import Report
from .runtime import Runtime
from .sink import SinkSpec
from .watch import Progress, Watch

__all__ = ["Session", "run", "session"]

#: How long the threads of a run get to notice that it was abandoned.
STOP_SECONDS = 1.5


class Session:
    """One run from preparation to report. Used by `run` and by iteration, which differ in who waits for what."""

    def __init__(self, graph: Graph, runner: str, options: RunOptions) -> None:
        if runner not in ("inline", "local"):
            raise PlanError(f"no runner {runner!r}; there are 'inline' and 'local'")
        if runner == "inline":
            options = replace(options, parallelism=1)
        self.runner, self.options = runner, options
        self.plan: Plan = build_plan(graph, options.threads)
        self.bound = check_budget(self.plan, options)
        for node in self.plan.nodes:
            if isinstance(node.spec, SinkSpec):
                _check_target(node, node.spec)
        begun = (options.clock or RealClock()).monotonic_ns()
        calibration = calibrate(self.plan, options)
        self.runtime = Runtime(self.plan, options, calibration)
        self.runtime.open()
        self.setup_ns = self.runtime.started - begun
        self.local = LocalRun(self.runtime) if runner == "local" else None
        self.watch = Watch(self.runtime, self.local.describe_stall if self.local else lambda: "the step on the stack")
        self.outcome = "failed"
        self.error: str | None = None
        self._closed = False

    def drive(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Run to the end in this thread (inline) or wait for the threads (local). Raises what failed."""
        if self.local is None:
            for _ in step_inline(self.runtime):
                if self.watch.glance() and progress is not None:
                    progress(self.watch.progress())
            self.watch.look()
            return
        self.local.start()
        while not self.local.join(0.04):
            self.watch.look()
            if progress is not None:
                progress(self.watch.progress())
        self.watch.look()
        if self.local.error is not None:
            raise self.local.error

    def abandon(self) -> None:
        """Stop all threads; returns when they have ended or had their time."""
        self.runtime.stop.set()
        if self.local is not None:
            self.local.abandon()
            self.local.join(STOP_SECONDS)

    def close(self, *, commit: bool) -> None:
        """Commit or abort the sinks and release everything, once."""
        if not self._closed:
            self._closed = True
            self.runtime.close(commit=commit)

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
        )


def _check_target(node: Node, sink: SinkSpec) -> None:
    try:
        sink.check_target()
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
    if write_to is not None:
        report.write(write_to)
    return report
