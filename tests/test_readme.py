"""README is executed, and of the pages the blocks that the site does not run, since they need other libraries.

The blocks of a page, and its cells between them, run from top to bottom in one namespace, in an empty folder.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = "README.md"
NEEDS = {
    README: (),
    "docs/coming_from_pytorch.md": ("torch",),
    "docs/interchange.md": ("torch", "onnx", "h5py"),
}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def code(page: str) -> list[tuple[bool, str]]:
    """The Python of a page in its order, and whether it promises what it prints: the cells of a page show it."""
    found = re.findall(
        r"^```(\{code-cell\} )?python\n((?::[^\n]*\n)*)(.*?)^```", (ROOT / page).read_text(), re.M | re.S
    )
    return [(not cell, block) for cell, _, block in found]


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


# The build of the site looks at the links of its pages.
LINKS = [
    (page.parent, path)
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md")
    for path in sorted(
        set(re.findall(r"\]\((?!https?:)([^)#]+)\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)))
    )
]


@pytest.mark.parametrize(("folder", "path"), LINKS, ids=[path for _, path in LINKS])
def test_links_lead_somewhere(folder, path):
    assert (folder / path).exists()


def test_the_two_commands_are_there():
    text = "\n".join(blocks(README, "sh"))
    assert "pip install -e . && .venv/bin/tinygrad-rnn demo" in text
    assert 'pip install -e ".[test]" && .venv/bin/pytest' in text


@pytest.mark.parametrize(
    "room", sorted(p.name for p in (ROOT / "tinygrad_rnn").iterdir() if p.is_dir() and "__" not in p.name)
)
def test_every_room_of_the_house_is_listed(room):
    assert f"`{room}/`" in (ROOT / README).read_text()
