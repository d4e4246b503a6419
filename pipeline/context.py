"""What a running part may ask of its runner: memory, workers, the clock, and places to put what did not go well."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor as WorkerPool
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from .clock import Clock, RealClock
from .memory import BufferPool

__all__ = ["BadRecord", "Context", "StageMetrics", "Tally"]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that left the stream for quarantine.

    `place` says where in the source it was (``"drive.mcap, chunk 3, offset 8812"``), `operation` what was tried on it
    (``"mcap.decode"``), `error` one line, `data` its bytes, `seq` its position in the source if known.
    """

    place: str
    operation: str
    error: str
    data: bytes
    seq: int | None = None


@dataclass(slots=True)
class StageMetrics:
    """Counters of one step. Written by the thread that runs the step; read by anyone."""

    rows_in: int = 0
    rows_out: int = 0
    batches_in: int = 0
    batches_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_copied: int = 0
    busy_ns: int = 0
    wait_input_ns: int = 0
    wait_output_ns: int = 0
    late_rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    state_bytes: int = 0

    def save(self) -> dict[str, Any]:
        """All counters as plain values."""
        return {name: _copy(getattr(self, name)) for name in StageMetrics.__slots__}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Count on from what `save` gave."""
        for name in StageMetrics.__slots__:
            if name in saved:
                setattr(self, name, _copy(saved[name]))


@dataclass(slots=True)
class Tally:
    """What a step counted and put aside while it worked ahead of the order, or in another process, for whoever keeps it."""

    bad: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    copied: int = 0

    def __bool__(self) -> bool:
        return bool(self.bad or self.dropped or self.noted or self.copied)


#: A tally that nobody has begun: most batches have nothing to count.
_NOTHING = Tally()


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class Context:
    """Handed to every source, operator, executor and sink when it is opened.

    `step` is the id of the step, `pool` the reusable output memory, `workers` a shared thread pool for work inside one
    batch, `parallelism` how many of its threads this step may use, `stop` set when the run is being abandoned,
    `resuming` whether a `restore` follows, `rehearsing` that only the first rows are looked at and nothing is to be kept.
    """

    def __init__(
        self,
        step: str,
        *,
        pool: BufferPool | None = None,
        clock: Clock | None = None,
        workers: WorkerPool | None = None,
        parallelism: int = 1,
        metrics: StageMetrics | None = None,
        quarantine: Callable[[str, BadRecord], None] | None = None,
        side: Callable[[str, pa.RecordBatch], None] | None = None,
        stop: threading.Event | None = None,
        resuming: bool = False,
        rehearsing: bool = False,
    ) -> None:
        self.step = step
        self.resuming, self.rehearsing = resuming, rehearsing
        self.pool = pool if pool is not None else BufferPool()
        self.clock: Clock = clock if clock is not None else RealClock()
        self._workers = workers
        self.parallelism = parallelism
        self.metrics = metrics if metrics is not None else StageMetrics()
        self._quarantine = quarantine
        self._side = side
        self.stop = stop if stop is not None else threading.Event()
        self._lock = threading.Lock()
        self._here = threading.local()
        self.bad_records: list[BadRecord] = []
        #: Set by the runner where a column may be written straight into the last hop's memory:
        #: ``allocate(column, type, rows)`` gives something like a `Lease`, or None if it does not fit.
        self.allocate: Callable[[str, pa.DataType, int], Any] | None = None

    @property
    def workers(self) -> WorkerPool:
        """A thread pool of at least `parallelism` threads; made on first use when the runner gave none."""
        if self._workers is None:
            self._workers = ThreadPoolExecutor(max(1, self.parallelism), thread_name_prefix=f"penstock-{self.step}")
        return self._workers

    def gather(self) -> None:
        """Keep what this thread counts from now on apart, until `gathered`: it works ahead of the order."""
        self._here.tally = _NOTHING

    def gathered(self) -> Tally:
        """What was kept apart."""
        tally: Tally = self._here.tally
        self._here.tally = None
        return tally

    def count(self, tally: Tally) -> None:
        """Count what was kept apart."""
        for reason, rows in tally.dropped.items():
            self.drop(reason, rows)
        for what, count in tally.noted.items():
            self.note(what, count)
        for record in tally.bad:
            self.quarantine(record)
        if tally.copied:
            self.copied(tally.copied)

    @property
    def _apart(self) -> Tally | None:
        tally: Tally | None = getattr(self._here, "tally", None)
        if tally is _NOTHING:
            tally = self._here.tally = Tally()
        return tally

    def quarantine(self, record: BadRecord) -> None:
        """Put a bad record aside and count it. Raises DecodeError under ``on_error="raise"``. Thread-safe."""
        if (apart := self._apart) is not None:
            apart.bad.append(record)
            return
        with self._lock:
            self.metrics.quarantined += 1
        if self._quarantine is not None:
            self._quarantine(self.step, record)
        else:
            self.bad_records.append(record)

    def drop(self, reason: str, rows: int = 1) -> None:
        """Count rows that leave the stream for a stated reason. Thread-safe."""
        if rows:
            if (apart := self._apart) is not None:
                apart.dropped[reason] = apart.dropped.get(reason, 0) + rows
                return
            with self._lock:
                self.metrics.dropped[reason] = self.metrics.dropped.get(reason, 0) + rows

    def note(self, what: str, count: int = 1) -> None:
        """Count something about rows that stay, such as points left out of a scan. Thread-safe."""
        if count:
            if (apart := self._apart) is not None:
                apart.noted[what] = apart.noted.get(what, 0) + count
                return
            with self._lock:
                self.metrics.noted[what] = self.metrics.noted.get(what, 0) + count

    def copied(self, nbytes: int) -> None:
        """Count bytes of payload that were copied from one memory to another (not decoded, not referenced)."""
        if (apart := self._apart) is not None:
            apart.copied += nbytes
            return
        with self._lock:
            self.metrics.bytes_copied += nbytes

    def side(self, name: str, batch: pa.RecordBatch) -> None:
        """Emit rows on a side output that the spec declares in `side_outputs`; ignored when nobody listens."""
        if self._side is not None and batch.num_rows:
            self._side(name, batch)

    def map_rows(self, work: Callable[[int, int], None], rows: int, *, least: int = 1) -> None:
        """Run ``work(start, stop)`` over ``range(rows)`` in up to `parallelism` contiguous parts, and wait for all.

        For work inside one batch that releases the GIL. Exceptions of a part are raised here after all have ended.
        """
        parts = max(1, min(self.parallelism, rows // max(1, least)))
        if parts == 1:
            work(0, rows)
            return
        bounds = [rows * i // parts for i in range(parts + 1)]
        futures = [self.workers.submit(work, bounds[i], bounds[i + 1]) for i in range(1, parts)]
        failures: list[BaseException] = []
        try:
            work(bounds[0], bounds[1])
        except Exception as error:
            failures.append(error)
        failures += [e for f in futures if (e := f.exception()) is not None]
        if failures:
            raise failures[0]
