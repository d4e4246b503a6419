"""A feed read by a thread of its own, a few megabytes ahead of whoever takes from it.

Unpacking and fetching release the interpreter, so they go on beside framing and decoding.
"""

from __future__ import annotations

import threading
from collections import deque

from .feed import Feed

__all__ = ["ReadAhead"]

_PIECE = 1 << 20
_PIECES = 4


class ReadAhead(Feed):
    """What `inner` gives. The thread starts with the first `fill` and ends with `close`, `seek` or the content."""

    def __init__(self, inner: Feed) -> None:
        self._inner = inner
        self.compression = inner.compression
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._reset()

    def _reset(self) -> None:
        self._ready: deque[memoryview] = deque()
        self._free = [memoryview(bytearray(0)) for _ in range(_PIECES)]
        self._ended = self._stopping = False
        self._failure: BaseException | None = None
        self.error = None

    def fill(self, view: memoryview) -> int:
        if self._thread is None and not self._ended:
            self._thread = threading.Thread(target=self._read, name="penstock-read-ahead", daemon=True)
            self._thread.start()
        done = 0
        while done < len(view):
            with self._changed:
                while not self._ready and not self._ended:
                    self._changed.wait()
                if not self._ready:
                    break
                piece = self._ready[0]
            count = min(len(piece), len(view) - done)
            view[done : done + count] = piece[:count]
            done += count
            with self._changed:
                if count < len(piece):
                    self._ready[0] = piece[count:]
                else:
                    self._ready.popleft()
                    self._free.append(memoryview(piece.obj))
                    self._changed.notify_all()
        if done < len(view):
            if self._failure is not None:
                raise self._failure
            self.error = self._inner.error
        return done

    def seek(self, offset: int) -> None:
        self._end()
        self._reset()
        self._inner.seek(offset)

    def close(self) -> None:
        self._end()
        self._ended = True
        self._inner.close()

    def _end(self) -> None:
        if self._thread is not None:
            with self._changed:
                self._stopping = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None

    def _read(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._free and not self._stopping:
                        self._changed.wait()
                    if self._stopping:
                        return
                    piece = self._free.pop()
                if len(piece) < _PIECE:
                    piece = memoryview(bytearray(_PIECE))
                count = self._inner.fill(piece)
                with self._changed:
                    if count:
                        self._ready.append(piece[:count])
                    if count < _PIECE:
                        return
                    self._changed.notify_all()
        except BaseException as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
