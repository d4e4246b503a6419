"""The graph: immutable steps, each knowing its inputs, its schema and where the user wrote it.

Streams hold steps and steps hold their inputs, so a graph is whatever can be reached backwards from a set of sinks. Ids
are given when the graph is closed: the step's name if the user gave one, else its kind with a number in the order of
construction, so the same program always gives the same ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from .errors import GraphError
from .operator import OperatorSpec
from .sink import SinkSpec
from .site import Site
from .source import SourceSpec

__all__ = ["MAIN", "Graph", "Port", "Step", "StepOptions"]

#: The name of a step's ordinary output; side outputs have their own names.
MAIN = ""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is to run, as far as the user said so; `least` is set where `parallelism` is only the most."""

    name: str | None = None
    parallelism: int | None = None
    lateness_ns: int | None = None
    resources: Mapping[str, float] | None = None
    least: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node. `schema` is what it emits on its main output (for a sink: what it receives)."""

    kind: str
    spec: SourceSpec | OperatorSpec | SinkSpec
    inputs: tuple[Port, ...]
    schema: pa.Schema
    site: Site
    options: StepOptions = field(default_factory=StepOptions)

    def output(self, name: str) -> pa.Schema:
        """The schema of the main output or of a side output."""
        if name == MAIN:
            return self.schema
        if isinstance(self.spec, OperatorSpec):
            sides = self.spec.side_outputs(*[port.schema for port in self.inputs])
            if name in sides:
                return sides[name]
            raise GraphError(f"no side output {name!r}", stage=self.kind, expected=sorted(sides) or "none", got=name)
        raise GraphError(f"a {self.kind} step has no side outputs", stage=self.kind)


@dataclass(frozen=True, slots=True, eq=False)
class Port:
    """One output of one step, as an input of another."""

    step: Step
    output: str = MAIN

    @property
    def schema(self) -> pa.Schema:
        return self.step.output(self.output)


class Graph:
    """Every step that `terminals` need, in topological order, with its id."""

    def __init__(self, terminals: Sequence[Step]) -> None:
        self.terminals = tuple(terminals)
        self.steps: tuple[Step, ...] = tuple(_ordered(self.terminals))
        self._ids = _name_steps(self.steps)

    def id(self, step: Step) -> str:
        """The step's id, unique in this graph."""
        return self._ids[id(step)]

    def __reduce__(self) -> tuple[type[Graph], tuple[tuple[Step, ...]]]:
        return Graph, (self.terminals,)

    def __iter__(self) -> Iterator[tuple[str, Step]]:
        return ((self.id(step), step) for step in self.steps)


def _ordered(terminals: Sequence[Step]) -> Iterator[Step]:
    seen: set[int] = set()
    for terminal in terminals:
        stack: list[tuple[Step, bool]] = [(terminal, False)]
        while stack:
            step, expanded = stack.pop()
            if expanded:
                yield step
                continue
            if id(step) in seen:
                continue
            seen.add(id(step))
            stack.append((step, True))
            stack.extend((port.step, False) for port in reversed(step.inputs))


def _name_steps(steps: Sequence[Step]) -> dict[int, str]:
    taken: dict[str, Step] = {}
    for step in steps:
        name = step.options.name
        if name is None:
            continue
        if name in taken:
            raise GraphError(
                f"the name {name!r} is used twice, also at {taken[name].site}", stage=step.kind, where=str(step.site)
            )
        taken[name] = step
    ids: dict[int, str] = {}
    counts: dict[str, int] = {}
    for step in steps:
        name = step.options.name
        while name is None:
            counts[step.kind] = counts.get(step.kind, 0) + 1
            number = counts[step.kind]
            candidate = step.kind if number == 1 else f"{step.kind}-{number}"
            name = None if candidate in taken else candidate
        ids[id(step)] = name
    return ids
