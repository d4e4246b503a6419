"""The job server of a Ray cluster, with errors that say what to do.

A thin layer over Ray's `JobSubmissionClient`. That client takes its address from the environment even if it is given one,
connects without a time limit, sends the token only if ``RAY_AUTH_MODE=token``, and raises RuntimeError for everything;
here the caller's address counts, an unreachable server is told in seconds, and each failure has its own words.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

from ..errors import MissingExtraError, PenstockError
from .token import find_token

__all__ = ["DEFAULT_ADDRESS", "JobServer", "UnknownJobError", "job_address"]

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
CONNECT_SECONDS = 5.0
HOW_TO_TOKEN = (
    "export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (a file; ~/.ray/auth_token if unset)"
)


class UnknownJobError(PenstockError):
    """No job of that id at the server."""


def job_address(given: str | None = None) -> str:
    """What is given, else ``RAY_API_SERVER_ADDRESS``, else ``RAY_ADDRESS``, else Ray's usual address."""
    environment = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    address = given or environment or DEFAULT_ADDRESS
    return address if address.endswith("://") else address.rstrip("/")


class JobServer:
    """A connection to the job server at `address`: ``http://HOST:PORT``, or what ``ray.init`` takes.

    `token` is used as given; without one, Ray's own is found as Ray finds it, and sent if ``RAY_AUTH_MODE=token`` or the
    server is on this machine. Raises PenstockError in one line if nobody answers or the token is not taken.
    """

    def __init__(self, address: str | None = None, *, token: str | None = None) -> None:
        self.address = job_address(address)
        _reach(self.address)
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise MissingExtraError("submitting jobs", "ray[default]", None) from error
        for name in ("modules.dashboard_sdk", "modules.job.sdk"):  # which tell what is zipped, sent, opened and closed
            logging.getLogger(f"ray.dashboard.{name}").setLevel(logging.WARNING)
        if token is None and (_auth_mode() == "token" or (_auth_mode() is None and _is_loopback(self.address))):
            token = find_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with self._told(), _environment("RAY_API_SERVER_ADDRESS", self.address):
            self._client: Any = JobSubmissionClient(self.address, headers=headers)

    def submit(self, **request: Any) -> str:
        """Ray's ``submit_job``: returns the id."""
        with self._told():
            return str(self._client.submit_job(**request))

    def jobs(self) -> list[Any]:
        """Ray's details of all jobs that were submitted, the oldest first."""
        with self._told():
            found = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: (job.start_time or 0, job.submission_id))

    def info(self, job: str) -> Any:
        """Ray's details of a job. Raises UnknownJobError."""
        with self._told(job):
            return self._client.get_job_info(job)

    def logs(self, job: str) -> str:
        """Everything that the job has written. Raises UnknownJobError."""
        with self._told(job):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> bool:
        """Ask the job to stop; False if it had ended. Raises UnknownJobError."""
        with self._told(job):
            return bool(self._client.stop_job(job))

    async def tail(self, job: str) -> AsyncIterator[str]:
        """The job's log in pieces, from its beginning until the job has ended or the connection breaks (PenstockError)."""
        import aiohttp

        with self._told(job):
            try:
                async for piece in self._client.tail_job_logs(job):
                    yield str(piece)
            except aiohttp.ClientError as error:
                raise PenstockError(f"the connection to {self.address} broke: {_first_line(error)}") from error

    @contextlib.contextmanager
    def _told(self, job: str | None = None) -> Iterator[None]:
        """What Ray and its HTTP library raise, in the words of the command line."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            missing = "Missing" in str(error) or "no authentication token" in str(error)
            what = "wants a token, and none was sent" if missing else "refuses the token"
            raise PenstockError(f"{self.address} {what}: {HOW_TO_TOKEN}") from error
        except (requests.RequestException, ConnectionError) as error:
            raise PenstockError(
                f"{self.address} does not answer like a Ray job server: {_first_line(error)}"
            ) from error
        except (RuntimeError, ValueError) as error:
            if job is not None and "does not exist" in str(error):
                raise UnknownJobError(f"no job {job!r} at {self.address}; penstock jobs lists them") from error
            raise PenstockError(f"{self.address} says: {_last_line(error)}") from error


def _auth_mode() -> str | None:
    mode = os.environ.get("RAY_AUTH_MODE")
    return mode.lower() if mode else None


def _host_and_port(address: str) -> tuple[str, int] | None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port
    except ValueError as error:
        raise PenstockError(f"{address!r} is no address of a job server; write http://HOST:PORT") from error
    if not parts.hostname:
        raise PenstockError(f"{address!r} is no address of a job server; write http://HOST:PORT")
    if parts.scheme in ("http", "https"):
        return parts.hostname, port or (443 if parts.scheme == "https" else 80)
    return (parts.hostname, port) if port else None


def _is_loopback(address: str) -> bool:
    place = _host_and_port(address)
    if place is None or place[0] == "localhost":
        return True
    try:
        return ipaddress.ip_address(place[0]).is_loopback
    except ValueError:
        return False


def _reach(address: str) -> None:
    """Raise PenstockError if nobody listens at `address`."""
    place = _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, CONNECT_SECONDS).close()
    except OSError as error:
        raise PenstockError(
            f"no Ray job server at {address} ({error}); name one with --address, or start one with penstock cluster up"
        ) from error


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    """Of a server's traceback, which comes as a message, the last line is the one that matters."""
    return (str(error).rstrip(" .\n").splitlines() or [type(error).__name__])[-1]
