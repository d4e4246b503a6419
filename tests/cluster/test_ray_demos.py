"""The three demo pipelines give the same rows in one thread, on threads and on three nodes, generated or recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from penstock import Flow, Report
from penstock.demos import drive, game, market
from penstock.demos.run import DOMAINS, record
from ray_runs import connection, facts

pytestmark = pytest.mark.ray
#: Long enough for several batches of every model.
SIZES = {"drive": 0.2, "market": 0.04, "game": 0.04}
GAMES = ("3.0.0.38749_1", "5.0.0.80949_Ocrucius_vs_Rairden")
RUNS: dict[str, dict[str, Any]] = {
    "inline": {"runner": "inline"},
    "local": {"runner": "local", "parallelism": 2},
    "ray": {"runner": "ray", "parallelism": 2},
}


@pytest.fixture(scope="module", autouse=True)
def connected(cluster: Any) -> Iterator[Any]:
    with connection(cluster.address) as ray:
        yield ray


def run_everywhere(build: Callable[[Path], Flow], out: Path) -> Report:
    """The report of the run on the cluster, once all three are found to agree."""
    reports = {runner: build(out / runner).run(**options) for runner, options in RUNS.items()}
    expected = facts(reports["inline"])
    assert reports["inline"].rows > 0
    for report in reports.values():
        assert facts(report) == expected
    assert reports["ray"]["cluster"]["spilled_bytes"] == 0
    return reports["ray"]


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_a_demo_gives_the_same_rows_on_every_runner(domain: str, tmp_path: Path) -> None:
    build, name = DOMAINS[domain]
    record(domain, tmp_path / name, SIZES[domain], seed=5)
    report = run_everywhere(lambda out: build(tmp_path / name, out), tmp_path)
    assert report["accelerator"]["model"]["attention"] == "flash"
    assert report["accelerator"]["rows"] == report.rows > 64


@pytest.mark.nightly
def test_the_real_drive_gives_the_same_rows_on_every_runner(recordings: Callable[[str], Path], tmp_path: Path) -> None:
    file = recordings("driving/derived_drive") / "drive_mcap" / "drive_mcap.mcap"
    run_everywhere(lambda out: drive.pipeline(file, out), tmp_path)


@pytest.mark.nightly
def test_the_real_market_day_gives_the_same_rows_on_every_runner(
    recordings: Callable[[str], Path], tmp_path: Path
) -> None:
    file = recordings("market/itch50") / "ex20101224.TEST_ITCH_50"
    run_everywhere(lambda out: market.pipeline(file, out, every=32), tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", GAMES)
def test_the_real_games_give_the_same_rows_on_every_runner(
    name: str, recordings: Callable[[str], Path], tmp_path: Path
) -> None:
    file = recordings("games/derived_sc2_events") / f"{name}.ndjson.gz"
    run_everywhere(lambda out: game.pipeline(file, out, every=64), tmp_path)
