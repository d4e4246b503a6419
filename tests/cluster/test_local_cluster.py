"""A cluster of several nodes on this machine: it starts, it is one cluster, and nothing of it is left."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from penstock.cli import main
from penstock.pipeline.cluster import local_cluster, processes
from penstock.pipeline.cluster.local_cluster import ClusterSpec, LocalCluster
from penstock.pipeline.errors import PenstockError

SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.ray
def test_three_nodes_are_one_cluster(cluster: Any) -> None:
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]  # Ray remembers those that another test ended
        assert len(nodes) == 3
        assert {node["Resources"]["CPU"] for node in nodes} == {2.0}
        assert len({node["NodeManagerAddress"] for node in nodes}) == 3
        assert len(cluster.nodes) == 3
    finally:
        ray.shutdown()


@pytest.mark.nightly
@pytest.mark.ray
def test_down_ends_what_up_started_and_nothing_else(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = cluster.nodes
    memory = sorted(SHARED_MEMORY.iterdir()) if SHARED_MEMORY.is_dir() else []
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    assert main(["cluster", "up", "--nodes", "1", "--object-store", "100MB"]) == 0
    started = local_cluster.running()
    assert started is not None and Path(started.folder).is_dir()
    said = capsys.readouterr().out
    assert f"export RAY_ADDRESS={started.address}" in said and f"RAY_API_SERVER_ADDRESS={started.jobs_url}" in said
    assert started.address != cluster.address and started.jobs_url != cluster.jobs_url

    assert main(["cluster", "up"]) == 1
    assert "is up already" in capsys.readouterr().err
    assert len(started.add_node().raylets()) == 2
    assert main(["cluster", "status"]) == 0
    assert "2 nodes" in capsys.readouterr().out

    assert main(["cluster", "down"]) == 0
    assert processes.find(started.identity) == []
    assert not Path(started.folder).exists() and not local_cluster.state_file().exists()
    assert (sorted(SHARED_MEMORY.iterdir()) if SHARED_MEMORY.is_dir() else []) == memory
    assert cluster.nodes == others
    assert main(["cluster", "status"]) == 1


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    return tmp_path


def test_down_without_a_cluster_is_no_error(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "down"]) == 0
    assert "no cluster" in capsys.readouterr().out


def test_a_cluster_that_died_is_cleared_away(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    gone = LocalCluster(
        identity="0" * 16, address="a:1", jobs_url="u", folder=str(folder), spec=ClusterSpec(), started=3
    )
    local_cluster.state_file().write_text(json.dumps({**vars(gone), "spec": vars(gone.spec)}))
    assert local_cluster.running() is None
    assert local_cluster.down() == 0
    assert not folder.exists() and not local_cluster.state_file().exists()


def test_a_damaged_state_file_is_named(cache: Path) -> None:
    local_cluster.state_file().write_text("{}")
    with pytest.raises(PenstockError, match=r"cluster\.json is damaged"):
        local_cluster.running()


def test_where_the_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(Path("elsewhere")))
    assert local_cluster.state_file() == Path("elsewhere/penstock/cluster.json")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nodes", "0"], "1 to 64 nodes"),
        (["--cpus-per-node", "0"], "at least one CPU"),
        (["--object-store", "1MB"], "at least 80 MB"),
        (["--object-store", "much"], "is not a size"),
        (["--port", "80"], "1024 to 65535"),
    ],
)
def test_what_cannot_be_started_is_said_before_anything_is(
    cache: Path, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", "up", *options]) == 1
    assert expected in capsys.readouterr().err
    assert list(cache.iterdir()) == []
