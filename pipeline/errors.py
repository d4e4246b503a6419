"""Errors that say what happened, where, and how to mend it.

Every error a user can meet derives from `PenstockError`, so that one ``except`` catches what the framework raises and
nothing else. The command line prints such an error as a single line.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DecodeError",
    "FormatError",
    "GraphError",
    "MissingExtraError",
    "PenstockError",
    "PlanError",
    "RunError",
    "StateLimitError",
]


class PenstockError(Exception):
    """Base of all errors raised by Penstock."""


class GraphError(PenstockError):
    """A pipeline that cannot be built: wrong column, wrong type, wrong argument.

    `stage` is the step's name, `where` the user's ``file:line``, `expected` and `got` what did not agree.
    """

    def __init__(
        self,
        message: str,
        *,
        stage: str | None = None,
        where: str | None = None,
        expected: object = None,
        got: object = None,
    ) -> None:
        self.stage, self.where, self.expected, self.got = stage, where, expected, got
        text = message
        if expected is not None:
            text += f"; expected {expected}"
        if got is not None:
            text += f", got {got}"
        if stage is not None:
            text = f"step {stage!r}: {text}"
        if where is not None:
            text += f" ({where})"
        super().__init__(text)


class PlanError(PenstockError):
    """A pipeline that cannot run as asked, for example because its memory bound exceeds the budget."""


class RunError(PenstockError):
    """A run that failed; the cause is chained and the message names the step."""


class CheckpointError(PenstockError):
    """Checkpoints that cannot be read, written or used. The message names the place and the snapshot."""


class FormatError(PenstockError):
    """A file that is not what it was opened as. The message names the file, the offset and what was found there."""


class DecodeError(PenstockError):
    """A record that cannot be decoded; raised only under ``on_error="raise"``, quarantined otherwise."""


class StateLimitError(PenstockError):
    """An operator that would hold more state than its limit."""


class MissingExtraError(PenstockError):
    """An optional dependency that is not installed."""

    def __init__(self, feature: str, module: str, extra: str | None) -> None:
        target = f"penstock[{extra}]" if extra else module
        super().__init__(f"{feature} needs the package {module!r}: pip install '{target}'")
