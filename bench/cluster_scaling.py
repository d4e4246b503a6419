"""Rows a second with more and more processes that read, where decoding a block takes a fixed time.

The service time is simulated: a decoder sleeps, so readers do not compete for the cores of a small machine and what is
left to see is how the runner divides, carries and orders the work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from penstock.pipeline.context import Context
from penstock.pipeline.schema import event_schema
from penstock.pipeline.source import Block, Decoded, Position, SourceReader, SourceSpec, Split

from .cluster_session import fresh_ray, in_child
from .harness import Case, Contender

__all__ = ["READERS", "SleepingSource", "case"]

READERS = (1, 2, 4, 8)

_RULES = (
    "A source of {blocks} blocks for each reader, {rows:,} rows (24 bytes each) a block, in splits of {split} "
    "blocks, whose decoder sleeps {ms} ms a block, about what 1 MB of camera frames takes to decode; "
    "`ps.read(source, parallelism=n)` with {readers} readers, each a process, on a Ray of one node, into a sink "
    "that counts. rows/s is over the time from when all processes were ready to the last row (`elapsed_s` of the "
    "report). linear is that over n times the rate of one reader; ideal over n times what the sleeping alone "
    "allows. The rows of every run have the digest that the inline runner gives."
)


@dataclass(frozen=True)
class SleepingSource(SourceSpec):
    """Rows of known content; `decode` sleeps `service_ms` a block."""

    blocks: int
    rows: int = 1_000
    service_ms: float = 30.0
    blocks_a_split: int = 5

    format: ClassVar[str] = "simulated"

    @property
    def schema(self) -> pa.Schema:
        return event_schema([], source=self.name, format=self.format)

    @property
    def name(self) -> str:
        return "sleeping"

    @property
    def splits_wanted(self) -> int:
        return -(-self.blocks // self.blocks_a_split)

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` ranges of blocks."""
        bounds = sorted({self.blocks * part // max(1, wanted) for part in range(max(1, wanted) + 1)})
        ranges = list(pairwise(bounds))
        return [Split(i, len(ranges), {"block": low, "stop": high}) for i, (low, high) in enumerate(ranges)]

    @property
    def block_bound(self) -> int:
        return 64 * self.rows

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        detail = split.detail if split is not None and split.detail else {"block": 0, "stop": self.blocks}
        first = int((position if position is not None else detail)["block"])
        return _SleepingReader(self, first, int(detail["stop"]))


class _SleepingReader(SourceReader):
    def __init__(self, spec: SleepingSource, first: int, stop: int) -> None:
        self._spec, self._first, self._stop = spec, first, stop

    def blocks(self) -> Iterator[Block]:
        rows = self._spec.rows
        for number in range(self._first, self._stop):
            yield Block(number, number * rows, rows, 8 * rows, {"block": number + 1}, number)

    def decode(self, block: Block) -> Decoded:
        time.sleep(self._spec.service_ms / 1e3)
        seq = np.arange(block.first_seq, block.first_seq + block.records)
        stamp = pa.array(seq * 1_000).view(pa.timestamp("ns", tz="UTC"))
        values = [stamp, stamp, pa.array(seq.astype("u8"))]
        return Decoded([pa.RecordBatch.from_arrays(values, schema=self._spec.schema)])


def case(scratch: Path, *, quick: bool) -> Case:
    source = SleepingSource(blocks=50 if quick else 400)
    last: dict[str, float] = {}

    def run() -> int:
        last.clear()
        last.update(in_child(measure, source))
        return source.blocks * sum(READERS)

    rules = _RULES.format(
        blocks=source.blocks, rows=source.rows, split=source.blocks_a_split, ms=f"{source.service_ms:g}",
        readers=", ".join(map(str, READERS)),
    )  # fmt: skip
    contenders = [Contender("penstock", run, ours=True, needs=("ray",), values=lambda: dict(last))]
    return Case("ray-scaling", "More readers, simulated decoding time", "block", rules, contenders, rates=False)


def measure(source: SleepingSource) -> dict[str, float]:
    """Rates of all numbers of readers in one Ray, and how far from linear they are; `source` is what one reader gets."""
    found: dict[str, float] = {}
    ideal = source.rows * 1e3 / source.service_ms
    with fresh_ray(cpus=2 * max(READERS)):
        for readers in READERS:
            found[f"{readers} readers: rows/s"] = rate(source, readers)
    one = found["1 readers: rows/s"]
    for readers in READERS:
        reached = found[f"{readers} readers: rows/s"]
        found[f"{readers} readers: linear %"] = 100 * reached / (readers * one)
        found[f"{readers} readers: ideal %"] = 100 * reached / (readers * ideal)
    return found


def rate(source: SleepingSource, readers: int) -> float:
    """Rows a second of `readers` readers with as much work each. Raises ValueError if the rows are not the inline ones."""
    import penstock as ps
    from penstock import sinks

    whole = replace(source, blocks=source.blocks * readers)
    report = ps.read(whole, parallelism=readers).write(sinks.Null()).run(ray="auto")
    inline = ps.read(replace(whole, service_ms=0.0)).write(sinks.Null()).run(runner="inline")
    if report["sinks"]["write"]["digest"] != inline["sinks"]["write"]["digest"]:
        raise ValueError(f"{readers} readers give other rows than the inline runner")
    return float(whole.blocks * whole.rows / report["elapsed_s"])
