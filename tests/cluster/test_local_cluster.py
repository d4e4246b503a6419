"""A cluster of several nodes on this machine: it starts, it is one cluster, and nothing of it is left."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.ray


def test_three_nodes_are_alive(cluster) -> None:
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        nodes = ray.nodes()
        assert [node["Alive"] for node in nodes] == [True] * 3
        assert {node["Resources"]["CPU"] for node in nodes} == {2.0}
        assert len({node["NodeManagerAddress"] for node in nodes}) == 3
        assert len(cluster.nodes) == 3
    finally:
        ray.shutdown()
