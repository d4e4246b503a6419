"""Telling the loss of a process, which a run survives, from the error of a step, which it does not."""

from __future__ import annotations

from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from ..errors import PenstockError, RunError

__all__ = ["Lost", "Outdated", "first_line", "loss_of", "step_error"]


#: A process, its node or what it had put into the store is gone, or nobody answers.
_GONE = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, GetTimeoutError)


class Outdated(PenstockError):
    """A call of an attempt that was given up."""


class Lost(Exception):
    """A process of the run is gone, or does not answer."""


def loss_of(error: BaseException | None) -> str | None:
    """Why `error` means that a process is gone; None if a step raised it, here or in another process."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error that is raised on from itself is its own cause
        seen.add(id(error))
        if isinstance(error, Outdated):
            return "a process left the run"
        if isinstance(error, Lost):
            return first_line(error)
        if isinstance(error, RayTaskError):
            error = error.cause if isinstance(error.cause, BaseException) else None
        elif isinstance(error, _GONE):
            return first_line(error)
        else:
            error = error.__cause__
    return None


def step_error(error: BaseException) -> BaseException:
    """The error itself, where Ray wrapped what another process raised."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    if isinstance(error, RayError) and "No module named" in str(error):
        return RunError(
            f"a process of the run cannot load the pipeline: {first_line(error)}. Its modules must be on every node: send "
            "them with penstock submit, or install them there"
        )
    return error


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
