"""The last hop as the language sees it: `prefetch` in front of `infer`.

The specs check shapes and types when the graph is built. What runs is in `last_hop`; the memory in `slots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from .context import Context
from .errors import GraphError, PlanError
from .executor import ModelSpec, TensorSpec
from .operator import Operator, OperatorSpec
from .schema import describe

__all__ = ["Infer", "Prefetch"]


@dataclass(frozen=True)
class Prefetch(OperatorSpec):
    """Up to `depth` batches ready ahead of the consumer; ``depth + 2`` slots, so one can be filled and one consumed."""

    kind: ClassVar[str] = "prefetch"

    depth: int = 2

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"prefetch depth must be at least 1, got {self.depth}")

    @property
    def slots(self) -> int:
        return self.depth + 2

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        return inputs[0]

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        raise PlanError("a prefetch step is opened by its runner, together with what consumes it")

    def cause(self) -> str:
        return "transfer"


@dataclass(frozen=True)
class Infer(OperatorSpec):
    """Run a model on batches of at most `rows` rows; shorter ones are padded."""

    kind: ClassVar[str] = "infer"

    model: ModelSpec
    rows: int
    mapping: tuple[tuple[str, str], ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def columns(self) -> Mapping[str, str]:
        """Which column feeds each model input."""
        given = dict(self.mapping)
        return {name: given.get(name, name) for name in self.model.inputs}

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot: every model input for `rows` rows, each 64-byte aligned."""
        return sum(-(-self.rows * spec.nbytes // 64) * 64 for spec in self.model.inputs.values())

    def consumed(self) -> set[str]:
        """Columns that leave the stream here."""
        return set(self.columns.values()) - set(self.keep)

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        unknown = set(dict(self.mapping)) - set(self.model.inputs)
        if unknown:
            raise GraphError(
                f"model {self.model.name!r} has no input {min(unknown)!r}",
                expected=sorted(self.model.inputs),
                got=min(unknown),
            )
        for name, column in self.columns.items():
            _check_input(schema, self.model, name, column, self.model.inputs[name])
        for name in self.keep:
            if name not in schema.names:
                raise GraphError(f"keep names no column {name!r}", expected=schema.names, got=name)
        fields = [f for f in schema if f.name not in self.consumed()]
        for name, spec in self.model.outputs.items():
            if any(f.name == name for f in fields):
                raise GraphError(f"the model's output {name!r} is already a column", expected="another name", got=name)
            fields.append(pa.field(name, spec.arrow, nullable=False))
        return pa.schema(fields, metadata=schema.metadata)

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        raise PlanError("an infer step is opened by its runner, together with its slots")

    def cause(self) -> str:
        return "compute"


def _check_input(schema: pa.Schema, model: ModelSpec, name: str, column: str, spec: TensorSpec) -> None:
    if column not in schema.names:
        raise GraphError(
            f"model {model.name!r} needs the column {column!r} ({spec.arrow}); map another with inputs={{{name!r}: ...}}",
            expected=column,
            got=describe(schema),
        )
    kind = schema.field(column).type
    if kind != spec.arrow:
        raise GraphError(
            f"column {column!r} does not fit input {name!r} of model {model.name!r}",
            expected=describe(pa.schema([(column, spec.arrow)])),
            got=describe(pa.schema([(column, kind)])),
        )
