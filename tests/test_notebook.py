"""The notebook runs from top to bottom and shows what it says; it is kept without outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

PATH = Path(__file__).parents[1] / "examples" / "gru_in_jupyter.ipynb"
PICTURES = ("image/svg+xml", "image/png")


def notebook() -> Any:
    return nbformat.read(PATH, as_version=4)


def code_cells(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def executed(book: Any, folder: Path) -> Any:
    """The notebook with its outputs, run in a folder."""
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    return book


def outputs(book: Any) -> Iterator[tuple[Any, Any]]:
    """Each cell with each of its outputs."""
    return ((cell, output) for cell in code_cells(book) for output in cell.outputs)


def test_it_is_kept_without_outputs():
    book = notebook()
    nbformat.validate(book)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(book))
    assert not [line for cell in code_cells(book) for line in cell.source.splitlines() if len(line) > 96]


@pytest.mark.filterwarnings("ignore")  # those of Jupyter's own processes
def test_a_cell_by_hand_that_is_wrong_is_noticed(tmp_path):
    book = notebook()
    at = next(i for i, cell in enumerate(book.cells) if "def gru(" in cell.source)
    assert book.cells[at].source.count("(1 - z) * h") == 1
    book.cells = book.cells[: at + 3]
    assert "tolist()" in executed(book, tmp_path).cells[-1].source, "as it is, it runs"
    book.cells[at].source = book.cells[at].source.replace("(1 - z) * h", "(1 - z) * n")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        executed(book, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_runs_from_top_to_bottom_and_shows_what_it_says(tmp_path):
    pytest.importorskip("matplotlib")
    found = list(outputs(executed(notebook(), tmp_path)))
    shown = [(cell, output.data) for cell, output in found if "data" in output]
    printed = "".join(output.text for _, output in found if output.output_type == "stream")
    assert not [output for _, output in found if output.get("name") == "stderr"]
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"

    (equations,) = [data["text/latex"] for _, data in shown if "text/latex" in data]
    assert r"h_t &= z_t \odot n_t + (1 - z_t) \odot h_{t-1}" in equations
    guess, learned, unseen = map(
        float, re.findall(r"a guess (\S+) nats; learned (\S+); on unseen text (\S+)", printed)[0]
    )
    assert max(learned, unseen) < guess / 2
    assert re.search(r"the reset gate: \S+ within words, \S+ past their end", printed)
    assert sum("<iframe title=" in data.get("text/html", "") for _, data in shown) == 1
    for cell, data in shown:
        if "text/html" in data:
            assert re.search(r"<title>[^<]+</title>|<iframe title=\"[^\"]+\"", data["text/html"])
        elif any(kind in data for kind in PICTURES):
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 20, cell.source
    assert sum("image/svg+xml" in data or "<svg" in data.get("text/html", "") for _, data in shown) >= 7
