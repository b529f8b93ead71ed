"""What the pages name is there: functions, options of the command, files of the project."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
from typing import Any

import pytest
from pages import NOTEBOOKS, PAGES, ROOT, SITE, blocks, prose, text_of

import tinygrad_rnn as tg
from tinygrad_rnn.cli.command import _parser
from tinygrad_rnn.see import flow

SOURCES = [*PAGES, *NOTEBOOKS]
ROOMS = {"tg": tg, "tinygrad_rnn": tg, "lab": tg.lab, "interop": tg.interop, "flow": flow}
"""What pages call a part of the package, once they have imported it."""
NAME = re.compile(rf"(?<!-m )(?<![\w.`/\-\"'])(?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+")
FILE = re.compile(r"(?<![\w./-])(?:[\w-]+/)+[\w-]+\.(?:py|md|cuh|ipynb|json|toml)\b")
PLACES = ("", "tinygrad_rnn", "docs", "examples", "tests", "benchmarks")


def code(text: str) -> str:
    """All code of a page: its blocks, and what stands between backticks."""
    return "\n".join([*[block.text for block in blocks(text)], *re.findall(r"`([^`\n]+)`", prose(text))])


def missing(name: str) -> str:
    """The part of a dotted name that is not there; "" if all of it is."""
    first, *parts = name.split(".")
    owner: Any = ROOMS[first]
    for part in parts:
        if not hasattr(owner, part):
            try:
                importlib.import_module(f"{owner.__name__}.{part}")
            except (ImportError, AttributeError, TypeError):
                fields = {f.name for f in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else set()
                return "" if part in fields or part in getattr(owner, "__annotations__", {}) else part
        owner = getattr(owner, part)
        if not (isinstance(owner, type) or hasattr(owner, "__path__") or type(owner).__name__ == "module"):
            return ""  # what a function returns has names that nobody can look up here
    return ""


@pytest.mark.parametrize("page", SOURCES, ids=lambda page: page.name)
def test_names_of_the_package_are_spelled_right(page):
    wrong = {name: part for name in NAME.findall(code(text_of(page))) if (part := missing(name))}
    assert not wrong, f"{page.name} names what is not there: {wrong}"


@pytest.mark.parametrize(
    "name", ["tg.tahn", "tg.nn.GRUCel", "tinygrad_rnn.see.flaw", "tg.nn.GRU.heads", "tg.optim.adam2", "lab.symtom"]
)
def test_a_name_that_is_not_there_is_noticed(name):
    assert missing(name)


@pytest.mark.parametrize(
    "name", ["tg.tanh", "tg.nn.GRUCell", "tinygrad_rnn.see.flow.decay", "tg.nn.GRU.num_layers", "tg.optim.Adam"]
)
def test_a_name_that_is_there_is_found(name):
    assert not missing(name)


def words_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser by their words, as far down as they go."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                found[word] = inner
                found |= {f"{word} {more}": one for more, one in words_of(inner).items()}
    return found


COMMANDS = words_of(_parser())


def misspelled(line: str) -> str:
    """What is wrong with a line that calls the command; "" if nothing is."""
    words = line.split("#")[0].split()
    known = max((n for n in (1, 2) if " ".join(words[:n]) in COMMANDS), default=0)
    if not known:
        return "" if not words or words[0].startswith("-") or words[0] in ("…", "...") else words[0]
    options = COMMANDS[" ".join(words[:known])]._option_string_actions
    return next((w for w in words[known:] if w.startswith("--") and w.split("=")[0] not in options), "")


@pytest.mark.parametrize("page", SOURCES, ids=lambda page: page.name)
def test_the_command_takes_what_the_pages_say(page):
    lines = re.findall(r"(?:^|[\s/`!])tinygrad-rnn +([a-z-][^\n`|&\"\\]*)", code(text_of(page)))
    wrong = [(line, word) for line in lines if (word := misspelled(line))]
    assert not wrong, f"{page.name} gives the command what it does not take: {wrong}"


@pytest.mark.parametrize("line", ["trian --text x", "train --txet x", "gates --check"])
def test_a_wrong_word_is_noticed(line):
    assert misspelled(line)


@pytest.mark.parametrize("line", ["train --text x --steps 3", "demo", "convert a.onnx b.keras --check", "--version"])
def test_a_right_word_passes(line):
    assert not misspelled(line)


def homeless(text: str) -> list[str]:
    """The files that a page names and the project does not have."""
    spans = "\n".join(re.findall(r"`([^`\n]+)`", prose(text)))
    return [name for name in FILE.findall(spans) if not any((ROOT / place / name).exists() for place in PLACES)]


@pytest.mark.parametrize("page", SOURCES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    assert homeless(text_of(page)) == []


def test_a_file_that_is_not_there_is_noticed():
    assert homeless("see `nn/equation.py`, and `nn/equations.py`") == ["nn/equation.py"]


LINKED = [
    (page, target)
    for page in PAGES
    if page not in SITE
    for target in sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", prose(text_of(page)))))
]


@pytest.mark.parametrize(("page", "target"), LINKED, ids=lambda each: getattr(each, "name", each))
def test_links_of_what_is_not_on_the_site_lead_somewhere(page, target):
    """Sphinx looks after those of the site."""
    assert (page.parent / target).exists()
