"""``penstock submit``: a flow as a job of a cluster."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import PenstockError
from .job_commands import add_address, connect, follow_job

__all__ = ["add_submit_command"]


class _PassesOn(argparse.ArgumentParser):
    """Keeps what stands behind ``--`` in `options`, unread; argparse itself would mix it with what stands before."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = list(args or ())
        end = given.index("--") if "--" in given else len(given)
        found, rest = super().parse_known_args(given[:end], namespace)
        found.options = given[end + 1 :]
        return found, rest


def add_submit_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    listed = commands.add_parser("submit", help="run the flow in a Python file as a job of a Ray cluster")
    submit = _PassesOn(
        prog=listed.prog,
        usage=f"{listed.prog} FILE [--address URL] [--follow] [--report FILE] [...] [-- options of penstock run]",
        description="Runs on Ray unless the options behind -- name another runner.",
    )
    commands._name_parser_map["submit"] = submit
    submit.add_argument("file", type=Path, help="a Python file that defines a flow")
    submit.add_argument("--flow", default="flow", metavar="NAME", help="name of the flow in the file (%(default)s)")
    add_address(submit)
    submit.add_argument(
        "--follow",
        action="store_true",
        help="show the log until the job has ended, then what the run did; Ctrl-C leaves the job running",
    )
    submit.add_argument("--report", type=Path, metavar="FILE", help="with --follow: write the run's report as JSON")
    submit.add_argument("--job-id", metavar="ID", help="instead of one that Ray makes up")
    submit.add_argument("--no-check", action="store_true", help="do not build the flow here before submitting it")
    group = submit.add_argument_group("what goes along")
    group.add_argument(
        "--working-dir", type=Path, metavar="DIR", help="shipped, and where the job runs (FILE's folder)"
    )
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave this out of it, such as data/ or *.mcap",
    )
    group.add_argument(
        "--pip", nargs="+", action="extend", default=[], metavar="PKG", help="packages that the cluster's Python lacks"
    )
    group.add_argument("--requirements", type=Path, metavar="FILE", help="the same from a file")
    group.add_argument("--env", action="append", default=[], metavar="K=V", help="an environment variable of the job")
    group.add_argument("--runtime-env", metavar="JSON", help="Ray's runtime environment, or a file that holds it")
    group.add_argument("--no-ship", action="store_true", help="use the penstock that the cluster has installed")
    group.add_argument("--python", default="python", help="the interpreter there (%(default)s)")
    submit.set_defaults(command=_submit)


def _submit(arguments: argparse.Namespace) -> int:
    from .jobs import submit

    if arguments.report is not None and not arguments.follow:
        raise PenstockError("--report needs --follow; or fetch it later with penstock status JOB --report FILE")
    name = submit(
        arguments.file,
        address=arguments.address,
        flow=arguments.flow,
        options=arguments.options,
        working_dir=arguments.working_dir,
        exclude=arguments.exclude,
        pip=[*arguments.pip, *_requirements(arguments.requirements)],
        env_vars=_variables(arguments.env),
        runtime_env=_runtime_env(arguments.runtime_env),
        job_id=arguments.job_id,
        check=not arguments.no_check,
        ship=not arguments.no_ship,
        python=arguments.python,
    )
    print(f"submitted {name}", flush=True)
    if not arguments.follow:
        where = f" --address {arguments.address}" if arguments.address else ""
        print(f"  penstock logs {name} --follow{where}\n  penstock status {name}{where}\n  penstock stop {name}{where}")
        return 0
    return follow_job(connect(arguments), name, arguments)


def _requirements(file: Path | None) -> list[str]:
    lines = [] if file is None else [line.partition(" #")[0].strip() for line in file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _variables(given: Sequence[str]) -> dict[str, str]:
    for pair in given:
        if "=" not in pair or pair.startswith("="):
            raise PenstockError(f"--env {pair}: write NAME=VALUE")
    return dict(pair.split("=", 1) for pair in given)


def _runtime_env(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    try:
        found = json.loads(given if given.lstrip().startswith("{") else Path(given).read_text())
    except ValueError as error:
        raise PenstockError(f"--runtime-env is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise PenstockError('--runtime-env must be a JSON object, such as \'{"pip": ["av"]}\'')
    return found
