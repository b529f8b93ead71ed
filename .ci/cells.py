"""Holds the code in the cells of the pages against ruff's format, which does not look there; `--fix` formats it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CELL = re.compile(r"(?P<head>^```\{code-cell\} python\n(?::[^\n]*\n)*)(?P<code>.*?)(?=^```$)", re.M | re.S)
FORMAT = ["ruff", "format", "--quiet", "--line-length", "88"]  # which fits a page


def main(fix: bool) -> int:
    """Returns the exit status: 1, if a cell is not as ruff would have it."""
    status = 0
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text("utf-8")
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{page.stem}-cell-{n}.py" for n, _ in enumerate(CELL.finditer(text))]
            for file, cell in zip(files, CELL.finditer(text)):
                file.write_text(cell["code"], "utf-8")
            if files and fix:
                subprocess.run([*FORMAT, folder], check=True)
                made = iter([file.read_text("utf-8") for file in files])
                page.write_text(CELL.sub(lambda cell, made=made: cell["head"] + next(made), text), "utf-8")
            elif files:
                status |= subprocess.run([*FORMAT, "--check", folder]).returncode
    return status


if __name__ == "__main__":
    sys.exit(main("--fix" in sys.argv[1:]))
