"""README is executed, and of the pages the blocks that the site does not run, since they need other libraries.

The blocks of a page, and its cells between them, run from top to bottom in one namespace, in an empty folder.
"""

from __future__ import annotations

import re

import pytest
from pages import CELL, ROOT, blocks

README = "README.md"
NEEDS = {
    README: (),
    "docs/coming_from_pytorch.md": ("torch",),
    "docs/interchange.md": ("torch", "onnx", "h5py"),
}


def code(page: str) -> list[tuple[bool, str]]:
    """The Python of a page in its order, and whether it promises what it prints: the cells of a page show it."""
    found = blocks((ROOT / page).read_text("utf-8"))
    return [(each.language == "python", each.text) for each in found if each.language in ("python", CELL)]


@pytest.mark.parametrize("page", NEEDS)
def test_the_python_blocks_run_and_print_what_they_promise(page, tmp_path, monkeypatch, capsys):
    for library in NEEDS[page]:
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    assert any(promises for promises, _ in code(page))
    namespace: dict[str, object] = {"__name__": "page"}
    for number, (promises, block) in enumerate(code(page)):
        promised = re.findall(r"print\(.*\)\s+# (.*)$", block, re.M)
        exec(compile(block, f"{page}, block {number}", "exec"), namespace)
        printed = capsys.readouterr().out.splitlines()
        assert not promises or printed == promised
    assert page != README or list(tmp_path.glob("*.svg")), "the example draws its picture"


def test_blocks_and_cells_are_told_apart(tmp_path, monkeypatch):
    page = "```python\nprint(1)  # 1\n```\n\n```{code-cell} python\n:tags: [wrap]\nprint(2)\n```\n\n```sh\nls\n```\n"
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert code("page.md") == [(True, "print(1)  # 1\n"), (False, "print(2)\n")]


def test_the_two_commands_are_there():
    text = "\n".join(each.text for each in blocks((ROOT / README).read_text("utf-8")) if each.language == "sh")
    assert "pip install -e . && .venv/bin/tinygrad-rnn demo" in text
    assert 'pip install -e ".[test]" && .venv/bin/pytest' in text


@pytest.mark.parametrize(
    "room", sorted(p.name for p in (ROOT / "tinygrad_rnn").iterdir() if p.is_dir() and "__" not in p.name)
)
def test_every_room_of_the_house_is_listed(room):
    assert f"`{room}/`" in (ROOT / README).read_text()
