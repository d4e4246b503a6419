"""How a run is to go: everything that may change between runs without changing the rows they give."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .clock import Clock
from .duration import Duration, nanoseconds
from .errors import PlanError

__all__ = ["OnError", "RunOptions", "parse_bytes", "readable_bytes"]

OnError = Literal["quarantine", "raise"]

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of `Flow.run`.

    `parallelism`: blocks decoded at once, and threads for work inside a batch (default: the machine's cores).
    `memory`: budget in bytes or as text (``"2GiB"``) that the plan's bound must fit (default: half of what is free).
    `edge_bytes`: budget of each queue between threads. `on_error`: what a bad record does. `quarantine`: a folder for
    bad records (default: kept in memory and counted). `speed`: replay at this multiple of the recorded pace (default: as
    fast as possible). `stall_after`: seconds without progress after which the stuck step is named.

    `checkpoint`: a folder or any fsspec URL for snapshots (default: none are made). `checkpoint_every`: time between
    two, such as ``"30s"``. `checkpoint_rows`: or so many rows read, whichever comes first. `resume`: go on from the
    newest snapshot there; from the beginning if there is none.
    """

    parallelism: int | None = None
    memory: int | str | None = None
    edge_bytes: int | str = 8 << 20
    on_error: OnError = "quarantine"
    quarantine: str | Path | None = None
    speed: float | None = None
    clock: Clock | None = None
    stall_after: float = 5.0
    ceiling: bool = False
    checkpoint: str | Path | None = None
    checkpoint_every: Duration | None = "10s"
    checkpoint_rows: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise PlanError("resume needs to know where the snapshots are: checkpoint=FOLDER (--checkpoint FOLDER)")
        if self.checkpoint_rows is not None and self.checkpoint_rows < 1:
            raise PlanError(f"checkpoint_rows must be at least 1, got {self.checkpoint_rows}")
        _ = self.checkpoint_every_ns
        if self.parallelism is not None and self.parallelism < 1:
            raise PlanError(f"parallelism must be at least 1, got {self.parallelism}")
        if self.on_error not in ("quarantine", "raise"):
            raise PlanError(f"on_error is 'quarantine' or 'raise', got {self.on_error!r}")
        if self.speed is not None and not self.speed > 0:
            raise PlanError(f"speed must be positive, got {self.speed}")
        if not self.stall_after > 0:
            raise PlanError(f"stall_after must be positive, got {self.stall_after}")
        _ = self.budget, self.edge_budget

    @property
    def checkpoint_every_ns(self) -> int | None:
        """Time between two checkpoints in ns; None if only rows count."""
        if self.checkpoint_every is None:
            return None
        try:
            return nanoseconds(self.checkpoint_every)
        except ValueError as error:
            raise PlanError(f"checkpoint_every: {error}") from None

    @property
    def threads(self) -> int:
        """How many threads a parallel step may use."""
        return self.parallelism or len(os.sched_getaffinity(0))

    @property
    def budget(self) -> int:
        """The memory budget in bytes."""
        return available_memory() // 2 if self.memory is None else parse_bytes(self.memory)

    @property
    def edge_budget(self) -> int:
        """The budget of one queue in bytes."""
        return parse_bytes(self.edge_bytes)


def parse_bytes(size: int | str) -> int:
    """``"1.5GiB"`` or a number of bytes. Raises PlanError if it is neither."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise PlanError(f"{size!r} is not a size; write for example '512MiB'")
    base = 1024 if match[3] or not match[2] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


def readable_bytes(size: float) -> str:
    """``33554432`` as ``32 MiB``."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(size) >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.0f} {units[0]}" if size >= 100 or size == int(size) else f"{size:.1f} {units[0]}"


def available_memory() -> int:
    """Bytes the system says can still be used, the limit of the control group included."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        free = int(match[1]) * 1024 if match else free
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text))
    return free
