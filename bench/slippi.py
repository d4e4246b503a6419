"""Slippi: a game's controller input to Arrow columns.

The peers live in an interpreter of their own (peppi-py pins another pyarrow), named by PENSTOCK_PEPPI: a worker that is
started once, reads when told to, and answers. What is timed holds no start of an interpreter.
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

from .harness import Case, Contender, Pending
from .recordings import real

__all__ = ["case"]

_GAME = "games/slippi_melee/v2.0.slp"
_RULES = (
    "The same replay, in the page cache, read again and again by one thread. A row is the input of one character in one "
    "frame; the second line reads the table of states as well, in a pass of its own, and counts input rows only. peppi and "
    "py-slippi have no way to decode the input alone: they decode all of a frame."
)
_WORKER = """
import sys
path, how = sys.argv[1:3]
if how == "peppi":
    import peppi_py
    def read():
        game = peppi_py.read_slippi(path)
        return sum(len(port.leader.pre.joystick.x) for port in game.frames.ports)
else:
    import slippi
    def read():
        game = slippi.Game(path)
        return sum(port is not None for frame in game.frames for port in frame.ports)
print("ready", flush=True)
for line in sys.stdin:
    print(sum(read() for _ in range(int(line))), flush=True)
"""


def case(scratch: Path, *, quick: bool) -> Case:
    file = real(_GAME) or _generated(scratch / "generated.slp")
    times = 3 if quick else 40
    workers = {how: _Worker(file, how) for how in ("peppi", "py-slippi")}
    contenders = [
        Contender("penstock, input", lambda: _penstock(file, times, ("input",)), ours=True),
        Contender("penstock, input and state", lambda: _penstock(file, times, ("input", "state")), ours=True),
        Contender("peppi", lambda: workers["peppi"].read(times)),
        Contender("py-slippi", lambda: workers["py-slippi"].read(1)),
    ]

    def close() -> None:
        for worker in workers.values():
            worker.close()

    return Case("slippi", "Slippi input frames to Arrow", "row", _RULES, contenders, close)


def _penstock(file: Path, times: int, tables: tuple[str, ...]) -> int:
    from penstock.pipeline.context import Context
    from penstock.sources.games.slippi import Slippi

    context = Context("bench")
    rows = 0
    for _ in range(times):
        for table in tables:
            reader = Slippi(file, table).open(context)
            found = [batch for block in reader.blocks() for batch in reader.decode(block).batches]
            rows += sum(batch.num_rows for batch in found)
            reader.close()
    return rows // len(tables)


class _Worker:
    """A peer in the interpreter that PENSTOCK_PEPPI names."""

    def __init__(self, file: Path, how: str) -> None:
        self._file, self._how = file, how
        self._process: subprocess.Popen[str] | None = None

    def read(self, times: int) -> int:
        if self._process is None:
            python = os.environ.get("PENSTOCK_PEPPI")
            if not python:
                raise Pending("PENSTOCK_PEPPI names no python with peppi-py and py-slippi")
            command = [python, "-c", _WORKER, str(self._file), self._how]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._answer()
        if self._process.stdin is None:
            raise ValueError("the worker has no input")
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        return int(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline() if self._process and self._process.stdout else ""
        if not line:
            raise ValueError(f"{self._how} did not answer")
        return line

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def _generated(path: Path) -> Path:
    """A replay of 10,000 frames of two players, where there is no real one."""
    sizes = {0x36: 0x1A2, 0x37: 0x3F, 0x38: 0x33, 0x39: 2}
    table = b"".join(struct.pack(">BH", code, size) for code, size in sizes.items())
    start = bytearray(1 + sizes[0x36])
    start[:3] = 0x36, 2, 0
    events = [bytes([0x35, len(table) + 1]) + table, bytes(start)]
    for frame in range(-123, 9_877):
        for code in (0x37, 0x38):
            events += [
                struct.pack(">BiBB", code, frame, player, 0).ljust(1 + sizes[code], b"\x3e") for player in (0, 1)
            ]
    raw = b"".join([*events, b"\x39\x02\xff"])
    path.write_bytes(b"{U\x03raw[$U#l" + struct.pack(">I", len(raw)) + raw + b"U\x08metadata{}}")
    return path
