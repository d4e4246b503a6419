"""Getting to a Ray cluster, and what it is like."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingExtraError, PenstockError
from .staffing import Cluster

log = logging.getLogger("penstock")

__all__ = ["connected", "spilled_bytes", "view"]


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to `address`; what was connected here is disconnected behind.

    ``"auto"`` is the cluster of this machine or of the job this process belongs to, ``"local"`` a new one that ends with
    the run. A connection that exists already is used as it is. Raises PenstockError in one line if there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("the runner 'ray'", "ray", None) from None
    if ray.is_initialized():
        yield ray
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.WARNING,
            log_to_driver=True,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = next((part.strip() for part in str(error).splitlines() if part.strip()), type(error).__name__)
        raise PenstockError(
            f"no Ray cluster at {address!r}: {line} (start one with 'penstock cluster up', or say ray='local')"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # ray.init puts one there that ends the process at once
    try:
        yield ray
    finally:
        ray.shutdown()


def view() -> Cluster:
    """The cluster as it is now."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    stores = [node["Resources"].get("object_store_memory", 0) for node in alive]
    cpus = [float(node["Resources"].get("CPU", 0)) for node in alive]
    return Cluster(ray.cluster_resources(), cpus, int(min(stores, default=0)))


def spilled_bytes() -> int | None:
    """Bytes that the object stores of all nodes have spilled to disk since they were started; None if Ray does not say.

    Ray has no public call for it, and asks every node: one that is just being lost makes it fail.
    """
    import ray

    try:
        from ray._private.internal_api import get_memory_info_reply, get_state_from_address

        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        return int(get_memory_info_reply(state).store_stats.spilled_bytes_total)
    except (ImportError, AttributeError, RuntimeError, ray.exceptions.RayError) as error:
        log.warning("Ray does not say how much was spilled: %s", error)
        return None
