"""From the counters of a run to its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .hop_cells import InferCell
from .ledger import Histogram
from .report import Report
from .runtime import Runtime

__all__ = ["accelerator_report", "make_report"]


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
    checkpoints: Mapping[str, Any] | None = None,
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
    records = [
        {"step": step, "place": r.place, "operation": r.operation, "error": r.error, "seq": r.seq}
        for step, r in runtime.quarantine.records()[:20]
    ]
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
                    "digest": cell.digest.hexdigest() if cell.digest is not None else None,
                }
                for cell in sinks
            },
            "quarantined": sum(m.quarantined for m in metrics.values()),
            "quarantine": records,
            "late_rows": sum(m.late_rows for m in metrics.values()),
            "dropped": {step: dict(sorted(m.dropped.items())) for step, m in metrics.items() if m.dropped},
            "noted": {step: dict(sorted(m.noted.items())) for step, m in metrics.items() if m.noted},
            "copies_per_delivered_byte": round(copied / delivered, 4) if delivered else 0.0,
            "latency_ms": {
                "p50": round(latency.percentile(0.5) / 1e6, 3),
                "p99": round(latency.percentile(0.99) / 1e6, 3),
                "max": round(latency.largest / 1e6, 3),
                "batches": latency.count,
            },
            "memory": dict(memory),
            "accelerator": accelerator_report(runtime, hops[0]) if hops else None,
            "replay": runtime.pacer.report() if runtime.pacer is not None else None,
            "checkpoints": checkpoints,
            "cluster": None,
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


def accelerator_report(runtime: Runtime, cell: InferCell) -> dict[str, Any]:
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
