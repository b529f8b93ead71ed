"""The README is executed: its Python blocks run from top to bottom in one namespace, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_the_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert blocks("python")
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)
    assert list(tmp_path.glob("*.svg")), "the example draws its picture"


def test_what_it_promises_to_print_is_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks("python"):
        promised = re.findall(r"print\(.*\)\s+# (.*)$", block, re.M)
        exec(block, namespace)
        assert capsys.readouterr().out.splitlines()[: len(promised)] == promised


PROSE = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", PROSE))))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


def test_the_two_commands_are_there():
    text = "\n".join(blocks("sh"))
    assert "pip install -e . && .venv/bin/tinygrad-rnn demo" in text
    assert 'pip install -e ".[test]" && .venv/bin/pytest' in text


@pytest.mark.parametrize(
    "room", sorted(p.name for p in (ROOT / "tinygrad_rnn").iterdir() if p.is_dir() and "__" not in p.name)
)
def test_every_room_of_the_house_is_listed(room):
    assert f"`{room}/`" in README
