"""Flows as jobs of a Ray cluster: submit one, follow it, stop it, and get its report.

A job is ``penstock run`` of the user's file on the cluster. The file's folder goes along as the working folder and this
package as a module, so the cluster needs nothing of ours installed, only what both import (see `submit`).
"""

from __future__ import annotations

import asyncio
import shlex
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...version import __version__
from ..clock import RealClock
from ..errors import PenstockError
from ..load import load_flow
from ..names import names_in
from ..report import Report
from .report_lines import LogLines, closing_error, from_log
from .server import JobServer, UnknownJobError
from .shipping import stage_folder, stage_package

__all__ = ["Job", "fetch_report", "follow", "job", "jobs", "stop", "submit"]

#: How long a job that is stopped may take to abort its run and write its report before Ray kills it.
STOP_SECONDS = 20
POLL_NS = 250_000_000


@dataclass(frozen=True)
class Job:
    """A job as its cluster knows it; times are milliseconds since the epoch, `message` is one line."""

    id: str
    flow: str
    status: str
    started_ms: int | None
    ended_ms: int | None
    message: str

    @property
    def ended(self) -> bool:
        """Whether it succeeded, failed or was stopped."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


def submit(
    file: str | Path,
    *,
    address: str | None = None,
    flow: str = "flow",
    options: str | Sequence[str] = (),
    working_dir: str | Path | None = None,
    exclude: str | Sequence[str] = (),
    pip: str | Sequence[str] = (),
    env_vars: Mapping[str, str] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    job_id: str | None = None,
    token: str | None = None,
    check: bool = True,
    ship: bool = True,
    python: str = "python",
    server: JobServer | None = None,
) -> str:
    """Submit the flow named `flow` in `file` as a job; returns the job's id.

    `options` are passed to ``penstock run`` there; without ``--runner`` the job runs on Ray. `working_dir` is what is
    shipped and where the job runs (default: the file's folder), less `exclude` (see `shipping.stage_folder`). The cluster's
    Python must have what the flow and this package import; what it lacks is named by `pip` (packages or requirements, put
    into an environment of the job's own) or by `runtime_env`, Ray's runtime environment. `check` builds the flow here
    first, so that a wrong column fails before anything is sent. Without `ship` the cluster's own installation runs.

    Raises PenstockError, in one line: no such flow, too much to ship, no server, a token that is missing or refused.
    """
    file = Path(file)
    home = file.resolve().parent if working_dir is None else Path(working_dir).resolve()
    options, exclude, pip = names_in(options), names_in(exclude), names_in(pip)
    _check_options(options)
    if not file.is_file():
        raise PenstockError(f"no file {file}")
    if not file.resolve().is_relative_to(home):
        raise PenstockError(f"{file} is not inside the working folder {home}, which is what the job gets")
    if check:
        _check_flow(file, flow)
    if "--runner" not in {option.partition("=")[0] for option in options}:
        options = ["--runner", "ray", *options]
    name = file.resolve().relative_to(home).as_posix()
    command = [python, "-m", f"{__package__}.entry", name, "--flow", flow, *options]
    server = server or JobServer(address, token=token)
    with tempfile.TemporaryDirectory(prefix="penstock-ship-") as folder:
        environment = dict(runtime_env or {})
        environment["working_dir"] = str(stage_folder(home, Path(folder), exclude))
        environment["env_vars"] = _variables(environment, env_vars)
        if pip:
            environment["pip"] = [*environment.get("pip", []), *pip]
        if ship:
            environment["py_modules"] = [*environment.get("py_modules", []), str(stage_package(Path(folder)))]
        return server.submit(
            entrypoint=shlex.join(command),
            submission_id=job_id,
            runtime_env=environment,
            metadata={"penstock": __version__, "flow": flow, "file": file.name},
        )


def jobs(server: JobServer) -> list[Job]:
    """All jobs that were submitted to the cluster, the oldest first."""
    return [_job(found) for found in server.jobs()]


def job(server: JobServer, name: str) -> Job:
    """One job. Raises UnknownJobError."""
    return _job(server.info(name))


def stop(server: JobServer, name: str, *, patience_s: float = STOP_SECONDS + 10) -> Job:
    """Stop a job and return when it has stopped. Raises PenstockError if it has not within `patience_s`."""
    server.stop(name)
    clock, never = RealClock(), threading.Event()
    until = clock.monotonic_ns() + int(patience_s * 1e9)
    while not (found := job(server, name)).ended:
        if clock.monotonic_ns() >= until:
            raise PenstockError(f"job {name} is still {found.status.lower()} after {patience_s:g} s; try again")
        clock.wait_ns(POLL_NS, never)
    return found


def follow(server: JobServer, name: str, show: Callable[[str], object]) -> Job:
    """Give the job's log to `show` as it comes, less the report's lines, until the job has ended. Returns how it ended.

    A connection that breaks is taken up again where it broke. Raises UnknownJobError, or PenstockError if the server
    stays away.
    """
    lines, seen, failures = LogLines(), 0, 0

    async def read() -> None:
        nonlocal seen, failures
        skip = seen
        async for piece in server.tail(name):
            fresh, skip = piece[skip:], max(0, skip - len(piece))
            seen += len(fresh)
            failures = 0
            if text := lines.feed(fresh):
                show(text)

    job(server, name)  # which raises if there is none
    clock, never = RealClock(), threading.Event()
    while True:
        try:
            asyncio.run(read())
            if (found := job(server, name)).ended:
                break
        except UnknownJobError:
            raise
        except PenstockError:
            failures += 1
            if failures > 5:
                raise
        clock.wait_ns(POLL_NS * 2**failures, never)
    if rest := lines.end():
        show(rest)
    return found


def fetch_report(server: JobServer, name: str) -> Report | None:
    """The report of a job's run, from the end of its log; None if it failed before its run, or was killed."""
    return from_log(server.logs(name))


def _check_options(options: Sequence[str]) -> None:
    if any(option.partition("=")[0] == "--report" for option in options):
        raise PenstockError("--report stands before the --: the report of a job comes back here")


def _check_flow(file: Path, flow: str) -> None:
    try:
        load_flow(file, flow)
    except (PenstockError, OSError, ImportError) as error:
        raise PenstockError(f"{error} (checked here before submitting; --no-check leaves that to the job)") from error


def _variables(environment: Mapping[str, Any], given: Mapping[str, str] | None) -> dict[str, str]:
    variables: dict[str, str] = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    variables |= environment.get("env_vars", {}) | dict(given or {})
    for key, value in variables.items():
        if not key or "=" in key or not isinstance(value, str):
            raise PenstockError(f"environment variable {key!r} has the value {value!r}; write NAME=VALUE")
    return variables


def _job(details: Any) -> Job:
    metadata = details.metadata or {}
    flow = f"{metadata['file']}:{metadata['flow']}" if {"file", "flow"} <= set(metadata) else "(not a flow)"
    status = str(details.status)
    text = _message(details.message or "") if status == "FAILED" else ""
    return Job(details.submission_id, flow, status, details.start_time, details.end_time, text)


def _message(text: str) -> str:
    """Why a job failed, from the last lines of its log, which is what Ray makes its message of."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if (error := closing_error(line)) is not None:
            return error
        if line.startswith("penstock: "):
            return line.removeprefix("penstock: ")
    return lines[-1] if lines else ""
