"""Runs on a real cluster whose processes are killed at moments that a seed decides."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.pipeline.checkpoints import CheckpointStore
from penstock.pipeline.cluster import processes
from penstock.pipeline.report import Report

__all__ = ["FLOW", "Chaos", "actors", "run_inline"]

#: A keyed, windowed pipeline over two sources, paced so that there is something to disturb.
FLOW = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from penstock import ops, read, sinks
from penstock.ops import agg
from penstock.sources import Rows
from streams import notional, recording
import pyarrow as pa
one = read(Rows(recording(0, 4000), 50), parallelism=2)
one = one.map(notional, inputs=["price", "size"], outputs={{"price": pa.float64()}})
two = read(Rows(recording(1, 4000), 70))
joined = one.sync(two, tolerance="3ms").key_by("symbol", parallelism=2)
windows = joined.window(ops.Tumbling("10ms"), n=agg.count(), total=agg.sum("price"))
flow = windows.map(notional, inputs=["total", "n"], outputs={{"total": pa.float64()}}, parallelism=2).write(
    sinks.Parquet({out!r})
) + joined.unmatched.write(sinks.JsonLines({out!r} + ".jsonl"))
"""


def write_flow(folder: Path) -> Path:
    """The flow file in `folder`, which writes to ``folder/out``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "flow.py"
    path.write_text(FLOW.format(tests=str(Path(__file__).parent), out=str(folder / "out")))
    return path


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "penstock.cli", "run", str(path), "--quiet", *more]


def run_inline(folder: Path) -> Report:
    """What an undisturbed run writes."""
    report = folder / "run.json"
    path = write_flow(folder)
    subprocess.run(command(path, "--runner", "inline", "--report", str(report)), check=True, stdout=subprocess.DEVNULL)
    return Report.load(report)


def actors(identity: str) -> list[int]:
    """The processes of runs on the cluster `identity`."""
    found = []
    for process in processes.find(identity):
        try:
            line = " ".join(process.cmdline())
        except Exception:
            continue
        if line.startswith("ray::Penstock"):
            found.append(process.pid)
    return found


@dataclass
class Chaos:
    """One run under a seed: `kills` deaths, each when the run has got a little further than at the one before."""

    cluster: Any
    folder: Path
    seed: int
    kills: int
    kinds: tuple[str, ...] = ("actor", "actor", "actor", "raylet", "driver")
    in_turn: bool = False
    done: list[str] = field(default_factory=list)

    def run(self) -> Report:
        """The report of the run that at last came through."""
        chance = random.Random(self.seed)
        path = write_flow(self.folder)
        store = CheckpointStore(self.folder / "checkpoints", read_only=True)
        report = self.folder / "run.json"
        options = ["--address", self.cluster.address, "--checkpoint", str(self.folder / "checkpoints")]
        options += ["--checkpoint-every", "300ms", "--resume", "--report", str(report)]
        driver = subprocess.Popen(command(path, *options, "--speed", "1"))
        try:
            for number in range(self.kills):
                kind = self.kinds[number % len(self.kinds)] if self.in_turn else chance.choice(self.kinds)
                goal = max(store.numbers(), default=0) + chance.randrange(4)
                while driver.poll() is None and not self._ready(store, goal):
                    self._wait(driver)
                if driver.poll() is not None:
                    break
                self._kill(kind, chance, driver)
                self.done.append(f"{number}: {kind} at checkpoint {goal}")
                if kind == "driver":
                    driver.wait()
                    driver = subprocess.Popen(command(path, *options, "--speed", "1"))
            if driver.wait(timeout=600) != 0:
                raise AssertionError(f"the driver ended with {driver.returncode} after {self.done}")
        finally:
            driver.kill()
            driver.wait()
            while len(self.cluster.nodes) < 3:
                self.cluster.add_node()
        return Report.load(report)

    def _ready(self, store: CheckpointStore, goal: int) -> bool:
        return max(store.numbers(), default=0) >= goal and len(actors(self.cluster.cluster.identity)) > 3

    def _wait(self, driver: subprocess.Popen[bytes]) -> None:
        try:
            driver.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            return

    def _kill(self, kind: str, chance: random.Random, driver: subprocess.Popen[bytes]) -> None:
        if kind == "driver":
            driver.send_signal(signal.SIGKILL)
            return
        victims = self.cluster.nodes[1:] if kind == "raylet" else actors(self.cluster.cluster.identity)
        if victims:
            processes.kill(chance.choice(sorted(victims)))
