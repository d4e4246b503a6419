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

__all__ = ["KEYS", "Report"]

#: Every top-level key of a report and what it holds.
KEYS: Mapping[str, str] = {
    "version": "version of this layout, 1",
    "runner": "inline, local or ray",
    "outcome": "completed, stopped (by the user) or failed",
    "error": "one line, or null",
    "elapsed_s": "from the first read to the last row written",
    "setup_s": "opening sources, sinks and models, calibration included",
    "first_batch_s": "from the first read to the first batch at a sink; null if none came",
    "stages": "by step id: kind, rows_in/out, batches_in/out, bytes_in/out, bytes_copied, busy_s, wait_input_s, "
    "wait_output_s, late_rows, quarantined, dropped (rows by reason); on Ray also queue_peak_items, queue_peak_bytes and "
    "restarts (how often one of its processes was lost)",
    "sinks": "by step id: target, rows, bytes, digest (of the rows in order, whatever their batches; null for a loop)",
    "quarantined": "records put aside",
    "quarantine": "the first of them: step, place, operation, error, seq",
    "late_rows": "rows behind the watermark",
    "dropped": "by step id, then reason: rows that left for a stated reason",
    "noted": "by step id: what was counted about rows that stayed",
    "copies_per_delivered_byte": "payload bytes copied, over bytes delivered to the model (to the sinks without a model)",
    "latency_ms": "per batch from source to sink: p50, p99, max, batches",
    "memory": "bound_bytes (of the plan), peak_data_bytes (Arrow and buffers), peak_rss_bytes, start_rss_bytes",
    "accelerator": "null without a model, else: step, model, batches, rows, start_s, busy_s, wait_s, wait_share, "
    "rows_per_s, ceiling_rows_per_s, ceiling_ratio, ledger (step, cause, ms)",
    "replay": "null unless a speed was asked for: speed, largest_lag_ms",
    "checkpoints": "null unless they were asked for: written, resumed_from (number or null), bytes, longest_s (from "
    "asking for the barriers to stored), storing_s",
    "cluster": "null unless run on Ray: nodes, processes, restarts, losses, spilled_bytes (null where Ray does not say), "
    "moved_bytes and copied_bytes (payload put into the object store, and copied before that), edge_credit_bytes, scaling "
    "(time_s, step, before, after and why, for each change of a number of processes), run (as metrics are labelled)",
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
        return {step: sink["digest"] for step, sink in self.data["sinks"].items() if sink["digest"]}

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
