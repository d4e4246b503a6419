"""``penstock jobs|status|stop|logs``: what becomes of jobs that were submitted."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PenstockError

if TYPE_CHECKING:
    from ..report import Report
    from .jobs import Job
    from .server import JobServer

__all__ = ["add_address", "add_job_commands", "connect", "follow_job"]


def add_job_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands."""
    listing = commands.add_parser("jobs", help="the jobs of a cluster: id, flow, status, when, why they failed")
    add_address(listing)
    listing.set_defaults(command=_jobs)

    status = commands.add_parser("status", help="how a job is doing, and its report once it has ended")
    _job_options(status)
    status.add_argument("--report", type=Path, metavar="FILE", help="write the run's report as JSON")
    status.set_defaults(command=_status)

    stop = commands.add_parser("stop", help="stop a job and wait until it has stopped")
    _job_options(stop)
    stop.set_defaults(command=_stop)

    logs = commands.add_parser("logs", help="what a job has written")
    _job_options(logs)
    logs.add_argument("--follow", action="store_true", help="go on until the job has ended")
    logs.set_defaults(command=_logs)


def add_address(parser: argparse.ArgumentParser) -> None:
    """The option ``--address``."""
    parser.add_argument(
        "--address",
        metavar="URL",
        help="the job server (default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS, or http://127.0.0.1:8265)",
    )


def _job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="the job's id")
    add_address(parser)


def connect(arguments: argparse.Namespace) -> JobServer:
    """The server that ``--address`` or the environment names."""
    from .server import JobServer

    return JobServer(arguments.address)


def follow_job(server: JobServer, name: str, arguments: argparse.Namespace) -> int:
    """Show a job's log to its end and what its run did; 0 if it succeeded. Ctrl-C leaves the job running, unless told."""
    from .jobs import follow, stop

    try:
        found = follow(server, name, _show)
    except KeyboardInterrupt:
        if not _wants_to_stop(name):
            where = f" --address {arguments.address}" if arguments.address else ""
            print(f"\npenstock: job {name} goes on without you", file=sys.stderr)
            print(f"  penstock logs {name} --follow{where}\n  penstock stop {name}{where}", file=sys.stderr)
            return 130
        found = stop(server, name)
    report = _report_of(server, name, getattr(arguments, "report", None))
    if report is not None:
        from ..doctor import diagnosis

        print(diagnosis(report))
    print(_line(found))
    return 0 if found.status == "SUCCEEDED" else 1


def _wants_to_stop(name: str) -> bool:
    """Ask, where there is somebody to ask. A second Ctrl-C means no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"\nstop job {name} too? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        return False


def _report_of(server: JobServer, name: str, file: Path | None) -> Report | None:
    """The report of a job that has ended, written to `file` as well. Only with a file is it an error if there is none."""
    from .jobs import fetch_report

    report = fetch_report(server, name)
    if file is None:
        return report
    if report is None:
        raise PenstockError(f"job {name} has no report: it ended before its run did")
    report.write(file)
    return report


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _jobs(arguments: argparse.Namespace) -> int:
    from ..doctor import table
    from .jobs import jobs

    found = jobs(connect(arguments))
    rows = [[job.id, job.flow, job.status.lower(), _when(job.started_ms), _short(job.message, 100)] for job in found]
    print(table(["job", "flow", "status", "started", "message"], rows, indent="") if rows else "no jobs")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from .jobs import job

    server = connect(arguments)
    found = job(server, arguments.job)
    print(_line(found))
    print(f"  {found.flow}, started {_when(found.started_ms)}, ended {_when(found.ended_ms)}")
    if arguments.report is not None:
        if not found.ended:
            raise PenstockError(f"job {found.id} has no report yet: it is {found.status.lower()}")
        _report_of(server, arguments.job, arguments.report)
        print(f"  wrote {arguments.report}")
    return 1 if found.status == "FAILED" else 0


def _stop(arguments: argparse.Namespace) -> int:
    from .jobs import job, stop

    server = connect(arguments)
    before = job(server, arguments.job)
    if before.ended:
        print(f"{_line(before)}; there was nothing to stop")
        return 0
    print(_line(stop(server, arguments.job)))
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from .report_lines import LogLines

    server = connect(arguments)
    if arguments.follow:
        return follow_job(server, arguments.job, arguments)
    lines = LogLines()
    _show(lines.feed(server.logs(arguments.job)) + lines.end())
    return 0


def _line(job: Job) -> str:
    return f"job {job.id} {job.status.lower()}" + (f": {_short(job.message, 500)}" if job.message else "")


def _when(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
