"""What the calls cost that a run on Ray is made of; `results/scaling-estimate.md` reckons with these numbers."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .cluster_scaling import SleepingSource
from .cluster_session import fresh_ray, in_child, now
from .harness import Case, Contender

__all__ = ["case"]

STEPS = 100
_POLL_S = 0.04

_RULES = (
    "On a Ray of one node. cpu is processor time, of the driver and of the actor called, which a busy machine disturbs less "
    "than the time of day; a paced call comes every 40 ms like the driver's question to each process, the others one right "
    f"after the other. pull: `Outbox.pull` of small items, 1 or 64 of them. status: an answer with the counters of {STEPS} "
    "steps. put and get: 64 MB in one array, get reads a value of every page. checkpoint: from asking to stored, the "
    f"longest of a run with {STEPS} steps that have a state."
)


def case(scratch: Path, *, quick: bool) -> Case:
    last: dict[str, float] = {}

    def run() -> int:
        last.clear()
        last.update(in_child(_costs, 100 if quick else 1_000))
        last.update(in_child(_checkpoint, scratch / f"snapshots-{now()}", 40 if quick else 200))
        return 1

    contenders = [Contender("penstock", run, ours=True, needs=("ray",), values=lambda: dict(last))]
    return Case("ray-latency", "Calls of a run on Ray", "call", _RULES, contenders, rates=False)


class _Answering:
    """An actor with threads like those of a run."""

    def __init__(self) -> None:
        from penstock.pipeline.clock import RealClock
        from penstock.pipeline.cluster.outbox import Outbox

        self._clock = RealClock()
        self._outbox = Outbox(1 << 30, self._clock, threading.Event(), items=1 << 20)
        self._number = 0
        self._batch = pa.record_batch({"value": np.arange(1_000)})

    def nothing(self) -> None:
        """Answer."""

    def cpu_ns(self) -> int:
        """Processor time of this process so far."""
        return time.process_time_ns()

    def status(self, steps: int) -> Any:
        """What a host with so many steps would say."""
        from penstock.pipeline.cluster.hostrun import Status
        from penstock.pipeline.context import StageMetrics

        return Status(metrics={f"step-{number}": StageMetrics().save() for number in range(steps)})

    def fill(self, items: int) -> None:
        """Queue small batches."""
        for _ in range(items):
            self._outbox.put("batch", self._batch, int(self._batch.nbytes), self._clock.monotonic_ns())

    def pull(self, items: int) -> Any:
        """So many of them."""
        self._number += 1
        return self._outbox.pull(self._number - 1, items * int(self._batch.nbytes), 1.0)


def _costs(calls: int) -> dict[str, float]:
    with fresh_ray(cpus=4, store=1_000_000_000) as ray:
        actor = ray.remote(num_cpus=0.5, max_concurrency=96)(_Answering).remote()
        paced, few = calls // 5, max(20, calls // 10)
        ray.get(actor.fill.remote(3 * calls + 64 * 3 * few))
        found = {
            **_call(actor, "round trip", calls, lambda: actor.nothing.remote()),
            **_call(actor, "paced call", paced, lambda: actor.nothing.remote(), pause=_POLL_S),
            **_call(actor, "pull of 1", calls, lambda: actor.pull.remote(1)),
            **_call(actor, "pull of 64", few, lambda: actor.pull.remote(64)),
            **_call(actor, f"status, {STEPS} steps", few, lambda: actor.status.remote(STEPS)),
            **_call(actor, "status, worker", few, lambda: actor.status.remote(0)),
        }
        before, began = ray.get(actor.cpu_ns.remote()), now()
        time.sleep(2.0)
        found["idle process cpu %"] = 100 * (ray.get(actor.cpu_ns.remote()) - before) / (now() - began)
        return {**found, **_store(ray, max(8, calls // 50))}


def _call(actor: Any, name: str, count: int, call: Callable[[], Any], pause: float = 0.0) -> dict[str, float]:
    import ray

    for _ in range(5):
        ray.get(call())
    there, here = ray.get(actor.cpu_ns.remote()), time.process_time_ns()
    spent = []
    for _ in range(count):
        began = now()
        reference = call()
        if pause:
            time.sleep(pause)
        ray.get(reference)
        spent.append(now() - began)
    here, there = time.process_time_ns() - here, ray.get(actor.cpu_ns.remote()) - there
    found = {} if pause else {f"{name} us": statistics.median(spent) / 1e3}
    return {**found, f"{name} driver cpu us": here / count / 1e3, f"{name} actor cpu us": there / count / 1e3}


def _store(ray: Any, count: int) -> dict[str, float]:
    data = np.zeros(8_000_000)
    puts, gets = [], []
    for _ in range(count):
        began = now()
        reference = ray.put(data)
        put = now()
        float(ray.get(reference)[::512].sum())
        gets.append(now() - put)
        puts.append(put - began)
        del reference
    return {"put GB/s": data.nbytes / min(puts), "put median GB/s": data.nbytes / statistics.median(puts),
            "get GB/s": data.nbytes / statistics.median(gets)}  # fmt: skip


def _checkpoint(folder: Path, blocks: int) -> dict[str, float]:
    import penstock as ps
    from penstock import sinks

    source = SleepingSource(blocks=blocks)
    stream = ps.read(source)
    for step in range(STEPS):
        stream = stream.batch(1_000 + step % 2)
    flow = stream.write(sinks.Null())
    with fresh_ray(cpus=4):
        rows = max(source.rows, blocks * source.rows // 5)
        report = flow.run(ray="auto", checkpoint=folder, checkpoint_every=None, checkpoint_rows=rows)
    found = report["checkpoints"]
    return {
        "checkpoints written": found["written"],
        "checkpoint longest ms": 1e3 * found["longest_s"],
        "checkpoint storing ms": 1e3 * found["storing_s"] / max(1, found["written"]),
        "checkpoint KB": found["bytes"] / max(1, found["written"]) / 1e3,
    }
