"""The table of notations, by which a reader finds the own lecture slides again, says what the slides write."""

from __future__ import annotations

import re
from pathlib import Path

from tinygrad_rnn import nn

PAGE = Path(__file__).parents[2] / "docs" / "recurrent_cells.md"
# What each deck calls what the package calls so: the package, deck A, deck C, deck D, the meaning. Read off the slides.
MAPPING = [
    ("h_t", "h_t", "a⟨t⟩ = c⟨t⟩", "h_t", "hidden state"),
    ("z_t", "U_g", "Γ_u", "z_t", "update gate"),
    ("r_t", "R_g", "Γ_r", "r_t", "reset"),
    ("n_t", "ĥ_t", "c̃⟨t⟩", "h̃_t", "candidate hidden state"),
    ("x_t W + h_{t-1} U", "X W_{xu} + h W_{hu}", "", "W_z x + U_z h", "written split"),
    ("", "W_u [X_t, h_{t-1}]", "W_u [c⟨t-1⟩, x⟨t⟩]", "", "concatenated"),
    ("`order=`", '`"xh"`', '`"hx"`', "", "the order of the blocks"),
    ("`reset=`", '`"before"`', '`"before"`', '`"after"`', "where the reset gate acts"),
    ("`update=`", '`"new"`', '`"new"`', '`"new"`', "what z = 1 takes"),
]
UNICODE = {r"\hat{h}": "ĥ", r"\tilde{h}": "h̃", r"\tilde{c}": "c̃", r"\Gamma": "Γ", r"\langle ": "⟨", r" \rangle": "⟩"}


def plain(cell: str) -> str:
    """A cell of the table as text."""
    for latex, letter in UNICODE.items():
        cell = cell.replace(latex, letter)
    return re.sub(r"\^\{(⟨.*?⟩)\}", r"\1", cell).replace("$", "").strip()


def test_each_deck_writes_what_the_table_says() -> None:
    (table,) = re.findall(r"^\| here \| deck A \| deck C \| deck D \| meaning \|\n(?:\|.*\n)+", PAGE.read_text(), re.M)
    rows = [[plain(cell) for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [tuple(row[:4]) for row in rows] == [row[:4] for row in MAPPING]
    assert all(wanted[4] in row[4] for row, wanted in zip(rows, MAPPING, strict=True))


def test_the_letters_and_options_of_the_table_are_those_of_the_cell() -> None:
    here = [row[0] for row in MAPPING]
    cell = nn.GRUCell(2, 3)
    assert [f"{letter}_t" for letter in cell.gates] == here[1:4]
    for _, *decks, meaning in MAPPING[-3:]:
        assert meaning
        for deck in filter(None, decks):
            word = deck.strip('`"')
            if meaning.startswith("the order"):
                assert cell.to_concatenated(word)["weights"]["z"].shape == (5, 3)
            else:
                option = "reset" if "reset" in meaning else "update"
                assert getattr(nn.GRUCell(2, 3, **{option: word}), option) == word
    assert (cell.reset, cell.update) == ("before", "new"), "what decks A and C have is the default"
