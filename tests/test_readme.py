"""README and docs are executed: a page's Python blocks run from top to bottom in one namespace, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = "README.md"
PAGES = [
    README,
    "docs/autograd.md",
    "docs/player.md",
    "docs/pictures.md",
    "docs/through_time.md",
    "docs/interchange.md",
]
NEEDS = {"docs/interchange.md": "torch"}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_blocks_run_and_print_what_they_promise(page, tmp_path, monkeypatch, capsys):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    monkeypatch.chdir(tmp_path)
    assert blocks(page, "python")
    namespace: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks(page, "python")):
        promised = re.findall(r"print\(.*\)\s+# (.*)$", block, re.M)
        exec(compile(block, f"{page}, block {number}", "exec"), namespace)
        assert capsys.readouterr().out.splitlines() == promised
    assert list(tmp_path.glob("*.svg")), "the example draws its picture"


LINKS = [
    (page.parent, path)
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        ROOT / "benchmarks/README.md",
        ROOT / "examples/README.md",
    ]
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
