"""``penstock inspect`` and ``penstock head``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import Any

from ..pipeline.errors import FormatError, GraphError, PenstockError
from .replay.commands import option_of

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add both to the subparsers of the command line."""
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

    head = commands.add_parser(
        "head",
        help="the first rows of a recording, as a table",
        description="Print the first rows: times in UTC to the nanosecond, long bytes and lists shortened, columns that do "
        "not fit named below. Only what is needed is read.",
    )
    head.add_argument("file", metavar="FILE", help="a path, folder, URL, or wildcards in quotes")
    head.add_argument("-n", dest="rows", type=int, default=10, metavar="N", help="how many (%(default)s)")
    head.add_argument("--topic", metavar="NAME", help="of a recording of several; penstock inspect names them")
    head.add_argument("--table", metavar="NAME", help="of a format with several, such as l2 or frame")
    head.add_argument(
        "--date", metavar="DATE", help="session date of an ITCH file whose name has none, such as 2019-01-30"
    )
    head.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the format's source, such as price_decimals=4 (a JSON value or text); repeatable",
    )
    head.add_argument("--json", action="store_true", help="one JSON object a row, with all columns and bytes as base64")
    head.set_defaults(command=_head)


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


def _head(arguments: argparse.Namespace) -> int:
    from .head import as_text, first_rows
    from .replay.rows import json_rows

    options = dict(option_of(text) for text in arguments.option)
    if arguments.date is not None:
        options["date"] = arguments.date
    try:
        with _Note(f"reading {arguments.file}"):
            found = first_rows(arguments.file, arguments.rows, topic=arguments.topic, table=arguments.table, **options)
    except ValueError as error:
        raise GraphError(str(error)) from error
    if not arguments.json:
        print(as_text(found, shutil.get_terminal_size((120, 24)).columns))
        return 0
    for batch in found.rows.to_batches():
        sys.stdout.buffer.writelines(line + b"\n" for line in json_rows(batch))
    return 0


def _inspect_several(given: str, places: list[str], *, as_json: bool) -> int:
    from .inspection import inspect
    from .inspection_sets import line_of, total_of
    from .storage.listing import is_pattern

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
    beside = bool(refused) and found and not is_pattern(given)  # a folder may hold a file that says what the others are
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
