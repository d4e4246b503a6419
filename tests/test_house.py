"""The rules of the house, held by reading the code: which room imports which, and what the core must not do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "sources", "ops", "models", "sinks")
#: What a room may import beside itself.
MAY_IMPORT = {
    "pipeline": {"version"},
    "sources": {"pipeline"},
    "ops": {"pipeline"},
    "sinks": {"pipeline"},
    "models": {"pipeline", "ops"},
}
HEAVY = {"torch", "torchao", "ray", "numba", "cupy", "cv2", "nvidia", "onnxruntime"}
#: Calls whose results differ from run to run; pipeline/clock.py alone may make those about time.
UNREPEATABLE = re.compile(
    r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|process_time|process_time_ns|thread_time"
    r"|thread_time_ns|sleep|clock_gettime|clock_gettime_ns|localtime)"
    r"|datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today"
    r"|random(\..*)?|secrets(\..*)?|uuid\.uuid[14]|os\.(urandom|getrandom)"
    r"|numpy\.random\.(?!Generator$|Philox$|BitGenerator$).*"
)


def package_files() -> list[Path]:
    folders = [ROOT, *(ROOT / room for room in (*ROOMS, "demos"))]
    return sorted(
        path for folder in folders for path in (folder.glob("*.py") if folder == ROOT else folder.rglob("*.py"))
    )


def core_files() -> list[Path]:
    return sorted(path for room in ("pipeline", "ops", "sources") for path in (ROOT / room).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def named(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", files, ids=relative)


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """Line and first component below the package of everything `path` imports from the package."""
    home = path.relative_to(ROOT).parent.parts
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = home[: len(home) - node.level + 1]
            module = (node.module or "").split(".") if node.module else []
            parts = [*above, *module]
            yield from ((node.lineno, name) for name in ([parts[0]] if parts else [alias.name for alias in node.names]))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((node.lineno, "penstock") for name in names if name.split(".")[0] == "penstock")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            room = str(name).lstrip(".").removeprefix("penstock.").split(".")[0]
            if room in ROOMS:
                yield node.lineno, room


def full_names(tree: ast.Module) -> dict[str, str]:
    """What imported names stand for: ``np`` for ``numpy``, ``now`` for ``time.time``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def unrepeatable(tree: ast.Module) -> Iterator[tuple[int, str]]:
    names = full_names(tree)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            first, dot, rest = ast.unparse(node).partition(".")
            if first in names and UNREPEATABLE.fullmatch(full := names[first] + dot + rest):
                yield node.lineno, full
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] in ("random", "secrets"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash":
            yield node.lineno, "hash()"


def is_set(node: ast.AST, sets: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Name):
        return node.id in sets
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return is_set(node.left, sets) or is_set(node.right, sets)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in ("set", "frozenset")
        union = ("union", "intersection", "difference", "symmetric_difference")
        return isinstance(node.func, ast.Attribute) and node.func.attr in union and is_set(node.func.value, sets)
    return False


def loops_into_no_order(node: ast.AST) -> list[ast.comprehension]:
    """Loops in `node` whose order cannot be seen in the result: into a set, or into ``sorted`` and its like."""
    if isinstance(node, ast.SetComp):
        return node.generators
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        loop = node.args[0]
        if node.func.id in ("sorted", "set", "frozenset", "any", "all", "min", "max") and isinstance(
            loop, ast.GeneratorExp
        ):
            return loop.generators
    return []


def walks_over_sets(tree: ast.Module) -> Iterator[int]:
    """Lines where the elements of a set are taken one after the other, in an order that may differ from run to run."""
    scopes: list[ast.AST] = [
        tree,
        *(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)),
    ]
    for scope in scopes:
        sets = {
            target.id
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and is_set(node.value, set())
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        harmless = {id(loop) for node in ast.walk(scope) for loop in loops_into_no_order(node)}
        for node in ast.walk(scope):
            walked: list[ast.AST] = []
            if isinstance(node, ast.For | ast.comprehension) and id(node) not in harmless:
                walked.append(node.iter)
            elif isinstance(node, ast.Starred):
                walked.append(node.value)
            elif isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in (
                    "list",
                    "tuple",
                    "enumerate",
                    "iter",
                    "zip",
                    "map",
                    "filter",
                    "join",
                    "array",
                    "extend",
                    "fromkeys",
                ):
                    walked += node.args
                elif name == "pop" and isinstance(node.func, ast.Attribute) and not node.args:
                    walked.append(node.func.value)
            yield from (item.lineno for item in walked if is_set(item, sets))  # type: ignore[attr-defined]


@named([path for path in package_files() if path.relative_to(ROOT).parts[0] in ROOMS])
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    allowed = {room} | MAY_IMPORT[room]
    wrong = [f"line {line}: {target}" for line, target in imported_rooms(path) if target not in allowed]
    assert wrong == [], f"{relative(path)} may import {sorted(allowed)} relatively, and nothing else of the package"


@named(core_files())
def test_nothing_in_the_core_differs_from_run_to_run(path: Path) -> None:
    found = [f"line {line}: {what}" for line, what in unrepeatable(parsed(path))]
    if path.relative_to(ROOT) == Path("pipeline/clock.py"):
        found = [line for line in found if "time." not in line]
    if path.relative_to(ROOT) == Path("pipeline/cluster/local_cluster.py"):
        found = [line for line in found if "secrets" not in line]  # the token that guards a cluster
    assert found == [], f"{relative(path)}: time comes from pipeline/clock.py, numbers from pipeline/random.py"


@named(core_files())
def test_the_core_never_relies_on_the_order_of_a_set(path: Path) -> None:
    assert sorted(set(walks_over_sets(parsed(path)))) == [], f"{relative(path)}: sort it, or use a dict"


@named([path for path in package_files() if not path.name.startswith("_") and path.name != "jit.py"])
def test_public_modules_import_nothing_heavy(path: Path) -> None:
    found = []
    heavy = HEAVY - {"ray"} if path.parent == ROOT / "pipeline" / "cluster" else HEAVY  # loaded for runs on Ray alone
    waiting: list[ast.AST] = list(parsed(path).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in heavy]
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in heavy:
            found.append(str(node.module))
        waiting += ast.iter_child_nodes(node)
    assert found == [], f"{relative(path)}: import it inside the function that uses it, or in a private module"


@named([path for path in package_files() if not path.name.startswith("_") or path.name == "__init__.py"])
def test_public_modules_say_what_they_are_and_what_they_offer(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{relative(path)} has no docstring"
    if path.name == "__init__.py" and len(tree.body) == 1:
        return
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    assert len(lists) == 1, f"{relative(path)} has no __all__"
    offered = ast.literal_eval(lists[0])
    assert offered == sorted(set(offered), key=offered.index), f"{relative(path)}: a name is in __all__ twice"
    assert not [name for name in offered if name.startswith("_") and name != "__version__"]


@named(package_files())
def test_files_are_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("statement", ["import penstock", "from penstock import models, ops, sinks, sources"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert HEAVY & set(loaded) == set()
    assert "penstock" in loaded


def test_no_file_names_a_place_on_one_machine() -> None:
    homes = "|".join(["home", "root", "Users", "work", "mnt", "media"])
    place = re.compile(rf"(?<![\w.$}}/:-])/(?:{homes})/(?!someone/)\w")
    kinds = {".py", ".toml", ".md", ".txt", ".json", ".yml", ".yaml", ".cfg", ".sh", ""}
    found = []
    for path in tree_files():
        if path.suffix in kinds:  # somebody made up may live anywhere
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [f"{relative(path)}:{n}" for n, line in enumerate(lines, 1) if place.search(line)]
    assert found == []


def tree_files() -> Iterator[Path]:
    """The files that belong to the project: what git knows, or all that is not hidden or built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        yield from (path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())
        return
    built = {"build", "dist", "__pycache__"}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts)
        if (
            path.is_file()
            and not hidden
            and not built & set(parts)
            and not any(part.endswith(".egg-info") for part in parts)
        ):
            yield path


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import time\ntime.time()", "time.time"),
        ("from time import perf_counter as now\nnow()", "time.perf_counter"),
        ("import time as t\nt.sleep(1)", "time.sleep"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("import datetime as dt\ndt.datetime.utcnow()", "datetime.datetime.utcnow"),
        ("import random", "random"),
        ("from random import choice\nchoice([1])", "random.choice"),
        ("import numpy as np\nnp.random.default_rng(1)", "numpy.random.default_rng"),
        ("import numpy as np\nnp.random.rand()", "numpy.random.rand"),
        ("from numpy.random import default_rng\ndefault_rng()", "numpy.random.default_rng"),
        ("hash('a')", "hash()"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
    ],
)
def test_the_rule_about_time_and_chance_sees(code: str, expected: str) -> None:
    assert expected in [what for _, what in unrepeatable(ast.parse(code))]


@pytest.mark.parametrize(
    "code",
    [
        "import numpy as np\nnp.random.Generator(np.random.Philox(key=1))",
        "from datetime import datetime, timedelta\ndatetime.fromtimestamp(0) + timedelta(1)",
        "def f(clock):\n    return clock.time()",
        "from .random import generator\ngenerator('x', 1)",
    ],
)
def test_the_rule_about_time_and_chance_leaves_alone(code: str) -> None:
    assert list(unrepeatable(ast.parse(code))) == []


@pytest.mark.parametrize(
    "code",
    [
        "for x in {1, 2}: pass",
        "[x for x in set(y)]",
        "list({1, 2})",
        "', '.join(frozenset(y))",
        "def f():\n    s = {1} | other\n    return [x for x in s]",
        "(*{1, 2},)",
        "set(y).pop()",
        "enumerate(set(a).union(b))",
    ],
)
def test_the_rule_about_sets_sees(code: str) -> None:
    assert list(walks_over_sets(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "sorted({1, 2})",
        "x in {1, 2}",
        "len(set(y))",
        "for x in [1]: pass",
        "max(set(y))",
        "sorted({a for a in {1, 2}})",
        "any(a for a in {1, 2})",
    ],
)
def test_the_rule_about_sets_leaves_alone(code: str) -> None:
    assert list(walks_over_sets(ast.parse(code))) == []
