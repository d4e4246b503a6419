"""Names of metrics stay, counters never fall, and what Prometheus would read is what the report says."""

from __future__ import annotations

import math
import re
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock import ops, read, sinks
from penstock.ops import agg
from penstock.pipeline.cluster import metrics
from penstock.pipeline.cluster.metrics import LABELS, METRICS, Export, Sample
from penstock.sources import Rows
from ray_runs import connection
from streams import identity, recording

NAMES = [
    "penstock_rows_total",
    "penstock_bytes_total",
    "penstock_batches_total",
    "penstock_queue_items",
    "penstock_queue_bytes",
    "penstock_busy_seconds_total",
    "penstock_wait_seconds_total",
    "penstock_quarantined_total",
    "penstock_late_rows_total",
    "penstock_restarts_total",
    "penstock_checkpoints_total",
    "penstock_checkpoint_seconds",
    "penstock_accelerator_wait_ratio",
]


def test_the_names_are_those_that_were_published() -> None:
    assert list(METRICS) == NAMES
    assert all(METRICS.values())
    assert {name: labels for name, labels in LABELS.items() if labels != ("run", "step")} == {
        "penstock_wait_seconds_total": ("run", "step", "what")
    }
    assert all(f"    {name} " in str(metrics.__doc__) for name in NAMES)


class Recorded:
    """A metric that keeps its series as Prometheus would."""

    def __init__(self, name: str) -> None:
        self.counts = name.endswith("_total")
        self.series: dict[tuple[tuple[str, str], ...], list[float]] = {}

    def record(self, value: float, labels: Mapping[str, str]) -> None:
        assert value > 0 or not self.counts
        series = self.series.setdefault(tuple(sorted(labels.items())), [0.0])
        series.append(series[-1] + value if self.counts else value)


@given(st.lists(st.lists(st.integers(0, 1000), max_size=8).map(sorted), max_size=5))
def test_a_counter_that_goes_back_with_its_run_never_falls(attempts: list[list[int]]) -> None:
    made: dict[str, Recorded] = {}
    export = Export("7-1", lambda name: made.setdefault(name, Recorded(name)))
    seen = [value for attempt in attempts for value in attempt]
    for value in seen:
        export.publish(
            [
                Sample("penstock_rows_total", "read", value),
                Sample("penstock_rows_total", "map", 2 * value),
                Sample("penstock_queue_items", "map", value),
            ]
        )
    rows = made["penstock_rows_total"].series if any(seen) else {}
    for step, times in {"read": 1, "map": 2}.items():
        values = rows.get((("run", "7-1"), ("step", step)), [0.0])
        assert values == sorted(values)
        assert values[-1] == times * max(seen, default=0)
    if seen:
        assert made["penstock_queue_items"].series[(("run", "7-1"), ("step", "map"))][1:] == seen


def test_a_kind_of_waiting_is_a_series_of_its_own() -> None:
    made = Recorded("penstock_wait_seconds_total")
    export = Export("7-1", lambda name: made)
    export.publish([Sample("penstock_wait_seconds_total", "map", 1.5, "input")])
    export.publish([Sample("penstock_wait_seconds_total", "map", 0.5, "output")])
    assert {dict(labels)["what"]: values[-1] for labels, values in made.series.items()} == {
        "input": 1.5,
        "output": 0.5,
    }


_LINE = re.compile(r"ray_(penstock_\w+)\{(.*)\} (\S+)")


def scrape(ray: Any, run: str) -> dict[tuple[str, str], float]:
    """By name and step (and kind, behind a colon), what the endpoints of all nodes of this machine say of a run."""
    found = {}
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=20) as answer:
            text = answer.read().decode()
        for name, labels, value in _LINE.findall(text):
            tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if tags["run"] == run:
                found[name, tags["step"] + (f":{tags['what']}" if "what" in tags else "")] = float(value)
    return found


@pytest.fixture(scope="module")
def connected(cluster: Any) -> Iterator[Any]:
    with connection(cluster.address, __name__) as ray:
        yield ray


@pytest.mark.nightly
@pytest.mark.ray
def test_prometheus_reads_what_the_report_says(connected: Any, tmp_path: Path) -> None:
    flow = read(Rows(recording(3, 3000, disorder_ns=4_000_000), 50), lateness="1ms")
    windows = flow.map(identity, parallelism=2).key_by("symbol").window(ops.Tumbling("10ms"), n=agg.count())
    report = windows.write(sinks.Parquet(tmp_path / "out")).run(
        runner="ray", checkpoint=tmp_path / "checkpoints", checkpoint_rows=1000
    )
    stages = report["stages"]
    expected = {("penstock_checkpoints_total", ""): report["checkpoints"]["written"]}
    for step, stage in stages.items():
        expected["penstock_rows_total", step] = stage["rows_in"]
        expected["penstock_bytes_total", step] = stage["bytes_in"]
        expected["penstock_batches_total", step] = stage["batches_in"]
        expected["penstock_late_rows_total", step] = stage["late_rows"]
        expected["penstock_busy_seconds_total", step] = stage["busy_s"]
        expected["penstock_wait_seconds_total", f"{step}:input"] = stage["wait_input_s"]
    found: dict[tuple[str, str], float] = {}
    for _ in range(60):  # Ray sends metrics every ten seconds
        found = scrape(connected, report["cluster"]["run"])
        wrong = [key for key, value in expected.items() if not math.isclose(found.get(key, 0), value, abs_tol=1e-4)]
        if not wrong and found:
            break
        threading.Event().wait(1)
    assert {key: found.get(key, 0) for key in expected} == pytest.approx(expected, abs=1e-4)
    assert expected["penstock_rows_total", "read"] == 3000
    assert any(stage["late_rows"] for stage in stages.values())
    assert found["penstock_queue_items", "write"] == 0
    assert found["penstock_checkpoint_seconds", ""] == pytest.approx(report["checkpoints"]["longest_s"], abs=1e-5)
    assert max(stage["queue_peak_items"] for stage in stages.values()) > 0
    assert {stage["restarts"] for stage in stages.values()} == {0}
