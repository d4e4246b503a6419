"""Processes are killed at random; every run ends with exactly the undisturbed rows."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chaos import Chaos, actors, command, run_inline, write_flow
from penstock.pipeline.checkpoints import CheckpointStore
from penstock.pipeline.report import Report

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run_inline(folder)


def check(report: Report, folder: Path, undisturbed: tuple[Path, Report]) -> None:
    there, expected = undisturbed
    assert report.digests == expected.digests
    for step, stage in expected["stages"].items():
        assert [report["stages"][step][key] for key in ("rows_in", "rows_out")] == [stage["rows_in"], stage["rows_out"]]
    assert pq.read_table(folder / "out").to_pylist() == pq.read_table(there / "out").to_pylist()
    assert (folder / "out.jsonl").read_bytes() == (there / "out.jsonl").read_bytes()
    assert not list(folder.glob("**/.penstock*"))


def test_a_death_of_each_kind_costs_no_row(cluster: Any, tmp_path: Path, undisturbed: tuple[Path, Report]) -> None:
    chaos = Chaos(cluster, tmp_path, seed=1, kills=3, kinds=("actor", "raylet", "driver"), in_turn=True)
    check(chaos.run(), tmp_path, undisturbed)
    assert chaos.done


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(20))
def test_deaths_at_random_cost_no_row(
    cluster: Any, tmp_path: Path, undisturbed: tuple[Path, Report], seed: int
) -> None:
    check(Chaos(cluster, tmp_path, seed=seed, kills=2 + seed % 3).run(), tmp_path, undisturbed)


def until(condition: Callable[[], bool], rounds: int) -> None:
    """Wait in small steps until `condition` holds; fails after `rounds` tenths of a second."""
    pause = threading.Event()
    for _ in range(rounds):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError("it did not come to that")


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_is_ended_leaves_no_process_and_no_file(cluster: Any, tmp_path: Path, number: int) -> None:
    path = write_flow(tmp_path)
    identity = cluster.cluster.identity
    options = ["--address", cluster.address, "--speed", "0.2"]
    if number == signal.SIGKILL:
        options += ["--checkpoint", str(tmp_path / "checkpoints"), "--checkpoint-every", "200ms"]
    # whoever runs the tests in the background ignores SIGINT, and so would the driver
    driver = subprocess.Popen(
        command(path, *options),
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        store = CheckpointStore(tmp_path / "checkpoints", read_only=True)
        begun = store.numbers if number == signal.SIGKILL else lambda: (tmp_path / "out").exists()
        until(lambda: len(actors(identity)) > 3 and bool(begun()), 600)
        driver.send_signal(number)
        assert driver.wait(timeout=30) == (-9 if number == signal.SIGKILL else 130)
        until(lambda: not actors(identity), 100)
    finally:
        driver.kill()
        driver.wait()
    if number != signal.SIGKILL:
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["flow.py"]
    shared = [entry.name for entry in Path("/dev/shm").iterdir() if entry.name.startswith("penstock")]
    assert shared == []
