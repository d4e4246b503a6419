"""File systems behind URLs, and what went wrong with them in one line.

fsspec says "file not found" for whatever happens while it asks a web server for a file, and waits for five minutes or for
ever where the server takes the connection and says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from socket import gaierror
from typing import Any, TypeVar

from ...pipeline.errors import FormatError

__all__ = ["ask", "filesystem", "info_of"]

T = TypeVar("T")

#: Seconds in which a web server has to say something.
PATIENCE = 30.0
_WEB = ("http", "https")


@lru_cache(maxsize=64)
def filesystem(url: str) -> tuple[Any, str]:
    """The file system behind `url` and the path in it. Raises FormatError, ImportError naming the package it needs."""
    import fsspec

    web = [protocol for protocol in _WEB if f"{protocol}://" in url]
    try:
        system, inner = fsspec.core.url_to_fs(url, **{protocol: _patient(protocol) for protocol in web})
    except ValueError as error:
        raise FormatError(f"{url}: {error}") from None
    return system, inner


def _patient(protocol: str) -> dict[str, Any]:
    """Options of a web file system: the user's own of fsspec's configuration, and timeouts if those have none."""
    from fsspec.config import conf

    try:
        import aiohttp
    except ImportError:  # fsspec says what it needs
        return {}
    own = dict(conf.get(protocol, {}).get("client_kwargs", {}))
    own.setdefault("timeout", aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=PATIENCE))
    return {"client_kwargs": own}


def info_of(url: str) -> tuple[Any, str, dict[str, Any]]:
    """File system, path in it, and what the file system says of the file. Raises OSError that names the URL."""
    system, inner = filesystem(url)
    return system, inner, ask(url, lambda: _info(system, inner))


def _info(system: Any, inner: str) -> dict[str, Any]:
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    if not set(protocols) & set(_WEB) or not hasattr(system, "_info"):
        return dict(system.info(inner))
    from fsspec.asyn import sync

    return dict(sync(system.loop, system._info, inner, timeout=PATIENCE))  # it asks twice, each with the timeout


def ask(url: str, question: Callable[[], T]) -> T:
    """The answer to `question`. Raises OSError that says in one line what is wrong with `url`."""
    try:
        return question()
    except Exception as error:
        told = _told(url, error)
        if told is None:
            raise
        raise told from error


def _told(url: str, error: BaseException) -> OSError | None:
    for cause in _causes(error):
        status = getattr(cause, "status", None)
        if isinstance(status, int) and status >= 400:
            kind = FileNotFoundError if status in (404, 410) else PermissionError if status in (401, 403) else OSError
            return kind(f"{url}: the server answers {status} {getattr(cause, 'message', '')}".rstrip())
        if isinstance(cause, ConnectionRefusedError):
            return ConnectionRefusedError(f"{url}: connection refused; does a server listen there?")
        if isinstance(cause, gaierror):
            return ConnectionError(f"{url}: no host of this name is known")
        if isinstance(cause, TimeoutError):
            return TimeoutError(f"{url}: the server did not answer within {PATIENCE:g} s")
    last = list(_causes(error))[-1]
    if type(last).__module__.startswith("aiohttp"):
        return ConnectionError(f"{url}: {type(last).__name__}: {last}")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised from, the first cause last."""
    at: BaseException | None = error
    for _ in range(8):
        if at is None:
            return
        yield at
        at = at.__cause__ or at.__context__
