"""What a window computes: ``agg.count()``, ``agg.sum("size")``, ``agg.last("price")``, ...

    from penstock.ops import agg

    ops.Window(ops.Tumbling("1s"), {"volume": agg.sum("size"), "close": agg.last("price")}, keys=("symbol",))

Nulls are skipped; an aggregate of nulls alone is null, a count of them 0. NaN follows IEEE arithmetic in `sum`, `mean`
and `std`; `min` and `max` ignore it as long as there is a number (as pyarrow and polars do). `first` and `last` go by
event time, then by row order, so rows that arrive out of order do not change them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..pipeline.columns import numpy_layout
from ..pipeline.errors import GraphError
from .keys import check_key_type

if TYPE_CHECKING:
    from ._accumulators import Accumulator

__all__ = ["Aggregate", "count", "first", "last", "max", "mean", "min", "std", "sum"]


def count(column: str | None = None) -> Aggregate:
    """Rows, or rows where `column` is not null; uint64."""
    return Count(column)


def sum(column: str) -> Aggregate:
    """The sum: int64 of integers and booleans, float64 of floats, added in row order.

    A running sum of integers that leaves int64 stops the run with a RunError; it never wraps.
    """
    return Sum(column)


def mean(column: str) -> Aggregate:
    """The arithmetic mean: the float64 sum over the count."""
    return Mean(column)


def std(column: str) -> Aggregate:
    """The sample standard deviation (n - 1) by Welford's method; float64, null below two values."""
    return Std(column)


def min(column: str) -> Aggregate:
    """The smallest value, of the column's type: numbers, booleans, times."""
    return Extreme(column, largest=False)


def max(column: str) -> Aggregate:
    """The largest value, of the column's type: numbers, booleans, times."""
    return Extreme(column, largest=True)


def first(column: str) -> Aggregate:
    """The value at the earliest event time (its first row), of the column's type: any fixed width, or a dictionary."""
    return Edge(column, latest=False)


def last(column: str) -> Aggregate:
    """The value at the latest event time (its last row), of the column's type: any fixed width, or a dictionary."""
    return Edge(column, latest=True)


class Aggregate(ABC):
    """A computation over the rows of one window and key."""

    @abstractmethod
    def output(self, schema: pa.Schema) -> pa.Field:
        """Type and nullability of the result; raises GraphError if `schema` lacks the column or its type is wrong."""

    @abstractmethod
    def open(self, schema: pa.Schema, step: str) -> Accumulator:
        """Fresh state for a schema that `output` accepted; `step` is for error messages."""


@dataclass(frozen=True, slots=True)
class Count(Aggregate):
    column: str | None = None

    def output(self, schema: pa.Schema) -> pa.Field:
        if self.column is not None:
            _find(schema, self.column, "count")
        return pa.field("count", pa.uint64(), nullable=False)

    def open(self, schema: pa.Schema, step: str) -> Accumulator:
        from ._accumulators import Count as State

        return State(self.column)


@dataclass(frozen=True, slots=True)
class Sum(Aggregate):
    column: str

    def output(self, schema: pa.Schema) -> pa.Field:
        kind = _number(schema, self.column, "sum")
        return pa.field("sum", pa.float64() if pa.types.is_floating(kind) else pa.int64())

    def open(self, schema: pa.Schema, step: str) -> Accumulator:
        from ._accumulators import FloatSum, IntSum, UnsignedSum

        kind = _number(schema, self.column, "sum")
        if pa.types.is_floating(kind):
            return FloatSum(self.column, mean=False)
        return (UnsignedSum if pa.types.is_uint64(kind) else IntSum)(self.column, step)


@dataclass(frozen=True, slots=True)
class Mean(Aggregate):
    column: str

    def output(self, schema: pa.Schema) -> pa.Field:
        _number(schema, self.column, "mean")
        return pa.field("mean", pa.float64())

    def open(self, schema: pa.Schema, step: str) -> Accumulator:
        from ._accumulators import FloatSum

        return FloatSum(self.column, mean=True)


@dataclass(frozen=True, slots=True)
class Std(Aggregate):
    column: str

    def output(self, schema: pa.Schema) -> pa.Field:
        _number(schema, self.column, "std")
        return pa.field("std", pa.float64())

    def open(self, schema: pa.Schema, step: str) -> Accumulator:
        from ._accumulators import Spread

        return Spread(self.column)


@dataclass(frozen=True, slots=True)
class Extreme(Aggregate):
    column: str
    largest: bool

    def output(self, schema: pa.Schema) -> pa.Field:
        name = "max" if self.largest else "min"
        kind = _find(schema, self.column, name)
        if not (_is_number(kind) or pa.types.is_temporal(kind)) or pa.types.is_interval(kind):
            raise GraphError(
                f"{name}({self.column!r}) needs values with an order", expected="numbers or times", got=str(kind)
            )
        return pa.field(name, kind)

    def open(self, schema: pa.Schema, step: str) -> Accumulator:
        from ._accumulators import Extreme as State

        return State(self.column, self.output(schema).type, largest=self.largest)


@dataclass(frozen=True, slots=True)
class Edge(Aggregate):
    column: str
    latest: bool

    def output(self, schema: pa.Schema) -> pa.Field:
        name = "last" if self.latest else "first"
        kind = _find(schema, self.column, name)
        if pa.types.is_dictionary(kind):
            check_key_type(self.column, kind)
        elif _row_bytes(kind) == 0:
            raise GraphError(
                f"{name}({self.column!r}) needs rows of a fixed number of bytes; dictionary-encode text",
                expected="a fixed-width type or a dictionary",
                got=str(kind),
            )
        return pa.field(name, kind)

    def open(self, schema: pa.Schema, step: str) -> Accumulator:
        from ._accumulators import Edge as State

        kind = self.output(schema).type
        return State(
            self.column, kind, width=8 if pa.types.is_dictionary(kind) else _row_bytes(kind), latest=self.latest
        )


def _find(schema: pa.Schema, column: str, name: str) -> pa.DataType:
    if schema.get_field_index(column) < 0:
        raise GraphError(f"{name}({column!r}): no such column", expected=f"one of {', '.join(schema.names)}")
    return schema.field(column).type


def _number(schema: pa.Schema, column: str, name: str) -> pa.DataType:
    kind = _find(schema, column, name)
    if not _is_number(kind):
        raise GraphError(
            f"{name}({column!r}) needs numbers; cast the column first", expected="int, float or bool", got=str(kind)
        )
    return kind


def _is_number(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def _row_bytes(kind: pa.DataType) -> int:
    """Bytes a row as kept by `first` and `last`; 0 where it is not fixed."""
    if pa.types.is_boolean(kind):
        return 1
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return int(kind.bit_width) // 8
    layout = numpy_layout(kind)
    return 0 if layout is None else layout[0].itemsize * int(np.prod(layout[1], dtype=np.int64))
