"""The three demo pipelines: the same rows on both runners and in another process, and on the real recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from elsewhere import digests_elsewhere
from penstock.cli import main
from penstock.demos import drive, game, market
from penstock.demos.run import DOMAINS, record

#: Long enough for several batches of every model.
SIZES = {"drive": 0.3, "market": 0.06, "game": 0.06}


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_a_demo_gives_the_same_rows_inline_on_threads_and_in_a_fresh_process(domain: str, tmp_path: Path) -> None:
    build, name = DOMAINS[domain]
    recording = tmp_path / name
    record(domain, recording, SIZES[domain], seed=3)
    here = build(recording, tmp_path / "inline").run(runner="inline")
    assert here.rows > 64
    assert here["quarantined"] == 0
    model = here["accelerator"]["model"]
    assert model["attention"] == "flash" and model["dtype"] == "int8"
    assert max(model["quantization"]["error_relative_l2"].values()) < 0.1
    assert digests_elsewhere(build(recording, tmp_path / "spawned"), parallelism=3) == here.digests


def test_every_frame_and_scan_of_the_real_drive_is_accounted_for(
    recordings: Callable[[str], Path], tmp_path: Path
) -> None:
    file = recordings("driving/derived_drive") / "drive_mcap" / "drive_mcap.mcap"
    report = drive.pipeline(file, tmp_path / "out").run()
    stages, dropped = report["stages"], report["dropped"].get("sync", {})
    assert stages["camera"]["rows_out"] == 221 and stages["radar"]["rows_out"] == 177
    assert stages["sync"]["rows_in"] == 221 + 177
    unmatched = sum(rows for reason, rows in dropped.items() if reason.startswith("no partner"))
    assert report.rows == stages["sync"]["rows_out"] == 221 - unmatched
    assert report["stages"]["decode_image"]["quarantined"] == 0


def test_every_message_of_the_real_market_day_is_accounted_for(
    recordings: Callable[[str], Path], tmp_path: Path
) -> None:
    file = recordings("market/itch50") / "ex20101224.TEST_ITCH_50"
    report = market.pipeline(file, tmp_path / "out", every=32).run()
    stages, dropped = report["stages"], report["dropped"]
    assert stages["ticks"]["rows_in"] == 12_012
    assert stages["ticks"]["rows_out"] + sum(dropped["ticks"].values()) == 12_012
    assert stages["book"]["rows_out"] + sum(dropped["book"].values()) == stages["book"]["rows_in"]
    assert report.rows + sum(dropped["sequence"].values()) == stages["book"]["rows_out"]


@pytest.mark.parametrize(("name", "events"), [("3.0.0.38749_1", 22_041), ("5.0.0.80949_Ocrucius_vs_Rairden", 18_233)])
def test_every_event_of_the_real_games_is_accounted_for(
    name: str, events: int, recordings: Callable[[str], Path], tmp_path: Path
) -> None:
    file = recordings("games/derived_sc2_events") / f"{name}.ndjson.gz"
    report = game.pipeline(file, tmp_path / "out", every=64).run()
    stages = report["stages"]
    assert stages["events"]["rows_out"] == events
    assert report.rows + sum(report["dropped"]["actions"].values()) == events


def test_the_demo_command_prints_the_report_and_the_first_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "game", "--size", "0.02", "--out", str(tmp_path / "out"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "completed on the local runner" in out and "first results of" in out and "next_action" in out
