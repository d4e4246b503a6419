"""Running a pipeline in a process that has nothing of this one but the pickled graph."""

from __future__ import annotations

import multiprocessing
import pickle
from multiprocessing.connection import Connection

from penstock.pipeline.flow import Flow

__all__ = ["digests_elsewhere"]


def digests_elsewhere(flow: Flow, parallelism: int) -> dict[str, str]:
    """The digests of `flow`, run on the local runner of a freshly spawned process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, pickle.dumps(flow), parallelism))
    process.start()
    theirs.close()
    try:
        result: dict[str, str] = ours.recv()
    finally:
        process.join()
    return result


def _run(answer: Connection, graph: bytes, parallelism: int) -> None:
    flow: Flow = pickle.loads(graph)
    answer.send(flow.run(runner="local", parallelism=parallelism).digests)
