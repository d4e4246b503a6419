"""Before a run: batches of the user's own pipeline for models that are calibrated on them.

The part of the plan above each infer step is run inline up to the number of batches the model asks for, exactly as the
run itself will form them. Their first rows are the first rows of the recording, so a run prepares the same way twice.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from .deliver import Deliver, Delivery
from .hop import Infer
from .inline import step_inline
from .last_hop import calibration_inputs
from .options import RunOptions
from .plan import Link, Node, Plan, output_of
from .planning import group_stages
from .runtime import Runtime

__all__ = ["calibrate"]

Inputs = Mapping[str, npt.NDArray[Any]]


def calibrate(plan: Plan, options: RunOptions) -> dict[str, Sequence[Inputs]]:
    """Calibration batches by infer step id; empty where no model wants any."""
    wanted = {
        node: node.spec.model.calibration_batches
        for node in plan.nodes
        if isinstance(node.spec, Infer) and node.spec.model.calibration_batches > 0
    }
    return {node.id: _first_batches(plan, node, count, options) for node, count in wanted.items()}


def _first_batches(plan: Plan, node: Node, count: int, options: RunOptions) -> list[Inputs]:
    if not isinstance(node.spec, Infer):
        return []
    spec = node.spec
    feeding = node.inputs[0].node.inputs[0]
    batches = _iterate(plan, feeding, options)
    try:
        return [calibration_inputs(spec, batch) for batch in islice(batches, count)]
    finally:
        batches.close()


def _iterate(plan: Plan, end: Link, options: RunOptions) -> Generator[pa.RecordBatch, None, None]:
    """The batches that flow over one link of a plan, run inline; nothing is kept of what it sets aside."""
    needed: list[Node] = []

    def collect(node: Node) -> None:
        for link in node.inputs:
            collect(link.node)
        if node not in needed:
            needed.append(node)

    collect(end.node)
    sink = Node("deliver", Deliver(), [end], output_of(end), end.node.site)
    part = Plan([*needed, sink])
    group_stages(part, 1)
    runtime = Runtime(part, replace(options, quarantine=None, speed=None))
    runtime.rehearsing = True
    runtime.open()
    try:
        (cell,) = runtime.sinks()
        delivery = cell.sink
        if isinstance(delivery, Delivery):
            delivery.limited = False
            for _ in step_inline(runtime):
                yield from delivery.drain()
    finally:
        runtime.stop.set()
        runtime.close(commit=False)
