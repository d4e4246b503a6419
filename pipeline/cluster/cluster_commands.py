"""``penstock cluster up|down|status``: a cluster of several nodes on this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .local_cluster import LocalCluster

__all__ = ["add_cluster_commands"]


def add_cluster_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``cluster up``, ``down`` and ``status``."""
    cluster = commands.add_parser("cluster", help="a Ray cluster of several nodes on this machine, to try things")
    actions = cluster.add_subparsers(required=True, metavar="ACTION")
    up = actions.add_parser("up", help="start it, and print what to export to use it")
    up.add_argument("--nodes", type=int, default=3, help="raylets (%(default)s)")
    up.add_argument("--cpus-per-node", type=int, default=2, metavar="K", help="that Ray counts (%(default)s)")
    up.add_argument("--gpus-per-node", type=int, default=0, metavar="G", help="that Ray counts (%(default)s)")
    up.add_argument("--object-store", default="200MB", metavar="SIZE", help="shared memory a node (%(default)s)")
    up.add_argument("--port", type=int, default=0, help="of the control service (6379 if free, else any)")
    up.add_argument("--dashboard-port", type=int, default=0, help="of dashboard and jobs (8265 if free, else any)")
    up.set_defaults(command=_up)
    down = actions.add_parser("down", help="end the processes that cluster up started, and remove their files")
    down.set_defaults(command=_down)
    state = actions.add_parser("status", help="whether it is up, and how to use it; exit status 1 if it is not")
    state.set_defaults(command=_cluster_status)


def _up(arguments: argparse.Namespace) -> int:
    from ..options import parse_bytes
    from .local_cluster import ClusterSpec, up

    spec = ClusterSpec(
        nodes=arguments.nodes,
        cpus_per_node=arguments.cpus_per_node,
        gpus_per_node=arguments.gpus_per_node,
        object_store=parse_bytes(arguments.object_store),
        port=arguments.port,
        dashboard_port=arguments.dashboard_port,
    )
    print(_usage(up(spec)))
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from .local_cluster import down

    try:
        print(f"ended {down()} processes")
    except FileNotFoundError:
        print("no cluster was started here")
    return 0


def _cluster_status(arguments: argparse.Namespace) -> int:
    from .local_cluster import running

    cluster = running()
    if cluster is None:
        print("no cluster is up; start one with penstock cluster up")
        return 1
    print(_usage(cluster))
    return 0


def _usage(cluster: LocalCluster) -> str:
    exports = "\n".join(f"  export {key}={value}" for key, value in cluster.environment().items())
    return (
        f"{len(cluster.raylets())} nodes at {cluster.address}, jobs and dashboard at {cluster.jobs_url}\n"
        f"to use it:\n{exports}\n"
        "  penstock submit FILE --follow\n"
        "to end it: penstock cluster down"
    )
