"""What ``penstock submit`` and its like say before any cluster is asked."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from penstock.cli import main
from penstock.pipeline.cluster.server import job_address

FLOW = """
import penstock as ps
import pyarrow as pa
from penstock import sinks, sources

schema = pa.schema([("ts_event", pa.timestamp("ns", "UTC")), ("ts_recv", pa.timestamp("ns", "UTC")), ("seq", pa.uint64())])
rows = ps.read(sources.Rows(schema.empty_table()))
flow = rows.write(sinks.Null())
"""


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nobody listens."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    return tmp_path / "flow.py"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_no_server_is_one_line(file: Path, nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["submit", str(file)], ["jobs"], ["status", "x"], ["stop", "x"], ["logs", "x"]):
        assert main([*command, "--address", nobody]) == 1
        assert said(capsys).startswith(f"penstock: no Ray job server at {nobody} (")


def test_a_wrong_column_fails_here_and_no_server_is_asked(
    file: Path, nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(FLOW + "flow = rows.map(abs, inputs=['prise'], outputs={'x': pa.int64()}).write(sinks.Null())\n")
    assert main(["submit", str(file), "--address", nobody]) == 1
    assert "prise" in (line := said(capsys)) and "--no-check" in line
    assert main(["submit", str(file), "--address", nobody, "--no-check"]) == 1
    assert "no Ray job server" in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--flow", "flaw"], "no flow named 'flaw'; it has flow, rows"),
        (["--report", "x.json"], "--report needs --follow"),
        (["--", "--report", "x.json"], "--report stands before the --"),
        (["--", "--report=x.json"], "--report stands before the --"),
        (["--env", "COLOUR"], "write NAME=VALUE"),
        (["--runtime-env", "{"], "is not JSON"),
        (["--runtime-env", "{'a'}"], "is not JSON"),
        (["--address", "http://"], "is no address of a job server"),
        (["--address", "http://127.0.0.1:99999"], "is no address of a job server"),
    ],
)
def test_what_is_wrong_is_one_line(
    file: Path, nobody: str, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", str(file), *arguments]) == 1
    assert expected in said(capsys)


def test_a_file_outside_the_working_folder_is_refused(
    file: Path, nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    assert main(["submit", str(file), "--working-dir", str(tmp_path / "other")]) == 1
    assert "is not inside the working folder" in said(capsys)


def test_a_module_that_is_only_on_the_cluster_is_explained(
    file: Path, nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("import only_there\n" + FLOW)
    assert main(["submit", str(file), "--address", nobody]) == 1
    assert "only_there" in (line := said(capsys)) and "--no-check" in line


def test_which_address_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert job_address() == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert job_address() == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://10.0.0.1:8265/")
    assert job_address() == "http://10.0.0.1:8265"
    assert job_address("http://10.0.0.2:1") == "http://10.0.0.2:1"
