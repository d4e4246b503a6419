"""A Ray cluster of several nodes on this machine, to try things that need more than one node.

Real raylets, started with ``ray start``: the head first, the others side by side, each with a temporary folder and (on
Linux) a loopback address of its own, 127.0.0.2 and on, so that what goes from node to node goes through the object
managers as it would between machines. Who wants to connect needs Ray's token. Nodes are watched every second, so a lost
one is noticed in about five. One cluster at a time: a file in the user's cache folder says which processes are its own,
and `down` ends those, unlike ``ray stop``, which ends every cluster of the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import PenstockError
from . import processes
from .token import ensure_token

__all__ = ["ClusterSpec", "LocalCluster", "down", "running", "state_file", "up"]

#: How Ray's control service watches the nodes: asked every second, four silences and the node is dead.
WATCH = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
START_SECONDS = 90


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """What to start: `object_store` is bytes a node; a port of 0 means Ray's usual one if it is free, else any."""

    nodes: int = 3
    cpus_per_node: int = 2
    gpus_per_node: int = 0
    object_store: int = 200_000_000
    port: int = 0
    dashboard_port: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 64:
            raise PenstockError(f"a local cluster has 1 to 64 nodes, got {self.nodes}")
        if self.cpus_per_node < 1 or self.gpus_per_node < 0:
            raise PenstockError(f"a node has at least one CPU, got {self.cpus_per_node} and {self.gpus_per_node} GPUs")
        if self.object_store < 80_000_000:
            raise PenstockError(f"Ray's object store needs at least 80 MB a node, got {self.object_store} bytes")
        for port in (self.port, self.dashboard_port):
            if not (port == 0 or 1024 <= port <= 65_535):
                raise PenstockError(f"a port is 1024 to 65535, or 0 for a free one, got {port}")


@dataclass(frozen=True, kw_only=True)
class LocalCluster:
    """A cluster that was started: `address` for ``ray.init``, `jobs_url` for jobs and the dashboard."""

    identity: str
    address: str
    jobs_url: str
    folder: str
    spec: ClusterSpec
    started: int = 0  # nodes, those that died included

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to talk to the cluster."""
        found = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.jobs_url}
        return found | {key: os.environ[key] for key in ("RAY_AUTH_TOKEN_PATH",) if key in os.environ}

    def raylets(self) -> list[int]:
        """Process numbers of the living raylets, in the order in which their nodes were started."""
        named = [process for process in processes.find(self.identity) if process.name() == "raylet"]
        return [process.pid for process in sorted(named, key=lambda process: process.create_time())]

    def add_node(self) -> LocalCluster:
        """Start one more node. Returns the cluster with it."""
        _start_nodes(self, [self.started])
        grown = replace(self, started=self.started + 1)
        _write(grown)
        return grown


class _SlowStart(PenstockError):
    """Ray gives a node half a minute, which on a busy machine may not be enough."""


def up(spec: ClusterSpec) -> LocalCluster:
    """Start a cluster and return when all its nodes are there. Where a node is too slow for Ray it is tried twice more.

    Raises PenstockError if one is up, or if a node does not start; then nothing of it is left.
    """
    for _ in range(2):
        with contextlib.suppress(_SlowStart):
            return _up(spec)
    return _up(spec)


def _up(spec: ClusterSpec) -> LocalCluster:
    with _alone():
        if running() is not None:
            raise PenstockError("a local cluster is up already; see penstock cluster status, or penstock cluster down")
        with contextlib.suppress(FileNotFoundError):
            down()  # what is left of one that died
        ensure_token()
        port, dashboard = _port(spec.port, 6379), _port(spec.dashboard_port, 8265)
        root = (
            Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
        )  # a socket's path must be short
        cluster = LocalCluster(
            identity=secrets.token_hex(8),
            address=f"{_ip(0) or '127.0.0.1'}:{port}",
            jobs_url=f"http://127.0.0.1:{dashboard}",
            folder=tempfile.mkdtemp(prefix="penstock-", dir=root),
            spec=spec,
            started=spec.nodes,
        )
        _write(cluster)
        try:
            head = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
            _start(cluster, {0: [*head, f"--ray-client-server-port={_port(0, 10001)}"]})
            _start_nodes(cluster, range(1, spec.nodes))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                down()
            raise
        return cluster


def running() -> LocalCluster | None:
    """The cluster that `up` started and `down` has not ended, if any of it lives."""
    try:
        cluster = _read()
    except FileNotFoundError:
        return None
    return cluster if processes.find(cluster.identity) else None


def down() -> int:
    """End the cluster's processes and remove its files. Returns how many processes there were.

    Raises FileNotFoundError if no cluster was started.
    """
    cluster = _read()
    ended = processes.end(cluster.identity)
    shutil.rmtree(cluster.folder, ignore_errors=True)
    state_file().unlink(missing_ok=True)
    return ended


def state_file() -> Path:
    """Where it is kept which cluster is up: ``$PENSTOCK_CACHE``, ``$XDG_CACHE_HOME/penstock`` or ``~/.cache/penstock``."""
    if own := os.environ.get("PENSTOCK_CACHE"):
        return Path(own) / "cluster.json"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "penstock" / "cluster.json"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Of two that start a cluster at the same time, one is refused. The system forgets the lock with the process."""
    import fcntl

    state_file().parent.mkdir(parents=True, exist_ok=True)
    with state_file().with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PenstockError("another penstock cluster up is at work; wait for it") from None
        yield


def _write(cluster: LocalCluster) -> None:
    unfinished = state_file().with_suffix(".tmp")
    unfinished.write_text(json.dumps(asdict(cluster), indent=2) + "\n")
    unfinished.replace(state_file())


def _read() -> LocalCluster:
    """Raises FileNotFoundError if no cluster was started, PenstockError if the file is damaged."""
    text = state_file().read_text()
    try:
        fields: dict[str, Any] = json.loads(text)
        return LocalCluster(**fields | {"spec": ClusterSpec(**fields["spec"])})
    except (TypeError, KeyError, ValueError) as error:
        raise PenstockError(f"{state_file()} is damaged ({error}); delete it after ending the processes") from error


def _ip(index: int) -> str | None:
    """Linux has all of 127.0.0.0/8; elsewhere every node has the machine's address."""
    return f"127.0.0.{index + 2}" if sys.platform == "linux" else None


def _port(wanted: int, usual: int) -> int:
    for port in [wanted] if wanted else [usual, 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return int(probe.getsockname()[1])
    raise PenstockError(f"port {wanted} is in use; choose another, or 0 for a free one")


def _start_nodes(cluster: LocalCluster, indices: Iterable[int]) -> None:
    _start(cluster, {index: [f"--address={cluster.address}"] for index in indices})


def _start(cluster: LocalCluster, nodes: dict[int, list[str]]) -> None:
    """Run ``ray start`` for all of `nodes` at once and wait until each has said that its node is there."""
    spec = cluster.spec
    environment = {
        key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    }
    environment |= WATCH | {processes.MARK: cluster.identity, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    started: list[tuple[Path, subprocess.Popen[bytes]]] = []
    with _ended(started):
        for index, own in nodes.items():
            folder = Path(cluster.folder) / str(index)
            folder.mkdir()
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *own, f"--temp-dir={folder}"]
            command += [f"--num-cpus={spec.cpus_per_node}", f"--num-gpus={spec.gpus_per_node}"]
            command += [f"--object-store-memory={spec.object_store}", "--min-worker-port=0", "--max-worker-port=0"]
            command += ["--dashboard-agent-listen-port=0", "--disable-usage-stats"]
            if (ip := _ip(index)) is not None:
                command.append(f"--node-ip-address={ip}")
            log = folder / "start.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            started.append((log, process))
        for log, process in started:
            try:
                status = process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                raise PenstockError(f"a node did not start within {START_SECONDS} s: {_last_line(log)}") from None
            if status != 0:
                kind = _SlowStart if "timed out during startup" in log.read_text(errors="replace") else PenstockError
                raise kind(f"a node did not start: {_last_line(log)}")


@contextlib.contextmanager
def _ended(started: list[tuple[Path, subprocess.Popen[bytes]]]) -> Iterator[None]:
    """If the block fails, no ``ray start`` goes on behind our back."""
    try:
        yield
    finally:
        for _, process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
