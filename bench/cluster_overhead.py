"""What an edge between two processes costs over the bare calls of Ray that it is made of."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .cluster_session import fresh_ray, in_child, now
from .harness import Case, Contender

__all__ = ["case"]

SIZES_MB = (1, 4, 16)
#: Calls under way in all contenders, as an edge has them.
UNDER_WAY = 2
_EDGE_BYTES = 8 << 20

_RULES = (
    "Batches of one size from an actor to another, which reads a value of every page, on a Ray of one node; the processes "
    f"are up and have exchanged a few batches. 'raw' gets what an actor's method returns, {UNDER_WAY} calls under way; 'raw "
    "put/get' calls a method that puts the batch and returns the reference. 'edge' is what runs between two hosts of a "
    f"flow: an outbox of {_EDGE_BYTES >> 20} MiB (the default) and the thread that pulls from it, with as many calls under "
    "way and up to half of that budget a call. overhead is the time over that of 'raw', minus one, in percent, in the same "
    "repeat; below zero where several batches travel in one call. us is microseconds a batch."
)


def case(scratch: Path, *, quick: bool) -> Case:
    megabytes = 64 if quick else 2_000
    contenders = []
    for size in SIZES_MB:
        last: dict[str, float] = {}

        def run(size: int = size, last: dict[str, float] = last) -> int:
            last.clear()
            last.update(in_child(compare, size, max(8, megabytes // size)))
            return 1

        contenders.append(Contender(f"{size} MB", run, ours=True, needs=("ray",), values=lambda v=last: dict(v)))
    return Case("ray-overhead", "Batches between two processes", "batch", _RULES, contenders, rates=False)


def compare(size: int, count: int) -> dict[str, float]:
    """All three ways in one Ray, one after the other, twice; the second time counts."""
    with fresh_ray(cpus=4, store=1_000_000_000) as ray:
        actor = ray.remote(num_cpus=0.5, max_concurrency=8)
        for _ in range(2):
            raw = _time(actor, _RawSender, _RawReceiver, size, count)
            put = _time(actor, _RawSender, _PutReceiver, size, count)
            edge = _time(actor, _EdgeSender, _EdgeReceiver, size, count)
            one = _time(actor, _EdgeSender, _EdgeReceiver, size, count, UNDER_WAY * size * 1_000_000)
    return {
        "edge overhead %": 100 * (edge / raw - 1),
        "edge overhead %, one batch a call": 100 * (one / raw - 1),
        "edge overhead over put/get %": 100 * (edge / put - 1),
        "raw us": raw / count / 1e3,
        "raw put/get us": put / count / 1e3,
        "edge us": edge / count / 1e3,
        "raw GB/s": size * count * 1e6 / raw,
    }


def _time(actor: Any, sender: type, receiver: type, size: int, count: int, credit: int = _EDGE_BYTES) -> int:
    """Nanoseconds for `count` batches of `size` MB."""
    import ray

    here, there = actor(sender).remote(size, count + 4), actor(receiver).remote(credit)
    ray.get(there.take.remote(here, 4))
    spent, rows = ray.get(there.take.remote(here, count))
    ray.kill(here)
    ray.kill(there)
    if rows != count * _rows(size):
        raise ValueError(f"{rows} rows of {count * _rows(size)} arrived")
    return int(spent)


def _rows(size: int) -> int:
    return size * 1_000_000 // 8


def _batch(size: int) -> pa.RecordBatch:
    return pa.record_batch({"value": np.arange(_rows(size), dtype=np.int64)})


def _touch(batch: pa.RecordBatch) -> int:
    """Read a value of every page; rows."""
    int(np.asarray(batch["value"])[::512].sum())
    return int(batch.num_rows)


class _RawSender:
    def __init__(self, size: int, count: int) -> None:
        self._batch = _batch(size)

    def batch(self) -> Any:
        """The batch as a return value."""
        return self._batch

    def put(self) -> Any:
        """A reference to the batch."""
        import ray

        return [ray.put(self._batch)]


class _RawReceiver:
    def __init__(self, credit: int) -> None: ...

    def _call(self, sender: Any) -> Any:
        return sender.batch.remote()

    def _result(self, reference: Any) -> Any:
        import ray

        return ray.get(reference)

    def take(self, sender: Any, count: int) -> tuple[int, int]:
        """Nanoseconds and rows of `count` batches."""
        began, rows, asked = now(), 0, 0
        under_way: deque[Any] = deque()
        for _ in range(count):
            while len(under_way) < UNDER_WAY and asked < count:
                under_way.append(self._call(sender))
                asked += 1
            rows += _touch(self._result(under_way.popleft()))
        return now() - began, rows


class _PutReceiver(_RawReceiver):
    def _call(self, sender: Any) -> Any:
        return sender.put.remote()

    def _result(self, reference: Any) -> Any:
        import ray

        return ray.get(ray.get(reference)[0])


class _EdgeSender:
    """A producer's thread that fills an outbox, as `OutboxPort` does for a step."""

    def __init__(self, size: int, count: int) -> None:
        from penstock.pipeline.clock import RealClock

        self._batch, self._clock = _batch(size), RealClock()
        self._outboxes: dict[int, Any] = {}

    def open(self, edge: int) -> None:
        """Have an outbox for `edge`."""
        from penstock.pipeline.cluster.outbox import Outbox

        self._outboxes[edge] = Outbox(_EDGE_BYTES, self._clock, threading.Event())

    def fill(self, edge: int, count: int) -> None:
        """Send `count` batches and the end."""
        threading.Thread(target=self._fill, args=(self._outboxes[edge], count), daemon=True).start()

    def _fill(self, outbox: Any, count: int) -> None:
        for _ in range(count):
            outbox.put("batch", self._batch, int(self._batch.nbytes), self._clock.monotonic_ns())
        outbox.put("end", None, 0, self._clock.monotonic_ns())

    def pull(self, edge: int, number: int, credit: int, patience: float) -> Any:
        """See `Outbox.pull`."""
        return self._outboxes[edge].pull(number, credit, patience)


class _EdgeReceiver:
    def __init__(self, credit: int) -> None:
        self._credit, self._edge = credit, 0

    def take(self, sender: Any, count: int) -> tuple[int, int]:
        """Nanoseconds and rows of `count` batches."""
        import ray
        from penstock.pipeline.clock import RealClock
        from penstock.pipeline.cluster.puller import Puller

        target, self._edge = _Target(), self._edge + 1
        ray.get(sender.open.remote(self._edge))
        puller = Puller(
            lambda *arguments: sender.pull.remote(self._edge, *arguments),
            ray.get, target, 0, 0, self._credit, RealClock(), threading.Event(),
        )  # fmt: skip
        began = now()
        sender.fill.remote(self._edge, count)
        puller.run()
        return now() - began, target.rows


class _Target:
    """Stands for the inbox of the step behind the edge."""

    def __init__(self) -> None:
        self.rows = 0

    def push(self, batch: Any, port: int, trace: Any) -> None:
        self.rows += _touch(batch)

    def advance(self, watermark: int, port: int, trace: Any) -> None: ...

    def barrier(self, number: int, port: int) -> None: ...

    def end(self, port: int, trace: Any) -> None: ...
