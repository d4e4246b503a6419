"""Working on what killed a process, in a child process that may die too.

The child decodes or runs the head, and says after every piece that it is through with it. When it dies, what it was on is
the culprit: it goes to quarantine, and a new child goes on behind it. A batch is cut into rows; a block of a source cannot
be, so its decoding is tried once more as a whole (a death may have had another cause) and set aside as a whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..cells import Cell
from ..clock import RealClock
from ..context import BadRecord, Tally
from ..errors import RunError
from ..reading import Given, Head, Work
from ..source import Position, Split
from .parcels import packed
from .pieces import Piece, costs_of

if TYPE_CHECKING:
    from .heads import HeadProcess
    from .reader import SplitReading

__all__ = ["child", "decode_apart", "living_rows", "run_apart"]

#: Rows that a child works on between two reports, until one of them kills it.
_STEP = 256


def run_apart(process: HeadProcess, batch: pa.RecordBatch, work: Work) -> dict[int, Tally]:
    """Run a head on `batch`; results are left in `work`, rows that kill are given as set aside by the first step."""
    survivors, bad = living_rows(process.head.cells, batch)
    if survivors.num_rows:
        process.head.run(work, [survivors], None, process.clock.monotonic_ns)
    return {0: Tally(bad)} if bad else {}


def living_rows(cells: Sequence[Cell], batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[BadRecord]]:
    """The rows of `batch` on which `cells` do not kill a child, and records of those on which they do."""
    deaths: list[int] = []
    survivors = _living_rows(cells, batch, deaths)
    return survivors, [_row_record(cells[0], batch, row) for row in deaths]


def _living_rows(cells: Sequence[Cell], batch: pa.RecordBatch, deaths: list[int]) -> pa.RecordBatch:
    """The rows of `batch` that do not kill a child; the numbers of those that do are added to `deaths`."""
    rows = batch.num_rows
    begin, one_by_one_until = 0, 0
    while begin < rows:
        single = begin < one_by_one_until
        end = one_by_one_until if single else rows
        reached = _try_rows(cells, batch.slice(0, end), begin, 1 if single else _STEP)
        if reached >= end:
            begin = end
        elif single:
            deaths.append(reached)
            begin, one_by_one_until = reached + 1, 0
        else:
            begin, one_by_one_until = reached, min(rows, reached + _STEP)
    if not deaths:
        return batch
    gone = set(deaths)
    return batch.take(pa.array([row for row in range(rows) if row not in gone], pa.int64()))


def _try_rows(cells: Sequence[Cell], batch: pa.RecordBatch, begin: int, step: int) -> int:
    """Have a child run the steps over rows from `begin`, `step` at a time; the first row it was not through with."""
    nodes = [cell.node for cell in cells]
    lines = _child_lines(("rows", nodes, packed(batch)[0], begin, step))
    return int(lines[-1]) if lines else begin


def _row_record(cell: Cell, batch: pa.RecordBatch, row: int) -> BadRecord:
    one = batch.take(pa.array([row]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, one.schema) as writer:
        writer.write_batch(one)
    seq = one.column("seq")[0].as_py()
    return BadRecord(
        f"row seq={seq} in front of {cell.node.id}",
        cell.node.id,
        "ends its process",
        sink.getvalue().to_pybytes(),
        seq,
    )


def decode_apart(reading: SplitReading, split: Split, position: Position | None, work: Work) -> Piece:
    """A block that killed: decoded here if a child survives it (its rows then one by one), else set aside."""
    block = work.block
    if block is None:
        raise RuntimeError("there is no block")
    task = ("block", reading.spec, split, dict(position) if position is not None else None)
    through = any(line == "done" for line in _child_lines(task))
    before = "its beginning" if position is None else f"{dict(position)}"
    if not through:
        place = f"{reading.spec.name}, split {split.index}, block behind {before}"
        record = BadRecord(place, f"{reading.source.id}.decode", "ends its process", b"", block.first_seq)
        nothing = Given(0, 0, 0, -(1 << 63))
        return Piece(split.index, block.after, block.records, block.nbytes, 0, nothing, (), [record], {})
    decoded, given = reading.decode_bare(work)
    batches = [batch for batch in decoded.batches if batch.num_rows]
    cells = reading.process.head.cells
    asides: dict[int, Tally] = {}
    if cells:
        bad: list[BadRecord] = []
        for batch in batches:
            found = run_apart(reading.process, batch, work)
            bad += found[0].bad if found else []
        gathered = reading.process.gathering.take()
        asides = {**gathered, **({0: Tally([*gathered.get(0, Tally()).bad, *bad])} if bad else {})}
    else:
        work.batches = [(batch, None) for batch in batches]
    return Piece(
        split.index, block.after, block.records, block.nbytes, 0, given, [packed(b)[0] for b, _ in work.batches],
        decoded.bad, decoded.dropped, costs_of(cells, work.costs), asides,
    )  # fmt: skip


def _child_lines(task: tuple[Any, ...]) -> list[str]:
    """Lines that a child wrote before it ended, however it ended. Raises RunError if it could not begin."""
    from ray import cloudpickle

    command = [sys.executable, "-c", "from penstock.pipeline.cluster.apart import child; child()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run(
        command,
        input=cloudpickle.dumps(task),
        capture_output=True,
        env=environment,
        check=False,
    )
    ready, *lines = ended.stdout.decode().split() or [""]
    if ready != "ready":
        said = ended.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {ended.returncode}"]
        raise RunError(f"the child process that tries suspicious records could not begin: {said[-1]}")
    return lines


def child() -> None:
    """What runs in the child: a task on standard input, progress on standard output."""
    import pickle

    what, *arguments = pickle.load(sys.stdin.buffer)
    say: Callable[[str], None] = lambda text: print(text, file=sys.__stdout__, flush=True)  # noqa: E731
    sys.stdout = sys.stderr  # what the user's functions print is not ours to read
    if what == "block":
        _decode_block(say, *arguments)
    else:
        _run_rows(say, *arguments)


def _decode_block(say: Callable[[str], None], spec: Any, split: Split, position: Position | None) -> None:
    from ..context import Context

    reader = spec.open(Context("apart"), split, position)
    say("ready")
    block = next(iter(reader.blocks()))
    reader.decode(block)
    say("done")


def _run_rows(say: Callable[[str], None], nodes: Sequence[Any], parcel: Any, begin: int, step: int) -> None:
    from ..context import Context
    from .parcels import opened

    batch = opened(parcel)
    cells = []
    for node in nodes:
        context = Context(node.id)
        cells.append(Cell(0, node, node.spec.open(context, *node.in_schemas), context))
    head = Head(cells)
    clock = RealClock().monotonic_ns
    say("ready")
    for row in range(begin, batch.num_rows, step):
        head.run(Work(), [batch.slice(row, step)], None, clock)
        say(str(min(row + step, batch.num_rows)))
