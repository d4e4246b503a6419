"""What goes along with a job, without a cluster."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from penstock.pipeline.cluster.shipping import package_files, stage_folder, stage_package
from penstock.pipeline.errors import PenstockError

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_package_that_is_shipped_holds_every_module_and_nothing_else(tmp_path: Path) -> None:
    there = contents(stage_package(tmp_path))
    assert {"__init__.py", "cli.py", "version.py", "py.typed", "pipeline/cluster/entry.py", "demos/run.py"} <= set(
        there
    )
    assert not [name for name in there if name.split("/")[0] in ("tests", "bench", "build") or "__pycache__" in name]
    assert all(name.endswith(".py") or name == "py.typed" for name in there)


def test_a_checkout_of_any_name_is_shipped_as_penstock(tmp_path: Path) -> None:
    checkout = tmp_path / "main (copy)"
    for name in package_files(ROOT):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, checkout / name)
    for extra in ("tests/test_x.py", "bench/__init__.py", ".git/config", "build/lib/penstock/cli.py", "setup.py"):
        (checkout / extra).parent.mkdir(parents=True, exist_ok=True)
        (checkout / extra).touch()
    staged = stage_package(tmp_path / "a", checkout)
    assert staged == tmp_path / "a" / "penstock"
    again = stage_package(tmp_path / "b", staged)  # as from an installed wheel
    assert contents(staged) == contents(again) == contents(stage_package(tmp_path / "c"))
    code = "import penstock.cli; print(penstock.__file__)"
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(staged.parent), *sys.path]!r}; {code}"]
    run = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert run.stdout.strip() == str(staged / "__init__.py"), run.stderr


def folder_with(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / "user" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "user" / name).write_text(name)
    return tmp_path / "user"


def test_the_users_folder_goes_without_what_is_hidden_cached_or_installed(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        "flow.py",
        "lib/__init__.py",
        "levels.json",
        ".env",
        ".git/config",
        "__pycache__/flow.pyc",
        "v/pyvenv.cfg",
    )
    assert contents(stage_folder(folder, tmp_path / "ship")) == ["flow.py", "levels.json", "lib/__init__.py"]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("data/", ["a.mcap", "flow.py", "lib/models/m.py"]),
        ("*.mcap", ["data/big.bin", "flow.py", "lib/models/m.py"]),
        ("./lib/models", ["a.mcap", "data/big.bin", "flow.py"]),
        ("data/big.bin", ["a.mcap", "flow.py", "lib/models/m.py"]),
    ],
)
def test_what_is_excluded_stays_here(tmp_path: Path, pattern: str, kept: list[str]) -> None:
    folder = folder_with(tmp_path, "flow.py", "a.mcap", "data/big.bin", "lib/models/m.py")
    assert contents(stage_folder(folder, tmp_path / "ship", [pattern])) == kept


def test_too_much_to_ship_names_what_is_large_and_what_to_do(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "flow.py")
    with (folder / "drive.mcap").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(PenstockError, match=r"more than 100 MiB \(such as drive\.mcap of 3 GiB.*--exclude") as caught:
        stage_folder(folder, tmp_path / "ship")
    assert "\n" not in str(caught.value) and not (tmp_path / "ship").exists()
