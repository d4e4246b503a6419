"""The command line: ``penstock run|explain|inspect|head|doctor|demo|quarantine``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .pipeline.cluster.commands import add_commands
from .pipeline.errors import PenstockError
from .pipeline.progress import ProgressLine
from .sources.commands import add_commands as add_source_commands
from .sources.replay.commands import add_commands as add_replay_commands
from .version import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for an error (one line on stderr), 130 when stopped by the user."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        return command(options)
    except KeyboardInterrupt:
        again = "; go on with --resume" if getattr(options, "checkpoint", None) else ""
        print(f"penstock: stopped; nothing unfinished was left under a final name{again}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except (PenstockError, OSError) as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1


def _as_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock", description="Streaming preprocessing in front of model inference.", epilog="docs: README.md"
    )
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="write a recording of a domain and run its pipeline on it")
    demo.add_argument("domain", choices=["drive", "market", "game"])
    demo.add_argument(
        "--size", type=float, default=1.0, help="length of the recording, 1 = a few seconds of work (%(default)s)"
    )
    demo.add_argument("--file", type=Path, help="run on this recording instead of a generated one")
    demo.add_argument("--out", type=Path, help="folder for recording and results (default: a temporary one)")
    demo.add_argument("--seed", type=int, default=0, help="of the generated recording (%(default)s)")
    _run_options(demo)
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="run the flow in a Python file")
    _flow_options(run)
    _run_options(run)
    run.set_defaults(command=_run)

    explain = commands.add_parser("explain", help="print what a flow would do: steps, schemas, threads, memory, copies")
    _flow_options(explain)
    explain.add_argument("--format", choices=["text", "mermaid"], default="text")
    explain.add_argument("--parallelism", type=int)
    explain.set_defaults(command=_explain)

    add_source_commands(commands)
    doctor = commands.add_parser(
        "doctor", help="explain a run report, or run a flow and say what the accelerator waits for"
    )
    doctor.add_argument("target", type=Path, help="run.json from --report, or a Python file with a flow")
    doctor.add_argument("--flow", default="flow", metavar="NAME", help="name of the flow in the file (%(default)s)")
    _run_options(doctor)
    doctor.set_defaults(command=_doctor)

    quarantine = commands.add_parser("quarantine", help="look at records that were put aside, and try them again")
    actions = quarantine.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="one line a record: name, step, place, operation, error")
    listing.add_argument("folder", type=Path)
    listing.set_defaults(command=_quarantine_list)
    show = actions.add_parser("show", help="a record with its first bytes")
    show.add_argument("folder", type=Path)
    show.add_argument("record", help="the record's name in the list")
    show.set_defaults(command=_quarantine_show)
    again = actions.add_parser("rerun", help="try every record again; exit status 0 if all decode now, else 1")
    again.add_argument("folder", type=Path)
    _flow_options(again)
    again.add_argument(
        "--out",
        type=Path,
        metavar="FILE.arrow",
        help="write the rows that decode now, as FILE-STEP.arrow for each step",
    )
    again.set_defaults(command=_quarantine_rerun)
    add_replay_commands(commands)
    add_commands(commands)
    return parser


def _flow_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a Python file that defines a flow")
    parser.add_argument("--flow", default="flow", metavar="NAME", help="name of the flow in the file (%(default)s)")


def _run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to run")
    group.add_argument(
        "--runner", choices=["local", "inline", "ray"], help="where it runs (default: local; ray with --address)"
    )
    group.add_argument(
        "--address", metavar="ADDRESS", help="a Ray cluster: host:port, 'auto', or 'local' for a new one for this run"
    )
    group.add_argument(
        "--parallelism",
        type=int,
        metavar="N",
        help="threads for parallel steps (default: the cores); on Ray readers of each source",
    )
    group.add_argument(
        "--memory", metavar="SIZE", help="budget the plan must fit, such as 2GiB (default: half of what is free)"
    )
    group.add_argument(
        "--on-error", choices=["quarantine", "raise"], default="quarantine", help="what a bad record does"
    )
    group.add_argument("--quarantine", type=Path, metavar="DIR", help="keep bad records in this folder")
    group.add_argument(
        "--speed", type=float, metavar="X", help="replay at X times the recorded pace (default: no pacing)"
    )
    group.add_argument(
        "--checkpoint",
        metavar="URL",
        help="keep snapshots in this folder or at this fsspec URL (default: none are made)",
    )
    group.add_argument(
        "--checkpoint-every", metavar="TIME", default="10s", help="time between two snapshots (%(default)s)"
    )
    group.add_argument("--checkpoint-rows", type=int, metavar="N", help="or so many rows read, whichever comes first")
    group.add_argument(
        "--resume", action="store_true", help="go on from the newest snapshot (from the beginning if there is none)"
    )
    group.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    group.add_argument("--quiet", action="store_true", help="no progress line")


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "runner": arguments.runner,
        "ray": arguments.address,
        "checkpoint": arguments.checkpoint,
        "checkpoint_every": arguments.checkpoint_every,
        "checkpoint_rows": arguments.checkpoint_rows,
        "resume": arguments.resume,
        "parallelism": arguments.parallelism,
        "memory": arguments.memory,
        "on_error": arguments.on_error,
        "quarantine": arguments.quarantine,
        "speed": arguments.speed,
        "report": arguments.report,
    }


def _load(path: Path, name: str) -> Any:
    from .pipeline.load import load_flow

    return load_flow(path, name)


def _run(arguments: argparse.Namespace) -> int:
    from .pipeline.doctor import diagnosis

    flow = _load(arguments.file, arguments.flow)
    with ProgressLine(quiet=arguments.quiet) as line:
        report = flow.run(progress=line.update, **_options(arguments))
    print(diagnosis(report))
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    flow = _load(arguments.file, arguments.flow)
    print(flow.explain(arguments.format, parallelism=arguments.parallelism))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from .pipeline.doctor import diagnosis
    from .pipeline.report import Report

    if arguments.target.suffix == ".py":
        flow = _load(arguments.target, arguments.flow)
        with ProgressLine(quiet=arguments.quiet) as line:
            report = flow.run(progress=line.update, ceiling=True, **_options(arguments))
    else:
        try:
            report = Report.load(arguments.target)
        except ValueError as error:
            raise PenstockError(str(error)) from error
    print(diagnosis(report))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from .demos.run import run_demo

    return run_demo(
        arguments.domain,
        size=arguments.size,
        file=arguments.file,
        out=arguments.out,
        seed=arguments.seed,
        quiet=arguments.quiet,
        options=_options(arguments),
    )


def _quarantine_list(arguments: argparse.Namespace) -> int:
    from .pipeline.quarantine import read_quarantine

    records = read_quarantine(arguments.folder)
    for record in records:
        what = f"{record.operation}: {record.error}  ({record.nbytes} bytes)"
        print(f"{record.name}  {record.step}  {record.place}  {what}")
    print(f"{len(records)} records")
    return 0


def _quarantine_rerun(arguments: argparse.Namespace) -> int:
    from urllib.parse import quote

    from .pipeline.context import Context
    from .pipeline.quarantine import read_quarantine
    from .pipeline.rerun import rerun
    from .sinks import ArrowIpc

    out: Path = arguments.out or Path()
    written: list[Path] = []

    def keep(step: str, schema: Any) -> Any:
        written.append(out.parent / f"{out.stem}-{quote(step, safe='')}{out.suffix}")
        return ArrowIpc(written[-1]).open(Context(step), schema)

    records = read_quarantine(arguments.folder)
    flow = _load(arguments.file, arguments.flow)
    good = 0
    for attempt in rerun(records, flow, keep if arguments.out is not None else None):
        print(attempt)
        good += attempt.error is None
    for path in written:
        print(f"wrote {path}")
    print(f"{good} of {len(records)} records decode now")
    return 0 if good == len(records) else 1


def _quarantine_show(arguments: argparse.Namespace) -> int:
    from .pipeline.quarantine import read_quarantine

    records = read_quarantine(arguments.folder)
    chosen = next((record for record in records if record.name == arguments.record), None)
    if chosen is None:
        raise PenstockError(f"no record {arguments.record!r} in {arguments.folder}; see penstock quarantine list")
    print(
        f"step       {chosen.step}\nplace      {chosen.place}\noperation  {chosen.operation}\nerror      {chosen.error}\n"
        f"decoder    {chosen.decoder or 'unknown'}"
    )
    data = chosen.data()
    for start in range(0, min(len(data), 512), 16):
        piece = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        print(f"{start:08x}  {piece.hex(' '):<47}  {text}")
    if len(data) > 512:
        print(f"... {len(data)} bytes in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
