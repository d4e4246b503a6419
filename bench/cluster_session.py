"""A Ray of its own for each measurement, and what is watched while it runs.

Each measurement has a process and a Ray of its own, started outside the time and ended behind it: no contender finds the
workers, the memory or the full object store of the one before.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["CORES", "CPUS", "STORE", "Arrivals", "MemoryWatch", "fresh_ray", "in_child", "now"]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
#: What Ray is told the node has: twice the cores, so that a process that waits does not leave a core idle.
CPUS = 2 * CORES
#: Bytes of its object store.
STORE = 300_000_000
_EVERY_S = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")


def now() -> int:
    """Nanoseconds of a clock that all processes of a machine share."""
    return time.monotonic_ns()


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a new process, which ends behind it."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(function, arguments)


@contextmanager
def fresh_ray(*, cpus: int = CPUS, store: int = STORE) -> Iterator[Any]:
    """The ray module with a new Ray of one node, quiet, no dashboard."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(
        address="local", num_cpus=cpus, object_store_memory=store, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    try:
        yield ray
    finally:
        ray.shutdown()


class Arrivals:
    """When rows came to the driver. Call it with a batch of model outputs: a record batch, or a dict of numpy columns."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._began = now()
        self.times: list[tuple[int, int]] = []
        self.rows = 0
        self.checksum = 0.0

    def __call__(self, batch: Any) -> None:
        from penstock.pipeline.columns import as_numpy

        values = batch[self._column]
        values = values if isinstance(batch, Mapping) else as_numpy(values)
        self.rows += len(values)
        self.checksum += float(values.astype("f8").sum())
        self.times.append((now() - self._began, self.rows))

    def numbers(self) -> dict[str, float]:
        """rows, checksum, first_s, whole and steady rows a second; steady is from the first third of the rows on."""
        if not self.times:
            raise ValueError("no rows arrived")
        last = self.times[-1][0]
        third, before = next((at, rows) for at, rows in self.times if 3 * rows >= self.rows)
        return {
            "rows": float(self.rows),
            "checksum": self.checksum,
            "first_s": self.times[0][0] / 1e9,
            "whole": self.rows / last * 1e9,
            "steady": (self.rows - before) / (last - third) * 1e9 if last > third else math.nan,
        }


class MemoryWatch:
    """Peak of the private resident memory of the driver and all Ray workers, plus what is in the object store.

    Sampled five times a second. Pages that processes share (libraries, the object store) are not in the first part.
    """

    def __init__(self) -> None:
        from ray._private import worker

        node: Any = worker._global_node
        self._raylet = node.all_processes["raylet"][0].process.pid
        self._ended = threading.Event()
        self.peak_private = self.peak_store = self.peak = 0
        self._spilled_before = _store_stats().spilled_bytes_total
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def numbers(self) -> dict[str, float]:
        """memory_mib with its parts private_mib and store_mib (peaks each of its own time), and spilled_mib."""
        mib = 1 << 20
        spilled = _store_stats().spilled_bytes_total - self._spilled_before
        return {
            "memory_mib": self.peak / mib,
            "private_mib": self.peak_private / mib,
            "store_mib": self.peak_store / mib,
            "spilled_mib": spilled / mib,
        }

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            private = sum(map(_private, [os.getpid(), *_children(self._raylet)]))
            store = int(_store_stats().object_store_bytes_used)
            self.peak_private = max(self.peak_private, private)
            self.peak_store = max(self.peak_store, store)
            self.peak = max(self.peak, private + store)


def _store_stats() -> Any:
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    return get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address)).store_stats


def _children(parent: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            found += [int(pid) for pid in path.read_text().split()]
        except OSError:
            continue
    return found


def _private(pid: int) -> int:
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except OSError:
        return 0
    return (resident - shared) * _PAGE
