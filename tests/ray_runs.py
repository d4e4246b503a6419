"""Runs on a cluster beside runs in this process, and what their reports must have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from penstock import Report
from penstock.pipeline.clock import RealClock

__all__ = ["connection", "facts", "wait_until_idle"]


@contextmanager
def connection(address: str, *modules: str) -> Iterator[Any]:
    """Ray, connected to `address` for as long as the block lasts; functions of `modules` travel with the pipelines.

    The processes of the cluster cannot import test modules.
    """
    import ray
    from ray import cloudpickle

    travelling = [sys.modules[name] for name in (*modules, "streams", __name__) if name in sys.modules]
    for module in travelling:
        cloudpickle.register_pickle_by_value(module)
    ray.init(address=address, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()
        for module in travelling:
            cloudpickle.unregister_pickle_by_value(module)


def facts(report: Report, *, but: Sequence[str] = ()) -> dict[str, Any]:
    """What a report says that may not depend on the runner: rows, digests, and everything set aside; steps without `but`."""
    stages = report["stages"]
    return {
        "rows": {step: (stage["rows_in"], stage["rows_out"]) for step, stage in stages.items() if step not in but},
        "late": {step: stage["late_rows"] for step, stage in stages.items()},
        "quarantined": {step: stage["quarantined"] for step, stage in stages.items()},
        "quarantine": report["quarantine"],
        "dropped": report["dropped"],
        "noted": report["noted"],
        "sinks": {step: (sink["rows"], sink["digest"]) for step, sink in report["sinks"].items()},
    }


def wait_until_idle() -> None:
    """Return when no process of a run is left on the cluster; fails if there still is one after ten seconds."""
    from ray._private.state import actors

    clock = RealClock()
    deadline = clock.monotonic_ns() + 10_000_000_000
    while left := [actor for actor in actors().values() if actor["State"] != "DEAD"]:
        assert clock.monotonic_ns() < deadline, f"still there: {left}"
