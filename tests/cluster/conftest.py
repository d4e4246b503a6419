"""One cluster of three nodes for all tests that need Ray, started with the product's own means."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from penstock.pipeline.cluster import local_cluster
from penstock.pipeline.cluster.local_cluster import ClusterSpec, LocalCluster


class RunningCluster:
    """`address` for ``ray.init``, `jobs_url` for jobs; `nodes` are the living raylets, the head's first."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster

    @property
    def address(self) -> str:
        return self.cluster.address

    @property
    def jobs_url(self) -> str:
        return self.cluster.jobs_url

    @property
    def nodes(self) -> list[int]:
        return self.cluster.raylets()

    def add_node(self) -> None:
        """Another node like the others, for instance after one was killed."""
        self.cluster = self.cluster.add_node()


def forget_ray_settings() -> None:
    """Ray reads its environment once, when it is imported: have it read again."""
    if "ray" in sys.modules:
        from ray._raylet import AuthenticationTokenLoader, Config

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture(scope="session")
def ray_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A token, a cache and settings of the tests' own, so that the user's cluster and token are not touched."""
    folder = tmp_path_factory.mktemp("ray")
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PENSTOCK_CACHE", str(folder / "cache"))
        forget_ray_settings()
        yield folder
    forget_ray_settings()


@pytest.fixture(scope="session")
def cluster(ray_environment: Path) -> Iterator[RunningCluster]:
    """Three nodes with two CPUs each. Test it with ``ray.init(address=cluster.address)`` and a shutdown afterwards."""
    started = RunningCluster(local_cluster.up(ClusterSpec(nodes=3, cpus_per_node=2)))
    try:
        yield started
    finally:
        if "ray" in sys.modules:
            import ray

            ray.shutdown()
        local_cluster.down()
    assert not Path(started.cluster.folder).exists()
    assert os.environ["PENSTOCK_CACHE"]
