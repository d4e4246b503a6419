"""Batches to calibrate and measure with, and the latency of executors side by side."""

from __future__ import annotations

import contextlib
import logging
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..pipeline.clock import Clock
from ..pipeline.columns import numpy_layout
from ..pipeline.executor import Executor, TensorSpec

__all__ = ["Sample", "measure_latency", "quiet"]

_ROUNDS = 7


class Sample(NamedTuple):
    """A full batch of which the first `rows` rows are the pipeline's; the others repeat them."""

    arrays: dict[str, npt.NDArray[Any]]
    rows: int

    @classmethod
    def of(cls, batch: Mapping[str, npt.NDArray[Any]], inputs: Mapping[str, TensorSpec], rows: int) -> Sample:
        """`batch` cut or repeated to `rows` rows. Inputs it lacks are left for the executor to complain about."""
        arrays = {name: np.asarray(batch[name]) for name in inputs if name in batch}
        real = min((len(array) for array in arrays.values()), default=0)
        if real == 0:
            return cls({}, 0)
        picked = np.arange(rows) % real
        return cls({n: a if len(a) == rows == real else a[picked] for n, a in arrays.items()}, min(real, rows))

    @classmethod
    def zeros(cls, inputs: Mapping[str, TensorSpec], rows: int) -> Sample:
        """A batch of zeros, to warm up with."""
        arrays = {}
        for name, spec in inputs.items():
            layout = numpy_layout(spec.dtype)
            arrays[name] = np.zeros((rows, *spec.shape), layout[0] if layout else np.float32)
        return cls(arrays, rows)

    @staticmethod
    def split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Which calibrate and which measure: every other batch, or the two halves of the rows of a single one.

        A single row has to do both.
        """
        if len(samples) > 1:
            return list(samples[::2]), list(samples[1::2])
        only = samples[0]
        if only.rows == 1:
            return [only], [only]
        rows, half = len(next(iter(only.arrays.values()))), only.rows // 2
        first, second = np.arange(rows) % half, half + np.arange(rows) % (only.rows - half)
        return (
            [Sample({n: a[first] for n, a in only.arrays.items()}, half)],
            [Sample({n: a[second] for n, a in only.arrays.items()}, only.rows - half)],
        )


def measure_latency(executors: Sequence[Executor], sample: Sample, clock: Clock, device: torch.device) -> list[float]:
    """Median milliseconds a batch of each executor, runs interleaved so that other load falls on all alike."""
    spent: list[list[int]] = [[] for _ in executors]
    for executor in executors:
        executor.run(sample.arrays)
    for _ in range(_ROUNDS):
        for executor, times in zip(executors, spent, strict=True):
            began = clock.monotonic_ns()
            executor.run(sample.arrays)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(clock.monotonic_ns() - began)
    return [statistics.median(times) / 1e6 for times in spent]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torchao's and inductor's notes about other machines and coming releases out of a user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree", "torch._export", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
