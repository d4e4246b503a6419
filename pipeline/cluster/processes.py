"""Finding and ending the processes of one cluster, and no others.

Whatever `ray start` starts inherits its environment: raylets, agents, workers, the drivers of jobs. So every cluster puts
an id of its own there, and a process belongs to it if it carries that id or descends from one that does (a process that
renames itself may overwrite its environment). Process numbers and names prove nothing: numbers are used again, and another
cluster's raylet has the same name.
"""

from __future__ import annotations

import importlib
import os
import signal
from typing import Any

from ..errors import MissingExtraError

__all__ = ["MARK", "end", "find", "kill"]

#: The environment variable that carries the id.
MARK = "PENSTOCK_CLUSTER"


def find(identity: str) -> list[Any]:
    """The living processes of the cluster `identity` as psutil processes, without this one and its ancestors."""
    psutil = _psutil()
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    children: dict[int, list[Any]] = {}
    marked: list[Any] = []
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process)
        try:
            if process.environ().get(MARK) == identity:
                marked.append(process)
        except (psutil.Error, OSError):
            continue
    found: dict[int, Any] = {}
    while marked:
        process = marked.pop()
        if process.pid not in found and process.pid not in own:
            found[process.pid] = process
            marked += children.get(process.pid, [])
    return [process for _, process in sorted(found.items()) if _alive(process)]


def end(identity: str, *, patience_s: float = 4.0) -> int:
    """End all processes of the cluster: jobs and then raylets get `patience_s` to end by themselves.

    Returns how many there were. Raises nothing for processes that ended meanwhile.
    """
    psutil = _psutil()
    first = find(identity)
    for polite in (_is_job, _is_raylet):  # a raylet takes the jobs of its node with it
        asked = [process for process in first if polite(process)]
        for process in asked:
            _signal(process, "terminate")
        psutil.wait_procs(asked, timeout=patience_s)
    for _ in range(20):  # what is being started while we look is found in the next round
        left = find(identity)
        if not left:
            break
        for process in left:
            _signal(process, "kill")
        psutil.wait_procs(left, timeout=0.5)
    return len(first)


def kill(pid: int) -> None:
    """End one process at once, as a crash would."""
    os.kill(pid, signal.SIGKILL)


def _is_raylet(process: Any) -> bool:
    return bool(_said(process, "name") == "raylet")


def _is_job(process: Any) -> bool:
    return "penstock.pipeline.cluster.entry" in (_said(process, "cmdline") or [])


def _said(process: Any, what: str) -> Any:
    try:
        return getattr(process, what)()
    except (_psutil().Error, OSError):
        return None


def _alive(process: Any) -> bool:
    return _said(process, "status") not in (None, _psutil().STATUS_ZOMBIE)


def _signal(process: Any, how: str) -> None:
    try:
        getattr(process, how)()
    except (_psutil().Error, OSError):
        return


def _psutil() -> Any:
    """Ray brings its own psutil, which is there once ray is imported."""
    try:
        importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingExtraError("a cluster", "ray[default]", None) from error
    return importlib.import_module("psutil")
