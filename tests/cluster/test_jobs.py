"""Flows as jobs of a cluster: what is shipped, how they end, and what comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from penstock.cli import main
from penstock.pipeline.cluster import job_commands, jobs
from penstock.pipeline.cluster.server import JobServer, UnknownJobError
from penstock.pipeline.cluster.shipping import package_files
from penstock.pipeline.errors import PenstockError
from penstock.pipeline.load import load_flow
from penstock.pipeline.report import Report

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]

FLOW = """
import threading
import numpy as np
import penstock as ps
import pyarrow as pa
from penstock import sinks, sources
from prices import doubled

def at(nanoseconds):
    return pa.array(nanoseconds, pa.timestamp("ns", "UTC"))

steps = np.arange(4_000, dtype=np.int64)
rows = pa.table({"ts_event": at(steps), "ts_recv": at(steps), "seq": steps.astype(np.uint64), "price": steps / 7})

def wrong(price):
    if len(price):
        raise ValueError("prices are closed today")
    return price

def slow(batch):
    if batch.num_rows:
        print("waiting", flush=True)
        threading.Event().wait(0.5)
    return batch

read = ps.read(sources.Rows(rows, 10))
flow = read.map(doubled, inputs=["price"], outputs={"price": pa.float64()}).write(sinks.Null())
failing = read.map(wrong, inputs=["price"], outputs={"price": pa.float64()}).write(sinks.Null())
endless = read.map(slow).write(sinks.Null())
print("penstock", ps.__version__, "from", ps.__file__)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a flow, and a module that it imports."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "prices.py").write_text("def doubled(price):\n    return price * 2\n")
    (folder / "flow.py").write_text(textwrap.dedent(FLOW))
    return folder / "flow.py"


@pytest.fixture
def server(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> JobServer:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", cluster.jobs_url)
    return JobServer()


def test_a_job_runs_what_was_shipped_and_its_report_comes_back(
    server: JobServer, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.json"
    command = ["submit", str(file), "--follow", "--report", str(saved), "--job-id", "good", "--env", "COLOUR=blue"]
    assert main([*command, "--", "--runner", "local", "--parallelism", "2"]) == 0
    out = capsys.readouterr().out
    assert "completed on the local runner" in out and "job good succeeded" in out
    assert "py_modules_files" in out and "penstock-report" not in out
    assert Report.load(saved).digests == load_flow(file).run(runner="inline").digests
    assert server.info("good").runtime_env["env_vars"]["COLOUR"] == "blue"


def test_a_failing_job_says_why_in_one_line_and_has_a_report(
    server: JobServer, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.json"
    command = ["submit", str(file), "--flow", "failing", "--follow", "--report", str(saved), "--job-id", "bad"]
    assert main([*command, "--", "--runner=inline", "--on-error=raise"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("job bad failed: failed: ") and "prices are closed today" in last
    assert Report.load(saved)["outcome"] == "failed"
    assert main(["jobs"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad ")]
    assert "flow.py:failing" in line and "prices are closed today" in line
    assert main(["logs", "bad"]) == 0
    assert "penstock-report" not in capsys.readouterr().out
    assert main(["status", "bad"]) == 1


def test_ctrl_c_leaves_the_job_running_and_stop_ends_it_with_a_report(
    server: JobServer, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(text: str) -> None:
        if "waiting" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(job_commands, "_show", press)
    command = ["submit", str(file), "--flow", "endless", "--follow", "--job-id", "long", "--", "--runner", "local"]
    assert main(command) == 130
    assert "penstock stop long" in capsys.readouterr().err
    assert jobs.job(server, "long").status == "RUNNING"
    assert main(["status", "long", "--report", str(tmp_path / "none.json")]) == 1
    assert main(["stop", "long"]) == 0
    assert "job long stopped" in capsys.readouterr().out
    report = jobs.fetch_report(server, "long")
    assert report is not None and report["outcome"] == "stopped" and 0 < report["stages"]["read"]["rows_out"] < 4_000
    assert main(["stop", "long"]) == 0
    assert "nothing to stop" in capsys.readouterr().out


def test_a_checkout_under_another_name_ships_itself(server: JobServer, file: Path, tmp_path: Path) -> None:
    checkout, path = tmp_path / "any name", tmp_path / "path"
    for name in [*package_files(ROOT), Path("tests/streams.py")]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, checkout / name)
    (checkout / "version.py").write_text('__all__ = ["__version__"]\n__version__ = "7.7.7"\n')
    path.mkdir()
    (path / "penstock").symlink_to(checkout)
    command = [sys.executable, "-m", "penstock.cli", "submit", str(file), "--follow", "--", "--runner", "inline"]
    environment = os.environ | {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, env=environment, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (there,) = [
        line for line in run.stdout.splitlines() if "penstock 7.7.7 from" in line and "py_modules_files" in line
    ]
    assert there.endswith("/penstock/__init__.py")


def test_no_job_of_that_name(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownJobError):
        server.logs("nobody")
    for command in (["status", "nobody"], ["stop", "nobody"], ["logs", "nobody"], ["logs", "nobody", "--follow"]):
        assert main(command) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("penstock: no job 'nobody' at http://")


def test_the_address_for_drivers_leads_to_the_jobs_too(
    server: JobServer, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # Ray would take this one, whatever is asked for
    assert {job.id for job in jobs.jobs(JobServer(cluster.address))} == {job.id for job in jobs.jobs(server)}


def test_a_job_id_is_used_once(server: JobServer, file: Path) -> None:
    assert jobs.submit(file, options=["--runner", "inline"], job_id="once", server=server) == "once"
    with pytest.raises(PenstockError, match="once"):
        jobs.submit(file, options=["--runner", "inline"], job_id="once", server=server)


def test_a_token_that_is_missing_or_wrong_is_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PenstockError, match="refuses the token: export RAY_AUTH_MODE=token"):
        JobServer(cluster.jobs_url, token="0" * 64)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-m", "penstock.cli", "jobs", "--address", cluster.jobs_url]
    run = subprocess.run(command, env=bare | {"RAY_AUTH_MODE": "disabled"}, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert "wants a token, and none was sent: export RAY_AUTH_MODE=token" in line
