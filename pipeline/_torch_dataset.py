"""A stream as a torch dataset: dicts of tensors that share memory with the batches.

Penstock reads in parallel and ahead by itself, so the loader around it needs no workers::

    loader = torch.utils.data.DataLoader(stream.to_torch(), batch_size=None)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .columns import is_fixed_width
from .errors import GraphError, RunError
from .functions import view_of
from .graph import Port
from .iterate import iterate
from .names import names_in

__all__ = ["TorchDataset", "to_torch"]


#: Steps that put columns of another stream beside a stream's own.
_JOINS = ("join_asof", "sync")


class TorchDataset(IterableDataset[dict[str, torch.Tensor]]):
    """Iterating gives one dict of tensors ``(rows, *shape)`` a batch. The tensors are read-only views."""

    def __init__(self, port: Port, columns: Sequence[str], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self._port, self._options = port, dict(options)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if get_worker_info() is not None:
            raise RuntimeError(
                "every DataLoader worker would read the whole recording; use num_workers=0, reading is parallel already"
            )
        for batch in iterate(self._port, **self._options):
            try:
                yield {name: view_of(batch, name, "torch") for name in self.columns}
            except ValueError as error:
                raise RunError(f"step 'to_torch': {error}{_origin(self._port, batch)}") from None


def _origin(port: Port, batch: pa.RecordBatch) -> str:
    """Which step has made the first column with nulls, if another than the source."""
    name = next(name for name, column in zip(batch.schema.names, batch.columns, strict=True) if column.null_count)
    step = port.step
    while step.inputs:
        before = [each for each in step.inputs if name in each.schema.names]
        if not before or step.kind in _JOINS:
            inner = "; how='inner' leaves rows without a partner out" if step.kind == "join_asof" else ""
            return f" (they are of step {step.options.name or step.kind!r}, {step.site}{inner})"
        step = before[0].step
    return ""


def to_torch(port: Port, columns: str | Sequence[str] | None, options: Mapping[str, Any]) -> TorchDataset:
    """See `Stream.to_torch`. Without `columns`: every fixed-width column, dictionaries as their indices left out."""
    schema = port.schema
    if columns is None:
        columns = [f.name for f in schema if is_fixed_width(f.type) and not pa.types.is_dictionary(f.type)]
    columns = names_in(columns)
    for name in columns:
        if name not in schema.names:
            raise GraphError(f"no column {name!r}", stage="to_torch", expected=schema.names, got=name)
        if not is_fixed_width(schema.field(name).type):
            raise GraphError(f"column {name!r} has no tensor view", stage="to_torch", got=schema.field(name).type)
    return TorchDataset(port, columns, options)
