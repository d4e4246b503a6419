"""What a run did, as plain values with keys that stay.

`Report.data` is what ``--report run.json`` writes and what ``penstock doctor`` reads. Times are seconds unless the key
says ``_ms``; sizes are bytes. A key, once published in `KEYS`, keeps its meaning; new ones may be added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .hop_cells import InferCell
from .ledger import Histogram
from .runtime import Runtime

__all__ = ["KEYS", "Report", "make_report"]

#: Every top-level key of a report and what it holds.
KEYS: Mapping[str, str] = {
    "version": "version of this layout, 1",
    "runner": "inline or local",
    "outcome": "completed, stopped (by the user) or failed",
    "error": "one line, or null",
    "elapsed_s": "from the first read to the last row written",
    "setup_s": "opening sources, sinks and models, calibration included",
    "first_batch_s": "from the first read to the first batch at a sink; null if none came",
    "stages": "by step id: kind, rows_in/out, batches_in/out, bytes_in/out, bytes_copied, busy_s, wait_input_s, "
    "wait_output_s, late_rows, quarantined, dropped (rows by reason)",
    "sinks": "by step id: target, rows, bytes, digest (of the rows in order, whatever their batches)",
    "quarantined": "records put aside",
    "quarantine": "the first of them: step, place, operation, error, seq",
    "late_rows": "rows behind the watermark",
    "dropped": "by step id, then reason: rows that left for a stated reason",
    "copies_per_delivered_byte": "payload bytes copied, over bytes delivered to the model (to the sinks without a model)",
    "latency_ms": "per batch from source to sink: p50, p99, max, batches",
    "memory": "bound_bytes (of the plan), peak_data_bytes (Arrow and buffers), peak_rss_bytes, start_rss_bytes",
    "accelerator": "null without a model, else: step, model, batches, rows, start_s, busy_s, wait_s, wait_share, "
    "rows_per_s, ceiling_rows_per_s, ceiling_ratio, ledger (step, cause, ms)",
    "replay": "null unless a speed was asked for: speed, largest_lag_ms",
    "stalls": "what was named when nothing moved for a while",
}


@dataclass
class Report:
    """The result of a run. ``report["sinks"]`` and so on give the keys of `KEYS`."""

    data: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each sink by step id."""
        return {step: sink["digest"] for step, sink in self.data["sinks"].items()}

    @property
    def rows(self) -> int:
        """Rows written to all sinks."""
        return sum(int(sink["rows"]) for sink in self.data["sinks"].values())

    def write(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(self.data, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what `write` wrote. Raises ValueError if the file is not a report."""
        data = json.loads(Path(path).read_text())
        if not isinstance(data, dict) or "stages" not in data or "sinks" not in data:
            raise ValueError(f"{path} is not a run report; write one with --report")
        return cls(data)


def make_report(
    runtime: Runtime,
    *,
    runner: str,
    outcome: str,
    error: str | None,
    elapsed_ns: int,
    setup_ns: int,
    memory: Mapping[str, int],
    stalls: list[str],
) -> Report:
    """Collect everything a finished (or broken off) run counted."""
    sinks = runtime.sinks()
    metrics = runtime.metrics
    latency = Histogram()
    for cell in sinks:
        latency.merge(cell.latency)
    firsts = [cell.first_at for cell in sinks if cell.first_at]
    copied = sum(m.bytes_copied for m in metrics.values())
    hops = [cell for cell in runtime.cells.values() if isinstance(cell, InferCell)]
    delivered = sum(cell.delivered_bytes for cell in hops) or sum(cell.metrics.bytes_in for cell in sinks)
    records = runtime.quarantine.first(20)
    return Report(
        {
            "version": 1,
            "runner": runner,
            "outcome": outcome,
            "error": error,
            "elapsed_s": _seconds(elapsed_ns),
            "setup_s": _seconds(setup_ns),
            "first_batch_s": _seconds(min(firsts) - runtime.started) if firsts else None,
            "stages": {node.id: _stage(node.kind, metrics[node.id]) for node in runtime.plan.nodes},
            "sinks": {
                cell.node.id: {
                    "target": cell.node.spec.name,  # type: ignore[union-attr]
                    "rows": cell.metrics.rows_in,
                    "bytes": cell.metrics.bytes_in,
                    "digest": cell.digest.hexdigest(),
                }
                for cell in sinks
            },
            "quarantined": sum(m.quarantined for m in metrics.values()),
            "quarantine": records,
            "late_rows": sum(m.late_rows for m in metrics.values()),
            "dropped": {step: dict(sorted(m.dropped.items())) for step, m in metrics.items() if m.dropped},
            "copies_per_delivered_byte": round(copied / delivered, 4) if delivered else 0.0,
            "latency_ms": {
                "p50": round(latency.percentile(0.5) / 1e6, 3),
                "p99": round(latency.percentile(0.99) / 1e6, 3),
                "max": round(latency.largest / 1e6, 3),
                "batches": latency.count,
            },
            "memory": dict(memory),
            "accelerator": _accelerator(runtime, hops[0]) if hops else None,
            "replay": runtime.pacer.report() if runtime.pacer is not None else None,
            "stalls": stalls,
        }
    )


def _stage(kind: str, metrics: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "rows_in": metrics.rows_in,
        "rows_out": metrics.rows_out,
        "batches_in": metrics.batches_in,
        "batches_out": metrics.batches_out,
        "bytes_in": metrics.bytes_in,
        "bytes_out": metrics.bytes_out,
        "bytes_copied": metrics.bytes_copied,
        "busy_s": _seconds(metrics.busy_ns),
        "wait_input_s": _seconds(metrics.wait_input_ns),
        "wait_output_s": _seconds(metrics.wait_output_ns),
        "late_rows": metrics.late_rows,
        "quarantined": metrics.quarantined,
        "dropped": dict(sorted(metrics.dropped.items())),
    }


def _accelerator(runtime: Runtime, cell: InferCell) -> dict[str, Any]:
    span = cell.last_end - cell.first_start
    busy = cell.busy_ns
    rate = cell.metrics.rows_in / (span / 1e9) if span > 0 else 0.0
    ceiling = runtime.ceilings.get(cell.node.id)
    return {
        "step": cell.node.id,
        "model": dict(runtime.executors[cell.node].report()),
        "batches": cell.metrics.batches_in,
        "rows": cell.metrics.rows_in,
        "start_s": _seconds(max(0, cell.first_start - runtime.started)),
        "busy_s": _seconds(busy),
        "wait_s": _seconds(cell.wait_ns),
        "wait_share": round(cell.wait_ns / span, 5) if span > 0 else 0.0,
        "rows_per_s": round(rate, 2),
        "ceiling_rows_per_s": round(ceiling, 2) if ceiling else None,
        "ceiling_ratio": round(rate / ceiling, 4) if ceiling else None,
        "ledger": runtime.ledger.rows(),
    }


def _seconds(ns: int) -> float:
    return round(ns / 1e9, 6)
