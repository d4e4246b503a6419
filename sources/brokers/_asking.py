"""Calls to a broker that block for longer than a run may take to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from ...pipeline.context import Context
from ..live._retry import Outage, Retry, reason_of
from ..live.inlet import Inlet

__all__ = ["Asking", "Stopped"]

_LOOK_S = 0.1
Answer = TypeVar("Answer")


class Stopped(Exception):
    """The run is being abandoned; nobody waits for the answer."""


class Asking:
    """Runs calls one after the other in a thread of its own and looks every 0.1 s whether the run is over.

    `place` is the broker's and `why` says what an error means, for the log; `patience_ns` is how long to ask for.
    """

    def __init__(
        self, context: Context, place: str, patience_ns: int, why: Callable[[Exception], str] = reason_of
    ) -> None:
        self._context, self._stop = context, context.stop
        self._patience, self._why = patience_ns, why
        self.outage = Outage(context, patience_ns, place)
        self._met = False
        #: Set when nobody waits any longer for a broker that is away.
        self.finishing = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"penstock-{context.step}-ask")

    def begin(self, call: Callable[..., Answer], *args: Any, **options: Any) -> Future[Answer]:
        """Ask without waiting."""
        return self._thread.submit(call, *args, **options)

    def ask(self, call: Callable[..., Answer], *args: Any, **options: Any) -> Answer:
        """What `call` returns or raises. Raises Stopped if the run ends first."""
        answer = self.begin(call, *args, **options)
        while not wait([answer], _LOOK_S).done:
            if self._stop.is_set():
                raise Stopped
        return answer.result()

    def until(
        self,
        call: Callable[[], Answer],
        passing: tuple[type[Exception], ...],
        between: Callable[[float], Any] | None = None,
    ) -> Answer:
        """What `call` returns, asked again after errors that may pass, which are raised when patience ends.

        `between` is called, with 0, after each. Raises Stopped if the run ends first.
        """
        retry, inlet = Retry(self._context, self._patience), Inlet(self.finishing)
        while True:
            try:
                answer = self.ask(call)
            except passing as error:
                if between is not None:
                    between(0)
                self.outage.goes_on(self._why(error))
                if retry.wait(inlet):
                    continue
                if self._stop.is_set() or self.finishing.is_set():
                    raise Stopped from None
                raise
            self.outage.ends(again=self._met)
            self._met = True
            return answer

    def close(self) -> None:
        """Wait for the call that is under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)
