"""The layout of the house: who may import whom, and what may not be in a file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tinygrad_rnn"
FLOORS = {
    "errors": 0, "backend": 1, "core": 2, "ops": 3, "functions": 4, "transforms": 5, "nn": 5, "optim": 5, "train": 6,
    "see": 7, "testing": 7, "interop": 7, "lab": 8,
}  # fmt: skip
ENTRANCES = {"cli", "__init__"}


def room(module: Path) -> str:
    """The folder or single file of the package that a module belongs to."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path, source: str) -> set[str]:
    """The rooms of the package that a module imports, wherever in the file it does so."""
    package = ("tinygrad_rnn", *module.relative_to(PACKAGE).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) - node.level + 1], node.module or ""] if node.level else [node.module or ""]
            )
            names = [f"{base.rstrip('.')}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("tinygrad_rnn.")}
    return found


def broken_laws(module: Path, source: str) -> list[str]:
    """Every import of a module that its floor does not allow."""
    own, broken = room(module), []
    if own in ENTRANCES:
        return []
    for other in imports(module, source) - {own}:
        if other not in FLOORS or FLOORS[other] >= FLOORS[own]:
            broken.append(f"{module.relative_to(PACKAGE)} ({own}) imports {other}")
    return broken


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_go_downward(module):
    assert room(module) in FLOORS.keys() | ENTRANCES, "a new room needs its floor in this table"
    assert broken_laws(module, module.read_text()) == []


@pytest.mark.parametrize(
    "place, line",
    [
        ("core/tensor.py", "from ..ops.matmul import matmul"),
        ("ops/shapes.py", "from ..nn import Linear"),
        ("nn/cells.py", "def f():\n    from ..see.graph import Graph"),
        ("train/loop.py", "import tinygrad_rnn.see.drawing"),
        ("backend/base.py", "from ..core import modes"),
        ("see/tables.py", "from ..testing import gradcheck"),
    ],
)
def test_an_import_upward_is_caught(place, line):
    assert broken_laws(PACKAGE / place, line)


def cycles(folder: dict[str, set[str]]) -> list[str]:
    """The modules of one folder that import each other in a circle."""
    left = dict(folder)
    while free := [name for name, needs in left.items() if not needs & left.keys() - {name}]:
        for name in free:
            del left[name]
    return sorted(left)


def neighbours(module: Path) -> set[str]:
    """The modules of its own folder that a module imports."""
    names = {path.stem for path in module.parent.glob("*.py")}
    tree, found = ast.parse(module.read_text()), set()
    for branch in [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]:
        tree.body.remove(branch)  # what only a type checker reads is not imported
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {(node.module or "").split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found & names


@pytest.mark.parametrize("folder", sorted({m.parent for m in MODULES} - {PACKAGE}), ids=lambda f: f.name)
def test_no_circle_within_a_folder(folder):
    assert cycles({m.stem: neighbours(m) for m in folder.glob("*.py") if m.stem != "__init__"}) == []


def test_a_circle_is_caught():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("module", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda m: m.stem)
def test_rules_and_kernels_know_no_numpy(module):
    """A rule that calls numpy is right at first order and dead at second; a kernel that does is dead on a GPU."""
    assert not re.search(r"^\s*(import|from) numpy", module.read_text(), re.M)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_a_file_says_what_it_promises(module):
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    assert docstring and len(docstring.splitlines()[0]) > 15
