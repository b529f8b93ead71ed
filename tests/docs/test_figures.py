"""What pages show of the benchmarks and of the command is what these say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from building import figures, listings

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    "number, shown",
    [(0.0889123, "0.0889"), (2.768, "2.77"), (13.95, "13.9"), (20, "20.0"), (284.6, "285"), (1479.5, "1,480")],
)
def test_three_digits(number: float, shown: str) -> None:
    assert figures.digits(number) == shown


def test_ratios_are_those_of_the_file() -> None:
    seconds = json.loads((RESULTS / f"{figures.CPU}.json").read_text())["sections"]["layers"]["seconds"]["LSTM"]
    at = "medium, forward + backward"
    ours, theirs = seconds["tinygrad_rnn"][at], seconds["torch layer"][at]
    assert figures.ratio("LSTM", "medium") == ours / theirs
    (row,) = [line for line in figures.layers("LSTM").splitlines() if line.startswith("| torch layer")]
    assert row.split(" | ")[3] == f"{theirs * 1000:.0f} ({ours / theirs:.2f})"


@pytest.mark.parametrize("made", [figures.layers("GRU after"), figures.layers("RNN"), figures.memory(), figures.gpu()])
def test_tables_have_a_cell_in_every_column(made: str) -> None:
    assert len({line.count("|") for line in made.splitlines()}) == 1 and len(made.splitlines()) > 4


def test_conditions_name_the_file_and_the_day() -> None:
    for name in (figures.CPU, figures.GPU):
        assert f"`benchmarks/results/{name}.json`" in figures.conditions(name) and "2026-11-26" in figures.conditions(
            name
        )
    assert "H100" in figures.conditions(figures.GPU)


def test_operators_and_methods_lead_into_the_reference() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "functions.md").read_text("utf-8")
    links = re.findall(r"<tinygrad_rnn\.(\w+)>", listings.operators() + listings.methods())
    assert len(links) > 40 and all(f".. autofunction:: {name}\n" in page for name in links)
    assert "| `x @ y` | {py:func}`tg.matmul <tinygrad_rnn.matmul>` |" in listings.operators()


def test_the_command_says_what_it_takes() -> None:
    assert listings.command_help("gates").startswith("```text\nusage: tinygrad-rnn gates")
    assert "--checkpoint DIR" in listings.command_help("gates") and "demo" in listings.command_help()
