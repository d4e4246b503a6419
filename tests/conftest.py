"""Shared fixtures: where the real recordings are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``: a file's tests stay together, those that need a Ray cluster share one and come early."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "cluster" if Path(file).parent.name == "cluster" else file

    config.option.loadscopereorder = False
    return Together(config, log)


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
