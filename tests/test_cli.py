"""The command line: help, one-line errors, inspect, explain, run, doctor, quarantine."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from penstock.cli import main
from penstock.version import __version__

FLOW = """
import sys
sys.path.insert(0, {tests!r})
from penstock import models, sinks
from streams import identity, recording, source
import pyarrow as pa

model = models.Simulator(service_time="1ms", inputs={{"price": models.TensorSpec(pa.float64())}})
flow = source(recording(1, 500), 50).map(identity).batch(64).infer(model).write(sinks.Null())
stream = source(recording(1, 500), 50)
"""


@pytest.fixture
def flow_file(tmp_path: Path) -> Path:
    file = tmp_path / "flow.py"
    file.write_text(textwrap.dedent(FLOW.format(tests=str(Path(__file__).parent))))
    return file


def test_run_writes_a_report_that_doctor_reads(
    flow_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "run.json"
    assert main(["run", str(flow_file), "--report", str(report), "--quiet"]) == 0
    assert "completed on the local runner" in capsys.readouterr().out
    assert main(["doctor", str(report)]) == 0
    assert "accelerator (infer)" in capsys.readouterr().out


def test_doctor_runs_a_flow_and_compares_with_cached_input(flow_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(flow_file), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "with cached input it does" in out and "this run reached" in out


def test_explain_in_both_formats(flow_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(flow_file)]) == 0
    assert "memory: at most" in capsys.readouterr().out
    assert main(["explain", str(flow_file), "--flow", "stream", "--format", "mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart LR")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inspect", "nowhere.mcap"], "No such file"),
        (["run", "nowhere.py"], "no file nowhere.py"),
        (["doctor", "nowhere.json"], "No such file"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("penstock: ") and expected in lines[0]


def test_a_flow_of_another_name_is_listed(flow_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(flow_file), "--flow", "nope"]) == 1
    assert "no flow named 'nope'; it has flow, stream" in capsys.readouterr().err


def test_inspect_tells_formats_apart_by_content(
    recordings: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        recordings("driving/derived_drive") / "drive_mcap" / "drive_mcap.mcap": 21_297,
        recordings("market/itch50") / "ex20101224.TEST_ITCH_50": 12_012,
        recordings("market/itch50") / "ex20101224.TEST_ITCH_50.prefixed.itch": 12_012,
        recordings("games/derived_sc2_events") / "3.0.0.38749_1.ndjson.gz": 22_041,
        recordings("games/derived_sc2_events") / "5.0.0.80949_Ocrucius_vs_Rairden.ndjson.gz": 18_233,
    }
    assert main(["inspect", "--json", *map(str, files)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["messages"] for entry in found] == list(files.values())
    for entry in found:
        assert {"format", "messages", "counts", "time", "schema"} <= set(entry)
        assert sum(entry["counts"].values()) == entry["messages"]
    assert main(["inspect", str(next(iter(files)))]) == 0
    assert "21,297 messages" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", "is empty"), (b"\x00\x01nothing known", "none of recording, MCAP")]
)
def test_inspect_says_what_a_file_is_not(
    tmp_path: Path, content: bytes, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "drive.mcap"
    file.write_bytes(content)
    assert main(["inspect", str(file)]) == 1
    assert expected in capsys.readouterr().err


def test_quarantined_records_can_be_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flow.py"
    file.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from penstock import sinks
            from streams import recording, source
            import pyarrow as pa

            def picky(size):
                if (size % 50 == 0).any():
                    raise ValueError("a multiple of fifty")
                return size

            picked = source(recording(1, 500), 50).map(picky, inputs=["size"], outputs={{"size": pa.int64()}})
            flow = picked.write(sinks.Null())
            """
        )
    )
    folder = tmp_path / "bad"
    assert main(["run", str(file), "--quarantine", str(folder), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["quarantine", "list", str(folder)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) > 1 and "ValueError: a multiple of fifty" in listed[0]
    assert main(["quarantine", "show", str(folder), listed[0].split()[0]]) == 0
    shown = capsys.readouterr().out
    assert "00000000  " in shown and f"decoder    penstock {__version__}" in shown
