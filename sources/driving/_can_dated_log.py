"""What CAN logs have in common whose times count from a date that is written without a zone."""

from __future__ import annotations

from dataclasses import dataclass

from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.source import SourceSpec
from ..storage.stored import PathLike, base_name, location
from ._dataset_times import civil_ns, zone

__all__ = ["DatedLog"]


@dataclass(frozen=True)
class DatedLog(SourceSpec):
    """The file at `path`, whose date, or `start` in its place, is a local time in `timezone`.

    `fd`: whether ``data`` has the 64 bytes of CAN FD; None looks into the file. Raises GraphError for wrong arguments.
    """

    path: PathLike
    timezone: str = "UTC"
    start: str | None = None
    fd: bool | None = None
    lateness: Duration = "100ms"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        at = zone(self.timezone)
        if self.start is not None:
            civil_ns(self.start, at)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return base_name(self.path)
