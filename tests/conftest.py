"""Shared fixtures: where the real recordings are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``-n``: a file's tests stay together, and those that need a Ray cluster share one."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        folder = item.path.parent
        item.add_marker(pytest.mark.xdist_group("cluster" if folder.name == "cluster" else str(item.path)))


@pytest.fixture(scope="session")
def recordings() -> Callable[[str], Path]:
    """``recordings("market/itch50")``: a folder of real recordings, or a skip that names what is missing."""

    def find(folder: str) -> Path:
        configured = os.environ.get("PENSTOCK_DATA")
        root = Path(configured) if configured else REPOSITORY.parent / "shared" / "data"
        path = root / folder
        if not path.is_dir():
            pytest.skip(f"no real recordings at {folder!r}: set PENSTOCK_DATA to the folder that holds it")
        return path

    return find
