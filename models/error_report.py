"""How far a variant of a model is from the original, output by output.

Relative L2 error, ``|variant - original| / |original|`` over all rows of all batches: one number an output, independent
of its scale, and not hidden by a few rows that happen to agree. Usable with any two callables on dicts of arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ErrorReport", "error_report"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Relative L2 error and largest absolute difference by output, over `rows` rows.

    An output that is not finite where the original is has an infinite error.
    """

    relative_l2: Mapping[str, float]
    largest: Mapping[str, float]
    rows: int

    @property
    def worst(self) -> float:
        """The largest relative error of any output."""
        return max(self.relative_l2.values(), default=0.0)


def error_report(
    original: Callable[[Arrays], Arrays], variant: Callable[[Arrays], Arrays], batches: Iterable[tuple[Arrays, int]]
) -> ErrorReport:
    """Run both on `batches`, pairs of inputs and how many leading rows of them are real, and compare the outputs.

    Raises ValueError if the outputs differ in names or shapes, or if there was no row to compare.
    """
    squares: dict[str, list[float]] = {}
    largest: dict[str, float] = {}
    total = 0
    for inputs, rows in batches:
        expected, got = original(inputs), variant(inputs)
        if expected.keys() != got.keys():
            raise ValueError(f"outputs differ: {sorted(expected)} and {sorted(got)}")
        total += rows
        for name in expected:
            one = np.asarray(expected[name])[:rows].astype(np.float64)
            two = np.asarray(got[name])[:rows].astype(np.float64)
            if one.shape != two.shape:
                raise ValueError(f"output {name!r} is {two.shape}, the original gives {one.shape}")
            # both may agree on a value that is not finite
            with np.errstate(invalid="ignore"):
                apart = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0.0, np.abs(two - one))
            apart = np.where(np.isnan(apart), math.inf, apart)
            sums = squares.setdefault(name, [0.0, 0.0])
            sums[0] += float(np.square(apart).sum())
            sums[1] += float(np.square(one[np.isfinite(one)]).sum())
            largest[name] = max(largest.get(name, 0.0), float(apart.max(initial=0.0)))
    if not total:
        raise ValueError("an error report needs at least one row")
    return ErrorReport({name: _ratio(*sums) for name, sums in squares.items()}, largest, total)


def _ratio(error: float, scale: float) -> float:
    if error == 0.0:
        return 0.0
    return math.sqrt(error / scale) if scale > 0.0 else math.inf
