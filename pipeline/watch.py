"""What is watched while a run goes on: progress, memory, and whether anything moves at all."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from .runtime import Runtime
from .sink import SinkSpec
from .source import SourceSpec

__all__ = ["Progress", "Watch", "resident_bytes"]

log = logging.getLogger("penstock")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is: seconds since the first read, rows read and written, and the accelerator's share of waiting."""

    elapsed_s: float
    rows_read: int
    rows_written: int
    quarantined: int
    wait_share: float | None
    wait_cause: str


class Watch:
    """Samples a runtime; `look` is called about ten times a second by the thread that waits for the run."""

    def __init__(self, runtime: Runtime, describe_stall: Callable[[], str], before: Watch | None = None) -> None:
        self._runtime, self._describe_stall = runtime, describe_stall
        self._moved_at = runtime.clock.monotonic_ns()
        self._looked_at = 0
        self._seen = -1
        self._named = False
        self.stalls: list[str] = []
        self.start_rss = resident_bytes()
        self.peak_rss = self.start_rss
        self.start_data = pa.total_allocated_bytes()
        self.peak_data = 0
        if before is not None:  # the run goes on in another attempt
            self.stalls, self.start_rss, self.start_data = before.stalls, before.start_rss, before.start_data
            self.peak_rss, self.peak_data = before.peak_rss, before.peak_data

    def glance(self) -> bool:
        """`look`, but at most ten times a second; whether it did."""
        if self._runtime.clock.monotonic_ns() - self._looked_at < 100_000_000:
            return False
        self.look()
        return True

    def look(self) -> None:
        """Sample memory; name a stall once when nothing has moved for as long as the options say."""
        runtime = self._runtime
        self._looked_at = runtime.clock.monotonic_ns()
        self.peak_rss = max(self.peak_rss, resident_bytes())
        slots = sum(ring.nbytes for ring in runtime.rings.values())
        arrow = pa.total_allocated_bytes() - self.start_data
        self.peak_data = max(self.peak_data, arrow + runtime.pool.leased_bytes + runtime.pool.idle_bytes + slots)
        moved = sum(m.rows_in + m.rows_out + m.batches_in for m in runtime.metrics.values())
        now = runtime.clock.monotonic_ns()
        if moved != self._seen:
            self._seen, self._moved_at, self._named = moved, now, False
        elif not self._named and now - self._moved_at >= runtime.options.stall_after * 1e9:
            self._named = True
            message = f"nothing has moved for {(now - self._moved_at) / 1e9:.1f} s: {self._describe_stall()}"
            self.stalls.append(message)
            log.warning(message)

    def memory(self, bound: int) -> dict[str, int]:
        """The report's memory figures."""
        return {
            "bound_bytes": bound,
            "peak_data_bytes": self.peak_data,
            "peak_rss_bytes": self.peak_rss,
            "start_rss_bytes": self.start_rss,
        }

    def progress(self) -> Progress:
        """A snapshot for a progress line."""
        from .hop_cells import InferCell

        runtime = self._runtime
        elapsed = runtime.clock.monotonic_ns() - runtime.started
        hop = next((c for c in runtime.cells.values() if isinstance(c, InferCell)), None)
        share = None
        if hop is not None and hop.last_end > hop.first_start:
            share = hop.wait_ns / (hop.last_end - hop.first_start)
        charged = runtime.ledger.rows() if hop is not None else []
        return Progress(
            elapsed_s=elapsed / 1e9,
            rows_read=sum(m.rows_in for m in runtime.counters(SourceSpec)),
            rows_written=sum(m.rows_in for m in runtime.counters(SinkSpec)),
            quarantined=sum(m.quarantined for m in runtime.metrics.values()),
            wait_share=share,
            wait_cause=f"{charged[0]['step']} ({charged[0]['cause']})" if charged else "",
        )


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
