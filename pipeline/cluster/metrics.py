"""What a run on Ray tells Prometheus, under names that stay.

The driver feeds Ray's metrics about once a second; Ray sends them every ten seconds (``RAY_metrics_report_interval_ms``)
and when the driver ends to the agent of the driver's node, whose endpoint (``MetricsExportPort`` in ``ray.nodes()``)
Prometheus reads. Ray puts ``ray_`` before each name. Names, help and labels are in `METRICS` and
`LABELS`; the same counts are in the run report::

    metric                              labels              the report's key
    penstock_rows_total                 run, step           stages.STEP.rows_in
    penstock_bytes_total                run, step           stages.STEP.bytes_in
    penstock_batches_total              run, step           stages.STEP.batches_in
    penstock_queue_items                run, step           stages.STEP.queue_peak_items (the largest seen)
    penstock_queue_bytes                run, step           stages.STEP.queue_peak_bytes (the largest seen)
    penstock_busy_seconds_total         run, step           stages.STEP.busy_s
    penstock_wait_seconds_total         run, step, what     stages.STEP.wait_input_s, wait_output_s
    penstock_quarantined_total          run, step           stages.STEP.quarantined
    penstock_late_rows_total            run, step           stages.STEP.late_rows
    penstock_restarts_total             run, step           stages.STEP.restarts; cluster.restarts where step is empty
    penstock_checkpoints_total          run, step (empty)   checkpoints.written
    penstock_checkpoint_seconds         run, step (empty)   checkpoints.longest_s
    penstock_accelerator_wait_ratio     run, step           accelerator.wait_share

A run that goes back counts again from its snapshot. A counter stands still until it has passed what it had reached: it
never falls, and ends with what the report says, each row counted once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ..checkpointing import Checkpointing
from ..clock import Clock
from .attempt import Attempt
from .hostrun import head_nodes
from .layout import Layout
from .queues import waiting
from .staffing import Seat

__all__ = ["LABELS", "METRICS", "Export", "RunMetrics", "Sample", "run_name"]

#: Every metric and what it is. What ends in ``_total`` is a counter, the others are gauges.
METRICS: Mapping[str, str] = {
    "penstock_rows_total": "Rows that came into the step (of a source: records read)",
    "penstock_bytes_total": "Bytes that came into the step",
    "penstock_batches_total": "Batches that came into the step",
    "penstock_queue_items": "Batches and marks that wait in front of the step",
    "penstock_queue_bytes": "Bytes that wait in front of the step",
    "penstock_busy_seconds_total": "Seconds at work, of all threads and processes of the step",
    "penstock_wait_seconds_total": "Seconds of waiting for input or for room at the output",
    "penstock_quarantined_total": "Records put into quarantine",
    "penstock_late_rows_total": "Rows behind the watermark",
    "penstock_restarts_total": "Lost processes of the step; without a step: how often the run went back",
    "penstock_checkpoints_total": "Checkpoints stored",
    "penstock_checkpoint_seconds": "The longest checkpoint, from asking for barriers to stored",
    "penstock_accelerator_wait_ratio": "The part of the time that the accelerator waited for input",
}

#: Labels of each metric; `step` is empty where a metric is of the whole run.
LABELS: Mapping[str, tuple[str, ...]] = {
    name: ("run", "step", "what") if name == "penstock_wait_seconds_total" else ("run", "step") for name in METRICS
}

_EVERY_NS = 1_000_000_000
_runs = itertools.count(1)


class Sample(NamedTuple):
    """The value of a metric, for a step and perhaps a kind (`what`) of it."""

    name: str
    step: str
    value: float
    what: str = ""


class Instrument(Protocol):
    """A metric of Ray's."""

    def record(self, value: float, labels: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge."""


def run_name() -> str:
    """The label of the next run of this process: Ray's number of the job, and a count."""
    import ray

    return f"{ray.get_runtime_context().get_job_id()}-{next(_runs)}"


class Export:
    """Hands samples to metrics that `make` makes of a name; counters only ever grow."""

    def __init__(self, run: str, make: Callable[[str], Instrument]) -> None:
        self._run, self._make = run, make
        self._instruments: dict[str, Instrument] = {}
        self._reached: dict[Sample, float] = {}

    def publish(self, samples: Iterable[Sample]) -> None:
        """Add what counters have gained over the most they ever had; set gauges."""
        for sample in samples:
            value = sample.value
            if sample.name.endswith("_total"):
                series = sample._replace(value=0)
                reached = self._reached.get(series, 0.0)
                value = sample.value - reached
                if value <= 0:
                    continue
                self._reached[series] = sample.value
            if sample.name not in self._instruments:
                self._instruments[sample.name] = self._make(sample.name)
            labels = {"run": self._run, "step": sample.step}
            if sample.what:
                labels["what"] = sample.what
            self._instruments[sample.name].record(value, labels)


class RunMetrics:
    """The metrics of one run over all its attempts; `look` is called by the thread that waits for the run."""

    def __init__(self, layout: Layout, clock: Clock, run: str, make: Callable[[str], Instrument] | None = None) -> None:
        self.run = run
        self._layout, self._clock = layout, clock
        self._export = Export(run, make or _ray_metric)
        self._looked_at = clock.monotonic_ns()
        self._peaks: dict[str, tuple[int, int]] = {}
        self._lost: dict[str, int] = {}

    def look(self, attempt: Attempt, saving: Checkpointing | None, *, last: bool = False) -> None:
        """See what waits; once a second, and at the `last` look, tell everything."""
        queues = waiting(attempt)
        for step, (items, nbytes) in queues.items():
            before = self._peaks.get(step, (0, 0))
            self._peaks[step] = (max(before[0], items), max(before[1], nbytes))
        now = self._clock.monotonic_ns()
        if last or now - self._looked_at >= _EVERY_NS:
            self._looked_at = now
            self._export.publish(self._samples(attempt, queues, saving))

    def lost(self, seats: Iterable[Seat]) -> None:
        """The run went back because these processes were lost."""
        steps = dict.fromkeys(["", *(step for seat in seats for step in self._steps_of(seat))])
        for step in steps:
            self._lost[step] = self._lost.get(step, 0) + 1

    def stages(self) -> dict[str, dict[str, int]]:
        """What the report says of each step beside its counters."""
        found = {}
        for node in self._layout.plan.nodes:
            items, nbytes = self._peaks.get(node.id, (0, 0))
            restarts = self._lost.get(node.id, 0)
            found[node.id] = {"queue_peak_items": items, "queue_peak_bytes": nbytes, "restarts": restarts}
        return found

    def _steps_of(self, seat: Seat) -> list[str]:
        """The steps that the process at `seat` runs."""
        layout = self._layout
        if seat.kind == "host":
            return [node.id for stage in layout.hosts[int(seat.serves)].stages for node in stage.nodes]
        if seat.kind == "pool":
            stage = layout.stage(int(seat.serves))
            return [node.id for node in stage.nodes[: stage.head]]
        if seat.kind == "reader":
            source = next(node for node in layout.plan.nodes if node.id == seat.serves)
            return [node.id for node in (source, *head_nodes(layout, source))]
        return [seat.serves]

    def _samples(
        self, attempt: Attempt, queues: Mapping[str, tuple[int, int]], saving: Checkpointing | None
    ) -> Iterator[Sample]:
        for step, counted in attempt.runtime.metrics.items():
            yield Sample("penstock_rows_total", step, counted.rows_in)
            yield Sample("penstock_bytes_total", step, counted.bytes_in)
            yield Sample("penstock_batches_total", step, counted.batches_in)
            yield Sample("penstock_busy_seconds_total", step, counted.busy_ns / 1e9)
            yield Sample("penstock_wait_seconds_total", step, counted.wait_input_ns / 1e9, "input")
            yield Sample("penstock_wait_seconds_total", step, counted.wait_output_ns / 1e9, "output")
            yield Sample("penstock_quarantined_total", step, counted.quarantined)
            yield Sample("penstock_late_rows_total", step, counted.late_rows)
        for step, (items, nbytes) in queues.items():
            yield Sample("penstock_queue_items", step, items)
            yield Sample("penstock_queue_bytes", step, nbytes)
        for step, times in self._lost.items():
            yield Sample("penstock_restarts_total", step, times)
        if saving is not None:
            yield Sample("penstock_checkpoints_total", "", saving.written)
            yield Sample("penstock_checkpoint_seconds", "", saving.longest_ns / 1e9)
        for status in attempt.statuses.values():
            if status.accelerator is not None:
                found = status.accelerator
                yield Sample("penstock_accelerator_wait_ratio", str(found["step"]), float(found["wait_share"]))


class _RayMetric:
    """A counter or a gauge of Ray's in one call."""

    def __init__(self, name: str) -> None:
        from ray.util.metrics import Counter, Gauge

        kind: Any = Counter if name.endswith("_total") else Gauge
        metric = kind(name, METRICS[name], tag_keys=LABELS[name])
        self._record: Callable[[float, dict[str, str]], None] = metric.inc if kind is Counter else metric.set

    def record(self, value: float, labels: Mapping[str, str]) -> None:
        self._record(value, dict(labels))


def _ray_metric(name: str) -> Instrument:
    return _RayMetric(name)
