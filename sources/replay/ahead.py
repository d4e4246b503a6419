"""Messages read ahead of their time, so that the one who sends finds them ready."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator

from .message import Message

__all__ = ["read_ahead", "several"]

#: Messages and bytes of one list, and of all lists that wait.
_MESSAGES, _BYTES = 64, 1 << 18
_WAITING, _WAITING_BYTES = 1 << 14, 16 << 20
_PATIENCE_S = 0.5


def several(messages: Iterator[Message]) -> Generator[list[Message], None, None]:
    """`messages` in lists. What came before an error is given before it is raised."""
    held: list[Message] = []
    size = 0
    try:
        for message in messages:
            held.append(message)
            size += len(message.data)
            if len(held) >= _MESSAGES or size >= _BYTES:
                yield held
                held, size = [], 0
    except Exception:
        if held:
            yield held
        raise
    if held:
        yield held


class _Shelf:
    """Lists between the thread that reads and the one that sends."""

    def __init__(self) -> None:
        self._lists: deque[list[Message]] = deque()
        self._messages = self._bytes = 0
        self._changed = threading.Condition()
        self._ended = False
        self._failure: BaseException | None = None
        self.left = False

    def put(self, messages: list[Message]) -> bool:
        """Add a list, waiting for room; False once nobody takes any more."""
        size = sum(len(message.data) for message in messages)
        with self._changed:
            while self._lists and not self.left:
                if self._messages + len(messages) <= _WAITING and self._bytes + size <= _WAITING_BYTES:
                    break
                self._changed.wait(_PATIENCE_S)
            self._lists.append(messages)
            self._messages += len(messages)
            self._bytes += size
            if len(self._lists) == 1:
                self._changed.notify_all()
            return not self.left

    def end(self, failure: BaseException | None) -> None:
        """There is no more, or what went wrong behind what there is."""
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def take(self, stop: threading.Event) -> list[Message] | None:
        """The next list; None at the end or once `stop` is set. Raises what reading failed with."""
        with self._changed:
            while not self._lists and not self._ended:
                if stop.is_set():
                    return None
                self._changed.wait(_PATIENCE_S)
            if not self._lists:
                if self._failure is not None:
                    raise self._failure
                return None
            taken = self._lists.popleft()
            self._messages -= len(taken)
            self._bytes -= sum(len(message.data) for message in taken)
            if self._messages < _WAITING // 2:
                self._changed.notify_all()
            return taken

    def leave(self) -> None:
        """Nobody takes any more."""
        with self._changed:
            self.left = True
            self._changed.notify_all()


def read_ahead(messages: Iterator[Message], stop: threading.Event) -> Generator[list[Message], None, None]:
    """`several`, read by a thread of its own: up to 16 MiB are ready before they are due."""
    shelf = _Shelf()

    def read() -> None:
        failure: BaseException | None = None
        lists = several(messages)
        try:
            for held in lists:
                if not shelf.put(held):
                    break
        except BaseException as error:
            failure = error
        finally:
            close = getattr(messages, "close", None)
            if close is not None:
                close()
            shelf.end(failure)

    thread = threading.Thread(target=read, name="penstock-replay-read", daemon=True)
    thread.start()
    try:
        while (taken := shelf.take(stop)) is not None:
            yield taken
    finally:
        shelf.leave()
        thread.join(2.0)
