"""`Flow.run` on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..accounting import make_report
from ..errors import RunError
from ..graph import Graph
from ..options import RunOptions
from ..report import Report
from ..watch import Progress
from .connect import connected

__all__ = ["run_on_ray"]


def run_on_ray(
    graph: Graph,
    options: RunOptions,
    address: str,
    progress: Callable[[Progress], None] | None = None,
    write_to: str | Path | None = None,
) -> Report:
    """Run `graph` to its end on the cluster at `address`; see `Flow.run`."""
    with connected(address):
        from .session import ClusterRun

        current = ClusterRun(graph, options)
        outcome, error = "failed", None
        try:
            current.drive(progress)
            elapsed = current.clock.monotonic_ns() - current.started
            about = current.cluster_report()
            current.close(commit=True)
            outcome = "completed"
        except BaseException as problem:
            outcome = "stopped" if isinstance(problem, KeyboardInterrupt) else "failed"
            error = str(problem) or type(problem).__name__
            current.close(commit=False)
            if write_to is not None and current.attempt is not None:
                elapsed = current.clock.monotonic_ns() - current.started
                _report(current, outcome, error, elapsed, {}).write(write_to)
            raise
        report = _report(current, outcome, error, elapsed, about)
        if current.saving is not None and current.resumption is not None:
            current.saving.mark_completed(report.data)
            current.resumption.store.close()
    if write_to is not None:
        report.write(write_to)
    return report


def _report(current: Any, outcome: str, error: str | None, elapsed: int, about: dict[str, Any]) -> Report:
    attempt, watch = current.attempt, current.watch
    if attempt is None or watch is None:
        raise RunError("nothing was run")
    if (pacer := attempt.runtime.pacer) is not None:
        pacer.largest_lag_ns = max([pacer.largest_lag_ns, *(s.largest_lag_ns for s in attempt.statuses.values())])
    memory = watch.memory(current.bound)
    memory["peak_data_bytes"] = max(memory["peak_data_bytes"], current.totals.peak_data)
    report = make_report(
        attempt.runtime,
        runner="ray",
        outcome=outcome,
        error=error,
        elapsed_ns=elapsed,
        setup_ns=current.setup_ns,
        memory=memory,
        stalls=watch.stalls,
        checkpoints=current.saving.report() if current.saving is not None else None,
    )
    hops = [status for status in attempt.statuses.values() if status.accelerator is not None]
    delivered = sum(status.delivered_bytes for status in hops)
    copied = sum(stage["bytes_copied"] for stage in report["stages"].values())
    if delivered:
        report.data["copies_per_delivered_byte"] = round(copied / delivered, 4)
    report.data["accelerator"] = dict(hops[0].accelerator) if hops else None
    report.data["first_batch_s"] = round((current.first_at - current.started) / 1e9, 6) if current.first_at else None
    for step, more in current.metrics.stages().items():
        report["stages"][step].update(more)
    report.data["cluster"] = about
    return report
