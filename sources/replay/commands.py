"""``penstock replay`` and ``penstock record``."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from contextlib import closing
from dataclasses import asdict
from typing import Any

from ...pipeline.clock import RealClock
from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import GraphError
from ...pipeline.interrupts import first_interrupt

__all__ = ["add_commands", "option_of"]

_EVERY_NS = 500_000_000


def add_commands(commands: Any) -> None:
    """Add both to the subparsers of the command line."""
    replay = commands.add_parser(
        "replay",
        help="serve a recording at its own pace",
        description="Send the messages of a recording as they came, at their own pace. tcp:// and ws:// addresses are "
        "served: the replay waits for a receiver, and the slowest receiver sets the pace. udp:// and http:// addresses are "
        "sent to. Nothing is skipped: a replay that cannot keep up is late, and says by how much. Packets, topics, lines "
        "and records go out as they are; rows of tables and data sets as JSON lines.",
    )
    replay.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a recording, recognised by its content: a path, folder, URL or wildcards; several are one in time order",
    )
    replay.add_argument(
        "--to",
        required=True,
        metavar="URL",
        help="tcp|ws|udp://HOST:PORT or http://HOST:PORT/PATH; udp://GROUP:PORT?ttl=1&interface=eth0 says how far and from "
        "which interface multicast goes (default: this machine alone)",
    )
    replay.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="times the recorded pace; 0: no pacing (%(default)s)"
    )
    replay.add_argument("--start", metavar="TIME", help="skip so much of the recording, such as 10s or 2m")
    replay.add_argument("--end", metavar="TIME", help="stop so far behind its beginning")
    replay.add_argument(
        "--loop",
        type=int,
        nargs="?",
        const=0,
        default=1,
        metavar="N",
        help="send it N times; without N until stopped. "
        "Recorded times repeat with each round: to a live window the second round is late",
    )
    replay.add_argument("--max-gap", metavar="TIME", help="cut longer gaps to this")
    replay.add_argument("--receivers", type=int, default=1, metavar="N", help="wait for so many (%(default)s)")
    replay.add_argument(
        "--plain",
        action="store_true",
        help="do not tell the receiver when messages were recorded: bytes on the wire are those of the venue",
    )
    replay.add_argument("--date", help="session date of an ITCH file whose name has none, such as 2019-01-30")
    replay.add_argument("--time", metavar="KEY", help="key of the time in JSON lines (default: found)")
    replay.add_argument("--time-unit", choices=["ns", "us", "ms", "s", "iso"], help="its unit")
    replay.add_argument("--topic", action="append", metavar="NAME", help="only this topic of the recording; repeatable")
    replay.add_argument(
        "--format", metavar="NAME", help="what the file is, where its content does not tell: adc for raw radar cubes"
    )
    replay.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the format's source, such as chirps=128 (a JSON value or text); repeatable",
    )
    replay.add_argument("--json", action="store_true", help="print the result as JSON")
    replay.add_argument("--quiet", action="store_true", help="no progress line")
    replay.set_defaults(command=_replay)

    record = commands.add_parser(
        "record",
        help="record a feed losslessly, with both clocks",
        description="Write everything that arrives on a feed to an MCAP file, to be read with sources.Recording or served "
        "again with penstock replay. Several URLs are the lines of one feed (the A and B side).",
    )
    record.add_argument(
        "urls",
        nargs="+",
        metavar="URL",
        help="udp|tcp|ws|wss://HOST:PORT... or http://HOST:PORT/PATH. tcp://HOST:PORT?framing=lines|u16|u32|bytes: how "
        "messages are told apart where the sender is no replay (default: u32, a big-endian length in front of each). "
        "udp://GROUP:PORT?interface=eth0: where a multicast group is joined (a name, number or address)",
    )
    record.add_argument("--out", required=True, metavar="FILE.mcap")
    record.add_argument("--for", dest="duration", metavar="TIME", help="stop after this, such as 10m (default: Ctrl-C)")
    record.add_argument("--most", type=int, metavar="N", help="or after so many messages")
    record.add_argument("--reconnect", default="30s", metavar="TIME", help="how long to try again (%(default)s)")
    record.add_argument("--quiet", action="store_true", help="no progress line")
    record.set_defaults(command=_record)


def _replay(arguments: argparse.Namespace) -> int:
    from .serving import replay

    named = ("date", "time", "time_unit", "topic", "format")
    options: dict[str, Any] = {name: getattr(arguments, name) for name in named if getattr(arguments, name)}
    options |= dict(option_of(text) for text in arguments.option)
    progress = _Progress(arguments.quiet)
    stop = threading.Event()
    outcome: list[Any] = []

    def opened(address: str) -> None:
        waits = address.startswith(("tcp://", "ws://")) and arguments.receivers
        print(f"{address}{': waiting for a receiver' if waits else ''}", file=sys.stderr, flush=True)

    def told(note: str) -> None:
        print(note, file=sys.stderr, flush=True)

    def work() -> None:
        try:
            outcome.append(
                replay(
                    arguments.files if len(arguments.files) > 1 else arguments.files[0],
                    arguments.to,
                    speed=arguments.speed,
                    start=arguments.start,
                    end=arguments.end,
                    loop=arguments.loop,
                    max_gap=arguments.max_gap,
                    receivers=arguments.receivers,
                    stamped=not arguments.plain,
                    stop=stop,
                    opened=opened,
                    told=told,
                    progress=None if arguments.quiet else progress.update,
                    **options,
                )
            )
        except ValueError as error:
            outcome.append(GraphError(str(error)))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, name="penstock-replay", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        stop.set()
        thread.join(2.0)
    progress.end()
    result = outcome[0] if outcome else None
    if isinstance(result, BaseException):
        raise result
    if result is not None:
        print(json.dumps(asdict(result)) if arguments.json else result.describe())
    return 130 if stop.is_set() else 0


def option_of(text: str) -> tuple[str, Any]:
    """Key and value of ``KEY=VALUE``, a JSON value or text. Raises GraphError."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise GraphError("not an option", expected="--option KEY=VALUE", got=text)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _record(arguments: argparse.Namespace) -> int:
    from ..live.feed import Live
    from ..live.raw_messages import RawMessages

    gaps: list[BadRecord] = []
    try:
        feed = Live(
            tuple(arguments.urls),
            RawMessages(),
            most=arguments.most,
            duration=arguments.duration,
            record=arguments.out,
            reconnect=arguments.reconnect,
        )
        feed.check_target()
    except ValueError as error:
        raise GraphError(str(error)) from error
    context = Context("record")
    reader = feed.open(context)
    progress = _Progress(arguments.quiet)
    messages = size = 0
    try:
        framing: Any = reader.blocks()
        with closing(framing) as blocks, first_interrupt(reader.finish):
            for block in blocks:
                messages += block.records
                size += block.nbytes
                gaps += reader.decode(block).bad
                progress.update(messages, size)
    except KeyboardInterrupt:
        context.stop.set()
    finally:
        reader.close()
        progress.end()
    made = f"{messages:,} messages, {size:,} bytes" if messages else "no message came, so there is no file"
    print(f"{arguments.out}: {made}" + (f", {len(gaps)} gaps" if gaps else ""))
    for gap in gaps[:20]:
        print(f"  {gap.error}")
    return 0


class _Progress:
    """One line on stderr, twice a second, where somebody watches."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._clock = RealClock()
        self._next = 0

    def update(self, messages: int, detail: int) -> None:
        """Show the counts so far."""
        now = self._clock.monotonic_ns() if self._shown else -1
        if self._shown and now >= self._next:
            self._next = now + _EVERY_NS
            print(f"\r  {messages:,} messages", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Go to the next line."""
        if self._shown and self._next:
            print(file=sys.stderr)
