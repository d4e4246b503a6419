"""The checkpoint store: whatever fails and wherever it is, the old snapshot or the new one is there, whole."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from penstock.pipeline import _checkpoint_files
from penstock.pipeline._checkpoint_files import LocalFiles, RemoteFiles
from penstock.pipeline.checkpoints import CheckpointStore
from penstock.pipeline.errors import CheckpointError

PLACES = ("path", "file", "memory", "dir")
#: Step ids as they come, and as they might.
STEPS = {
    "read": b"r" * 1000,
    "read.map": b"",
    "../../x": b"up",
    "a/b\\c:d": b"sep",
    "é" * 90: b"long",
    "READ": b"upper",
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "some run" / "checkpoints"
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
    yield {
        "path": str(folder),
        "file": folder.as_uri().replace("%20", " "),
        "memory": "memory://bucket/checkpoints",
        "dir": f"dir::file://{folder}",
    }[request.param]
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


def files_in(url: str) -> dict[str, bytes]:
    """Everything below the place, by path, the lock aside."""
    if url.startswith("memory"):
        store = fsspec.filesystem("memory").store
        return {path: bytes(file.getvalue()) for path, file in store.items() if path.startswith("/bucket/checkpoints")}
    root = Path(url.removeprefix("dir::").removeprefix("file://"))
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != ".lock"}


def change(url: str, ending: str, data: bytes | None) -> None:
    """Overwrite or remove the one file whose path ends so."""
    root = "memory://" if url.startswith("memory") else ""
    (path,) = [path for path in files_in(url) if path.endswith(ending)]
    if not root:
        path = str(Path(url.removeprefix("dir::").removeprefix("file://")) / path)
    fs, path = fsspec.core.url_to_fs(root + path)
    fs.rm_file(path)
    if data is not None:
        fs.pipe_file(path, data)


def parts_of(number: int) -> dict[str, bytes]:
    return {"read": b"state %d" % number, "window.1": bytes([number]) * 5000}


def assert_is(store: CheckpointStore, number: int) -> None:
    snapshot = store.latest()
    assert snapshot is not None
    assert (snapshot.number, snapshot.manifest) == (number, {"n": number})
    assert {step: snapshot.part(step) for step in snapshot.steps} == parts_of(number)


def test_a_snapshot_comes_back_by_step_from_another_store(place: str) -> None:
    manifest = {"graph": ["a", {"b": None}], "rows": 1 << 60, "x": 0.1, "text": "é\n"}
    with CheckpointStore(place) as store:
        assert store.latest() is None and store.numbers() == []
        store.write(3, manifest, STEPS)
    with CheckpointStore(place) as again:
        snapshot = again.latest()
    assert snapshot is not None and snapshot.number == 3 and snapshot.manifest == manifest
    assert {step: snapshot.part(step) for step in snapshot.steps} == STEPS
    with pytest.raises(CheckpointError, match="'nobody'"):
        snapshot.part("nobody")


def test_nothing_is_written_outside_the_place(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "in") as store:
        store.write(0, {}, STEPS)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["checkpoint-000000000000"]


def test_the_newest_are_kept_and_incomplete_ones_collected(place: str) -> None:
    with CheckpointStore(place, keep=3) as store:
        for number in (1, 2, 5, 9, 10):
            store.write(number, {"n": number}, parts_of(number))
        assert store.numbers() == [5, 9, 10]
        change(place, "checkpoint-000000000009/manifest.jsonl", None)
        assert store.numbers() == [5, 10]
        store.write(11, {"n": 11}, parts_of(11))
        assert store.numbers() == [5, 10, 11]
        assert not [path for path in files_in(place) if "000000000009" in path]
        assert_is(store, 11)
    with CheckpointStore(place, keep=1) as store:
        store.write(12, {"n": 12}, parts_of(12))
        assert store.numbers() == [12] and len(files_in(place)) == 3


@pytest.mark.parametrize("damage", ["part removed", "part changed", "part longer", "manifest torn", "manifest changed"])
def test_a_damaged_snapshot_is_passed_over_with_a_warning(
    place: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(place) as store:
        store.write(1, {"n": 1}, parts_of(1))
        store.write(2, {"n": 2}, parts_of(2))
        folder = "checkpoint-000000000002"
        part, manifest = f"{folder}/0001-window.1.part", f"{folder}/manifest.jsonl"
        text = next(data for path, data in files_in(place).items() if path.endswith(manifest))
        match damage:
            case "part removed":
                change(place, part, None)
            case "part changed":
                change(place, part, b"\2" * 4999 + b"\3")
            case "part longer":
                change(place, part, b"\2" * 5001)
            case "manifest torn":
                change(place, manifest, text[: len(text) // 2])
            case "manifest changed":
                change(place, manifest, text.replace(b'"n":2', b'"n":1'))
        with caplog.at_level(logging.WARNING, "penstock"):
            assert_is(store, 1)
        assert folder in caplog.text and "checkpoint 1" in caplog.text
        store.write(2, {"n": 2}, parts_of(2))
        assert_is(store, 2)
        assert store.numbers() == [1, 2]


def test_a_damaged_snapshot_does_not_count_as_kept_and_goes_with_the_next(place: str) -> None:
    with CheckpointStore(place, keep=2) as store:
        for number in (1, 2, 3):
            store.write(number, {"n": number}, parts_of(number))
        change(place, "3/0000-read.part", b"?")
    with CheckpointStore(place, keep=2) as store:
        assert_is(store, 2)
        store.write(4, {"n": 4}, parts_of(4))
        assert store.numbers() == [2, 4]


def test_if_all_are_damaged_it_is_an_error_and_not_a_fresh_start(place: str) -> None:
    with CheckpointStore(place) as store:
        for number in (1, 2):
            store.write(number, {}, parts_of(number))
            change(place, f"{number}/0000-read.part", b"?")
        with pytest.raises(CheckpointError, match=r"all checkpoints .* damaged .*0000-read\.part"):
            store.latest()
        store.clear()
        assert store.latest() is None


def test_a_manifest_that_names_files_elsewhere_is_damaged(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.write(1, {}, {"a": b"x"})
        path = tmp_path / "checkpoint-000000000001" / "manifest.jsonl"
        about = json.loads(path.read_bytes().splitlines()[1])
        from penstock.pipeline import checkpoints

        for bad in ({"a": {**about["parts"]["a"], "file": "../../secret.part"}}, {"a": 3}, [1], {"a": {"file": "x"}}):
            path.write_bytes(checkpoints._sealed({**about, "parts": bad}))
            with pytest.raises(CheckpointError, match="damaged"):
                store.latest()
        path.write_bytes(checkpoints._sealed({**about, "number": 2}))
        with pytest.raises(CheckpointError, match="of checkpoint 2"):
            store.latest()


def test_numbers_only_grow(place: str) -> None:
    with CheckpointStore(place) as store:
        store.write(5, {"n": 5}, parts_of(5))
        for number in (5, 4):
            with pytest.raises(CheckpointError, match="has checkpoint 5"):
                store.write(number, {}, {})
        with pytest.raises(ValueError, match="from 0 up"):
            store.write(-1, {}, {})
        with pytest.raises(TypeError):
            store.write(6, {"n": object()}, {})
        assert_is(store, 5)


def test_clear_leaves_what_the_store_did_not_make(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.write(1, {}, parts_of(1))
        store.write(2, {}, parts_of(2))
        foreign = ["notes.txt", "checkpoint-x/a", "checkpoint-7/manifest.jsonl", "checkpoint-000000000001/mine.txt"]
        foreign += ["checkpoint-000000000009/0000-x.part.bak", "checkpoint-000000000002/deep/0000-x.part"]
        for name in foreign:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("kept")
        (tmp_path / "checkpoint-000000000004").write_text("kept")
        assert store.numbers() == [1, 2]
        store.write(3, {}, {})
        store.clear()
        assert store.numbers() == [] and store.latest() is None
        assert sorted(files_in(str(tmp_path))) == sorted([*foreign, "checkpoint-000000000004"])


def test_clear_leaves_an_empty_place_that_can_be_used_again(place: str) -> None:
    with CheckpointStore(place) as store:
        store.write(1, {}, parts_of(1))
        store.clear()
        assert files_in(place) == {}
        store.write(1, {"n": 1}, parts_of(1))
        assert_is(store, 1)


# --- Crashes: every operation on the files fails once, before it did anything or after it did some or all of it.


class Crash(OSError):
    """What is raised instead of, or after, an operation."""


class Saboteur:
    """Counts operations on files, and fails at one of them."""

    def __init__(self, fails_at: int, mode: str) -> None:
        self.fails_at, self.mode, self.count = fails_at, mode, 0

    def wrap(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def sabotaged(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count != self.fails_at:
                return operation(*args, **kwargs)
            if self.mode == "after":
                operation(*args, **kwargs)
            elif self.mode == "torn" and args and isinstance(args[-1], bytes | dict):
                half = args[-1][: len(args[-1]) // 2] if isinstance(args[-1], bytes) else dict([*args[-1].items()][:1])
                if operation.__name__ != "pipe_file":  # an object appears whole or not at all
                    operation(*args[:-1], half, **kwargs)
            raise Crash("the disk is gone")

        return sabotaged


LOCAL_OPERATIONS = [
    (Path, name) for name in ("mkdir", "write_bytes", "replace", "unlink", "rmdir", "iterdir", "is_dir")
]
REMOTE_OPERATIONS = ("makedirs", "pipe", "pipe_file", "rm_file", "rmdir", "ls")


def sabotage(store: CheckpointStore, saboteur: Saboteur, patch: pytest.MonkeyPatch) -> None:
    files = store._files
    if isinstance(files, LocalFiles):
        for owner, name in LOCAL_OPERATIONS:
            wrapped = saboteur.wrap(getattr(owner, name))
            patch.setattr(owner, name, lambda self, *a, _f=wrapped, **k: _f(self, *a, **k))
        patch.setattr(_checkpoint_files, "sync", saboteur.wrap(_checkpoint_files.sync))
    else:
        assert isinstance(files, RemoteFiles)
        for name in REMOTE_OPERATIONS:
            patch.setattr(files.system, name, saboteur.wrap(getattr(files.system, name)))


@pytest.mark.parametrize("mode", ["before", "torn", "after"])
def test_a_crash_at_any_operation_leaves_the_old_or_the_new_snapshot(place: str, mode: str) -> None:
    outcomes = set()
    for fails_at in itertools.count(1):
        with CheckpointStore(place) as store:
            store.clear()
            for number in (1, 2, 3):
                store.write(number, {"n": number}, parts_of(number))
            change(place, "2/manifest.jsonl", None)  # so that there is something incomplete to collect, too
            saboteur = Saboteur(fails_at, mode)
            failed = False
            with pytest.MonkeyPatch.context() as patch:
                sabotage(store, saboteur, patch)
                try:
                    store.write(4, {"n": 4}, parts_of(4))
                except CheckpointError:
                    failed = True
        with CheckpointStore(place) as after:
            snapshot = after.latest()
            assert snapshot is not None
            if not failed:
                assert snapshot.number == 4
            assert_is(after, snapshot.number)
            assert snapshot.number in (3, 4)
            outcomes.add((failed, snapshot.number))
            number = snapshot.number + 1  # the run goes on, and under the number that failed where it did
            after.write(number, {"n": number}, parts_of(number))
            assert_is(after, number)
            assert len(after.numbers()) == 2
            assert len(files_in(place)) == 2 * 3
        if saboteur.count < fails_at:
            break
    assert {(True, 3), (False, 4)} <= outcomes
    assert fails_at > 10


@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_crash_while_clearing_leaves_an_intact_snapshot_or_none(place: str, mode: str) -> None:
    for fails_at in itertools.count(1):
        with CheckpointStore(place) as store:
            store.clear()
            for number in (1, 2):
                store.write(number, {"n": number}, parts_of(number))
            saboteur = Saboteur(fails_at, mode)
            with pytest.MonkeyPatch.context() as patch:
                sabotage(store, saboteur, patch)
                try:
                    store.clear()
                except CheckpointError:
                    pass
                else:
                    assert saboteur.count < fails_at or files_in(place) == {}
        with CheckpointStore(place) as after:
            found = after.latest()
            if found is not None:
                assert_is(after, found.number)
        if saboteur.count < fails_at:
            break


def test_an_old_snapshot_that_cannot_be_removed_is_logged_and_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointStore(tmp_path, keep=1) as store:
        store.write(1, {"n": 1}, parts_of(1))

        def refuse(self: Path, missing_ok: bool = False) -> None:
            raise PermissionError("not yours")

        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "penstock"):
            patch.setattr(Path, "unlink", refuse)
            store.write(2, {"n": 2}, parts_of(2))
        assert "not yours" in caplog.text
        assert_is(store, 2)


def test_a_place_that_cannot_be_read_is_an_error_and_not_a_step_back(tmp_path: Path, monkeypatch: Any) -> None:
    with CheckpointStore(tmp_path) as store:
        store.write(1, {}, parts_of(1))
        store.write(2, {}, parts_of(2))

        def fail(self: Path) -> bytes:
            raise OSError("input/output error")

        monkeypatch.setattr(Path, "read_bytes", fail)
        with pytest.raises(CheckpointError, match=r"checkpoint 2 .*input/output error"):
            store.latest()


# --- The lock.


def test_two_runs_cannot_use_one_local_folder(tmp_path: Path) -> None:
    first = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match="another run is using"):
        CheckpointStore(tmp_path.as_uri())
    with CheckpointStore(tmp_path, read_only=True) as reader:
        assert reader.latest() is None
        with pytest.raises(CheckpointError, match="reading only"):
            reader.write(1, {}, {})
        with pytest.raises(CheckpointError, match="reading only"):
            reader.clear()
    first.close()
    first.close()
    assert list(tmp_path.iterdir()) == []
    CheckpointStore(tmp_path).close()
    with pytest.raises(CheckpointError, match="closed"):
        first.write(1, {}, {})


def test_reading_only_makes_nothing(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "none", read_only=True) as store:
        assert store.latest() is None and store.numbers() == []
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_was_killed_is_gone(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from penstock.pipeline.checkpoints import CheckpointStore\n"
        "store = CheckpointStore(sys.argv[1]); store.write(1, {'n': 1}, {}); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="another run"):
            CheckpointStore(tmp_path)
        holder.kill()
        holder.wait()
    with CheckpointStore(tmp_path) as store:
        assert store.numbers() == [1]


def test_a_lock_file_removed_while_it_is_opened_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    """A run that ends removes the file; one that had opened it just before must not hold a lock nobody else sees."""
    first = CheckpointStore(tmp_path)
    real_open = os.open
    opened = []

    def late(path: Any, *args: Any, **kwargs: Any) -> int:
        handle = real_open(path, *args, **kwargs)
        if not opened:
            opened.append(path)
            first.close()
        return handle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_checkpoint_files.os, "open", late)
        second = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match="another run"):
        CheckpointStore(tmp_path)
    second.close()


# --- Places.


def test_storage_options_reach_the_file_system() -> None:
    fsspec.filesystem("memory").store.clear()
    options = {"path": "/bucket", "target_protocol": "memory"}
    with CheckpointStore("dir://inner", storage_options=options) as store:
        store.write(1, {"n": 1}, parts_of(1))
        assert_is(store, 1)
    assert "/bucket/inner/checkpoint-000000000001/manifest.jsonl" in fsspec.filesystem("memory").store
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("url", ["nonsense://x", "dir://x"])
def test_a_place_that_nothing_reaches_is_refused(url: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be kept"):
        CheckpointStore(url)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be kept"):
        CheckpointStore(tmp_path / "file")


def test_a_store_keeps_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        CheckpointStore(tmp_path, keep=0)
