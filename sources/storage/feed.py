"""The contract of bytes in order."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Feed"]


class Feed(ABC):
    """Content in order. `error` says why it ended, if not at its end; `compression` is a name or "none"."""

    error: str | None = None
    compression: str = "none"

    @abstractmethod
    def fill(self, view: memoryview) -> int:
        """Fill `view`; fewer bytes mean that the end is reached, or damage (see `error`)."""

    @abstractmethod
    def seek(self, offset: int) -> None:
        """Go to `offset` of the content; a packed one is unpacked up to there."""

    def close(self) -> None:
        """Release the file. May be called again."""
