"""Before a run: batches of the user's own pipeline for models that are calibrated on them.

The part of the plan above each infer step is run inline up to the number of batches the model asks for, exactly as the
run itself will form them. Their first rows are the first rows of the recording, so a run prepares the same way twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy.typing as npt

from .hop import Infer
from .last_hop import calibration_inputs
from .options import RunOptions
from .plan import Node, Plan

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
    from .iterate import iterate_plan

    if not isinstance(node.spec, Infer):
        return []
    spec = node.spec
    feeding = node.inputs[0].node.inputs[0]
    batches = iterate_plan(plan, feeding, options)
    try:
        return [calibration_inputs(spec, batch) for batch in islice(batches, count)]
    finally:
        batches.close()
