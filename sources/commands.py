"""``penstock inspect``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..pipeline.errors import FormatError, PenstockError

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add it to the subparsers of the command line."""
    inspect = commands.add_parser("inspect", help="what a recording holds: format, messages, time range, schema")
    inspect.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="recognised by its content: a path, URL, or the folder of a data set; wildcards in quotes and folders of files "
        "give a line a file and their total",
    )
    inspect.add_argument("--json", action="store_true", help="one JSON object a file")
    inspect.set_defaults(command=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from .formats import recordings_at
    from .inspection import inspect, summary

    status = 0
    for given in arguments.files:
        try:
            places, several = recordings_at(given)
            if several:
                status |= _inspect_several(given, places, as_json=arguments.json)
                continue
            with _Note(f"inspecting {given}"):
                found = inspect(places[0])
        except (PenstockError, OSError) as error:
            print(f"penstock: {error}", file=sys.stderr)
            status = 1
            continue
        print(json.dumps(found, default=str) if arguments.json else summary(found))
    return status


def _inspect_several(given: str, places: list[str], *, as_json: bool) -> int:
    from .inspection import inspect
    from .inspection_sets import line_of, total_of

    found, refused, failed = [], [], 0
    for number, place in enumerate(places, 1):
        try:
            with _Note(f"inspecting {place} ({number:,} of {len(places):,})"):
                found.append(inspect(place))
            print(json.dumps(found[-1], default=str) if as_json else line_of(found[-1]), flush=True)
        except FormatError as error:
            refused.append(place)
            print(f"penstock: {error}", file=sys.stderr)
        except (PenstockError, OSError) as error:
            failed += 1
            print(f"penstock: {error}", file=sys.stderr)
    if found and not as_json:
        print(total_of(given, found, refused))
    beside = bool(refused) and found and Path(given).is_dir()  # a folder may hold a file that says what the others are
    return int(bool(failed or (refused and not beside)))


class _Note:
    """What is being done, on a terminal, while it is."""

    def __init__(self, text: str) -> None:
        self._text = f"  {text} ..." if sys.stderr.isatty() else ""

    def __enter__(self) -> None:
        self._write(self._text)

    def __exit__(self, *exc: object) -> None:
        self._write(" " * len(self._text) + ("\r" if self._text else ""))

    def _write(self, text: str) -> None:
        if text:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
