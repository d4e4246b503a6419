"""A recording of several files as one source: the units of one topic, file by file, with rows numbered through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.source import Block, Decoded, Position, SourceReader, Split

__all__ = ["Part", "PartUnit", "PartsReader", "lost"]


class Decoder(Protocol):
    """Decodes the units of one file."""

    def decode(self, unit: Any) -> Decoded: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class PartUnit:
    """What is read at once. `mark` names its end in the file, `own` is what the file's decoder takes.

    `broken` is what cannot be read instead, for a unit without a decoder.
    """

    first_seq: int
    records: int
    nbytes: int
    mark: Mapping[str, Any]
    own: Any
    broken: BadRecord | None = None


@dataclass(frozen=True)
class Part:
    """One file: its units, numbered through all files, and how to open its decoder."""

    path: str
    units: Sequence[PartUnit]
    open: Callable[[Context], Decoder]


def lost(path: str, error: str, seq: int) -> PartUnit:
    """A unit for what a file lost."""
    record = BadRecord(path, "rosbag2.read", error, b"", seq)
    return PartUnit(seq, 1, 0, {"rowid": None}, None, record)


class PartsReader(SourceReader):
    """Reads `parts` in order from `position` on, within `split`; a file is opened when its first unit is decoded."""

    def __init__(self, parts: Sequence[Part], context: Context, split: Split | None, position: Position | None) -> None:
        import threading

        self._parts, self._context = parts, context
        self._units = _selected(parts, split, position)
        self._open: dict[int, Decoder] = {}
        self._lock = threading.Lock()

    def blocks(self) -> Iterator[Block]:
        for index, (part, unit) in enumerate(self._units):
            after = {"file": part, "seq": unit.first_seq + unit.records, **unit.mark}
            yield Block(index, unit.first_seq, unit.records, unit.nbytes, after, (part, unit))

    def decode(self, block: Block) -> Decoded:
        part, unit = block.payload
        if unit.broken is not None:
            return Decoded((), (replace(unit.broken, seq=unit.first_seq),))
        with self._lock:
            if part not in self._open:
                self._open[part] = self._parts[part].open(self._context)
        return self._open[part].decode(unit.own)

    def close(self) -> None:
        for decoder in self._open.values():
            decoder.close()


def _selected(parts: Sequence[Part], split: Split | None, position: Position | None) -> list[tuple[int, PartUnit]]:
    units = [(i, unit) for i, part in enumerate(parts) for unit in part.units]
    if split is not None and split.detail:
        units = units[int(split.detail["start"]) : int(split.detail["stop"])]
    if position:
        seq = position.get("seq")
        if not isinstance(seq, int):
            raise FormatError(f"a position of a rosbag2 topic has an integer 'seq', got {seq!r}")
        done = [entry for entry in units if entry[1].first_seq < seq]
        if done:
            part, last = done[-1]
            expected = {"file": part, "seq": last.first_seq + last.records, **last.mark}
            if dict(position) != expected:
                raise FormatError(
                    f"{parts[0].path}: the position {dict(position)} is not one of this recording; "
                    "has a file changed since the checkpoint?"
                )
        units = units[len(done) :]
    return units
