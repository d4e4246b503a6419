"""One line that says how a long run is doing."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from .watch import Progress

__all__ = ["ProgressLine"]

#: Seconds between two updates, on a terminal and elsewhere.
_TERMINAL, _LOG = 0.5, 10.0


class ProgressLine:
    """Rewritten in place on a terminal, a line every ten seconds elsewhere; `update` is given to ``Flow.run``."""

    def __init__(self, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._quiet = quiet
        self._terminal = self._out.isatty()
        self._next = 0.0
        self._width = 0

    def update(self, progress: Progress) -> None:
        """Show where a run is."""
        if self._quiet or progress.elapsed_s < self._next:
            return
        self._next = progress.elapsed_s + (_TERMINAL if self._terminal else _LOG)
        seconds = max(progress.elapsed_s, 1e-9)
        text = (
            f"{progress.elapsed_s:6.1f} s  {progress.rows_read:,} read ({progress.rows_read / seconds:,.0f}/s)  "
            f"{progress.rows_written:,} written"
        )
        if progress.wait_share is not None:
            text += f"  accelerator waits {progress.wait_share:.0%}"
            if progress.wait_share > 0.02 and progress.wait_cause:
                text += f", mostly for {progress.wait_cause}"
        if progress.quarantined:
            text += f"  {progress.quarantined:,} in quarantine"
        self._show(text)

    def _show(self, text: str) -> None:
        if self._terminal:
            self._out.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._out.write(text + "\n")
        self._out.flush()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._width:
            self._out.write("\n")
