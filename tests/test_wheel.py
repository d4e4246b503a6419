"""The wheel holds the whole package and nothing else, and works where the tree is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_PACKAGED = {"tests", "bench"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the tree stays as it is."""
    source, target = tmp_path_factory.mktemp("source") / "any name", tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=skipped)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), str(source)]
    if _has_setuptools():
        command.insert(4, "--no-build-isolation")
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return path


def _has_setuptools() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


def packaged_modules() -> set[str]:
    """What the tree says belongs to the package: its top level, and every folder below with an __init__.py."""
    folders = [ROOT]
    for folder in folders:
        inner = (path.parent for path in folder.glob("*/__init__.py"))
        folders += [path for path in inner if path.name not in NOT_PACKAGED and not path.name.startswith(".")]
    files = (path for folder in folders for path in folder.glob("*.py"))
    return {f"penstock/{path.relative_to(ROOT).as_posix()}" for path in files}


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_every_module_of_the_tree_is_in_the_wheel_and_no_other(wheel: Path) -> None:
    found = {name for name in names_in(wheel) if name.endswith(".py")}
    assert found == packaged_modules()
    assert {"penstock/__init__.py", "penstock/cli.py", "penstock/pipeline/source.py"} <= found


def test_users_type_checkers_find_the_types(wheel: Path) -> None:
    assert "penstock/py.typed" in names_in(wheel)


def test_neither_tests_nor_benchmarks_nor_caches_are_inside(wheel: Path) -> None:
    parts = {part for name in names_in(wheel) for part in Path(name).parts}
    assert not parts & {"tests", "bench", "__pycache__", "conftest.py", ".ci"}
    assert {name.split("/")[0].split("-")[0] for name in names_in(wheel)} == {"penstock"}


def test_the_metadata_name_the_command_the_licence_and_the_pythons(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.split("/")[0] for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        assert "penstock = penstock.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert "torch<2.14,>=2.11" in (metadata.get_all("Requires-Dist") or [])


def test_the_installed_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    elsewhere.mkdir()
    code = "import penstock, penstock.cli; from penstock import models, ops, sinks, sources; print(penstock.__file__)"
    environment = os.environ | {"PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()).is_relative_to(target)
    help_text = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "--help"],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "demo" in help_text
