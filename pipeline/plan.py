"""The plan that runs: nodes, who reads whom, and the stages that share a thread. `planning` makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from .graph import MAIN, StepOptions
from .hop import Infer
from .operator import OperatorSpec
from .sink import SinkSpec
from .site import Site
from .source import SourceSpec

__all__ = ["Link", "Node", "Plan", "Stage", "output_of"]


@dataclass(eq=False, slots=True)
class Link:
    """Input `port` of a node: output `output` of `node`."""

    node: Node
    output: str = MAIN


@dataclass(eq=False, slots=True)
class Node:
    """One step of the plan. `projection` restores the column order the user saw when a step was moved."""

    id: str
    spec: SourceSpec | OperatorSpec | SinkSpec
    inputs: list[Link]
    schema: pa.Schema
    site: Site
    options: StepOptions = field(default_factory=StepOptions)
    projection: pa.Schema | None = None
    note: str = ""

    @property
    def kind(self) -> str:
        return (
            "read"
            if isinstance(self.spec, SourceSpec)
            else "write"
            if isinstance(self.spec, SinkSpec)
            else self.spec.kind
        )

    @property
    def in_schemas(self) -> list[pa.Schema]:
        return [output_of(link) for link in self.inputs]

    @property
    def stateless(self) -> bool:
        return isinstance(self.spec, OperatorSpec) and self.spec.stateless


@dataclass(eq=False, slots=True)
class Stage:
    """Nodes that run together. The first `head` of them may run on several batches at once."""

    index: int
    nodes: list[Node]
    head: int = 0
    workers: int = 1

    @property
    def name(self) -> str:
        return "+".join(node.id for node in self.nodes)

    @property
    def entry(self) -> Node:
        return self.nodes[0]


class Plan:
    """Nodes in topological order, their consumers, and the stages of the local runner."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        self.stages: list[Stage] = []

    def consumers(self, node: Node, output: str | None = None) -> list[tuple[Node, int]]:
        """Who reads `node` (one output, or any), with the port."""
        return [
            (other, port)
            for other in self.nodes
            for port, link in enumerate(other.inputs)
            if link.node is node and (output is None or link.output == output)
        ]

    def stage_of(self, node: Node) -> Stage:
        return next(stage for stage in self.stages if node in stage.nodes)

    def infer_of(self, prefetch: Node) -> Node | None:
        """The infer node that a prefetch node feeds, if it does."""
        consumers = self.consumers(prefetch)
        if len(consumers) == 1 and isinstance(consumers[0][0].spec, Infer):
            return consumers[0][0]
        return None

    def sort(self) -> None:
        """Restore topological order after links changed."""
        ordered: list[Node] = []

        def visit(node: Node) -> None:
            if node not in ordered:
                for link in node.inputs:
                    visit(link.node)
                ordered.append(node)

        for node in self.nodes:
            visit(node)
        self.nodes = ordered


def output_of(link: Link) -> pa.Schema:
    """The schema that flows over a link."""
    if link.output == MAIN:
        return link.node.schema
    spec = link.node.spec
    if not isinstance(spec, OperatorSpec):
        raise TypeError(f"{link.node.id} has no side outputs")
    return spec.side_outputs(*link.node.in_schemas)[link.output]
