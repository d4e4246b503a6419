"""What a job runs: ``python -m penstock.pipeline.cluster.entry FILE [options of penstock run]``.

It is ``penstock run`` with its report written to the end of the job's log, whatever became of the run.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..report import Report
from .report_lines import to_lines

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the command line in this process; returns its exit status."""
    command_line = importlib.import_module(
        f"{(__package__ or '').partition('.')[0]}.cli"
    )  # by name: this room imports no other
    with tempfile.TemporaryDirectory(prefix="penstock-job-") as folder:
        report = Path(folder) / "run.json"
        try:
            status: int = command_line.main(["run", *arguments, "--report", str(report)])
        finally:
            _say(report)
    return status


def _say(report: Path) -> None:
    """In one piece, so that nothing else that writes to the log comes between the lines."""
    if not report.is_file():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    text = memoryview(to_lines(Report.load(report)).encode())
    while text:
        text = text[os.write(sys.stdout.fileno(), text) :]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
